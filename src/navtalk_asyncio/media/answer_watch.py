"""When an answer is first heard and first seen, for one engine: see TurnLatency.

What is decoded for a reader is listened to. Where nobody reads the sound, Opus packets are decoded
here, on the loop, while somebody waits for an answer or reads the pictures. What the pictures of a
silent human do is learned from those that are decoded for a reader.
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
"""Of so many packets one is listened to while nobody waits: a tenth of a second is soon enough to
learn that a human is silent, and each costs a tenth of a millisecond on the loop."""

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
        """Pieces of sound since the last one that was listened to."""
        self._looking = False
        """Whether the last picture was looked at: one more is, to notice the pause."""

    def wait(self, told: AnswerTold | None) -> None:
        """From now on for `told`; None: nobody waits."""
        self.told = told
        self._sound = SoundWatch()

    def sound(self, frame: EncodedFrame) -> None:
        """An Opus packet that is not decoded for a reader; to be given while somebody waits, or
        reads the pictures."""
        if frame.codec.lower() != "opus" or self._passes():
            return
        if self._decoder is None:
            self._decoder = av.CodecContext.create("libopus", "r")
            self._decoder.format = "s16"
            self._decoder.layout = "stereo"
            self._decoder.sample_rate = 48_000
        try:
            frames = self._decoder.decode(av.Packet(frame.data))
        except av.FFmpegError:
            return
        self._listen(b"".join(map(_pcm, frames)), frame.arrival)

    def decoded_sound(self, frame: Any, arrival: float) -> None:
        """A piece of sound that was decoded for a reader; to be given at the same times."""
        if not self._passes():
            self._listen(_pcm(frame), arrival)

    def _passes(self) -> bool:
        """Whether the next piece is not listened to."""
        self._passed += 1
        if self.told is None and self._passed < IDLE_LISTEN:
            return True
        self._passed = 0
        return False

    def _listen(self, pcm: bytes, arrival: float) -> None:
        self._heard = arrival
        if is_voice(pcm):
            self._audible = arrival
        if self._sound.heard(pcm, at=arrival) and self.told is not None:
            self.told(MediaKind.AUDIO, arrival)

    @property
    def looks(self) -> bool:
        """Whether pictures are to be given. May be asked on any thread."""
        return self.told is not None or self._looking or self._is_idle

    @property
    def _is_idle(self) -> bool:
        return self.told is None and self._heard - self._audible > IDLE_SECONDS

    def picture(self, frame: Any, arrival: float) -> None:
        """A decoded picture."""
        idle = self._is_idle
        self._looking = idle or self.told is not None
        if idle or self.told is not None:
            changed = self._pictures.picture(_grid(frame), idle=idle)
            if changed and self.told is not None:
                self.told(MediaKind.VIDEO, arrival)
        else:
            self._pictures.pause()


def _pcm(frame: Any) -> bytes:
    """The samples of 16-bit, interleaved sound, as all of aiortc's decoders give it."""
    return bytes(frame.planes[0])[: frame.samples * 2 * len(frame.layout.channels)]


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
