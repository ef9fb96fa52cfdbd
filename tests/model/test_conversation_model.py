"""Whatever is said in whatever order: the machine tells what a naive reading of the log tells.

The reference keeps the log of each answer and derives from it, each time anew, what has to have
been told of that answer. It has no states, no table and no deadlines but sums over the log.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from navtalk_proto.errors import LocalProtocolError
from navtalk_proto.events import (
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
from navtalk_proto.machines.conversation import GRACE, Conversation
from navtalk_proto.timers import Timer, Timers
from navtalk_proto.wire.messages import (
    AudioClear,
    AudioDone,
    FunctionCallDone,
    InputTranscript,
    ResponseCreate,
    SpeechStarted,
    SpeechStopped,
    ToolResult,
    TranscriptDelta,
    TranscriptDone,
    UserMessage,
)

RATE = 8.0
PATIENCE = 30.0
QUARTER = 0.25
"""All times are whole quarters of a second, and eight characters take one: sums are exact."""

words = st.sampled_from(["a ", "bb ", "ccc. ", "dddd eeee ", ""])


@define
class Answer:
    """The log of one answer: (time, what, text)."""

    id: str
    after: float
    """When the voices before it end, as far as was known when it began."""
    log: list[tuple[float, str, str]] = field(factory=list)

    def told(self, now: float) -> list[Any]:
        """What has to have been told of it by now."""
        events: list[Any] = [ResponseStarted(response_id=self.id)]
        text, whole, voiced, last = "", False, False, self.log[0][0]
        begins = max(self.log[0][0], self.after)

        def ends() -> float:
            if whole and voiced:
                return max(last, begins + len(text) / RATE)
            if whole or voiced:
                return max(last, begins + len(text) / RATE) + GRACE
            return last + PATIENCE

        def finish() -> list[Any]:
            if not whole and not voiced:
                reason = f"no answer went on within {PATIENCE:g} s"
                return [ResponseFailed(response_id=self.id, reason=reason, text=text)]
            done = [ResponseDone(response_id=self.id, text=text)]
            if whole and voiced:
                return done
            return [ResponseGenerated(response_id=self.id, text=text), *done]

        for when, what, more in self.log:
            if ends() <= when and when > last:
                return events + finish()
            if what == "cut":
                heard = text if (when - begins) * RATE >= len(text) else None
                if heard is None:
                    fits = [""] + [
                        text[:n].rstrip()
                        for n in range(int(max(when - begins, 0) * RATE) + 1)
                        if n < len(text) and (n == 0 or text[n].isspace())
                    ]
                    heard = fits[-1]
                events.append(ResponseInterrupted(response_id=self.id, text=text, heard=heard))
                return events
            if what == "delta" and not whole:
                text += more
                events.append(ResponseText(response_id=self.id, delta=more))
                last = when
            elif what == "text" and not whole:
                text, whole, last = more, True, when
            elif what == "audio" and not voiced:
                voiced, last = True, when
            else:
                continue
            if whole and voiced:
                events.append(ResponseGenerated(response_id=self.id, text=text))
        return events + finish() if ends() <= now else events

    def open(self, now: float) -> bool:
        return not isinstance(
            self.told(now)[-1], ResponseDone | ResponseFailed | ResponseInterrupted
        )

    def streams(self, now: float) -> bool:
        """Whether it is being generated, with neither end told."""
        return self.open(now) and {what for _, what, _ in self.log} == {"delta"}

    def generates(self, now: float) -> bool:
        """Whether it is being generated: an end, or both, are not told."""
        return self.open(now) and not {"text", "audio"} <= {what for _, what, _ in self.log}

    def spoken_by(self) -> float:
        """When the text known so far can have been spoken."""
        wholes = [more for _, what, more in self.log if what == "text"]
        text = wholes[0] if wholes else "".join(more for _, _, more in self.log)
        return max(self.log[0][0], self.after) + len(text) / RATE


class ConversationModel(RuleBasedStateMachine):
    """One session; answers are told apart by their ids, the server makes one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.timers = Timers()
        self.machine = Conversation(
            limits=Limits(responses=64),
            response_timeout=PATIENCE,
            speech_rate=RATE,
            timers=self.timers,
        )
        self.events: list[Any] = []
        self.answers: list[Answer] = []
        self.user: list[Any] = []
        self.speaking = False
        self.calls: dict[str, bool] = {}
        self.asked: list[float] = []
        """When answers were asked for that have not begun."""
        self.unmet = 0
        self.wordless = False
        """The last response was all function calls, and its audio was not ended."""

    # ---- the two sides of the machine

    def receive(self, *messages: Any) -> None:
        for message in messages:
            assert self.machine.received(message, now=self.now) is None
        self.collect()

    def send(self, message: Any) -> None:
        self.machine.check(message)
        self.machine.accepted(message)
        self.machine.sent(message, now=self.now)
        self.collect()

    def collect(self) -> None:
        self.events += self.machine.out
        self.machine.out = []

    @property
    def current(self) -> Answer | None:
        return self.answers[-1] if self.answers else None

    def last_is_open(self) -> bool:
        return self.current is not None and self.current.open(self.now)

    # ---- what the server does

    @rule(text=words)
    def begin(self, text: str) -> None:
        if self.last_is_open() and "audio" not in [what for _, what, _ in self.answers[-1].log]:
            return  # One after the other: the generation before it has ended.
        after = max((one.spoken_by() for one in self.answers if one.open(self.now)), default=0.0)
        answer = Answer(f"r{len(self.answers)}", after)
        answer.log.append((self.now, "delta", text))
        self.answers.append(answer)
        self.wordless = False
        del self.asked[:1]
        self.receive(TranscriptDelta(response_id=answer.id, content=text))

    @precondition(lambda self: self.answers)
    @rule(text=words)
    def go_on(self, text: str) -> None:
        answer = self.answers[-1]
        answer.log.append((self.now, "delta", text))
        self.receive(TranscriptDelta(response_id=answer.id, content=text))

    @precondition(lambda self: self.answers)
    @rule(text=words)
    def say_the_whole_text(self, text: str) -> None:
        answer = self.answers[-1]
        answer.log.append((self.now, "text", text))
        self.receive(TranscriptDone(response_id=answer.id, content=text))

    @precondition(lambda self: self.last_is_open())
    @rule()
    def end_the_audio(self) -> None:
        answer = self.answers[-1]
        if "audio" in [what for _, what, _ in answer.log]:
            return
        answer.log.append((self.now, "audio", ""))
        self.receive(AudioDone())

    @precondition(lambda self: self.answers)
    @rule(back=st.integers(1, 3), text=words)
    def say_something_late(self, back: int, text: str) -> None:
        """A piece for an answer that has ended: nothing may come of it."""
        answer = self.answers[-min(back, len(self.answers))]
        if not answer.open(self.now):
            late = self.machine.late
            self.receive(TranscriptDelta(response_id=answer.id, content=text))
            assert self.machine.late == late + 1

    @rule()
    def hear_the_user(self) -> None:
        if not self.speaking:
            self.user.append(UserSpeaking())
        self.speaking = True
        self.cut()
        self.receive(SpeechStarted())

    def cut(self) -> None:
        for answer in self.answers:
            if answer.open(self.now):
                answer.log.append((self.now, "cut", ""))

    @rule()
    def hear_the_user_no_more(self) -> None:
        if self.speaking:
            self.user.append(UserSilent())
        self.speaking = False
        self.receive(SpeechStopped())

    @rule(text=words)
    def understand(self, text: str) -> None:
        self.user.append(UserTurn(text=text))
        self.receive(InputTranscript(content=text))

    @rule()
    def call(self) -> None:
        call_id = f"c{len(self.calls)}"
        self.calls[call_id] = False
        if not (self.current is not None and self.current.generates(self.now)):
            self.wordless = True
        if not (self.current is not None and self.current.streams(self.now)):
            del self.asked[:1]
        self.receive(FunctionCallDone(call_id=call_id, name="f"))

    @precondition(lambda self: self.wordless)
    @rule()
    def end_the_response_of_calls(self) -> None:
        """It had no text: nothing is told of its end, whatever was asked for since."""
        self.wordless = False
        told, late = len(self.events), self.machine.late
        self.receive(AudioDone())
        assert self.events[told:] == []
        assert self.machine.late == late + 1

    # ---- what we do

    @rule(number=st.integers(0, 5))
    def answer_a_call(self, number: int) -> None:
        result = ToolResult(call_id=f"c{number}", output="{}")
        if self.calls.get(f"c{number}", True):
            try:
                self.send(result)
            except LocalProtocolError:
                return
            raise AssertionError("a call was answered twice, or never was")
        self.calls[f"c{number}"] = True
        self.send(result)

    @rule(text=words)
    def type(self, text: str) -> None:
        self.user.append(UserTurn(text=text, typed=True))
        self.send(UserMessage(texts=(text,)))

    @rule()
    def interrupt(self) -> None:
        self.cut()
        self.send(AudioClear())

    @rule()
    def ask(self) -> None:
        self.asked.append(self.now)
        self.send(ResponseCreate())

    @rule(quarters=st.integers(1, 40))
    def wait(self, quarters: int) -> None:
        self.run_until(self.now + quarters * QUARTER)

    def run_until(self, until: float) -> None:
        while (due := self.timers.next()) is not None and due <= until:
            self.now = max(self.now, due)
            assert self.timers.pop_due(self.now) is Timer.RESPONSE
            self.machine.timeout(now=self.now)
            following = self.timers.next()
            assert following is None or following > self.now
        self.now = until
        overdue = [when for when in self.asked if when + PATIENCE <= self.now]
        self.unmet += len(overdue)
        del self.asked[: len(overdue)]
        self.collect()

    # ---- what has to be true

    @invariant()
    def each_answer_was_told_as_its_log_reads(self) -> None:
        self.run_until(self.now)
        for answer in self.answers:
            told = [one for one in self.events if getattr(one, "response_id", None) == answer.id]
            assert told == answer.told(self.now)

    @invariant()
    def requests_that_nobody_met_failed(self) -> None:
        failed = [
            one
            for one in self.events
            if isinstance(one, ResponseFailed) and one.response_id is None
        ]
        reason = f"no answer began within {PATIENCE:g} s"
        assert failed == [ResponseFailed(response_id=None, reason=reason)] * self.unmet

    @invariant()
    def the_user_was_told_as_it_happened(self) -> None:
        kinds = (UserSpeaking, UserSilent, UserTurn)
        assert [one for one in self.events if isinstance(one, kinds)] == self.user

    @invariant()
    def calls_wait_until_they_are_answered(self) -> None:
        assert self.machine.pending_calls == tuple(i for i, done in self.calls.items() if not done)
        told = [one.call_id for one in self.events if isinstance(one, FunctionCall)]
        assert told == list(self.calls)

    def teardown(self) -> None:
        self.machine.close(now=self.now)
        self.collect()
        started = [one for one in self.events if isinstance(one, ResponseStarted)]
        ends = (ResponseDone, ResponseFailed, ResponseInterrupted)
        ended = [one for one in self.events if isinstance(one, ends)]
        assert len(ended) == len(started) + self.unmet + len(self.asked)
        assert self.timers.next() is None


TestConversation = ConversationModel.TestCase
