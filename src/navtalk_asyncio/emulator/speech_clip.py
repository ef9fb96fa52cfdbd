"""Speech that is known before it is spoken: encoded once, for every session that says it.

A :class:`SpeechClip` is one canned answer: the Opus packets of its voice, and for each of them how
far the mouth is open. Its pictures are :class:`SpeechPictures`, in one codec and from one place of
the head's sway on: where a session's head happens to be when it begins to speak. There are
LOOP_FRAMES / START_STEP such places, so that the head never jumps by more than it moves by itself.

What nobody has said yet waits until its first second is made, HOLD_PERIODS at most. A session whose
clip is not made so far follows its voice live, and changes to the clip at one of its keyframes. The
pictures end with a shut mouth at a place where the idle
clip has a keyframe. :class:`SpeechClips` is an emulator's; it keeps what was used last, up to
:data:`KEPT_SECONDS`.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from typing import Final, TypeAlias

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from navtalk_asyncio.emulator.clip_making import (
    CLIP_CODECS,
    FRAMES_PER_SECOND,
    KEYFRAME_FRAMES,
    SLICE,
    ClipMaker,
    PictureEncoder,
    VoiceEncoder,
)
from navtalk_asyncio.emulator.face import Face, mouth_level
from navtalk_asyncio.emulator.idle_clip import LOOP_FRAMES, encoded_silence
from navtalk_asyncio.emulator.spoken_sound import SPOKEN_SAMPLES, Mouth, Upsampler
from navtalk_proto.turn_latency import is_voice
from navtalk_proto.wire.audio import SAMPLE_WIDTH

__all__ = [
    "HOLD_PERIODS",
    "KEPT_SECONDS",
    "PERIODS_PER_PICTURE",
    "START_STEP",
    "SpeechClip",
    "SpeechClips",
    "SpeechPictures",
    "nearest_start",
]

PERIODS_PER_PICTURE: Final = 2
"""Periods of 20 ms of the voice that one picture lasts."""

START_STEP: Final = 25
"""Pictures from one place of the loop where a clip may begin to the next. Half of it is two of the
face's poses away, and neighbouring poses differ by less than a pixel."""

HOLD_PERIODS: Final = 100
"""Periods of 20 ms that a speech waits for its clip. A tenth is enough on an idle machine. On a
busy one sessions that wait cost little, and those that do not keep the clip from being made."""

KEPT_SECONDS: Final = 900
"""Seconds of pictures that one emulator keeps: below 100 MB at the clips' bit rate."""

_FADING: Final = 26
"""Periods of silence at the end: the mouth shuts, and a decoder of Opus fades out."""

_SOUND_SLICE: Final = 100
"""Periods of voice encoded at once: 2 s, some 30 ms of a core."""

_LEAD: Final = KEYFRAME_FRAMES
"""Pictures that a clip which is still being made must be ahead, to be changed to."""

_Samples: TypeAlias = NDArray[np.int16]


class SpeechClip:
    """The sound of one answer. Made in slices by :meth:`encode_some`, one thread at a time."""

    def __init__(self, pcm: bytes) -> None:
        """PCM16, mono, 24,000 Hz. Raises ValueError for half a sample."""
        if len(pcm) % SAMPLE_WIDTH:
            raise ValueError("audio of an odd number of bytes is not PCM16")
        self.periods: Final = math.ceil(len(pcm) / SAMPLE_WIDTH / SPOKEN_SAMPLES) + _FADING
        """Of 20 ms each, the silence at the end included."""
        self.packets: list[bytes] = []
        """One Opus packet for each period, as far as they are made."""
        self.openings: list[float] = []
        """How far the mouth is open in each period, in [0, 1]; at least as many as `packets`."""
        self.audible: list[bool] = []
        """Whether there is a voice in each period."""
        self._pcm = pcm
        self._mouth, self._upsampler, self._encoder = Mouth(), Upsampler(), VoiceEncoder()
        self._encoding = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether all of it is made."""
        return len(self.packets) == self.periods

    def encode_some(self) -> None:
        """Encode two more seconds. Returns at once while another thread does."""
        if not self._encoding.acquire(blocking=False):
            return
        try:
            begin = len(self.packets)
            for period in range(begin, min(begin + _SOUND_SLICE, self.periods)):
                samples = self._samples(period)
                self.openings.append(self._mouth.follow(samples))
                self.audible.append(is_voice(samples.tobytes()))
                self.packets.append(self._encoder.encode(self._upsampler.process(samples)))
            if self.ready:
                self._pcm = b""
        finally:
            self._encoding.release()

    def _samples(self, period: int) -> _Samples:
        size = SPOKEN_SAMPLES * SAMPLE_WIDTH
        piece = self._pcm[period * size : (period + 1) * size].ljust(size, b"\0")
        return np.frombuffer(piece, dtype="<i2").astype(np.int16)

    def packet(self, period: int) -> bytes:
        """The packet of a period that is made; silence behind the end."""
        return self.packets[period] if period < self.periods else encoded_silence()

    def opening(self, period: int) -> float:
        """How far the mouth is open in a period that is made; it is shut behind the end."""
        return self.openings[period] if period < self.periods else 0.0


class SpeechPictures:
    """The pictures of one answer in one codec, from one place of the face's loop on."""

    def __init__(self, speech: SpeechClip, face: Face, codec: str, start: int) -> None:
        self.frames: list[bytes] = []
        """One encoded picture each, as far as they are made."""
        shown = math.ceil(speech.periods / PERIODS_PER_PICTURE)
        # Up to where the idle clip has a keyframe.
        self.length: Final = shown + -(start + shown) % KEYFRAME_FRAMES
        """Pictures of the whole clip."""
        self.start: Final = start
        """The place of the face's loop that the first picture has."""
        self._speech = speech
        self._face = face
        self._codec = codec
        self._encoding = threading.Lock()
        self._encoder: PictureEncoder | None = None

    @property
    def ready(self) -> bool:
        """Whether all of it is made."""
        return len(self.frames) == self.length

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.length / FRAMES_PER_SECOND

    def encode_some(self) -> None:
        """Encode SLICE more pictures, as far as the voice is made. Returns at once while another
        thread does."""
        if not self._encoding.acquire(blocking=False):
            return
        try:
            for number in range(len(self.frames), min(len(self.frames) + SLICE, self.length)):
                period = number * PERIODS_PER_PICTURE
                if period >= len(self._speech.openings) and not self._speech.ready:
                    return
                if self._encoder is None:
                    self._encoder = PictureEncoder(self._codec, self._face.width, self._face.height)
                t = (self.start + number) % LOOP_FRAMES / FRAMES_PER_SECOND
                frame = self._face.draw(t, self._speech.opening(period))
                keyframe = number % KEYFRAME_FRAMES == 0
                self.frames.append(self._encoder.encode(frame, number, keyframe=keyframe))
            if self.ready:
                self._encoder = None
        finally:
            self._encoding.release()

    def can_begin(self, number: int) -> bool:
        """Whether a session may change to the clip at this picture: a keyframe, far enough from
        where it is being made."""
        return number % KEYFRAME_FRAMES == 0 and len(self.frames) >= min(
            number + _LEAD, self.length
        )

    def is_open(self, number: int) -> bool:
        """Whether the mouth is seen to be open on a picture that is made."""
        return mouth_level(self._speech.opening(number * PERIODS_PER_PICTURE)) != 0


def nearest_start(place: int) -> int:
    """The place nearest to this one of the face's loop where clips begin."""
    return round(place / START_STEP) * START_STEP % LOOP_FRAMES


@frozen
class _Key:
    speech: SpeechClip
    face: Face
    codec: str
    start: int


class SpeechClips(ClipMaker):
    """The clips that one emulator's sessions say. Belongs to one loop."""

    def __init__(self, *, kept_seconds: float = KEPT_SECONDS) -> None:
        super().__init__()
        self._kept_seconds = kept_seconds
        self._speeches: OrderedDict[bytes, SpeechClip] = OrderedDict()
        self._pictures: OrderedDict[_Key, SpeechPictures] = OrderedDict()

    @property
    def kept_seconds(self) -> float:
        """Seconds of pictures that are kept now, those that are being made included."""
        return sum(one.seconds for one in self._pictures.values())

    def speech(self, pcm: bytes) -> SpeechClip:
        """The sound of an answer, ready or not: PCM16, mono, 24,000 Hz. ValueError as there."""
        key = hashlib.sha256(pcm).digest()
        clip = self._speeches.get(key)
        if clip is None:
            clip = self._speeches[key] = SpeechClip(pcm)
            self.make(clip)
            while len(self._speeches) > 1 and self._sound_seconds() > self._kept_seconds:
                self._drop(self._speeches.popitem(last=False)[1])
        self._speeches.move_to_end(key)
        return clip

    def _sound_seconds(self) -> float:
        shown = FRAMES_PER_SECOND * PERIODS_PER_PICTURE
        return sum(one.periods for one in self._speeches.values()) / shown

    def _drop(self, speech: SpeechClip) -> None:
        self.give_up(speech)
        for key in [key for key in self._pictures if key.speech is speech]:
            self.give_up(self._pictures.pop(key))

    def pictures(
        self, speech: SpeechClip, face: Face, codec: str, start: int
    ) -> SpeechPictures | None:
        """The pictures of an answer, ready or not; None for a codec without clips, and for a speech
        that was dropped before it was made.

        To be asked for once for each time that it is said: what is kept no longer may still be
        sent by who has it, as far as it was made.
        """
        if codec not in CLIP_CODECS or not (speech.ready or self.is_making(speech)):
            return None
        key = _Key(speech, face, codec, start)
        pictures = self._pictures.get(key)
        if pictures is None:
            pictures = self._pictures[key] = SpeechPictures(speech, face, codec, start)
            self.make(pictures)
            while len(self._pictures) > 1 and self.kept_seconds > self._kept_seconds:
                self.give_up(self._pictures.popitem(last=False)[1])
        self._pictures.move_to_end(key)
        return pictures
