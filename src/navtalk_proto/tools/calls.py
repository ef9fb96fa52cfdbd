"""Every call of a tool is answered exactly once: a machine without loop, clock or threads.

1. `called` takes a call of the model. It is answered at once where it cannot be carried out, else
   it is started, or waits for one that runs.
2. A call is *open* until its answer is given out. What answers it first counts: the result, what
   the function raised, the deadline, an interruption.
3. The function of a call that was answered may still run. It keeps its place until its end is
   reported; what it returns then is dropped and counted.
4. After the last open call was answered the model is asked for a response, once for all of them.
   Interrupted calls ask for none: the user is speaking, and that is answered anyway.
5. After `closed` nothing is answered; after `lost` nothing that was called before it. An id may
   come again then: whoever gives the calls makes the ids of different connections differ.

Deadlines are looked at before every input: a result that comes at its deadline is late, whether
the adapter's timer or the result is reported first.

What does not fit: an event does not say to which response a call belongs, so a call that is
answered at once, before the next call of the same response came, asks for a response of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from navtalk_proto.errors import LocalProtocolError, ToolFailedError
from navtalk_proto.events import FunctionCall
from navtalk_proto.limits import ToolLimits
from navtalk_proto.tools.arguments import ArgumentsError, ErrorCode, error_text, result_text
from navtalk_proto.tools.schema import OnInterrupt, Tool

__all__ = ["Answer", "Cancel", "Respond", "Start", "ToolAction", "ToolCalls", "ToolCounters"]


@frozen(kw_only=True)
class Start:
    """Run the tool's function with these keyword arguments, and report how it ended."""

    call_id: str
    tool: Tool
    arguments: Mapping[str, Any] = field(repr=False)


@frozen(kw_only=True)
class Cancel:
    """Cancel the function of a call; its end is still to be reported."""

    call_id: str


@frozen(kw_only=True)
class Answer:
    """Send a call's output to the model."""

    call_id: str
    output: str = field(repr=lambda text: f"<{len(text)} characters>")


@frozen(kw_only=True)
class Respond:
    """Ask the model for a response."""


ToolAction: TypeAlias = Start | Cancel | Answer | Respond


@define
class ToolCounters:
    """What a session's tools did. `called` is the sum of the others up to `unanswered`, and of the
    calls that are open."""

    called: int = 0
    """Calls of a function of ours, or of one that nobody knows."""
    returned: int = 0
    """Calls answered with a result."""
    failed: int = 0
    """Calls whose function raised, was cancelled by others, or returned what cannot be sent."""
    timed_out: int = 0
    interrupted: int = 0
    refused: int = 0
    """Calls of an unknown function, with invalid arguments, or too many at a time."""
    unanswered: int = 0
    """Calls that were open when the session ended."""
    late: int = 0
    """Results and exceptions that came after their call's answer, and were dropped."""
    repeated: int = 0
    """Calls whose id is that of a call whose function runs or waits; ignored."""
    unsent: int = 0
    """Answers that the connection did not take: the application had answered itself, or the session
    was ending."""


class _State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    GIVEN_UP = "given up"
    """Its function still runs, and nobody waits for it any more."""


@define(eq=False)
class _Call:
    call_id: str
    tool: Tool
    arguments: dict[str, Any]
    deadline: float
    state: _State = _State.WAITING


class ToolCalls:
    """Driven by a tool runner, which performs :meth:`actions` after every input.

    For each Start it reports one end: `returned`, `raised` or `cancelled`; KeyError where there was
    no Start. Nothing else raises. The time is the adapter's monotonic seconds.

    Ids that were answered and whose function has ended are forgotten: a connection gives out each
    call once.
    """

    def __init__(self, *, limits: ToolLimits | None = None) -> None:
        self.counters: Final[ToolCounters] = ToolCounters()
        self._functions: Mapping[str, Tool] = {}
        self._application: Collection[str] = ()
        self._limits = limits or ToolLimits()
        self._calls: dict[str, _Call] = {}
        self._actions: list[ToolAction] = []
        self._wanted = False
        """A response is to be asked for after the last open call's answer."""
        self._closed = False

    # ---- outputs

    def actions(self) -> list[ToolAction]:
        """What is to be done, in order; taken and cleared."""
        actions, self._actions = self._actions, []
        return actions

    def next_timeout(self) -> float | None:
        """When to call :meth:`handle_timeout`; None: not at all."""
        return min((call.deadline for call in self._open()), default=None)

    # ---- inputs

    def offered(self, functions: Mapping[str, Tool], *, application: Collection[str] = ()) -> None:
        """These are the tools from now on, by name. Calls that are open go on.

        `application` are the names of tools whose calls the application answers itself. Without any
        function all calls are the application's.
        """
        self._functions = functions
        self._application = application

    def called(self, call: FunctionCall, *, now: float) -> None:
        """The model calls a function."""
        self._expire(now)
        tool = self._functions.get(call.name)
        if self._closed or (tool is None and not self._refuses(call.name)):
            return
        if call.call_id in self._calls:
            self.counters.repeated += 1
            return
        self.counters.called += 1
        if tool is None:
            self._refuse(call, ErrorCode.UNKNOWN_FUNCTION, "there is no function of this name")
            return
        try:
            arguments = tool.read(call.arguments)
        except ArgumentsError as error:
            self._refuse(call, ErrorCode.INVALID_ARGUMENTS, str(error))
            return
        if self._count(_State.WAITING) == self._limits.waiting and self._is_full():
            self._refuse(call, ErrorCode.TOO_MANY_CALLS, "too many calls at a time; try again")
            return
        self._calls[call.call_id] = _Call(
            call.call_id, tool, arguments, deadline=now + tool.timeout
        )
        self._start_waiting()

    def returned(self, call_id: str, result: object, *, now: float) -> None:
        """The function of a call returned."""
        self._expire(now)
        if self._ended(call_id, late=True):
            try:
                text = result_text(result)
            except LocalProtocolError as error:
                self.counters.failed += 1
                text = error_text(ErrorCode.INVALID_RESULT, f"the function returned: {error}")
            else:
                self.counters.returned += 1
            self._answer(call_id, text)
        self._go_on()

    def raised(self, call_id: str, error: BaseException, *, now: float) -> None:
        """The function of a call raised. The text of a ToolFailedError is the model's to read."""
        self._expire(now)
        if self._ended(call_id, late=True):
            told = isinstance(error, ToolFailedError)
            self._fail(
                call_id, str(error) if told else f"the function raised {type(error).__name__}"
            )
        self._go_on()

    def cancelled(self, call_id: str, *, now: float) -> None:
        """The function of a call was cancelled: as told by Cancel, or by something else."""
        self._expire(now)
        if self._ended(call_id, late=False):
            self._fail(call_id, "the function was cancelled")
        self._go_on()

    def interrupted(self, *, now: float) -> None:
        """The user interrupts: speaks, or stopped the answer."""
        self._expire(now)
        self._wanted = False
        for call in self._open():
            if call.tool.on_interrupt is OnInterrupt.CANCEL:
                self.counters.interrupted += 1
                self._give_up(
                    call, error_text(ErrorCode.INTERRUPTED, "the user interrupted the call")
                )
        self._start_waiting()

    def asked(self, *, now: float) -> None:
        """The application answered a call of its own and wants a response: with that of ours."""
        self._expire(now)
        self._wanted = not self._closed
        self._go_on()

    def handle_timeout(self, *, now: float) -> None:
        """Time passed; early or repeated calls do no harm."""
        self._expire(now)

    def closed(self, *, now: float) -> None:
        """The session is over: functions that run are cancelled, and nothing is answered."""
        self._closed = True
        self.lost(now=now)

    def lost(self, *, now: float) -> None:
        """The connection was lost that the open calls came by: as closed, but others may come."""
        self._wanted = False
        for call in self._open():
            self.counters.unanswered += 1
            self._give_up(call, None)

    # ---- inside

    def _open(self) -> list[_Call]:
        return [call for call in self._calls.values() if call.state is not _State.GIVEN_UP]

    def _count(self, state: _State) -> int:
        return sum(call.state is state for call in self._calls.values())

    def _is_full(self) -> bool:
        return len(self._calls) - self._count(_State.WAITING) >= self._limits.running

    def _refuses(self, name: str) -> bool:
        return bool(self._functions) and name not in self._application

    def _refuse(self, call: FunctionCall, code: ErrorCode, message: str) -> None:
        self.counters.refused += 1
        self._answer(call.call_id, error_text(code, message))
        self._go_on()

    def _fail(self, call_id: str, message: str) -> None:
        self.counters.failed += 1
        self._answer(call_id, error_text(ErrorCode.FAILED, message))

    def _answer(self, call_id: str, output: str) -> None:
        self._wanted = True
        self._actions.append(Answer(call_id=call_id, output=output))

    def _ended(self, call_id: str, *, late: bool) -> bool:
        """Free a function's place; whether its call is still to be answered."""
        call = self._calls.pop(call_id)
        if call.state is _State.RUNNING:
            return True
        self.counters.late += late
        return False

    def _give_up(self, call: _Call, output: str | None) -> None:
        """Answer, or do not, without waiting for the function."""
        if output is not None:
            self._actions.append(Answer(call_id=call.call_id, output=output))
        if call.state is _State.RUNNING:
            call.state = _State.GIVEN_UP
            self._actions.append(Cancel(call_id=call.call_id))
        else:
            del self._calls[call.call_id]

    def _expire(self, now: float) -> None:
        due = [call for call in self._open() if call.deadline <= now]
        for call in due:
            self.counters.timed_out += 1
            seconds = f"{call.tool.timeout:g} seconds"
            self._give_up(call, error_text(ErrorCode.TIMEOUT, f"no result within {seconds}"))
        if due:
            self._wanted = True
            self._go_on()

    def _go_on(self) -> None:
        """Start what waits, and ask for a response where nothing is open."""
        self._start_waiting()
        if self._wanted and not self._open():
            self._wanted = False
            self._actions.append(Respond())

    def _start_waiting(self) -> None:
        for call in self._open():
            if self._is_full():
                return
            if call.state is _State.WAITING:
                call.state = _State.RUNNING
                self._actions.append(
                    Start(call_id=call.call_id, tool=call.tool, arguments=call.arguments)
                )
