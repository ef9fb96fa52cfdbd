"""What was said: what is entered, what gives way, what is replayed, and the JSON it travels as."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.errors import HistoryError
from navtalk_proto.events import (
    ErrorReported,
    FunctionCall,
    Ready,
    ResponseDone,
    ResponseFailed,
    ResponseGenerated,
    ResponseInterrupted,
    ResponseStarted,
    ResponseText,
    UserSilent,
    UserSpeaking,
    UserTurn,
)
from navtalk_proto.history import (
    HISTORY_CHARACTERS,
    HISTORY_ENTRIES,
    REPLAYED_MESSAGES,
    CallEntry,
    Ending,
    Entry,
    History,
    HumanTurn,
    Past,
)
from navtalk_proto.limits import Limits
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import UserMessage


def user(text: str, *, typed: bool = False) -> UserTurn:
    return UserTurn(text=text, typed=typed)


def human(text: str) -> HumanTurn:
    return HumanTurn(text=text, heard=text)


def call(call_id: str, output: str | None = None) -> CallEntry:
    return CallEntry(call_id=call_id, name="f", arguments="{}", output=output)


# Any character, lone surrogates too.
TEXTS = st.text(max_size=20) | st.text(st.characters(codec=None), max_size=20)
ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    st.builds(UserTurn, text=TEXTS, typed=st.booleans()),
    st.builds(HumanTurn, text=TEXTS, heard=TEXTS, ending=st.sampled_from(Ending), reason=TEXTS),
    st.builds(CallEntry, call_id=TEXTS, name=TEXTS, arguments=TEXTS, output=st.none() | TEXTS),
)


# ---- what is entered


def test_a_conversation_is_entered_as_its_turns_finish() -> None:
    history = History()
    told = [
        Ready(),
        UserSpeaking(),
        UserSilent(),
        ResponseStarted(response_id="r1"),
        UserTurn(text="When is breakfast?"),
        ResponseText(response_id="r1", delta="At "),
        ErrorReported(text="a hiccup"),
        ResponseGenerated(response_id="r1", text="At seven, in the hall."),
        ResponseInterrupted(response_id="r1", text="At seven, in the hall.", heard="At seven,"),
        UserTurn(text="And lunch?", typed=True),
        FunctionCall(call_id="c1", name="lunch", arguments='{"day": 1}'),
        ResponseDone(response_id="r2", text="At noon."),
        ResponseFailed(response_id=None, reason="no answer began within 30 s"),
        ResponseFailed(response_id="r3", reason="the session ended", text="Good"),
    ]
    made = [history.observe(event) for event in told]
    assert history.snapshot() == (
        user("When is breakfast?"),
        HumanTurn(text="At seven, in the hall.", heard="At seven,", ending=Ending.INTERRUPTED),
        user("And lunch?", typed=True),
        CallEntry(call_id="c1", name="lunch", arguments='{"day": 1}'),
        human("At noon."),
        HumanTurn(text="", heard="", ending=Ending.FAILED, reason="no answer began within 30 s"),
        HumanTurn(text="Good", heard="", ending=Ending.FAILED, reason="the session ended"),
    )
    assert tuple(entry for entry in made if entry is not None) == history.snapshot()
    assert history.dropped == 0


def test_an_answer_to_a_call_is_entered_once_with_the_newest_of_its_id() -> None:
    history = History([call("c1"), call("c2"), user("x"), call("c1")])
    history.answered("c1", "first")
    history.answered("c1", "second")
    history.answered("unknown", "third")
    assert history.snapshot() == (call("c1"), call("c2"), user("x"), call("c1", "first"))
    assert history.characters == sum(len("c1f{}") for _ in range(3)) + len("x" + "first")


def test_it_reads_as_a_sequence_that_does_not_change_under_its_readers() -> None:
    history = History([user("a"), human("b"), user("c")])
    sliced, snapshot = history[1:], history.snapshot()
    seen = []
    for entry in history:
        seen.append(entry)
        history.add(user("more"))
    assert seen == list(snapshot) == [user("a"), human("b"), user("c")]
    assert sliced == (human("b"), user("c"))
    assert (history[0], history[-1], len(history)) == (user("a"), user("more"), 6)
    assert human("b") in history
    assert list(reversed(history))[-1] == user("a")
    with pytest.raises(IndexError):
        history[6]
    assert repr(history) == "<History of 6 entries, 16 characters, 0 dropped>"


# ---- what gives way


def test_the_oldest_entries_give_way_and_are_counted() -> None:
    history = History(entries=2)
    for text in "abcd":
        history.add(user(text))
    assert history.snapshot() == (user("c"), user("d"))
    assert (history.dropped, history.characters) == (2, 2)


def test_characters_are_bounded_over_all_texts() -> None:
    history = History([user("aaaa"), human("bb"), user("cc")], characters=10)
    assert history.characters == 10
    history.add(user("d"))
    assert history.snapshot() == (human("bb"), user("cc"), user("d"))
    assert (history.dropped, history.characters) == (1, 7)


def test_an_entry_too_large_alone_costs_no_other() -> None:
    history = History([user("a")], characters=10)
    turn = history.observe(UserTurn(text="x" * 11))
    assert turn == user("x" * 11), "it was a turn nonetheless"
    assert history.snapshot() == (user("a"),)
    assert history.dropped == 1


def test_an_answer_counts_like_what_was_said() -> None:
    history = History([user("aaaa"), call("c")], characters=12)
    history.answered("c", "x" * 9)
    assert history.snapshot() == (user("aaaa"), call("c"))
    assert history.dropped == 1
    history.answered("c", "x" * 8)
    assert history.snapshot() == (call("c", "x" * 8),)
    assert (history.dropped, history.characters) == (2, 12)


def test_bounds_are_positive() -> None:
    for bounds in ({"entries": 0}, {"characters": 0}):
        with pytest.raises(ValueError, match="at least one"):
            History(**bounds)


@given(st.lists(ENTRIES, max_size=30), st.integers(1, 8), st.integers(1, 60))
def test_the_bounds_hold_whatever_is_added(seed: list[Entry], entries: int, size: int) -> None:
    history = History(entries=entries, characters=size)
    taken = 0
    for entry in seed:
        history.add(entry)
        texts = [
            getattr(entry, name) or ""
            for name in ("text", "heard", "reason", "call_id", "name", "arguments", "output")
            if hasattr(entry, name)
        ]
        taken += len("".join(texts)) <= size
        assert len(history) <= entries
        assert history.characters <= size
    assert history.dropped == len(seed) - len(history)
    assert len(history) <= taken
    assert History(history).snapshot() == history.snapshot()


# ---- lone surrogates


def test_what_no_json_can_hold_is_replaced() -> None:
    history = History([human("\ud800"), UserTurn(text="a\udfffb")])
    history.add(CallEntry(call_id="\ud800", name="\ud800", arguments="\ud800", output="\ud800"))
    history.observe(FunctionCall(call_id="\udc00", name="f", arguments="{}"))
    history.answered("\udc00", "\ud800")
    bad = "\ufffd"
    assert history.snapshot() == (
        human(bad),
        user(f"a{bad}b"),
        CallEntry(call_id=bad, name=bad, arguments=bad, output=bad),
        CallEntry(call_id=bad, name="f", arguments="{}", output=bad),
    )
    assert History.from_json(history.to_json()).snapshot() == history.snapshot()
    assert [message.texts for message in history.replay()] == [(f"a{bad}b",)]


def test_a_call_by_a_name_that_was_replaced_has_no_output_of_its_own() -> None:
    history = History([CallEntry(call_id="c", name="\ud800", arguments="{}")])
    assert history[0] == CallEntry(call_id="c", name="\ufffd", arguments="{}", output=None)


# ---- the next session


def test_only_what_the_user_said_is_replayed_one_message_each() -> None:
    history = History([user("a"), human("b"), user(""), user(" \n"), call("c"), user("d e")])
    assert history.replay() == (UserMessage(texts=("a",)), UserMessage(texts=("d e",)))
    assert History().replay() == ()


def test_the_newest_are_replayed() -> None:
    history = History([user(str(number)) for number in range(REPLAYED_MESSAGES + 5)])

    def replayed(**options: Any) -> list[int]:
        return [int(message.texts[0]) for message in history.replay(**options)]

    assert replayed() == list(range(5, REPLAYED_MESSAGES + 5))
    assert replayed(newest=3) == [102, 103, 104]
    assert replayed(newest=0) == []
    assert replayed(limits=Limits(queued_intents=2)) == [103, 104]


def test_the_replay_stays_within_the_limits_of_a_connection() -> None:
    history = History([user("old"), user("x" * 500), user("é" * 20), user("new")])
    one = len(codec.encode(UserMessage(texts=("new",))))

    def replayed(**limits: int) -> list[str]:
        return [message.texts[0] for message in history.replay(limits=Limits(**limits))]

    # One that alone is too large is left out; a sum that is too large ends it.
    assert replayed(client_message=400) == ["old", "é" * 20, "new"]
    assert replayed(client_message=one + 20) == ["old", "new"]
    assert replayed(queued_bytes=2 * one + 100) == ["é" * 20, "new"]
    assert replayed(queued_bytes=one) == ["new"]
    assert replayed(queued_bytes=one - 1) == []


def test_a_history_is_continued_and_replayed() -> None:
    history = History([user("a"), human("b")])
    past = Past.of(history, default=(UserMessage(texts=("ignored",)),))
    assert past.history is history
    assert past.messages == (UserMessage(texts=("a",)),)
    empty = History()
    past = Past.of(empty, default=(UserMessage(texts=("ignored",)),))
    assert past.history is empty
    assert past.messages == ()
    assert Past.of(history, limits=Limits(client_message=1)).messages == ()


def test_texts_and_messages_begin_a_history() -> None:
    system = UserMessage(texts=("Be brief.",), role="system")
    past = Past.of(["a", UserMessage(texts=("b", "c")), system])
    assert past.messages == (UserMessage(texts=("a",)), UserMessage(texts=("b", "c")), system)
    assert past.history.snapshot() == (user("a", typed=True), user("b c", typed=True))


def test_the_configurations_history_is_the_default() -> None:
    configured = (UserMessage(texts=("a",)),)
    past = Past.of((), default=configured)
    assert past.messages == configured
    assert past.history.snapshot() == (user("a", typed=True),)
    assert Past.of(["b"], default=configured).messages == (UserMessage(texts=("b",)),)
    assert Past.of(()).messages == ()
    assert Past().history is not Past().history


@pytest.mark.parametrize("wrong", ["one text", [1], [UserTurn(text="a")]])
def test_what_is_no_history_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="history"):
        Past.of(wrong)


# ---- JSON


def test_the_exported_text_is_this() -> None:
    history = History(
        [
            user("Zoë?", typed=True),
            HumanTurn(text="I am", heard="I", ending=Ending.INTERRUPTED),
            call("c1", "7"),
            call("c2"),
        ]
    )
    assert json.loads(history.to_json()) == {
        "format": "navtalk history",
        "version": 1,
        "entries": [
            {"kind": "user", "text": "Zoë?", "typed": True},
            {
                "kind": "human",
                "text": "I am",
                "heard": "I",
                "ending": "interrupted",
                "reason": "",
            },
            {"kind": "call", "call_id": "c1", "name": "f", "arguments": "{}", "output": "7"},
            {"kind": "call", "call_id": "c2", "name": "f", "arguments": "{}", "output": None},
        ],
    }


@given(st.lists(ENTRIES, max_size=10))
def test_export_and_import_agree(seed: list[Entry]) -> None:
    history = History(seed)
    text = history.to_json()
    for given_text in (text, text.encode(), json.dumps(json.loads(text), indent=2)):
        again = History.from_json(given_text)
        assert again.snapshot() == history.snapshot()
        assert again.characters == history.characters
    assert (again.max_entries, again.max_characters) == (HISTORY_ENTRIES, HISTORY_CHARACTERS)


def test_an_import_has_bounds_of_its_own() -> None:
    text = History([user(c) for c in "abcd"]).to_json()
    history = History.from_json(text, entries=2, characters=5)
    assert history.snapshot() == (user("c"), user("d"))
    assert history.dropped == 2
    with pytest.raises(HistoryError, match="longer than 518 characters"):
        History.from_json(text + " " * 518, entries=1, characters=1)


def test_every_history_within_the_bounds_can_be_imported_however_it_is_escaped() -> None:
    history = History([user("\0" * 50)] + [user("") for _ in range(9)], entries=10, characters=50)
    text = json.dumps(json.loads(history.to_json()), ensure_ascii=True)
    again = History.from_json(text, entries=10, characters=50)
    assert again.snapshot() == history.snapshot()
    calls = History([call("")] * 10, entries=10, characters=1)
    assert len(calls) == 0
    calls = History([CallEntry(call_id="", name="", arguments="")] * 10, entries=10, characters=1)
    assert len(History.from_json(calls.to_json(), entries=10, characters=1)) == 10


def exported(**changes: Any) -> str:
    value = {"format": "navtalk history", "version": 1, "entries": [], **changes}
    return json.dumps({key: item for key, item in value.items() if item is not ...})


USER = {"kind": "user", "text": "a", "typed": False}
HUMAN = {"kind": "human", "text": "a", "heard": "a", "ending": "done", "reason": ""}
CALL = {"kind": "call", "call_id": "c", "name": "f", "arguments": "{}", "output": None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff", "not UTF-8|not JSON"),
        ("[]", "^is not an object"),
        ("null", "^is not an object"),
        ('{"format": "\\ud800"}', "lone surrogate"),
        ("[" * 100 + "]" * 100, "nested"),
        (exported(format="else"), "^format: is not 'navtalk history'"),
        (exported(format=...), "^format: "),
        (exported(version=2), "^version: this program reads version 1"),
        (exported(version=True), "^version: "),
        (exported(version=...), "^version: "),
        (exported(entries={}), "^entries: is not an array"),
        (exported(entries=...), "^entries: is not an array"),
        (exported(entries=[USER, 7]), r"^entries\[1\]: is not an object"),
        (exported(entries=[{}]), r"^entries\[0\].kind: is none of user, human, call"),
        (exported(entries=[{"kind": []}]), r"^entries\[0\].kind: is none of"),
        (exported(entries=[{"kind": "user", "text": "a"}]), r"^entries\[0\].typed: is missing"),
        (exported(entries=[{**USER, "more": 1}]), r"^entries\[0\]: has a key that version 1"),
        (exported(entries=[{**USER, "text": 5}]), r"^entries\[0\].text: is not a string"),
        (exported(entries=[{**USER, "typed": 1}]), r"^entries\[0\].typed: is not true or false"),
        (exported(entries=[{**HUMAN, "ending": "x"}]), r"^entries\[0\].ending: is none of done"),
        (exported(entries=[{**HUMAN, "ending": None}]), r"^entries\[0\].ending: is not a string"),
        (exported(entries=[{**HUMAN, "heard": None}]), r"^entries\[0\].heard: is not a string"),
        (exported(entries=[{**CALL, "output": 1}]), r"^entries\[0\].output: is not a string"),
        (exported(entries=[{**CALL, "name": None}]), r"^entries\[0\].name: is not a string"),
    ],
)
def test_what_is_no_export_says_what_is_wrong(text: str | bytes, says: str) -> None:
    with pytest.raises(HistoryError, match=says) as caught:
        History.from_json(text)
    assert caught.value.__context__ is None
    assert isinstance(caught.value, ValueError)


def test_good_entries_are_good() -> None:
    assert len(History.from_json(exported(entries=[USER, HUMAN, CALL]))) == 3


def test_an_error_does_not_show_what_was_said() -> None:
    secret = "sk_navtalk_EXAMPLE"
    for text in (
        exported(entries=[{**USER, "typed": secret}]),
        exported(entries=[{**USER, secret: 1}]),
        exported(format=secret),
        exported(version=secret),
        f'{{"a": "{secret}',
    ):
        with pytest.raises(HistoryError) as caught:
            History.from_json(text)
        assert secret not in "".join(traceback.format_exception_only(caught.value))


@given(st.text() | st.binary() | st.from_regex(r'\{"format": ?"navtalk history".*'))
def test_no_text_raises_anything_else(text: str | bytes) -> None:
    try:
        history = History.from_json(text)
    except HistoryError:
        return
    assert History.from_json(history.to_json()).snapshot() == history.snapshot()
