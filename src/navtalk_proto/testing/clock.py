"""A clock that moves when told to."""

from __future__ import annotations

__all__ = ["VirtualClock"]


class VirtualClock:
    """Monotonic seconds for tests. Starts at `now`, moves by :meth:`advance` only."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now

    @property
    def now(self) -> float:
        """The current time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on; a negative step raises ValueError."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += seconds

    def advance_to(self, when: float) -> None:
        """Move on to a point in time; one in the past raises ValueError."""
        self.advance(when - self._now)
