"""When sound is played, and when a microphone is listened to: the parts that no device shapes.

A sound card has a clock of its own. It plays a little faster or slower than the far end records,
and a buffer between the two fills or empties, by seconds in an hour. :class:`DriftControl` says how
much faster the buffer is to be read so that it does neither. :class:`HalfDuplexGate` keeps what the
speaker plays out of the microphone. There is no echo canceller here: while the human is heard, the
user is not.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DriftControl", "HalfDuplexGate"]

MAX_STRETCH: Final = 0.01
"""How much faster or slower sound is played at most: a sixth of a semitone, which nobody hears, and
ten times what a bad crystal is off by."""


class DriftControl:
    """Keeps the level of a playout buffer where it shall be, by a ratio near 1.

    A proportional and integral controller on the smoothed level: the proportional part brings a
    level back in some `settle` seconds, the integral part learns what the clock is off by.
    """

    def __init__(self, target: float, *, settle: float = 8.0, smooth: float = 1.0) -> None:
        """`target` is seconds of sound; `smooth` is what a level is averaged over, in seconds."""
        if not (target > 0 and settle > 0 and smooth > 0):
            raise ValueError("target, settle and smooth must be positive")
        self.target: Final = target
        self._settle = settle
        self._smooth = smooth
        self._level: float | None = None
        self._skew = 0.0

    @property
    def level(self) -> float | None:
        """The smoothed level in seconds; None before the first."""
        return self._level

    @property
    def skew(self) -> float:
        """What the device's clock is taken to be slow by, as a ratio: 1e-4 is 0.1 ms a second."""
        return self._skew

    def restart(self) -> None:
        """The buffer was empty, or was cut: its level says nothing about the clocks."""
        self._level = None

    def ratio(self, level: float, elapsed: float) -> float:
        """How many seconds of sound are to be read for one that is played.

        `level` is what the buffer holds, `elapsed` the seconds since this was last asked.
        """
        if self._level is None:
            self._level = level
        self._level += (level - self._level) * min(elapsed / self._smooth, 1.0)
        error = self._level - self.target
        skew = self._skew + error * elapsed / (4.0 * self._settle * self._settle)
        self._skew = min(max(skew, -MAX_STRETCH), MAX_STRETCH)
        return 1.0 + min(max(error / self._settle + self._skew, -MAX_STRETCH), MAX_STRETCH)


class HalfDuplexGate:
    """Shut while the speaker is heard, and `hang` seconds more: the room's echo, and a short pause.

    `now` is monotonic seconds of the caller's.
    """

    def __init__(self, *, hang: float = 0.35) -> None:
        if hang < 0:
            raise ValueError("hang must not be negative")
        self._hang = hang
        self._heard = float("-inf")

    def heard(self, *, until: float) -> None:
        """Something that is not silence is played until then."""
        self._heard = max(self._heard, until)

    def is_open(self, *, now: float) -> bool:
        """Whether the microphone is listened to."""
        return now >= self._heard + self._hang
