"""Between a pump and the tool machine: which events count, what is sent, and what is told whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import LocalProtocolError
from navtalk_proto.events import (
    CloseCause,
    Closed,
    FunctionCall,
    Ready,
    Reconnecting,
    UserSilent,
    UserSpeaking,
)
from navtalk_proto.history import CallEntry, History
from navtalk_proto.limits import ToolLimits
from navtalk_proto.pump import Observer
from navtalk_proto.session import ClientCalls
from navtalk_proto.tool_runner import ToolRunnerCalls
from navtalk_proto.tools.calls import Start
from navtalk_proto.tools.schema import OnInterrupt, ToolSet, tool
from navtalk_proto.wire.messages import InputConfig, InputFunctionCall, ToolResult

HANG_UP = {"type": "function", "name": "hang_up"}


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


class Runner(ToolRunnerCalls):
    """Runs nothing: the test says how each function ends."""

    def __init__(self, hand_pump: Any, config: ClientConfig, *tools: Any) -> None:
        told = Observer()
        self.pump = hand_pump(config, observe=told)
        self.history = History()
        self.started: list[Start] = []
        self.cancelled_ids: list[str] = []
        self.alarm: float | None = None
        super().__init__(self.pump, ToolSet.of(tools), config, self.history)
        told.add(self.history.observe)
        told.add(self.observe)
        self.pump.ready()
        self.pump.take()

    def start(self, start: Start) -> None:
        self.started.append(start)

    def cancel(self, call_id: str) -> None:
        self.cancelled_ids.append(call_id)

    def rearm(self, when: float | None) -> None:
        self.alarm = when

    def call(self, call_id: str, name: str = "add", arguments: str = '{"a": 1, "b": 2}') -> None:
        data = {"call_id": call_id, "function_name": name, "arguments": arguments}
        message = {"type": "realtime.response.function_call_arguments.done", "data": data}
        self.pump.received(json.dumps(message))

    def sent(self) -> list[str]:
        """What was sent: the outputs of calls, and the types of everything else."""
        messages = [json.loads(action.text) for action in self.pump.take()]
        return [
            f"{item['call_id']}: {item['output']}" if (item := said.get("item")) else said["type"]
            for said in messages
        ]


@pytest.fixture
def make(hand_pump: Any) -> Callable[..., Runner]:
    def made(*tools: Any, **config: Any) -> Runner:
        return Runner(hand_pump, ClientConfig(media=(), **config), *(tools or (add,)))

    return made


def test_a_call_is_started_answered_and_entered_in_the_history(make: Any) -> None:
    runner = make()
    runner.call("c1")
    (start,) = runner.started
    assert (start.call_id, start.arguments) == ("0:c1", {"a": 1, "b": 2})
    assert runner.alarm == runner.pump.time() + 30.0
    runner.returned("0:c1", start.tool.function(**start.arguments))
    assert runner.sent() == ["c1: 3", "response.create"]
    assert runner.alarm is None
    (entry,) = runner.history
    assert isinstance(entry, CallEntry)
    assert entry.output == "3"
    assert runner.counters.returned == 1


def test_how_a_function_ends_is_told_to_the_model(make: Any) -> None:
    runner = make()
    runner.call("c1")
    runner.raised("0:c1", ValueError("sk_navtalk_EXAMPLE"))
    runner.call("c2")
    runner.cancelled("0:c2")
    said = " ".join(runner.sent())
    assert "the function raised ValueError" in said
    assert "the function was cancelled" in said
    assert "EXAMPLE" not in said


def test_a_deadline_passes(make: Any) -> None:
    runner = make(tool(add, timeout=5))
    runner.call("c1")
    runner.pump.clock.advance(5)
    runner.timeout()
    assert '"timeout"' in runner.sent()[0]
    assert runner.cancelled_ids == ["0:c1"]


@pytest.mark.parametrize("how", ["speech", "application"])
def test_an_interruption(make: Any, how: str) -> None:
    runner = make(tool(add, on_interrupt=OnInterrupt.CANCEL))
    runner.call("c1")
    runner.observe(UserSilent())
    assert runner.cancelled_ids == []
    if how == "speech":
        runner.observe(UserSpeaking())
    else:
        runner.interrupted()
    assert runner.cancelled_ids == ["0:c1"]
    (said,) = runner.sent()
    assert '"interrupted"' in said


@pytest.mark.parametrize("how", ["event", "call"])
def test_the_end_cancels_and_answers_nothing(make: Any, how: str) -> None:
    runner = make()
    runner.call("c1")
    if how == "event":
        runner.observe(Closed(cause=CloseCause.REMOTE, code=1000, reason=""))
    else:
        runner.close()
    assert runner.cancelled_ids == ["0:c1"]
    runner.returned("0:c1", 3)
    assert runner.sent() == []
    assert runner.counters.late == runner.counters.unanswered == 1


def test_limits_are_the_configurations(make: Any) -> None:
    runner = make(tool_limits=ToolLimits(running=1))
    runner.call("c1")
    runner.call("c2")
    assert [start.call_id for start in runner.started] == ["0:c1"]
    runner.returned("0:c1", 3)
    assert [start.call_id for start in runner.started] == ["0:c1", "0:c2"]


@pytest.mark.parametrize(
    "announced",
    [
        {"input_function_call": InputFunctionCall(tools=(HANG_UP, {"type": "function"}))},
        {"input_config": InputConfig(tools=(HANG_UP,))},
    ],
)
def test_tools_that_the_configuration_announces_are_the_applications(
    make: Any, announced: Any
) -> None:
    runner = make(**announced)
    runner.call("c1", "hang_up")
    assert runner.sent() == []
    runner.call("c2", "sing")
    assert '"unknown_function"' in runner.sent()[0]


def test_a_configuration_without_tools(make: Any) -> None:
    runner = make(input_config=InputConfig(voice="cedar"))
    runner.call("c1", "hang_up")
    assert '"unknown_function"' in runner.sent()[0]


def test_other_tools_are_offered(make: Any) -> None:
    runner = make()
    runner.offer(ToolSet.of([HANG_UP, tool(add, name="plus")]))
    runner.call("c1", "hang_up")
    assert runner.sent() == []
    runner.call("c2", "add")
    assert '"unknown_function"' in runner.sent()[0]
    runner.call("c3", "plus")
    assert [start.call_id for start in runner.started] == ["0:c3"]


def test_the_applications_request_waits_for_ours(make: Any) -> None:
    runner = make()
    runner.asked()
    assert runner.sent() == ["response.create"]
    runner.call("c1")
    runner.asked()
    assert runner.sent() == []
    runner.returned("0:c1", 3)
    assert runner.sent() == ["c1: 3", "response.create"]


def test_what_the_connection_does_not_take_is_counted(make: Any) -> None:
    runner = make()
    runner.call("c1")
    runner.pump.send(ToolResult(call_id="c1", output="mine"))
    runner.returned("0:c1", 3)
    assert runner.counters.unsent == 1
    assert runner.sent() == ["c1: mine", "response.create"]
    (entry,) = runner.history
    assert entry.output is None
    runner.call("c2")
    runner.pump.dropped()
    assert runner.pump.failures == []


def test_an_answer_that_brings_a_call_is_carried_out_first(make: Any) -> None:
    runner = make()
    runner.call("c1")
    send = runner.pump.send

    def nested(message: Any) -> None:
        runner.pump.send = send
        runner.observe(FunctionCall(call_id="c2", name="add", arguments="{}"))
        assert runner.started[-1].call_id == "0:c1"
        send(message)

    runner.pump.send = nested
    runner.returned("0:c1", 3)
    # The nested call has no id that the connection gave out: its refusal is not taken.
    assert runner.sent() == ["c1: 3", "response.create", "response.create"]
    assert (runner.counters.refused, runner.counters.unsent) == (1, 1)


def test_a_mistake_of_ours_ends_the_driver(make: Any) -> None:
    runner = make()
    runner.returned("never started", 3)
    (failure,) = runner.pump.failures
    assert isinstance(failure, KeyError)


def test_an_adapter_fills_in_the_rest(hand_pump: Any) -> None:
    pump = hand_pump()
    bare = ToolRunnerCalls(pump, ToolSet.of([add]), ClientConfig(), History())
    start = Start(call_id="c1", tool=tool(add), arguments={})
    for call in (lambda: bare.start(start), lambda: bare.cancel("c1"), lambda: bare.rearm(None)):
        with pytest.raises(NotImplementedError):
            call()


# ---- the session's side


@pytest.fixture
def session(make: Any) -> ClientCalls:
    """A session whose tools the test runs."""
    runner = make(tool(add, on_interrupt=OnInterrupt.CANCEL))
    session = ClientCalls(runner.pump)
    session.use_tools(runner)
    assert session.tools is runner
    # It is READY already: what it waits for was told before it was made.
    session.observe(Ready())
    return session


def test_the_application_answers_a_call(session: Any, crank: Any) -> None:
    runner = session.tools
    runner.offer(ToolSet.of([HANG_UP]))
    for call_id in ("c1", "c2", "c3"):
        runner.call(call_id, "hang_up")
    crank(session.answer("c1", {"ok": True})).result()
    assert runner.sent() == ['c1: {"ok":true}', "response.create"]
    crank(session.answer("c2", "as it is", respond=False)).result()
    assert runner.sent() == ["c2: as it is"]
    for call_id, result in (("c1", "again"), ("unknown", "?"), ("c3", object())):
        with pytest.raises(LocalProtocolError):
            crank(session.answer(call_id, result)).result()
    assert runner.sent() == []


def test_interrupting_the_human_interrupts_its_tools(session: Any, crank: Any) -> None:
    session.tools.call("c1")
    crank(session.interrupt()).result()
    assert session.tools.cancelled_ids == ["0:c1"]


def test_configuring_tools_replaces_the_functions(session: Any, crank: Any) -> None:
    runner = session.tools
    crank(session.configure(voice="cedar")).result()
    runner.call("c1")
    crank(session.configure(tools=[tool(add, name="plus")])).result()
    runner.call("c2")
    runner.call("c3", "plus")
    assert [start.call_id for start in runner.started] == ["0:c1", "0:c3"]
    crank(session.configure(tools=[])).result()
    runner.pump.take()
    runner.call("c4", "plus")
    assert [start.call_id for start in runner.started] == ["0:c1", "0:c3"]
    assert runner.sent() == []


def test_a_lost_connection_takes_its_calls_along(make: Any) -> None:
    runner = make()
    runner.call("c1")
    lost = Reconnecting(attempt=1, delay=0.5, reason="the connection was lost")
    runner.observe(lost)
    assert runner.cancelled_ids == ["0:c1"]
    assert runner.counters.unanswered == 1
    # The next connection's server counts from one too; the function of the lost call still runs.
    runner.observe(FunctionCall(call_id="c1", name="add", arguments='{"a": 3, "b": 4}'))
    assert [start.call_id for start in runner.started] == ["0:c1", "1:c1"]
    runner.returned("0:c1", 3)
    assert runner.sent() == []
    assert runner.counters.late == 1
    # Another attempt, and nothing is open.
    runner.cancelled("1:c1")
    runner.observe(lost)
    assert runner.counters.unanswered == 1
