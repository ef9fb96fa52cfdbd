"""Runs tools on trio: coroutine functions as tasks, others in threads."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Final

import trio

from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import ToolFailedError
from navtalk_proto.history import History
from navtalk_proto.pump import Carrier
from navtalk_proto.tool_runner import ToolRunnerCalls
from navtalk_proto.tools.calls import Start
from navtalk_proto.tools.schema import ToolSet
from navtalk_trio.flag import Flag

__all__ = ["ToolRunner"]

log: Final = logging.getLogger("navtalk.tools")


class ToolRunner(ToolRunnerCalls):
    """Runs the functions of one session, in the nursery of its connect().

    :meth:`aclose` cancels the tasks and waits for them. A thread cannot be cancelled: it is left to
    itself and what it returns is dropped. It is a daemon thread, as all of trio's are, so that
    neither the loop's end nor the process's waits for one that is stuck.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        pump: Carrier,
        tools: ToolSet,
        config: ClientConfig,
        history: History,
    ) -> None:
        super().__init__(pump, tools, config, history)
        self._nursery = nursery
        self._runs: dict[str, tuple[Start, trio.CancelScope]] = {}
        self._idle = Flag()
        """Set when no function runs any more."""
        self._alarm = trio.CancelScope()
        # Shielded as the runs are: the timer's Cancelled would leave beside the body's exception.
        self._life = trio.CancelScope(shield=True)
        # Not shared with other threads of the program: machine and limiter allow the same number.
        self._threads = trio.CapacityLimiter(config.tool_limits.running)

    def start(self, start: Start) -> None:
        """Run a function in a task of its own."""
        # Shielded: what is cancelled from outside is the session's body, and leaving it cancels.
        scope = trio.CancelScope(shield=True)
        self._runs[start.call_id] = start, scope
        self._idle.clear()
        self._nursery.start_soon(self._run, start, scope, name=f"navtalk tool {start.tool.name}")

    def cancel(self, call_id: str) -> None:
        """Cancel the task of a coroutine function. A thread keeps its place until it has ended."""
        start, scope = self._runs[call_id]
        if start.tool.asynchronous:
            scope.cancel()

    def rearm(self, when: float | None) -> None:
        """Move the deadline that the timer task sleeps under."""
        self._alarm.deadline = math.inf if when is None else when

    async def tick(self) -> None:
        """The timer, a task beside the session's body."""
        with self._life:
            while True:
                when = self._calls.next_timeout()
                with trio.CancelScope(deadline=math.inf if when is None else when) as self._alarm:
                    await trio.sleep_forever()
                self.timeout()

    async def _run(self, start: Start, scope: trio.CancelScope) -> None:
        call = partial(start.tool.function, **start.arguments)
        result: object = None
        error: Exception | None = None
        try:
            with scope:
                if start.tool.asynchronous:
                    result = await call()
                else:
                    result = await trio.to_thread.run_sync(
                        call, abandon_on_cancel=True, limiter=self._threads
                    )
        except Exception as raised:  # noqa: BLE001 - answered for
            error = raised
        finally:
            del self._runs[start.call_id]
            if not self._runs:
                self._idle.set()
        if scope.cancelled_caught:
            self.cancelled(start.call_id)
        elif error is not None:
            if not isinstance(error, ToolFailedError):
                log.error("! tool %s raised", start.tool.name, exc_info=error)
            self.raised(start.call_id, error)
        elif not self.returned(start.call_id, result):
            log.error("! tool %s returned what is not JSON, or too much", start.tool.name)

    async def aclose(self) -> None:
        """Leave nothing of tasks and timer; to be called before the session is closed."""
        self.close()
        for _, scope in self._runs.values():
            scope.cancel()
        self._life.cancel()
        if self._runs:
            with trio.CancelScope(shield=True):
                await self._idle.wait()
