"""What an adapter needs from a WebSocket: one small Protocol, the same on every loop.

A custom WebSocket library, or an in-memory pipe in a test, is one class with these four methods.
Nothing here does I/O; adapters and their users implement it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from attrs import define

__all__ = ["DoorCounters", "Transport", "TransportClosedError", "may_come_from"]


@define
class DoorCounters:
    """Clients that a server turned away or dropped before or beside their session; a live object.

    What happens inside a session is in its own counters.
    """

    full: int = 0
    """Refused with HTTP 503: as many sessions run as may."""
    origin: int = 0
    """Refused with HTTP 403: a page of an origin that is not allowed."""
    opening: int = 0
    """Dropped in the opening handshake, because too many others were in theirs."""
    unread: int = 0
    """Dropped because they read nothing of what was sent to them."""
    fragments: int = 0
    """Dropped because a message came in too many pieces."""


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


def may_come_from(origins: Iterable[str], allowed: Collection[str] | None) -> bool:
    """Whether a server lets in a client with these Origin headers; `allowed` None: any.

    For an adapter's server. Without the header it is no page in a browser, and may write what it
    likes there anyway (RFC 6454 section 7, RFC 6455 section 10.2).
    """
    return allowed is None or all(origin in allowed for origin in origins)


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
