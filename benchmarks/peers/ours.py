"""navtalk on asyncio, as its documentation says."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from navtalk_asyncio import ClientSession, connect
from navtalk_asyncio.testing import through
from peers import frames
from peers.visit import Visit, main
from peers.watched_transport import WatchedTransport, human_at, plain_config


async def receive(url: str, visit: Visit) -> None:
    async with (
        through(lambda transport: WatchedTransport(transport, visit)) as transport,
        connect(human_at(url), transport=transport, config=plain_config()) as session,
        AsyncExitStack() as stack,
    ):
        tasks = []
        if visit.wants_media:
            tasks = [asyncio.create_task(_watch(session, visit))]
            tasks += [asyncio.create_task(_listen(session, visit))]
        elif visit.consume == "recorded":
            await stack.enter_async_context(session.record(visit.file))
        await visit.last(asyncio.sleep)
        for task in tasks:
            task.cancel()


async def _watch(session: ClientSession, visit: Visit) -> None:
    async for frame in session.video:
        frames.picture(visit, time.monotonic(), frame)


async def _listen(session: ClientSession, visit: Visit) -> None:
    async for frame in session.audio:
        frames.sound(visit, time.monotonic(), frame)


if __name__ == "__main__":
    main(receive)
