"""How another thread wakes the one task that waits for frames.

A loop that runs what is posted to it takes a turn for that and another for the task that it wakes.
A loop that can wait for a file descriptor may have a shorter way: :class:`Doorbell` is what either
looks like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from navtalk_proto.event_buffer import Flag

__all__ = ["Doorbell", "PostedBell"]


class Doorbell(Protocol):
    """Something to wait for, rung from any thread."""

    def ring(self) -> None:
        """Let the :meth:`wait` that runs, or else the next one, return. Never raises."""
        ...

    async def wait(self) -> None:
        """Wait until it is rung. Cancelled, it has heard nothing."""
        ...

    def close(self) -> None:
        """Let who waits hear it, now and later; to be called on its loop. Idempotent."""
        ...


class PostedBell:
    """Rung by posting a callable to the loop of who waits."""

    def __init__(self, post: Callable[[Callable[[], None]], None], flag: Flag) -> None:
        """`post` runs a callable there soon, and does not raise."""
        self._post = post
        self._flag = flag
        self._closed = False

    def ring(self) -> None:
        """As Doorbell."""
        self._post(self._flag.set)

    async def wait(self) -> None:
        """As Doorbell."""
        await self._flag.wait()
        if not self._closed:
            self._flag.clear()

    def close(self) -> None:
        """As Doorbell."""
        self._closed = True
        self._flag.set()
