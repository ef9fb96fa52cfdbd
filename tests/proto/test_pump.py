"""A driver without a loop: what goes in, what comes out, who waits, and what ends it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from navtalk_proto.actions import (
    ClosePeer,
    CloseTransport,
    OpenPeer,
    SendText,
    SetLocal,
    SetRemote,
)
from navtalk_proto.config import SEND_MEDIA, ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import LocalProtocolError, NotReadyError, SessionClosedError
from navtalk_proto.event_buffer import EventBuffer
from navtalk_proto.events import (
    BinaryIgnored,
    CloseCause,
    Closed,
    Connected,
    Event,
    MessageReceived,
    Ready,
    ResponseFailed,
    ResponseStarted,
    ResponseText,
    TimedOut,
    UnknownMessage,
    Usable,
    UserTurn,
)
from navtalk_proto.inputs import TransportOpened
from navtalk_proto.intents import SayText, SendAudio
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import IcePolicy, MediaState, MediaStateChanged, OpId
from navtalk_proto.pump import OUTGOING_HIGH_WATER, Carrier, Observer, Pump
from navtalk_proto.roles import Role
from navtalk_proto.stats import MediaStats
from navtalk_proto.testing.engine import StrictEngine
from navtalk_proto.tracing.recorder import SAMPLE_SECONDS, Recorder
from navtalk_proto.tracing.replayer import replay
from navtalk_proto.tracing.scrubber import Scrubber
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import Answer, InputConfig, Offer


class Abort(BaseException):
    """What no `except Exception` sees, as a cancellation or Ctrl-C is."""


def kinds(actions: list[Any]) -> list[str]:
    return [action.kind for action in actions if isinstance(action, SendText)]


def texts(actions: list[Any]) -> list[str]:
    """The texts of the user's messages among what was sent."""
    return [
        part["text"]
        for action in actions
        if isinstance(action, SendText) and action.kind == "conversation.item.create"
        for part in json.loads(action.text)["item"]["content"]
    ]


def say(text: str) -> SayText:
    return SayText(text=text, respond=False)


# ---- in and out


def test_a_session_from_open_to_close(hand_pump: Any, crank: Any) -> None:
    config = ClientConfig(media=(), input_config=InputConfig(voice="cedar"))
    pump = hand_pump(config)
    pump.ready()
    assert kinds(pump.take()) == ["realtime.input_config"]
    connected, *rest = pump.told()
    assert isinstance(connected, Connected)
    assert connected.session_id == "s-1"
    assert rest == [Ready(), Usable()]
    pump.send(SayText(text="hello"))
    assert kinds(pump.take()) == ["conversation.item.create", "response.create"]
    assert pump.told() == [UserTurn(text="hello", typed=True)]
    closing = crank(pump.close(3001, "enough"))
    assert pump.take() == [CloseTransport(code=3001, reason="enough")]
    assert not closing.turn()
    assert not pump.over.is_set()
    pump.lost(TransportClosedError(3001, "enough"))
    assert closing.turn()
    end = Closed(cause=CloseCause.LOCAL, code=3001, reason="enough")
    assert pump.end == end
    assert pump.told() == [
        ResponseFailed(response_id=None, reason="the session ended"),
        end,
    ]
    assert pump.over.is_set()
    assert pump.failures == []
    assert pump.alarm is None


def test_text_and_binary_reach_the_core_as_what_they_are(hand_pump: Any) -> None:
    pump = hand_pump()
    pump.ready()
    pump.told()
    pump.received('{"type": "something.new", "data": 1}')
    pump.received(b"\x00" * 5)
    unknown, binary = pump.told()
    assert isinstance(unknown, UnknownMessage)
    assert unknown.type == "something.new"
    assert binary == BinaryIgnored(size=5)
    assert pump.core.counters.received == 4


def test_the_sender_waits_for_something_to_send(hand_pump: Any, crank: Any) -> None:
    pump = hand_pump()
    pump.ready()
    sender = crank(pump.outgoing())
    assert not sender.turn()
    pump.send(say("one"))
    pump.send(say("two"))
    assert texts([sender.result()]) == ["one"]
    assert texts(pump.take()) == ["two"]


def test_what_the_core_refuses_reaches_the_sender_and_nobody_else(hand_pump: Any) -> None:
    pump = hand_pump()
    pump.give(TransportOpened())
    with pytest.raises(NotReadyError):
        pump.send(SendAudio(pcm=b"\0\0"))
    assert pump.failures == []
    assert not pump.over.is_set()
    assert pump.take() == []


# ---- time


def test_the_alarm_is_the_cores_next_timeout(hand_pump: Any) -> None:
    config = ClientConfig(media=(), welcome_timeout=5.0, connect_timeout=9.0, close_timeout=2.0)
    pump = hand_pump(config)
    assert (pump.alarm, pump.core.state) == (None, State.IDLE)
    pump.give(TransportOpened())
    assert pump.alarm == 1005.0
    pump.timeout()  # Early: harmless.
    assert (pump.alarm, pump.core.state) == (1005.0, State.WELCOMING)
    pump.clock.advance_to(1005.0)
    pump.timeout()
    assert pump.told() == [TimedOut(waiting_for="connected.success", seconds=5.0)]
    assert pump.alarm == 1007.0
    assert not pump.over.is_set()
    pump.clock.advance_to(1007.0)
    pump.timeout()
    assert pump.alarm is None
    (closed,) = pump.told()
    assert (closed.cause, closed.forced) == (CloseCause.TIMEOUT, True)
    assert pump.over.is_set()
    assert [type(action) for action in pump.take()] == [CloseTransport]


# ---- the engine


def finish(engine: StrictEngine, callbacks: Any) -> None:
    command, result, reason = engine.finish()
    assert reason is None
    callbacks.done(command.op, result)


def offer_of(engine: StrictEngine) -> Offer:
    engine.execute(OpenPeer(op=OpId(1), ice_servers=(), policy=IcePolicy.ALL, media=SEND_MEDIA))
    engine.finish()
    engine.execute(SetLocal(op=OpId(2), media=SEND_MEDIA))
    _, offer, _ = engine.finish()
    assert isinstance(offer, Offer)
    return offer


def offer_data(offer: Offer) -> dict[str, str]:
    return {"type": "offer", "sdp": offer.sdp}


def with_an_offer(pump: Any) -> None:
    """Bring the pump to where the engine opens a peer connection for an offer."""
    pump.ready()
    offer = offer_of(StrictEngine("h"))
    pump.received(
        json.dumps({"type": "webrtc.signaling.offer", "data": {"sdp": offer_data(offer)}})
    )
    assert [type(command) for command in pump.commands] == [OpenPeer]


def test_commands_go_to_the_engine_and_its_reports_to_the_core(hand_pump: Any) -> None:
    pump = hand_pump(ClientConfig())
    callbacks = pump.engine_callbacks()
    human, engine = StrictEngine("h"), StrictEngine("e")
    pump.ready()
    offer = offer_of(human)
    pump.received(
        json.dumps({"type": "webrtc.signaling.offer", "data": {"sdp": offer_data(offer)}})
    )
    while pump.commands:
        engine.execute(pump.commands.pop(0))
        finish(engine, callbacks)
    assert [type(command).__name__ for command in engine.history] == [
        "OpenPeer",
        "SetRemote",
        "SetLocal",
    ]
    assert kinds(pump.take()) == ["webrtc.signaling.answer"]
    while engine.events:
        callbacks.event(engine.events.popleft())
    assert pump.core.usable
    callbacks.event(MediaStateChanged(state=MediaState.FAILED, reason="no route"))
    assert pump.core.media_state is MediaState.FAILED
    assert pump.failures == []


def test_a_command_that_failed_is_told_to_the_core(hand_pump: Any) -> None:
    pump = hand_pump(ClientConfig())
    with_an_offer(pump)
    pump.told()
    pump.engine_callbacks().failed(pump.commands[0].op, "no codec")
    (failed,) = pump.told()
    assert failed.reason == "no codec"
    assert pump.failures == []


def test_a_broken_engine_ends_the_driver_not_its_own_callback(hand_pump: Any) -> None:
    pump = hand_pump(ClientConfig())
    with_an_offer(pump)
    callbacks = pump.engine_callbacks()
    callbacks.done(pump.commands[0].op, None)
    assert isinstance(pump.commands[1], SetRemote)
    callbacks.done(pump.commands[1].op, Answer(sdp="v=0\r\n"))  # SetRemote has no result.
    (failure,) = pump.failures
    assert isinstance(failure, LocalProtocolError)
    assert pump.over.is_set()


def test_an_engine_that_raises_does_not_keep_the_end_from_being_told(hand_pump: Any) -> None:
    pump = hand_pump(ClientConfig())
    with_an_offer(pump)
    pump.told()
    broken = RuntimeError("the engine is broken")

    def execute(command: object) -> None:
        assert isinstance(command, ClosePeer)
        raise broken

    pump.execute = execute
    pump.lost(TransportClosedError(None, ""))
    assert pump.failures == [broken]
    assert pump.told()[-1] == Closed(cause=CloseCause.REMOTE, code=None, reason="")
    assert pump.end is not None


# ---- observers


def test_an_observer_sees_each_event_before_the_application(hand_pump: Any) -> None:
    pump: Any = None
    seen: list[tuple[Event, int]] = []
    pump = hand_pump(observe=lambda event: seen.append((event, len(pump.events))))
    pump.ready()
    events = pump.told()
    assert seen == [(event, number) for number, event in enumerate(events)]
    assert events[-1] == Usable()


def test_an_observer_that_raises_ends_the_driver_and_nothing_is_lost(hand_pump: Any) -> None:
    mistake = ValueError("in the application's observer")

    def observe(event: Event) -> None:
        if isinstance(event, Ready):
            raise mistake

    pump = hand_pump(observe=observe)
    pump.give(TransportOpened())
    pump.send(say("queued"))
    pump.received('{"type": "realtime.session.updated", "data": {}}')
    assert pump.failures == [mistake]
    assert pump.over.is_set()
    assert pump.end is None
    assert pump.told()[-3:] == [Ready(), UserTurn(text="queued", typed=True), Usable()]
    assert texts(pump.take()) == ["queued"]


def test_what_an_observer_sends_leaves_after_what_came_before(hand_pump: Any) -> None:
    pump: Any = None

    def observe(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Ready):
            pump.send(say("from the observer"))
            pump.received('{"type": "something.new"}')

    seen: list[Event] = []
    pump = hand_pump(observe=observe)
    pump.give(TransportOpened())
    pump.send(say("queued"))
    pump.received('{"type": "realtime.session.updated", "data": {}}')
    assert texts(pump.take()) == ["queued", "from the observer"]
    told = pump.told()
    assert [type(event).__name__ for event in told] == [
        "OutOfOrder",
        "Ready",
        "UserTurn",
        "Usable",
        "UserTurn",
        "UnknownMessage",
    ]
    assert seen == told
    assert pump.failures == []


def test_what_an_observer_does_wrong_is_its_own_mistake(hand_pump: Any) -> None:
    pump: Any = None
    caught: list[Exception] = []

    def observe(event: Event) -> None:
        if isinstance(event, Ready):
            with pytest.raises(LocalProtocolError) as error:
                pump.send(SendAudio(pcm=b"odd"))
            caught.append(error.value)

    pump = hand_pump(observe=observe)
    pump.ready()
    assert len(caught) == 1
    assert pump.failures == []
    assert pump.told()[-1] == Usable()


def test_an_interrupt_in_an_observer_leaves_and_the_end_is_told(hand_pump: Any) -> None:
    interrupts = [Abort()]

    def observe(event: Event) -> None:
        if interrupts:
            raise interrupts.pop()

    pump = hand_pump(observe=observe)
    pump.give(TransportOpened())
    with pytest.raises(Abort):
        pump.lost(TransportClosedError(1006, "gone"))
    # ConnectFailed was being told; Closed comes after it.
    assert not pump.over.is_set()
    pump.dropped()
    assert pump.end == Closed(cause=CloseCause.REMOTE, code=1006, reason="gone")
    assert [type(event).__name__ for event in pump.told()] == ["ConnectFailed", "Closed"]


# ---- who waits for the socket


def test_senders_wait_above_the_mark_until_half_of_it_is_sent(hand_pump: Any, crank: Any) -> None:
    assert OUTGOING_HIGH_WATER == 262_144
    pump = hand_pump()
    pump.ready()
    while True:
        room = crank(pump.room())
        if not room.done:
            break
        pump.send(say("x" * 10_000))
    sender: list[SendText] = pump.take()
    size = sum(len(action.text) for action in sender)
    assert 262_144 < size < 262_144 + 11_000
    waiting = [room, crank(pump.room())]
    while size > 131_072:
        assert not any(room.turn() for room in waiting)
        action = sender.pop(0)
        size -= len(action.text)
        pump.sent(action)
    assert all(room.turn() for room in waiting)
    assert crank(pump.room()).done


def test_senders_learn_that_the_session_ended_while_they_waited(hand_pump: Any, crank: Any) -> None:
    pump = hand_pump()
    pump.ready()
    pump.send(say("x" * 300_000))
    room = crank(pump.room())
    assert not room.turn()
    pump.lost(TransportClosedError(None, ""))
    with pytest.raises(SessionClosedError):
        room.result()
    with pytest.raises(SessionClosedError):
        crank(pump.room()).result()


# ---- the end


def test_closing_twice_waits_twice_and_closes_once(hand_pump: Any, crank: Any) -> None:
    pump = hand_pump()
    pump.ready()
    both = [crank(pump.close()), crank(pump.close(3000, "again"))]
    assert pump.take() == [CloseTransport(code=1000, reason="")]
    assert not any(closing.turn() for closing in both)
    pump.lost(TransportClosedError(1000, ""))
    assert all(closing.turn() for closing in both)
    assert crank(pump.close()).done
    assert pump.take() == []


def test_a_close_that_is_refused_changes_nothing(hand_pump: Any, crank: Any) -> None:
    pump = hand_pump()
    pump.ready()
    with pytest.raises(LocalProtocolError, match="1005"):
        crank(pump.close(1005)).result()
    assert pump.core.state is State.READY
    assert pump.take() == []


def test_a_cancelled_close_still_closes(hand_pump: Any, crank: Any) -> None:
    pump = hand_pump()
    pump.ready()
    crank(pump.close()).cancel()
    assert pump.take() == [CloseTransport(code=1000, reason="")]
    pump.lost(TransportClosedError(1000, ""))
    assert pump.end is not None


def test_closing_stops_waiting_for_a_slow_reader(hand_pump: Any, crank: Any) -> None:
    pump = hand_pump()
    pump.ready()
    reader = aiter(pump.events)
    pump.told()
    for _ in range(1025):
        pump.received('{"type": "something.new"}')
    room = crank(pump.events.room())
    assert not room.turn()
    closing = crank(pump.close())
    assert room.turn()
    pump.lost(TransportClosedError(1000, ""))
    assert closing.turn()
    del reader


def test_a_driver_that_stops_tells_the_end_once(hand_pump: Any) -> None:
    pump = hand_pump()
    pump.ready()
    pump.told()
    pump.dropped()
    end = Closed(cause=CloseCause.REMOTE, code=None, reason="")
    assert pump.told() == [end]
    assert pump.end == end
    pump.dropped()
    pump.lost(TransportClosedError(1000, "late"))
    assert pump.told() == []
    assert pump.end == end


def test_a_driver_that_stops_before_it_began_tells_the_end_too(hand_pump: Any) -> None:
    pump = hand_pump()
    pump.dropped()
    assert [type(event).__name__ for event in pump.told()] == ["ConnectFailed", "Closed"]


def test_a_failure_stops_the_driver(hand_pump: Any) -> None:
    pump = hand_pump()
    errors = [OSError("first"), OSError("second")]
    assert not pump.over.is_set()
    for error in errors:
        pump.fail(error)
    assert pump.over.is_set()
    assert pump.failures == errors
    assert pump.end is None


def test_an_adapter_fills_in_three_things(flag: Any) -> None:
    class Bare(Pump):
        pass

    Bare.flag = flag
    core = Connection(Role.CLIENT, ClientConfig(media=()), now=0.0)
    pump = Bare(core, observe=lambda event: None)
    for call in (pump.time, lambda: pump.rearm(None), lambda: pump.execute(ClosePeer(op=OpId(1)))):
        with pytest.raises(NotImplementedError):
            call()


# ---- traces


def recorded() -> tuple[Recorder, list[str]]:
    lines: list[str] = []
    return Recorder(lines.append, Scrubber(), started="", versions={}), lines


def test_what_happens_is_recorded_and_can_be_done_again(hand_pump: Any) -> None:
    pump = hand_pump()
    recorder, lines = recorded()
    pump.begin_trace(recorder)
    with pytest.raises(NotReadyError):
        pump.send(SendAudio(pcm=bytes(2)))
    pump.ready()
    pump.received(b"binary")
    pump.send(SayText(text="hello"))
    waiting = sum(len(sent.text) for sent in pump.take())
    pump.clock.advance_to(pump.clock.now + SAMPLE_SECONDS)
    pump.timeout()
    pump.lost(TransportClosedError(1000, ""))
    result = replay(lines)
    assert result.divergence is None
    assert result.inputs == 9
    (sample,) = (json.loads(line) for line in lines if '"line":"sample"' in line)
    assert sample["outgoing"] == waiting > 0
    assert sample["media"]["received"] == []


def test_a_trace_from_now_on_says_that_it_is_not_the_whole(hand_pump: Any) -> None:
    pump = hand_pump()
    pump.ready()
    recorder, lines = recorded()
    pump.begin_trace(recorder)
    assert json.loads(lines[1])["complete"] is False
    pump.send(SayText(text="hello"))
    pump.end_trace(recorder)
    pump.end_trace(recorder)
    before = len(lines)
    pump.send(SayText(text="untraced"))
    assert len(lines) == before


def test_what_cannot_be_recorded_ends_the_trace_and_not_the_session(hand_pump: Any) -> None:
    pump = hand_pump()
    (recorder, lines), (other, others) = recorded(), recorded()
    pump.begin_trace(recorder)
    pump.begin_trace(other)

    def broken(*args: Any, **options: Any) -> None:
        raise KeyError("a bug of ours")

    recorder.scrubber.input = broken  # type: ignore[method-assign]
    pump.ready()
    assert pump.core.state is State.READY
    assert "this could not be recorded: KeyError" in lines[-1]
    assert len(lines) == 3
    assert replay(others).divergence is None


# ---- Observer


class Listener:
    """Keeps what it was told, under its name, in a list of all listeners."""

    def __init__(self, log: list[str], name: str, error: BaseException | None = None) -> None:
        self._log = log
        self._name = name
        self._error = error

    def __call__(self, event: Event) -> None:
        self._log.append(f"{self._name} {type(event).__name__}")
        if self._error is not None:
            raise self._error


def test_everybody_is_told_in_order() -> None:
    log: list[str] = []
    observer = Observer(Listener(log, "a"), None, Listener(log, "b"))
    observer.add(Listener(log, "c"))
    observer(Ready())
    observer(Usable())
    assert log == ["a Ready", "b Ready", "c Ready", "a Usable", "b Usable", "c Usable"]


@pytest.mark.parametrize("which", ["a", "b", "c"])
def test_who_raised_is_not_called_again_and_the_others_are(which: str) -> None:
    log: list[str] = []
    mistake = ValueError("mine")
    observer = Observer(
        *(Listener(log, name, mistake if name == which else None) for name in "abc")
    )
    with pytest.raises(ValueError, match="mine") as caught:
        observer(Ready())
    assert caught.value is mistake
    assert log == ["a Ready", "b Ready", "c Ready"]
    log.clear()
    observer(Usable())
    assert log == [f"{name} Usable" for name in "abc" if name != which]


def test_several_that_raise_leave_as_a_group() -> None:
    log: list[str] = []
    errors = [ValueError("one"), KeyError("two")]
    observer = Observer(
        Listener(log, "a", errors[0]), Listener(log, "b", errors[1]), Listener(log, "c")
    )
    with pytest.raises(ExceptionGroup) as caught:
        observer(Ready())
    assert caught.value.exceptions == tuple(errors)
    observer(Usable())
    assert log == ["a Ready", "b Ready", "c Ready", "c Usable"]


def test_an_interrupt_is_not_held_up() -> None:
    log: list[str] = []
    observer = Observer(Listener(log, "a", Abort()), Listener(log, "b"))
    with pytest.raises(Abort):
        observer(Ready())
    assert log == ["a Ready"]
    observer(Usable())
    assert log == ["a Ready", "b Usable"]


def test_one_that_is_added_while_telling_is_told_the_next_event_and_last() -> None:
    log: list[str] = []

    def adds(event: Event) -> None:
        log.append(f"adds {type(event).__name__}")
        if isinstance(event, Ready):
            observer.add(Listener(log, "late"))

    observer = Observer(adds, Listener(log, "b"))
    observer(Ready())
    observer(Usable())
    assert log == ["adds Ready", "b Ready", "adds Usable", "b Usable", "late Usable"]


def test_the_conversation_reaches_the_observer(hand_pump: Any) -> None:
    heard: list[Event] = []
    pump = hand_pump(observe=Observer(heard.append))
    pump.ready()
    pump.received(
        '{"type": "realtime.response.audio_transcript.delta",'
        ' "data": {"id": "r", "content": "Hello"}}'
    )
    assert [type(event) for event in heard[-3:]] == [
        MessageReceived,
        ResponseStarted,
        ResponseText,
    ]


# ---- what a session asks of whatever carries it


def test_a_bare_carrier_carries_nothing(crank: Any) -> None:
    bare = Carrier()
    recorder, _ = recorded()
    for call in (
        bare.time,
        lambda: bare.send(say("one")),
        lambda: bare.fail(ValueError()),
        lambda: bare.begin_trace(recorder),
        lambda: bare.end_trace(recorder),
    ):
        with pytest.raises(NotImplementedError):
            call()
    for wait in (bare.room(), bare.close()):
        with pytest.raises(NotImplementedError):
            crank(wait).result()


def test_one_pump_is_never_replaced(hand_pump: Any) -> None:
    pump = hand_pump()
    pump.ready()
    pump.lost(TransportClosedError(None, ""))
    assert pump.losses == 0
    pump.check_up()
    pump.check_kept(0)
    with pytest.raises(LocalProtocolError, match="without reconnect"):
        pump.retry_now()
    items = aiter(pump.events)
    assert pump.renewed(lambda: items) is items


def test_events_go_where_they_are_to_go(hand_pump: Any, flag: Any) -> None:
    elsewhere = EventBuffer(flag)
    pump = hand_pump(events=elsewhere)
    pump.ready()
    assert pump.events is elsewhere
    assert len(elsewhere) == 3


def test_a_carrier_without_media_measures_nothing() -> None:
    bare = Carrier()
    assert bare.media_stats() == MediaStats()
    bare.await_answer(None)
