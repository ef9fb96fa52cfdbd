"""What is to be said and how far it was said: the mouthpiece between a conversation and its tracks.

What is said may be prepared (:mod:`~navtalk_asyncio.emulator.speech_clip`). It then begins with a
period of 20 ms of its own, so that the clip's packets and pictures fit, and is taken as packets as
far as they are made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, TypeAlias

import numpy as np
from attrs import define
from numpy.typing import NDArray

from navtalk_asyncio.emulator.clip_making import KEYFRAME_FRAMES
from navtalk_asyncio.emulator.speech_clip import HOLD_PERIODS, PERIODS_PER_PICTURE, SpeechClip
from navtalk_asyncio.emulator.spoken_sound import SPOKEN_SAMPLES, Mouth, Upsampler
from navtalk_proto.errors import NavTalkError
from navtalk_proto.turn_latency import is_voice
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH

__all__ = ["Mouthpiece", "MouthpieceError", "Saying", "Utterance"]

_UTTERANCES: Final = 64
_OVER_PERIODS: Final = KEYFRAME_FRAMES * PERIODS_PER_PICTURE
"""Periods after a prepared speech's end in which its pictures may still be shown."""

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


@define(eq=False)
class Saying:
    """A prepared speech that is being said; one for each time that it is."""

    speech: SpeechClip
    period: int = 0
    """The period of 20 ms that was taken last."""
    began: float | None = None
    """When the first period was due on the voice track's clock, as of the newest one: later, if the
    voice was held up. None where nobody says so."""
    begun: bool = False
    made: bool = False
    """Whether as much of its pictures is made as it waits for."""
    waited: int = 0
    """Periods that it has waited."""


@define
class _Piece:
    """What was queued at once."""

    samples: _Samples
    saying: Saying | None


class Mouthpiece:
    """What is to be said and how far it was said. Belongs to one session and one event loop."""

    def __init__(self, *, max_seconds: float = 240.0) -> None:
        self._max_samples = int(max_seconds * SAMPLE_RATE)
        self._queue: deque[_Piece] = deque()
        self._queued = 0  # samples
        self._upsampler = Upsampler()
        self._mouth = Mouth()
        self._saying: Saying | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._breaks = 0
        self._closed = False
        self.holds: bool = False
        """Whether a prepared speech waits for its pictures; a face says so that can show them."""
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
        return self._mouth.openness

    @property
    def audible(self) -> bool:
        """Whether there is a voice in what was taken last."""
        return self._audible

    @property
    def saying(self) -> Saying | None:
        """The prepared speech that is being said, with the silence behind it; None for a live one
        and for none."""
        return self._saying

    @property
    def coming(self) -> Saying | None:
        """The prepared speech that is next, as long as it waits."""
        head = self._queue[0].saying if self._queue else None
        return head if self._waits(head) else None

    @property
    def at_rest(self) -> bool:
        """Whether nothing is being said and the mouth is shut."""
        if self.openness:
            return False
        head = self._queue[0].saying if self._queue else None
        return not self.speaking or (self.holds and head is not None and not head.begun)

    def _waits(self, saying: Saying | None) -> bool:
        return (
            saying is not None
            and self.holds
            and not (saying.begun or saying.made or saying.waited >= HOLD_PERIODS)
        )

    def say(self, pcm: bytes, speech: SpeechClip | None = None) -> None:
        """Queue PCM16, mono, 24,000 Hz behind what waits. `speech` is the same, prepared.

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
        self._queue.append(_Piece(samples, None if speech is None else Saying(speech)))
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
        self._saying = None
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
        taken = self._advance()
        self._mouth.follow(taken)
        self._audible = is_voice(taken.tobytes())
        return self._upsampler.process(taken)

    def take_packet(self) -> bytes | None:
        """The next 20 ms as an Opus packet, where they are prepared; None, and nothing is taken,
        where they are not."""
        saying, period = self._next_prepared()
        if saying is None:
            return None
        speech = saying.speech
        if period >= len(speech.packets) and not speech.ready:
            return None
        self._advance()
        self._mouth.openness = speech.opening(period)
        self._audible = period < speech.periods and speech.audible[period]
        # What is live after this begins anew.
        self._upsampler = Upsampler()
        return speech.packet(period)

    @property
    def prepared(self) -> bool:
        """Whether the next 20 ms are of a prepared speech that has begun."""
        saying, period = self._next_prepared()
        return saying is not None and period > 0

    def _next_prepared(self) -> tuple[Saying | None, int]:
        """The prepared speech that the next 20 ms are of, and which of it they are."""
        saying = self._queue[0].saying if self._queue else self._saying
        if self._waits(saying):
            saying = self._saying
        if saying is None:
            return None, 0
        return saying, saying.period + 1 if saying.begun else 0

    def _advance(self) -> _Samples:
        """Take the next 480 samples at 24,000 Hz."""
        taken = np.zeros(SPOKEN_SAMPLES, dtype=np.int16)
        coming = self.coming
        if not self._queue or coming is not None:
            if coming is None:
                self._idle.set()
            else:
                coming.waited += 1
            if self._saying is not None:
                self._saying.period += 1
                if self._saying.period > self._saying.speech.periods + _OVER_PERIODS:
                    self._saying = None
            return taken
        piece = self._queue[0]
        self._saying = piece.saying
        if self._saying is not None:
            self._saying.period += self._saying.begun
            self._saying.begun = True
        at = 0
        # What is prepared begins and ends with a period.
        while at < taken.size and self._queue and self._queue[0].saying is self._saying:
            piece = self._queue[0]
            part = piece.samples[: taken.size - at]
            taken[at : at + part.size] = part
            at += part.size
            if part.size == piece.samples.size:
                self._queue.popleft()
            else:
                piece.samples = piece.samples[part.size :]
        self._queued -= at
        return taken

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
