"""The WebSocket cutter of the core's test kit on asyncio, and how a session is put under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from navtalk_asyncio.client import TransportOpener
from navtalk_proto.event_buffer import Flag
from navtalk_proto.limits import Limits
from navtalk_proto.testing.cutter import Cutter
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint

__all__ = ["cutter", "through"]


def cutter() -> Cutter:
    """A cutter for one connection: ``connect(transport=...)`` with :func:`through`."""
    return Cutter(asyncio.Event, _race, asyncio.sleep)


@asynccontextmanager
async def through(*wraps: Callable[[Transport], Transport]) -> AsyncGenerator[TransportOpener]:
    """What ``connect(transport=...)`` takes: a WebSocket, put under each of these in turn.

    ``async with through(wire.wrap, cutter.wrap) as opener``. Connect inside the block.
    """

    async def open_transport(endpoint: Endpoint) -> Transport:
        # When it is used: who brings a transport of their own may have no websockets.
        from navtalk_asyncio.websocket import open_websocket

        transport: Transport = await open_websocket(endpoint, max_size=Limits().server_message)
        for wrap in wraps:
            transport = wrap(transport)
        return transport

    yield open_transport


async def _race(work: Callable[[], Awaitable[str | bytes]], flag: Flag) -> str | bytes | None:
    working = asyncio.ensure_future(work())
    waiting = asyncio.ensure_future(flag.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        both = {working, waiting}
        for task in both:
            task.cancel()
        while pending := {task for task in both if not task.done()}:
            await asyncio.wait(pending)
    return None if working.cancelled() else working.result()
