"""Tools: Python functions that the model may call (protocol.md 5.8, 5.16, 5.17)."""
