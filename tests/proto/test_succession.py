"""One session over several connections, without a loop: what is told, who waits, what ends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest
from attrs import evolve

from navtalk_proto.actions import CloseTransport, CreateOffer, OpenPeer, SendText
from navtalk_proto.config import RECEIVE_MEDIA, ClientConfig
from navtalk_proto.errors import (
    ConnectFailedError,
    ConnectTimeoutError,
    GpuFullError,
    LocalProtocolError,
    MediaError,
    SessionClosedError,
    SessionLostError,
)
from navtalk_proto.event_buffer import EVENTS_HIGH_WATER, EventBuffer
from navtalk_proto.events import (
    CloseCause,
    Closed,
    Event,
    Ready,
    Reconnected,
    Reconnecting,
    Usable,
    UserTurn,
)
from navtalk_proto.history import History
from navtalk_proto.inputs import TransportOpened
from navtalk_proto.intents import Close, Negotiate, SayText, SendAudio
from navtalk_proto.limits import Limits
from navtalk_proto.machines import negotiation
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import (
    Direction,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    MediaStateChanged,
)
from navtalk_proto.opening import Opening
from navtalk_proto.pump import OUTGOING_HIGH_WATER
from navtalk_proto.reconnect import ReconnectPolicy
from navtalk_proto.succession import Succession, reconfigured, reconnect_policy
from navtalk_proto.tracing.recorder import Recorder
from navtalk_proto.tracing.replayer import replay
from navtalk_proto.tracing.scrubber import Scrubber
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import (
    Answer,
    InputConfig,
    InputFunctionCall,
    Offer,
    ResponseCreate,
    SessionUpdate,
    UserMessage,
)

POLICY = ReconnectPolicy(first_delay=2.0, longest_delay=8.0, jitter=lambda: 0.0)
CUT = TransportClosedError(None, "")
NOBODY = ConnectFailedError("nobody listens", stage="handshake")
GOODBYE = '{"type": "conversation.connected.close", "message": "Session timeout", "data": {}}'
GAVE_UP = "gave up after 1 attempt (1.0 s)"
LOST = Reconnecting(attempt=1, delay=1.0, reason="the connection was lost")


def ours(reason: str = "", code: int | None = 1000) -> Closed:
    return Closed(cause=CloseCause.LOCAL, code=code, reason=reason)


class Hand(Succession[Any]):
    """Its drivers are hand pumps; opening one waits for :attr:`door`, and may raise."""

    def __init__(
        self,
        hand_pump: Any,
        crank: Any,
        flag: Any,
        *,
        config: ClientConfig | None = None,
        policy: ReconnectPolicy = POLICY,
        history: History | None = None,
        observe: Callable[[Event], None] | None = None,
    ) -> None:
        type(self).flag = flag
        self.observed: list[Event] = []
        self.hand_pump = hand_pump
        self.crank = crank
        first = hand_pump()
        self.clock = first.clock
        self.alarm: float | None = None
        self.pumps: list[Any] = []
        self.configs: list[ClientConfig] = []
        self.door = flag()
        self.door.set()
        self.errors: list[Exception] = []
        self.stopped = 0
        self.broken_rearm = False
        super().__init__(
            policy,
            jitter=lambda: 0.9,
            config=config or ClientConfig(media=()),
            history=history or History(),
            observe=observe or self.observed.append,
        )
        self.driver, self.opening = crank(self.open()).result()
        self.driver.give(TransportOpened())
        self.running = crank(self.run())

    def time(self) -> float:
        now: float = self.clock.now
        return now

    def rearm(self, when: float | None) -> None:
        if self.broken_rearm:
            raise ZeroDivisionError
        self.alarm = when

    async def begin(self, config: ClientConfig) -> tuple[Any, Opening]:
        self.configs.append(config)
        await self.door.wait()
        if self.errors:
            raise self.errors.pop(0)
        pump = self.hand_pump(config, observe=self.heard, events=self.events, clock=self.clock)
        self.pumps.append(pump)
        return pump, Opening(type(self).flag)

    def stop_beginning(self) -> None:
        self.stopped += 1
        if not self.door.is_set():
            self.errors.insert(0, ConnectTimeoutError("the WebSocket handshake", 1.0))
            self.door.set()

    async def start(self, driver: Any) -> None:
        driver.give(TransportOpened())

    async def drive(self, driver: Any) -> None:
        try:
            await driver.over.wait()
        finally:
            driver.dropped()
        if driver.failures:
            raise driver.failures[0]

    # ---- what a test does

    def turn(self) -> None:
        self.running.turn()

    def lose(self) -> None:
        """The newest connection is cut, and its driver leaves nothing of it."""
        self.driver.lost(CUT)
        self.turn()

    def wait(self, seconds: float = 1.0) -> None:
        """Let time pass, and the timer fire."""
        self.clock.advance(seconds)
        if self.alarm is not None and self.alarm <= self.clock.now:
            self.timeout(now=self.clock.now)
        self.turn()

    def told(self) -> list[Event]:
        """What is there for the application."""
        reader = aiter(self.events)
        return [self.crank(anext(reader)).result() for _ in range(len(self.events))]


@pytest.fixture
def make(hand_pump: Any, crank: Any, flag: Any) -> Generator[Callable[..., Hand]]:
    """A session that is usable, and whose events so far were read."""
    made: list[Hand] = []

    def make(*, ready: bool = True, **options: Any) -> Hand:
        hand = Hand(hand_pump, crank, flag, **options)
        made.append(hand)
        if ready:
            hand.driver.ready()
            hand.told()
            hand.observed.clear()
        return hand

    yield make
    for hand in made:
        # Left to the garbage collector, it would tell its end in the middle of another test.
        if not hand.running.done:
            hand.running.cancel()


def sent(pump: Any) -> list[Any]:
    return [json.loads(one.text) for one in pump.take() if isinstance(one, SendText)]


# ---- the argument, and the configuration


def test_what_connect_may_be_given() -> None:
    assert reconnect_policy(None) is None
    assert reconnect_policy(False) is None
    assert reconnect_policy(True) == ReconnectPolicy()
    assert reconnect_policy(POLICY) is POLICY
    with pytest.raises(TypeError, match="not str"):
        reconnect_policy("yes")  # type: ignore[arg-type]


def test_what_is_configured_again() -> None:
    clock, bell = {"type": "function", "name": "clock"}, {"type": "function", "name": "bell"}
    config = reconfigured(ClientConfig(), InputConfig(voice="cedar"))
    assert config.input_config == InputConfig(voice="cedar")
    config = reconfigured(config, InputFunctionCall(tools=(clock,)))
    assert config.input_function_call == InputFunctionCall(tools=(clock,))
    assert config.input_config == InputConfig(voice="cedar")
    # The newest list of tools is the one that holds.
    config = reconfigured(config, InputConfig(prompt="Be brief.", tools=(bell,)))
    assert config.input_config == InputConfig(voice="cedar", prompt="Be brief.", tools=(bell,))
    assert config.input_function_call is None
    assert reconfigured(config, InputConfig(voice="marin")).input_config == InputConfig(
        voice="marin", prompt="Be brief.", tools=(bell,)
    )
    config = reconfigured(config, InputFunctionCall(tools=()))
    assert config.input_config == InputConfig(voice="cedar", prompt="Be brief.")
    assert config.input_function_call == InputFunctionCall(tools=())
    only = reconfigured(ClientConfig(), InputFunctionCall(tools=(clock,)))
    assert (only.input_config, only.input_function_call) == (
        None,
        InputFunctionCall(tools=(clock,)),
    )
    assert reconfigured(config, ResponseCreate()) is config


def test_a_bare_one_drives_nothing(hand_pump: Any, crank: Any, flag: Any) -> None:
    class Bare(Succession[Any]):
        pass

    Bare.flag = flag
    bare = Bare(
        POLICY,
        jitter=lambda: 0.0,
        config=ClientConfig(),
        history=History(),
        observe=lambda event: None,
    )
    for call in (lambda: bare.rearm(None), bare.stop_beginning):
        with pytest.raises(NotImplementedError):
            call()
    for wait in (bare.begin(ClientConfig()), bare.start(None), bare.drive(None)):
        with pytest.raises(NotImplementedError):
            crank(wait).result()


# ---- from one connection to the next


def test_a_trace_has_all_connections_and_what_is_told_between(make: Any) -> None:
    hand = make()
    lines: list[str] = []
    recorder = Recorder(lines.append, Scrubber(), started="", versions={})
    hand.begin_trace(recorder)
    hand.lose()
    other: list[str] = []
    between = Recorder(other.append, Scrubber(), started="", versions={})
    hand.begin_trace(between)
    hand.wait()
    hand.driver.ready("s-2")
    hand.end_trace(between)
    hand.crank(hand.close())
    hand.driver.lost(TransportClosedError(1000, ""))
    hand.turn()
    told = [json.loads(line)["event"]["is"] for line in lines if '"line":"told"' in line]
    assert told == ["Reconnecting", "Reconnected", "Closed"]
    result = replay(lines)
    assert (result.connections, result.incomplete, result.divergence) == (1, 1, None)
    result = replay(other)
    assert (result.connections, result.incomplete, result.divergence) == (1, 0, None)


def test_a_lost_connection_is_replaced(make: Any) -> None:
    hand = make()
    first = hand.driver
    hand.lose()
    assert hand.told() == [LOST]
    assert hand.observed == [LOST]
    assert (hand.alarm, hand.losses) == (hand.clock.now + 1.0, 1)
    hand.wait(0.5)
    assert len(hand.pumps) == 1
    hand.wait(0.5)
    second = hand.driver
    assert second is not first
    assert hand.core is second.core
    second.ready("s-2")
    events = hand.told()
    assert [type(event) for event in events[1:]] == [Ready, Usable, Reconnected]
    assert events[-1] == Reconnected(session_id="s-2", attempts=1)
    assert hand.observed == [LOST, *events]
    assert (hand.alarm, hand.losses, hand.end) == (None, 1, None)
    closing = hand.crank(hand.close())
    assert second.take() == [CloseTransport(code=1000, reason="")]
    second.lost(TransportClosedError(1000, ""))
    hand.turn()
    closing.result()
    hand.running.result()
    assert hand.told() == [ours()]
    assert hand.end == ours()
    hand.crank(hand.close()).result()


def test_media_that_is_lost_ends_a_connection(make: Any) -> None:
    assert make().configs[0].end_on_media_loss


def test_what_a_new_connection_begins_with(make: Any) -> None:
    note = UserMessage(texts=("You know Ana.",), role="system")
    history = History([UserTurn(text="Hello.")])
    config = ClientConfig(media=(), history=(note, UserMessage(texts=("Hello.",))))
    hand = make(config=config, history=history)
    assert hand.configs[0].history == config.history
    hand.send(InputConfig(voice="cedar"))
    hand.send(SessionUpdate(session={"instructions": "a", "voice": "b"}))
    hand.send(SessionUpdate(session={"instructions": "c"}))
    history.add(UserTurn(text="And then?"))
    hand.lose()
    hand.wait()
    assert hand.configs[1].input_config == InputConfig(voice="cedar")
    assert hand.configs[1].history == (
        note,
        UserMessage(texts=("Hello.",)),
        UserMessage(texts=("And then?",)),
    )
    hand.driver.ready()
    said = sent(hand.driver)
    assert said[0]["type"] == InputConfig.TYPE
    assert said[-1] == {
        "type": "session.update",
        "session": {"instructions": "c", "voice": "b"},
    }


def test_attempts_that_fail_to_open(make: Any) -> None:
    hand = make()
    hand.errors += [NOBODY, GpuFullError("none")]
    hand.lose()
    hand.wait(1.0)
    hand.wait(2.0)
    assert hand.told() == [
        LOST,
        Reconnecting(attempt=2, delay=2.0, reason="nobody listens"),
        Reconnecting(
            attempt=3, delay=4.0, reason="the server refused the session (gpu_full): none"
        ),
    ]
    hand.wait(4.0)
    hand.driver.ready()
    assert hand.told()[-1] == Reconnected(session_id="s-1", attempts=3)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (NOBODY, Closed(cause=CloseCause.REMOTE, code=None, reason=f"{GAVE_UP}: nobody listens")),
        (
            GpuFullError("none"),
            Closed(
                cause=CloseCause.REFUSED,
                code=None,
                reason=f"{GAVE_UP}: the server refused the session (gpu_full): none",
            ),
        ),
        (
            ConnectTimeoutError("the WebSocket handshake", 5.0),
            Closed(
                cause=CloseCause.TIMEOUT,
                code=None,
                reason=f"{GAVE_UP}: no usable session within 5 s: still waiting for the WebSocket "
                "handshake",
            ),
        ),
    ],
    ids=["network", "refused", "timeout"],
)
def test_giving_up_where_no_connection_tells_the_end(make: Any, error: Any, end: Closed) -> None:
    hand = make(policy=evolve(POLICY, give_up_after=1.0))
    hand.errors.append(error)
    hand.lose()
    hand.wait(1.0)
    hand.running.result()
    assert hand.told() == [LOST, end]
    assert hand.end == end
    assert hand.alarm is None
    with pytest.raises(SessionClosedError, match="the session is over: gave up after 1 attempt"):
        hand.send(say("Hello?"))


def test_an_attempt_that_fails_later(make: Any) -> None:
    hand = make(policy=evolve(POLICY, give_up_after=3.0))
    hand.lose()
    hand.wait()
    hand.lose()
    failed = "the session ended before it was ready, in welcoming: connection lost"
    assert Reconnecting(attempt=2, delay=2.0, reason=failed) in hand.told()
    hand.wait(2.0)
    hand.lose()
    hand.running.result()
    # The words are of who gave up, the rest is the last connection's.
    end = Closed(
        cause=CloseCause.REMOTE, code=None, reason=f"gave up after 2 attempts (3.0 s): {failed}"
    )
    assert hand.told()[-1] == end


def test_what_was_never_usable_is_not_replaced(make: Any) -> None:
    hand = make(ready=False)
    hand.lose()
    hand.running.result()
    assert isinstance(hand.opening.failure, ConnectFailedError)
    assert len(hand.pumps) == 1
    assert hand.told()[-1] == hand.end == Closed(cause=CloseCause.REMOTE, code=None, reason="")


def test_retry_now(make: Any) -> None:
    hand = make()
    hand.retry_now()
    hand.lose()
    hand.retry_now()
    hand.turn()
    assert len(hand.pumps) == 2
    assert hand.alarm is None


# ---- media


def with_media(hand: Hand, state: MediaState | None = None) -> None:
    """READY, and media flows or not."""
    hand.driver.ready("s-2" if len(hand.pumps) > 1 else "s-1")
    event = MediaStarted(track_id="v", kind=MediaKind.VIDEO)
    callbacks = hand.driver.engine_callbacks()
    callbacks.event(event if state is None else MediaStateChanged(state=state))


def test_media_that_failed_for_too_long_is_a_loss(make: Any) -> None:
    hand = make(config=ClientConfig(), ready=False)
    with_media(hand)
    hand.driver.engine_callbacks().event(MediaStateChanged(state=MediaState.FAILED))
    hand.wait(4.9)
    assert hand.core.usable
    hand.wait(0.2)
    assert hand.driver.take() == [CloseTransport(code=1000, reason="media was lost")]
    assert hand.losses == 1
    hand.driver.lost(TransportClosedError(1000, ""))
    hand.turn()
    assert hand.told()[-1] == evolve(LOST, reason="no media for 5 s")
    assert hand.losses == 1


def test_media_that_fails_in_an_attempt_ends_the_attempt_once(make: Any) -> None:
    hand = make(config=ClientConfig(), ready=False)
    with_media(hand)
    hand.lose()
    hand.wait()
    with_media(hand, MediaState.FAILED)
    assert isinstance(hand.opening.failure, MediaError)
    assert hand.core.state is State.CLOSING
    assert hand.driver.take() == [CloseTransport(code=1000, reason="")]
    hand.driver.lost(TransportClosedError(1000, ""))
    hand.turn()
    told = hand.told()[-1]
    assert isinstance(told, Reconnecting)
    assert told.reason.startswith("no media connection")


# ---- m-lines that an offer of ours agreed on

HOLD = MediaLine(kind=MediaKind.VIDEO, direction=Direction.INACTIVE)
VIDEO, AUDIO = RECEIVE_MEDIA


def description(ufrag: str, *lines: str) -> str:
    """SDP with these m-lines, such as ``video sendonly``."""
    text = ["v=0"]
    for mid, line in enumerate(lines):
        kind, direction = line.split()
        text += [
            f"m={kind} 9 UDP/TLS/RTP/SAVPF 96",
            f"a=mid:{mid}",
            f"a={direction}",
            f"a=ice-ufrag:{ufrag}",
            "a=ice-pwd:" + "p" * 22,
            "a=fingerprint:sha-256 AA:BB",
        ]
    return "".join(f"{one}\r\n" for one in text)


def finish(hand: Hand, result: Any = None) -> Any:
    """The engine finishes its newest command, and gets to know the next."""
    hand.driver.engine_callbacks().done(hand.driver.commands[-1].op, result)
    return hand.driver.commands[-1]


def offered(hand: Hand, *lines: str) -> None:
    """The server offers, we answer, and media flows."""
    hand.driver.ready(f"s-{len(hand.pumps)}")
    hand.driver.received(codec.encode(Offer(sdp=description("far", *lines))))
    finish(hand)
    finish(hand)
    finish(hand, Answer(sdp=description("ours", *lines)))
    for event in (
        MediaStateChanged(state=MediaState.CONNECTED),
        MediaStarted(track_id="a", kind=MediaKind.AUDIO),
    ):
        hand.driver.engine_callbacks().event(event)


def agree(hand: Hand, *media: MediaLine, lines: tuple[str, ...]) -> None:
    """We offer, and the server answers."""
    hand.send(Negotiate(media=media))
    ours = Offer(sdp=description("ours", *lines))
    finish(hand, ours)
    hand.driver.received(codec.encode(Answer(sdp=description("far", *lines))))
    finish(hand, ours)
    finish(hand)
    assert hand.core.negotiation_state is negotiation.State.STABLE


BOTH = ("video sendonly", "audio sendonly")


def test_what_an_answer_can_say_is_answered(make: Any) -> None:
    hand = make(config=ClientConfig(), ready=False)
    offered(hand, *BOTH)
    agree(hand, HOLD, AUDIO, lines=("video inactive", "audio sendonly"))
    hand.lose()
    hand.wait()
    offered(hand, *BOTH)
    assert hand.configs[1].media == (HOLD, AUDIO)
    (opened,) = [one for one in hand.driver.commands if isinstance(one, OpenPeer)]
    assert opened.media == (HOLD, AUDIO)
    assert not [one for one in hand.driver.commands if isinstance(one, CreateOffer)]
    assert isinstance(hand.told()[-1], Reconnected)


def test_what_an_answer_cannot_say_is_offered_again(make: Any) -> None:
    hand = make(config=ClientConfig(), ready=False)
    offered(hand, *BOTH)
    agree(hand, VIDEO, AUDIO, VIDEO, lines=(*BOTH, "video sendonly"))
    hand.lose()
    for _ in range(2):
        hand.wait()
        offered(hand, *BOTH)
        assert hand.driver.commands[-1] == CreateOffer(
            op=hand.driver.commands[-1].op, media=(VIDEO, AUDIO, VIDEO)
        )
        # Once for each connection, and also for the next one if it came to nothing.
        hand.driver.engine_callbacks().failed(hand.driver.commands[-1].op, "broken")
        hand.driver.engine_callbacks().event(MediaStateChanged(state=MediaState.CONNECTED))
        assert sum(isinstance(one, CreateOffer) for one in hand.driver.commands) == 1
        hand.clock.advance(20.0)
        hand.lose()


def test_who_negotiates_first_is_not_offered_over(make: Any) -> None:
    hand = make(config=ClientConfig(), ready=False)
    offered(hand, *BOTH)
    agree(hand, VIDEO, AUDIO, VIDEO, lines=(*BOTH, "video sendonly"))
    hand.lose()
    hand.wait()
    hand.driver.ready("s-2")
    hand.send(Negotiate(media=(AUDIO,)))
    hand.driver.engine_callbacks().event(MediaStateChanged(state=MediaState.CONNECTED))
    assert hand.core.wishes == 1


# ---- who waits


def say(text: str) -> SayText:
    return SayText(text=text, respond=False)


def test_who_waits_for_room_on_a_lost_connection_is_told(make: Any) -> None:
    hand = make()
    hand.crank(hand.room()).result()
    hand.send(say("x" * OUTGOING_HIGH_WATER))
    waiting = hand.crank(hand.room())
    assert not waiting.turn()
    hand.lose()
    with pytest.raises(SessionLostError, match="another is being opened"):
        waiting.result()


def test_who_waits_for_room_while_the_server_says_goodbye_is_told(make: Any) -> None:
    hand = make()
    hand.send(say("x" * OUTGOING_HIGH_WATER))
    waiting = hand.crank(hand.room())
    hand.driver.received(GOODBYE)
    for message in hand.driver.take():
        if isinstance(message, SendText):
            hand.driver.sent(message)
    with pytest.raises(SessionLostError):
        waiting.result()


def test_who_comes_while_it_is_lost_waits_for_the_next_connection(make: Any) -> None:
    hand = make()
    losses = hand.losses
    hand.check_up()
    hand.driver.received(GOODBYE)
    # From the moment that the old one takes nothing more.
    assert hand.losses == losses + 1
    with pytest.raises(SessionLostError):
        hand.check_kept(losses)
    hand.check_kept(losses + 1)
    with pytest.raises(SessionLostError):
        hand.check_up()
    with pytest.raises(SessionLostError):
        hand.send(say("Hello?"))
    waiting = [hand.crank(hand.room()) for _ in range(2)]
    hand.lose()
    with pytest.raises(SessionLostError):
        hand.send(say("Hello?"))
    hand.wait()
    assert not any(one.turn() for one in waiting)
    hand.driver.ready()
    for one in waiting:
        one.result()
    assert hand.losses == losses + 1
    hand.check_up()


def test_who_comes_in_an_attempt_that_fails_waits_on(make: Any) -> None:
    hand = make()
    hand.lose()
    hand.wait()
    waiting = hand.crank(hand.room())
    hand.driver.ready()
    hand.lose()
    assert not waiting.turn()
    hand.wait(2.0)
    hand.driver.ready()
    waiting.result()


def test_who_waits_learns_of_the_end(make: Any) -> None:
    hand = make()
    hand.lose()
    waiting = hand.crank(hand.room())
    closing = hand.crank(hand.close(1000, "enough"))
    hand.turn()
    closing.result()
    with pytest.raises(SessionClosedError) as caught:
        waiting.result()
    assert not isinstance(caught.value, SessionLostError)
    hand.check_up()
    hand.check_kept(-1)
    for intent in (say("Hello?"), Close()):
        with pytest.raises(SessionClosedError) as caught:
            hand.send(intent)
        assert not isinstance(caught.value, SessionLostError)


def test_what_the_core_refuses_is_refused(make: Any) -> None:
    hand = make()
    with pytest.raises(LocalProtocolError):
        hand.send(Negotiate(media=(MediaLine(kind=MediaKind.VIDEO),)))
    with pytest.raises(LocalProtocolError):
        hand.send(SendAudio(pcm=b"\0"))


# ---- frames


class Frames:
    """Two frames of a connection; then the end, once :attr:`over` is set."""

    def __init__(self, name: str, flag: Any) -> None:
        self.frames = [f"{name} 1", f"{name} 2"]
        self.over = flag()

    def __aiter__(self) -> Frames:
        return self

    async def __anext__(self) -> str:
        if not self.frames:
            await self.over.wait()
            raise StopAsyncIteration
        return self.frames.pop(0)


def test_frames_of_one_connection_after_the_other(make: Any, flag: Any) -> None:
    hand = make()
    opened: list[Frames] = []

    def open_frames() -> Frames:
        opened.append(Frames(f"connection {len(hand.pumps)}", flag))
        return opened[-1]

    frames = hand.renewed(open_frames)
    early = [hand.crank(anext(frames)).result() for _ in range(2)]
    waiting = hand.crank(anext(frames))
    hand.lose()
    opened[0].over.set()
    assert not waiting.turn()
    hand.wait()
    # One that is asked for while it is lost waits as well.
    late = hand.renewed(open_frames)
    also = hand.crank(anext(late))
    hand.driver.ready()
    assert [*early, waiting.result(), also.result()] == [
        "connection 1 1",
        "connection 1 2",
        "connection 2 1",
        "connection 2 1",
    ]
    assert len(opened) == 3
    hand.crank(late.aclose()).result()
    with pytest.raises(StopAsyncIteration):
        hand.crank(anext(late)).result()
    assert hand.crank(anext(frames)).result() == "connection 2 2"
    last = hand.crank(anext(frames))
    opened[1].over.set()
    assert not last.turn()
    hand.crank(hand.close())
    hand.driver.lost(TransportClosedError(1000, ""))
    with pytest.raises(StopAsyncIteration):
        last.result()


class CountedFrames(Frames):
    """The same, which knows what it was closed with."""

    lost: list[str] | None = None

    async def aclose(self) -> None:
        self.lost, self.frames = self.frames, []


def test_what_a_slow_reader_left_of_a_lost_connection(make: Any, flag: Any) -> None:
    """It is there until the next one is usable."""
    hand = make()
    opened: list[CountedFrames] = []

    def open_frames() -> CountedFrames:
        opened.append(CountedFrames(f"connection {len(hand.pumps)}", flag))
        return opened[-1]

    slow, slower = hand.renewed(open_frames), hand.renewed(open_frames)
    for frames in (slow, slower):
        assert hand.crank(anext(frames)).result() == "connection 1 1"
    hand.lose()
    assert hand.crank(anext(slow)).result() == "connection 1 2"
    hand.wait()
    assert opened[1].lost is None
    hand.driver.ready()
    assert hand.crank(anext(slow)).result() == "connection 2 1"
    assert hand.crank(anext(slower)).result() == "connection 2 1"
    assert [one.lost for one in opened] == [[], ["connection 1 2"], None, None]
    hand.crank(slow.aclose()).result()
    assert opened[2].lost == ["connection 2 2"]


def test_who_follows_is_told_of_each_connection_that_was_started(make: Any) -> None:
    hand = make()
    first = hand.driver
    seen: list[Any] = []
    stop = hand.follow(lambda: seen.append(hand.driver))
    first.follow(lambda: seen.append("a pump has no successor"))()
    assert seen == []
    hand.lose()
    assert seen == []
    hand.wait()
    second = hand.driver
    assert seen == [second] != [first]
    second.ready()
    stop()
    hand.lose()
    hand.wait(5.0)
    assert hand.driver is not second
    assert seen == [second]


# ---- the end


def test_closing_while_an_attempt_is_waited_for(make: Any) -> None:
    hand = make()
    hand.lose()
    with pytest.raises(LocalProtocolError):
        hand.crank(hand.close(1)).result()
    closing = hand.crank(hand.close(3001, "enough"))
    again = hand.crank(hand.close(3002, "more"))
    hand.turn()
    closing.result()
    again.result()
    hand.running.result()
    assert hand.told() == [LOST, ours("enough", None)]
    assert len(hand.pumps) == 1


def test_closing_while_a_transport_is_opened(make: Any) -> None:
    hand = make()
    hand.door.clear()
    hand.lose()
    hand.wait()
    assert len(hand.configs) == 2
    closing = hand.crank(hand.close(1000, "enough"))
    hand.turn()
    closing.result()
    assert hand.told() == [LOST, ours("enough", None)]
    assert len(hand.pumps) == 1


def test_closing_just_after_a_transport_was_opened(make: Any, flag: Any) -> None:
    hand = make()

    async def start(driver: Any) -> None:
        await starting.wait()
        driver.give(TransportOpened())

    starting = flag()
    hand.start = start
    hand.lose()
    hand.wait()
    # The engine is being started: the transport is open, and its driver does not run.
    closing = hand.crank(hand.close(1000, "enough"))
    starting.set()
    hand.turn()
    closing.result()
    hand.running.result()
    assert hand.told() == [LOST, ours("enough", None)]


def test_closing_in_an_attempt(make: Any) -> None:
    hand = make()
    hand.lose()
    hand.wait()
    hand.send(Close(code=3001, reason="enough"))
    assert hand.driver.take() == [CloseTransport(code=3001, reason="enough")]
    hand.driver.lost(TransportClosedError(3001, "enough"))
    hand.turn()
    hand.running.result()
    assert hand.end == ours("enough", 3001)


def test_closing_while_the_lost_connection_is_cleared_away(make: Any) -> None:
    hand = make()
    hand.driver.lost(CUT)
    closing = hand.crank(hand.close(1000, "enough"))
    hand.turn()
    closing.result()
    assert hand.told() == [LOST, ours("enough", None)]


def test_cancelled_while_an_attempt_is_waited_for(make: Any) -> None:
    hand = make()
    hand.lose()
    hand.running.cancel()
    # The end is that of the last connection: nobody closed the session.
    assert hand.told() == [LOST, Closed(cause=CloseCause.REMOTE, code=None, reason="")]


def test_cancelled_before_anything(make: Any) -> None:
    hand = make(ready=False)
    hand.driver.dropped = lambda: None
    hand.running.cancel()
    assert hand.end == ours(code=None)


# ---- what fails in us


class BrokenError(Exception):
    pass


def test_what_fails_while_a_connection_runs(make: Any) -> None:
    hand = make()
    hand.fail(BrokenError("tool runner"))
    hand.turn()
    with pytest.raises(BrokenError):
        hand.running.result()
    assert isinstance(hand.told()[-1], Closed)
    assert [type(error) for error in hand.failures] == [BrokenError]


def test_what_fails_while_an_attempt_is_waited_for(make: Any) -> None:
    hand = make()
    hand.lose()
    hand.fail(BrokenError("one"))
    hand.turn()
    with pytest.raises(BrokenError):
        hand.running.result()
    assert hand.told()[-1] == hand.end


def test_an_update_waits_for_no_room_of_what_waits_for_ready(make: Any) -> None:
    hand = make(config=ClientConfig(media=(), limits=Limits(queued_bytes=1000)))
    hand.send(SessionUpdate(session={"instructions": "x" * 2000}))
    hand.lose()
    hand.wait()
    hand.driver.ready()
    assert sent(hand.driver)[-1]["session"] == {"instructions": "x" * 2000}
    assert isinstance(hand.told()[-1], Reconnected)


def test_what_could_not_be_sent_again_as_one_message_is_refused(make: Any) -> None:
    hand = make(config=ClientConfig(media=(), limits=Limits(client_message=1000)))
    update = SessionUpdate(session={"instructions": "x" * 600})
    config = InputConfig(prompt="y" * 600)
    tools = InputConfig(tools=({"type": "function", "name": "z" * 600},))
    hand.send(update)
    hand.send(config)
    hand.driver.take()
    for one_more in (SessionUpdate(session={"voice": "x" * 600}), tools):
        with pytest.raises(LocalProtocolError, match="over the limit of 1000"):
            hand.send(one_more)
    assert hand.driver.take() == []
    # Nothing of it was taken: the next connection begins as if it had never been asked for.
    hand.send(SessionUpdate(session={"voice": "cedar"}))
    hand.lose()
    hand.wait()
    hand.driver.ready()
    said = sent(hand.driver)
    assert json.loads(said[0]["data"]["content"]) == {"prompt": "y" * 600}
    assert said[-1]["session"] == {"instructions": "x" * 600, "voice": "cedar"}


def test_several_things_that_fail_while_a_transport_is_opened(make: Any) -> None:
    hand = make()
    hand.door.clear()
    hand.lose()
    hand.wait()
    hand.fail(BrokenError("one"))
    hand.fail(BrokenError("two"))
    hand.turn()
    with pytest.raises(ExceptionGroup) as caught:
        hand.running.result()
    assert len(caught.value.exceptions) == 2


def test_a_failure_just_after_a_transport_was_opened(make: Any, flag: Any) -> None:
    hand = make()

    async def start(driver: Any) -> None:
        driver.give(TransportOpened())
        hand.fail(BrokenError("meanwhile"))

    hand.start = start
    hand.lose()
    hand.wait()
    assert hand.driver.take() == [CloseTransport(code=1000, reason="")]
    hand.driver.lost(TransportClosedError(1000, ""))
    hand.turn()
    with pytest.raises(BrokenError, match="meanwhile"):
        hand.running.result()


def test_a_timer_that_fails(make: Any) -> None:
    hand = make()
    hand.broken_rearm = True
    hand.timeout(now=hand.clock.now)
    hand.broken_rearm = False
    hand.turn()
    with pytest.raises(ZeroDivisionError):
        hand.running.result()


def test_an_observer_that_raises_ends_it(hand_pump: Any, crank: Any, flag: Any) -> None:
    def observe(event: Event) -> None:
        seen.append(event)
        if isinstance(event, Reconnecting):
            raise BrokenError("observer")

    seen: list[Event] = []
    hand = Hand(hand_pump, crank, flag, observe=observe)
    hand.driver.ready()
    hand.lose()
    with pytest.raises(BrokenError):
        hand.running.result()
    assert isinstance(seen[-1], Closed)
    assert hand.told()[-1] == hand.end == seen[-1]


# ---- a reader that does not read


def test_a_reader_that_does_not_read_keeps_no_more_than_twice_the_high_water(make: Any) -> None:
    hand = make(policy=evolve(POLICY, give_up_after=None))
    reader = aiter(hand.events)
    hand.errors += [NOBODY] * (2 * EVENTS_HIGH_WATER + 10)
    hand.lose()
    while hand.errors:
        hand.wait(4.0)
    assert len(hand.events) == 2 * EVENTS_HIGH_WATER
    assert hand.events.dropped > 0
    # The next connection is held back until it reads.
    hand.wait(4.0)
    assert not hand.crank(EventBuffer.room(hand.events)).done
    assert isinstance(hand.crank(anext(reader)).result(), Reconnecting)


def test_what_is_measured_is_the_newest_connections(make: Any) -> None:
    hand = make()
    waits: list[Any] = []
    hand.driver.await_answer = waits.append
    hand.driver.media_stats = lambda: "the driver's"
    hand.await_answer(None)
    assert waits == [None]
    assert hand.media_stats() == "the driver's"
