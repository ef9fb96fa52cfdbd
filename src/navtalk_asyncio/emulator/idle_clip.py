"""What the emulator sends while it says nothing: encoded once per process, for all sessions.

An :class:`IdleClip` is the face's own loop with a shut mouth, in one codec: a closed loop of whole
pictures, with a keyframe each second, at which a session may change to it. It is encoded in a
thread, a few pictures at a time, when a session first wants it; until it is complete, sessions draw
and encode for themselves. :class:`IdleClips` is an emulator's, and owns the task that does so; the
clips themselves are the process's, and a half-made one is gone on with by the next emulator.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Final

import numpy as np

from navtalk_asyncio.emulator.clip_making import (
    CLIP_CODECS,
    FRAMES_PER_SECOND,
    KEYFRAME_FRAMES,
    SLICE,
    ClipMaker,
    PictureEncoder,
    VoiceEncoder,
)
from navtalk_asyncio.emulator.face import LOOP_SECONDS, Face

__all__ = [
    "LOOP_FRAMES",
    "IdleClip",
    "IdleClips",
    "encoded_silence",
    "idle_clip",
]

LOOP_FRAMES: Final = round(LOOP_SECONDS * FRAMES_PER_SECOND)
"""Pictures of the closed loop. Drawn pictures follow the same loop, so that a change between the
two is no jump."""


@cache
def encoded_silence() -> bytes:
    """20 ms of digital silence as one Opus packet, which stands for itself (RFC 6716)."""
    encoder = VoiceEncoder()
    # The first ones carry what the encoder began with.
    return [encoder.encode(np.zeros(960, dtype=np.int16)) for _ in range(10)][-1]


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
        self._encoder: PictureEncoder | None = None

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
            self._encoder = PictureEncoder(self.codec, self._face.width, self._face.height)
        frame = self._face.draw(number / FRAMES_PER_SECOND, 0.0)
        keyframe = number in self.keyframes
        self.frames.append(self._encoder.encode(frame, number, keyframe=keyframe))


@cache
def idle_clip(face: Face, codec: str) -> IdleClip:
    """The process's clip of a face in a codec, ready or not."""
    return IdleClip(face, codec)


class IdleClips(ClipMaker):
    """The clips that one emulator's sessions ask for. Belongs to one loop."""

    def get(self, face: Face, codec: str) -> IdleClip | None:
        """The clip, if it is ready; None while it is being made, and for a codec without one."""
        if codec not in CLIP_CODECS:
            return None
        clip = idle_clip(face, codec)
        if clip.ready:
            return clip
        self.make(clip)
        return None
