"""The audio format of the WebSocket and how it is cut (protocol.md 5.12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navtalk_proto.errors import LocalProtocolError

__all__ = [
    "CHANNELS",
    "FRAME_BYTES",
    "HOLD_SECONDS",
    "MIN_FRAME_BYTES",
    "SAMPLE_RATE",
    "SAMPLE_WIDTH",
    "FrameAssembler",
    "duration",
    "split_pcm",
]

SAMPLE_RATE: Final = 24_000
"""Samples per second."""

SAMPLE_WIDTH: Final = 2
"""Bytes per sample: signed 16 bits, little-endian."""

CHANNELS: Final = 1
"""Mono."""

FRAME_BYTES: Final = 3072
"""What stock clients put in one message: 1536 samples, 64 ms, 4096 base64 characters."""

MIN_FRAME_BYTES: Final = 960
"""Less than this waits for more: 480 samples, 20 ms. A message's JSON is 70 bytes, so that smaller
ones cost more than the voice in them; 20 ms is what codecs and detectors of voice work on."""

HOLD_SECONDS: Final = 0.04
"""How long less than a frame waits, from its first byte. A microphone fills a frame in 20 ms; the
rest is for callbacks that come late. Longer would be heard as delay at the end of what is said."""


def split_pcm(pcm: bytes, frame_bytes: int = FRAME_BYTES) -> Iterator[bytes]:
    """Cut raw PCM16 into pieces of `frame_bytes` bytes, the last one shorter; empty gives none.

    Each piece is a whole number of samples and is base64-encoded alone (protocol.md 5.12). Raises
    LocalProtocolError at the call for half a sample in `pcm` or `frame_bytes`, or no frame size.
    """
    if len(pcm) % SAMPLE_WIDTH:
        raise LocalProtocolError("audio of an odd number of bytes is not PCM16")
    if frame_bytes <= 0 or frame_bytes % SAMPLE_WIDTH:
        raise LocalProtocolError("a frame is a positive, even number of bytes")
    return (pcm[at : at + frame_bytes] for at in range(0, len(pcm), frame_bytes))


class FrameAssembler:
    """Joins what a client says in tiny chunks, and cuts what it says in big ones.

    One belongs to a client's connection, which calls it for SendAudio and flushes it HOLD_SECONDS
    after :attr:`held` was 0 last. Messages have 960 to 3,072 bytes; only what :meth:`flush` gives
    may have less. What is held is always less than a message, so that nothing here needs a limit.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    @property
    def held(self) -> int:
        """Bytes that wait for more: 0, or at least 2 and less than MIN_FRAME_BYTES."""
        return len(self._held)

    def push(self, pcm: bytes) -> list[bytes]:
        """Add raw PCM16; returns the audio of the messages to be sent now, in order.

        Either nothing leaves, or everything does: the last two share what is left, where the last
        alone would be less than a message. Copies each piece once. Raises LocalProtocolError for an
        odd number of bytes, and holds what it held then.
        """
        if len(pcm) % SAMPLE_WIDTH:
            raise LocalProtocolError("PCM16 audio has an even number of bytes")
        total = len(self._held) + len(pcm)
        if total < MIN_FRAME_BYTES:
            self._held += pcm
            return []
        head, self._held = self._held, b""
        pieces = []
        at = 0
        left = total
        with memoryview(pcm) as view:
            while left:
                size = min(left, FRAME_BYTES)
                if 0 < left - size < MIN_FRAME_BYTES:
                    size = left - MIN_FRAME_BYTES
                until = at + size - len(head)
                pieces.append(b"".join((head, view[at:until])))
                at, head = until, b""
                left -= size
        return pieces

    def flush(self) -> bytes:
        """Take what is held, to be sent however small; empty when there is nothing."""
        held, self._held = self._held, b""
        return held

    def clear(self) -> int:
        """Drop what is held; returns how many bytes that were."""
        return len(self.flush())


def duration(pcm: bytes) -> float:
    """How long raw PCM16, mono, 24,000 Hz plays, in seconds."""
    return len(pcm) / (SAMPLE_RATE * SAMPLE_WIDTH * CHANNELS)
