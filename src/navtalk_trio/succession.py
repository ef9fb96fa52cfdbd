"""Sessions in succession on trio: how a connection is opened, and when the next one is."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeAlias

import trio

from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import ConnectTimeoutError
from navtalk_proto.event_buffer import EventBuffer
from navtalk_proto.events import Event
from navtalk_proto.history import History
from navtalk_proto.opening import Opening, opened
from navtalk_proto.reconnect import ReconnectPolicy
from navtalk_proto.succession import Succession as AnySuccession
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_trio.driver import Driver, EngineFactory
from navtalk_trio.flag import Flag

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
        timeout: float,
    ) -> None:
        """`timeout` is for each connection."""
        self._endpoint = endpoint
        self._transport = transport
        self._engine = engine
        self._timeout = timeout
        self._scope = trio.CancelScope()

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
        deadline = trio.current_time() + self._timeout
        with trio.CancelScope(deadline=deadline) as self._scope:
            transport = await self._transport(self._endpoint)
        if self._scope.cancelled_caught:
            raise ConnectTimeoutError("the WebSocket handshake", self._timeout)
        # The socket is open, and ours to close if there is no driver to do it.
        try:
            core, opening = opened(
                config, Flag, timeout=self._timeout, deadline=deadline, now=trio.current_time()
            )
            driver = Driver(core, transport, self._engine, observe=observe, events=events)
        except BaseException:
            with trio.CancelScope(shield=True):
                await transport.aclose()
            raise
        return driver, opening

    def stop(self) -> None:
        """Let :meth:`open` time out now, if it waits for the transport."""
        self._scope.cancel()


class Succession(AnySuccession[Driver]):
    """Carries a session over one driver after the other."""

    flag: ClassVar[type[Flag]] = Flag

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
        self._alarm = trio.CancelScope()
        self._when: float | None = None
        self._life = trio.CancelScope()

    def time(self) -> float:
        """trio's clock."""
        return trio.current_time()

    def rearm(self, when: float | None) -> None:
        """Move the deadline that the timer task sleeps under."""
        self._when = when
        self._alarm.deadline = math.inf if when is None else when

    async def begin(self, config: ClientConfig) -> tuple[Driver, Opening]:
        """Open a connection."""
        return await self._opener.open(config, observe=self.heard, events=self.events)

    def stop_beginning(self) -> None:
        """Let :meth:`begin` raise now."""
        self._opener.stop()

    async def start(self, driver: Driver) -> None:
        """Get the engine ready, and tell the driver that its transport is open."""
        try:
            await driver.start()
        except BaseException:
            await driver.aclose()
            raise

    async def drive(self, driver: Driver) -> None:
        """Run the driver to its end."""
        await driver.run()

    async def tick(self) -> None:
        """The timer, a task beside the session's body; ends with :meth:`run`."""
        with self._life:
            while True:
                deadline = math.inf if self._when is None else self._when
                with trio.CancelScope(deadline=deadline) as self._alarm:
                    await trio.sleep_forever()
                self.timeout(now=trio.current_time())

    async def run(self) -> None:
        """Drive one connection after the other, as a driver runs: not cancelled from outside."""
        with trio.CancelScope(shield=True):
            try:
                await super().run()
            finally:
                self._life.cancel()
