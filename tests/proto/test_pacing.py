"""When a piece of a voice is due: real time by sample count, and what a stall does to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.pacing import CATCH_UP_SECONDS, EARLY_SECONDS, Pacer

PIECE = 1536
"""Samples: 64 ms."""


def test_the_first_piece_is_due_at_once() -> None:
    assert Pacer().due(1000.0) == 1000.0


def test_a_piece_is_due_when_those_before_it_were_spoken() -> None:
    pacer = Pacer()
    pacer.sent(PIECE, 1000.0)
    assert pacer.due(1000.0) == pytest.approx(1000.064)
    assert pacer.due(1000.05) == pytest.approx(1000.064)
    pacer.sent(480, 1000.064)
    assert pacer.due(1000.07) == pytest.approx(1000.084)


def test_a_piece_that_is_late_leaves_at_once_and_moves_nothing() -> None:
    pacer = Pacer()
    pacer.sent(PIECE, 1000.0)
    assert pacer.due(1000.1) == 1000.1
    pacer.sent(PIECE, 1000.1)
    # The third is due after two pieces of the schedule, not of the delay.
    assert pacer.due(1000.1) == pytest.approx(1000.128)


def test_a_small_delay_is_caught_up_with() -> None:
    pacer = Pacer()
    pacer.sent(PIECE, 1000.0)
    late = 1000.064 + 0.3
    burst = 0
    while pacer.due(late) == late:
        pacer.sent(PIECE, late)
        burst += 1
    # 0.3 s of 64 ms pieces, and the one that is due by now.
    assert burst == 5
    assert pacer.due(late) == pytest.approx(1000.0 + 6 * 0.064)


def test_a_gap_begins_a_new_schedule() -> None:
    pacer = Pacer()
    pacer.sent(PIECE, 1000.0)
    late = 1000.064 + CATCH_UP_SECONDS + 0.01
    assert pacer.due(late) == late
    pacer.sent(PIECE, late)
    assert pacer.due(late) == pytest.approx(late + 0.064)


def test_a_timer_that_fires_a_little_early_is_not_sent_back() -> None:
    pacer = Pacer()
    pacer.sent(PIECE, 1000.0)
    early = 1000.064 - EARLY_SECONDS / 2
    assert pacer.due(early) == early
    too_early = 1000.064 - 2 * EARLY_SECONDS
    assert pacer.due(too_early) == pytest.approx(1000.064)
    # And what left early is no lead: the next one is due when it was.
    pacer.sent(PIECE, early)
    assert pacer.due(early) == pytest.approx(1000.128)


@given(
    st.lists(
        st.tuples(st.sampled_from([2, 480, 1536]), st.floats(0, 1, allow_nan=False)), max_size=60
    )
)
def test_no_more_is_sent_than_time_has_passed(pieces: list[tuple[int, float]]) -> None:
    """A sender as in the class's documentation, which is held up for a while before each piece."""
    pacer = Pacer()
    now = 1000.0
    sent: list[tuple[float, int]] = []
    for samples, delay in pieces:
        now += delay
        while (due := pacer.due(now)) > now:
            now = due
        pacer.sent(samples, now)
        sent.append((now, samples))
    # Looked at from any piece on: never ahead of the clock by more than was caught up with.
    for first in range(len(sent)):
        total = 0
        for when, samples in sent[first:]:
            ahead = total / 24_000 - (when - sent[first][0])
            assert ahead <= CATCH_UP_SECONDS + EARLY_SECONDS + 1e-6
            total += samples
