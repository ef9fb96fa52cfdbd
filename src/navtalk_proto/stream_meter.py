"""Rates, loss, jitter and freezes of one received stream, from what its packets say.

Nothing here knows a loop or RTP's wire format: a packet is its numbers, and `now` is the caller's
monotonic seconds. Each call costs about a microsecond and keeps nothing that grows.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["FreezeMeter", "Mean", "RateMeter", "ReceptionMeter"]

SLICES: Final = 8
"""Slices of a rate's window: what is forgotten at once is an eighth."""

MAX_DROPOUT: Final = 3000
"""A sequence number this far ahead is another stream's, or a restarted one's (RFC 3550 A.1)."""


class RateMeter:
    """The amount per second over the last `window` seconds."""

    def __init__(self, window: float) -> None:
        if not window > 0:
            raise ValueError("window must be positive")
        self._window = window
        self._width = window / SLICES
        self._slices: deque[tuple[int, float]] = deque()
        """Number and amount of those before the newest."""
        self._newest = 0.0
        self._number = 0
        self._end = float("-inf")
        """When the newest slice ends."""
        self._first: float | None = None

    def add(self, amount: float, *, now: float) -> None:
        """So much more."""
        if now < self._end:  # Nearly always: there may be thousands of calls in a slice.
            self._newest += amount
            return
        if self._first is None:
            self._first = now
        else:
            self._slices.append((self._number, self._newest))
        self._number, self._newest = int(now / self._width), amount
        self._end = (self._number + 1) * self._width
        self._forget(self._number)

    def per_second(self, *, now: float) -> float:
        """The rate now: 0.0 before the first amount, and after a window without any."""
        if self._first is None:
            return 0.0
        number = int(now / self._width)
        self._forget(number)
        # The slice of now is not over: what is measured over ends now, not with the slice.
        covered = min(now - self._first, now - (number - SLICES) * self._width)
        covered = max(covered, self._width)
        newest = self._newest if self._number >= number - SLICES else 0.0
        return (sum(amount for _, amount in self._slices) + newest) / covered

    def _forget(self, number: int) -> None:
        while self._slices and self._slices[0][0] < number - SLICES:
            self._slices.popleft()


class Mean:
    """The mean of the newest values, each of the older ones counting a little less."""

    def __init__(self, weight: float = 0.1) -> None:
        """`weight` is what a new value counts."""
        self._weight = weight
        self.value: float | None = None
        """None before the first."""

    def add(self, value: float) -> None:
        """One more."""
        if self.value is None:
            self.value = value
        else:
            self.value += (value - self.value) * self._weight


class ReceptionMeter:
    """Loss and jitter of one SSRC (RFC 3550 A.1, A.3 and A.8)."""

    def __init__(self, window: float) -> None:
        self._first = 0
        self._highest = 0
        """Extended by the wraps of the 16 bits."""
        self._received = 0
        self._expected = RateMeter(window)
        self._got = RateMeter(window)
        self._timestamp = 0
        self._arrival = 0.0
        self._jitter = 0.0

    def packet(self, sequence: int, timestamp: int, clock_rate: int, *, now: float) -> None:
        """One packet: its 16-bit number, its 32-bit time, and the ticks of that per second.

        One that jumps is the beginning of another stream: loss before it is forgotten.
        """
        ahead = (sequence - self._highest) & 0xFFFF
        if self._received == 0 or (MAX_DROPOUT < ahead < 0x10000 - MAX_DROPOUT):
            self._first = self._highest = sequence
            self._received = 0
            ahead = 1
        elif 0 < ahead < 0x8000:
            self._highest += ahead
            ticks = (timestamp - self._timestamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            if ticks:
                transit = abs(now - self._arrival - ticks / clock_rate)
                self._jitter += (transit - self._jitter) / 16
        else:
            ahead = 0  # late, or sent again: it was expected when the next one came
        if ahead:
            self._timestamp, self._arrival = timestamp, now
            self._expected.add(ahead, now=now)
        self._received += 1
        self._got.add(1, now=now)

    @property
    def lost(self) -> int:
        """Expected and not received, of the stream so far."""
        if self._received == 0:
            return 0
        return self._highest - self._first + 1 - self._received

    @property
    def jitter(self) -> float:
        """Seconds."""
        return self._jitter

    def loss(self, *, now: float) -> float:
        """The share that was lost lately, 0 to 1."""
        expected = self._expected.per_second(now=now)
        if expected <= 0.0:
            return 0.0
        return min(max(1.0 - self._got.per_second(now=now) / expected, 0.0), 1.0)


class FreezeMeter:
    """How often and how long a video stood still (webrtc-stats freezeCount)."""

    FRAMES: Final = 30
    """Frame durations that the mean is made of."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._durations: deque[float] = deque(maxlen=self.FRAMES)
        self._sum = 0.0
        self._count = 0
        self._seconds = 0.0

    def frame(self, *, now: float) -> None:
        """A picture came."""
        if self._last is not None:
            duration = now - self._last
            if self._is_freeze(duration):
                self._count += 1
                self._seconds += duration
            else:
                if len(self._durations) == self.FRAMES:
                    self._sum -= self._durations[0]
                self._durations.append(duration)
                self._sum += duration
        self._last = now

    def pause(self) -> None:
        """The sender stops on purpose: the time until the next picture is no freeze."""
        self._last = None

    def measured(self, *, now: float) -> tuple[int, float]:
        """How many freezes, and how many seconds in all; one that lasts still is in both."""
        if self._last is not None and self._is_freeze(now - self._last):
            return self._count + 1, self._seconds + now - self._last
        return self._count, self._seconds

    def _is_freeze(self, duration: float) -> bool:
        # A mean of few is no mean: the first pictures come in bursts.
        if len(self._durations) < 5:
            return False
        mean = self._sum / len(self._durations)
        return duration >= max(3.0 * mean, mean + 0.15)
