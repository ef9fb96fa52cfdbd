"""The part of a tool runner that no loop shapes: events into ToolCalls, answers out of it.

A tool runner of an adapter *is* one of these that runs functions of its loop besides: coroutine
functions as tasks, others in threads. A function that raises is answered for; a mistake in here
ends the session, as one of the driver does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import assert_never

from attrs import evolve

from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import LocalProtocolError, SessionClosedError
from navtalk_proto.events import (
    Closed,
    Event,
    FunctionCall,
    Reconnecting,
    ResponseInterrupted,
    UserSpeaking,
)
from navtalk_proto.history import History
from navtalk_proto.pump import Carrier, CoreInput
from navtalk_proto.tools.calls import (
    Answer,
    Cancel,
    Respond,
    Start,
    ToolAction,
    ToolCalls,
    ToolCounters,
)
from navtalk_proto.tools.schema import Tool, ToolSet
from navtalk_proto.wire.messages import JsonObject, ResponseCreate, ToolResult

__all__ = ["ToolRunnerCalls"]


class ToolRunnerCalls:
    """Answers the function calls of one client session.

    `config` is that of the connection: the tools that it announces and that have no function are
    left to the application, and its ``tool_limits`` hold. Answers are entered into the `history`.
    """

    def __init__(
        self, pump: Carrier, tools: ToolSet, config: ClientConfig, history: History
    ) -> None:
        self._pump = pump
        self._history = history
        self._calls = ToolCalls(limits=config.tool_limits)
        announced = [
            *(config.input_config.tools or () if config.input_config else ()),
            *(config.input_function_call.tools if config.input_function_call else ()),
        ]
        self._offer(tools.functions, announced)
        self._losses = 0
        self._actions: deque[ToolAction] = deque()
        self._performing = False

    @property
    def counters(self) -> ToolCounters:
        """What was counted of the calls; a live object."""
        return self._calls.counters

    # ---- what an adapter fills in

    def start(self, start: Start) -> None:
        """Run a function, and report its end with one of the three methods below.

        The call's id is the server's with a prefix, unique also among several connections.
        """
        raise NotImplementedError

    def cancel(self, call_id: str) -> None:
        """Cancel the function of a call, if it can be cancelled."""
        raise NotImplementedError

    def rearm(self, when: float | None) -> None:
        """Call :meth:`timeout` at `when`, and not at any time asked for before."""
        raise NotImplementedError

    # ---- inputs

    def observe(self, event: Event) -> None:
        """See every event of the session, in order."""
        match event:
            case FunctionCall():
                # Servers number their calls as they like: two connections may use one id.
                unique = evolve(event, call_id=f"{self._losses}:{event.call_id}")
                self._give(partial(self._calls.called, unique))
            case UserSpeaking() | ResponseInterrupted():
                self._give(self._calls.interrupted)
            case Reconnecting():
                self._losses += 1
                self._give(self._calls.lost)
            case Closed():
                self._give(self._calls.closed)
            case _:
                pass

    def interrupted(self) -> None:
        """The application stopped what the human says."""
        self._give(self._calls.interrupted)

    def offer(self, tools: ToolSet) -> None:
        """The application announced other tools; functions that run go on."""
        self._offer(tools.functions, tools.announced)

    def asked(self) -> None:
        """The application answered a call of its own and wants a response."""
        self._give(self._calls.asked)

    def close(self) -> None:
        """The session is being left: cancel what runs, and answer nothing more."""
        self._give(self._calls.closed)

    def returned(self, call_id: str, result: object) -> bool:
        """A function returned; whether what it returned can be told to a model."""
        failed = self.counters.failed
        self._guarded(partial(self._calls.returned, call_id, result))
        return self.counters.failed == failed

    def raised(self, call_id: str, error: BaseException) -> None:
        """A function raised."""
        self._guarded(partial(self._calls.raised, call_id, error))

    def cancelled(self, call_id: str) -> None:
        """A function was cancelled."""
        self._guarded(partial(self._calls.cancelled, call_id))

    def timeout(self) -> None:
        """The timer fired."""
        self._guarded(self._calls.handle_timeout)

    # ---- inside

    def _offer(self, functions: Mapping[str, Tool], announced: Iterable[JsonObject]) -> None:
        names = {name for tool in announced if isinstance(name := tool.get("name"), str)}
        self._calls.offered(functions, application=names - functions.keys())

    def _guarded(self, give: CoreInput) -> None:
        try:
            self._give(give)
        except Exception as error:  # noqa: BLE001 - raised by the driver
            self._pump.fail(error)

    def _give(self, give: CoreInput) -> None:
        give(now=self._pump.time())
        self._actions.extend(self._calls.actions())
        if not self._performing:
            # Sending an answer may bring an event, and the event an input.
            self._performing = True
            try:
                while self._actions:
                    self._perform(self._actions.popleft())
            finally:
                self._performing = False
        self.rearm(self._calls.next_timeout())

    def _perform(self, action: ToolAction) -> None:
        match action:
            case Start():
                self.start(action)
            case Cancel():
                self.cancel(action.call_id)
            case Answer():
                call_id = action.call_id.partition(":")[2]
                if self._send(ToolResult(call_id=call_id, output=action.output)):
                    self._history.answered(call_id, action.output)
                else:
                    self.counters.unsent += 1
            case Respond():
                self._send(ResponseCreate())
            case _:
                assert_never(action)

    def _send(self, message: ToolResult | ResponseCreate) -> bool:
        try:
            self._pump.send(message)
        except (LocalProtocolError, SessionClosedError):
            # The application answered the call itself, or the session is being closed.
            return False
        return True
