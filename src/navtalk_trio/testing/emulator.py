"""The emulator for trio programs: it runs on the media loop, in its worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio

from navtalk_asyncio.emulator import Emulator
from navtalk_asyncio.emulator import emulate as emulate_on_asyncio
from navtalk_asyncio.media.engine_thread import EngineThread
from navtalk_proto.exception_groups import raise_unchanged
from navtalk_trio.driver import bare
from navtalk_trio.engine_thread import call_on_media_loop

__all__ = ["emulate"]


@asynccontextmanager
async def emulate(**options: Any) -> AsyncGenerator[Emulator]:
    """Run a digital human on loopback: ``async with emulate() as human``.

    `options` are those of :func:`navtalk_asyncio.emulator.emulate`. ``human.endpoint()`` is where
    to connect. A brain given runs on the media loop, which is asyncio.
    """
    with trio.CancelScope(shield=True):
        thread = await trio.to_thread.run_sync(EngineThread.acquire)
    try:
        running: list[Emulator] = []
        token = trio.lowlevel.current_trio_token()
        started = trio.Event()
        stop = asyncio.Event()

        async def hold() -> None:
            async with emulate_on_asyncio(**options) as human:
                running.append(human)
                token.run_sync_soon(started.set)
                await stop.wait()

        async def run() -> None:
            try:
                await call_on_media_loop(thread, hold)
            finally:
                started.set()

        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await started.wait()
                if running:  # Else it failed, and the nursery has its exception.
                    try:
                        yield running[0]
                    finally:
                        thread.loop.call_soon_threadsafe(stop.set)
        except BaseExceptionGroup as group:
            failure = bare(group)
        if failure is not None:
            raise_unchanged(failure)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.release)
