"""What is on the wire: messages, their JSON, the endpoint URL and the audio format."""
