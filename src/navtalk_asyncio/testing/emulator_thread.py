"""The emulator on an event loop of its own, in a thread of its own: for tests on any loop, or none.

A test that blocks, or that runs trio, does not touch it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

__all__ = ["emulator_thread"]

START_SECONDS: Final = 30.0
"""How long the emulator may take to start; painting its face takes half a second."""


@contextmanager
def emulator_thread(**options: Any) -> Generator[Any]:
    """Run a digital human on loopback: ``with emulator_thread() as human``.

    `options` are those of :func:`navtalk_asyncio.emulator.emulate`, and what is yielded is its
    Emulator: ``human.endpoint()`` is where to connect. It runs on another thread's loop: read from
    it, and leave it alone otherwise. Leaving the block ends its sessions and its thread. Raises
    what starting it raises, ModuleNotFoundError without ``navtalk[emulator]`` among it.
    """
    # By name, when it is used: it brings aiortc, numpy and Pillow into the process.
    emulate = import_module("navtalk_asyncio.emulator").emulate
    ready = threading.Event()
    running: list[Any] = []
    failures: list[BaseException] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop.append((asyncio.get_running_loop(), asyncio.Event()))
        async with emulate(**options) as human:
            running.append(human)
            ready.set()
            await stop[0][1].wait()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main, name="navtalk-emulator", daemon=True)
    thread.start()
    if not ready.wait(START_SECONDS):
        raise TimeoutError(f"the emulator did not start within {START_SECONDS:g} s")
    try:
        if running:
            yield running[0]
    finally:
        if running and not failures:
            loop, stopped = stop[0]
            loop.call_soon_threadsafe(stopped.set)
        thread.join()
        if failures:
            raise failures[0]
