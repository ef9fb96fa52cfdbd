"""What an application may ask a connection to do, besides feeding it.

Most intents are the messages themselves: ``send(SessionUpdated())`` on a server,
``send(InputConfig(voice="cedar"))`` on a client. Signaling messages are not among them: offers,
answers and candidates leave when the negotiation machine says so.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen, validators

from navtalk_proto.media import MediaLine
from navtalk_proto.wire.messages import ClientMessage, ServerMessage

__all__ = ["Close", "Negotiate", "SendAudio", "SayText", "Intent"]


@frozen(kw_only=True)
class Close:
    """End the connection with a WebSocket close; there is no goodbye message (protocol.md 3.1).

    `code` is 1000, 1001, 1008, 1011, 1013, or in 3000 to 4999 (RFC 6455 section 7.4); `reason` has
    at most 123 bytes of UTF-8.
    """

    code: int = 1000
    reason: str = ""


@frozen(kw_only=True)
class Negotiate:
    """Offer these m-lines (seed step 5). It ends in a Negotiated or a NegotiationFailed event."""

    media: tuple[MediaLine, ...] = field(
        validator=validators.deep_iterable(validators.instance_of(MediaLine))
    )


@frozen(kw_only=True)
class SendAudio:
    """The user's voice: PCM16 little-endian, mono, 24,000 Hz, a whole number of samples.

    Cut into messages of 20 to 64 ms whose base64 decodes alone (protocol.md 5.12). Less than 20 ms
    waits for more, at most 40 ms; another message of ours, or Close, lets it leave before itself,
    AudioClear drops it.
    """

    pcm: bytes = field(repr=lambda pcm: f"<{len(pcm)} bytes>")


@frozen(kw_only=True)
class SayText:
    """Typed text: a user message, and a request for a response unless `respond` is False (5.9)."""

    text: str
    respond: bool = True


Intent: TypeAlias = Close | Negotiate | SendAudio | SayText | ClientMessage | ServerMessage
