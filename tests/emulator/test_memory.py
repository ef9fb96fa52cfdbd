"""What the human remembers of a session, and that it is bounded."""

from __future__ import annotations

import json

import pytest

from navtalk_asyncio.emulator import Avatar, Call, CallResult, Said, Tool
from navtalk_asyncio.emulator.memory import HISTORY, MAX_CALLS, REMEMBERED_TEXT, Memory, ResultError
from navtalk_proto.wire.messages import FunctionCallDone


@pytest.fixture
def memory() -> Memory:
    return Memory(Avatar(id="a", name="A", voice="marin", prompt="Be brief.", first_message="Hi."))


def user(*texts: str) -> tuple[Said, ...]:
    return tuple(Said(role="user", text=text) for text in texts)


def test_the_newest_message_is_answered_and_those_before_it_are_history(memory: Memory) -> None:
    for text in ("one", "two"):
        memory.message((text,), "user")
    asked = memory.asked()
    assert (asked.text, asked.history, asked.turn) == ("two", user("one"), 1)
    memory.said("assistant", "Yes.")
    again = memory.asked()
    assert (again.text, again.turn) == ("", 2)
    assert again.history == (*user("one", "two"), Said(role="assistant", text="Yes."))


def test_androids_one_message_is_as_many_entries(memory: Memory) -> None:
    memory.message(("one", "two"), "user")
    assert memory.asked().text == "one two"
    assert memory.asked().history == user("one", "two")


def test_other_roles_are_history_and_no_question(memory: Memory) -> None:
    memory.message(("a question",), "user")
    memory.message(("an answer",), "assistant")
    asked = memory.asked()
    assert asked.text == "a question"
    assert asked.history == (Said(role="assistant", text="an answer"),)


def test_speech_is_newer_than_what_was_typed(memory: Memory) -> None:
    memory.message(("typed",), "user")
    heard = memory.heard(b"ab")
    assert (heard.text, heard.heard, heard.history) == ("", b"ab", user("typed"))
    assert (heard.utterances, memory.heard(b"cd").utterances) == (1, 2)
    assert memory.asked().text == ""


def test_settings_of_the_avatar_hold_until_the_client_has_its_own(memory: Memory) -> None:
    first = memory.asked()
    assert (first.voice, first.prompt, first.first_message) == ("marin", "Be brief.", "Hi.")
    assert first.tools == ()
    memory.configure(voice="", prompt="Be long.", tools=[{"name": "f"}])
    memory.configure(voice="cedar")
    second = memory.asked()
    assert (second.voice, second.prompt) == ("cedar", "Be long.")
    assert second.tools == (Tool(name="f"),)
    memory.configure(tools=[])
    assert memory.asked().tools == ()


def test_early_v2_settings(memory: Memory) -> None:
    memory.update({"instructions": "Sing.", "voice": "ash", "tools": [{"name": "f"}, 3]})
    asked = memory.asked()
    assert (asked.prompt, asked.voice, asked.tools) == ("Sing.", "ash", (Tool(name="f"),))
    memory.update({"instructions": 1, "voice": None, "tools": "all", "temperature": 0.8})
    after = memory.asked()
    assert (after.prompt, after.voice, after.tools) == ("Sing.", "ash", (Tool(name="f"),))


def test_history_is_bounded_and_what_is_forgotten_counted(memory: Memory) -> None:
    for number in range(HISTORY + 3):
        memory.message((f"{number}",), "user")
    memory.message(("x" * (REMEMBERED_TEXT + 1), ""), "user")
    asked = memory.asked()
    assert asked.text == "x" * REMEMBERED_TEXT
    assert asked.history == user(*map(str, range(3, HISTORY + 3)))
    assert memory.forgotten == 4  # With the entry that the question itself took the place of.
    memory.message(("many",) * (HISTORY + 5), "user")
    memory.asked()
    assert memory.forgotten == 4 + 5 + HISTORY


# ---- function calls


def test_a_calls_message_is_the_captured_form(memory: Memory) -> None:
    first, second = memory.issue([Call(name="f", arguments={"a": 1}), Call(name="g")])
    assert (first.name, first.arguments) == ("f", '{"a": 1}')
    assert first.call_id != second.call_id
    raw = first.raw_data
    assert raw is not None
    assert second.raw_data is not None
    assert set(raw) == {
        "type", "event_id", "response_id", "item_id",
        "output_index", "call_id", "name", "arguments",
    }  # fmt: skip
    assert raw["type"] == "response.function_call_arguments.done"
    assert (raw["call_id"], raw["name"], raw["arguments"]) == (first.call_id, "f", first.arguments)
    assert (raw["output_index"], second.raw_data["output_index"]) == (0, 1)
    assert raw["response_id"] == second.raw_data["response_id"]
    assert raw["item_id"] != second.raw_data["item_id"]
    with pytest.raises(ValueError):
        memory.issue([Call(name="f", arguments={"a": float("nan")})])


def test_results_come_in_their_order_and_are_told_once(memory: Memory) -> None:
    first, second = memory.issue([Call(name="f"), Call(name="g")])
    assert memory.waiting
    memory.answered(second.call_id, "2")
    assert memory.waiting
    memory.answered(first.call_id, "1")
    assert not memory.waiting
    assert memory.asked().results == (
        CallResult(name="g", output="2"),
        CallResult(name="f", output="1"),
    )
    assert memory.asked().results == ()


def test_a_result_without_a_call_and_a_second_one_are_errors(memory: Memory) -> None:
    (call,) = memory.issue([Call(name="f")])
    with pytest.raises(ResultError, match="call_id of no function call"):
        memory.answered("other", "x")
    memory.answered(call.call_id, "x")
    with pytest.raises(ResultError, match="second result came for a call of f"):
        memory.answered(call.call_id, "y")
    assert memory.asked().results == (CallResult(name="f", output="x"),)


def test_what_does_not_come_is_told_and_counts_when_it_is_late(memory: Memory) -> None:
    (call,) = memory.issue([Call(name="f")])
    memory.give_up()
    assert not memory.waiting
    assert memory.asked().results == (CallResult(name="f", output=None),)
    memory.answered(call.call_id, "late")
    assert memory.asked().results == (CallResult(name="f", output="late"),)


def test_a_new_question_waits_for_no_result(memory: Memory) -> None:
    memory.issue([Call(name="f")])
    memory.message(("never mind",), "user")
    assert memory.typed
    assert memory.asked().results == ()
    assert not memory.waiting
    assert not memory.typed


def test_calls_and_results_are_bounded(memory: Memory) -> None:
    def issue() -> FunctionCallDone:
        (call,) = memory.issue([Call(name="f")])
        return call

    calls = [issue() for _ in range(MAX_CALLS + 1)]
    assert memory.forgotten == 1
    with pytest.raises(ResultError):
        memory.answered(calls[0].call_id, "x")
    for call in calls[1:]:
        memory.answered(call.call_id, "x" * (REMEMBERED_TEXT + 1))
    memory.answered(issue().call_id, json.dumps("y"))
    results = memory.asked().results
    assert [len(results), results[-1].output] == [MAX_CALLS, '"y"']
    assert {len(one.output or "") for one in results[:-1]} == {REMEMBERED_TEXT}
    assert memory.forgotten == 3
