"""RTCP sender reports (RFC 3550 section 6.4.1): from a track's timestamps to the sender's clock.

Each RTP stream counts from an origin of its own. A sender report says which instant of the sender's
wall clock one of its timestamps stands for; two streams of one sender are related by that, and by
nothing else. Nothing here knows aiortc, or a clock: reports and frames are given.

Two kinds of error are dealt with. A report is only as good as its sender's book-keeping (aiortc
writes down when a packet left, after encoding), so the median of the last :data:`WINDOW` reports
counts. And wall clocks are set: a report more than :data:`JUMP_SECONDS` off is believed when the
next one agrees with it.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

from attrs import frozen

from navtalk_proto.stats import AvSync

__all__ = [
    "SenderClock",
    "SenderReports",
    "TrackTiming",
    "av_sync",
    "ntp_seconds",
    "ntp_timestamp",
    "unwrapped",
]

WINDOW: Final = 9
"""Reports whose median counts. One comes every 0.5 to 5 s; a clock that drifts by 100 ppm is late
by half of the window, which is 2 ms at the slowest."""

JUMP_SECONDS: Final = 0.5
"""A report this far from the others says that the clock was set, or is a mistake."""

DELAY_WEIGHT: Final = 1 / 16
"""Of a new frame in the mean delay, as RFC 3550 section 6.4.1 has it for jitter."""


def ntp_seconds(ntp: int) -> float:
    """Seconds since 1900 of a 64-bit NTP timestamp, to half a microsecond."""
    return (ntp >> 32) + (ntp & 0xFFFFFFFF) / 2**32


def ntp_timestamp(seconds: float) -> int:
    """The 64-bit NTP timestamp of seconds since 1900."""
    whole = int(seconds)
    return ((whole & 0xFFFFFFFF) << 32) | int((seconds - whole) * 2**32)


def unwrapped(rtp: int, near: int, timestamp: int) -> int:
    """The unwrapped timestamp of the 32-bit `rtp`, where that of `near` is `timestamp`."""
    return timestamp + ((rtp - near + 2**31) % 2**32) - 2**31


@frozen(kw_only=True)
class SenderClock:
    """Where a track's timestamps lie on the sender's wall clock."""

    clock_rate: int
    offset: float
    """Seconds since 1900 of timestamp 0."""

    def time(self, timestamp: int) -> float:
        """The sender's time of a timestamp, in seconds since 1900."""
        return self.offset + timestamp / self.clock_rate


@frozen(kw_only=True)
class TrackTiming:
    """What is known of one received track's time. A snapshot."""

    track_id: str
    clock: SenderClock | None = None
    """None before the first sender report."""
    reports: int = 0
    """Sender reports that were received and had a time."""
    delay: float | None = None
    """Mean of arrival minus sender's time, in seconds. The clocks differ by anything: only the
    difference between two tracks of one sender means something."""


def av_sync(audio: TrackTiming | None, video: TrackTiming | None) -> AvSync:
    """Relate two tracks of one sender."""
    if audio is None or video is None or audio.delay is None or video.delay is None:
        return AvSync(source="arrival", offset=None)
    return AvSync(source="sender-reports", offset=video.delay - audio.delay)


class SenderReports:
    """The sender reports of one received track. Give it each frame and each report, in order."""

    def __init__(self, track_id: str) -> None:
        self._known: tuple[TrackTiming, float | None] = TrackTiming(track_id=track_id), None
        """What the reports say, and the mean delay, which each frame changes."""
        self._offsets: deque[float] = deque(maxlen=WINDOW)
        self._doubted: float | None = None
        """The offset that a report far from the others says."""
        self._newest: tuple[int, int, int] | None = None
        """RTP timestamp, unwrapped timestamp and clock rate of the newest frame."""
        self._early: tuple[int, int] | None = None
        """A report that came before the first frame."""

    @property
    def timing(self) -> TrackTiming:
        """What is known now; may be read from any thread."""
        timing, delay = self._known
        return TrackTiming(
            track_id=timing.track_id, clock=timing.clock, reports=timing.reports, delay=delay
        )

    def frame(self, *, rtp: int, timestamp: int, clock_rate: int, arrival: float) -> float | None:
        """A frame: its 32-bit timestamp, and the same unwrapped from an origin of the receiver's.

        Returns its time on the sender's clock, None while that is not known.
        """
        if self._newest is not None and self._newest[2] != clock_rate:
            self._forget()
        self._newest = rtp, timestamp, clock_rate
        if self._early is not None:
            early, self._early = self._early, None
            self._take(*early)
        timing, before = self._known
        clock = timing.clock
        if clock is None:
            return None
        time = clock.time(timestamp)
        delay = arrival - time
        # One assignment: other threads read both.
        self._known = (
            timing,
            delay if before is None else before + (delay - before) * DELAY_WEIGHT,
        )
        return time

    def report(self, *, ntp: int, rtp: int) -> None:
        """A sender report: its 64-bit NTP timestamp and its 32-bit RTP timestamp."""
        if ntp == 0:
            return  # The sender has no clock, or has sent nothing yet.
        if self._newest is None:
            self._early = ntp, rtp
        else:
            self._take(ntp, rtp)

    def _take(self, ntp: int, rtp: int) -> None:
        assert self._newest is not None
        near, timestamp, clock_rate = self._newest
        offset = ntp_seconds(ntp) - unwrapped(rtp, near, timestamp) / clock_rate
        timing, delay = self._known
        if self._offsets and abs(offset - median(self._offsets)) > JUMP_SECONDS:
            doubted, self._doubted = self._doubted, offset
            if doubted is None or abs(offset - doubted) > JUMP_SECONDS:
                return
            self._offsets.clear()
            delay = None
        self._doubted = None
        self._offsets.append(offset)
        clock = SenderClock(clock_rate=clock_rate, offset=median(self._offsets))
        known = TrackTiming(track_id=timing.track_id, clock=clock, reports=timing.reports + 1)
        self._known = known, delay

    def _forget(self) -> None:
        """The track counts in another unit now."""
        self._offsets.clear()
        timing, _ = self._known
        self._known = TrackTiming(track_id=timing.track_id, reports=timing.reports), None
