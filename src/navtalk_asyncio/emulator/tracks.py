"""The emulator's two media tracks: the drawn face and its voice, in step with each other.

A :class:`~navtalk_asyncio.emulator.mouthpiece.Mouthpiece` holds what is to be said. The voice track
takes 20 ms of it at a time, and the loudness of what was taken last opens the mouth of the face
track. Both tracks flow from their first `recv` on, with silence and a closed mouth while there is
nothing to say (protocol.md 6.3 item 11).

Each track counts its own periods from its first frame, on one monotonic clock: it does not drift.
After a stall it skips the periods that were missed, in the picture and in the timestamps; what is
to be said is delayed by a stall but never lost.
"""

from __future__ import annotations

import asyncio
import fractions
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from attrs import define, field

from navtalk_asyncio.emulator.clip_making import FRAMES_PER_SECOND, KEYFRAME_FRAMES
from navtalk_asyncio.emulator.face import Face, mouth_level
from navtalk_asyncio.emulator.idle_clip import LOOP_FRAMES, IdleClip, IdleClips, encoded_silence
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece, Saying
from navtalk_asyncio.emulator.speech_clip import (
    SpeechClips,
    SpeechPictures,
    nearest_start,
)
from navtalk_asyncio.emulator.spoken_sound import VOICE_RATE, VOICE_SAMPLES
from navtalk_asyncio.media.sender_codec import SenderControl

__all__ = ["FaceTrack", "Pace", "VoiceTrack"]

_VIDEO_CLOCK: Final = 90_000
_QUIET_FRAMES: Final = 10
"""Silent frames that are encoded after a sound: the decoder fades out on them."""
_EARLY: Final = 0.02
"""Seconds by which a prepared mouth may be ahead of its voice, as both are to be played."""
_LATE: Final = 0.06
"""Seconds by which it may be behind; the face's own period makes up to 0.04 of them. Beyond that
it is drawn, until the clip can be joined anew."""
_CATCH_UP: Final = 1.0
"""Seconds of what is prepared that are sent at once after a stall."""

_SOON: Final = 5
"""Pictures after which a speech that waits for its clip is thought to begin."""

_PreparedPicture: TypeAlias = tuple[IdleClip | SpeechPictures, int]
"""A clip, and the number of one of its pictures."""


@define
class Pace:
    """Counts periods of `period` seconds from the first call, and waits for each.

    A caller that is late by up to `patience` periods gets the missed ones at once, so that an
    uneven loop keeps the rate; beyond that they are skipped. What is prepared costs nothing to
    catch up with, and is worth nothing without what is before it: it has more patience.
    """

    period: float
    patience: int
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]]
    skipped: int = field(default=0, init=False)
    """Periods that nobody was there for."""
    _start: float | None = field(default=None, init=False)
    _next: int = field(default=0, init=False)

    @property
    def due(self) -> float:
        """When the period that was given last was due."""
        return (self._start or 0.0) + (self._next - 1) * self.period

    async def wait(self, *, patience: int | None = None) -> int:
        """The number of the period that begins now: 0 first, then always more."""
        now = self.clock()
        if self._start is None:
            self._start = now
        behind = math.floor((now - self._start) / self.period) - self._next
        if behind > (self.patience if patience is None else patience):
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
    :mod:`~navtalk_asyncio.emulator.idle_clip`; while a prepared speech is said, out of that
    speech's clip: :mod:`~navtalk_asyncio.emulator.speech_clip`. They are drawn, to be encoded,
    while the mouth follows a voice that is not prepared, until there is a clip, and from a request
    for a keyframe to the clip's next one. A change to drawn pictures makes the first of them a
    keyframe; a change to a clip waits for one of its keyframes, which the first picture of a speech
    is. A speech that is interrupted is drawn until the mouth is shut and the idle clip has one.
    """

    kind = "video"

    def __init__(
        self,
        face: Face,
        mouthpiece: Mouthpiece,
        *,
        clips: IdleClips | None = None,
        speeches: SpeechClips | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`clock` is monotonic seconds, the running loop's by default. Without `clips` every
        picture is drawn; without `speeches` those on which the mouth moves are."""
        super().__init__()
        self._face = face
        self._mouthpiece = mouthpiece
        self._clips = clips
        self._speeches = speeches
        self.control: SenderControl | None = None
        self._read_by: tuple[SenderControl | None, str] = (None, "")
        self._clip: IdleClip | SpeechPictures | None = None
        """What is being sent; None while pictures are drawn."""
        self._at = (-1, -1)
        """Of the prepared picture that was given last: its number here, and in the clip."""
        self._shift = 0
        """What is added to a picture's number for its place in the face's loop."""
        self._met: tuple[Saying | None, str] = (None, "")
        """The prepared speech that is being said, and the codec that `_speech` is in."""
        self._speech: SpeechPictures | None = None
        self._newest: tuple[tuple[Saying | None, str], SpeechPictures | None] = (self._met, None)
        """What was asked for last."""
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
        patience = None if self._clip is None else round(_CATCH_UP * FRAMES_PER_SECOND)
        number = await self.pace.wait(patience=patience)
        if self.readyState != "live":
            raise MediaStreamError
        if number == 0 and self._speeches is not None:
            # All faces sway together, so that what several say at once is prepared once.
            self._shift = round(self.pace.clock() * FRAMES_PER_SECOND)
        picture: av.VideoFrame | av.Packet[Any]
        prepared = self._prepared(number)
        if not self.frozen:
            t = self._place(number) / FRAMES_PER_SECOND
            self._drawn = (t, self._mouthpiece.openness)
        self._mouthpiece.pictures += 1
        if prepared is not None:
            self._clip, at = prepared
            self._at = (number, at)
            self._open = isinstance(self._clip, SpeechPictures) and self._clip.is_open(at)
            self.prepared += 1
            picture = av.Packet(self._clip.frames[at])
        else:
            self._clip = None
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

    def _place(self, number: int) -> int:
        """Where in the face's loop a picture is."""
        return (number + self._shift) % LOOP_FRAMES

    def _prepared(self, number: int) -> _PreparedPicture | None:
        """Which picture of which clip this one is; None if it is drawn."""
        control = self.control
        if control is None or self._clips is None:
            return None
        reader = (control, control.codec)
        asked = control.take_keyframe_request() or reader != self._read_by
        self._read_by = reader
        self._meet_speech(number, control.codec)
        prepared = None
        if not self.frozen:
            follows = self._clip is not None and number == self._at[0] + 1 and not asked
            prepared = self._of_speech(number, follows) or self._of_idle(number, follows)
        if prepared is None and (asked or self._clip is not None):
            control.encode_keyframe()
        return prepared

    def _meet_speech(self, number: int, codec: str) -> None:
        """Look for the clip of a prepared speech that is to begin, and of one that has begun."""
        self._mouthpiece.holds = self._speeches is not None
        coming, saying = self._mouthpiece.coming, self._mouthpiece.saying
        if coming is not None:
            pictures = self._pictures(coming, codec, self._place(number + _SOON))
            coming.made = pictures is None or pictures.can_begin(0)
        if self._met == (saying, codec):
            return
        self._met = (saying, codec)
        self._speech = None
        if saying is not None:
            begun = self._due_picture(saying)
            self._speech = self._pictures(saying, codec, self._place(number - begun))
            if self._speech is not None:
                self._shift = self._speech.start + begun - number

    def _pictures(self, saying: Saying, codec: str, place: int) -> SpeechPictures | None:
        """A speech's clip, asked for once for each time that it is said, from near a place on."""
        asked = (saying, codec)
        if self._newest[0] != asked and self._speeches is not None:
            start = nearest_start(place)
            pictures = self._speeches.pictures(saying.speech, self._face, codec, start)
            self._newest = (asked, pictures)
        return self._newest[1]

    def _into(self, saying: Saying) -> float:
        """Seconds from the beginning of a speech to when this picture is due."""
        if saying.began is None:
            return saying.period * VOICE_SAMPLES / VOICE_RATE
        return self.pace.due - saying.began

    def _due_picture(self, saying: Saying) -> int:
        return max(math.floor(self._into(saying) * FRAMES_PER_SECOND + 0.01), 0)

    def _of_speech(self, number: int, follows: bool) -> _PreparedPicture | None:
        saying, speech = self._met[0], self._speech
        if saying is None or speech is None:
            return None
        at = self._at[1] + 1
        if self._clip is speech and number == self._at[0] + 1 and at < len(speech.frames):
            late = self._into(saying) - at / FRAMES_PER_SECOND
            may_follow = follows or at % KEYFRAME_FRAMES == 0
            if may_follow and -_EARLY <= late <= _LATE:
                return speech, at
        at = self._due_picture(saying)
        newest = at - at % KEYFRAME_FRAMES
        if self._into(saying) - newest / FRAMES_PER_SECOND <= _LATE:
            at = newest
        if self._mouthpiece.at_rest or at >= speech.length or not speech.can_begin(at):
            return None
        # A stall may have delayed the voice.
        self._shift = speech.start + at - number
        return speech, at

    def _of_idle(self, number: int, follows: bool) -> _PreparedPicture | None:
        assert self._clips is not None
        if not self._mouthpiece.at_rest:
            return None
        clip = self._clips.get(self._face, self._read_by[1])
        if clip is None:
            return None
        at = self._place(number)
        if at in clip.keyframes or (follows and self._clip is clip):
            return clip, at
        return None


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
        self.pace: Pace = Pace(VOICE_SAMPLES / VOICE_RATE, 3, now, sleep)

    async def recv(self) -> av.AudioFrame | av.Packet[Any]:
        """The next 20 ms, when they are due. Raises MediaStreamError after `stop`.

        What is prepared is encoded already, and so is silence, once the encoder has heard the end
        of what was said.
        """
        if self.readyState != "live":
            raise MediaStreamError
        prepared = not self.silent and self._mouthpiece.prepared
        patience = round(_CATCH_UP * VOICE_RATE / VOICE_SAMPLES) if prepared else None
        number = await self.pace.wait(patience=patience)
        if self.readyState != "live":
            raise MediaStreamError
        sound: av.AudioFrame | av.Packet[Any]
        opus = _is_opus(self.control)
        packet = self._mouthpiece.take_packet() if opus and not self.silent else None
        if packet is None:
            samples = self._mouthpiece.take()
            if self.silent:
                samples = np.zeros_like(samples)
            self._quiet = 0 if samples.any() else self._quiet + 1
            if self._quiet > _QUIET_FRAMES and opus:
                packet = encoded_silence()
        else:
            self._quiet = 0 if self._mouthpiece.audible else self._quiet + 1
        saying = self._mouthpiece.saying
        if saying is not None:
            saying.began = self.pace.due - saying.period * VOICE_SAMPLES / VOICE_RATE
        if packet is not None:
            sound = av.Packet(packet)
        else:
            sound = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            sound.sample_rate = VOICE_RATE
        sound.pts = number * VOICE_SAMPLES
        sound.time_base = fractions.Fraction(1, VOICE_RATE)
        return sound

    def leaving(self) -> None:
        """What was given last is encoded, and leaves now."""
        if not (self.silent or self._quiet):
            self._mouthpiece.sent(self.kind, now=self.pace.clock())


def _is_opus(control: SenderControl | None) -> bool:
    return control is not None and control.codec.lower() == "opus"
