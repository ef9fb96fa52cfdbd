"""What is said in a session, as the client sees it: answers, the user's turns, function calls.

Theory of operation
===================

1. Messages in, events out (:attr:`Conversation.out`). Both directions count: what the server sends,
   and what we sent (a request for an answer, a tool's result). Nothing is sent from here.

2. A response is a row of ``TRANSITIONS``: keyed by the server's response id, or nameless while it
   is only asked for. It ends once: done, interrupted or failed, and that is told once. What comes
   for it afterwards is late: dropped and counted.

3. Two messages end the generation, in either order, and either may be missing: the whole text and
   the end of the audio. WORDED and VOICED are the halves. ``response.audio.done`` names no
   response; :meth:`Conversation._owner_of_audio_end` says whose it is. A response of function calls
   alone, or one that failed, may bring an end too: that is not the end of the one asked for next.

4. An answer is generated within a moment and spoken for seconds, and no message tells when the
   voice has ended. SPEAKING lasts as long as the text takes at a rate of speech; what was heard at
   an interruption is reckoned by the same rate. Estimates, and called so.

5. Every response that is open has one deadline. The nearest of them is ``Timer.RESPONSE``.

6. A function call waits for exactly one answer of ours. A second one is our mistake, a call id used
   twice is the server's.

What does not fit: REQUESTED has no id, so a request is met by the next response that begins, or by
the next function call while nothing is being said, whatever it was that the server answered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

from attrs import define

from navtalk_proto.construct import positional
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
from navtalk_proto.identity_hash import identity_hash
from navtalk_proto.limits import Limits
from navtalk_proto.timers import Timer, Timers
from navtalk_proto.wire.messages import (
    AudioClear,
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

__all__ = [
    "CALL_TRANSITIONS",
    "GRACE",
    "IGNORED",
    "TRANSITIONS",
    "CallInput",
    "CallState",
    "Conversation",
    "Effect",
    "Input",
    "State",
    "heard_part",
]

GRACE: Final = 3.0
"""Seconds that the missing half of an answer may come after the answer can have been spoken."""

_HEARD: Final = frozenset(
    {
        TranscriptDelta,
        TranscriptDone,
        AudioDone,
        ResponseCompleted,
        SpeechStarted,
        SpeechStopped,
        InputTranscript,
        ServerError,
        SynthesisError,
        FunctionCallDelta,
        FunctionCallDone,
    }
)
"""What the server says of the conversation. The rest is status, media over the socket, unmapped."""

LATE_KEPT: Final = 64
"""Ended responses whose ids are remembered, so that what is late does not begin them again."""


@identity_hash
class State(Enum):
    """Where a response is."""

    REQUESTED = "requested"
    """Asked for; the server has not begun."""
    STREAMING = "streaming"
    """Text arrives."""
    WORDED = "worded"
    """The text is whole, the end of the audio is not told yet."""
    VOICED = "voiced"
    """The audio is generated, the whole text is not told yet."""
    SPEAKING = "speaking"
    """All of it is generated, and is being spoken."""
    DONE = "done"
    INTERRUPTED = "interrupted"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more can come of it."""
        return self in (State.DONE, State.INTERRUPTED, State.FAILED)


@identity_hash
class Input(Enum):
    """What can happen to a response. ``S_``: the server sends, ``C_``: we send."""

    S_DELTA = "transcript.delta"
    S_TEXT = "transcript.done"
    S_AUDIO_END = "audio.done"
    S_COMPLETED = "response.completed"
    BARGE_IN = "speech_started or clear"
    S_ERROR = "error"
    S_CALL = "function call"
    T_OVERDUE = "response timer"
    END = "end of the session"


class Effect(Enum):
    """What an edge does."""

    BEGIN = "tell that it began, with its first text"
    BEGIN_WHOLE = "tell that it began, take the whole text"
    BEGIN_EMPTY = "tell an answer without words"
    APPEND = "tell more text"
    TAKE_TEXT = "take the whole text"
    WAIT = "wait for the other half"
    GENERATED = "tell that all is generated"
    GENERATED_BY_TEXT = "take the whole text, tell that all is generated"
    NOTE_ERROR = "keep the error as the reason of a failure"
    MET_BY_CALL = "the call is the answer"
    DONE = "tell that it was spoken"
    GIVE_UP_WAITING = "tell that all is generated, and spoken; failed after an error"
    INTERRUPT = "tell the interruption, with what was heard"
    FAIL = "tell the failure"


Edge: TypeAlias = tuple[State, Effect]
"""The next state, and what is done."""


def _build() -> dict[tuple[State, Input], Edge]:
    requested, streaming, worded = State.REQUESTED, State.STREAMING, State.WORDED
    voiced, speaking = State.VOICED, State.SPEAKING
    table: dict[tuple[State, Input], Edge] = {
        (requested, Input.S_DELTA): (streaming, Effect.BEGIN),
        (requested, Input.S_TEXT): (worded, Effect.BEGIN_WHOLE),
        (requested, Input.S_AUDIO_END): (State.DONE, Effect.BEGIN_EMPTY),
        (requested, Input.S_COMPLETED): (State.DONE, Effect.BEGIN_EMPTY),
        (requested, Input.S_ERROR): (State.FAILED, Effect.FAIL),
        (requested, Input.S_CALL): (State.DONE, Effect.MET_BY_CALL),
        (requested, Input.T_OVERDUE): (State.FAILED, Effect.FAIL),
        (requested, Input.END): (State.FAILED, Effect.FAIL),
        (streaming, Input.S_DELTA): (streaming, Effect.APPEND),
        (streaming, Input.S_TEXT): (worded, Effect.TAKE_TEXT),
        (streaming, Input.S_AUDIO_END): (voiced, Effect.WAIT),
        (streaming, Input.S_COMPLETED): (speaking, Effect.GENERATED),
        (streaming, Input.T_OVERDUE): (State.FAILED, Effect.FAIL),
        (streaming, Input.END): (State.FAILED, Effect.FAIL),
        (worded, Input.S_AUDIO_END): (speaking, Effect.GENERATED),
        (worded, Input.S_COMPLETED): (speaking, Effect.GENERATED),
        (worded, Input.T_OVERDUE): (State.DONE, Effect.GIVE_UP_WAITING),
        (voiced, Input.S_DELTA): (voiced, Effect.APPEND),
        (voiced, Input.S_TEXT): (speaking, Effect.GENERATED_BY_TEXT),
        (voiced, Input.S_COMPLETED): (speaking, Effect.GENERATED),
        (voiced, Input.T_OVERDUE): (State.DONE, Effect.GIVE_UP_WAITING),
        (speaking, Input.T_OVERDUE): (State.DONE, Effect.DONE),
    }
    for state in (streaming, worded, voiced, speaking):
        table[state, Input.BARGE_IN] = (State.INTERRUPTED, Effect.INTERRUPT)
        table[state, Input.S_ERROR] = (state, Effect.NOTE_ERROR)
    for state in (worded, voiced, speaking):
        # The session ends while the voice is heard, or has yet to be.
        table[state, Input.END] = (State.INTERRUPTED, Effect.INTERRUPT)
    return table


TRANSITIONS: Final[Mapping[tuple[State, Input], Edge]] = MappingProxyType(_build())

IGNORED: Final[frozenset[tuple[State, Input]]] = frozenset(
    # The server may answer what was asked for before the user spoke as well.
    {(State.REQUESTED, Input.BARGE_IN)}
    # A call made in the middle of an answer.
    | {
        (state, Input.S_CALL)
        for state in (State.STREAMING, State.WORDED, State.VOICED, State.SPEAKING)
    }
    | {(State.WORDED, Input.S_DELTA), (State.WORDED, Input.S_TEXT)}
    | {(State.VOICED, Input.S_AUDIO_END)}
    | {
        (State.SPEAKING, late)
        for late in (Input.S_DELTA, Input.S_TEXT, Input.S_AUDIO_END, Input.S_COMPLETED)
    }
    | {(ended, late) for ended in State if ended.ended for late in Input}
)
"""Late, or on purpose. There is no third class: nothing said of an answer is a mistake."""


class CallState(Enum):
    """Where a function call is."""

    UNKNOWN = "unknown"
    COLLECTING = "collecting"
    """Pieces of its arguments arrive."""
    PENDING = "pending"
    """It waits for our answer."""
    ANSWERED = "answered"


class CallInput(Enum):
    """What can happen to a function call."""

    S_DELTA = "function_call_arguments.delta"
    S_DONE = "function_call_arguments.done"
    C_RESULT = "result"


CALL_TRANSITIONS: Final[Mapping[tuple[CallState, CallInput], CallState]] = MappingProxyType(
    {
        (CallState.UNKNOWN, CallInput.S_DELTA): CallState.COLLECTING,
        (CallState.UNKNOWN, CallInput.S_DONE): CallState.PENDING,
        (CallState.COLLECTING, CallInput.S_DELTA): CallState.COLLECTING,
        (CallState.COLLECTING, CallInput.S_DONE): CallState.PENDING,
        (CallState.PENDING, CallInput.S_DELTA): CallState.PENDING,
        (CallState.PENDING, CallInput.C_RESULT): CallState.ANSWERED,
        (CallState.ANSWERED, CallInput.S_DELTA): CallState.ANSWERED,
    }
)
"""A missing pair is a mistake of its sender. Deltas of a call that is whole are late."""


_response_text: Final = positional(ResponseText)

_ENDS: Final = frozenset({Input.S_AUDIO_END, Input.S_COMPLETED})
"""What ends a response and may name none."""

_GENERATING: Final = frozenset({State.STREAMING, State.WORDED, State.VOICED})
"""Begun, and not all of it was told to be generated: a call is one of this answer."""


@define(eq=False)
class _Response:
    """One answer."""

    state: State
    deadline: float
    id: str | None = None
    text: str = ""
    begins: float | None = None
    """When its voice can have begun: with its first text, or after the answer before it."""
    error: str = ""
    audio_ended: bool = False
    texted: int = 0
    """When its whole text came, counted over all responses; 0: not yet."""


@define(eq=False)
class _Call:
    state: CallState
    arguments: str = ""


def heard_part(text: str, characters: float) -> str:
    """The whole words of `text` that fit into so many characters."""
    if characters >= len(text):
        return text
    cut = max(int(characters), 0)
    while cut and not text[cut].isspace():
        cut -= 1
    return text[:cut].rstrip()


class Conversation:
    """The conversation of one session, on the client.

    Driven by the connection: :meth:`received` and :meth:`sent` with each conversation message,
    :meth:`timeout` when ``Timer.RESPONSE`` fires, :meth:`close` when the session ends. The events
    of an input are in :attr:`out`, to be taken after it.
    """

    def __init__(
        self, *, limits: Limits, response_timeout: float, speech_rate: float, timers: Timers
    ) -> None:
        self._limits = limits
        self._response_timeout = response_timeout
        self._speech_rate = speech_rate
        self._timers = timers
        self._open: list[_Response] = []
        """Not ended, in the order in which they were asked for or began."""
        self._owed: list[_Response] = []
        """Begun, ended or not, whose end of audio was not told yet."""
        self._wordless: set[Input] = set()
        """Ends that a response without text may still bring: it was all calls, or failed."""
        self._late: OrderedDict[str, _Response] = OrderedDict()
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._texts = 0
        self.user_speaking: bool = False
        """Whether the server hears the user."""
        self.late: int = 0
        """Messages dropped because what they belong to had ended, or never was."""
        self.calls_forgotten: int = 0
        """Function calls that can be answered no more, because too many others waited too."""
        self.out: list[ConversationEvent] = []

    @property
    def pending_calls(self) -> tuple[str, ...]:
        """The ids of the function calls that wait for an answer, oldest first."""
        return tuple(i for i, call in self._calls.items() if call.state is CallState.PENDING)

    # ---- inputs

    def received(self, message: object, *, now: float) -> str | None:
        """A message of the server. Returns what is wrong with it, None for nothing."""
        if type(message) not in _HEARD:
            return None
        wrong = None
        match message:
            case TranscriptDelta(response_id=response_id, content=content):
                wrong = self._text(Input.S_DELTA, response_id, content, now)
            case TranscriptDone(response_id=response_id, content=text):
                wrong = self._text(Input.S_TEXT, response_id, text, now)
            case AudioDone():
                self._take(self._owner_of_audio_end(), Input.S_AUDIO_END, now)
            case ResponseCompleted(response_id=response_id):
                self._take(self._completed(response_id), Input.S_COMPLETED, now)
            case SpeechStarted():
                if not self.user_speaking:
                    self.user_speaking = True
                    self.out.append(UserSpeaking())
                self._interrupt(now)
            case SpeechStopped():
                if self.user_speaking:
                    self.user_speaking = False
                    self.out.append(UserSilent())
                else:
                    self.late += 1
            case InputTranscript(content=content):
                self.out.append(UserTurn(text=content))
            case ServerError(message=text, code=code):
                self._error(text, code, now)
            case SynthesisError(message=text, stage=stage):
                self._error(text, stage, now)
            case FunctionCallDelta(call_id=call_id, delta=delta):
                wrong = self._call_delta(call_id, delta)
            case _:
                assert isinstance(message, FunctionCallDone)
                wrong = self._call(message, now)
        self._rearm()
        return wrong

    def check(self, message: Message) -> None:
        """Raise LocalProtocolError for a message of ours that answers no call that waits."""
        if isinstance(message, ToolResult | FunctionCallOutput):
            call = self._calls.get(message.call_id)
            state = CallState.UNKNOWN if call is None else call.state
            if (state, CallInput.C_RESULT) not in CALL_TRANSITIONS:
                raise LocalProtocolError(
                    "the function call was answered already"
                    if state is CallState.ANSWERED
                    else "no function call of this id waits for an answer"
                )

    def accepted(self, message: Message) -> None:
        """A message of ours that passed :meth:`check` will leave, now or when the session is READY.

        A call is answered from here on: a second answer must not wait beside the first.
        """
        if isinstance(message, ToolResult | FunctionCallOutput):
            call = self._calls[message.call_id]
            call.state = CALL_TRANSITIONS[call.state, CallInput.C_RESULT]

    def sent(self, message: Message, *, now: float) -> None:
        """A message of ours left."""
        match message:
            case ResponseCreate() | InputImage(reply=True) | FunctionCallOutput(reply=True):
                self._add(now)
            case UserMessage(texts=texts, role="user"):
                self.out.append(UserTurn(text=" ".join(texts), typed=True))
            case InputText(content=content):
                self.out.append(UserTurn(text=content, typed=True))
                self._add(now)
            case AudioClear():
                self._interrupt(now)
            case _:
                pass
        self._rearm()

    def timeout(self, *, now: float) -> None:
        """``Timer.RESPONSE`` fired: whatever is overdue ends."""
        for response in list(self._open):
            if response.deadline <= now:
                self._take(response, Input.T_OVERDUE, now)
        self._rearm()

    def close(self, *, now: float) -> None:
        """The session ends, and with it what is open."""
        for response in list(self._open):
            self._take(response, Input.END, now)
        self._owed.clear()
        self._wordless.clear()
        self._calls.clear()
        self._rearm()

    # ---- whose is it

    def _find(self, response_id: str) -> _Response | None:
        for response in self._open:
            if response.id == response_id:
                return response
        return self._late.get(response_id)

    def _requested(self) -> _Response | None:
        return next((one for one in self._open if one.state is State.REQUESTED), None)

    def _owner_of_audio_end(self) -> _Response | None:
        texted = max(self._owed, key=lambda one: one.texted, default=None)
        if texted is not None and texted.texted:
            return texted
        # Ended ones that never said their text come last: the server may not end those at all.
        for response in reversed(self._owed):
            if not response.state.ended:
                return response
        if self._owed:
            return self._owed[0]
        return None if self._ends_wordless(Input.S_AUDIO_END) else self._requested()

    def _ends_wordless(self, kind: Input) -> bool:
        """Whether an end is that of a response without text, which may bring each end once.

        A client that answers a call at once asks for the next response before this one has ended.
        """
        expected = kind in self._wordless
        self._wordless.discard(kind)
        return expected

    def _completed(self, response_id: str | None) -> _Response | None:
        if response_id is not None and (known := self._find(response_id)) is not None:
            return known
        # Without a name, or with one that no text bore: it is the only one that it can be.
        begun = [one for one in self._open if one.state is not State.REQUESTED]
        if begun:
            return begun[0]
        return None if self._ends_wordless(Input.S_COMPLETED) else self._requested()

    # ---- responses

    def _text(self, kind: Input, response_id: str, content: str | None, now: float) -> str | None:
        response = self._find(response_id)
        text = content or ""
        if kind is Input.S_DELTA and response is not None:
            text = response.text + text
        if len(text) > self._limits.transcript:
            return f"more than {self._limits.transcript} characters of one answer"
        if response is None:
            response = self._begin(response_id, now)
        if kind is Input.S_TEXT:
            # Also of one that was interrupted: the next end of audio is this one's.
            self._texts += 1
            response.texted = self._texts
            if not response.audio_ended and response not in self._owed:
                self._owed.append(response)
        if (response.state, kind) in TRANSITIONS and content is not None:
            response.text = text
        self._take(response, kind, now, delta=content or "")
        return None

    def _begin(self, response_id: str, now: float) -> _Response:
        """The response that this id begins: the oldest that was asked for, or a new one."""
        response = self._requested()
        if response is None:
            response = self._add(now)
        response.id = response_id
        response.begins = max(
            [now, *(self._spoken_by(one) for one in self._open if one.begins is not None)]
        )
        # Servers make one answer after the other: the audio of one that ended before this began is
        # not spoken of any more.
        self._owed = [one for one in self._owed if not one.state.ended]
        self._wordless.clear()
        self._owed.append(response)
        return response

    def _add(self, now: float) -> _Response:
        if len(self._open) >= self._limits.responses:
            # The oldest has waited longest: it gets what its deadline would have brought.
            self._take(self._open[0], Input.T_OVERDUE, now, reason="too many answers are open")
        response = _Response(State.REQUESTED, now + self._response_timeout)
        self._open.append(response)
        return response

    def _interrupt(self, now: float) -> None:
        for response in list(self._open):
            self._take(response, Input.BARGE_IN, now)

    def _error(self, text: str, code: str | None, now: float) -> None:
        self.out.append(ErrorReported(text=text, code=code))
        reason = text or code or "the server reported an error"
        response = self._requested() or (self._open[-1] if self._open else None)
        if response is not None:
            if response.state is State.REQUESTED:
                self._wordless = set(_ENDS)
            else:
                response.error = reason
            self._take(response, Input.S_ERROR, now, reason=reason)

    def _take(
        self,
        response: _Response | None,
        kind: Input,
        now: float,
        *,
        delta: str = "",
        reason: str = "",
    ) -> None:
        """Everything that moves a response is here."""
        if kind in (Input.S_AUDIO_END, Input.S_COMPLETED) and response is not None:
            response.audio_ended = True
            if response in self._owed:
                self._owed.remove(response)
        edge = None if response is None else TRANSITIONS.get((response.state, kind))
        if response is None or edge is None:
            if kind not in (Input.BARGE_IN, Input.S_CALL):
                self.late += 1
            return
        was, (response.state, effect) = response.state, edge
        if response.state.ended:
            self._open.remove(response)
            if response.id is not None:
                self._late[response.id] = response
                if len(self._late) > LATE_KEPT:
                    self._late.popitem(last=False)
        match effect:
            case Effect.BEGIN | Effect.BEGIN_WHOLE:
                self.out.append(ResponseStarted(response_id=response.id))
            case Effect.BEGIN_EMPTY:
                self.out.append(ResponseStarted(response_id=None))
                self.out.append(ResponseGenerated(response_id=None, text=""))
                self.out.append(ResponseDone(response_id=None, text=""))
            case Effect.GENERATED | Effect.GENERATED_BY_TEXT:
                self.out.append(ResponseGenerated(response_id=response.id, text=response.text))
            case Effect.DONE:
                self.out.append(ResponseDone(response_id=response.id, text=response.text))
            case Effect.GIVE_UP_WAITING:
                if was is State.VOICED and response.error:
                    response.state = State.FAILED
                    self._fail(response, response.error)
                else:
                    self.out.append(ResponseGenerated(response_id=response.id, text=response.text))
                    self.out.append(ResponseDone(response_id=response.id, text=response.text))
            case Effect.INTERRUPT:
                assert response.begins is not None
                characters = (now - response.begins) * self._speech_rate
                heard = heard_part(response.text, characters)
                self.out.append(
                    ResponseInterrupted(response_id=response.id, text=response.text, heard=heard)
                )
            case Effect.FAIL:
                self._fail(response, reason or response.error or self._why(was, kind))
            case _:
                pass
        if effect in (Effect.BEGIN, Effect.APPEND):
            assert response.id is not None
            self.out.append(_response_text(response.id, delta))
        self._set_deadline(response, now)

    def _why(self, was: State, kind: Input) -> str:
        if kind is Input.END:
            return "the session ended"
        what = "began" if was is State.REQUESTED else "went on"
        return f"no answer {what} within {self._response_timeout:g} s"

    def _fail(self, response: _Response, reason: str) -> None:
        self.out.append(ResponseFailed(response_id=response.id, reason=reason, text=response.text))

    def _spoken_by(self, response: _Response) -> float:
        """When the text known so far can have been spoken."""
        assert response.begins is not None
        return response.begins + len(response.text) / self._speech_rate

    def _set_deadline(self, response: _Response, now: float) -> None:
        match response.state:
            case State.STREAMING:
                response.deadline = now + self._response_timeout
            case State.WORDED | State.VOICED:
                response.deadline = max(now, self._spoken_by(response)) + GRACE
            case State.SPEAKING:
                response.deadline = max(now, self._spoken_by(response))
            case _:
                pass

    def _rearm(self) -> None:
        nearest = min((one.deadline for one in self._open), default=None)
        if nearest is None:
            self._timers.stop(Timer.RESPONSE)
        else:
            self._timers.arm(Timer.RESPONSE, nearest)

    # ---- function calls

    def _call_delta(self, call_id: str, delta: str) -> str | None:
        call = self._calls.get(call_id)
        if call is None:
            call = self._add_call(call_id)
        if call.state is not CallState.COLLECTING:
            self.late += 1
            return None
        if len(call.arguments) + len(delta) > self._limits.arguments:
            return f"more than {self._limits.arguments} characters of arguments"
        call.arguments += delta
        return None

    def _call(self, message: FunctionCallDone, now: float) -> str | None:
        call = self._calls.get(message.call_id)
        if call is None:
            call = self._add_call(message.call_id)
        if (call.state, CallInput.S_DONE) not in CALL_TRANSITIONS:
            return "the id of this function call was used before"
        if len(message.arguments) > self._limits.arguments:
            return f"more than {self._limits.arguments} characters of arguments"
        # "{}" is also what the codec makes of arguments left out.
        arguments = call.arguments if message.arguments == "{}" else message.arguments
        call.state, call.arguments = CallState.PENDING, ""
        self.out.append(
            FunctionCall(call_id=message.call_id, name=message.name, arguments=arguments or "{}")
        )
        if not any(one.state in _GENERATING for one in self._open):
            self._wordless = set(_ENDS)
        if not any(one.state is State.STREAMING for one in self._open):
            self._take(self._requested(), Input.S_CALL, now)
        return None

    def _add_call(self, call_id: str) -> _Call:
        """A new call. Over the limit the oldest answered one is forgotten, else the oldest.

        An application that answers no calls is no mistake of the server's.
        """
        if len(self._calls) >= self._limits.calls:
            answered = (i for i, one in self._calls.items() if one.state is CallState.ANSWERED)
            oldest = next(answered, None)
            if oldest is None:
                oldest = next(iter(self._calls))
                self.calls_forgotten += 1
            del self._calls[oldest]
        call = self._calls[call_id] = _Call(CallState.COLLECTING)
        return call
