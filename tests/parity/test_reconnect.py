"""Sessions that are lost and opened again, the same on both loops. The far end is a door."""

from __future__ import annotations

import json
from base64 import b64decode
from contextlib import suppress
from typing import Any

import anyio
import pytest
from attrs import evolve
from door import (
    AUDIO,
    LOST,
    POLICY,
    VIDEO,
    Door,
    Play,
    again,
    back,
    closed,
    content,
    door,
    media,
    opening,
    ready,
    said,
    texts,
    until,
)

from navtalk_proto import SessionLostError
from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import (
    ConnectionLimitExceededError,
    InsufficientBalanceError,
    LocalProtocolError,
    SessionClosedError,
)
from navtalk_proto.events import (
    CloseCause,
    Closed,
    FunctionCall,
    Negotiated,
    Reconnected,
    Reconnecting,
    UserTurn,
)
from navtalk_proto.history import CallEntry
from navtalk_proto.intents import Close
from navtalk_proto.limits import Limits
from navtalk_proto.media import MediaKind, MediaState, MediaStateChanged
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import (
    Answer,
    AudioAppend,
    AudioClear,
    BackendError,
    ConnectedClose,
    ConnectedFail,
    ConnectionLimitExceeded,
    FunctionCallDone,
    GpuFull,
    InputConfig,
    InputFunctionCall,
    InputTranscript,
    InsufficientBalance,
    Offer,
    ResponseCreate,
    SessionUpdate,
    UserMessage,
)

# ---- what is kept


def test_a_lost_session_is_opened_again_with_all_that_was_said(play: Play) -> None:
    async def clock() -> str:
        """The time."""
        return "noon"

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1), InputTranscript(content="My name is Ana."))
        await stage.idle(20)
        await stage.lose()
        await door.visitor(2, *ready(2), InputTranscript(content="What is my name?"))

    async def body(session: Any, stage: Any) -> None:
        await session.send_text("Hello!", respond=False)
        await until(session, Reconnecting, stage)
        assert session.id == "s-1"
        event = await until(session, UserTurn, stage)
        assert event == UserTurn(text="What is my name?")
        assert (session.id, session.end) == ("s-2", None)
        stage.note(repr(session.history.snapshot()))
        await session.send_text("Still there?", respond=False)
        await session.close()
        await stage.read_all(session)

    trace = play(far, body, voice="cedar", prompt="Be brief.", tools=[clock], history=["Before."])
    assert trace.knocks == [0.0, 21.004]
    assert said(trace) == [again(1, 1.0), back(2), closed()]
    first, second = trace.sent
    # Configuration, tools and history are the first that the new server hears.
    assert second[:2] == first[:2]
    assert [message["type"] for message in second[:2]] == [InputConfig.TYPE, InputFunctionCall.TYPE]
    assert content(second[0]) == {"voice": "cedar", "prompt": "Be brief."}
    assert texts(first) == ["Before.", "Hello!"]
    assert texts(second) == ["Before.", "Hello!", "My name is Ana.", "Still there?"]
    turns = ["Before.", "Hello!", "My name is Ana.", "What is my name?"]
    typed = (True, True, False, False)
    history = tuple(UserTurn(text=t, typed=by) for t, by in zip(turns, typed, strict=True))
    assert repr(history) in trace.notes
    assert trace.names("event").count("Closed") == 2
    assert trace.names("read").count("Closed") == 1
    assert trace.read.split()[-1] == "Closed"


def test_what_was_configured_later_is_configured_again(play: Play) -> None:
    async def later() -> str:
        """Later."""
        return "later"

    async def far(stage: Any, door: Door) -> None:
        for number in (1, 2, 3):
            await door.visitor(number, *ready(number))
            await stage.idle(20)
            if number < 3:
                await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await session.configure(voice="marin")
        await session.configure(prompt="Be kind.", tools=[later])
        await session.update(instructions="Be kind.", turn_detection=None)
        await session.update(instructions="Be brief.")
        await until(session, Reconnected, stage)
        await session.send(InputFunctionCall(tools=()))
        await until(session, Reconnected, stage)

    trace = play(far, body, voice="cedar", tools=[{"type": "function", "name": "at_first"}])
    _, second, third = trace.sent
    config, update, _ = second
    assert config["type"] == InputConfig.TYPE
    assert content(config)["voice"] == "marin"
    assert content(config)["prompt"] == "Be kind."
    assert [tool["name"] for tool in content(config)["tools"]] == ["later"]
    # Servers take it from READY on.
    assert update["type"] == SessionUpdate.TYPE
    assert update["session"] == {"instructions": "Be brief.", "turn_detection": None}
    assert [message["type"] for message in third] == [
        InputConfig.TYPE,
        InputFunctionCall.TYPE,
        SessionUpdate.TYPE,
    ]
    assert content(third[0]) == {"voice": "marin", "prompt": "Be kind."}
    assert content(third[1]) == []


def test_an_update_longer_than_what_may_wait_for_ready_is_sent_again(play: Play) -> None:
    """It leaves at READY, as it did the first time, and waits for no room before."""

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, *ready(2))

    async def body(session: Any, stage: Any) -> None:
        await session.update(instructions="x" * 3000)
        await until(session, Reconnected, stage)

    trace = play(far, body, config=ClientConfig(limits=Limits(queued_bytes=2000)))
    assert [message["session"] for message in trace.sent[1]] == [{"instructions": "x" * 3000}]


def test_an_update_that_could_not_be_sent_again_is_refused(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, *ready(2))

    async def body(session: Any, stage: Any) -> None:
        await session.update(instructions="x" * 600)
        with pytest.raises(LocalProtocolError) as caught:
            await session.update(voice="y" * 600)
        stage.note(str(caught.value))
        await until(session, Reconnected, stage)

    trace = play(far, body, config=ClientConfig(limits=Limits(client_message=1000)))
    assert "over the limit of 1000" in trace.notes[1]
    first, second = trace.sent
    assert first == second
    assert [message["session"] for message in second] == [{"instructions": "x" * 600}]


def test_m_lines_that_were_negotiated_are_offered_again(play: Play) -> None:
    """The server's own offer has no room for a second picture: it is asked for it again."""
    lines = (VIDEO, AUDIO, VIDEO)

    async def answered(stage: Any) -> None:
        await stage.say(stage.peer.answer(await stage.peer.hear(Offer)))

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        await answered(stage)
        await stage.lose()
        await door.visitor(2)
        await media(stage, 2)
        await answered(stage)

    async def body(session: Any, stage: Any) -> None:
        await session.negotiate(*lines)
        await until(session, Reconnected, stage)
        event = await until(session, Negotiated, stage)
        stage.note(repr(event))
        assert event.media == lines

    trace = play(far, body, media=True)
    offers = [
        [message["type"] for message in sent if message["type"] == Offer.TYPE]
        for sent in trace.sent
    ]
    assert offers == [[Offer.TYPE], [Offer.TYPE]]


def test_what_is_not_the_users_is_replayed_again(play: Play) -> None:
    system = UserMessage(texts=("You know Ana.",), role="system")

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, *ready(2))

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    trace = play(far, body, history=[system, "Hello."])
    assert texts(trace.sent[1]) == ["You know Ana.", "Hello."]


# ---- when it is lost


def goodbye(text: str) -> tuple[Any, str]:
    return ConnectedClose(message=text), f"the server ended the session: {text}"


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        goodbye("Session timeout"),
        (
            BackendError(message="inside"),
            "the server refused the session (backend_error): inside",
        ),
        (GpuFull(message=""), "the server refused the session (gpu_full): no text"),
    ],
    ids=["goodbye", "backend error", "gpu full"],
)
def test_an_end_by_the_server_is_a_loss(play: Play, says: Any, reason: str) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1), says)
        await stage.close()
        await door.visitor(2, *ready(2))

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    assert said(play(far, body)) == [again(1, 1.0, reason), back(2)]


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (lambda stage: stage.lose(), LOST),
        (lambda stage: stage.close(1001, "going away"), "the server closed with 1001: going away"),
    ],
    ids=["cut", "closed"],
)
def test_a_lost_websocket_is_a_loss(play: Play, lose: Any, reason: str) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await lose(stage)
        await door.visitor(2, *ready(2))

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    assert said(play(far, body)) == [again(1, 1.0, reason), back(2)]


def test_an_empty_account_ends_it_at_once(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1), InsufficientBalance(message="no credit"))
        await stage.close(1000, "Insufficient points")

    trace = play(far)
    assert said(trace) == [closed(CloseCause.REFUSED, 1000, "Insufficient points")]
    assert len(trace.knocks) == 1


def test_off_by_default(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        with pytest.raises(LocalProtocolError, match="without reconnect"):
            session.retry_now()
        await stage.read_all(session)

    for off in (None, False):
        trace = play(far, body, reconnect=off)
        assert said(trace) == [closed(CloseCause.REMOTE, None)]
        assert len(trace.knocks) == 1


def test_true_is_the_default_policy(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        event = await until(session, Reconnecting, stage)
        assert 0.25 <= event.delay < 0.5

    async def main(session: Any, stage: Any) -> None:
        async for event in session.events():
            if isinstance(event, Reconnecting):
                assert 0.25 <= event.delay < 0.5
                return

    play(far, main, reconnect=True)


def test_what_was_never_usable_is_not_opened_again(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1)[:2])
        await stage.lose()

    trace = play(far)
    assert trace.error.name == "ConnectFailedError"
    assert len(trace.knocks) == 1


def test_a_bad_argument_opens_nothing(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        door.stage.near.lose()
        await door.stage.near.aclose()

    trace = play(far, reconnect=5)
    assert trace.error.text == "TypeError: reconnect is a bool or a ReconnectPolicy, not int"
    assert trace.knocks == []


# ---- attempts


STATES = {
    "handshake": (),
    "welcoming": (),
    "opening": ready(2)[:1],
    "configuring": ready(2)[:2],
}


@pytest.mark.parametrize("state", STATES)
def test_the_server_dies_again_in_every_state(play: Play, state: str) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        door.shut = state == "handshake"
        await stage.lose()
        if state == "handshake":
            await stage.idle(2)
            door.shut = False
        else:
            await door.visitor(2, *STATES[state])
            await stage.lose()
        await door.visitor(len(door.pairs) + 1, *ready(3))

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)
        await session.send_text("Here.", respond=False)

    trace = play(far, body)
    first, second, third = said(trace)
    assert (first, third) == (again(1, 1.0), back(3, 2))
    reason = {
        "handshake": "nobody listens",
    }.get(state, f"the session ended before it was ready, in {state}: connection lost")
    assert second == again(2, 2.0, reason)
    assert texts(trace.sent[-1]) == ["Here."]


def test_it_dies_again_before_media_flows(play: Play) -> None:
    """READY is not enough: the session is back when media is."""

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        await stage.lose()
        await door.visitor(2, *ready(2))
        await stage.lose()
        await door.visitor(3)
        await media(stage, 3)

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)
        assert session.state.value == "ready"

    trace = play(far, body, media=True)
    reason = "the session ended before it was usable, by remote"
    assert said(trace) == [again(1, 1.0), again(2, 2.0, reason), back(3, 2)]
    assert "MediaStarted" in trace.read.split("Reconnected")[0].split("Reconnecting")[-1]


@pytest.mark.parametrize(
    "refusal",
    [
        GpuFull(message="none is free"),
        ConnectionLimitExceeded(message="one too many"),
        BackendError(message="inside"),
    ],
    ids=lambda refusal: refusal.TYPE,
)
def test_refusals_that_pass_are_waited_out(play: Play, refusal: Any) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, refusal)
        await door.visitor(3, *ready(3))

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    trace = play(far, body)
    assert [text.split("(")[0] for text in said(trace)] == [
        "Reconnecting",
        "Reconnecting",
        "Reconnected",
    ]
    assert refusal.message in said(trace)[1]
    assert "Refused" in trace.read


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (ConnectedFail(message="Invalid license key"), "fail"),
        (InsufficientBalance(message="no credit"), "insufficient_balance"),
    ],
    ids=["licence", "balance"],
)
def test_refusals_that_stay_end_it(play: Play, refusal: Any, kind: str) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, refusal)

    async def body(session: Any, stage: Any) -> None:
        await stage.read_all(session)
        assert session.end is not None
        for call in (session.send_text("?"), session.send_audio(b"\0\0"), session.negotiate(VIDEO)):
            with pytest.raises(SessionClosedError) as caught:
                await call
            assert not isinstance(caught.value, SessionLostError)
        session.retry_now()

    trace = play(far, body)
    text = f"the server refused the session ({kind}): {refusal.message}"
    end = closed(CloseCause.REFUSED, 1000, f"gave up after 1 attempt (1.0 s): {text}")
    assert said(trace) == [again(1, 1.0), end]
    assert len(trace.knocks) == 2


def test_a_refusal_that_no_connection_tells(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    async def refusing(stage: Any, endpoint: Any) -> Any:
        if len(door(stage).pairs) == 0:
            return await door(stage).opening(endpoint)
        raise InsufficientBalanceError("no credit")

    trace = play(far, transport=refusing)
    text = "the server refused the session (insufficient_balance): no credit"
    end = closed(CloseCause.REFUSED, None, f"gave up after 1 attempt (1.0 s): {text}")
    assert said(trace) == [again(1, 1.0), end]


def test_giving_up(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        door.shut = True
        await stage.lose()

    trace = play(far, reconnect=evolve(POLICY, give_up_after=10.0))
    # Attempts after 1, 2, 4 and, because the time is up then, 3 seconds.
    assert trace.knocks[1:] == [1.003, 3.003, 7.003, 10.003]
    assert [text.partition(", reason")[0] for text in said(trace)] == [
        "Reconnecting(attempt=1, delay=1.0",
        "Reconnecting(attempt=2, delay=2.0",
        "Reconnecting(attempt=3, delay=4.0",
        "Reconnecting(attempt=4, delay=3.0",
        closed(CloseCause.REMOTE, None, "nobody listens").partition(", reason")[0],
    ]
    assert "gave up after 4 attempts (10.0 s): nobody listens" in said(trace)[-1]


def test_a_handshake_that_hangs_is_an_attempt(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        door.stuck = True
        await stage.lose()

    trace = play(far, timeout=5.0, reconnect=evolve(POLICY, give_up_after=6.5))
    assert trace.knocks[1:] == [1.003, 6.503]
    assert said(trace)[-1].startswith("Closed(cause=<CloseCause.TIMEOUT: 'timeout'>, code=None")


def test_a_mute_server_is_an_attempt(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2)
        await door.visitor(3, *ready(3))

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    trace = play(far, body, timeout=5.0)
    waiting = "no usable session within 5 s: still waiting for connected.success"
    assert said(trace) == [again(1, 1.0), again(2, 2.0, waiting), back(3, 2)]


def test_retry_now(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        door.shut = True
        await stage.lose()
        await stage.idle(0.2)
        door.shut = False
        await door.visitor(2, *ready(2))

    async def body(session: Any, stage: Any) -> None:
        session.retry_now()  # Nothing waits.
        await until(session, Reconnecting, stage)
        session.retry_now()
        await until(session, Reconnecting, stage)
        await stage.idle(0.3)
        session.retry_now()
        await until(session, Reconnected, stage)

    trace = play(far, body)
    assert trace.knocks == [0.0, 0.003, 0.303]
    assert said(trace) == [again(1, 1.0), again(2, 2.0, "nobody listens"), back(2, 2)]


def test_a_session_that_flaps_is_not_hammered(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        for number, lasts in ((1, 1), (2, 1), (3, 1), (4, 60), (5, 1)):
            await door.visitor(number, *ready(number))
            await stage.idle(lasts)
            if number < 5:
                await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        for _ in range(4):
            await until(session, Reconnected, stage)

    trace = play(far, body)
    delays = [text for text in said(trace) if text.startswith("Reconnecting")]
    assert delays == [again(1, 1.0), again(2, 2.0), again(3, 4.0), again(1, 1.0)]


# ---- the end


@pytest.mark.parametrize("where", ["waiting", "handshake", "welcoming", "ready"])
def test_close_while_it_is_lost(play: Play, where: str) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        door.stuck = where == "handshake"
        await stage.lose()
        if where in ("welcoming", "ready"):
            await door.visitor(2, *(() if where == "welcoming" else ready(2)[:2]))

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        await stage.idle(0.5 if where == "waiting" else 1.1)
        started = stage.loop.time()
        with pytest.raises(LocalProtocolError, match="close code"):
            await session.close(1)
        await session.close(3001, "enough")
        assert stage.loop.time() - started < 0.01
        await stage.read_all(session)

    trace = play(far, body)
    code = None if where in ("waiting", "handshake") else 3001
    assert said(trace) == [again(1, 1.0), closed(CloseCause.LOCAL, code, "enough")]
    assert len(trace.knocks) == (1 if where == "waiting" else 2)


def test_an_intent_to_close_does_not_wait(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        await session.send(Close(reason="enough"))
        await stage.read_all(session)
        with pytest.raises(SessionClosedError):
            await session.send(Close())

    assert said(play(far, body)) == [again(1, 1.0), closed(CloseCause.LOCAL, None, "enough")]


def test_leaving_while_it_is_lost(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)

    trace = play(far, body)
    assert trace.notes == ["usable", "left"]
    assert len(trace.knocks) == 1


def test_a_close_that_crosses_the_servers(play: Play) -> None:
    """The server said goodbye, and while its connection closes the application leaves too."""

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        stage.mute()
        await stage.say(ConnectedClose(message="Session timeout"))

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(0.1)
        await session.close()
        await stage.read_all(session)

    trace = play(far, body)
    end = Closed(cause=CloseCause.REMOTE, code=1000, reason="", forced=True)
    assert said(trace) == [repr(end)]


@pytest.mark.parametrize("seconds", [0.5, 1.5, 4.0], ids=["waiting", "handshake", "waiting again"])
def test_cancelled_while_it_is_lost(play: Play, seconds: float) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        door.stuck = True
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await stage.read_all(session)

    trace = play(far, body, cancel_after=seconds, timeout=2.0)
    assert "cancelled" in trace.notes


# ---- what waits


def test_calls_that_wait_on_the_lost_session_are_told(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        await stage.idle(1)
        await stage.lose()
        await door.visitor(2)
        await media(stage, 2)

    async def body(session: Any, stage: Any) -> None:
        async def microphone() -> Any:
            yield b"\1\1" * 24_000
            await anyio.sleep(2)
            yield b"\2\2" * 2400

        async def line() -> None:
            async with session.voice_line() as line:
                await line.write(b"\3\3" * 24_000)
                with pytest.raises(SessionLostError):
                    await line.write(b"\3\3" * 48_000)
                assert line.dropped > 1
                await line.drain()
                await session._pump.room()
                await stage.idle(0.01)
                await line.write(b"\4\4" * 480)
                await line.drain()
                outcomes.append("the line goes on")

        async def lost(name: str, call: Any) -> None:
            with pytest.raises(SessionLostError):
                await call
            outcomes.append(f"{name}: told")

        outcomes: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lost, "negotiate", session.negotiate(VIDEO))
            await stage.idle(0.01)
            tasks.start_soon(lost, "say", session.say(microphone(), paced=False))
            await stage.idle(0.1)
            stage.near.stalled = True
            await session.send_text("x" * 300_000, respond=False)
            tasks.start_soon(lost, "text", session.send_text("never", respond=False))
            await stage.idle(0.01)
            tasks.start_soon(line)
        stage.note(", ".join(sorted(outcomes)))

    trace = play(far, body, media=True)
    assert trace.notes[1] == "negotiate: told, say: told, text: told, the line goes on"
    _, second = trace.sent
    assert "never" not in texts(second)
    # What was typed was said, as far as we know: it is history. The rest was for the lost session.
    assert texts(second) == ["x" * 300_000]
    appended = [message for message in second if message["type"] == AudioAppend.TYPE]
    voice = b"".join(b64decode(message["data"]["audio"]) for message in appended)
    assert set(voice) == {0, 4}


@pytest.mark.parametrize(
    ("call", "type"),
    [
        (lambda session: session.send_text("Hello?", respond=False), UserMessage.TYPE),
        (lambda session: session.send_audio(b"\1\1" * 480), AudioAppend.TYPE),
        (lambda session: session.send_audio(b"\1\1" * 480, paced=True), AudioAppend.TYPE),
        (lambda session: session.configure(voice="cedar"), InputConfig.TYPE),
        (lambda session: session.interrupt(), AudioClear.TYPE),
    ],
    ids=["text", "voice", "paced", "configure", "interrupt"],
)
def test_a_call_made_meanwhile_waits_for_the_new_session(play: Play, call: Any, type: str) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, *ready(2)[:1])
        await stage.idle(0.1)
        await stage.say(*ready(2)[1:])

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        await call(session)
        stage.note(session.id)
        with pytest.raises(LocalProtocolError):
            await session.answer("c1", "?")

    trace = play(far, body)
    assert trace.notes == ["usable", "s-2", "left"]
    first, second = trace.sent
    assert [message["type"] for message in second] == [type]
    assert first == []


def test_calls_that_wait_learn_of_the_end(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        door.shut = True
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        with pytest.raises(SessionClosedError) as caught:
            await session.send_text("Hello?")
        assert not isinstance(caught.value, SessionLostError)
        stage.note(str(caught.value))

    trace = play(far, body, reconnect=evolve(POLICY, give_up_after=2.0))
    why = "gave up after 2 attempts (2.0 s): nobody listens"
    assert trace.notes[1] == f"the session is over: {why}"


def test_a_call_in_the_servers_goodbye_waits_for_the_next_session(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        stage.mute()
        await stage.say(ConnectedClose(message="Session timeout"))
        await door.visitor(2, *ready(2))

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(0.1)
        assert session.state.value == "closing"
        await session.send_text("Hello?", respond=False)
        stage.note(session.id)

    trace = play(far, body)
    assert "s-2" in trace.notes
    assert texts(trace.sent[1]) == ["Hello?"]


# ---- tools


def test_calls_of_the_lost_session_are_never_answered(play: Play) -> None:
    async def slow(n: int) -> str:
        """Slow."""
        try:
            await anyio.sleep(5)
        except BaseException:
            ended.append(n)
            raise
        return f"done {n}"

    ended: list[int] = []
    hang_up = {"type": "function", "name": "hang_up"}

    def call(call_id: str, name: str, **arguments: Any) -> FunctionCallDone:
        return FunctionCallDone(call_id=call_id, name=name, arguments=json.dumps(arguments))

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1), call("c1", "slow", n=1), call("c2", "hang_up"))
        await stage.idle(1)
        await stage.lose()
        await door.visitor(2, *ready(2), call("c1", "slow", n=2))
        await stage.idle(6)

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        with pytest.raises(SessionLostError):
            await session.answer("c2", "bye")
        await until(session, FunctionCall, stage)
        with pytest.raises(LocalProtocolError):
            await session.answer("c2", "bye")
        await stage.idle(5.5)
        entries = [entry for entry in session.history if isinstance(entry, CallEntry)]
        stage.note(repr([(entry.call_id, entry.output) for entry in entries]))
        stage.note(f"{session.tools.counters.unanswered} unanswered")

    trace = play(far, body, tools=[slow, hang_up])
    assert ended == [1, 1]
    assert repr([("c1", None), ("c2", None), ("c1", "done 2")]) in trace.notes
    assert "1 unanswered" in trace.notes
    first, second = trace.sent
    assert [message["type"] for message in first] == [InputFunctionCall.TYPE]
    outputs = [message["item"]["output"] for message in second if "item" in message]
    assert outputs == ["done 2"]
    assert second[-1]["type"] == ResponseCreate.TYPE


# ---- media


def fails(stage: Any, state: MediaState = MediaState.FAILED) -> None:
    stage.engines[-1].event(MediaStateChanged(state=state, reason="no path"))


@pytest.mark.parametrize("state", [MediaState.FAILED, MediaState.CLOSED])
def test_media_that_does_not_come_back_is_a_loss(play: Play, state: MediaState) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        fails(stage, state)
        await door.visitor(2)
        await media(stage, 2)
        await stage.idle(1)
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)
        async for _ in session.video:
            pytest.fail("paper has no frames")
        stage.note("video ended")
        await stage.read_all(session)

    trace = play(far, body, media=True, reconnect=evolve(POLICY, give_up_after=0.5))
    assert said(trace) == [
        again(1, 0.5, "no media for 5 s"),
        back(2),
        # It was back for too short a time to count as a success, and the time was up.
        closed(CloseCause.REMOTE, None, f"gave up after 1 attempt (1.5 s): {LOST}"),
    ]
    assert trace.knocks[1] == pytest.approx(5.5, abs=0.02)
    assert "video ended" in trace.notes


def test_media_that_comes_back_is_none(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        fails(stage)
        await stage.idle(4)
        await stage.say(stage.peer.offer())
        stage.peer.take(await stage.peer.hear(Answer))
        await stage.idle(10)

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(12)

    trace = play(far, body, media=True)
    assert trace.end == ("1000", "")
    assert len(trace.knocks) == 1


def test_media_that_fails_in_an_attempt_ends_the_attempt(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        await stage.lose()
        await door.visitor(2, *ready(2))
        fails(stage)
        await door.visitor(3)
        await media(stage, 3)

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    trace = play(far, body, media=True)
    reason = "no media connection: no path; candidate pairs tried: none"
    assert said(trace) == [again(1, 1.0), again(2, 2.0, reason), back(3, 2)]


def test_frames_are_read_across_connections(play: Play) -> None:
    """One iterator, opened once: a gap, and then the new connection's frames, until the end."""

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        await stage.idle(1)
        await stage.lose()
        await door.visitor(2)
        await media(stage, 2)
        await stage.idle(2)
        await stage.lose()

    class Frames:
        """Two frames of an engine, then none until it is closed."""

        def __init__(self, engine: Any) -> None:
            self.engine = engine
            self.left = 2

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> str:
            if not self.left:
                await anext(self.engine.frames(MediaKind.VIDEO))
            self.left -= 1
            return f"frame of {self.engine.strict.name}"

    async def body(session: Any, stage: Any) -> None:
        frames = session._pump.renewed(lambda: Frames(session.engine))
        async for frame in frames:
            stage.note(frame)
        with pytest.raises(StopAsyncIteration):
            await anext(frames)

    trace = play(far, body, media=True, reconnect=evolve(POLICY, give_up_after=1.0))
    assert trace.notes == ["usable", *["frame of n0"] * 2, *["frame of n1"] * 2, "left"]


# ---- what fails in us


class BrokenError(Exception):
    pass


def test_an_observer_that_raises_ends_it(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    def observe(event: Any) -> None:
        if isinstance(event, Reconnecting):
            raise BrokenError("observer")

    trace = play(far, observe=observe)
    assert trace.error.text == "BrokenError: observer"
    assert len(trace.knocks) == 1


def test_an_engine_that_does_not_close_ends_it(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        stage.engines[0].aclose = stage.break_engine(BrokenError("engine"))
        await stage.lose()

    trace = play(far, media=True)
    assert trace.error.text == "BrokenError: engine"
    assert said(trace)[:1] == [again(1, 1.0)]
    assert len(trace.knocks) == 1


def test_a_transport_that_breaks_ends_it(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    async def breaking(stage: Any, endpoint: Any) -> Any:
        if len(door(stage).pairs) == 0:
            return await door(stage).opening(endpoint)
        raise BrokenError("transport")

    trace = play(far, transport=breaking)
    assert trace.error.text == "BrokenError: transport"
    assert said(trace)[0] == again(1, 1.0)


def test_a_tool_runner_that_breaks_while_it_is_lost_ends_it(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        await stage.idle(0.1)
        session._pump.fail(BrokenError("tool runner"))
        await stage.read_all(session)

    trace = play(far, body)
    assert trace.error.text == "BrokenError: tool runner"


# ---- nothing leaks, wherever it is cancelled


async def lose_and_come_back(stage: Any) -> None:
    visits = door(stage)
    refusals = [ConnectionLimitExceededError("one too many")]

    async def opened(stage: Any, endpoint: Any) -> Any:
        if len(visits.pairs) == 1 and refusals:
            raise refusals.pop()
        await anyio.sleep(0.1)
        return await visits.opening(endpoint)

    async def far() -> None:
        with suppress(TransportClosedError):
            await visits.visitor(1, *ready(1))
            await stage.idle(1)
            await stage.lose()
            await visits.visitor(2, *ready(2))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(far)
        async with stage.connect(media=False, transport=opened, reconnect=POLICY) as session:
            async for event in session.events():
                if isinstance(event, Reconnected):
                    break
            await session.send_text("Here.", respond=False)


async def lose_media_and_come_back(stage: Any) -> None:
    visits = door(stage)

    async def far() -> None:
        with suppress(TransportClosedError):
            await visits.visitor(1)
            await media(stage, 1)
            await stage.lose()
            await visits.visitor(2)
            await media(stage, 2)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(far)
        async with stage.connect(transport=opening, reconnect=POLICY) as session:
            async for event in session.events():
                if isinstance(event, Reconnected):
                    break


@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [(lose_and_come_back, 8), (lose_media_and_come_back, 5)],
    ids=["written", "media"],
)
def test_cancelled_at_every_suspension_point(matrix: Any, scenario: Any, at_least: int) -> None:
    assert matrix(scenario) >= at_least
