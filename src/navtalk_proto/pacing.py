"""When audio that is sent in real time is due, reckoned by its samples."""

from __future__ import annotations

from typing import Final

from navtalk_proto.wire.audio import SAMPLE_RATE

__all__ = ["CATCH_UP_SECONDS", "EARLY_SECONDS", "Pacer"]

CATCH_UP_SECONDS: Final = 8192 / SAMPLE_RATE
"""How late a piece may be and still keep its place in the schedule: 0.34 s, the block that browsers
send at once (protocol.md 5.12). What is late by more begins a new schedule, so that no burst is
longer than what every server has to take anyway."""

EARLY_SECONDS: Final = 0.001
"""How early a piece may leave. Timers fire early by their clock's resolution, and a wait for the
rest would be a wait of no length."""


class Pacer:
    """The schedule of one voice: a piece is due when all before it has been spoken.

    Whoever sends asks :meth:`due`, waits until then, asks again, and calls :meth:`sent` with what
    it sent; nothing is booked before that, so that a sender that is cancelled leaves no hole.
    """

    __slots__ = ("_samples", "_start")

    def __init__(self) -> None:
        self._start: float | None = None
        self._samples = 0

    def due(self, now: float) -> float:
        """When the next piece may leave, in the seconds of `now`: `now` itself, or later."""
        due = self._due(now)
        return due if due - now > EARLY_SECONDS else now

    def sent(self, samples: int, now: float) -> None:
        """A piece of so many samples leaves now."""
        if now - self._due(now) > CATCH_UP_SECONDS:
            self._start = None
        if self._start is None:
            self._start, self._samples = now, 0
        self._samples += samples

    def _due(self, now: float) -> float:
        return now if self._start is None else self._start + self._samples / SAMPLE_RATE
