"""Tools on both loops: run, cancelled, timed out, and answered once."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest

import navtalk_asyncio
import navtalk_asyncio.testing
import navtalk_trio
import navtalk_trio.testing
from navtalk_proto import ClientConfig, LocalProtocolError
from navtalk_proto.errors import ToolError, ToolFailedError
from navtalk_proto.events import FunctionCall
from navtalk_proto.limits import ToolLimits
from navtalk_proto.session import ClientCalls
from navtalk_proto.testing import ScriptedPeer
from navtalk_proto.tools.schema import OnInterrupt, tool
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    FunctionCallDone,
    InputFunctionCall,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    ToolResult,
)

READY = (ConnectedSuccess(session_id="s-1"), SessionCreated(), SessionUpdated())
HANG_UP = {"type": "function", "name": "hang_up"}


def call(call_id: str, name: str, **arguments: Any) -> FunctionCallDone:
    return FunctionCallDone(call_id=call_id, name=name, arguments=json.dumps(arguments))


def answers(trace: Any) -> list[tuple[float, str, Any]]:
    """What the client sent of answers and requests: when, for which call, and what."""
    found: list[tuple[float, str, Any]] = []
    for step in trace.steps:
        if (step.what, step.side) != ("send", "client"):
            continue
        said = json.loads(step.text)
        if said["type"] == "response.create":
            found.append((step.time, "respond", None))
        elif said.get("item", {}).get("type") == "function_call_output":
            output = said["item"]["output"]
            if output.startswith('{"error":'):
                output = json.loads(output)["error"]["code"]
            found.append((step.time, said["item"]["call_id"], output))
    return found


async def sleeper(seconds: float) -> str:
    """Sleep."""
    await anyio.sleep(seconds)
    return f"slept {seconds:g} s"


def test_a_call_is_answered_and_a_response_asked_for(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "sleeper", seconds=2))
        await stage.idle(3)
        await stage.close()

    trace = parity(far, media=False, tools=[sleeper])
    assert trace.said[0] == "realtime.input_function_call"
    assert answers(trace) == [(2.003, "c1", "slept 2 s"), (2.003, "respond", None)]
    assert trace.names("read").count("FunctionCall") == 1
    assert trace.notes == ["usable", "left"]


def test_calls_run_beside_each_other_up_to_the_limit(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, *(call(f"c{n}", "sleeper", seconds=n) for n in (3, 2, 1)))
        await stage.idle(10)
        await stage.close()

    config = ClientConfig(tool_limits=ToolLimits(running=2))
    trace = parity(far, media=False, tools=[sleeper], config=config)
    assert answers(trace) == [
        (2.004, "c2", "slept 2 s"),
        (3.003, "c3", "slept 3 s"),
        (3.004, "c1", "slept 1 s"),
        (3.004, "respond", None),
    ]


def test_a_tool_that_raises_is_answered_for_and_the_session_lives(
    parity: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise RuntimeError("sk_navtalk_EXAMPLE")

    async def honest() -> None:
        raise ToolFailedError("There is no such thing.")

    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "broken"), call("c2", "honest"), call("c3", "sleeper"))
        await stage.say(call("c4", "sing"), call("c5", "sleeper", seconds=0.5))
        await stage.idle(3)
        await stage.close()

    with caplog.at_level(logging.ERROR, logger="navtalk.tools"):
        trace = parity(far, media=False, tools=[broken, honest, sleeper])
    assert [(name, what) for _, name, what in answers(trace) if name != "respond"] == [
        ("c1", "failed"),
        ("c2", "failed"),
        ("c3", "invalid_arguments"),
        ("c4", "unknown_function"),
        ("c5", "slept 0.5 s"),
    ]
    # What the model is told says nothing that the exception says; the log has its traceback.
    assert not any("EXAMPLE" in step.text for step in trace.steps if step.what == "send")
    assert any("There is no such thing." in step.text for step in trace.steps)
    assert [record.getMessage() for record in caplog.records] == ["! tool broken raised"] * 2
    assert trace.end == ("1000", "")


def test_what_cannot_be_sent_is_answered_for_and_logged(
    parity: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def thing() -> object:
        return object()

    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "thing"))
        await stage.idle(3)
        await stage.close()

    with caplog.at_level(logging.ERROR, logger="navtalk.tools"):
        trace = parity(far, media=False, tools=[thing])
    assert [(name, what) for _, name, what in answers(trace)] == [
        ("c1", "invalid_result"),
        ("respond", None),
    ]
    told = "! tool thing returned what is not JSON, or too much"
    assert [record.getMessage() for record in caplog.records] == [told] * 2


def test_a_call_is_answered_at_its_deadline(parity: Any) -> None:
    ended: list[str] = []

    async def stubborn() -> str:
        try:
            await anyio.sleep(100)
        finally:
            ended.append("cancelled")
        return "never"

    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "stubborn"))
        await stage.idle(6)
        stage.note(f"{ended.pop()}, {len(ended)} left")
        await stage.close()

    trace = parity(far, media=False, tools=[tool(stubborn, timeout=5)])
    assert answers(trace) == [(5.003, "c1", "timeout"), (5.003, "respond", None)]
    assert "cancelled, 0 left" in trace.notes


def test_speech_cancels_what_only_the_answer_needed(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "vain", seconds=9), call("c2", "must", seconds=2))
        await stage.say(SpeechStarted())
        await stage.idle(5)
        await stage.close()

    tools = [
        tool(sleeper, name="vain", on_interrupt=OnInterrupt.CANCEL),
        tool(sleeper, name="must"),
    ]
    trace = parity(far, media=False, tools=tools)
    assert answers(trace) == [
        (0.005, "c1", "interrupted"),
        (2.004, "c2", "slept 2 s"),
        (2.004, "respond", None),
    ]


def test_stopping_the_human_interrupts_its_tools_too(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "vain", seconds=9))
        await stage.idle(5)
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        await anyio.sleep(1.5)
        await session.interrupt()
        await stage.read_all(session)

    tools = [tool(sleeper, name="vain", on_interrupt=OnInterrupt.CANCEL)]
    ((_, name, what),) = answers(parity(far, body, media=False, tools=tools))
    assert (name, what) == ("c1", "interrupted")


def test_leaving_cancels_what_runs_and_answers_nothing(parity: Any) -> None:
    counted: list[Any] = []

    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "sleeper", seconds=9), call("c2", "sleeper", seconds=8))

    async def body(session: Any, stage: Any) -> None:
        async for event in session.events():
            if isinstance(event, FunctionCall) and event.call_id == "c2":
                counted.append(session.tools.counters)
                return

    config = ClientConfig(tool_limits=ToolLimits(running=1))
    trace = parity(far, body, media=False, tools=[sleeper], config=config)
    assert answers(trace) == []
    assert [counters.unanswered for counters in counted] == [2, 2]
    assert trace.at("error", "x") == []


def test_the_far_ends_close_cancels_what_runs(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "sleeper", seconds=9))
        await stage.close(1001, "bye")

    trace = parity(far, media=False, tools=[sleeper])
    assert answers(trace) == []
    # Nobody waited for the nine seconds.
    assert trace.steps[-1].time < 1


def test_cancelling_the_session_cancels_its_tools(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "sleeper", seconds=9))

    trace = parity.cancelled(2, far, media=False, tools=[sleeper])
    assert answers(trace) == []
    assert trace.end == ("1000", "")


def test_the_applications_own_answers(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "sleeper", seconds=2), call("c2", "hang_up"))
        await stage.say(call("c3", "hang_up"))
        await stage.idle(5)
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        async for event in session.events():
            stage.read(event)
            if isinstance(event, FunctionCall) and event.name == "hang_up":
                await session.answer(event.call_id, {"ok": True}, respond=event.call_id == "c2")
                with pytest.raises(LocalProtocolError):
                    await session.answer(event.call_id, "again")
                with pytest.raises(LocalProtocolError):
                    await session.answer(event.call_id, object())

    trace = parity(far, body, media=False, tools=[sleeper, HANG_UP])
    assert [step[1:] for step in answers(trace)] == [
        ("c2", '{"ok":true}'),
        ("c3", '{"ok":true}'),
        ("c1", "slept 2 s"),
        ("respond", None),
    ]


def test_an_answer_that_the_application_gave_itself_is_not_given_again(parity: Any) -> None:
    counted: list[Any] = []

    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "sleeper", seconds=2))
        await stage.idle(5)
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        counted.append(session.tools.counters)
        async for event in session.events():
            if isinstance(event, FunctionCall):
                await session.send(ToolResult(call_id="c1", output="mine"))

    trace = parity(far, body, media=False, tools=[sleeper])
    assert [what for _, name, what in answers(trace) if name == "c1"] == ["mine"]
    assert [counters.unsent for counters in counted] == [1, 1]


def test_tools_that_are_replaced_in_mid_session(parity: Any) -> None:
    async def other() -> str:
        return "other"

    async def far(stage: Any) -> None:
        await stage.say(*READY)
        await stage.idle(1)
        await stage.say(call("c1", "sleeper", seconds=2), call("c2", "other"))
        await stage.say(call("c3", "hang_up"))
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        await session.configure(tools=[other, HANG_UP])
        await stage.read_all(session)

    trace = parity(far, body, media=False, tools=[sleeper])
    assert [(name, what) for _, name, what in answers(trace) if name != "respond"] == [
        ("c1", "unknown_function"),
        ("c2", "other"),
    ]


def test_answers_are_in_the_history(parity: Any) -> None:
    seen: list[Any] = []

    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "sleeper", seconds=0))
        await stage.idle(1)
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        await stage.read_all(session)
        seen.append(session.history.to_json())

    parity(far, body, media=False, tools=[sleeper])
    assert all("slept 0 s" in exported for exported in seen)


def test_a_function_that_is_no_tool_is_refused_before_anything_is_opened(parity: Any) -> None:
    def untyped(city):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    opened: list[Any] = []

    async def transport(stage: Any, endpoint: Any) -> Any:
        opened.append(endpoint)
        return stage.near

    async def refuse(stage: Any) -> None:
        stage.trace.steps.clear()
        with pytest.raises(ToolError, match="parameter city: has no type hint"):
            async with stage.connect(tools=[untyped], transport=transport):
                pass
        stage.note("refused")

    assert parity._both(refuse).notes == ["refused"]
    assert opened == []


def test_a_mistake_of_the_runner_ends_the_session(
    parity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(result: object) -> str:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("navtalk_proto.tools.calls.result_text", broken)

    async def far(stage: Any) -> None:
        await stage.say(*READY, call("c1", "sleeper", seconds=1))

    trace = parity(far, media=False, tools=[sleeper])
    assert (trace.error.name, trace.error.text) == (
        "RuntimeError",
        "RuntimeError: a mistake of ours",
    )


def test_cancelled_at_every_point_with_a_tool_that_runs(matrix: Any) -> None:
    """Each play ends cancelled, with nothing left of tool, session and transport."""

    async def scenario(stage: Any) -> None:
        await stage.peer.say(*READY, call("c1", "sleeper", seconds=9), call("c2", "sleeper"))
        async with stage.connect(media=False, tools=[sleeper]) as session:
            async for event in session.events():
                if isinstance(event, FunctionCall):
                    break
            await anyio.sleep(1)

    assert matrix(scenario) >= 5


# ---- threads, on the real clock: a virtual one does not wait for them


class Loop:
    """A loop, and its adapter."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.adapter: Any = {"asyncio": navtalk_asyncio, "trio": navtalk_trio}[name]
        kit: Any = {"asyncio": navtalk_asyncio.testing, "trio": navtalk_trio.testing}[name]
        self.transports = kit.memory_transports

    def __call__(
        self,
        far: Callable[[ScriptedPeer, ClientCalls], Awaitable[None]],
        tools: list[Any],
        config: ClientConfig | None = None,
    ) -> None:
        """Run the far end beside a session, and leave the session when it has returned."""

        async def main() -> None:
            near, away = self.transports()
            peer = ScriptedPeer(away)

            async def opened(endpoint: Endpoint) -> Any:
                return near

            await peer.say(*READY)
            endpoint = Endpoint(license="sk_navtalk_EXAMPLE", name="navtalk.Leo")
            connect = partial(self.adapter.connect, endpoint, transport=opened, media=False)
            with anyio.fail_after(20):
                async with connect(tools=tools, config=config) as session:
                    await peer.hear(InputFunctionCall)
                    await far(peer, session)

        anyio.run(main, backend=self.name)


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> Loop:
    return Loop(request.param)


def test_a_plain_function_runs_in_a_thread(loop: Loop) -> None:
    here = threading.current_thread()

    def where(word: str) -> dict[str, Any]:
        thread = threading.current_thread()
        return {"word": word, "here": thread is here, "daemon": thread.daemon}

    async def far(peer: ScriptedPeer, session: ClientCalls) -> None:
        await peer.say(call("c1", "where", word="tea"))
        answer = await peer.hear(ToolResult)
        assert json.loads(answer.output) == {"word": "tea", "here": False, "daemon": True}
        await peer.hear(ResponseCreate)

    loop(far, [where])


def test_a_thread_that_raises_is_answered_for(loop: Loop) -> None:
    def stop() -> None:
        raise StopIteration

    async def far(peer: ScriptedPeer, session: ClientCalls) -> None:
        await peer.say(call("c1", "stop"))
        assert "failed" in (await peer.hear(ToolResult)).output
        assert session.tools.counters.failed == 1

    loop(far, [stop])


def test_a_coroutine_function_behind_a_plain_decorator_fails_aloud(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    @functools.wraps(sleeper)
    def decorated(*given: Any, **named: Any) -> Any:
        return sleeper(*given, **named)

    async def far(peer: ScriptedPeer, session: ClientCalls) -> None:
        await peer.say(call("c1", "sleeper", seconds=0))
        assert "TypeError" in (await peer.hear(ToolResult)).output

    with caplog.at_level(logging.ERROR, logger="navtalk.tools"):
        loop(far, [decorated])
    assert [record.getMessage() for record in caplog.records] == ["! tool sleeper raised"]


def test_a_thread_that_is_stuck_is_answered_for_and_keeps_its_place(loop: Loop) -> None:
    release = threading.Event()
    ended = threading.Event()

    def stuck() -> str:
        try:
            release.wait(20)
        finally:
            ended.set()
        return "at last"

    def clock() -> str:
        return "noon" if ended.is_set() else "too early"

    async def far(peer: ScriptedPeer, session: ClientCalls) -> None:
        await peer.say(call("c1", "stuck"))
        assert '"timeout"' in (await peer.hear(ToolResult)).output
        await peer.hear(ResponseCreate)
        # There is one place, and the thread has it.
        await peer.say(call("c2", "clock"))
        release.set()
        answer = await peer.hear(ToolResult)
        assert (answer.call_id, answer.output) == ("c2", "noon")
        assert session.tools.counters.late == 1

    config = ClientConfig(tool_limits=ToolLimits(running=1))
    loop(far, [tool(stuck, timeout=0.05), clock], config)


def test_leaving_does_not_wait_for_a_thread_that_is_stuck(loop: Loop) -> None:
    started = threading.Event()
    release = threading.Event()
    threads: list[threading.Thread] = []

    def stuck() -> str:
        threads.append(threading.current_thread())
        started.set()
        release.wait(20)
        return "nobody waits"

    async def far(peer: ScriptedPeer, session: ClientCalls) -> None:
        await peer.say(call("c1", "stuck"))
        await anyio.to_thread.run_sync(started.wait)

    loop(far, [stuck])
    # The loop has ended too. What the thread says now, nobody hears.
    (thread,) = threads
    assert not release.is_set()
    release.set()
    if loop.name == "asyncio":
        thread.join(20)
        assert not thread.is_alive()


def test_a_thread_sees_the_context_of_the_session(loop: Loop) -> None:
    from contextvars import ContextVar

    who: ContextVar[str] = ContextVar("who", default="nobody")
    who.set("Ana")

    def name() -> str:
        return who.get()

    async def far(peer: ScriptedPeer, session: ClientCalls) -> None:
        await peer.say(call("c1", "name"))
        assert (await peer.hear(ToolResult)).output == "Ana"

    loop(far, [name])


def test_cancelling_while_tools_are_waited_for() -> None:
    """asyncio alone: a cancellation that comes while leaving waits for a tool is not lost."""
    seen: list[str] = []

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            seen.append("first")
            leaving.set()
            try:
                await asyncio.sleep(100)
            finally:
                seen.append("second")

    async def main() -> None:
        near, away = navtalk_asyncio.testing.memory_transports()
        peer = ScriptedPeer(away)
        running = asyncio.Event()

        async def opened(endpoint: Endpoint) -> Any:
            return near

        def observe(event: Any) -> None:
            if isinstance(event, FunctionCall):
                running.set()

        async def visit() -> None:
            endpoint = Endpoint(license="sk_navtalk_EXAMPLE", name="navtalk.Leo")
            connect = partial(navtalk_asyncio.connect, endpoint, transport=opened, observe=observe)
            async with connect(tools=[slow_to_end], media=False):
                await running.wait()
                await asyncio.sleep(1)

        await peer.say(*READY)
        task = asyncio.create_task(visit())
        await peer.hear(InputFunctionCall)
        await peer.say(call("c1", "slow_to_end"))
        await leaving.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with pytest.raises(TransportClosedError):
            await away.receive()

    leaving = asyncio.Event()
    navtalk_asyncio.testing.run_virtual(main())
    assert seen == ["first", "second"]
