"""Sender reports, with values that are given: wrap, drift, noise, clocks that are set."""

from __future__ import annotations

import random

import pytest

from navtalk_asyncio.media.sender_reports import (
    WINDOW,
    SenderReports,
    TrackTiming,
    av_sync,
    ntp_seconds,
    ntp_timestamp,
    unwrapped,
)
from navtalk_proto.stats import AvSync

START = 3_990_000_000.0
"""Seconds since 1900: in 2026."""

RATE = 90_000


class Sender:
    """A track whose clock runs `ppm` fast, from an RTP origin, seen by SenderReports."""

    def __init__(self, *, origin: int = 0, rate: int = RATE, ppm: float = 0.0) -> None:
        self.origin, self.rate, self.speed = origin, rate, 1 + ppm / 1e6
        self.reports = SenderReports("t")

    def timestamp(self, at: float) -> int:
        return round(at * self.speed * self.rate)

    def frame(self, at: float, *, delay: float = 0.0) -> float | None:
        timestamp = self.timestamp(at)
        return self.reports.frame(
            rtp=(self.origin + timestamp) % 2**32,
            timestamp=timestamp,
            clock_rate=self.rate,
            arrival=at + delay,
        )

    def report(self, at: float, *, error: float = 0.0) -> None:
        self.reports.report(
            ntp=ntp_timestamp(START + at + error),
            rtp=(self.origin + self.timestamp(at)) % 2**32,
        )


def test_ntp_timestamps() -> None:
    assert ntp_seconds(1 << 32 | 1 << 31) == 1.5
    assert ntp_timestamp(1.5) == 1 << 32 | 1 << 31
    assert ntp_seconds(ntp_timestamp(START + 0.123456)) == pytest.approx(START + 0.123456, abs=1e-6)


@pytest.mark.parametrize(
    ("rtp", "near", "timestamp", "expected"),
    [
        (1100, 1000, 0, 100),
        (900, 1000, 0, -100),
        (5, 2**32 - 5, 7000, 7010),  # wrapped after the frame
        (2**32 - 5, 5, 7000, 6990),  # the frame is behind the wrap, the report before it
        (0, 0, 3 * 2**32, 3 * 2**32),
    ],
)
def test_the_nearest_of_all_that_a_wrapped_timestamp_can_mean(
    rtp: int, near: int, timestamp: int, expected: int
) -> None:
    assert unwrapped(rtp, near, timestamp) == expected


def test_nothing_is_known_before_the_first_report() -> None:
    sender = Sender()
    assert sender.frame(0.0) is None
    assert sender.reports.timing == TrackTiming(track_id="t")


def test_a_report_tells_the_time_of_every_frame() -> None:
    sender = Sender(origin=123_456)
    sender.frame(0.0)
    sender.report(1.0)
    assert sender.frame(0.5) == pytest.approx(START + 0.5, abs=1e-5)
    assert sender.frame(2.0) == pytest.approx(START + 2.0, abs=1e-5)
    assert sender.reports.timing.reports == 1


def test_a_report_before_the_first_frame_is_kept() -> None:
    sender = Sender(origin=2**32 - 100)
    sender.report(0.01)
    assert sender.frame(0.02) == pytest.approx(START + 0.02, abs=1e-5)


def test_a_report_without_a_time_says_nothing() -> None:
    """aiortc sends one before its first packet."""
    sender = Sender()
    sender.frame(0.0)
    sender.reports.report(ntp=0, rtp=0)
    assert sender.reports.timing.clock is None


def test_timestamps_wrap_within_a_call() -> None:
    sender = Sender(origin=2**32 - RATE * 5)
    for second in range(20):
        sender.frame(float(second))
        sender.report(second + 0.25)
    assert sender.frame(20.0) == pytest.approx(START + 20.0, abs=1e-5)


def test_drift_is_followed_for_ten_minutes() -> None:
    sender = Sender(ppm=200)
    for second in range(601):
        sender.frame(float(second))
        sender.report(second + 0.1)
    # Half a window late: 200 ppm of 4.5 s.
    assert sender.frame(600.5) == pytest.approx(START + 600.5, abs=0.0015)


def test_one_bad_report_among_good_ones_changes_little() -> None:
    sender, noise = Sender(), random.Random(7)
    for second in range(WINDOW - 1):
        sender.frame(float(second))
        sender.report(float(second), error=noise.uniform(0, 0.002))
    sender.report(9.0, error=0.4)
    assert sender.frame(9.5) == pytest.approx(START + 9.5, abs=0.003)


def test_a_clock_that_was_set_is_believed_the_second_time() -> None:
    sender = Sender()
    for second in range(5):
        sender.frame(float(second))
        sender.report(float(second))
    sender.report(5.0, error=-3600.0)
    assert sender.frame(5.5) == pytest.approx(START + 5.5, abs=1e-5)
    sender.report(6.0, error=-3600.0)
    assert sender.frame(6.5) == pytest.approx(START + 6.5 - 3600, abs=1e-5)
    assert sender.reports.timing.delay == pytest.approx(3600 - START, abs=1e-3)


def test_two_doubtful_reports_that_disagree_are_both_left_out() -> None:
    sender = Sender()
    sender.frame(0.0)
    sender.report(0.0)
    sender.report(1.0, error=40.0)
    sender.report(2.0, error=-7.0)
    assert sender.frame(2.5) == pytest.approx(START + 2.5, abs=1e-5)
    sender.report(3.0)
    sender.report(4.0, error=-7.0)
    assert sender.frame(4.5) == pytest.approx(START + 4.5, abs=1e-5)


def test_another_clock_rate_is_another_clock() -> None:
    sender = Sender(rate=48_000)
    sender.frame(0.0)
    sender.report(0.0)
    sender.rate = 8_000
    assert sender.frame(1.0) is None
    sender.report(1.5)
    assert sender.frame(2.0) == pytest.approx(START + 2.0, abs=1e-4)


def test_the_offset_between_picture_and_sound_is_measured() -> None:
    """A picture that takes 80 ms longer, with 10 ms of jitter."""
    audio, video, jitter = Sender(rate=48_000), Sender(), random.Random(3)
    assert av_sync(audio.reports.timing, video.reports.timing) == AvSync(
        source="arrival", offset=None
    )
    audio.frame(0.0)
    video.frame(0.0)
    audio.report(0.0)
    assert av_sync(audio.reports.timing, video.reports.timing).source == "arrival"
    video.report(0.0)
    for number in range(500):
        audio.frame(number * 0.02, delay=0.05)
        video.frame(number * 0.02, delay=0.13 + jitter.uniform(-0.005, 0.005))
    sync = av_sync(audio.reports.timing, video.reports.timing)
    assert sync.source == "sender-reports"
    assert sync.offset == pytest.approx(0.08, abs=0.003)
    assert av_sync(None, video.reports.timing).offset is None
    assert av_sync(audio.reports.timing, None).offset is None
