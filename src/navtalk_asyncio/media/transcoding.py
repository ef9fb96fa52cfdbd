"""Pictures of one codec made into another's, where a recording was asked to.

Costs a core at 720p. Runs on the thread that writes: where that is too slow
for the call, the recorder's queue drops pictures up to the next keyframe and counts them.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import av
from attrs import evolve

from navtalk_asyncio.media.interface import EncodedFrame

__all__ = ["Transcoder"]

_DECODERS: Final = {"VP8": "libvpx", "H264": "h264"}
_ENCODERS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "H264": ("libx264", {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}),
    "VP8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
}
_VP8_BIT_RATE: Final = 2_000_000
KEYFRAME_FRAMES: Final = 60
"""Between two keyframes: 2 s, so that a player can seek and a segment can end."""


class Transcoder:
    """Decodes frames of one codec and encodes them in another, one for one."""

    def __init__(self, source: str, target: str) -> None:
        """Raises KeyError for a codec that is not a picture's."""
        self._decoder: Any = av.CodecContext.create(_DECODERS[source], "r")
        self._decoder.thread_count = 1
        self._target = target
        self._encoder: Any = None
        self._size = (0, 0)
        self.undecodable: int = 0
        """Frames that the decoder refused: something before them was lost."""

    def convert(self, frame: EncodedFrame) -> EncodedFrame | None:
        """The same picture at the same time; None where it cannot be decoded."""
        packet = av.Packet(frame.data)
        packet.time_base = Fraction(1, frame.clock_rate)
        packet.pts = packet.dts = frame.timestamp
        try:
            pictures = self._decoder.decode(packet)
        except av.InvalidDataError:
            pictures = []
        if not pictures:
            self.undecodable += 1
            return None
        picture = pictures[-1]
        if (picture.width, picture.height) != self._size:
            self._open(picture, frame.clock_rate)
        picture.pict_type = 0  # the encoder's choice, not the sender's
        picture.pts, picture.time_base = frame.timestamp, Fraction(1, frame.clock_rate)
        [encoded] = self._encoder.encode(picture)
        return evolve(
            frame, codec=self._target, data=bytes(encoded), keyframe=bool(encoded.is_keyframe)
        )

    def _open(self, picture: Any, clock_rate: int) -> None:
        name, options = _ENCODERS[self._target]
        self._encoder = av.CodecContext.create(name, "w")
        self._size = self._encoder.width, self._encoder.height = picture.width, picture.height
        self._encoder.pix_fmt = "yuv420p"
        self._encoder.time_base = Fraction(1, clock_rate)
        self._encoder.framerate = Fraction(30, 1)
        self._encoder.gop_size = KEYFRAME_FRAMES
        self._encoder.options = dict(options)
        if self._target == "VP8":
            # Its threads wait for each other by spinning: more cores for the same pictures.
            self._encoder.thread_count = 1
            self._encoder.bit_rate = _VP8_BIT_RATE
