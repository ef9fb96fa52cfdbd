"""The first generation of the protocol, for recognition only (protocol.md 6.1).

It had two sockets, one for the conversation with OpenAI's own event names and one for signaling
without a prefix. Nothing of it is understood here; who meets it is told so, and not left waiting.
"""

from __future__ import annotations

from typing import Final

from navtalk_proto.roles import Role

__all__ = ["REASON", "is_obsolete"]

REASON: Final = "this is version 1 of the protocol, with two sockets; only version 2 is spoken here"

_SIGNALING: Final = frozenset({"offer", "answer", "iceCandidate"})

_TYPES: Final = {
    Role.SERVER: _SIGNALING
    | {
        "session.created",
        "session.updated",
        "session.session_id",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "conversation.item.input_audio_transcription.completed",
        "response.audio_transcript.delta",
        "response.audio_transcript.done",
        "response.audio.delta",
        "response.audio.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
    },
    # What else a version 1 client sends is spelled as in version 2 (protocol.md 4.2).
    Role.CLIENT: _SIGNALING | {"create"},
}


def is_obsolete(type: str, *, sender: Role) -> bool:
    """Whether an unknown type string is one that only version 1 had."""
    return type in _TYPES[sender]
