"""When a lost session is opened again, and whether."""

from __future__ import annotations

import math

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.errors import (
    BackendRefusedError,
    ConnectError,
    ConnectFailedError,
    ConnectionLimitExceededError,
    ConnectRefusedError,
    ConnectTimeoutError,
    GpuFullError,
    InsufficientBalanceError,
    MediaError,
    ObsoleteProtocolError,
    RefusalKind,
)
from navtalk_proto.events import (
    CloseCause,
    Closed,
    Event,
    MediaLost,
    Notice,
    PeerClosing,
    ProtocolViolation,
    Ready,
    Reconnecting,
    TimedOut,
)
from navtalk_proto.media import MediaKind, MediaStarted, MediaState, MediaStateChanged
from navtalk_proto.reconnect import Phase, Reconnector, ReconnectPolicy

LOST = Closed(cause=CloseCause.REMOTE, code=None, reason="")
POLICY = ReconnectPolicy(first_delay=2.0, longest_delay=8.0, give_up_after=None)
NETWORK = ConnectFailedError("nobody listens", stage="handshake")


def live(policy: ReconnectPolicy = POLICY, *, draw: float = 0.0, now: float = 0.0) -> Reconnector:
    machine = Reconnector(policy, jitter=lambda: draw)
    assert machine.phase is Phase.OPENING
    machine.usable(now=now)
    return machine


def lost(policy: ReconnectPolicy = POLICY, **options: float) -> Reconnector:
    machine = live(policy, **options)
    assert machine.lost(LOST, now=0.0) is not None
    return machine


# ---- the delays


def test_delays_grow_to_the_longest_and_half_of_each_is_chance() -> None:
    delays = [POLICY.delay(attempt, 0.0) for attempt in range(1, 6)]
    assert delays == [1.0, 2.0, 4.0, 4.0, 4.0]
    assert POLICY.delay(1, 0.5) == 1.5
    assert POLICY.delay(3, 0.999) == pytest.approx(8.0, abs=0.01)
    assert POLICY.delay(100_000, 0.0) == 4.0


def test_each_attempt_draws_anew() -> None:
    draws = iter((0.0, 0.5, 0.25))
    machine = Reconnector(evolve(POLICY, jitter=lambda: next(draws)), jitter=lambda: 0.9)
    machine.usable(now=0.0)
    first = machine.lost(LOST, now=0.0)
    assert first == Reconnecting(attempt=1, delay=1.0, reason="the connection was lost")
    machine.handle_timeout(now=1.0)
    second = machine.failed(NETWORK, now=1.0)
    assert second == Reconnecting(attempt=2, delay=3.0, reason="nobody listens")
    assert machine.next_timeout() == 4.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_delay": 0.0},
        {"first_delay": -1.0},
        {"first_delay": math.nan},
        {"factor": 0.9},
        {"longest_delay": 0.0},
        {"give_up_after": 0.0},
        {"media_timeout": 0.0},
        {"steady_after": 0.0},
    ],
    ids=str,
)
def test_times_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ReconnectPolicy(**wrong)


# ---- waiting and trying


def test_an_attempt_is_due_when_its_delay_is_over() -> None:
    machine = lost()
    assert (machine.phase, machine.attempts, machine.next_timeout()) == (Phase.WAITING, 1, 1.0)
    machine.handle_timeout(now=0.999)
    assert machine.phase is Phase.WAITING
    machine.handle_timeout(now=1.0)
    assert (machine.phase, machine.next_timeout()) == (Phase.TRYING, None)
    machine.handle_timeout(now=2.0)
    assert machine.phase is Phase.TRYING
    machine.usable(now=3.0)
    assert (machine.phase, machine.next_timeout()) == (Phase.LIVE, None)


def test_retry_now_ends_a_delay_and_nothing_else() -> None:
    machine = live()
    machine.retry_now()
    assert machine.phase is Phase.LIVE
    machine.lost(LOST, now=0.0)
    machine.retry_now()
    assert (machine.phase, machine.next_timeout()) == (Phase.TRYING, None)
    # The next delay is the one that would have come.
    told = machine.failed(NETWORK, now=0.1)
    assert told is not None
    assert (told.attempt, told.delay) == (2, 2.0)
    machine.over()
    machine.retry_now()
    assert machine.phase is Phase.OVER


def test_the_time_to_give_up() -> None:
    machine = lost(evolve(POLICY, give_up_after=5.0))
    assert machine.next_timeout() == 1.0
    assert machine.failed(NETWORK, now=1.0) is not None
    assert machine.next_timeout() == 3.0
    # The delay would be 4 s: the last attempt begins when the time is up.
    told = machine.failed(NETWORK, now=3.5)
    assert told == Reconnecting(attempt=3, delay=1.5, reason="nobody listens")
    assert machine.failed(NETWORK, now=5.0) is None
    assert (machine.phase, machine.next_timeout(), machine.attempts) == (Phase.OVER, None, 3)
    assert machine.gave_up == "gave up after 3 attempts (5.0 s): nobody listens"


def test_a_steady_session_is_a_success_and_a_short_one_an_attempt() -> None:
    machine = lost(evolve(POLICY, give_up_after=20.0))
    machine.usable(now=1.0)
    told = machine.lost(LOST, now=10.9)
    assert told is not None
    assert (told.attempt, told.delay) == (2, 2.0)
    machine.usable(now=13.0)
    told = machine.lost(LOST, now=23.0)
    assert told is not None
    assert (told.attempt, told.delay) == (1, 1.0)
    # The deadline counts from there, too.
    assert machine.failed(NETWORK, now=42.0) is not None
    assert machine.failed(NETWORK, now=43.0) is None


# ---- what is retried


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (NETWORK, True),
        (ConnectTimeoutError("the offer", 5.0), True),
        (MediaError("no media connection"), True),
        (ConnectionLimitExceededError("one too many"), True),
        (GpuFullError("none is free"), True),
        (BackendRefusedError("inside"), True),
        (ConnectRefusedError("Invalid license key"), False),
        (InsufficientBalanceError("no credit"), False),
        (ObsoleteProtocolError("version 1", stage="closing"), False),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_errors_of_an_attempt(error: ConnectError, again: bool) -> None:
    machine = lost()
    machine.retry_now()
    told = machine.failed(error, now=1.0)
    if again:
        assert told == Reconnecting(attempt=2, delay=2.0, reason=str(error))
        assert machine.phase is Phase.WAITING
        assert machine.gave_up == ""
    else:
        assert told is None
        assert machine.phase is Phase.OVER
        assert machine.gave_up == f"gave up after 1 attempt (1.0 s): {error}"


REFUSED = "the server refused the session"


@pytest.mark.parametrize(
    ("events", "closed", "reason"),
    [
        ((), LOST, "the connection was lost"),
        ((), evolve(LOST, reason="no pong"), "the connection was lost: no pong"),
        ((), evolve(LOST, code=1001), "the server closed with 1001"),
        ((), evolve(LOST, code=1001, reason="bye"), "the server closed with 1001: bye"),
        (
            (PeerClosing(text="Session timeout"),),
            evolve(LOST, code=1000),
            "the server ended the session: Session timeout",
        ),
        ((PeerClosing(text=""),), LOST, "the server ended the session"),
        (
            (TimedOut(waiting_for="any message", seconds=60.0),),
            Closed(cause=CloseCause.TIMEOUT, code=1000, reason=""),
            "60 s without any message",
        ),
        (
            (ProtocolViolation(reason="too big", fatal=True),),
            Closed(cause=CloseCause.VIOLATION, code=1009, reason=""),
            "the server broke the protocol: too big",
        ),
        (
            (ProtocolViolation(reason="odd"), Ready()),
            evolve(LOST, code=1006),
            "the server closed with 1006",
        ),
        (
            (MediaLost(kind=MediaKind.VIDEO, track_id="v", silent_for=10.04),),
            Closed(cause=CloseCause.MEDIA_LOST, code=1000, reason=""),
            "no video for 10.0 s",
        ),
        (
            (Notice(kind=RefusalKind.GPU_FULL, text="none"),),
            Closed(cause=CloseCause.REFUSED, code=1013, reason=""),
            f"{REFUSED} (gpu_full): none",
        ),
        (
            (Notice(kind=RefusalKind.CONNECTION_LIMIT_EXCEEDED, text=""),),
            Closed(cause=CloseCause.REFUSED, code=1008, reason=""),
            f"{REFUSED} (connection_limit_exceeded): no text",
        ),
    ],
)
def test_ends_that_are_losses(events: tuple[Event, ...], closed: Closed, reason: str) -> None:
    machine = live()
    for event in events:
        machine.observe(event, now=1.0)
    told = machine.lost(closed, now=2.0)
    assert told == Reconnecting(attempt=1, delay=1.0, reason=reason)
    # The next session starts with a clean sheet.
    machine.usable(now=5.0)
    told = machine.lost(LOST, now=60.0)
    assert told == Reconnecting(attempt=1, delay=1.0, reason="the connection was lost")


@pytest.mark.parametrize(
    ("events", "closed"),
    [
        ((), Closed(cause=CloseCause.LOCAL, code=1000, reason="")),
        (
            (Notice(kind=RefusalKind.INSUFFICIENT_BALANCE, text="no credit"),),
            Closed(cause=CloseCause.REFUSED, code=1000, reason=""),
        ),
        ((Notice(kind=RefusalKind.FAIL, text="licence"),), LOST),
    ],
    ids=["ours", "balance", "licence"],
)
def test_ends_that_are_final(events: tuple[Event, ...], closed: Closed) -> None:
    machine = live()
    for event in events:
        machine.observe(event, now=1.0)
    assert machine.lost(closed, now=1.0) is None
    assert (machine.phase, machine.next_timeout()) == (Phase.OVER, None)
    # No attempt was made: what the connection itself says is enough.
    assert machine.gave_up == ""


def test_a_session_that_is_back_for_a_moment_and_refused_for_good() -> None:
    machine = lost()
    machine.usable(now=1.0)
    machine.observe(Notice(kind=RefusalKind.FAIL, text="licence"), now=2.0)
    assert machine.lost(LOST, now=3.0) is None
    assert machine.gave_up == f"gave up after 1 attempt (3.0 s): {REFUSED} (fail): licence"


def test_what_was_never_usable_is_not_opened_again() -> None:
    machine = Reconnector(POLICY, jitter=lambda: 0.0)
    assert machine.lost(LOST, now=0.0) is None
    assert machine.phase is Phase.OVER


# ---- media


FAILED = MediaStateChanged(state=MediaState.FAILED)
CLOSED = MediaStateChanged(state=MediaState.CLOSED)
STARTED = MediaStarted(track_id="v", kind=MediaKind.VIDEO)


def test_media_that_does_not_flow_again_in_time() -> None:
    machine = live(now=1.0)
    machine.observe(FAILED, now=2.0)
    machine.observe(CLOSED, now=4.0)
    machine.observe(MediaStateChanged(state=MediaState.CONNECTED), now=5.0)
    assert machine.next_timeout() == 7.0
    machine.handle_timeout(now=6.9)
    assert machine.phase is Phase.LIVE
    machine.handle_timeout(now=7.0)
    assert (machine.phase, machine.next_timeout()) == (Phase.MEDIA_LOST, None)
    # It is ours to close, and no end for that.
    machine.observe(FAILED, now=7.1)
    told = machine.lost(Closed(cause=CloseCause.LOCAL, code=1000, reason=""), now=7.2)
    assert told == Reconnecting(attempt=1, delay=1.0, reason="no media for 5 s")


@pytest.mark.parametrize("event", [FAILED, CLOSED])
def test_media_that_flows_again_in_time(event: Event) -> None:
    machine = live()
    machine.observe(event, now=2.0)
    machine.observe(STARTED, now=6.9)
    assert machine.next_timeout() is None
    machine.handle_timeout(now=10.0)
    assert machine.phase is Phase.LIVE


def test_a_session_that_is_lost_waits_for_no_media() -> None:
    machine = live()
    machine.observe(FAILED, now=2.0)
    machine.lost(LOST, now=3.0)
    assert machine.next_timeout() == 4.0
    machine.handle_timeout(now=7.0)
    assert machine.phase is Phase.TRYING


# ---- any outage


@given(
    first=st.floats(0.01, 10.0),
    factor=st.floats(1.0, 4.0),
    longest=st.floats(0.01, 60.0),
    give_up=st.floats(1.0, 500.0),
    draws=st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=1, max_size=30),
    lasts=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=200),
)
def test_any_outage_is_waited_out_within_its_bounds(
    first: float,
    factor: float,
    longest: float,
    give_up: float,
    draws: list[float],
    lasts: list[float],
) -> None:
    """Attempts that last as given: delays are within bounds, none begins after the time is up, and
    the deadline after a timeout is later than the timeout."""
    drawn = iter(range(10_000))
    policy = ReconnectPolicy(
        first_delay=first, factor=factor, longest_delay=longest, give_up_after=give_up
    )
    machine = Reconnector(policy, jitter=lambda: draws[next(drawn) % len(draws)])
    machine.usable(now=0.0)
    now = 100.0
    told = machine.lost(LOST, now=now)
    for attempts, last in enumerate(lasts, start=1):
        if told is None:
            break
        assert told.attempt == machine.attempts == attempts
        due = machine.next_timeout()
        assert due is not None
        assert 0 <= told.delay <= longest
        assert due - 100.0 <= give_up + 1e-9
        if due < 100.0 + give_up - 1e-9:
            full = min(first * factor ** (attempts - 1), longest)
            assert full / 2 <= told.delay <= full
        now = due
        machine.handle_timeout(now=now)
        assert machine.phase is Phase.TRYING
        later = machine.next_timeout()
        assert later is None
        now += last
        told = machine.failed(NETWORK, now=now)
    if told is None:
        assert machine.phase is Phase.OVER
        assert now - 100.0 >= give_up - 1e-9
