"""The asyncio driver: a pump, and the two tasks and the timer of asyncio around it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import ClassVar

from navtalk_asyncio.media.interface import Engine, EngineFactory
from navtalk_asyncio.session_log import log as session_log
from navtalk_proto.actions import CloseTransport, MediaCommand
from navtalk_proto.connection import Connection
from navtalk_proto.event_buffer import EventBuffer, Flag
from navtalk_proto.events import Event
from navtalk_proto.exception_groups import unwrap
from navtalk_proto.inputs import TransportOpened
from navtalk_proto.log_lines import log_sent, logged
from navtalk_proto.media import MediaKind
from navtalk_proto.pump import Pump
from navtalk_proto.stats import MediaStats
from navtalk_proto.transport import Transport, TransportClosedError

__all__ = ["Driver"]


class Driver(Pump):
    """Drives one core connection over one transport, with one engine or none.

    `observe` sees every event before the buffer does, synchronously. :meth:`run` is the driver's
    whole life; it returns when the core is closed and nothing of transport or engine is left.
    """

    flag: ClassVar[Callable[[], Flag]] = asyncio.Event

    def __init__(
        self,
        core: Connection,
        transport: Transport,
        engine: EngineFactory | None,
        *,
        observe: Callable[[Event], None],
        events: EventBuffer | None = None,
    ) -> None:
        super().__init__(core, observe=logged(observe, session_log), events=events)
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._timer: asyncio.Handle | None = None
        self._due = math.inf
        """When the timer fires. uvloop's has no when() for what is due already."""
        self._fired = -math.inf
        """The newest deadline that fired. It may be later than the clock; time goes on from it."""
        self.engine: Engine | None = engine(self.engine_callbacks()) if engine is not None else None

    def time(self) -> float:
        """The loop's clock; not before a deadline that has fired."""
        return max(self._loop.time(), self._fired)

    def rearm(self, when: float | None) -> None:
        """Move the loop's one timer of this session."""
        if self._timer is not None:
            if self._due == when and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._due = when
            self._timer = self._loop.call_at(when, self._fire, when)

    def _fire(self, when: float) -> None:
        self._timer = None
        # The loop's timers fire early by its clock's resolution. Asked before its time the core
        # would do nothing and want the same again, at once, for as long as the clock stands there.
        self._fired = when
        self.timeout()

    def execute(self, command: MediaCommand) -> None:
        """Hand a command to the engine."""
        assert self.engine is not None, "a core without media gives no media command"
        self.engine.execute(command)

    def media_stats(self) -> MediaStats:
        """What the engine measured; empty without media."""
        return MediaStats() if self.engine is None else self.engine.stats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Have the engine tell of sound and movement; None ends it."""
        if self.engine is not None:
            self.engine.await_answer(told)

    def start(self) -> None:
        """Tell the core that the transport is open; to be followed by :meth:`run`."""
        self.give(TransportOpened())

    async def aclose(self) -> None:
        """Drop the transport; for a driver that may not have run."""
        await self._transport.aclose()

    async def run(self) -> None:
        """Drive until the core is closed.

        What a task, the engine or `observe` raised leaves bare; several as an ExceptionGroup. Also
        then, and when this is cancelled, the core is told the end, and tells it.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                both = [tasks.create_task(self._receive()), tasks.create_task(self._send())]
                await self.over.wait()
                for task in both:
                    task.cancel()
        except ExceptionGroup as group:
            self.failures.extend(group.exceptions)
        finally:
            await self._drop()
            if self.failures:
                raise unwrap(ExceptionGroup("the session's driver failed", self.failures))

    async def _drop(self) -> None:
        """Leave nothing of transport, timer and engine, and the core closed."""
        try:
            await self._finish(self._transport.aclose)
        finally:
            self.dropped()
            if self._timer is not None:
                self._timer.cancel()
            if self.engine is not None:
                await self._finish(self.engine.aclose)

    async def _finish(self, aclose: Callable[[], Awaitable[None]]) -> None:
        """Close a part to its end, also when cancelled meanwhile; what it raises, run() raises."""
        closing = asyncio.ensure_future(aclose())
        cancelled = False
        while not closing.done():
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError:
                cancelled = True
        error = closing.exception()
        if isinstance(error, Exception):
            self.fail(error)
        if cancelled:
            raise asyncio.CancelledError

    async def _receive(self) -> None:
        while not self.over.is_set():
            try:
                message = await self._transport.receive()
            except TransportClosedError as closed:
                self.lost(closed)
                return
            self.received(message)
            await self.events.room()

    async def _send(self) -> None:
        while True:
            action = await self.outgoing()
            if isinstance(action, CloseTransport):
                await self._transport.close(action.code, action.reason)
                return
            try:
                await self._transport.send_text(action.text)
            except TransportClosedError:
                # The reader sees it too, and tells the core: it must not wait for the application.
                self.events.release()
                return
            self.sent(action)
            log_sent(action.text, session_log)
