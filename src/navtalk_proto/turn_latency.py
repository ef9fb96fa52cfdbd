"""How long each answer takes: from the end of the user's speech to sound, and to movement.

Three pure parts. :class:`TurnLatencyMeter` puts the stamps of a turn together, and says while it
wants to know of media. :class:`SoundWatch` and :class:`PictureWatch` are an engine's: they find the
first sound in silence, and the first picture that changed more than an idle one does.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final

from attrs import evolve

from navtalk_proto.events import (
    Event,
    ResponseDone,
    ResponseInterrupted,
    ResponseStarted,
    UserSilent,
    UserSpeaking,
)
from navtalk_proto.media import MediaKind
from navtalk_proto.stats import TurnLatency

__all__ = ["PictureWatch", "SoundWatch", "TurnLatencyMeter", "is_voice"]

TURNS: Final = 64
"""Turns whose latency is kept."""

AUDIBLE: Final = 260
"""The mean magnitude, of 32,767, from which on PCM16 is a sound: -42 dBFS, above the noise of a
quiet room and below a voice."""

STEP: Final = 4
"""Every so many samples of the user's voice are looked at: six thousand a second are plenty."""

MOUTH_LEAD: Final = 0.06
"""Seconds by which the mouth may open before the first sound; beyond that lips are seen to be wrong
(EBU R37), and a change is a blink."""

QUIET_SECONDS: Final = 0.1
"""Silence after which a sound is a new one: shorter than a pause, longer than a stop consonant."""


def is_voice(pcm: bytes) -> bool:
    """Whether PCM16 (little-endian, mono) is louder than silence. Empty is silence."""
    samples = array("h", pcm[: len(pcm) & ~1])[::STEP]
    return bool(samples) and sum(map(abs, samples)) >= AUDIBLE * len(samples)


class TurnLatencyMeter:
    """The latency of the newest turns of one session."""

    def __init__(self) -> None:
        self._done: deque[TurnLatency] = deque(maxlen=TURNS)
        self._turn: TurnLatency | None = None
        self._spoke: float | None = None
        """When the user's voice was heard last in what was sent."""
        self._speaking = False
        self._moved: float | None = None
        """The newest change of the picture before there was a sound."""

    @property
    def latencies(self) -> tuple[TurnLatency, ...]:
        """Oldest first."""
        return (*self._done, *(() if self._turn is None else (self._turn,)))

    @property
    def watching(self) -> bool:
        """Whether the first sound or the first movement is waited for."""
        turn = self._turn
        return self._speaking or (
            turn is not None and (turn.first_audio is None or turn.first_movement is None)
        )

    def voice_sent(self, pcm: bytes, *, now: float) -> None:
        """A piece of the user's voice left; its last sample is said at `now`."""
        if is_voice(pcm):
            self._spoke = now

    def asked(self, *, now: float) -> None:
        """The user typed something, or asked for a response."""
        self._begin(TurnLatency(speech_end=now, typed=True))

    def observe(self, event: Event, *, now: float) -> None:
        """An event of the session."""
        match event:
            case UserSpeaking():
                self._speaking = True
                self._finish(interrupted=True)
            case UserSilent():
                self._speaking = False
                spoke = now if self._spoke is None else min(self._spoke, now)
                self._begin(TurnLatency(speech_end=spoke, silence_told=now))
            case ResponseStarted() if self._turn is not None and self._turn.first_text is None:
                self._turn = evolve(self._turn, first_text=now)
            case ResponseInterrupted():
                self._finish(interrupted=True)
            case ResponseDone() if self._turn is not None and self._turn.first_audio is not None:
                self._finish(interrupted=False)  # without readers a movement is never seen
            case _:
                pass

    def media(self, kind: MediaKind, at: float) -> None:
        """A sound began, or the picture changed, at `at`; told while :attr:`watching`.

        A moved picture counts from MOUTH_LEAD before the first sound on.
        """
        turn = self._turn
        if turn is None or at < turn.speech_end:
            return
        if kind is MediaKind.AUDIO:
            if turn.first_audio is None:
                early = self._moved is not None and self._moved >= at - MOUTH_LEAD
                self._turn = evolve(
                    turn, first_audio=at, first_movement=self._moved if early else None
                )
        elif turn.first_audio is None:
            if self._moved is None or at - self._moved > MOUTH_LEAD:
                self._moved = at
        elif turn.first_movement is None and at >= turn.first_audio - MOUTH_LEAD:
            self._turn = evolve(turn, first_movement=at)

    def _begin(self, turn: TurnLatency) -> None:
        self._finish(interrupted=False)
        self._turn = turn
        self._moved = None

    def _finish(self, *, interrupted: bool) -> None:
        if self._turn is not None:
            unknown = self._turn.first_audio is None
            self._done.append(evolve(self._turn, interrupted=interrupted and unknown))
            self._turn = None


class SoundWatch:
    """Finds the beginning of a sound. What sounds when the watch begins is an old one."""

    def __init__(self) -> None:
        self._silent: float | None = None
        """Since when it is silent; None while something sounds, or nothing is known."""
        self._begun = False

    def heard(self, pcm: bytes, *, at: float) -> bool:
        """A piece of decoded audio, PCM16; whether a new sound begins in it.

        `at` is when it came; pieces come in order. Nothing is known of the time before the first
        one: if that is silence, it is taken to have lasted.
        """
        if not is_voice(pcm):
            if self._silent is None:
                self._silent = at if self._begun else at - QUIET_SECONDS
            self._begun = True
            return False
        silent, self._silent = self._silent, None
        self._begun = True
        return silent is not None and at - silent >= QUIET_SECONDS


class PictureWatch:
    """Finds pictures on which more changed than idle ones have taught.

    A picture is a grid of brightness samples, one byte each, always of the same places. For each
    place the greatest change between two pictures is remembered while the face is idle, and fades
    in some ten seconds: breathing and blinking are known then, and a mouth that opens is not.
    """

    FADE: Final = 0.997
    """What is left of a place's known change after each picture."""
    MARGIN: Final = 14
    """Steps of brightness beyond what is known: more than what a coder's noise is."""
    PLACES: Final = 3
    """Places that must change: one alone is noise."""

    def __init__(self) -> None:
        self._last: bytes | None = None
        self._known: list[float] = []

    def pause(self) -> None:
        """Pictures pass that are neither: the next one is compared with none of before."""
        self._last = None

    def picture(self, grid: bytes, *, idle: bool) -> bool:
        """The next picture; whether it changed. `idle` ones teach, and never have changed."""
        last, self._last = self._last, grid
        if len(self._known) != len(grid):
            self._known = [0.0] * len(grid)
            return False
        if last is None or grid == last:
            return False
        changes = [abs(a - b) for a, b in zip(grid, last, strict=True)]
        if not idle:
            pairs = zip(changes, self._known, strict=True)
            return sum(new > 1.5 * old + self.MARGIN for new, old in pairs) >= self.PLACES
        fade = self.FADE
        self._known = [
            new if new > old * fade else old * fade
            for new, old in zip(changes, self._known, strict=True)
        ]
        return False
