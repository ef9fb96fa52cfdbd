"""Making clips beside the sessions: in a thread, a slice at a time, and encoded as sessions are.

A clip is anything that is made in slices. A :class:`ClipMaker` is an emulator's and owns the tasks;
:class:`PictureEncoder` and :class:`VoiceEncoder` make what is sent without being encoded again.
"""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any, Final, Protocol, TypeAlias

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

__all__ = [
    "CLIP_CODECS",
    "FRAMES_PER_SECOND",
    "KEYFRAME_FRAMES",
    "SLICE",
    "Clip",
    "ClipMaker",
    "PictureEncoder",
    "VoiceEncoder",
]

FRAMES_PER_SECOND: Final = 25
"""Pictures per second, as the real worker sends (protocol.md 6.3 item 11)."""

KEYFRAME_FRAMES: Final = FRAMES_PER_SECOND
"""From one keyframe to the next: as long as a session encodes before it can change to a clip."""

SLICE: Final = 10
"""Pictures encoded between two looks at whether they are still wanted: 50 ms of a core."""

BITRATE: Final = 700_000
"""Bits per second of a clip's pictures, which an idle face of 512 x 512 does not use up."""

QUANTIZER: Final = 32
"""The coarsest quantizer: what has to be a keyframe is not to look worse than what is not."""

_OPTIONS: Final = {
    "VP8": ("libvpx", {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}),
    "H264": (
        "libx264",
        {"preset": "veryfast", "tune": "zerolatency", "forced-idr": "1", "level": "31"},
    ),
}

CLIP_CODECS: Final = frozenset(_OPTIONS)
"""The codecs that there are clips in, as the rtpmap spells them."""

_VOICE_RATE: Final = 48_000
_VOICE_BITRATE: Final = 96_000
"""What aiortc's own encoder is given."""

_Samples: TypeAlias = NDArray[np.int16]


class PictureEncoder:
    """Encodes a clip's pictures: ``VP8``, or ``H264`` with Annex B start codes."""

    def __init__(self, codec: str, width: int, height: int) -> None:
        name, options = _OPTIONS[codec]
        encoder: Any = av.CodecContext.create(name, "w")
        encoder.width, encoder.height = width, height
        encoder.pix_fmt, encoder.bit_rate = "yuv420p", BITRATE
        encoder.time_base = Fraction(1, FRAMES_PER_SECOND)
        encoder.framerate = Fraction(FRAMES_PER_SECOND, 1)
        encoder.qmin, encoder.qmax = 2, QUANTIZER
        encoder.gop_size, encoder.max_b_frames, encoder.thread_count = 10_000, 0, 1
        if codec == "H264":
            encoder.profile = "Baseline"
        encoder.options = options
        self._encoder = encoder

    def encode(self, frame: av.VideoFrame, number: int, *, keyframe: bool) -> bytes:
        """The clip's picture of that number, from 0 on and without a gap."""
        frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        return b"".join(map(bytes, self._encoder.encode(frame)))


class VoiceEncoder:
    """Encodes 20 ms at a time as Opus, stereo."""

    def __init__(self) -> None:
        encoder: Any = av.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.layout, encoder.format = _VOICE_RATE, "stereo", "s16"
        encoder.bit_rate = _VOICE_BITRATE
        encoder.options = {"application": "voip"}
        self._encoder = encoder
        self._pts = 0

    def encode(self, samples: _Samples) -> bytes:
        """960 samples, mono, at 48,000 Hz, as one packet."""
        frame = av.AudioFrame.from_ndarray(
            np.repeat(samples, 2).reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.time_base = _VOICE_RATE, Fraction(1, _VOICE_RATE)
        frame.pts = self._pts
        self._pts += samples.size
        (packet,) = self._encoder.encode(frame)
        return bytes(packet)


class Clip(Protocol):
    """What is made in slices."""

    @property
    def ready(self) -> bool:
        """Whether all of it is made."""
        ...

    def encode_some(self) -> None:
        """Make a slice of it; from any thread, one at a time."""
        ...


class ClipMaker:
    """Makes the clips that one emulator's sessions ask for. Belongs to one loop."""

    def __init__(self) -> None:
        self._making: dict[Clip, asyncio.Task[None]] = {}

    def make(self, clip: Clip) -> None:
        """See that it is made; again for one that is being made: nothing."""
        if clip not in self._making:
            task = self._making[clip] = asyncio.create_task(_make(clip))
            task.add_done_callback(lambda task: self._made(clip, task))

    def _made(self, clip: Clip, task: asyncio.Task[None]) -> None:
        # A failure is kept for aclose() to raise; the clip is not tried again.
        if task.cancelled() or task.exception() is None:
            self._making.pop(clip, None)

    def is_making(self, clip: Clip) -> bool:
        """Whether it will be made."""
        task = self._making.get(clip)
        return task is not None and not task.done()

    def give_up(self, clip: Clip) -> None:
        """Make no more of it, if it is being made."""
        task = self._making.get(clip)
        if task is not None:
            task.cancel()

    async def aclose(self) -> None:
        """Stop what is being made; returns when no thread is at it any more."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()


async def _make(clip: Clip) -> None:
    while not clip.ready:
        encoding = asyncio.ensure_future(asyncio.to_thread(clip.encode_some))
        try:
            await asyncio.shield(encoding)
        except asyncio.CancelledError:
            await asyncio.wait([encoding])
            raise
        # Sessions encode too meanwhile, and another loop may be at this very clip.
        await asyncio.sleep(0.02)
