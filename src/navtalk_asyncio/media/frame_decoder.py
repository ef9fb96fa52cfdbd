"""From encoded frames to PyAV's, with the decoders of aiortc.

A picture takes a decoder one to ten milliseconds and is decoded on a thread. A packet of Opus takes
it 0.03 ms, and two changes of threads take several times that: sound is decoded where it arrives.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import av
from aiortc.codecs import get_decoder

from navtalk_proto.stream_meter import Mean

__all__ = ["FrameDecoder", "open_decoder"]

logger: Final = logging.getLogger("navtalk.media")


def open_decoder(codec: Any) -> Any:
    """A decoder of aiortc's for a codec of aiortc's."""
    decoder: Any = get_decoder(codec)
    context = getattr(decoder, "codec", None)
    if codec.name == "VP8" and context is not None and "vp8" in av.codecs_available:
        # FFmpeg's own takes a seventh less than libvpx, and gives the same pictures, bit by bit.
        decoder.codec = context = av.CodecContext.create("vp8", "r")
    if isinstance(context, av.VideoCodecContext):
        # More threads take no less time for pictures that are coded in one slice, and those that
        # decode several pictures at once give each of them late.
        context.thread_count = 1
    if isinstance(context, av.CodecContext):
        context.open(strict=False)  # PyAV would with the first frame, which is in a hurry.
    return decoder


MEASURED: Final = 5
"""Of so many frames one is measured: asking for a thread's time is a call of the system, which a
piece of sound is too short for."""


class FrameDecoder:
    """Decodes the frames of one track, on one thread at a time."""

    def __init__(self) -> None:
        self._codec: str | None = None
        self._decoder: Any = None
        self._opened: tuple[str, Any] | None = None
        """A decoder that waits for its first frame, and the codec that it is for."""
        self._seconds = Mean()
        self._unmeasured = MEASURED
        """Frames since the last one that was measured."""

    @property
    def seconds(self) -> float | None:
        """Processor time that a frame took, a mean of some of the newest; None before the first."""
        return self._seconds.value

    def open(self, codec: Any) -> None:
        """Have the first decoder there before the first frame; on another thread if need be."""
        if self._codec is None and self._opened is None:
            try:
                self._opened = (codec.name, open_decoder(codec))
            except Exception as error:  # noqa: BLE001 - a frame will show it again
                logger.debug("! no decoder of %s can be opened: %r", codec.name, error)

    def decode(self, codec: Any, frame: Any) -> list[Any] | None:
        """The PyAV frames that an encoded frame makes; None where it cannot be read.

        `codec` is aiortc's description of it; another one than before opens another decoder. The
        state of a decoder that could not read a frame is kept: without it all frames up to the next
        keyframe would fail.
        """
        if not frame.data:
            return None  # FFmpeg would take it for the end of the stream.
        self._unmeasured += 1
        measured = self._unmeasured >= MEASURED
        before = time.thread_time() if measured else 0.0
        try:
            if codec.name != self._codec:
                opened, self._opened = self._opened, None
                if opened is not None and opened[0] == codec.name:
                    self._decoder = opened[1]
                else:
                    self._decoder = open_decoder(codec)
                self._codec = codec.name
            frames: list[Any] = self._decoder.decode(frame)
        except Exception as error:  # noqa: BLE001 - the far end's data must not end the connection
            logger.debug("! a frame of %s cannot be decoded: %r", codec.name, error)
            return None
        if measured:
            self._unmeasured = 0
            self._seconds.add(time.thread_time() - before)
        return frames
