"""Sessions in succession on asyncio: how a connection is opened, and when the next one is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeAlias

from navtalk_asyncio.driver import Driver
from navtalk_asyncio.media.interface import EngineFactory
from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import ConnectTimeoutError
from navtalk_proto.event_buffer import EventBuffer, Flag
from navtalk_proto.events import Event
from navtalk_proto.history import History
from navtalk_proto.opening import Opening, opened
from navtalk_proto.reconnect import ReconnectPolicy
from navtalk_proto.succession import Succession as AnySuccession
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint

__all__ = ["Opener", "Succession", "TransportOpener"]

TransportOpener: TypeAlias = Callable[[Endpoint], Awaitable[Transport]]
"""Opens a WebSocket to an endpoint; raises ConnectFailedError."""


class Opener:
    """Opens the connections of one ``connect()``: a transport each, a driver and an engine."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: TransportOpener,
        engine: EngineFactory | None,
        *,
        threaded: bool,
        timeout: float,
    ) -> None:
        """`threaded` runs the engine on the media thread; `timeout` is for each connection."""
        self._endpoint = endpoint
        self._transport = transport
        self._engine = engine
        self._threaded = threaded
        self._timeout = timeout
        self._limit: asyncio.Timeout | None = None

    async def open(
        self,
        config: ClientConfig,
        *,
        observe: Callable[[Event], None],
        events: EventBuffer | None = None,
    ) -> tuple[Driver, Opening]:
        """Open a transport, and make a driver of it, which is to be started and run.

        Raises ConnectTimeoutError, also because of :meth:`stop`, and what opening it raises.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        self._limit = limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                transport = await self._transport(self._endpoint)
        except TimeoutError:
            if not limit.expired():
                raise
            raise ConnectTimeoutError("the WebSocket handshake", self._timeout) from None
        finally:
            self._limit = None
        # The socket is open, and ours to close whatever happens before a driver has it.
        try:
            engine = self._engine
            if self._threaded and engine is not None:
                from navtalk_asyncio.thread_engine import ThreadEngine

                engine = await ThreadEngine.factory(engine)
            core, opening = opened(
                config, asyncio.Event, timeout=self._timeout, deadline=deadline, now=loop.time()
            )
            driver = Driver(core, transport, engine, observe=observe, events=events)
        except BaseException:
            await transport.aclose()
            raise
        return driver, opening

    def stop(self) -> None:
        """Let :meth:`open` time out now, if it waits for the transport."""
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())


class Succession(AnySuccession[Driver]):
    """Carries a session over one driver after the other."""

    flag: ClassVar[Callable[[], Flag]] = asyncio.Event

    def __init__(
        self,
        opener: Opener,
        policy: ReconnectPolicy,
        *,
        config: ClientConfig,
        history: History,
        observe: Callable[[Event], None],
    ) -> None:
        super().__init__(
            policy, jitter=random.random, config=config, history=history, observe=observe
        )
        self._opener = opener
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def time(self) -> float:
        """The loop's clock."""
        return self._loop.time()

    def rearm(self, when: float | None) -> None:
        """Move the one timer of the succession."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer = self._loop.call_at(when, self._fire, when)

    def _fire(self, when: float) -> None:
        # The loop's timers fire early by its clock's resolution.
        self.timeout(now=max(when, self._loop.time()))

    async def begin(self, config: ClientConfig) -> tuple[Driver, Opening]:
        """Open a connection."""
        return await self._opener.open(config, observe=self.heard, events=self.events)

    def stop_beginning(self) -> None:
        """Let :meth:`begin` raise now."""
        self._opener.stop()

    async def start(self, driver: Driver) -> None:
        """Tell the driver that its transport is open."""
        driver.start()

    async def drive(self, driver: Driver) -> None:
        """Run the driver to its end."""
        await driver.run()
