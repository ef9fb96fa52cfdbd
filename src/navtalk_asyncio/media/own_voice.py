"""The user's own voice as a track of a recording: PCM in, Opus packets with their times out.

The voice goes to the server as PCM over the WebSocket, so there are no packets to copy: it is the
one thing that a recording encodes without being asked twice. Mono Opus of 20 ms costs less than a
hundredth of a core.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import av
from attrs import frozen

from navtalk_asyncio.media.opus_packets import silence
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH

__all__ = ["BEHIND_TICKS", "OwnVoice", "Said"]

_PACKET_BYTES: Final = SAMPLE_RATE * SAMPLE_WIDTH // 50
_PACKET_TICKS: Final = 960
_TICKS: Final = 48_000 // SAMPLE_RATE

TOGETHER_TICKS: Final = 48_000 * 8 // 100
"""Pieces no more than 80 ms apart are one utterance: they are sent in real time, more or less."""

SILENT_TICKS: Final = 24_000
"""After half a second without a piece the track is silent up to :data:`BEHIND_TICKS` before now,
so that it never holds the other tracks back."""

BEHIND_TICKS: Final = 12_000
"""A quarter of a second."""


@frozen
class Said:
    """A piece of the user's voice: PCM16, mono, 24,000 Hz, and when it was sent."""

    pcm: bytes
    at: float
    """Monotonic seconds."""


class OwnVoice:
    """Encodes what is said; what is said faster than it is spoken lasts as long as it takes.

    Times are in 1/48,000 s. Both methods yield packets with their times, without a hole.
    """

    def __init__(self, *, begins: int = 0) -> None:
        """`begins` is where the first packet may be."""
        self._encoder: Any = av.CodecContext.create("libopus", "w")
        self._encoder.sample_rate = SAMPLE_RATE
        self._encoder.format, self._encoder.layout = "s16", "mono"
        self._encoder.bit_rate = 32_000
        self._encoder.options = {"application": "voip"}
        self._encoder.time_base = Fraction(1, SAMPLE_RATE)
        self._rest = b""
        self._end = begins

    @property
    def end(self) -> int:
        """Where the next packet begins."""
        return self._end

    def say(self, pcm: bytes, at: int) -> Iterator[tuple[bytes, int, int]]:
        """A piece that was sent at `at`: (packet, time, length)."""
        begins = self._end + len(self._rest) // SAMPLE_WIDTH * _TICKS
        if at > begins + TOGETHER_TICKS:
            yield from self._finish()
            yield from self._silence(at - self._end)
        self._rest += pcm
        while len(self._rest) >= _PACKET_BYTES:
            piece, self._rest = self._rest[:_PACKET_BYTES], self._rest[_PACKET_BYTES:]
            yield from self._encode(piece)

    def silent(self, now: int, *, after: int = SILENT_TICKS) -> Iterator[tuple[bytes, int, int]]:
        """Nothing was said up to `now`: silence, if that is `after` or more behind the end."""
        if now - self._end >= after:
            yield from self._finish()
            yield from self._silence(now - BEHIND_TICKS - self._end)

    def _finish(self) -> Iterator[tuple[bytes, int, int]]:
        if self._rest:
            piece, self._rest = self._rest.ljust(_PACKET_BYTES, b"\0"), b""
            yield from self._encode(piece)

    def _silence(self, ticks: int) -> Iterator[tuple[bytes, int, int]]:
        for packet, length in silence(ticks, stereo=False):
            yield packet, self._end, length
            self._end += length

    def _encode(self, piece: bytes) -> Iterator[tuple[bytes, int, int]]:
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(piece) // SAMPLE_WIDTH)
        frame.planes[0].update(piece)
        frame.sample_rate = SAMPLE_RATE
        frame.time_base = Fraction(1, SAMPLE_RATE)
        frame.pts = self._end // _TICKS
        for packet in self._encoder.encode(frame):
            yield bytes(packet), self._end, _PACKET_TICKS
            self._end += _PACKET_TICKS
