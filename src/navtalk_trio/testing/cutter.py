"""The WebSocket cutter of the core's test kit on trio, and how a session is put under it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from navtalk_proto.event_buffer import Flag as AnyFlag
from navtalk_proto.exception_groups import raise_unchanged
from navtalk_proto.limits import Limits
from navtalk_proto.testing.cutter import Cutter
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_trio.client import TransportOpener
from navtalk_trio.driver import bare
from navtalk_trio.flag import Flag

__all__ = ["cutter", "through"]


def cutter() -> Cutter:
    """A cutter for one connection: ``connect(transport=...)`` with :func:`through`."""
    return Cutter(Flag, _race, trio.sleep)


@asynccontextmanager
async def through(*wraps: Callable[[Transport], Transport]) -> AsyncGenerator[TransportOpener]:
    """What ``connect(transport=...)`` takes: a WebSocket, put under each of these in turn.

    ``async with through(wire.wrap, cutter.wrap) as opener``. Connect inside the block.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:

            async def open_transport(endpoint: Endpoint) -> Transport:
                # When it is used: who brings a transport of their own needs no trio-websocket.
                from navtalk_trio.websocket import open_websocket

                transport: Transport = await open_websocket(
                    nursery, endpoint, max_size=Limits().server_message
                )
                for wrap in wraps:
                    transport = wrap(transport)
                return transport

            yield open_transport
    except BaseExceptionGroup as group:
        failure = bare(group)
    if failure is not None:
        raise_unchanged(failure)


async def _race(work: Callable[[], Awaitable[str | bytes]], flag: AnyFlag) -> str | bytes | None:
    received: str | bytes | None = None
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def until_the_flag() -> None:
            await flag.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_the_flag)
        try:
            received = await work()
        except Exception as error:  # noqa: BLE001 - raised below, as it is and not in a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise_unchanged(failure)
    return received
