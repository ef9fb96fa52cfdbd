"""A flag that can be cleared, which ``trio.Event`` cannot."""

from __future__ import annotations

import trio

__all__ = ["Flag"]


class Flag:
    """Something to wait for; set and cleared from the trio side only."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake who waits, now and later, until cleared."""
        self._event.set()

    def clear(self) -> None:
        """Let who comes next wait; who waits already goes on waiting for the next set."""
        if self._event.is_set():
            self._event = trio.Event()

    def is_set(self) -> bool:
        """Whether waiting returns at once."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until set."""
        await self._event.wait()
