"""What an application holds: the calls, who waits in them, and what they raise."""

from __future__ import annotations

import gc
import json
import weakref
from base64 import b64decode
from typing import Any

import pytest

from navtalk_proto.actions import CloseTransport, OpenPeer, SendText, SetLocal, SetRemote
from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import (
    ConnectFailedError,
    LocalProtocolError,
    MediaError,
    NavTalkError,
    NotReadyError,
    SessionClosedError,
)
from navtalk_proto.events import (
    CloseCause,
    Closed,
    Event,
    Negotiated,
    Ready,
    Usable,
)
from navtalk_proto.intents import SayText
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import IcePolicy, MediaKind, MediaLine, OpId
from navtalk_proto.pump import Observer
from navtalk_proto.session import (
    PACE_MS,
    SESSION_ENDED,
    TRAILING_SILENCE,
    ClientCalls,
    SessionCalls,
    is_farewell,
)
from navtalk_proto.testing.engine import StrictEngine
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import Answer, Offer

VIDEO = MediaLine(kind=MediaKind.VIDEO)
AUDIO = MediaLine(kind=MediaKind.AUDIO)


class Session(ClientCalls):
    """A client's session on a virtual clock, which is where it sleeps."""

    def __init__(self, pump: Any) -> None:
        super().__init__(pump)
        self.pump = pump
        self.slept: list[float] = []

    async def _sleep_until(self, when: float) -> None:
        self.slept.append(when - 1000.0)


def opened(hand_pump: Any, config: ClientConfig | None = None) -> Session:
    """A session whose transport is not open yet."""
    told = Observer()
    session = Session(hand_pump(config, observe=told))
    told.add(session.observe)
    return session


def usable(hand_pump: Any) -> Session:
    session = opened(hand_pump)
    session.pump.ready()
    session.pump.told()
    session.pump.take()
    return session


def sent(session: Session) -> list[Any]:
    """What the session sent since last asked, as the far end parses it."""
    return [json.loads(action.text) for action in session.pump.take()]


# ---- what it knows


def test_it_answers_what_the_core_knows(hand_pump: Any) -> None:
    session = opened(hand_pump)
    assert (session.id, session.state, session.end) == (None, State.IDLE, None)
    session.pump.ready()
    assert (session.id, session.state) == ("s-1", State.READY)
    counters = session.counters
    assert counters.received == 3
    session.pump.received('{"type": "something.new"}')
    assert (counters.received, counters.unknown) == (4, 1)
    session.pump.lost(TransportClosedError(1001, "bye"))
    assert session.end == Closed(cause=CloseCause.REMOTE, code=1001, reason="bye")
    assert session.state is State.CLOSED


def test_its_events_begin_with_the_session_and_end_with_it(hand_pump: Any, crank: Any) -> None:
    session = opened(hand_pump)
    session.pump.ready()

    async def main() -> list[Event]:
        return [event async for event in session.events()]

    reading = crank(main())
    assert not reading.turn()
    session.pump.lost(TransportClosedError(None, ""))
    assert [type(event).__name__ for event in reading.result()] == [
        "Connected",
        "Ready",
        "Usable",
        "Closed",
    ]


def test_events_that_nobody_reads_are_counted(hand_pump: Any) -> None:
    session = opened(hand_pump)
    session.pump.ready()
    assert session.events_dropped == 0
    for _ in range(1025):
        session.pump.received('{"type": "something.new"}')
    assert session.events_dropped == 3 + 1025 - 1024


# ---- sending


def test_text_asks_for_a_response_unless_told_otherwise(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    crank(session.send_text("My name is Ana.")).result()
    crank(session.send_text("Do not answer.", respond=False)).result()

    # protocol.md 5.9
    def item(text: str) -> dict[str, Any]:
        content = [{"type": "input_text", "text": text}]
        return {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": content},
        }

    assert sent(session) == [
        item("My name is Ana."),
        {"type": "response.create"},
        item("Do not answer."),
    ]


def test_audio_leaves_as_it_is(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    pcm = bytes(range(200))
    crank(session.send_audio(pcm)).result()
    (message,) = sent(session)
    assert message["type"] == "realtime.input_audio_buffer.append"
    assert b64decode(message["data"]["audio"], validate=True) == pcm
    with pytest.raises(LocalProtocolError, match="even"):
        crank(session.send_audio(b"odd")).result()
    assert sent(session) == []


def test_audio_before_ready_is_refused_and_text_waits(hand_pump: Any, crank: Any) -> None:
    session = opened(hand_pump)
    with pytest.raises(NotReadyError):
        crank(session.send_audio(b"\0\0")).result()
    crank(session.send(SayText(text="early", respond=False))).result()
    assert sent(session) == []
    session.pump.ready()
    assert [message["type"] for message in sent(session)] == ["conversation.item.create"]


def test_senders_wait_while_the_socket_is_slow(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    crank(session.send_text("x" * 300_000, respond=False)).result()
    sending = crank(session.send_text("later", respond=False))
    assert not sending.turn()
    (first,) = session.pump.take()
    assert isinstance(first, SendText)
    assert not sending.turn()
    session.pump.sent(first)
    assert sending.result() is None
    assert sent(session)[0]["item"]["content"][0]["text"] == "later"


def test_a_cancelled_sender_sends_nothing(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    crank(session.send_text("x" * 300_000, respond=False)).result()
    crank(session.send_text("never", respond=False)).cancel()
    (only,) = session.pump.take()
    session.pump.sent(only)
    assert sent(session) == []


def test_after_the_end_nothing_is_sent(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    session.pump.lost(TransportClosedError(None, ""))
    for call in (session.send_text("late"), session.send_audio(b"\0\0"), session.negotiate(VIDEO)):
        with pytest.raises(SessionClosedError):
            crank(call).result()
    assert crank(session.close()).done
    assert sent(session) == []


def test_close_returns_when_the_session_is_closed(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    closing = crank(session.close(3001, "enough"))
    assert session.pump.take() == [CloseTransport(code=3001, reason="enough")]
    assert not closing.turn()
    with pytest.raises(SessionClosedError):
        crank(session.send_text("late")).result()
    session.pump.lost(TransportClosedError(3001, "enough"))
    assert closing.result() is None
    assert session.end == Closed(cause=CloseCause.LOCAL, code=3001, reason="enough")


# ---- negotiating


def negotiable(hand_pump: Any) -> Session:
    """A usable session with media, whose commands an engine has still to carry out."""
    session = opened(hand_pump, ClientConfig())
    session.pump.ready()
    session.pump.told()
    return session


def carry_out(session: Session, engine: StrictEngine, *, fail: str | None = None) -> None:
    """Let the engine carry out every command that it was given, or fail the first."""
    callbacks = session.pump.engine_callbacks()
    while session.pump.commands:
        engine.execute(session.pump.commands.pop(0))
        command, result, reason = engine.finish(fail=fail)
        if reason is None:
            callbacks.done(command.op, result)
        else:
            callbacks.failed(command.op, reason)
            return


def answer(session: Session, sdp: str) -> None:
    data = {"sdp": {"type": "answer", "sdp": sdp}}
    session.pump.received(json.dumps({"type": "webrtc.signaling.answer", "data": data}))


def answer_to(offer: str) -> str:
    far = StrictEngine("h")
    far.execute(OpenPeer(op=OpId(1), ice_servers=(), policy=IcePolicy.ALL, media=()))
    far.finish()
    far.execute(SetRemote(op=OpId(2), description=Offer(sdp=offer)))
    far.finish()
    far.execute(SetLocal(op=OpId(3)))
    _, made, _ = far.finish()
    assert isinstance(made, Answer)
    return made.sdp


def test_a_negotiation_returns_when_the_exchange_is_complete(hand_pump: Any, crank: Any) -> None:
    session, engine = negotiable(hand_pump), StrictEngine("e")
    waiting = crank(session.negotiate(VIDEO, AUDIO))
    carry_out(session, engine)
    assert not waiting.turn()
    (offer,) = sent(session)
    assert offer["type"] == "webrtc.signaling.offer"
    answer(session, answer_to(offer["data"]["sdp"]["sdp"]))
    assert not waiting.turn()
    carry_out(session, engine)
    assert waiting.result() is None
    assert Negotiated(offered_by_us=True, media=(VIDEO, AUDIO)) in session.pump.told()


def test_a_negotiation_that_fails_says_why(hand_pump: Any, crank: Any) -> None:
    session = negotiable(hand_pump)
    waiting = crank(session.negotiate(VIDEO))
    carry_out(session, StrictEngine("e"), fail="no such codec")
    with pytest.raises(MediaError, match="no such codec"):
        waiting.result()
    assert session.state is State.READY


def test_no_answer_in_time_fails_it(hand_pump: Any, crank: Any) -> None:
    session = negotiable(hand_pump)
    waiting = crank(session.negotiate(VIDEO))
    carry_out(session, StrictEngine("e"))
    session.pump.clock.advance(10.0)
    session.pump.timeout()
    with pytest.raises(MediaError, match="no answer within 10 s"):
        waiting.result()


def test_a_negotiation_that_is_refused_is_not_waited_for(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    with pytest.raises(LocalProtocolError, match="without media"):
        crank(session.negotiate(VIDEO)).result()
    session = negotiable(hand_pump)
    with pytest.raises(LocalProtocolError, match="no media"):
        crank(session.negotiate()).result()


def test_the_end_of_the_session_ends_a_negotiation(hand_pump: Any, crank: Any) -> None:
    session = negotiable(hand_pump)
    waiting = [crank(session.negotiate(VIDEO)), crank(session.negotiate(AUDIO))]
    session.observe(Closed(cause=CloseCause.REMOTE, code=None, reason=""))
    errors = []
    for one in waiting:
        with pytest.raises(SessionClosedError) as caught:
            one.result()
        errors.append(caught.value)
    assert errors[0] is not errors[1]


def test_a_lost_connection_ends_a_negotiation(hand_pump: Any, crank: Any) -> None:
    session = negotiable(hand_pump)
    waiting = crank(session.negotiate(VIDEO))
    session.pump.lost(TransportClosedError(None, ""))
    with pytest.raises(NavTalkError) as caught:
        waiting.result()
    assert isinstance(caught.value, SESSION_ENDED)


def test_a_cancelled_negotiation_is_forgotten_and_goes_on(hand_pump: Any, crank: Any) -> None:
    session, engine = negotiable(hand_pump), StrictEngine("e")
    crank(session.negotiate(VIDEO)).cancel()
    waiting = crank(session.negotiate(VIDEO, AUDIO))
    carry_out(session, engine)
    assert not waiting.turn()
    (offer,) = sent(session)
    answer(session, answer_to(offer["data"]["sdp"]["sdp"]))
    carry_out(session, engine)
    assert waiting.result() is None


def test_a_negotiation_that_nobody_waits_for_leaves_nothing_behind(
    hand_pump: Any, crank: Any, flag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = negotiable(hand_pump)
    waited_for: list[weakref.ref[Any]] = []

    def tracked() -> Any:
        made = flag()
        waited_for.append(weakref.ref(made))
        return made

    monkeypatch.setattr(type(session.pump), "flag", staticmethod(tracked))
    waiting = crank(session.negotiate(VIDEO))
    (told,) = waited_for
    assert told() is not None
    waiting.cancel()
    del waiting
    gc.collect()
    assert told() is None


def test_a_negotiation_waits_while_the_socket_is_slow(hand_pump: Any, crank: Any) -> None:
    session = negotiable(hand_pump)
    session.pump.take()
    crank(session.send_text("x" * 300_000, respond=False)).result()
    waiting = crank(session.negotiate(VIDEO))
    assert session.pump.commands == []
    (text,) = session.pump.take()
    session.pump.sent(text)
    assert not waiting.turn()
    assert [type(command) for command in session.pump.commands] == [OpenPeer]


# ---- speaking a recording


def test_a_piece_leaves_when_its_first_sample_is_due(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    piece = b"\1\2" * 1536
    number = 0
    for _ in range(3):
        number = crank(session._say_piece(1000.0, number, piece)).result()
    # 1,536 samples of 24,000 a second are 64 ms.
    assert number == 3 * 1536
    assert session.slept == pytest.approx([0.0, 0.064, 0.128])
    assert [b64decode(message["data"]["audio"]) for message in sent(session)] == [piece] * 3


def test_silence_follows_in_pieces_of_the_stock_size(hand_pump: Any, crank: Any) -> None:
    assert (PACE_MS, TRAILING_SILENCE) == (64, 1.0)
    session = usable(hand_pump)
    spoken = crank(session._say_silence(1000.0, 12_000, 0.1)).result()
    assert spoken == 0.5
    assert session.slept == pytest.approx([0.5, 0.564])
    # 100 ms take two pieces of 64 ms, each 3,072 bytes.
    assert [b64decode(message["data"]["audio"]) for message in sent(session)] == [bytes(3072)] * 2


def test_no_silence_is_none(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    assert crank(session._say_silence(1000.0, 24_000, 0.0)).result() == 1.0
    assert session.slept == []
    assert sent(session) == []


def test_an_adapter_fills_in_how_to_sleep(hand_pump: Any, crank: Any) -> None:
    with pytest.raises(NotImplementedError):
        crank(ClientCalls(hand_pump())._sleep_until(0.0)).result()


def test_a_server_does_not_have_what_clients_do(hand_pump: Any) -> None:
    session = SessionCalls(hand_pump())
    assert not hasattr(session, "send_text")
    assert not hasattr(session, "send_audio")


# ---- farewells


def test_a_farewell_says_nothing_but_that_the_session_is_over() -> None:
    over = SessionClosedError("over")
    assert is_farewell(over)
    assert is_farewell(ExceptionGroup("a", [over, ExceptionGroup("b", [SessionClosedError()])]))
    assert not is_farewell(ValueError())
    assert not is_farewell(LocalProtocolError())
    assert not is_farewell(ExceptionGroup("a", [over, ExceptionGroup("b", [ValueError()])]))


def test_those_who_wait_for_a_session_learn_one_of_two() -> None:
    assert issubclass(SessionClosedError, SESSION_ENDED)
    assert issubclass(MediaError, SESSION_ENDED)
    assert issubclass(ConnectFailedError, SESSION_ENDED)
    assert not issubclass(LocalProtocolError, SESSION_ENDED)
    assert not issubclass(Ready, SESSION_ENDED)
    assert not issubclass(Usable, SESSION_ENDED)


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("inf")])
def test_a_silence_that_is_no_length_of_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="trailing_silence"):
        ClientCalls._check_silence(seconds)


def test_no_silence_is_a_length_of_time() -> None:
    ClientCalls._check_silence(0.0)
