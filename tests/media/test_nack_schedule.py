from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from navtalk_asyncio.media.jitter_buffer import REPAIRABLE_GAP
from navtalk_asyncio.media.nack_schedule import (
    ATTEMPTS,
    FIRST_INTERVAL,
    MAX_INTERVAL,
    MIN_INTERVAL,
    NackSchedule,
)


def received(schedule: NackSchedule, *numbers: int, now: float = 0.0) -> list[bool]:
    return [schedule.received(number, now) for number in numbers]


def test_a_gap_is_asked_for_at_once_and_again_while_it_lasts() -> None:
    schedule = NackSchedule()
    assert received(schedule, 10, 11, 14) == [False, False, True]
    assert schedule.next_due == 0.0
    assert schedule.due(0.0) == [12, 13]
    assert schedule.due(0.0) == []
    assert schedule.next_due == FIRST_INTERVAL
    received(schedule, 13, now=0.03)
    assert schedule.due(FIRST_INTERVAL) == [12]
    received(schedule, 12, now=0.07)
    assert schedule.next_due is None
    assert schedule.requests == 3


def test_it_is_asked_for_a_bounded_number_of_times() -> None:
    schedule = NackSchedule()
    received(schedule, 1, 3)
    asked = 0
    while (due := schedule.next_due) is not None:
        asked += len(schedule.due(due))
    assert asked == ATTEMPTS
    assert not schedule.missing


def test_the_interval_follows_the_round_trip() -> None:
    schedule = NackSchedule()
    received(schedule, 1, 3)
    schedule.due(0.0)
    received(schedule, 2, now=0.1)
    assert schedule.round_trip == 0.1
    received(schedule, 5, now=1.0)
    schedule.due(1.0)
    assert schedule.next_due is not None
    assert abs(schedule.next_due - 1.15) < 1e-9


def test_an_answer_to_a_repeated_request_says_nothing_of_the_round_trip() -> None:
    schedule = NackSchedule()
    received(schedule, 1, 3)
    schedule.due(0.0)
    schedule.due(FIRST_INTERVAL)
    received(schedule, 2, now=0.1)
    assert schedule.round_trip is None


def test_numbers_wrap_and_are_asked_for_in_rising_order() -> None:
    schedule = NackSchedule()
    received(schedule, 65_533, 2)
    assert schedule.due(0.0) == [0, 1, 65_534, 65_535]


def test_a_gap_that_nobody_can_fill_is_not_asked_for() -> None:
    schedule = NackSchedule()
    received(schedule, 1, 3)
    assert received(schedule, 4 + REPAIRABLE_GAP + 1) == [False]
    assert schedule.due(1.0) == []


def test_what_is_of_no_use_any_more_is_not_asked_for() -> None:
    schedule = NackSchedule()
    received(schedule, 65_534, 1, 4)
    schedule.forget_before(2)
    assert schedule.due(0.0) == [2, 3]
    schedule.restart()
    assert schedule.next_due is None
    assert received(schedule, 30_000) == [False]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 100)), max_size=100))
def test_requests_are_bounded_and_only_for_what_is_missing(packets: list[tuple[int, int]]) -> None:
    schedule = NackSchedule()
    now, number = 0.0, 65_500
    here: set[int] = set()
    asked: dict[int, list[float]] = {}
    for skip, wait in packets:
        number += skip
        now += wait / 1000
        schedule.received(number & 0xFFFF, now)
        here.add(number & 0xFFFF)
        numbers = schedule.due(now)
        assert numbers == sorted(numbers)
        for missing in numbers:
            assert missing not in here
            asked.setdefault(missing, []).append(now)
    for times in asked.values():
        assert len(times) <= ATTEMPTS
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(gap >= MIN_INTERVAL for gap in gaps)
    assert schedule.round_trip is None or schedule.round_trip <= 10
    assert MIN_INTERVAL < FIRST_INTERVAL < MAX_INTERVAL
