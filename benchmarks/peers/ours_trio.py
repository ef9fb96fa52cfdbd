"""navtalk on trio, as its documentation says."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import trio

from navtalk_trio import ClientSession, connect
from navtalk_trio.testing import through
from peers import frames
from peers.visit import Visit, main
from peers.watched_transport import WatchedTransport, human_at, plain_config


async def receive(url: str, visit: Visit) -> None:
    async with (
        through(lambda transport: WatchedTransport(transport, visit)) as transport,
        connect(human_at(url), transport=transport, config=plain_config()) as session,
        AsyncExitStack() as stack,
        trio.open_nursery() as nursery,
    ):
        if visit.wants_media:
            nursery.start_soon(_watch, session, visit)
            nursery.start_soon(_listen, session, visit)
        elif visit.consume == "recorded":
            await stack.enter_async_context(session.record(visit.file))
        await visit.last(trio.sleep)
        nursery.cancel_scope.cancel()


async def _watch(session: ClientSession, visit: Visit) -> None:
    async for frame in session.video:
        frames.picture(visit, time.monotonic(), frame)


async def _listen(session: ClientSession, visit: Visit) -> None:
    async for frame in session.audio:
        frames.sound(visit, time.monotonic(), frame)


def run_trio(sessions: Callable[[], Awaitable[None]], loop: str) -> None:
    """Run on trio; the loop is the one under the media engine, in its thread."""
    if loop == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]
    trio.run(sessions)


if __name__ == "__main__":
    main(receive, run_trio)
