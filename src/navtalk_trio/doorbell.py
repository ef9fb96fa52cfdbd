"""Waking a trio task from another thread by a file descriptor.

``TrioToken.run_sync_soon`` wakes trio's own task, which runs what was posted, which wakes the task
that waits: two turns of the loop. A task that waits for an eventfd itself runs in the first.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

import trio

__all__ = ["EventBell", "event_bells"]

event_bells: bool = sys.platform == "linux"
"""Whether this system has eventfd (eventfd(2))."""


class EventBell:
    """A navtalk_asyncio.media.doorbell.Doorbell on an eventfd. Made on Linux only."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if event_bells else -1
        self._lock = threading.Lock()
        """Between ringing and giving the descriptor back: its number may be another file's then."""
        self._closed = False
        self._waiting = False
        self._others: trio.Event | None = None
        """Who waits behind the first: a descriptor has one waiter."""

    def ring(self) -> None:
        """Let the wait that runs, or else the next one, return; from any thread."""
        with self._lock:
            if event_bells and self._fd >= 0:
                with suppress(BlockingIOError):  # It was rung more often than it can count.
                    os.eventfd_write(self._fd, 1)

    async def wait(self) -> None:
        """Wait until it is rung."""
        if self._closed:
            return
        if self._waiting:
            if self._others is None:
                self._others = trio.Event()
            await self._others.wait()
            return
        self._waiting = True
        try:
            await trio.lowlevel.wait_readable(self._fd)
            if event_bells:
                os.eventfd_read(self._fd)
        finally:
            self._waiting = False
            if self._others is not None:
                self._others.set()
                self._others = None
            self._after_close()

    def _after_close(self) -> None:
        if self._closed and not self._waiting:
            self._give_back()

    def close(self) -> None:
        """Let who waits hear it, and give the descriptor back when nobody does. Idempotent."""
        self._closed = True
        self.ring()
        self._after_close()

    def _give_back(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self._give_back()
