"""The conversation machine: what the server said becomes turns, answers and calls."""

from __future__ import annotations

import itertools

import pytest

from navtalk_proto.errors import LocalProtocolError
from navtalk_proto.events import (
    ConversationEvent,
    ErrorReported,
    FunctionCall,
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
from navtalk_proto.limits import Limits
from navtalk_proto.machines import conversation as machine
from navtalk_proto.machines.conversation import (
    CALL_TRANSITIONS,
    GRACE,
    IGNORED,
    TRANSITIONS,
    CallInput,
    CallState,
    Conversation,
    Effect,
    Input,
    State,
    heard_part,
)
from navtalk_proto.timers import Timer, Timers
from navtalk_proto.wire.messages import (
    AudioClear,
    AudioCommit,
    AudioDelta,
    AudioDone,
    FunctionCallDelta,
    FunctionCallDone,
    FunctionCallOutput,
    InputImage,
    InputText,
    InputTranscript,
    Message,
    ResponseCompleted,
    ResponseCreate,
    ServerError,
    SpeechStarted,
    SpeechStopped,
    SynthesisError,
    ToolResult,
    TranscriptDelta,
    TranscriptDone,
    UserMessage,
)

T0 = 1000.0
RATE = 10.0
"""Ten characters a second: "Hello you." takes one."""


class Talk:
    """A conversation and its clock."""

    def __init__(self, **limits: int) -> None:
        self.now = T0
        self.timers = Timers()
        self.machine = Conversation(
            limits=Limits(**limits), response_timeout=30.0, speech_rate=RATE, timers=self.timers
        )
        self.wrong: list[str] = []

    def take(self) -> list[ConversationEvent]:
        taken, self.machine.out = self.machine.out, []
        return taken

    def hear(self, *messages: Message) -> list[ConversationEvent]:
        for message in messages:
            wrong = self.machine.received(message, now=self.now)
            if wrong is not None:
                self.wrong.append(wrong)
        return self.take()

    def say(self, *messages: Message) -> list[ConversationEvent]:
        for message in messages:
            self.machine.check(message)
            self.machine.accepted(message)
            self.machine.sent(message, now=self.now)
        return self.take()

    def wait(self, seconds: float) -> list[ConversationEvent]:
        """Time passes; the timer fires when it is due."""
        until = self.now + seconds
        while (due := self.timers.next()) is not None and due <= until:
            self.now = due
            assert self.timers.pop_due(self.now) is Timer.RESPONSE
            self.machine.timeout(now=self.now)
            nearest = self.timers.next()
            assert nearest is None or nearest > self.now
        self.now = until
        return self.take()


def delta(text: str, id: str = "r1") -> TranscriptDelta:
    return TranscriptDelta(response_id=id, content=text)


def whole(text: str | None, id: str = "r1") -> TranscriptDone:
    return TranscriptDone(response_id=id, content=text)


def begun(id: str = "r1") -> ResponseStarted:
    return ResponseStarted(response_id=id)


def piece(text: str, id: str = "r1") -> ResponseText:
    return ResponseText(response_id=id, delta=text)


def generated(text: str, id: str | None = "r1") -> ResponseGenerated:
    return ResponseGenerated(response_id=id, text=text)


def done(text: str, id: str | None = "r1") -> ResponseDone:
    return ResponseDone(response_id=id, text=text)


def test_every_pair_is_in_one_class() -> None:
    pairs = set(itertools.product(State, Input))
    assert set(TRANSITIONS) | IGNORED == pairs
    assert not set(TRANSITIONS) & IGNORED
    assert {effect for _, effect in TRANSITIONS.values()} == set(Effect)
    assert {state for state in State if state.ended} == {
        state for state in State if not any(one is state for one, _ in TRANSITIONS)
    }


def test_an_answer_from_the_request_to_the_end_of_its_voice() -> None:
    talk = Talk()
    assert talk.say(UserMessage(texts=("Hi", "there"))) == [UserTurn(text="Hi there", typed=True)]
    assert talk.say(ResponseCreate()) == []
    assert talk.hear(delta("Hello ")) == [begun(), piece("Hello ")]
    assert talk.hear(delta("you.")) == [piece("you.")]
    assert talk.hear(whole("Hello you.")) == []
    assert talk.hear(AudioDone()) == [generated("Hello you.")]
    assert talk.wait(0.99) == []
    assert talk.wait(0.01) == [done("Hello you.")]
    assert talk.timers.next() is None
    assert talk.machine.late == 0


def test_the_server_may_speak_first_and_all_at_once() -> None:
    talk = Talk()
    assert talk.hear(whole("Welcome.")) == [begun()]
    assert talk.hear(AudioDone()) == [generated("Welcome.")]
    assert talk.wait(1.0) == [done("Welcome.")]


def test_the_whole_text_wins_over_the_deltas() -> None:
    talk = Talk()
    talk.hear(delta("Helo "), whole("Hello you."))
    assert talk.hear(AudioDone()) == [generated("Hello you.")]


def test_a_whole_text_left_out_lets_the_deltas_stand() -> None:
    talk = Talk()
    talk.hear(delta("Hello "), delta("you."), whole(None))
    assert talk.hear(AudioDone()) == [generated("Hello you.")]


def test_the_end_of_the_audio_may_come_first() -> None:
    talk = Talk()
    talk.hear(delta("Hello "))
    assert talk.hear(AudioDone()) == []
    assert talk.hear(delta("you.")) == [piece("you.")]
    assert talk.hear(whole("Hello you!")) == [generated("Hello you!")]
    assert talk.wait(1.0) == [done("Hello you!")]


@pytest.mark.parametrize("half", [whole("Hello you."), AudioDone()])
def test_a_half_that_never_comes_is_not_waited_for(half: Message) -> None:
    talk = Talk()
    talk.hear(delta("Hello you."), half)
    assert talk.wait(1.0 + GRACE - 0.01) == []
    assert talk.wait(0.01) == [generated("Hello you."), done("Hello you.")]


def test_response_completed_ends_the_generation() -> None:
    talk = Talk()
    talk.hear(delta("Hello you."))
    assert talk.hear(ResponseCompleted(response_id="r1")) == [generated("Hello you.")]
    talk.hear(delta("Yes.", "r2"))
    assert talk.hear(ResponseCompleted(response_id="resp_unheard_of")) == []
    assert talk.machine.late == 1, "the older one is spoken already"
    assert talk.wait(1.0) == [done("Hello you.")]
    assert talk.hear(ResponseCompleted()) == [generated("Yes.", "r2")]


@pytest.mark.parametrize("end", [AudioDone(), ResponseCompleted()])
def test_an_answer_without_words(end: Message) -> None:
    talk = Talk()
    talk.say(ResponseCreate())
    assert talk.hear(end) == [
        ResponseStarted(response_id=None),
        generated("", None),
        done("", None),
    ]
    assert talk.hear(end) == []
    assert talk.machine.late == 1


def test_barge_in_tells_generated_and_heard_apart() -> None:
    talk = Talk()
    text = "One two three four five six."
    talk.hear(delta(text), whole(text), AudioDone())
    talk.wait(1.0)
    assert talk.hear(SpeechStarted()) == [
        UserSpeaking(),
        ResponseInterrupted(response_id="r1", text=text, heard="One two"),
    ]
    assert talk.hear(SpeechStopped(), InputTranscript(content="Stop.")) == [
        UserSilent(),
        UserTurn(text="Stop."),
    ]
    assert talk.timers.next() is None


def test_what_was_spoken_already_is_not_interrupted() -> None:
    talk = Talk()
    talk.hear(whole("Hello."), AudioDone())
    assert talk.wait(5.0) == [done("Hello.")]
    assert talk.hear(SpeechStarted()) == [UserSpeaking()]


def test_an_interruption_of_ours() -> None:
    talk = Talk()
    talk.hear(delta("One two three "))
    talk.wait(0.5)
    assert talk.say(AudioClear()) == [
        ResponseInterrupted(response_id="r1", text="One two three ", heard="One")
    ]
    assert talk.say(AudioCommit()) == []


def test_what_comes_for_an_interrupted_answer_is_late() -> None:
    talk = Talk()
    talk.hear(delta("One "), SpeechStarted())
    assert talk.hear(delta("two "), whole("One two "), AudioDone()) == []
    assert talk.machine.late == 3
    assert talk.hear(SpeechStarted()) == [], "the user is known to speak"
    assert talk.hear(SpeechStopped(), SpeechStopped()) == [UserSilent()]
    assert talk.machine.late == 4


def test_the_end_of_audio_goes_to_the_answer_whose_text_ended_last() -> None:
    talk = Talk()
    talk.hear(delta("One "), SpeechStarted(), SpeechStopped())
    talk.hear(delta("Two.", "r2"))
    # The interrupted one ends properly, with the text that was told of it.
    assert talk.hear(whole("One ")) == []
    assert talk.hear(AudioDone()) == []
    assert talk.hear(whole("Two.", "r2"), AudioDone()) == [generated("Two.", "r2")]


def test_a_server_that_never_ends_what_was_interrupted() -> None:
    talk = Talk()
    talk.hear(delta("One "), SpeechStarted(), SpeechStopped())
    talk.hear(delta("Two.", "r2"))
    assert talk.hear(AudioDone()) == []
    assert talk.hear(whole("Two.", "r2")) == [generated("Two.", "r2")]


def test_the_end_of_audio_of_an_interrupted_answer_alone() -> None:
    talk = Talk()
    talk.hear(delta("One "), SpeechStarted())
    talk.say(ResponseCreate())
    assert talk.hear(AudioDone()) == [], "not an answer to the request"
    assert talk.machine.late == 1
    assert talk.hear(delta("Two.", "r2")) == [begun("r2"), piece("Two.", "r2")]


@pytest.mark.parametrize("end", [AudioDone(), ResponseCompleted(response_id="resp_calls")])
def test_the_end_of_a_response_of_calls_is_not_that_of_the_next_one(end: Message) -> None:
    talk = Talk()
    talk.say(ResponseCreate())
    talk.hear(FunctionCallDone(call_id="c1", name="f"), FunctionCallDone(call_id="c2", name="f"))
    talk.say(ToolResult(call_id="c1", output=""), ToolResult(call_id="c2", output=""))
    talk.say(ResponseCreate())
    assert talk.hear(end) == []
    assert talk.machine.late == 1
    assert talk.hear(delta("Two.", "r2")) == [begun("r2"), piece("Two.", "r2")]


@pytest.mark.parametrize("end", [AudioDone(), ResponseCompleted()])
def test_nor_is_the_end_of_one_that_failed(end: Message) -> None:
    talk = Talk()
    talk.say(ResponseCreate())
    talk.hear(ServerError(message="no model"))
    talk.say(ResponseCreate())
    assert talk.hear(end) == []
    assert talk.hear(end)[-1] == done("", None), "each comes once"


def test_a_server_that_never_ends_a_response_of_calls() -> None:
    talk = Talk()
    talk.hear(FunctionCallDone(call_id="c1", name="f"))
    talk.say(ToolResult(call_id="c1", output=""), ResponseCreate())
    talk.hear(whole("Two.", "r2"), AudioDone())
    talk.say(ResponseCreate())
    assert talk.hear(AudioDone())[-1] == done("", None), "the calls are forgotten"


def test_a_call_in_an_answer_has_no_end_of_its_own() -> None:
    talk = Talk()
    talk.hear(delta("Let me see."), FunctionCallDone(call_id="c1", name="f"))
    assert talk.hear(whole("Let me see."), AudioDone()) == [generated("Let me see.")]
    talk.say(ToolResult(call_id="c1", output=""), ResponseCreate())
    assert talk.hear(AudioDone())[-1] == done("", None)


def test_a_second_answer_is_spoken_after_the_first() -> None:
    talk = Talk()
    talk.hear(whole("Hello you."), AudioDone())
    talk.hear(whole("And you..", "r2"), AudioDone())
    assert talk.wait(1.0) == [done("Hello you.")]
    assert talk.wait(0.5) == []
    assert talk.hear(SpeechStarted())[1:] == [
        ResponseInterrupted(response_id="r2", text="And you..", heard="And")
    ]


def test_a_request_that_nobody_meets_fails() -> None:
    talk = Talk()
    talk.say(ResponseCreate())
    assert talk.hear(SpeechStarted()) == [UserSpeaking()], "it may still be answered"
    assert talk.wait(29.9) == []
    assert talk.wait(0.1) == [
        ResponseFailed(response_id=None, reason="no answer began within 30 s")
    ]


def test_an_answer_that_stops_in_the_middle_fails() -> None:
    talk = Talk()
    talk.hear(delta("Hello "))
    talk.wait(29.0)
    talk.hear(delta("you"))
    assert talk.wait(29.9) == []
    assert talk.wait(0.1) == [
        ResponseFailed(response_id="r1", reason="no answer went on within 30 s", text="Hello you")
    ]


def test_an_error_fails_what_has_not_begun() -> None:
    talk = Talk()
    talk.say(InputText(content="Hi"))
    assert talk.hear(ServerError(message="no model", code="m1")) == [
        ErrorReported(text="no model", code="m1"),
        ResponseFailed(response_id=None, reason="no model"),
    ]
    assert talk.hear(SynthesisError(stage="tts", message="")) == [
        ErrorReported(text="", code="tts")
    ]


def test_an_error_is_the_reason_of_an_answer_that_does_not_end() -> None:
    talk = Talk()
    talk.hear(delta("Hello "))
    assert talk.hear(ServerError(message="", code=None)) == [ErrorReported(text="")]
    assert talk.wait(30.0) == [
        ResponseFailed(response_id="r1", reason="the server reported an error", text="Hello ")
    ]
    talk.hear(delta("Yes", "r2"), ServerError(message="broken"), AudioDone())
    assert talk.wait(5.0) == [ResponseFailed(response_id="r2", reason="broken", text="Yes")]
    talk.hear(delta("Yes", "r3"), ServerError(message="harmless"), whole("Yes.", "r3"), AudioDone())
    assert talk.wait(5.0) == [done("Yes.", "r3")]


def test_the_end_of_the_session_ends_everything() -> None:
    talk = Talk()
    talk.hear(whole("Hello you."), AudioDone(), delta("And ", "r2"))
    talk.say(ResponseCreate())
    talk.hear(FunctionCallDone(call_id="c", name="f"))
    talk.wait(0.5)
    talk.machine.close(now=talk.now)
    assert talk.take() == [
        ResponseInterrupted(response_id="r1", text="Hello you.", heard="Hello"),
        ResponseFailed(response_id="r2", reason="the session ended", text="And "),
        ResponseFailed(response_id=None, reason="the session ended"),
    ]
    assert talk.timers.next() is None
    assert talk.machine.pending_calls == ()


def test_pictures_and_typed_text_ask_for_an_answer_where_they_say_so() -> None:
    talk = Talk()
    assert talk.say(InputImage(content="data:,"), UserMessage(texts=("x",), role="system")) == []
    assert talk.timers.next() is None
    talk.say(InputImage(content="data:,", reply=True))
    assert talk.timers.next() == T0 + 30.0


def test_messages_of_no_meaning_here() -> None:
    talk = Talk()
    assert talk.hear(AudioDelta(audio=b"\0\0")) == []


# ---- bounds


def test_the_text_of_an_answer_is_bounded() -> None:
    talk = Talk(transcript=10)
    assert talk.hear(delta("x" * 11)) == []
    talk.hear(delta("x" * 6))
    assert talk.hear(delta("y" * 5)) == []
    assert talk.hear(whole("z" * 11)) == []
    assert talk.wrong == ["more than 10 characters of one answer"] * 3
    assert talk.hear(delta("y" * 4)) == [piece("yyyy")]


def test_open_answers_are_bounded() -> None:
    talk = Talk(responses=2)
    talk.hear(delta("a", "r1"))
    talk.say(ResponseCreate())
    assert talk.say(ResponseCreate()) == [
        ResponseFailed(response_id="r1", reason="too many answers are open", text="a")
    ]
    for number in range(200):
        talk.hear(delta("a", f"s{number}"), SpeechStarted())
    assert len(talk.machine._late) == machine.LATE_KEPT
    for number in range(200 - machine.LATE_KEPT, 200):
        assert talk.hear(whole("a", f"s{number}"), whole("a", f"s{number}")) == []
    assert len(talk.machine._owed) == machine.LATE_KEPT


# ---- function calls


def test_a_call_waits_for_one_answer() -> None:
    talk = Talk()
    call = FunctionCallDone(call_id="c1", name="clock", arguments='{"zone": "UTC"}')
    assert talk.hear(FunctionCallDelta(call_id="c1", delta='{"zone"')) == []
    assert talk.machine.pending_calls == ()
    assert talk.hear(call) == [
        FunctionCall(call_id="c1", name="clock", arguments='{"zone": "UTC"}')
    ]
    assert talk.machine.pending_calls == ("c1",)
    assert talk.hear(FunctionCallDelta(call_id="c1", delta="x")) == []
    assert talk.machine.late == 1
    assert talk.hear(call) == []
    assert talk.wrong == ["the id of this function call was used before"]
    talk.say(ToolResult(call_id="c1", output="{}"))
    assert talk.machine.pending_calls == ()
    with pytest.raises(LocalProtocolError, match="answered already"):
        talk.say(ToolResult(call_id="c1", output="{}"))
    with pytest.raises(LocalProtocolError, match="no function call"):
        talk.say(FunctionCallOutput(call_id="c2", output="{}"))
    assert talk.timers.next() is None, "a plain result asks for no answer"


def test_an_answer_is_not_given_to_a_call_that_is_not_whole() -> None:
    talk = Talk()
    talk.hear(FunctionCallDelta(call_id="c1", delta="{"))
    with pytest.raises(LocalProtocolError, match="no function call"):
        talk.say(ToolResult(call_id="c1", output="{}"))


def test_the_newer_form_of_a_result_asks_for_an_answer() -> None:
    talk = Talk()
    talk.hear(FunctionCallDone(call_id="c1", name="f"), FunctionCallDone(call_id="c2", name="f"))
    talk.say(FunctionCallOutput(call_id="c1", output="{}", reply=False))
    assert talk.timers.next() is None
    talk.say(FunctionCallOutput(call_id="c2", output="{}"))
    assert talk.timers.next() == T0 + 30.0


@pytest.mark.parametrize(("deltas", "arguments"), [(('{"a"', ":1}"), '{"a":1}'), ((), "{}")])
def test_arguments_left_out_are_those_of_the_deltas(
    deltas: tuple[str, ...], arguments: str
) -> None:
    talk = Talk()
    talk.hear(*(FunctionCallDelta(call_id="c", delta=one) for one in deltas))
    assert talk.hear(FunctionCallDone(call_id="c", name="f")) == [
        FunctionCall(call_id="c", name="f", arguments=arguments)
    ]


def test_a_call_is_the_answer_unless_something_is_being_said() -> None:
    talk = Talk()
    talk.say(ResponseCreate())
    talk.hear(FunctionCallDone(call_id="c1", name="f"))
    assert talk.timers.next() is None
    talk.hear(delta("Let me see. "))
    talk.say(ResponseCreate())
    talk.hear(FunctionCallDone(call_id="c2", name="f"))
    assert talk.wait(30.0)[-1] == ResponseFailed(
        response_id=None, reason="no answer began within 30 s"
    )


def test_calls_are_bounded() -> None:
    talk = Talk(calls=2, arguments=4)
    talk.hear(FunctionCallDone(call_id="c1", name="f"), FunctionCallDelta(call_id="c2", delta="{"))
    talk.hear(FunctionCallDelta(call_id="c2", delta='"aaa'))
    talk.hear(FunctionCallDone(call_id="c2", name="f", arguments="[1,2]"))
    assert talk.wrong == ["more than 4 characters of arguments"] * 2
    talk.hear(FunctionCallDone(call_id="c3", name="f"))
    assert talk.machine.pending_calls == ("c3",)
    assert talk.machine.calls_forgotten == 1
    with pytest.raises(LocalProtocolError, match="no function call"):
        talk.say(ToolResult(call_id="c1", output=""))
    talk.say(ToolResult(call_id="c3", output=""))
    talk.hear(FunctionCallDone(call_id="c4", name="f"))
    assert talk.machine.calls_forgotten == 1, "one that was answered is not missed"
    assert talk.wrong[2:] == []


def test_the_table_of_calls() -> None:
    assert CALL_TRANSITIONS[CallState.PENDING, CallInput.C_RESULT] is CallState.ANSWERED
    assert (CallState.ANSWERED, CallInput.C_RESULT) not in CALL_TRANSITIONS
    assert (CallState.PENDING, CallInput.S_DONE) not in CALL_TRANSITIONS


@pytest.mark.parametrize(
    ("characters", "heard"),
    [
        (-1.0, ""),
        (0.0, ""),
        (2.9, ""),
        (3.0, "One"),
        (6.5, "One"),
        (7.0, "One two"),
        (99, "One two "),
    ],
)
def test_heard_in_whole_words(characters: float, heard: str) -> None:
    assert heard_part("One two ", characters) == heard
