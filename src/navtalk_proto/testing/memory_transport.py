"""A WebSocket without a socket: two transports, each end's messages arriving at the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from navtalk_proto.event_buffer import Flag
from navtalk_proto.transport import TransportClosedError

__all__ = ["MemoryTransport", "memory_transports"]


class MemoryTransport:
    """One end of a pair made by :func:`memory_transports`; a Transport.

    A test may set :attr:`stalled` to keep this end's sends waiting, as a full socket buffer does,
    and call :meth:`lose` to cut the connection without a close frame.
    """

    def __init__(self, flag: Callable[[], Flag]) -> None:
        self.sent: list[str] = []
        """Every text sent from this end, in order."""
        self._peer: MemoryTransport = self
        self._inbox: deque[str | bytes | TransportClosedError] = deque()
        self._wake = flag()
        self._moving = flag()
        self._moving.set()
        self._closing: TransportClosedError | None = None
        self.closed: Flag = flag()
        """Set when nothing of this end is left."""

    @property
    def waiting(self) -> int:
        """Messages that arrived at this end and were not received yet."""
        return sum(not isinstance(item, TransportClosedError) for item in self._inbox)

    @property
    def stalled(self) -> bool:
        """Whether sends of this end wait."""
        return not self._moving.is_set()

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        if stalled:
            self._moving.clear()
        else:
            self._moving.set()

    async def send_text(self, text: str) -> None:
        """Send one message; waits while :attr:`stalled`, until the connection ends."""
        if self._closing is None:
            await self._moving.wait()
        self._check_open()
        self.sent.append(text)
        self._peer._deliver(text)

    def send_binary(self, data: bytes) -> None:
        """Send a binary message, which no navtalk end does."""
        self._check_open()
        self._peer._deliver(data)

    async def receive(self) -> str | bytes:
        """Receive one message."""
        while not self._inbox:
            self._wake.clear()
            await self._wake.wait()
        if isinstance(self._inbox[0], TransportClosedError):
            end = self._inbox[0]
            raise TransportClosedError(end.code, end.reason)
        message = self._inbox.popleft()
        assert not isinstance(message, TransportClosedError)
        return message

    async def close(self, code: int, reason: str) -> None:
        """Close both ends: the far end receives the frame, this end its echo."""
        if self._closing is None:
            await self._moving.wait()
            for end in (self, self._peer):
                end._end(TransportClosedError(code, reason))

    async def aclose(self) -> None:
        """Drop the connection; the far end sees a lost one unless it was closed."""
        self.lose()
        self.closed.set()

    def lose(self) -> None:
        """Cut the connection: both ends see it end without a close frame."""
        for end in (self, self._peer):
            end._end(TransportClosedError(None, ""))

    def _check_open(self) -> None:
        if self._closing is not None:
            raise TransportClosedError(self._closing.code, self._closing.reason)

    def _deliver(self, message: str | bytes) -> None:
        self._inbox.append(message)
        self._wake.set()

    def _end(self, end: TransportClosedError) -> None:
        if self._closing is None:
            self._closing = end
            self._inbox.append(end)
            self._wake.set()
            self._moving.set()  # A send that waits for the socket fails with it.


def memory_transports(flag: Callable[[], Flag]) -> tuple[MemoryTransport, MemoryTransport]:
    """The two ends of a new connection; `flag` makes what a loop waits for."""
    one, other = MemoryTransport(flag), MemoryTransport(flag)
    one._peer, other._peer = other, one
    return one, other
