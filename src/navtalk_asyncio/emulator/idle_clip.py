"""What the emulator sends while it says nothing: encoded once per process, for all sessions.

An :class:`IdleClip` is the face's own loop with a shut mouth, in one codec: a closed loop of whole
pictures, with a keyframe each second, at which a session may change to it. It is encoded in a
thread, a few pictures at a time, when a session first wants it; until it is complete, sessions draw
and encode for themselves. :class:`IdleClips` is an emulator's, and owns the task that does so; the
clips themselves are the process's, and a half-made one is gone on with by the next emulator.
"""

from __future__ import annotations

import asyncio
import threading
from fractions import Fraction
from functools import cache
from typing import Any, Final

import av
import numpy as np
from av.video.frame import PictureType

from navtalk_asyncio.emulator.face import LOOP_SECONDS, Face

__all__ = [
    "FRAMES_PER_SECOND",
    "LOOP_FRAMES",
    "IdleClip",
    "IdleClips",
    "encoded_silence",
    "idle_clip",
]

FRAMES_PER_SECOND: Final = 25
"""Pictures per second, as the real worker sends (protocol.md 6.3 item 11)."""

LOOP_FRAMES: Final = round(LOOP_SECONDS * FRAMES_PER_SECOND)
"""Pictures of the closed loop. Drawn pictures follow the same loop, so that a change between the
two is no jump."""

KEYFRAME_FRAMES: Final = FRAMES_PER_SECOND
"""From one keyframe to the next: as long as a session encodes after it has spoken, at most."""

SLICE: Final = 10
"""Pictures encoded between two looks at whether they are still wanted: 50 ms of a core."""

BITRATE: Final = 700_000
"""Bits per second, which an idle face of 512 x 512 does not use up."""

QUANTIZER: Final = 32
"""The coarsest quantizer: what has to be a keyframe is not to look worse than what is not."""

_OPTIONS: Final = {
    "VP8": ("libvpx", {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}),
    "H264": (
        "libx264",
        {"preset": "veryfast", "tune": "zerolatency", "forced-idr": "1", "level": "31"},
    ),
}


@cache
def encoded_silence() -> bytes:
    """20 ms of digital silence as one Opus packet, which stands for itself (RFC 6716)."""
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "s16"
    encoder.options = {"application": "voip"}
    packets: list[bytes] = []
    for number in range(10):  # The first ones carry what the encoder began with.
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1920), dtype=np.int16), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, number * 960, Fraction(1, 48_000)
        packets += map(bytes, encoder.encode(frame))
    return packets[-1]


class IdleClip:
    """A face's idle loop in one codec: ``VP8``, or ``H264`` with Annex B start codes.

    Made in slices by :meth:`encode_some`, from any thread, one at a time.
    """

    def __init__(self, face: Face, codec: str) -> None:
        self.codec = codec
        self.frames: list[bytes] = []
        """One encoded picture each, LOOP_FRAMES when it is ready."""
        self.keyframes: Final = frozenset(range(0, LOOP_FRAMES, KEYFRAME_FRAMES))
        """Where decoding can start."""
        self._face = face
        self._encoding = threading.Lock()
        self._encoder: Any = None

    @property
    def ready(self) -> bool:
        """Whether it can be sent."""
        return len(self.frames) == LOOP_FRAMES

    def encode_some(self) -> None:
        """Encode SLICE more pictures. Returns at once while another thread does."""
        if not self._encoding.acquire(blocking=False):
            return
        try:
            for number in range(len(self.frames), min(len(self.frames) + SLICE, LOOP_FRAMES)):
                self._encode(number)
            if self.ready:
                self._encoder = None
        finally:
            self._encoding.release()

    def _encode(self, number: int) -> None:
        if self._encoder is None:
            name, options = _OPTIONS[self.codec]
            encoder: Any = av.CodecContext.create(name, "w")
            encoder.width, encoder.height = self._face.width, self._face.height
            encoder.pix_fmt, encoder.bit_rate = "yuv420p", BITRATE
            encoder.time_base = Fraction(1, FRAMES_PER_SECOND)
            encoder.framerate = Fraction(FRAMES_PER_SECOND, 1)
            encoder.qmin, encoder.qmax = 2, QUANTIZER
            encoder.gop_size, encoder.max_b_frames, encoder.thread_count = 10_000, 0, 1
            if self.codec == "H264":
                encoder.profile = "Baseline"
            encoder.options = options
            self._encoder = encoder
        frame = self._face.draw(number / FRAMES_PER_SECOND, 0.0)
        frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
        frame.pict_type = PictureType.I if number in self.keyframes else PictureType.NONE
        self.frames.append(b"".join(map(bytes, self._encoder.encode(frame))))


@cache
def idle_clip(face: Face, codec: str) -> IdleClip:
    """The process's clip of a face in a codec, ready or not."""
    return IdleClip(face, codec)


class IdleClips:
    """The clips that one emulator's sessions ask for. Belongs to one loop."""

    def __init__(self) -> None:
        self._making: dict[IdleClip, asyncio.Task[None]] = {}

    def get(self, face: Face, codec: str) -> IdleClip | None:
        """The clip, if it is ready; None while it is being made, and for a codec without one."""
        if codec not in _OPTIONS:
            return None
        clip = idle_clip(face, codec)
        if clip.ready:
            return clip
        if clip not in self._making:
            self._making[clip] = asyncio.create_task(_make(clip))
        return None

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


async def _make(clip: IdleClip) -> None:
    while not clip.ready:
        encoding = asyncio.ensure_future(asyncio.to_thread(clip.encode_some))
        try:
            await asyncio.shield(encoding)
        except asyncio.CancelledError:
            await asyncio.wait([encoding])
            raise
        # Sessions encode too meanwhile, and another loop may be at this very clip.
        await asyncio.sleep(0.02)
