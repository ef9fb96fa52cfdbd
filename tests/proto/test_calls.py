"""The machine that answers each call once: what it does, in order, after each input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from navtalk_proto.errors import ToolFailedError
from navtalk_proto.events import FunctionCall
from navtalk_proto.limits import ToolLimits
from navtalk_proto.tools.calls import (
    Answer,
    Cancel,
    Respond,
    Start,
    ToolAction,
    ToolCalls,
    ToolCounters,
)
from navtalk_proto.tools.schema import OnInterrupt, tool


@tool(timeout=10)
async def look_up(word: str) -> str:
    """Look a word up."""
    raise NotImplementedError


@tool(timeout=5, on_interrupt=OnInterrupt.CANCEL)
def guess() -> str:
    """Guess."""
    raise NotImplementedError


class Desk:
    """The machine and its clock; `do` is what it wants done, in short."""

    def __init__(self, **limits: int) -> None:
        self.calls = ToolCalls(limits=ToolLimits(**limits))
        self.calls.offered({"look_up": look_up, "guess": guess}, application={"hang_up"})
        self.now = 100.0

    def call(self, call_id: str, name: str = "look_up", arguments: str | None = None) -> list[str]:
        default = '{"word": "tea"}' if name == "look_up" else "{}"
        call = FunctionCall(call_id=call_id, name=name, arguments=arguments or default)
        return self.do("called", call)

    def do(self, what: str, *values: Any) -> list[str]:
        getattr(self.calls, what)(*values, now=self.now)
        return [short(action) for action in self.calls.actions()]

    @property
    def counted(self) -> dict[str, int]:
        """The counters that are not 0."""
        counters = self.calls.counters
        return {
            name: getattr(counters, name)
            for name in ToolCounters.__slots__
            if name != "__weakref__" and getattr(counters, name)
        }


def short(action: ToolAction) -> str:
    match action:
        case Start():
            return f"start {action.call_id}"
        case Cancel():
            return f"cancel {action.call_id}"
        case Respond():
            return "respond"
        case Answer():
            if not action.output.startswith('{"error":'):
                return f"answer {action.call_id}: {action.output}"
            error = json.loads(action.output)["error"]
            return f"answer {action.call_id}: {error['code']}, {error['message']}"


def test_a_call_is_started_and_its_result_answered() -> None:
    desk = Desk()
    desk.calls.called(
        FunctionCall(call_id="a", name="look_up", arguments='{"word": "tea"}'), now=100.0
    )
    assert desk.calls.actions() == [Start(call_id="a", tool=look_up, arguments={"word": "tea"})]
    assert desk.calls.actions() == []
    assert desk.calls.next_timeout() == 110.0
    assert desk.do("returned", "a", {"leaf": True}) == ['answer a: {"leaf":true}', "respond"]
    assert desk.calls.next_timeout() is None
    assert desk.counted == {"called": 1, "returned": 1}


def test_a_response_is_asked_for_after_the_last_answer() -> None:
    desk = Desk()
    assert desk.call("a") == ["start a"]
    assert desk.call("b") == ["start b"]
    assert desk.do("returned", "b", "two") == ["answer b: two"]
    assert desk.do("returned", "a", "one") == ["answer a: one", "respond"]


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("look_up", "{}", "invalid_arguments, word: is missing"),
        ("look_up", "tea", "invalid_arguments, the text is not JSON (at character 0)"),
        ("sing", "{}", "unknown_function, there is no function of this name"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_answered_at_once(
    name: str, arguments: str, why: str
) -> None:
    desk = Desk()
    assert desk.call("a", name, arguments) == [f"answer a: {why}", "respond"]
    assert desk.counted == {"called": 1, "refused": 1}


def test_calls_of_the_applications_tools_are_left_to_it() -> None:
    desk = Desk()
    assert desk.call("a", "hang_up") == []
    assert desk.counted == {}


def test_without_functions_every_call_is_the_applications() -> None:
    desk = Desk()
    desk.calls.offered({})
    assert desk.call("a", "look_up") == []
    assert desk.counted == {}


def test_what_is_offered_later_replaces_what_was() -> None:
    desk = Desk()
    assert desk.call("a") == ["start a"]
    desk.calls.offered({"guess": guess})
    assert desk.call("b", "look_up") == [
        "answer b: unknown_function, there is no function of this name"
    ]
    assert desk.do("returned", "a", "tea") == ["answer a: tea", "respond"]


def test_calls_beyond_the_limit_wait_in_order() -> None:
    desk = Desk(running=1, waiting=2)
    assert desk.call("a") == ["start a"]
    assert desk.call("b") == []
    assert desk.call("c") == []
    assert desk.call("d") == ["answer d: too_many_calls, too many calls at a time; try again"]
    assert desk.do("returned", "a", "1") == ["answer a: 1", "start b"]
    assert desk.call("e") == []
    assert desk.do("returned", "b", "2") == ["answer b: 2", "start c"]
    assert desk.do("returned", "c", "3") == ["answer c: 3", "start e"]
    assert desk.do("returned", "e", "5") == ["answer e: 5", "respond"]
    assert desk.counted == {"called": 5, "returned": 4, "refused": 1}


def test_nothing_may_wait() -> None:
    desk = Desk(running=1, waiting=0)
    assert desk.call("a") == ["start a"]
    assert desk.call("b")[0].startswith("answer b: too_many_calls")


def test_an_id_that_is_in_use_is_not_taken_again() -> None:
    desk = Desk(running=1)
    assert desk.call("a") == ["start a"]
    assert desk.call("b") == []
    assert desk.call("a") == desk.call("b") == []
    desk.now += 10
    assert desk.do("handle_timeout")[-1] == "respond"
    # Its function still runs: a result of it must not answer another call.
    assert desk.call("a") == []
    assert desk.counted == {"called": 2, "timed_out": 2, "repeated": 3}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("sk_navtalk_EXAMPLE"), "the function raised RuntimeError"),
        (ToolFailedError("There is no such word."), "There is no such word."),
        (KeyboardInterrupt(), "the function raised KeyboardInterrupt"),
    ],
)
def test_of_an_exception_the_model_is_told_the_class_only(error: Any, told: str) -> None:
    desk = Desk()
    desk.call("a")
    assert desk.do("raised", "a", error) == [f"answer a: failed, {told}", "respond"]
    assert desk.counted == {"called": 1, "failed": 1}


def test_a_function_that_was_cancelled_by_others_has_failed() -> None:
    desk = Desk()
    desk.call("a")
    assert desk.do("cancelled", "a") == ["answer a: failed, the function was cancelled", "respond"]


def test_a_result_that_is_not_json_is_an_error() -> None:
    desk = Desk()
    desk.call("a")
    assert desk.do("returned", "a", object()) == [
        "answer a: invalid_result, the function returned: a object is not JSON",
        "respond",
    ]
    assert desk.counted == {"called": 1, "failed": 1}


# ---- time


def test_a_call_is_answered_at_its_deadline_and_its_result_dropped() -> None:
    desk = Desk()
    desk.call("a")
    desk.now = 109.9
    assert desk.do("handle_timeout") == []
    desk.now = 110.0
    assert desk.do("handle_timeout") == [
        "answer a: timeout, no result within 10 seconds",
        "cancel a",
        "respond",
    ]
    assert desk.calls.next_timeout() is None
    assert desk.do("handle_timeout") == []
    assert desk.do("returned", "a", "tea") == []
    assert desk.counted == {"called": 1, "timed_out": 1, "late": 1}


def test_a_result_at_the_deadline_is_late_whichever_is_reported_first() -> None:
    desk = Desk()
    desk.call("a")
    desk.now = 110.0
    assert desk.do("returned", "a", "tea") == [
        "answer a: timeout, no result within 10 seconds",
        "cancel a",
        "respond",
    ]
    assert desk.counted == {"called": 1, "timed_out": 1, "late": 1}


def test_the_deadline_counts_from_the_call_and_not_from_the_start() -> None:
    desk = Desk(running=1)
    desk.call("a")
    desk.now = 104.0
    assert desk.call("b", "guess") == []
    assert desk.calls.next_timeout() == 109.0
    desk.now = 109.0
    assert desk.do("handle_timeout") == ["answer b: timeout, no result within 5 seconds"]
    assert desk.do("returned", "a", "tea") == ["answer a: tea", "respond"]


def test_a_function_that_does_not_end_keeps_its_place() -> None:
    desk = Desk(running=1)
    desk.call("a")
    desk.now = 110.0
    assert desk.call("b") == [
        "answer a: timeout, no result within 10 seconds",
        "cancel a",
        "respond",
    ]
    desk.now = 111.0
    assert desk.do("cancelled", "a") == ["start b"]
    assert desk.counted == {"called": 2, "timed_out": 1}


def test_what_is_raised_too_late_is_dropped() -> None:
    desk = Desk()
    desk.call("a")
    desk.now = 110.0
    assert desk.do("raised", "a", RuntimeError())[-1] == "respond"
    assert desk.counted == {"called": 1, "timed_out": 1, "late": 1}


# ---- interruption


def test_an_interruption_cancels_what_only_the_answer_needed() -> None:
    desk = Desk(running=2)
    assert desk.call("a", "guess") == ["start a"]
    assert desk.call("b") == ["start b"]
    assert desk.call("c", "guess") == []
    assert desk.do("interrupted") == [
        "answer a: interrupted, the user interrupted the call",
        "cancel a",
        "answer c: interrupted, the user interrupted the call",
    ]
    assert desk.do("interrupted") == []
    assert desk.do("cancelled", "a") == []
    assert desk.do("returned", "b", "tea") == ["answer b: tea", "respond"]
    assert desk.counted == {"called": 3, "returned": 1, "interrupted": 2}


def test_after_an_interruption_no_response_is_asked_for() -> None:
    desk = Desk()
    desk.call("a")
    desk.call("b", "guess")
    assert desk.do("returned", "a", "tea") == ["answer a: tea"]
    assert desk.do("interrupted") == [
        "answer b: interrupted, the user interrupted the call",
        "cancel b",
    ]
    assert desk.do("cancelled", "b") == []


def test_what_waits_takes_the_place_of_what_was_interrupted() -> None:
    desk = Desk(running=1)
    desk.call("a", "guess")
    desk.call("b", "guess")
    desk.call("c")
    assert [step.split(":")[0] for step in desk.do("interrupted")] == [
        "answer a",
        "cancel a",
        "answer b",
    ]
    assert desk.do("cancelled", "a") == ["start c"]


# ---- the application's answers


def test_a_response_for_the_application_is_asked_for_with_that_of_ours() -> None:
    desk = Desk()
    assert desk.do("asked") == ["respond"]
    desk.call("a")
    assert desk.do("asked") == []
    assert desk.do("returned", "a", "tea") == ["answer a: tea", "respond"]


# ---- the end


def test_after_the_end_nothing_is_answered() -> None:
    desk = Desk(running=1)
    desk.call("a")
    desk.call("b")
    assert desk.do("closed") == ["cancel a"]
    assert desk.calls.next_timeout() is None
    assert desk.do("closed") == []
    assert desk.call("c") == []
    assert desk.do("asked") == desk.do("interrupted") == desk.do("handle_timeout") == []
    assert desk.do("returned", "a", "tea") == []
    assert desk.counted == {"called": 2, "unanswered": 2, "late": 1}


def test_the_end_of_what_was_not_started_is_a_mistake() -> None:
    desk = Desk()
    with pytest.raises(KeyError):
        desk.do("returned", "a", "tea")


def test_a_repr_shows_neither_arguments_nor_output() -> None:
    assert "EXAMPLE" not in repr(Start(call_id="a", tool=guess, arguments={"key": "EXAMPLE"}))
    assert repr(Answer(call_id="a", output="EXAMPLE")) == (
        "Answer(call_id='a', output=<7 characters>)"
    )
