"""The audio format of the WebSocket and how it is cut (protocol.md 5.12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navtalk_proto.errors import LocalProtocolError

__all__ = ["CHANNELS", "FRAME_BYTES", "SAMPLE_RATE", "SAMPLE_WIDTH", "duration", "split_pcm"]

SAMPLE_RATE: Final = 24_000
"""Samples per second."""

SAMPLE_WIDTH: Final = 2
"""Bytes per sample: signed 16 bits, little-endian."""

CHANNELS: Final = 1
"""Mono."""

FRAME_BYTES: Final = 3072
"""What stock clients put in one message: 1536 samples, 64 ms, 4096 base64 characters."""


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


def duration(pcm: bytes) -> float:
    """How long raw PCM16, mono, 24,000 Hz plays, in seconds."""
    return len(pcm) / (SAMPLE_RATE * SAMPLE_WIDTH * CHANNELS)
