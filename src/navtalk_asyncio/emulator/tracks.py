"""The emulator's two media tracks: the drawn face and its voice, in step with each other.

A :class:`Mouthpiece` holds what is to be said. The voice track takes 20 ms of it at a time, and the
loudness of what was taken last opens the mouth of the face track. Both tracks flow from their first
`recv` on, with silence and a closed mouth while there is nothing to say (protocol.md 6.3 item 11).

Each track counts its own periods from its first frame, on one monotonic clock: it does not drift.
After a stall it skips the periods that were missed, in the picture and in the timestamps; what is
to be said is delayed by a stall but never lost.
"""

from __future__ import annotations

import asyncio
import fractions
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from attrs import define, field
from numpy.typing import NDArray

from navtalk_asyncio.emulator.face import Face, mouth_level
from navtalk_asyncio.emulator.idle_clip import (
    FRAMES_PER_SECOND,
    LOOP_FRAMES,
    IdleClip,
    IdleClips,
    encoded_silence,
)
from navtalk_asyncio.emulator.voice_activity import rms_dbfs
from navtalk_asyncio.media.sender_codec import SenderControl
from navtalk_proto.errors import NavTalkError
from navtalk_proto.turn_latency import is_voice
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH

__all__ = [
    "FRAMES_PER_SECOND",
    "VOICE_RATE",
    "FaceTrack",
    "Mouthpiece",
    "MouthpieceError",
    "Pace",
    "Utterance",
    "VoiceTrack",
]

VOICE_RATE: Final = 48_000
"""Samples per second of the voice track: Opus is coded at this rate."""

_VOICE_SAMPLES: Final = 960
_SPOKEN_SAMPLES: Final = 480
_VIDEO_CLOCK: Final = 90_000
_QUIET_DBFS: Final = -42.0
_LOUD_DBFS: Final = -14.0
_QUIET_FRAMES: Final = 10
"""Silent frames that are encoded after a sound: the decoder fades out on them."""
_UTTERANCES: Final = 64
_MOUTH_RELEASE: Final = 0.72
"""What is left of the mouth's opening after 20 ms of silence: it shuts in about 0.15 s."""

_Samples: TypeAlias = NDArray[np.int16]


class MouthpieceError(NavTalkError):
    """Something cannot be said: too much waits already, or the mouthpiece is closed."""

    code = "mouthpiece"
    hint = "wait for wait_spoken() before saying more"


@define(eq=False)
class Utterance:
    """When something was really said, in seconds of the tracks' clock: what a client measures of
    it can be held against this."""

    first_audio: float | None = None
    """When the first 20 ms left that are not silence."""
    first_movement: float | None = None
    """When the first picture left on which the mouth is open."""


class Mouthpiece:
    """What is to be said and how far it was said. Belongs to one session and one event loop."""

    def __init__(self, *, max_seconds: float = 240.0) -> None:
        self._max_samples = int(max_seconds * SAMPLE_RATE)
        self._queue: deque[_Samples] = deque()
        self._queued = 0  # samples
        self._upsampler = _Upsampler()
        self._idle = asyncio.Event()
        self._idle.set()
        self._breaks = 0
        self._closed = False
        self._openness = 0.0
        self._audible = False
        self.utterances: deque[Utterance] = deque(maxlen=_UTTERANCES)
        """What was said last, oldest first; each begins where nothing waited to be said."""
        self.pictures: int = 0
        """Pictures of this session that were drawn to be sent."""

    @property
    def speaking(self) -> bool:
        """Whether something waits to be said or is being said now."""
        return not self._idle.is_set()

    @property
    def queued_seconds(self) -> float:
        """How long what waits will take."""
        return self._queued / SAMPLE_RATE

    @property
    def openness(self) -> float:
        """How far the mouth is open for what is said now, in [0, 1]."""
        return self._openness

    def say(self, pcm: bytes) -> None:
        """Queue PCM16, mono, 24,000 Hz behind what waits.

        Raises ValueError for half a sample; MouthpieceError when more than `max_seconds` would
        wait, and after `close`. Nothing is queued then.
        """
        if len(pcm) % SAMPLE_WIDTH:
            raise ValueError("audio of an odd number of bytes is not PCM16")
        if self._closed:
            raise MouthpieceError("the mouthpiece is closed")
        if not pcm:
            return
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.int16)
        if self._queued + samples.size > self._max_samples:
            raise MouthpieceError(
                f"{self.queued_seconds:.1f} s wait to be said, at most "
                f"{self._max_samples / SAMPLE_RATE:g} s may"
            )
        if self._idle.is_set():
            self.utterances.append(Utterance())
        self._queue.append(samples)
        self._queued += samples.size
        self._idle.clear()

    def interrupt(self) -> int:
        """Drop all that was not said yet, as in barge-in; returns how many samples at 24,000 Hz.

        The 20 ms that were taken last are counted as said.
        """
        unsaid = self._queued
        if self.speaking:
            self._breaks += 1
        self._queue.clear()
        self._queued = 0
        self._idle.set()
        return unsaid

    def close(self) -> None:
        """Drop what waits, for good; whoever waits in `wait_spoken` is told False. Idempotent."""
        self._closed = True
        self.interrupt()

    async def wait_spoken(self) -> bool:
        """Return when nothing is left to say: True, or False if it was interrupted meanwhile.

        Only a voice track that is read makes progress: until the media connection is there, and
        without an audio m-line, this waits for `interrupt` or `close`.
        """
        breaks = self._breaks
        await self._idle.wait()
        return self._breaks == breaks

    def take(self) -> _Samples:
        """The next 20 ms for the voice track: 960 samples at 48,000 Hz, silence if nothing waits.

        Taking also says that the time of the samples taken before is over.
        """
        taken = np.zeros(_SPOKEN_SAMPLES, dtype=np.int16)
        at = 0
        while at < taken.size and self._queue:
            head = self._queue[0]
            part = head[: taken.size - at]
            taken[at : at + part.size] = part
            at += part.size
            if part.size == head.size:
                self._queue.popleft()
            else:
                self._queue[0] = head[part.size :]
        self._queued -= at
        if at == 0:
            self._idle.set()
        self._openness = max(_opening(taken), self._openness * _MOUTH_RELEASE)
        if self._openness < 0.01:
            self._openness = 0.0
        self._audible = is_voice(taken.tobytes())
        return self._upsampler.process(taken)

    def sent(self, kind: str, *, now: float) -> None:
        """The 20 ms taken last leave (``audio``), or a picture with an open mouth does."""
        if not self.utterances:
            return
        utterance = self.utterances[-1]
        if kind == "audio":
            if self._audible and utterance.first_audio is None:
                utterance.first_audio = now
        elif utterance.first_movement is None and utterance.first_audio is not None:
            utterance.first_movement = now


def _opening(samples: _Samples) -> float:
    level = rms_dbfs(samples.tobytes())
    return min(max((level - _QUIET_DBFS) / (_LOUD_DBFS - _QUIET_DBFS), 0.0), 1.0)


class _Upsampler:
    """24,000 to 48,000 Hz with a half-band filter; what comes out is 16 samples (0.7 ms) late.

    It goes on from call to call, so the cuts between pieces are not heard, and it costs a little in
    each frame and nothing when a long utterance is queued.
    """

    def __init__(self) -> None:
        self._history = np.zeros(_TAPS.size - 1, dtype=np.int16)

    def process(self, samples: _Samples) -> _Samples:
        """Twice as many samples."""
        known = np.concatenate((self._history, samples))
        self._history = known[samples.size :]
        between = np.convolve(known.astype(np.float64), _TAPS, mode="valid")
        result = np.empty(samples.size * 2, dtype=np.int16)
        result[0::2] = known[_TAPS.size // 2 - 1 :][: samples.size]
        result[1::2] = np.clip(np.rint(between), -32768.0, 32767.0)
        return result


def _half_band() -> NDArray[np.float64]:
    """The windowed sinc that gives the value in the middle between two samples."""
    at = np.arange(-15.5, 16.0)
    taps: NDArray[np.float64] = np.sinc(at) * np.kaiser(at.size, 7.0)
    taps /= taps.sum()
    return taps


_TAPS: Final = _half_band()


@define
class Pace:
    """Counts periods of `period` seconds from the first call, and waits for each.

    A caller that is late by up to `patience` periods gets the missed ones at once, so that an
    uneven loop keeps the rate; beyond that they are skipped.
    """

    period: float
    patience: int
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]]
    skipped: int = field(default=0, init=False)
    """Periods that nobody was there for."""
    _start: float | None = field(default=None, init=False)
    _next: int = field(default=0, init=False)

    async def wait(self) -> int:
        """The number of the period that begins now: 0 first, then always more."""
        now = self.clock()
        if self._start is None:
            self._start = now
        behind = math.floor((now - self._start) / self.period) - self._next
        if behind > self.patience:
            self._next += behind
            self.skipped += behind
        number = self._next
        self._next = number + 1
        delay = self._start + number * self.period - now
        if delay > 0.0:
            await self.sleep(delay)
        return number


class FaceTrack(MediaStreamTrack):
    """25 pictures of the face per second. `face` may be shared between tracks.

    While nothing is said they come out of an idle clip that was encoded once for all sessions: see
    :mod:`~navtalk_asyncio.emulator.idle_clip`. They are drawn, to be encoded, while the mouth
    follows a voice, until there is a clip, and from a request for a keyframe to the clip's next
    one. A change to drawn pictures makes the first of them a keyframe; a change to the clip waits
    for one of its keyframes.
    """

    kind = "video"

    def __init__(
        self,
        face: Face,
        mouthpiece: Mouthpiece,
        *,
        clips: IdleClips | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`clock` is monotonic seconds, the running loop's by default. Without `clips` every
        picture is drawn."""
        super().__init__()
        self._face = face
        self._mouthpiece = mouthpiece
        self._clips = clips
        self.control: SenderControl | None = None
        self._read_by: tuple[SenderControl | None, str] = (None, "")
        self._clip: IdleClip | None = None
        """What is being sent; None while pictures are drawn."""
        self._open = False
        """The mouth is open on the picture that was given last."""
        self.drawn: int = 0
        """Pictures that were given to be encoded."""
        self.prepared: int = 0
        """Pictures that were given encoded."""
        self.frozen: bool = False
        """Whether the picture stands still. Frames go on, all alike."""
        self._drawn = (0.0, 0.0)
        now = clock or asyncio.get_running_loop().time
        self.pace: Pace = Pace(1.0 / FRAMES_PER_SECOND, 1, now, sleep)

    async def recv(self) -> av.VideoFrame | av.Packet[Any]:
        """The next picture, when it is due. Raises MediaStreamError after `stop`."""
        if self.readyState != "live":
            raise MediaStreamError
        number = await self.pace.wait()
        if self.readyState != "live":
            raise MediaStreamError
        picture: av.VideoFrame | av.Packet[Any]
        self._choose(number)
        if not self.frozen:
            t = number % LOOP_FRAMES / FRAMES_PER_SECOND
            self._drawn = (t, self._mouthpiece.openness)
        self._mouthpiece.pictures += 1
        if self._clip is not None:
            self._open = False
            self.prepared += 1
            picture = av.Packet(self._clip.frames[number % LOOP_FRAMES])
        else:
            self._open = mouth_level(self._drawn[1]) != 0
            self.drawn += 1
            picture = self._face.draw(*self._drawn)
        picture.pts = number * (_VIDEO_CLOCK // FRAMES_PER_SECOND)
        picture.time_base = fractions.Fraction(1, _VIDEO_CLOCK)
        return picture

    def leaving(self) -> None:
        """The picture that was given last is encoded, and leaves now."""
        if self._open:
            self._mouthpiece.sent(self.kind, now=self.pace.clock())

    def _choose(self, number: int) -> None:
        """Whether this picture is the clip's or drawn."""
        control = self.control
        if control is None or self._clips is None:
            return
        reader = (control, control.codec)
        asked = control.take_keyframe_request() or reader != self._read_by
        self._read_by = reader
        idle = not (self.frozen or self._mouthpiece.speaking or self._mouthpiece.openness)
        clip = self._clips.get(self._face, control.codec) if idle else None
        if clip is not None and number % LOOP_FRAMES in clip.keyframes:
            self._clip = clip
        elif self._clip is not None and (clip is None or asked):
            self._clip = None
            control.encode_keyframe()
        elif asked:
            control.encode_keyframe()


class VoiceTrack(MediaStreamTrack):
    """What the mouthpiece says: frames of 20 ms, 960 samples, s16, mono, 48,000 Hz."""

    kind = "audio"

    def __init__(
        self,
        mouthpiece: Mouthpiece,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`clock` is monotonic seconds, the running loop's by default."""
        super().__init__()
        self._mouthpiece = mouthpiece
        self.control: SenderControl | None = None
        self._quiet = 0
        """Frames in a row that were silent."""
        self.silent: bool = False
        """Whether silence flows, whatever is said."""
        now = clock or asyncio.get_running_loop().time
        self.pace: Pace = Pace(_VOICE_SAMPLES / VOICE_RATE, 3, now, sleep)

    async def recv(self) -> av.AudioFrame | av.Packet[Any]:
        """The next 20 ms, when they are due. Raises MediaStreamError after `stop`.

        Silence is encoded already, once the encoder has heard the end of what was said.
        """
        if self.readyState != "live":
            raise MediaStreamError
        number = await self.pace.wait()
        if self.readyState != "live":
            raise MediaStreamError
        samples = self._mouthpiece.take()
        if self.silent:
            samples = np.zeros_like(samples)
        sound: av.AudioFrame | av.Packet[Any]
        self._quiet = 0 if samples.any() else self._quiet + 1
        if self._quiet > _QUIET_FRAMES and _is_opus(self.control):
            sound = av.Packet(encoded_silence())
        else:
            sound = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            sound.sample_rate = VOICE_RATE
        sound.pts = number * _VOICE_SAMPLES
        sound.time_base = fractions.Fraction(1, VOICE_RATE)
        return sound

    def leaving(self) -> None:
        """What was given last is encoded, and leaves now."""
        if not (self.silent or self._quiet):
            self._mouthpiece.sent(self.kind, now=self.pace.clock())


def _is_opus(control: SenderControl | None) -> bool:
    return control is not None and control.codec.lower() == "opus"
