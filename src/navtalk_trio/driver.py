"""The trio driver: a pump, and the three tasks of trio around it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar, Protocol

import trio

from navtalk_proto.actions import CloseTransport, MediaCommand
from navtalk_proto.connection import Connection
from navtalk_proto.engine import EngineCallbacks, TrackCounters
from navtalk_proto.event_buffer import EventBuffer
from navtalk_proto.events import Event
from navtalk_proto.exception_groups import unwrap
from navtalk_proto.inputs import TransportOpened
from navtalk_proto.log_lines import log_sent, logged
from navtalk_proto.media import MediaKind
from navtalk_proto.pump import Pump
from navtalk_proto.stats import MediaStats
from navtalk_proto.transport import Transport, TransportClosedError
from navtalk_trio.flag import Flag
from navtalk_trio.session_log import log as session_log

__all__ = ["Driver", "Engine", "EngineFactory", "bare"]


def bare(
    group: BaseExceptionGroup[BaseException], *, without: tuple[type[Exception], ...] = ()
) -> BaseException:
    """What leaves a nursery of ours: its one exception as it is, several as their group.

    Only what the nursery itself wrapped is unwrapped: a group that the application raised stays
    one. A lone KeyboardInterrupt is unwrapped however deep: trio raises it in whichever task runs.
    `without` are exceptions that say nothing beside others, and groups of nothing else.
    """
    only = unwrap(group)
    if isinstance(only, KeyboardInterrupt):
        return only

    def follows(error: BaseException) -> bool:
        if isinstance(error, BaseExceptionGroup):
            return all(map(follows, error.exceptions))
        return isinstance(error, without)

    left = [error for error in group.exceptions if not follows(error)] or group.exceptions
    return left[0] if len(left) == 1 else group.derive(left)


class Engine(Protocol):
    """A media engine for one connection, on trio."""

    async def start(self) -> None:
        """Get ready; called once, before anything else."""
        ...

    def execute(self, command: MediaCommand) -> None:
        """Start a command; returns at once."""
        ...

    def frames(self, kind: MediaKind) -> AsyncIterator[Any]:
        """Decoded PyAV frames of the (first) remote track of this kind; ends when media ends."""
        ...

    def counters(self) -> Mapping[str, TrackCounters]:
        """Counters by track id."""
        ...

    def stats(self) -> MediaStats:
        """A snapshot of the current peer connection, or else of the last one."""
        ...

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Tell when a sound begins (AUDIO) and a picture changes (VIDEO), and when it came.

        `told` is called on trio's loop, with its clock's seconds; None ends it.
        """
        ...

    async def aclose(self) -> None:
        """Close the media; returns when nothing of it is left, also in a cancelled scope."""
        ...


class EngineFactory(Protocol):
    """Makes the engine of a new connection."""

    def __call__(self, callbacks: EngineCallbacks) -> Engine:
        """Make an engine; cheap, start() does the work."""
        ...


class Driver(Pump):
    """Drives one core connection over one transport, with one engine or none.

    `observe` sees every event before the buffer does, synchronously. :meth:`run` is the driver's
    whole life; it returns when the core is closed and nothing of transport or engine is left.
    """

    flag: ClassVar[type[Flag]] = Flag

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
        self._transport = transport
        self._alarm = trio.CancelScope()
        self.engine: Engine | None = engine(self.engine_callbacks()) if engine is not None else None

    def time(self) -> float:
        """trio's clock."""
        return trio.current_time()

    def rearm(self, when: float | None) -> None:
        """Move the deadline that the timer task sleeps under."""
        self._alarm.deadline = math.inf if when is None else when

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

    async def start(self) -> None:
        """Get the engine ready and tell the core that the transport is open; then :meth:`run`."""
        if self.engine is not None:
            await self.engine.start()
        self.give(TransportOpened())

    async def aclose(self) -> None:
        """Drop the transport of a driver that does not run."""
        await self._transport.aclose()

    async def run(self) -> None:
        """Drive until the core is closed. Not cancelled from outside: close() is what ends it.

        So the far end sees a close, and not a cut, when the application is cancelled; the core's
        CLOSE timer bounds it. What a task, the engine or `observe` raised leaves bare; several as
        an ExceptionGroup. Also then the core is told the end, and tells it.
        """
        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._receive)
                    nursery.start_soon(self._send)
                    nursery.start_soon(self._tick)
                    try:
                        await self.over.wait()
                    finally:
                        # The sender may be in the middle of a frame, shielded: this makes it fail.
                        await self._finish(self._transport.aclose)
                    nursery.cancel_scope.cancel()
            except* Exception as group:  # noqa: BLE001 - raised below
                self.failures.extend(group.exceptions)
            finally:
                self.dropped()
                if self.engine is not None:
                    await self._finish(self.engine.aclose)
            if self.failures:
                raise unwrap(ExceptionGroup("the session's driver failed", self.failures))

    async def _finish(self, aclose: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope(shield=True):
            try:
                await aclose()
            except Exception as error:  # noqa: BLE001 - raised by run()
                self.fail(error)

    async def _tick(self) -> None:
        while True:
            when = self.core.next_timeout()
            with trio.CancelScope(deadline=math.inf if when is None else when) as self._alarm:
                await trio.sleep_forever()
            self.timeout()

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
                # trio-websocket cannot take back half a frame: a send is never cancelled.
                with trio.CancelScope(shield=True):
                    await self._transport.send_text(action.text)
            except TransportClosedError:
                # The reader sees it too, and tells the core: it must not wait for the application.
                self.events.release()
                return
            self.sent(action)
            log_sent(action.text, session_log)
