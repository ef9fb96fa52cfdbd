"""What an application holds: the calls, who waits in them, and what they raise."""

from __future__ import annotations

import gc
import json
import weakref
from base64 import b64decode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
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
    SessionLostError,
)
from navtalk_proto.events import (
    CloseCause,
    Closed,
    Event,
    Negotiated,
    Ready,
    Reconnecting,
    Usable,
    UserTurn,
)
from navtalk_proto.history import CallEntry, Ending, History, HumanTurn
from navtalk_proto.inputs import TransportOpened
from navtalk_proto.intents import Close, SayText, SendAudio
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import IcePolicy, MediaKind, MediaLine, OpId
from navtalk_proto.pump import Observer
from navtalk_proto.session import (
    PACE_MS,
    SESSION_ENDED,
    TRAILING_SILENCE,
    TURNS_HIGH_WATER,
    ClientCalls,
    SessionCalls,
    is_farewell,
)
from navtalk_proto.stats import MediaStats
from navtalk_proto.testing.engine import StrictEngine
from navtalk_proto.tracing.output import TraceOptions
from navtalk_proto.tracing.recorder import Recorder
from navtalk_proto.tracing.scrubber import Scrubber
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import Answer, FunctionCallOutput, Offer, ToolResult

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
        self.pump.clock.advance(when - self.pump.clock.now)

    async def _decode(self, path: Any) -> Any:
        """A recording of half a second, which is a list of its pieces."""
        for piece in path:
            yield piece


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
    pcm = bytes(range(200)) * 5
    crank(session.send_audio(pcm)).result()
    (message,) = sent(session)
    assert message["type"] == "realtime.input_audio_buffer.append"
    assert b64decode(message["data"]["audio"], validate=True) == pcm
    with pytest.raises(LocalProtocolError, match="even"):
        crank(session.send_audio(b"odd")).result()
    assert sent(session) == []


APPEND = "realtime.input_audio_buffer.append"


def kinds(session: Session) -> list[str]:
    return [message["type"] for message in sent(session)]


def test_what_is_too_early_waits_for_ready(hand_pump: Any, crank: Any) -> None:
    session = opened(hand_pump)
    with pytest.raises(LocalProtocolError, match="even"):
        crank(session.send_audio(b"odd")).result()
    waiting = [
        crank(session.send_audio(bytes(960))),
        crank(session.send_audio(bytes(960), paced=True)),
        crank(session.commit()),
        crank(session.interrupt()),
    ]
    assert not any(one.done for one in waiting)
    crank(session.send(SayText(text="early", respond=False))).result()
    assert sent(session) == []
    session.pump.ready()
    for one in waiting:
        one.result()
    assert kinds(session) == [
        "conversation.item.create",
        APPEND,
        APPEND,
        "realtime.input_audio_buffer.commit",
        "realtime.input_audio_buffer.clear",
    ]


def test_the_core_itself_waits_for_nothing(hand_pump: Any, crank: Any) -> None:
    session = opened(hand_pump)
    with pytest.raises(NotReadyError):
        crank(session.send(SendAudio(pcm=b"\0\0"))).result()


def test_who_waits_for_ready_learns_of_an_end_before_it(hand_pump: Any, crank: Any) -> None:
    session = opened(hand_pump)
    session.pump.give(TransportOpened())
    waiting = [
        crank(session.send_audio(b"\0\0")),
        crank(session.send_audio(b"\0\0", paced=True)),
        crank(session.interrupt()),
    ]
    session.pump.lost(TransportClosedError(1006, ""))
    for one in waiting:
        with pytest.raises(SessionClosedError):
            one.result()


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


# ---- speaking in real time


def voices(session: Session) -> list[bytes]:
    """The audio that the session sent since last asked, message by message."""
    return [b64decode(message["data"]["audio"]) for message in sent(session)]


def test_paced_audio_leaves_when_its_first_sample_is_due(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    pcm = bytes(n % 251 for n in range(3 * 3072))
    crank(session.send_audio(pcm, paced=True)).result()
    # 1,536 samples of 24,000 a second are 64 ms.
    assert session.slept == pytest.approx([0.064, 0.128])
    assert voices(session) == [pcm[:3072], pcm[3072:6144], pcm[6144:]]
    crank(session.send_audio(bytes(960), paced=True)).result()
    assert session.slept[2:] == pytest.approx([0.192])


def test_unpaced_audio_does_not_count(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    crank(session.send_audio(bytes(48_000))).result()
    crank(session.send_audio(bytes(960), paced=True)).result()
    assert session.slept == []


def test_a_stall_is_followed_by_one_piece(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    crank(session.send_audio(bytes(3072), paced=True)).result()
    session.pump.clock.advance(5.0)
    crank(session.send_audio(bytes(2 * 3072), paced=True)).result()
    assert session.slept == pytest.approx([5.064])


async def service(*chunks: bytes) -> Any:
    for chunk in chunks:
        yield chunk


def test_a_speech_services_chunks_may_cut_a_sample(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    pcm = bytes(n % 251 for n in range(2000))
    assert crank(session.say(service(pcm[:999], b"", pcm[999:1500], pcm[1500:]))).result() == (
        pytest.approx(1000 / 24_000)
    )
    session.pump.clock.advance(1.0)
    session.pump.timeout()
    assert b"".join(voices(session)) == pcm


def test_chunks_that_end_in_half_a_sample(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    with pytest.raises(LocalProtocolError, match="in the middle of a sample"):
        crank(session.say(service(bytes(961)))).result()
    assert voices(session) == [bytes(960)]


def test_chunks_are_paced_unless_told_otherwise(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    crank(session.say(service(bytes(3072), bytes(3072)), paced=False)).result()
    assert session.slept == []
    crank(session.say(service(bytes(3072), bytes(3072)))).result()
    assert session.slept == pytest.approx([0.064])
    assert voices(session) == [bytes(3072)] * 4


def test_silence_follows_to_the_sample(hand_pump: Any, crank: Any) -> None:
    assert (PACE_MS, TRAILING_SILENCE) == (64, 1.0)
    session = usable(hand_pump)
    loud = b"\1\2" * 1536
    said = crank(session.say(service(loud), trailing_silence=0.1)).result()
    assert said == 0.064
    # 100 ms: a piece of 64 ms, and one of 36.
    assert session.slept == pytest.approx([0.064, 0.128])
    assert voices(session) == [loud, bytes(3072), bytes(1728)]


def test_a_generator_is_closed_when_the_session_ends(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    closed = []

    async def microphone() -> Any:
        try:
            while True:
                yield bytes(960)
                session.pump.lost(TransportClosedError(None, ""))
        finally:
            closed.append(True)

    with pytest.raises(SessionClosedError):
        crank(session.say(microphone())).result()
    assert closed == [True]


def test_any_iterable_will_do(hand_pump: Any, crank: Any) -> None:
    class Queue:
        def __init__(self) -> None:
            self.left = [bytes(960), bytes(960)]

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    session = usable(hand_pump)
    assert crank(session.say(Queue(), paced=False)).result() == 0.04


def test_a_recording(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    pieces = [bytes(3072), bytes(3072)]
    assert crank(session.say_file(pieces)).result() == 0.128
    assert session.slept[-1] == pytest.approx(0.128 + 15 * 0.064)
    assert sum(map(len, voices(session))) == 2 * 3072 + 48_000
    slept = len(session.slept)
    crank(session.say_file(pieces, paced=False, trailing_silence=0.0)).result()
    assert len(session.slept) == slept


def test_paced_audio_goes_to_an_open_voice_line(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    with session._voice_line() as line:
        crank(session.send_audio(bytes(4800), paced=True)).result()
        assert line.queued == 0.1
        assert sent(session) == []
        with pytest.raises(RuntimeError, match="a voice line already"), session._voice_line():
            pytest.fail("there are two")
        crank(line.clear()).result()
        assert kinds(session) == ["realtime.input_audio_buffer.clear"]
    with session._voice_line():
        pass


def test_a_voice_line_is_paced_by_the_session(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)

    async def sleep_until(when: float) -> None:
        await session.pump.flag().wait()

    session._sleep_until = sleep_until  # type: ignore[method-assign]
    with session._voice_line() as line:
        crank(line.write(b"\1\2" * 1536)).result()
        running = crank(line.run())
        assert not running.turn()
        assert voices(session) == [b"\1\2" * 1536]
        session.pump.clock.advance(0.064)
        running.cancel()
        running = crank(line.run())
        assert voices(session) == [bytes(960)]
        running.cancel()


# ---- configuring and directing


def test_configuring_in_mid_session(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    tool = {"type": "function", "name": "look_up"}
    crank(session.configure(voice="cedar")).result()
    crank(session.configure(prompt="Be brief.", tools=[tool])).result()
    crank(session.configure(tools=[])).result()
    messages = sent(session)
    assert {message["type"] for message in messages} == {"realtime.input_config"}
    assert [json.loads(message["data"]["content"]) for message in messages] == [
        {"voice": "cedar"},
        {"prompt": "Be brief.", "tools": [tool]},
        {"tools": []},
    ]
    with pytest.raises(ValueError, match="nothing to configure"):
        crank(session.configure()).result()


def test_older_servers_are_updated(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    crank(session.update(instructions="Be brief.", temperature=0.7)).result()
    assert sent(session) == [
        {
            "type": "session.update",
            "session": {"instructions": "Be brief.", "temperature": 0.7},
        }
    ]
    with pytest.raises(ValueError, match="nothing to update"):
        crank(session.update()).result()


def test_directing_the_human(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    for call in (session.respond(), session.interrupt(), session.commit()):
        crank(call).result()
    assert kinds(session) == [
        "response.create",
        "realtime.input_audio_buffer.clear",
        "realtime.input_audio_buffer.commit",
    ]


def test_who_holds_sound_of_the_human_is_told_when_it_is_interrupted(
    hand_pump: Any, crank: Any
) -> None:
    session = usable(hand_pump)
    told: list[str] = []
    stop = session.on_interruption(lambda: told.append("here"))
    session.on_interruption(lambda: told.append("there"))
    crank(session.interrupt()).result()
    assert told == ["here", "there"]
    crank(session.commit()).result()
    assert told == ["here", "there"]
    stop()
    session.pump.received('{"type": "realtime.input_audio_buffer.speech_started"}')
    assert told == ["here", "there", "there"]


def test_a_commit_follows_the_voice_that_was_held(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    crank(session.send_audio(b"\1\2")).result()
    crank(session.commit()).result()
    assert kinds(session) == [APPEND, "realtime.input_audio_buffer.commit"]


def test_a_trace_has_what_happens_while_its_block_runs(hand_pump: Any, crank: Any) -> None:
    lines: list[str] = []

    class Traced(Session):
        @asynccontextmanager
        async def _trace_file(self, options: TraceOptions) -> AsyncGenerator[Recorder]:
            assert options.path == "call.jsonl"
            yield Recorder(lines.append, Scrubber(), started="", versions={})

    session = Traced(hand_pump())

    async def traced() -> None:
        async with session.trace("call.jsonl"):
            session.pump.ready()

    crank(traced()).result()
    session.pump.received('{"type": "something.new"}')
    assert [json.loads(line)["line"] for line in lines].count("in") == 4
    assert not any("something.new" in line for line in lines)


def test_an_adapter_fills_in_how_to_sleep(hand_pump: Any, crank: Any) -> None:
    with pytest.raises(NotImplementedError):
        ClientCalls(hand_pump())._trace_file(TraceOptions(path="call.jsonl"))
    with pytest.raises(NotImplementedError):
        crank(ClientCalls(hand_pump())._sleep_until(0.0)).result()
    with pytest.raises(NotImplementedError):
        ClientCalls(hand_pump())._decode(Path("question.wav"))


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
def test_a_silence_that_is_no_length_of_time_is_refused(
    seconds: float, hand_pump: Any, crank: Any
) -> None:
    session = usable(hand_pump)
    with pytest.raises(ValueError, match="trailing_silence"):
        crank(session.say(service(bytes(960)), trailing_silence=seconds)).result()
    assert sent(session) == []


# ---- what was said


def delta(text: str) -> str:
    return json.dumps(
        {
            "type": "realtime.response.audio_transcript.delta",
            "data": {"id": "r1", "content": text},
        }
    )


HEARD = json.dumps(
    {
        "type": "realtime.conversation.item.input_audio_transcription.completed",
        "data": {"content": "Hello?"},
    }
)
CALLED = json.dumps(
    {
        "type": "realtime.response.function_call_arguments.done",
        "data": {"function_name": "clock", "call_id": "c1", "arguments": "{}"},
    }
)


def test_its_turns_and_its_history_are_those_of_its_events(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    turns = session.turns()
    session.pump.received(HEARD)
    session.pump.received(CALLED)
    session.pump.received(delta("Hi"))
    assert crank(anext(turns)).result() == UserTurn(text="Hello?")
    reading = crank(anext(turns))
    assert not reading.turn(), "the human has not finished"
    session.pump.lost(TransportClosedError(None, ""))
    broken = HumanTurn(text="Hi", heard="", ending=Ending.FAILED, reason="the session ended")
    assert reading.result() == broken
    with pytest.raises(StopAsyncIteration):
        crank(anext(turns)).result()
    assert session.history.snapshot() == (
        UserTurn(text="Hello?"),
        CallEntry(call_id="c1", name="clock", arguments="{}"),
        broken,
    )
    assert session.turns_dropped == 0


def test_turns_that_nobody_reads_are_counted(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    for _ in range(TURNS_HIGH_WATER + 2):
        session.pump.received(HEARD)
    assert session.turns_dropped == 2


@pytest.mark.parametrize(
    "answer",
    [ToolResult(call_id="c1", output="7"), FunctionCallOutput(call_id="c1", output="7")],
)
def test_an_answer_that_was_sent_is_in_the_history(
    hand_pump: Any, crank: Any, answer: ToolResult | FunctionCallOutput
) -> None:
    session = usable(hand_pump)
    with pytest.raises(LocalProtocolError):
        crank(session.send(answer)).result()
    session.pump.received(CALLED)
    crank(session.send(answer)).result()
    assert session.history[0] == CallEntry(call_id="c1", name="clock", arguments="{}", output="7")


def test_a_history_that_is_continued_takes_what_is_said(hand_pump: Any, crank: Any) -> None:
    session = opened(hand_pump)
    history = History([UserTurn(text="earlier")])
    session.continue_history(history)
    session.pump.ready()
    crank(session.send_text("Hello!", respond=False)).result()
    assert session.history is history
    assert history.snapshot() == (UserTurn(text="earlier"), UserTurn(text="Hello!", typed=True))


# ---- a connection that is lost, of a session that goes on


class Losing(Session):
    """A session whose carrier says when a connection was lost, as a Succession does."""

    def lose(self, *, up: bool = True) -> None:
        pump = self.pump

        def check_kept(losses: int) -> None:
            if losses != pump.lost_connections:
                raise SessionLostError("the connection was lost")

        def check_up() -> None:
            if not up:
                raise SessionLostError("none is usable")

        pump.check_kept, pump.check_up = check_kept, check_up
        pump.lost_connections = 1


def losing(hand_pump: Any, config: ClientConfig | None = None) -> Losing:
    told = Observer()
    session = Losing(hand_pump(config, observe=told))
    told.add(session.observe)
    session.pump.ready()
    session.pump.take()
    return session


def test_a_wish_of_a_lost_connection_says_so(hand_pump: Any, crank: Any) -> None:
    session = losing(hand_pump, ClientConfig())
    wishing = crank(session.negotiate(VIDEO))
    session.lose()
    session.observe(Reconnecting(attempt=1, delay=1.0, reason="lost"))
    with pytest.raises(SessionLostError):
        wishing.result()


def test_an_utterance_is_not_said_to_two_connections(hand_pump: Any, crank: Any, flag: Any) -> None:
    session = losing(hand_pump)
    more = flag()

    async def microphone() -> AsyncGenerator[bytes]:
        yield bytes(960)
        await more.wait()
        yield bytes(960)

    saying = crank(session.say(microphone(), paced=False))
    assert not saying.turn()
    assert [one["type"] for one in sent(session)] == ["realtime.input_audio_buffer.append"]
    session.lose()
    more.set()
    with pytest.raises(SessionLostError):
        saying.result()
    assert sent(session) == []


def test_paced_audio_that_waits_for_its_time_is_lost(hand_pump: Any, crank: Any) -> None:
    session = losing(hand_pump)

    async def sleep(when: float) -> None:
        session.lose()

    session._sleep_until = sleep  # type: ignore[method-assign]
    with pytest.raises(SessionLostError):
        crank(session.send_audio(bytes(2 * 3072), paced=True)).result()
    assert len(sent(session)) == 1


def test_no_call_is_answered_on_another_connection(hand_pump: Any, crank: Any) -> None:
    session = losing(hand_pump)
    session.lose(up=False)
    for answer in (
        ToolResult(call_id="c1", output="?"),
        FunctionCallOutput(call_id="c1", output="?"),
    ):
        with pytest.raises(SessionLostError):
            crank(session.send(answer)).result()
    assert sent(session) == []


def test_there_is_nothing_to_retry_without_reconnecting(hand_pump: Any) -> None:
    with pytest.raises(LocalProtocolError, match="without reconnect"):
        usable(hand_pump).retry_now()


def test_an_intent_to_close_waits_for_no_room(hand_pump: Any, crank: Any) -> None:
    session = usable(hand_pump)
    speaking = crank(session.send(SendAudio(pcm=bytes(48_000))))
    while speaking.turn():  # Until the socket that takes nothing is full.
        speaking = crank(session.send(SendAudio(pcm=bytes(48_000))))
    closing = crank(session.send(Close(code=3000, reason="enough")))
    assert closing.turn()
    assert session.pump.take()[-1] == CloseTransport(code=3000, reason="enough")
    assert not session.pump.over.is_set()
    speaking.cancel()


def test_a_recording_hears_what_is_said_while_it_runs(hand_pump: Any, crank: Any) -> None:
    """Paced or not, and by an intent; neither before nor after, and what it raises leaves."""
    session = usable(hand_pump)
    heard: list[bytes] = []

    class Recorder:
        def say(self, pcm: bytes) -> None:
            heard.append(pcm)

    @asynccontextmanager
    async def recording() -> AsyncGenerator[Recorder]:
        yield Recorder()
        raise KeyError("disk")

    async def talk() -> None:
        await session.send_audio(b"\0\0")
        async with session.with_own_voice(recording()):
            await session.send_audio(b"\1\0" * 480)
            await session.send_audio(b"\2\0" * 2000, paced=True)
            await session.send(SendAudio(pcm=b"\3\0"))
            await session.send_text("written")

    with pytest.raises(KeyError, match="disk"):
        crank(talk()).result()
    crank(session.send_audio(b"\4\0")).result()
    assert heard == [b"\1\0" * 480, b"\2\0" * 1536, b"\2\0" * 464, b"\3\0"]


# ---- what is measured


def test_its_stats_are_a_snapshot(hand_pump: Any) -> None:
    session = usable(hand_pump)
    before = session.stats()
    session.pump.received('{"type": "something.new"}')
    after = session.stats()
    assert (before.counters.unknown, after.counters.unknown) == (0, 1)
    assert after.at == session.pump.time()
    assert (after.media, after.latencies, after.events_dropped) == (MediaStats(), (), 0)
    assert SessionCalls(session.pump).stats().latencies == ()


def test_an_engine_listens_while_an_answer_is_waited_for(
    hand_pump: Any, crank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = usable(hand_pump)
    waits: list[Any] = []
    monkeypatch.setattr(session.pump, "await_answer", waits.append)
    crank(session.send(SayText(text="a", respond=False)))
    assert waits == []
    crank(session.send_text("Hello?"))
    (told,) = waits
    session.pump.clock.advance(0.5)
    now = session.pump.time()
    told(MediaKind.AUDIO, now)
    assert len(waits) == 1
    told(MediaKind.VIDEO, now)
    assert waits == [told, None]
    (turn,) = session.stats().latencies
    assert (turn.typed, turn.to_first_audio, turn.lip_offset) == (True, 0.5, 0.0)


def test_the_end_of_the_users_speech_is_that_of_the_voice_that_was_sent(
    hand_pump: Any, crank: Any
) -> None:
    session = usable(hand_pump)
    voice, silence = b"\x00\x20" * 1536, bytes(3072)
    session.pump.received('{"type": "realtime.input_audio_buffer.speech_started"}')
    crank(session.send(SendAudio(pcm=voice)))
    crank(session.send_audio(voice, paced=True))
    spoken = session.pump.time()
    session.pump.clock.advance(0.3)
    crank(session.send_audio(silence))
    session.pump.clock.advance(0.5)
    session.pump.received('{"type": "realtime.input_audio_buffer.speech_stopped"}')
    (turn,) = session.stats().latencies
    assert turn.speech_end == spoken
    assert turn.silence_told == session.pump.time()


def test_the_engine_of_another_connection_is_told_too(
    hand_pump: Any, crank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = usable(hand_pump)
    waits: list[Any] = []
    monkeypatch.setattr(session.pump, "await_answer", waits.append)
    crank(session.respond())
    session.observe(Usable())
    assert len(waits) == 2
    assert None not in waits
