"""Turns and history, the same on both loops: what a session tells of what was said."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from attrs import evolve
from trio.testing import MockClock

import navtalk_asyncio
import navtalk_asyncio.testing
import navtalk_trio
import navtalk_trio.testing
from navtalk_proto import ClientConfig, EndpointError
from navtalk_proto.errors import LocalProtocolError, UnsupportedByProviderError
from navtalk_proto.events import ResponseText, ServerWarning, UserTurn
from navtalk_proto.history import CallEntry, Ending, History, HumanTurn
from navtalk_proto.session import TURNS_HIGH_WATER
from navtalk_proto.testing import ScriptedPeer
from navtalk_proto.wire.avatar_lookup import AvatarDetail
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import (
    AudioDone,
    ConnectedSuccess,
    ConnectedWarning,
    FunctionCallDone,
    InputFunctionCall,
    InputImage,
    InputTranscript,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    ToolResult,
    TranscriptDelta,
    TranscriptDone,
    UserMessage,
)

READY = (ConnectedSuccess(session_id="s-1"), SessionCreated(), SessionUpdated())
SEVEN = "At seven, in the hall."


def said(text: str) -> HumanTurn:
    return HumanTurn(text=text, heard=text)


def answer(response_id: str, text: str) -> tuple[Any, ...]:
    return (
        TranscriptDelta(response_id=response_id, content=text[:3]),
        TranscriptDone(response_id=response_id, content=text),
        AudioDone(),
    )


def spoken(text: str) -> tuple[Any, ...]:
    return (SpeechStarted(), SpeechStopped(), InputTranscript(content=text))


# ---- one scenario, one trace


def test_the_turns_of_both_speakers_in_the_order_in_which_they_finish(parity: Any) -> None:
    """A rate of ten characters a second: SEVEN takes 2.2 s, and is interrupted after one."""
    found: list[tuple[Any, ...]] = []

    async def far(stage: Any) -> None:
        await stage.say(*READY, *spoken("When is breakfast?"), *answer("r1", SEVEN))
        await stage.idle(1)
        await stage.say(*spoken("And lunch?"), *answer("r2", "At noon."))
        await stage.idle(5)
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        async for turn in session.turns():
            stage.note(repr(turn))
        found.append(session.history.snapshot())

    trace = parity(far, body, media=False, config=ClientConfig(speech_rate=10.0))
    expected = (
        UserTurn(text="When is breakfast?"),
        HumanTurn(text=SEVEN, heard="At seven,", ending=Ending.INTERRUPTED),
        UserTurn(text="And lunch?"),
        said("At noon."),
    )
    assert found == [expected] * 2
    assert trace.notes == ["usable", *map(repr, expected), "left"]


def test_events_and_turns_are_read_independently(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, *spoken("Hello?"), *answer("r1", "Hi."))

    async def body(session: Any, stage: Any) -> None:
        turns = session.turns()
        stage.note(repr(await anext(turns)))
        async for event in session.events():
            if isinstance(event, ResponseText):
                stage.note(event.delta)
                break
        stage.note(repr(await anext(turns)))

    trace = parity(far, body, media=False)
    hello, hi = UserTurn(text="Hello?"), said("Hi.")
    assert trace.notes == ["usable", repr(hello), "Hi.", repr(hi), "left"]


def test_what_is_being_said_when_the_session_ends_is_a_turn_too(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, TranscriptDelta(response_id="r1", content="Well"))
        await stage.lose()

    async def body(session: Any, stage: Any) -> None:
        stage.note(repr([turn async for turn in session.turns()]))
        stage.note(repr([turn async for turn in session.turns()]))

    trace = parity(far, body, media=False)
    broken = HumanTurn(text="Well", heard="", ending=Ending.FAILED, reason="the session ended")
    assert trace.notes == ["usable", repr([broken]), "[]", "left"]


def test_unread_turns_give_way_and_slow_nothing_down(parity: Any) -> None:
    count = TURNS_HIGH_WATER + 4

    async def far(stage: Any) -> None:
        await stage.say(*READY, *(InputTranscript(content=str(number)) for number in range(count)))
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        turns = session.turns()
        stage.note((await anext(turns)).text)
        async for _ in session.events():
            pass
        left = [turn.text async for turn in turns]
        stage.note(f"{left[0]} to {left[-1]}, {session.turns_dropped} dropped")
        stage.note(f"{len(session.history)} in the history")

    trace = parity(far, body, media=False)
    assert trace.notes[1] == "0"
    assert trace.notes[2] == f"4 to {count - 1}, 3 dropped"
    assert trace.notes[3] == f"{count} in the history"


def test_a_call_and_its_answer_are_in_the_history_and_no_turn(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(
            *READY,
            FunctionCallDone(call_id="c1", name="clock", arguments='{"zone":"CET"}'),
            FunctionCallDone(call_id="c2", name="clock", arguments="{}"),
        )
        await stage.peer.hear(ToolResult)
        await stage.say(*answer("r1", "Noon."))
        await stage.idle(3)
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        await session.send(ToolResult(call_id="c1", output='"12:00"'))
        for call_id in ("c1", "unknown"):
            with pytest.raises(LocalProtocolError):
                await session.send(ToolResult(call_id=call_id, output="again"))
        stage.note(repr([turn async for turn in session.turns()]))
        stage.note(repr(session.history.snapshot()))

    async def wait_for_both(session: Any, stage: Any) -> None:
        while len(session.history) < 2:
            await stage.idle()
        await body(session, stage)

    trace = parity(far, wait_for_both, media=False)
    assert trace.notes[1] == repr([said("Noon.")])
    assert trace.notes[2] == repr(
        (
            CallEntry(call_id="c1", name="clock", arguments='{"zone":"CET"}', output='"12:00"'),
            CallEntry(call_id="c2", name="clock", arguments="{}"),
            said("Noon."),
        )
    )


def test_texts_and_messages_are_replayed_as_they_are(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        for texts in (("My name is Ana.",), ("a", "b")):
            heard = await stage.peer.hear(UserMessage)
            assert heard.texts == texts

    async def body(session: Any, stage: Any) -> None:
        stage.note(repr(session.history.snapshot()))

    trace = parity(
        far, body, media=False, history=("My name is Ana.", UserMessage(texts=("a", "b")))
    )
    assert trace.said == ["conversation.item.create", "conversation.item.create"]
    assert trace.notes[1] == repr(
        (UserTurn(text="My name is Ana.", typed=True), UserTurn(text="a b", typed=True))
    )
    # What is replayed is no turn of this session.
    assert "UserTurn" not in trace.events


def test_the_ambiguous_name_is_told(parity: Any) -> None:
    text = "Multiple avatars share the name"

    async def far(stage: Any) -> None:
        await stage.say(READY[0], ConnectedWarning(message=text, avatar_id="a1"), *READY[1:])

    async def body(session: Any, stage: Any) -> None:
        async for event in session.events():
            if isinstance(event, ServerWarning):
                stage.note(repr(event))
                return

    trace = parity(far, body, media=False)
    assert trace.notes[1] == repr(ServerWarning(text=text, avatar_id="a1"))


CARTESIA = AvatarDetail(id="a1", provider_name="Cartesia")
TOOL = {"type": "function", "name": "clock"}


def test_a_picture_for_a_provider_that_takes_none(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)

    async def body(session: Any, stage: Any) -> None:
        with pytest.raises(UnsupportedByProviderError, match="Cartesia, takes no images"):
            await session.send(InputImage(content="data:image/jpeg;base64,/9j/"))
        await session.send_text("Hello!", respond=False)

    trace = parity(far, body, media=False, avatar=CARTESIA)
    assert trace.said == ["conversation.item.create"]
    assert trace.end == ("1000", "")


# ---- each loop for itself


LOOPS = {
    "asyncio": (
        navtalk_asyncio,
        navtalk_asyncio.testing,
        {"loop_factory": navtalk_asyncio.testing.VirtualClockLoop},
    ),
    "trio": (navtalk_trio, navtalk_trio.testing, {}),
}

Run = Callable[[Callable[[Any], Awaitable[None]]], None]


class OneLoop:
    """Sessions one after another on one loop."""

    def __init__(self, adapter: Any, kit: Any) -> None:
        self.adapter = adapter
        self.kit = kit
        self.endpoints: list[Endpoint] = []

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncGenerator[tuple[Any, ScriptedPeer]]:
        near, far = self.kit.memory_transports()
        peer = ScriptedPeer(far)
        await peer.say(*READY)

        async def opened(endpoint: Endpoint) -> Any:
            self.endpoints.append(endpoint)
            return near

        endpoint = options.pop("endpoint", None) or Endpoint(
            license="sk_navtalk_EXAMPLE", name="navtalk.Leo"
        )
        async with self.adapter.connect(
            endpoint, media=False, transport=opened, **options
        ) as session:
            yield session, peer


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    adapter, kit, options = LOOPS[request.param]
    if request.param == "trio":
        options = {"clock": MockClock(autojump_threshold=0)}

    def run(main: Callable[[Any], Awaitable[None]]) -> None:
        anyio.run(main, OneLoop(adapter, kit), backend=request.param, backend_options=options)

    return run


def test_a_history_is_continued_from_session_to_session(run: Run) -> None:
    async def main(loop: OneLoop) -> None:
        history = History([UserTurn(text="My name is Ana."), said("Hello Ana.")])
        async with loop.session(history=history) as (session, peer):
            assert session.history is history
            assert (await peer.hear(UserMessage)).texts == ("My name is Ana.",)
            turns = session.turns()
            await peer.say(*spoken("What is my name?"))
            assert await anext(turns) == UserTurn(text="What is my name?")
            await peer.say(*answer("r1", "Ana."))
            assert await anext(turns) == said("Ana.")
        # Exported and imported on the way.
        again = History.from_json(history.to_json())
        async with loop.session(history=again) as (session, peer):
            heard = [(await peer.hear(UserMessage)).texts for _ in range(2)]
            assert heard == [("My name is Ana.",), ("What is my name?",)]
            assert session.history.snapshot() == (
                UserTurn(text="My name is Ana."),
                said("Hello Ana."),
                UserTurn(text="What is my name?"),
                said("Ana."),
            )

    run(main)


def test_an_empty_history_is_continued_too(run: Run) -> None:
    async def main(loop: OneLoop) -> None:
        history = History()
        config = ClientConfig(history=(UserMessage(texts=("not this",)),))
        async with loop.session(history=history, config=config) as (session, peer):
            await session.send_text("Hello!", respond=False)
            assert (await peer.hear(UserMessage)).texts == ("Hello!",)
        assert history.snapshot() == (UserTurn(text="Hello!", typed=True),)
        async with loop.session(config=config) as (session, peer):
            assert (await peer.hear(UserMessage)).texts == ("not this",)
            assert session.history.snapshot() == (UserTurn(text="not this", typed=True),)

    run(main)


def test_turns_have_one_reader_at_a_time(run: Run) -> None:
    async def main(loop: OneLoop) -> None:
        async with loop.session() as (session, peer):
            turns = session.turns()
            got: list[Any] = []

            async def read() -> None:
                got.append(await anext(turns))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(RuntimeError, match="reads this session's turns already"):
                    session.turns()
                await peer.say(InputTranscript(content="Hello?"))
            assert got == [UserTurn(text="Hello?")]

    run(main)


def test_a_session_is_opened_to_the_avatar_that_was_looked_up(run: Run) -> None:
    async def main(loop: OneLoop) -> None:
        async with loop.session(avatar=AvatarDetail(id="a1", provider_name="openai")):
            pass
        assert loop.endpoints[0].avatar_id == "a1"
        with pytest.raises(EndpointError, match="another avatar"):
            async with loop.session(
                avatar=CARTESIA, endpoint=Endpoint(license="sk_navtalk_EXAMPLE", avatar_id="b2")
            ):
                pytest.fail("it was opened")
        assert len(loop.endpoints) == 1

    run(main)


def test_tools_for_a_provider_that_takes_none_open_nothing(run: Run) -> None:
    async def main(loop: OneLoop) -> None:
        with pytest.raises(UnsupportedByProviderError, match="Cartesia, takes no tools"):
            async with loop.session(avatar=CARTESIA, tools=(TOOL,)):
                pytest.fail("it was opened")
        assert loop.endpoints == []

    run(main)


def test_what_a_tool_answered_is_in_the_history(run: Run) -> None:
    async def clock(zone: str) -> str:
        """The time."""
        return f"noon in {zone}"

    async def main(loop: OneLoop) -> None:
        async with loop.session(tools=[clock]) as (session, peer):
            call = CallEntry(call_id="c1", name="clock", arguments='{"zone":"CET"}')
            await peer.say(
                FunctionCallDone(call_id=call.call_id, name=call.name, arguments=call.arguments)
            )
            await peer.hear(InputFunctionCall)
            assert await peer.hear(ToolResult) == ToolResult(call_id="c1", output="noon in CET")
            assert session.history.snapshot() == (evolve(call, output="noon in CET"),)

    run(main)
