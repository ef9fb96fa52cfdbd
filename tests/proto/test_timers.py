"""Named deadlines and the one timer an adapter has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.timers import Timer, Timers


def test_nothing_is_armed_at_first() -> None:
    timers = Timers()
    assert timers.next() is None
    assert timers.pop_due(1e9) is None
    assert not any(timers.armed(timer) for timer in Timer)


def test_the_earliest_deadline_is_next() -> None:
    timers = Timers()
    timers.arm(Timer.CONNECT, 30.0)
    timers.arm(Timer.WELCOME, 10.0)
    assert timers.next() == 10.0
    timers.stop(Timer.WELCOME)
    assert timers.next() == 30.0


def test_arming_again_moves_a_deadline() -> None:
    timers = Timers()
    timers.arm(Timer.IDLE, 5.0)
    timers.arm(Timer.IDLE, 9.0)
    assert timers.pop_due(5.0) is None
    assert timers.pop_due(9.0) is Timer.IDLE


def test_a_timer_fires_at_its_deadline_and_once() -> None:
    timers = Timers()
    timers.arm(Timer.ANSWER, 10.0)
    assert timers.pop_due(9.999) is None
    assert timers.armed(Timer.ANSWER)
    assert timers.pop_due(10.0) is Timer.ANSWER
    assert not timers.armed(Timer.ANSWER)
    assert timers.pop_due(10.0) is None


def test_timers_fire_by_deadline_then_by_name_order() -> None:
    timers = Timers()
    for timer, deadline in (
        (Timer.IDLE, 2.0),
        (Timer.CONNECT, 2.0),
        (Timer.CLOSE, 2.0),
        (Timer.ANSWER, 1.0),
        (Timer.WELCOME, 2.0),
        (Timer.SETUP, 2.0),
        (Timer.FAREWELL, 2.0),
    ):
        timers.arm(timer, deadline)
    fired = [timers.pop_due(3.0) for _ in range(8)]
    assert fired == [
        Timer.ANSWER,
        Timer.CLOSE,
        Timer.WELCOME,
        Timer.SETUP,
        Timer.CONNECT,
        Timer.FAREWELL,
        Timer.IDLE,
        None,
    ]


def test_stopping_forgets_several_and_tolerates_the_rest() -> None:
    timers = Timers()
    timers.arm(Timer.SETUP, 1.0)
    timers.arm(Timer.CONNECT, 2.0)
    timers.stop(Timer.SETUP, Timer.CONNECT, Timer.CLOSE)
    assert timers.next() is None


def test_stop_all_forgets_everything() -> None:
    timers = Timers()
    timers.arm(Timer.SETUP, 1.0)
    timers.arm(Timer.CLOSE, 2.0)
    timers.stop_all()
    assert timers.pop_due(1e9) is None


def test_a_deadline_in_the_past_is_due() -> None:
    timers = Timers()
    timers.arm(Timer.CLOSE, -5.0)
    assert timers.pop_due(-4.0) is Timer.CLOSE


def test_repr_names_what_is_armed_in_order() -> None:
    timers = Timers()
    assert repr(timers) == "<Timers none>"
    timers.arm(Timer.CONNECT, 30.0)
    timers.arm(Timer.WELCOME, 10.25)
    assert repr(timers) == "<Timers welcome=10.250, connect=30.000>"


@given(
    st.dictionaries(st.sampled_from(list(Timer)), st.floats(-1e6, 1e6)),
    st.floats(-1e6, 1e6),
)
def test_after_the_due_ones_fired_the_next_is_later(
    deadlines: dict[Timer, float], now: float
) -> None:
    timers = Timers()
    for timer, deadline in deadlines.items():
        timers.arm(timer, deadline)
    fired = []
    while (timer_due := timers.pop_due(now)) is not None:
        fired.append(timer_due)
    assert sorted(fired, key=lambda t: t.value) == sorted(
        (t for t, deadline in deadlines.items() if deadline <= now), key=lambda t: t.value
    )
    assert [deadlines[t] for t in fired] == sorted(deadlines[t] for t in fired)
    upcoming = timers.next()
    assert upcoming is None or upcoming > now
