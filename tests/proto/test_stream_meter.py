"""Rates, loss, jitter and freezes: by hand, at times that the test sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.stream_meter import FreezeMeter, Mean, RateMeter, ReceptionMeter


def test_a_rate_is_of_the_last_seconds_only() -> None:
    meter = RateMeter(2.0)
    assert meter.per_second(now=100.0) == 0.0
    for tick in range(400):
        meter.add(10.0, now=100.0 + tick / 100)
    assert meter.per_second(now=103.99) == pytest.approx(1000.0, rel=0.02)
    assert meter.per_second(now=105.0) == pytest.approx(500.0, rel=0.15)
    assert meter.per_second(now=110.0) == 0.0


def test_a_rate_that_just_began_is_of_what_has_passed() -> None:
    meter = RateMeter(2.0)
    for tick in range(50):
        meter.add(1.0, now=7.0 + tick / 50)
    assert meter.per_second(now=8.0) == pytest.approx(50.0, rel=0.02)


def test_a_window_is_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        RateMeter(0.0)


@given(st.lists(st.floats(0.0, 5.0), max_size=60))
def test_a_rate_keeps_a_few_slices_whatever_comes(gaps: list[float]) -> None:
    meter, now = RateMeter(2.0), 0.0
    for gap in gaps:
        now += gap
        meter.add(1.0, now=now)
        assert len(meter._slices) <= 9
        assert meter.per_second(now=now) > 0.0


def test_a_mean_begins_with_the_first_and_follows() -> None:
    mean = Mean(0.5)
    assert mean.value is None
    mean.add(4.0)
    assert mean.value == 4.0
    mean.add(2.0)
    assert mean.value == 3.0


def stream(numbers: list[int], *, jitter: tuple[float, ...] = (0.0,)) -> ReceptionMeter:
    """Packets of 20 ms at 48,000 Hz with these numbers, each late by the next of `jitter`."""
    meter = ReceptionMeter(2.0)
    for at, number in enumerate(numbers):
        late = jitter[at % len(jitter)]
        meter.packet(
            number & 0xFFFF, number * 960 & 0xFFFFFFFF, 48_000, now=10.0 + number / 50 + late
        )
    return meter


def test_nothing_is_lost_before_the_first_packet() -> None:
    meter = ReceptionMeter(2.0)
    assert (meter.lost, meter.jitter, meter.loss(now=1.0)) == (0, 0.0, 0.0)


def test_what_is_missing_is_lost_across_the_wrap_of_both_counters() -> None:
    whole = list(range(65_500, 65_600))
    assert stream(whole).lost == 0
    kept = [number for number in whole if number % 10]
    meter = stream(kept)
    # The first number is one that was left out: nobody knows of it.
    assert meter.lost == 9
    assert meter.loss(now=10.0 + kept[-1] / 50) == pytest.approx(0.1, abs=0.02)


def test_what_comes_late_is_not_lost_and_what_comes_twice_is_counted_twice() -> None:
    assert stream([1, 2, 4, 3, 5]).lost == 0
    assert stream([1, 2, 2, 3]).lost == -1
    assert stream([1, 2, 2, 3]).loss(now=10.1) == 0.0


def test_another_stream_on_the_same_source_begins_anew() -> None:
    meter = stream([10, 11, 13])
    assert meter.lost == 1
    meter.packet(40_000, 0, 48_000, now=20.0)
    assert meter.lost == 0
    meter.packet(40_002, 1920, 48_000, now=20.04)
    assert meter.lost == 1


def test_jitter_is_what_rfc_3550_says() -> None:
    assert stream(list(range(200))).jitter == pytest.approx(0.0, abs=1e-9)
    # Every second packet is 8 ms late: each transit differs from the one before by 8 ms.
    assert stream(list(range(200)), jitter=(0.0, 0.008)).jitter == pytest.approx(0.008, rel=0.01)


def test_packets_of_one_picture_are_no_jitter() -> None:
    meter = ReceptionMeter(2.0)
    for number in range(10):
        meter.packet(number, 3000, 90_000, now=1.0 + number / 1000)
    assert meter.jitter == 0.0


def pictures(meter: FreezeMeter, *gaps: float, start: float = 5.0) -> float:
    now = start
    for gap in gaps:
        now += gap
        meter.frame(now=now)
    return now


def test_a_video_that_stands_still_is_a_freeze_while_it_lasts_and_after() -> None:
    meter = FreezeMeter()
    now = pictures(meter, *[0.04] * 40)
    assert meter.measured(now=now + 0.1) == (0, 0.0)
    count, seconds = meter.measured(now=now + 0.5)
    assert (count, seconds) == (1, pytest.approx(0.5))
    pictures(meter, 0.6, 0.04, 0.04, start=now)
    count, seconds = meter.measured(now=now + 0.7)
    assert (count, seconds) == (1, pytest.approx(0.6))


def test_the_first_pictures_are_no_measure_of_a_freeze() -> None:
    meter = FreezeMeter()
    pictures(meter, 0.04, 0.04, 1.0)
    assert meter.measured(now=6.1) == (0, 0.0)


def test_a_pause_is_no_freeze() -> None:
    meter = FreezeMeter()
    now = pictures(meter, *[0.04] * 10)
    meter.pause()
    assert meter.measured(now=now + 9.0) == (0, 0.0)
    pictures(meter, 9.0, start=now)
    assert meter.measured(now=now + 9.0) == (0, 0.0)
