"""What an adapter needs from a WebSocket: one small Protocol, the same on every loop.

A custom WebSocket library, or an in-memory pipe in a test, is one class with these four methods.
Nothing here does I/O; adapters and their users implement it.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Transport", "TransportClosedError"]


class TransportClosedError(Exception):
    """The WebSocket is gone. `code` and `reason` of its close frame; None, "" where none came.

    `violation`: the WebSocket library closed it because of the far end's mistake, such as a message
    too big to be read.
    """

    def __init__(self, code: int | None, reason: str, *, violation: bool = False) -> None:
        what = "connection lost" if code is None else f"closed with {code}"
        super().__init__(f"{what}: {reason}" if reason else what)
        self.code = code
        self.reason = reason
        self.violation = violation


class Transport(Protocol):
    """An open WebSocket that carries text messages. Used by one driver, on one event loop."""

    async def send_text(self, text: str) -> None:
        """Send one text message; returns when it may be followed by the next (back-pressure).

        Raises TransportClosedError.
        """
        ...

    async def receive(self) -> str | bytes:
        """The next message: str for text, bytes for binary. Cancelling loses nothing.

        Raises TransportClosedError.
        """
        ...

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the far end's. Never raises for a connection lost."""
        ...

    async def aclose(self) -> None:
        """Drop the connection if it is still there; returns when nothing of it is left."""
        ...
