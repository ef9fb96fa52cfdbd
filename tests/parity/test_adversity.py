"""What a hostile network or server does to a session that reconnects, at the worst moments.

Each scenario is played on both loops. After each no task is left, and every transport is closed.
"""

from __future__ import annotations

from base64 import b64decode
from contextlib import suppress
from typing import Any

import anyio
import pytest
from attrs import evolve
from door import (
    AUDIO,
    POLICY,
    VIDEO,
    Door,
    Play,
    again,
    back,
    closed,
    media,
    ready,
    said,
    texts,
    told,
    until,
)

from navtalk_proto import SessionLostError
from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import ConnectTimeoutError, MediaError, SessionClosedError
from navtalk_proto.events import (
    AnswerIgnored,
    Negotiated,
    Reconnected,
    Reconnecting,
)
from navtalk_proto.history import CallEntry, HumanTurn
from navtalk_proto.media import MediaState, MediaStateChanged
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import (
    Answer,
    AudioAppend,
    ConnectedClose,
    ConnectedSuccess,
    FunctionCallDone,
    InputTranscript,
    Offer,
    SessionUpdate,
    TranscriptDelta,
    TranscriptDone,
)


async def burst(stage: Any, *messages: Any) -> None:
    """The far end says it all before anything of it is read, as far as it can."""
    with suppress(TransportClosedError):
        for message in messages:
            await stage.peer.say(message)


# ---- at the worst moment


def test_the_connection_is_lost_with_the_last_word_of_the_opening(play_apart: Play) -> None:
    """connect() returns: it was usable. What follows is a loss like any other."""

    async def far(stage: Any, door: Door) -> None:
        while not door.pairs:
            await stage.idle()
        await burst(stage, *ready(1))
        stage.near.lose()
        await door.visitor(2)
        await burst(stage, *ready(2))
        stage.near.lose()
        await door.visitor(3, *ready(3))

    async def body(session: Any, stage: Any) -> None:
        while True:
            with suppress(SessionLostError):
                await session.send_text("Hello!", respond=False)
                break
        while session.id != "s-3":
            await stage.idle(0.1)

    for trace in play_apart(far, body):
        assert texts(trace.sent[2]) == ["Hello!"]


def test_an_attempt_that_begins_at_the_last_moment_counts(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, *ready(2))
        await stage.idle(1)

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    trace = play(far, body, reconnect=evolve(POLICY, give_up_after=1.0))
    assert said(trace) == [again(1, 1.0), back(2)]


def test_it_is_lost_in_each_second_and_the_history_stays_whole(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        for number in range(1, 6):
            await door.visitor(number, *ready(number))
            await stage.say(InputTranscript(content=f"heard {number}"))
            await stage.say(TranscriptDelta(response_id="r1", content=f"answer {number}"))
            await stage.lose()
        await door.visitor(6, *ready(6))

    async def body(session: Any, stage: Any) -> None:
        for number in range(1, 6):
            if number > 1:
                await until(session, Reconnected, stage)
            await session.send_text(f"typed {number}", respond=False)
            await until(session, Reconnecting, stage)
        await until(session, Reconnected, stage)
        for entry in session.history:
            stage.note(f"{type(entry).__name__} {entry.text}")

    trace = play(far, body, history=["Before."])
    everything = ["Before."]
    for number, sent in enumerate(trace.sent, 1):
        # All that was said before this connection, once, and in the order in which it was said.
        assert texts(sent)[: len(everything)] == everything
        assert texts(sent)[len(everything) :] == ([f"typed {number}"] if number < 6 else [])
        everything += told_by_user(trace, number)
    humans = [note for note in trace.notes if note.startswith("HumanTurn")]
    assert humans == [f"HumanTurn answer {number}" for number in range(1, 6)], "one for each loss"


def told_by_user(trace: Any, number: int) -> list[str]:
    notes = [note.removeprefix("UserTurn ") for note in trace.notes if note.startswith("UserTurn")]
    return [note for note in notes if note.endswith(str(number))]


def test_an_answer_with_the_lost_ones_id_is_another_answer(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1), TranscriptDelta(response_id="r1", content="It is "))
        await stage.lose()
        await door.visitor(2, *ready(2), TranscriptDelta(response_id="r1", content="noon."))
        await stage.say(TranscriptDone(response_id="r1"))
        await stage.idle(5)

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)
        await stage.idle(4)
        stage.note(repr([e.text for e in session.history if isinstance(e, HumanTurn)]))

    trace = play(far, body)
    assert repr(["It is ", "noon."]) in trace.notes


def test_what_comes_after_a_goodbye_is_not_done(play: Play) -> None:
    called: list[str] = []

    async def act() -> str:
        """Act."""
        called.append("act")
        return "done"

    call = FunctionCallDone(call_id="c1", name="act", arguments="{}")

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await burst(stage, ConnectedClose(message="Session timeout"), call)
        await stage.idle(0.5)
        await door.visitor(2, *ready(2))

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)
        stage.note(repr([e for e in session.history if isinstance(e, CallEntry)]))

    trace = play(far, body, tools=[act])
    assert called == []
    assert "[]" in trace.notes


# ---- what was under way


def test_a_wish_of_the_lost_session_is_not_offered_in_the_next(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        await stage.idle(1)
        await stage.lose()
        await door.visitor(2)
        await media(stage, 2)
        await stage.idle(1)

    async def body(session: Any, stage: Any) -> None:
        with pytest.raises(SessionLostError):
            await session.negotiate(VIDEO, AUDIO, AUDIO)
        await until(session, Reconnected, stage)
        await stage.idle(0.5)

    trace = play(far, body, media=True)
    offers = [[m for m in sent if m["type"] == Offer.TYPE] for sent in trace.sent]
    assert list(map(len, offers)) == [1, 0]


def test_a_piece_of_voice_that_was_held_is_not_said_in_the_next_session(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.idle(0.005)
        await stage.lose()
        await door.visitor(2, *ready(2))
        await stage.idle(1)

    async def body(session: Any, stage: Any) -> None:
        await session.send_audio(b"\1\1" * 100)  # Less than a frame.
        await until(session, Reconnected, stage)
        await session.send_audio(b"\2\2" * 100)
        await stage.idle(0.5)

    trace = play(far, body)
    voice = [
        b64decode(message["data"]["audio"])
        for message in trace.sent[1]
        if message["type"] == AudioAppend.TYPE
    ]
    assert set(b"".join(voice)) == {2}


def test_a_text_that_waited_is_said_once_however_often_it_is_lost(play_apart: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        for number in (2, 3):
            await door.visitor(number)
            await burst(stage, *ready(number))
            stage.near.lose()
        await door.visitor(4, *ready(4))
        await stage.idle(1)

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        while True:
            with suppress(SessionLostError):
                await session.send_text("Hello?", respond=False)
                break
        while session.id != "s-4":
            await stage.idle(0.1)

    for trace in play_apart(far, body):
        assert texts(trace.sent[3]) == ["Hello?"]


def test_an_update_is_sent_again_once(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, *ready(2))
        await stage.lose()
        await door.visitor(3, *ready(3))
        await stage.idle(1)

    async def body(session: Any, stage: Any) -> None:
        await session.update(a=1)
        await until(session, Reconnecting, stage)
        await session.update(b=2)
        await until(session, Reconnected, stage)
        await until(session, Reconnected, stage)

    trace = play(far, body)
    updates = [
        [m["session"] for m in sent if m["type"] == SessionUpdate.TYPE] for sent in trace.sent
    ]
    assert updates == [[{"a": 1}], [{"a": 1}, {"b": 2}], [{"a": 1, "b": 2}]]


# ---- an application that interferes


def test_an_observer_that_retries_at_once(play: Play) -> None:
    sessions: list[Any] = []

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()
        await door.visitor(2, *ready(2))
        await stage.idle(1)

    async def body(session: Any, stage: Any) -> None:
        sessions.append(session)
        await until(session, Reconnected, stage)

    def observe(event: Any) -> None:
        if isinstance(event, Reconnecting):
            sessions[-1].retry_now()

    trace = play(far, body, observe=observe)
    assert trace.knocks[1] == pytest.approx(0.004, abs=0.01), "it did not wait"
    assert said(trace) == [again(1, 1.0), back(2)]


def test_an_application_that_fails_at_the_loss(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        raise ValueError("mine")

    trace = play(far, body)
    assert (trace.error.name, trace.error.text) == ("ValueError", "ValueError: mine")
    assert len(trace.knocks) == 1


def test_many_close_while_the_next_connection_hangs(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1, *ready(1))
        door.stuck = True
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnecting, stage)
        await stage.idle(2)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(session.close)
            with pytest.raises(SessionClosedError):
                await session.send_text("Hello?")
        await stage.read_all(session)

    trace = play(far, body)
    assert said(trace) == [again(1, 1.0), closed(code=None)]


# ---- servers


def test_a_server_that_talks_nonsense_is_not_hammered(play_apart: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        for number in range(1, 6):
            await door.visitor(number, *ready(number))
            await burst(stage, *(["nonsense"] * 40))
            await stage.idle()

    async def body(session: Any, stage: Any) -> None:
        await stage.read_all(session)

    for trace in play_apart(far, body, reconnect=evolve(POLICY, give_up_after=10.0)):
        # After 1, 2 and 4 seconds, and at the last moment.
        assert trace.knocks == pytest.approx([0.0, 1.0, 3.0, 7.0, 10.0], abs=0.1)
        assert "gave up after 4 attempts" in said(trace)[-1]


def test_a_server_that_opens_and_is_silent_keeps_to_the_deadline(play: Play) -> None:
    """connect() raises in its time, also when the closing handshake is not answered either."""

    async def far(stage: Any, door: Door) -> None:
        while not door.pairs:
            await stage.idle()
        stage.mute()
        await stage.say(ConnectedSuccess(session_id="s-1"))

    trace = play(far, timeout=5.0, config=ClientConfig(close_timeout=2.0))
    assert trace.error.name == ConnectTimeoutError.__name__
    assert trace.error.time == pytest.approx(7.0, abs=0.01)
    assert len(trace.knocks) == 1


# ---- negotiation


def closes_by_itself(stage: Any) -> None:
    """The peer connection of the client ends."""
    engine = stage.engines[-1]
    engine.strict.close_by_itself()
    engine.event(engine.strict.events.pop())


async def heard(stage: Any, kind: type) -> Any:
    while not isinstance(message := await stage.peer.hear(object), kind):
        pass
    return message


def test_an_answer_to_an_offer_that_was_lost_with_its_peer_connection(play: Play) -> None:
    """Told, ignored, and media is back without another session."""

    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        first = await heard(stage, Offer)
        closes_by_itself(stage)
        second = await heard(stage, Offer)
        late = stage.peer.answer(first)
        stage.peer.engine.close_by_itself()
        stage.peer.engine.peers += 1
        stage.peer.engine.signaling = type(stage.peer.engine.signaling).STABLE
        await stage.say(late, stage.peer.answer(second))
        await stage.idle(30)

    async def body(session: Any, stage: Any) -> None:
        with pytest.raises(MediaError, match="the peer connection was closed"):
            await session.negotiate(VIDEO, AUDIO)
        await session.negotiate(VIDEO, AUDIO)
        stage.note(session._pump.core.media_state.value)
        await stage.idle(20)

    trace = play(far, body, media=True)
    assert "connected" in trace.notes
    assert len(trace.knocks) == 1
    assert trace.events.split().count(AnswerIgnored.__name__) == 1


def test_a_transport_that_never_comes_up_is_a_loss(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        stage.engines[-1].strict.connects = False
        await stage.say(stage.peer.offer())  # Of a new peer connection.
        stage.peer.take(await heard(stage, Answer))
        await door.visitor(2)
        await media(stage, 2)

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    trace = play(far, body, media=True)
    assert said(trace) == [again(1, 1.0, "no media for 5 s"), back(2)]
    # 20 s for ICE and DTLS, 5 s in which media may come all the same, and the delay.
    assert trace.knocks[1] == pytest.approx(26.0, abs=0.05)
    failed = MediaStateChanged(state=MediaState.FAILED, reason="ICE took longer than 20 s")
    assert repr(failed) in told(trace, "MediaStateChanged")


def test_media_is_lost_and_the_close_is_not_answered(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        stage.mute()
        closes_by_itself(stage)
        await door.visitor(2)
        await media(stage, 2)

    async def body(session: Any, stage: Any) -> None:
        await until(session, Reconnected, stage)

    trace = play(far, body, media=True, config=ClientConfig(close_timeout=2.0))
    assert said(trace) == [again(1, 1.0, "no media for 5 s"), back(2)]
    # 5 s in which media may come back, 2 s for the close, and the delay.
    assert trace.knocks[1] == pytest.approx(8.0, abs=0.05)


def test_answers_that_answer_nothing_change_nothing(play: Play) -> None:
    async def far(stage: Any, door: Door) -> None:
        await door.visitor(1)
        await media(stage, 1)
        offer = await heard(stage, Offer)
        answer = stage.peer.answer(offer)
        wrong = answer.sdp.replace("a=mid:0", "a=mid:9")
        for _ in range(20):
            await stage.say(Answer(sdp=wrong))
        await stage.say(*[answer] * 20)

    async def body(session: Any, stage: Any) -> None:
        await session.negotiate(VIDEO, AUDIO)
        await stage.idle(1)
        stage.note(session._pump.core.negotiation_state.value)

    trace = play(far, body, media=True)
    assert "stable" in trace.notes
    assert trace.events.split().count(Negotiated.__name__) == 2
    assert trace.events.split().count(AnswerIgnored.__name__) == 39
    assert trace.end[0] == "1000"
