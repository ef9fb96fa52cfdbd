"""Runs tools on asyncio: coroutine functions as tasks, others in threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, TypeVar, cast

from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import ToolFailedError
from navtalk_proto.history import History
from navtalk_proto.pump import Carrier
from navtalk_proto.tool_runner import ToolRunnerCalls
from navtalk_proto.tools.calls import Start
from navtalk_proto.tools.schema import ToolSet

__all__ = ["ToolRunner"]

log: Final = logging.getLogger("navtalk.tools")

T = TypeVar("T")


class ToolRunner(ToolRunnerCalls):
    """Runs the functions of one session: ``async with ToolRunner(...)`` around the session's body.

    Leaving cancels the tasks and waits for them. A thread cannot be cancelled: it is left to itself
    and what it returns is dropped. It is a daemon thread, so that neither the loop's end nor the
    process's waits for one that is stuck.
    """

    def __init__(
        self, pump: Carrier, tools: ToolSet, config: ClientConfig, history: History
    ) -> None:
        super().__init__(pump, tools, config, history)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._runs: dict[str, tuple[Start, asyncio.Task[object]]] = {}

    def start(self, start: Start) -> None:
        """Run a function in a task of its own."""
        task = self._loop.create_task(_run(start), name=f"navtalk tool {start.tool.name}")
        self._runs[start.call_id] = start, task
        task.add_done_callback(partial(self._ended, start))

    def cancel(self, call_id: str) -> None:
        """Cancel the task of a coroutine function. A thread keeps its place until it has ended."""
        start, task = self._runs[call_id]
        if start.tool.asynchronous:
            task.cancel()

    def rearm(self, when: float | None) -> None:
        """Move the one timer of this session's tools."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer = self._loop.call_at(when, self.timeout)

    def _ended(self, start: Start, task: asyncio.Task[object]) -> None:
        del self._runs[start.call_id]
        if task.cancelled():
            self.cancelled(start.call_id)
        elif (error := task.exception()) is not None:
            if not isinstance(error, ToolFailedError):
                log.error("! tool %s raised", start.tool.name, exc_info=error)
            self.raised(start.call_id, error)
        elif not self.returned(start.call_id, task.result()):
            log.error("! tool %s returned what is not JSON, or too much", start.tool.name)

    async def __aenter__(self) -> ToolRunner:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        cancelled = False
        self._cancel_all()
        while self._runs:
            try:
                await asyncio.wait([task for _, task in self._runs.values()])
            except asyncio.CancelledError:
                cancelled = True
                self._cancel_all()
        if cancelled:
            raise asyncio.CancelledError from error

    def _cancel_all(self) -> None:
        for _, task in self._runs.values():
            task.cancel()


async def _run(start: Start) -> object:
    call = partial(start.tool.function, **start.arguments)
    if start.tool.asynchronous:
        return await call()
    result = await _in_thread(call, name=f"navtalk tool {start.tool.name}")
    if inspect.iscoroutine(result):
        # A decorator hid that the function is a coroutine function; trio refuses it so too.
        result.close()
        raise TypeError(f"{start.tool.name} returned a coroutine and is no coroutine function")
    return result


async def _in_thread(function: Callable[[], T], *, name: str) -> T:
    """Run a function in a daemon thread. Cancelling abandons it.

    Not ``asyncio.to_thread``: the end of ``asyncio.run()`` waits for the threads of its executor.
    """
    loop = asyncio.get_running_loop()
    # The error as a value: a future takes no StopIteration.
    outcome: asyncio.Future[tuple[T, None] | tuple[None, BaseException]] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(what: tuple[T, None] | tuple[None, BaseException]) -> None:
        if not outcome.done():
            outcome.set_result(what)

    def work() -> None:
        what: tuple[T, None] | tuple[None, BaseException]
        try:
            what = context.run(function), None
        except BaseException as error:  # noqa: BLE001 - raised where the function is awaited
            what = None, error
        # Once the loop is closed nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, what)

    threading.Thread(target=work, name=name, daemon=True).start()
    result, error = await outcome
    if error is not None:
        raise error
    return cast("T", result)
