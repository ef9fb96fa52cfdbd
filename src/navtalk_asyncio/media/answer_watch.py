"""When an answer is first heard and first seen, for one engine: see TurnLatency.

Opus packets are decoded here, on the loop, while somebody waits for an answer or reads the
pictures: a decoder thread is not started for it, and a packet takes a tenth of a millisecond. What
the pictures of a silent human do is learned from those that are decoded for a reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import av

from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_proto.media import MediaKind
from navtalk_proto.turn_latency import PictureWatch, SoundWatch, is_voice

__all__ = ["AnswerTold", "AnswerWatch"]

AnswerTold = Callable[[MediaKind, float], None]
"""Called with AUDIO when a sound begins, with VIDEO for a picture that changed, and with when it
came."""

GRID: Final = 32
"""Samples of brightness in each direction of a picture."""

IDLE_LISTEN: Final = 5
"""Of so many packets one is decoded while nobody waits: a tenth of a second is soon enough to learn
that a human is silent, and each packet costs a tenth of a millisecond on the loop."""

IDLE_SECONDS: Final = 0.4
"""Silence after which the pictures are those of a human that does not speak: the mouth has shut."""


class AnswerWatch:
    """Listens and looks, while somebody wants to know."""

    def __init__(self) -> None:
        self.told: AnswerTold | None = None
        """Who waits for an answer."""
        self._sound = SoundWatch()
        self._pictures = PictureWatch()
        self._decoder: Any = None
        self._audible = float("-inf")
        self._heard = float("-inf")
        self._passed = 0
        """Packets since the last one that was decoded."""

    def wait(self, told: AnswerTold | None) -> None:
        """From now on for `told`; None: nobody waits."""
        self.told = told
        self._sound = SoundWatch()

    def sound(self, frame: EncodedFrame) -> None:
        """An Opus packet; to be given while somebody waits, or reads the pictures."""
        if frame.codec.lower() != "opus":
            return
        self._passed += 1
        if self.told is None and self._passed < IDLE_LISTEN:
            return
        self._passed = 0
        if self._decoder is None:
            self._decoder = av.CodecContext.create("libopus", "r")
            self._decoder.format = "s16"
            self._decoder.layout = "stereo"
            self._decoder.sample_rate = 48_000
        try:
            pcm = b"".join(
                bytes(decoded.planes[0])[: decoded.samples * 4]
                for decoded in self._decoder.decode(av.Packet(frame.data))
            )
        except av.FFmpegError:
            return  # the reader's decoder says so
        self._heard = frame.arrival
        if is_voice(pcm):
            self._audible = frame.arrival
        if self._sound.heard(pcm, at=frame.arrival) and self.told is not None:
            self.told(MediaKind.AUDIO, frame.arrival)

    def picture(self, frame: Any, arrival: float) -> None:
        """A decoded picture."""
        idle = self.told is None and self._heard - self._audible > IDLE_SECONDS
        if idle or self.told is not None:
            changed = self._pictures.picture(_grid(frame), idle=idle)
            if changed and self.told is not None:
                self.told(MediaKind.VIDEO, arrival)
        else:
            self._pictures.pause()


def _grid(frame: Any) -> bytes:
    """GRID x GRID samples of the luma plane."""
    plane = frame.planes[0]
    line = plane.line_size
    luma = memoryview(plane)
    across, down = max(frame.width // GRID, 1), max(frame.height // GRID, 1)
    return b"".join(
        bytes(luma[y * line + across // 2 : y * line + frame.width : across])
        for y in range(down // 2, frame.height, down)
    )
