"""Which event decides a connect(), and what it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import (
    BackendRefusedError,
    ConnectFailedError,
    ConnectionLimitExceededError,
    ConnectRefusedError,
    ConnectTimeoutError,
    GpuFullError,
    InsufficientBalanceError,
    MediaError,
    ProtocolViolatedError,
    RefusalKind,
)
from navtalk_proto.events import (
    CloseCause,
    Closed,
    ConfigUpdated,
    Connected,
    ConnectFailed,
    Event,
    NegotiationFailed,
    Notice,
    OutOfOrder,
    PeerClosing,
    ProtocolViolation,
    Ready,
    Refused,
    ServerWarning,
    TimedOut,
    Usable,
)
from navtalk_proto.inputs import TransportOpened
from navtalk_proto.media import (
    CandidatePair,
    IceServerFailed,
    MediaKind,
    MediaStarted,
    MediaState,
    MediaStateChanged,
)
from navtalk_proto.opening import Opening, connect_error
from navtalk_proto.opening import opened as begun
from navtalk_proto.transport import TransportClosedError

REFUSED = Refused(kind=RefusalKind.GPU_FULL, text="later", retryable=True)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (RefusalKind.FAIL, ConnectRefusedError),
        (RefusalKind.INSUFFICIENT_BALANCE, InsufficientBalanceError),
        (RefusalKind.CONNECTION_LIMIT_EXCEEDED, ConnectionLimitExceededError),
        (RefusalKind.GPU_FULL, GpuFullError),
        (RefusalKind.BACKEND_ERROR, BackendRefusedError),
    ],
)
def test_a_refusal_has_its_class_before_ready_and_after(
    kind: RefusalKind, error: type[Exception]
) -> None:
    for event in (Refused(kind=kind, text="why", retryable=False), Notice(kind=kind, text="why")):
        made = connect_error(event)
        assert type(made) is error
        assert getattr(made, "text", None) == "why"


def test_a_deadline_names_the_step() -> None:
    error = connect_error(TimedOut(waiting_for="session.created", seconds=15.0))
    assert type(error) is ConnectTimeoutError
    assert (error.waiting_for, error.seconds) == ("session.created", 15.0)


@pytest.mark.parametrize(
    ("event", "text", "stage", "code"),
    [
        (
            ConnectFailed(code=1011, reason="boom", stage="opening"),
            "the session ended before it was ready, in opening: 1011 boom",
            "opening",
            1011,
        ),
        (
            ConnectFailed(code=1006, reason="", stage="welcoming"),
            "the session ended before it was ready, in welcoming: 1006",
            "welcoming",
            1006,
        ),
        (
            ConnectFailed(code=None, reason="", stage="configuring"),
            "the session ended before it was ready, in configuring: connection lost",
            "configuring",
            None,
        ),
        (
            ConnectFailed(code=None, reason="no pong within 20 s", stage="opening"),
            "the session ended before it was ready, in opening: connection lost: "
            "no pong within 20 s",
            "opening",
            None,
        ),
        (
            PeerClosing(text="Session timeout"),
            "the server ended the session before it was usable: Session timeout",
            "closing",
            None,
        ),
        (
            PeerClosing(text=""),
            "the server ended the session before it was usable",
            "closing",
            None,
        ),
        (
            ProtocolViolation(reason="not JSON", fatal=True),
            "the server broke the protocol: not JSON",
            "closing",
            None,
        ),
        (
            ProtocolViolation(
                reason="not a string", type="webrtc.signaling.offer", field="sdp", fatal=True
            ),
            "the server broke the protocol: webrtc.signaling.offer: not a string",
            "closing",
            None,
        ),
        (
            Closed(cause=CloseCause.REMOTE, code=1001, reason="going away"),
            "the session ended before it was usable, by remote: going away",
            "ready",
            1001,
        ),
        (
            Closed(cause=CloseCause.REMOTE, code=None, reason=""),
            "the session ended before it was usable, by remote",
            "ready",
            None,
        ),
        (
            Closed(cause=CloseCause.LOCAL, code=1000, reason=""),
            "the session ended before it was usable, by local",
            "closing",
            1000,
        ),
    ],
)
def test_an_early_end_says_where_and_why(
    event: Event, text: str, stage: str, code: int | None
) -> None:
    error = connect_error(event)
    violated = isinstance(event, ProtocolViolation)
    assert type(error) is (ProtocolViolatedError if violated else ConnectFailedError)
    assert (str(error), error.stage, error.close_code) == (text, stage, code)


@pytest.mark.parametrize(
    ("reason", "pairs", "text"),
    [
        (
            "ICE failed",
            (
                CandidatePair(local="10.0.0.1:5000", remote="10.0.0.2:6000", state="failed"),
                CandidatePair(local="10.0.0.1:5000", remote="[::1]:7000", state="in-progress"),
            ),
            "no media connection: ICE failed; candidate pairs tried: "
            "10.0.0.1:5000 -> 10.0.0.2:6000 failed; 10.0.0.1:5000 -> [::1]:7000 in-progress",
        ),
        ("", (), "no media connection; candidate pairs tried: none"),
    ],
)
def test_media_that_fails_names_what_was_tried(
    reason: str, pairs: tuple[CandidatePair, ...], text: str
) -> None:
    error = connect_error(MediaStateChanged(state=MediaState.FAILED, reason=reason, pairs=pairs))
    assert type(error) is MediaError
    assert str(error) == text


def test_media_that_fails_names_the_ice_servers_of_no_use(crank: Any, flag: Any) -> None:
    opening = Opening(flag)
    opening.observe(IceServerFailed(url="stun:a.example:3478", reason="no answer within 5 s"))
    opening.observe(IceServerFailed(url="turns:b.example:5349", reason="wrong credentials (441)"))
    opening.observe(MediaStateChanged(state=MediaState.FAILED, reason="no candidate pair works"))
    with pytest.raises(MediaError) as raised:
        crank(opening.wait()).result()
    assert str(raised.value) == (
        "no media connection: no candidate pair works; candidate pairs tried: none; "
        "ICE servers of no use: stun:a.example:3478: no answer within 5 s; "
        "turns:b.example:5349: wrong credentials (441)"
    )


def test_a_deadline_names_them_too_and_not_more_than_eight(crank: Any, flag: Any) -> None:
    opening = Opening(flag)
    opening.observe(NegotiationFailed(reason="no candidate"))
    for number in range(20):
        opening.observe(IceServerFailed(url=f"stun:s{number}.example:3478", reason="dead"))
    opening.observe(TimedOut(waiting_for="ICE", seconds=10.0))
    with pytest.raises(ConnectTimeoutError) as raised:
        crank(opening.wait()).result()
    text = str(raised.value)
    assert "(the last negotiation failed: no candidate; ICE servers of no use: stun:s0." in text
    assert text.count("dead") == 8


def test_a_deadline_names_the_pairs_that_ice_was_trying(crank: Any, flag: Any) -> None:
    opening = Opening(flag)
    pair = CandidatePair(local="10.0.0.1:5000", remote="10.0.0.2:6000", state="IN_PROGRESS")
    opening.observe(MediaStateChanged(state=MediaState.CHECKING, pairs=(pair,)))
    opening.observe(TimedOut(waiting_for="ICE", seconds=10.0))
    with pytest.raises(ConnectTimeoutError, match=r"pairs tried: 10.* -> 10.* IN_PROGRESS\)$"):
        crank(opening.wait()).result()


HARMLESS: list[Event] = [
    Connected(session_id="s", ice_servers=()),
    ServerWarning(text="ambiguous", avatar_id=None),
    Ready(),
    ConfigUpdated(),
    OutOfOrder(type="realtime.session.updated", state="welcoming"),
    ProtocolViolation(reason="not JSON"),
    NegotiationFailed(reason="the engine is busy"),
    MediaStarted(track_id="t", kind=MediaKind.AUDIO),
    IceServerFailed(url="stun:a.example:3478", reason="no answer within 5 s"),
    *(MediaStateChanged(state=state) for state in MediaState if state is not MediaState.FAILED),
    Usable(),
]


@pytest.mark.parametrize("event", HARMLESS, ids=lambda event: type(event).__name__)
def test_other_events_are_no_error(event: Event) -> None:
    assert connect_error(event) is None


# ---- waiting


def test_it_waits_for_usable(crank: Any, flag: Any) -> None:
    opening = Opening(flag)
    waiting = crank(opening.wait())
    for event in HARMLESS[:-1]:
        opening.observe(event)
        assert not waiting.turn()
    opening.observe(Usable())
    assert waiting.result() is None
    assert crank(opening.wait()).result() is None


def test_it_waits_for_the_first_error(crank: Any, flag: Any) -> None:
    opening = Opening(flag)
    waiting = crank(opening.wait())
    opening.observe(REFUSED)
    opening.observe(Closed(cause=CloseCause.REFUSED, code=1000, reason=""))
    with pytest.raises(GpuFullError, match="later"):
        waiting.result()


def test_what_comes_after_usable_is_the_sessions_business(crank: Any, flag: Any) -> None:
    opening = Opening(flag)
    opening.observe(Usable())
    opening.observe(MediaStateChanged(state=MediaState.FAILED))
    opening.observe(Closed(cause=CloseCause.REMOTE, code=None, reason=""))
    assert crank(opening.wait()).result() is None


def test_usable_after_a_failure_comes_too_late(crank: Any, flag: Any) -> None:
    opening = Opening(flag)
    opening.observe(MediaStateChanged(state=MediaState.FAILED, reason="no route"))
    opening.observe(Usable())
    with pytest.raises(MediaError, match="no route"):
        crank(opening.wait()).result()


# ---- with the core: what a caller of connect() sees


def opened(hand_pump: Any, flag: Any, **config: Any) -> tuple[Any, Opening]:
    opening = Opening(flag)
    pump = hand_pump(ClientConfig(media=(), **config), observe=opening.observe)
    pump.give(TransportOpened())
    return pump, opening


def test_a_session_that_gets_ready_is_usable(hand_pump: Any, crank: Any, flag: Any) -> None:
    opening = Opening(flag)
    pump = hand_pump(observe=opening.observe)
    waiting = crank(opening.wait())
    pump.ready()
    assert waiting.result() is None


def test_a_server_that_breaks_the_protocol_is_told_as_that(
    hand_pump: Any, crank: Any, flag: Any
) -> None:
    pump, opening = opened(hand_pump, flag, strict=True)
    pump.received("no json")
    pump.lost(TransportClosedError(1002, "protocol violation"))
    with pytest.raises(ConnectFailedError, match=r"^the server broke the protocol: ") as caught:
        crank(opening.wait()).result()
    assert caught.value.stage == "closing"


def test_the_close_reason_alone_is_a_refusal(hand_pump: Any, crank: Any, flag: Any) -> None:
    pump, opening = opened(hand_pump, flag)
    pump.lost(TransportClosedError(1008, "Insufficient points"))
    with pytest.raises(InsufficientBalanceError, match="Insufficient points"):
        crank(opening.wait()).result()


def test_a_lost_connection_names_the_stage(hand_pump: Any, crank: Any, flag: Any) -> None:
    pump, opening = opened(hand_pump, flag)
    pump.lost(TransportClosedError(None, ""))
    with pytest.raises(ConnectFailedError, match="in welcoming: connection lost") as caught:
        crank(opening.wait()).result()
    assert (caught.value.stage, caught.value.close_code) == ("welcoming", None)


def test_a_timer_names_what_it_waited_for(hand_pump: Any, crank: Any, flag: Any) -> None:
    pump, opening = opened(hand_pump, flag, welcome_timeout=4.0)
    pump.clock.advance(4.0)
    pump.timeout()
    with pytest.raises(ConnectTimeoutError, match=r"within 4 s: .*connected\.success"):
        crank(opening.wait()).result()


def test_a_deadline_says_what_the_last_negotiation_failed_for(
    hand_pump: Any, crank: Any, flag: Any
) -> None:
    opening = Opening(flag, timeout=3.0, armed=2.75)
    waiting = crank(opening.wait())
    opening.observe(NegotiationFailed(reason="m-line 0 has only av9"))
    assert not waiting.turn(), "the server may offer again"
    opening.observe(TimedOut(waiting_for="the offer", seconds=2.75))
    with pytest.raises(ConnectTimeoutError) as caught:
        waiting.result()
    assert caught.value.waiting_for == "the offer"
    assert caught.value.seconds == 3.0, "the number that the caller gave"
    assert "the last negotiation failed: m-line 0 has only av9" in str(caught.value)


def test_another_timer_keeps_its_own_seconds(crank: Any, flag: Any) -> None:
    opening = Opening(flag, timeout=30.0, armed=29.9)
    waiting = crank(opening.wait())
    opening.observe(TimedOut(waiting_for="connected.success", seconds=10.0))
    with pytest.raises(
        ConnectTimeoutError, match=r"within 10 s: still waiting for connected.success$"
    ):
        waiting.result()


def test_a_core_has_what_is_left_of_the_callers_time(crank: Any, flag: Any) -> None:
    for deadline, left in ((1030.0, 25.0), (1004.0, 0.001)):
        core, opening = begun(
            ClientConfig(media=(), welcome_timeout=60.0),
            flag,
            timeout=30.0,
            deadline=deadline,
            now=1005.0,
        )
        core.transport_opened(now=1005.0)
        assert core.next_timeout() == pytest.approx(1005.0 + left)
        assert opening.failure is None
        opening.observe(TimedOut(waiting_for="connected.success", seconds=left))
        # The number that the caller gave.
        assert isinstance(opening.failure, ConnectTimeoutError)
        assert opening.failure.seconds == 30.0
