"""Which lost packets to ask for again, and when (generic NACK, RFC 4585 section 6.2.1).

aiortc asks when it notices a gap and then never again, until it notices another. A request and its
answer are packets, and get lost as others do: here each missing packet is asked for at once, and
again while it is missing, in intervals of the round trip that the answers show.

Nothing here knows aiortc, a clock or a timer. `now` is given, in monotonic seconds; `next_due` says
when :meth:`NackSchedule.due` has something, and calling it early is harmless.
"""

from __future__ import annotations

from typing import Final

from attrs import define

from navtalk_asyncio.media.jitter_buffer import REPAIRABLE_GAP, unwrap

__all__ = ["NackSchedule"]

FIRST_INTERVAL: Final = 0.06
"""Seconds until asking again, before an answer has shown the round trip."""

MIN_INTERVAL: Final = 0.02
MAX_INTERVAL: Final = 0.2
"""Bounds of it afterwards."""

TRIPS: Final = 1.5
"""Round trips until an answer counts as lost."""

ATTEMPTS: Final = 10
"""How often one packet is asked for; with a tenth of both directions lost, one in 10**7 is left."""


@define(slots=True)
class _Missing:
    due: float
    attempts: int = 0
    asked: float = 0.0


class NackSchedule:
    """The missing packets of one RTP stream."""

    def __init__(self) -> None:
        self._highest: int | None = None
        self.missing: dict[int, _Missing] = {}
        """By sequence number, unwrapped."""
        self._trip: float | None = None
        self.requests: int = 0
        """Sequence numbers asked for, counted each time."""

    @property
    def next_due(self) -> float | None:
        """When there is something to ask for; None while nothing is missing."""
        return min((missing.due for missing in self.missing.values()), default=None)

    @property
    def round_trip(self) -> float | None:
        """Seconds from asking to the answer, smoothed; None before the first answer."""
        return self._trip

    def received(self, sequence_number: int, now: float) -> bool:
        """A packet came, sent again or not; whether it shows a gap that was not known."""
        if self._highest is None:
            self._highest = sequence_number
            return False
        if not self.missing and (sequence_number - self._highest) & 0xFFFF == 1:
            self._highest += 1
            return False
        seq = unwrap(sequence_number, self._highest, 16)
        if seq <= self._highest:
            found = self.missing.pop(seq, None)
            if found is not None and found.attempts == 1:
                # Of several requests it is not known which was answered (RFC 6298 section 3).
                sample, trip = now - found.asked, self._trip
                self._trip = sample if trip is None else trip + (sample - trip) / 8
            return False
        gap = seq - self._highest - 1
        if gap > REPAIRABLE_GAP:
            self.missing.clear()
        else:
            for lost in range(self._highest + 1, seq):
                self.missing[lost] = _Missing(due=now)
        self._highest = seq
        for old in [lost for lost in self.missing if lost < seq - 2 * REPAIRABLE_GAP]:
            del self.missing[old]
        return 0 < gap <= REPAIRABLE_GAP

    def due(self, now: float) -> list[int]:
        """The sequence numbers, modulo 2**16 and in rising order, to ask for now."""
        numbers = []
        for seq, missing in list(self.missing.items()):
            if missing.due > now:
                continue
            if missing.attempts == ATTEMPTS:
                del self.missing[seq]
                continue
            missing.attempts += 1
            missing.asked = now
            missing.due = now + self._interval
            numbers.append(seq & 0xFFFF)
        self.requests += len(numbers)
        return sorted(numbers)

    def forget_before(self, sequence_number: int) -> None:
        """What comes before this one is of no use any more."""
        if self.missing and self._highest is not None:
            first = unwrap(sequence_number, self._highest, 16)
            for seq in [lost for lost in self.missing if lost < first]:
                del self.missing[seq]

    def restart(self) -> None:
        """Forget everything: the next packet begins anew."""
        self.missing.clear()
        self._highest = None

    @property
    def _interval(self) -> float:
        if self._trip is None:
            return FIRST_INTERVAL
        return min(MAX_INTERVAL, max(MIN_INTERVAL, TRIPS * self._trip))
