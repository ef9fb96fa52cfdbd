"""A STUN server on loopback: tells a client the address it is seen from (RFC 8489 section 5).

The emulator lists it in connected.success, so that clients gather candidates without reaching for a
server on the internet.
"""

from __future__ import annotations

import asyncio
import struct
from types import TracebackType
from typing import Any, Final, cast

from aioice import stun
from attrs import frozen

__all__ = ["StunCounters", "StunServer"]

_MAX_DATAGRAM: Final = 548
"""Largest request that is read, in bytes: what RFC 8489 section 6.1 allows on an unknown path."""


@frozen(kw_only=True)
class StunCounters:
    """Datagrams since the start."""

    answered: int = 0
    ignored: int = 0
    """Not a Binding request: garbage, indications, other methods, a wrong fingerprint."""
    dropped: int = 0
    """Answers given up because asyncio's buffer of the socket was full."""


class StunServer:
    """Answers Binding requests on one UDP port while it is entered; keeps nothing about clients.

    It has no credentials: USERNAME and MESSAGE-INTEGRITY in a request are not looked at, and the
    answer has neither. Unknown attributes are skipped, also those that ask to be understood.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._wanted = (host, port)
        self._protocol = _BindingProtocol()
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> StunServer:
        """Bind the port. Raises OSError where that is not possible."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self._protocol, local_addr=self._wanted
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the socket; waiting answers are dropped."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
            await self._protocol.closed.wait()

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port that are bound. Raises RuntimeError while the server is not up."""
        if self._transport is None:
            raise RuntimeError("the STUN server is not running: enter it with `async with`")
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    @property
    def url(self) -> str:
        """The address as an ICE server's URL (RFC 7064), as in ``stun:127.0.0.1:3478``."""
        return self.url_at(self.address[0])

    def url_at(self, host: str) -> str:
        """The URL for clients that reach this machine as `host`, a name or an IP address."""
        port = self.address[1]
        return f"stun:[{host}]:{port}" if ":" in host else f"stun:{host}:{port}"

    @property
    def counters(self) -> StunCounters:
        """What came in so far."""
        return StunCounters(
            answered=self._protocol.answered,
            ignored=self._protocol.ignored,
            dropped=self._protocol.dropped,
        )


class _BindingProtocol(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answered = 0
        self.ignored = 0
        self.dropped = 0
        self.closed = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: the class that Python 3.11 passes is no DatagramTransport by name.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        # A socket bound to "::" sees IPv4 clients as mapped addresses (RFC 4291 section 2.5.5.2).
        answer = _answer(data, (addr[0].removeprefix("::ffff:"), addr[1]))
        if answer is None:
            self.ignored += 1
        elif self._transport is None or self._full:
            self.dropped += 1
        else:
            self._transport.sendto(answer, addr)
            self.answered += 1


def _answer(data: bytes, source: tuple[str, int]) -> bytes | None:
    """The answer to a datagram, or None where there is none to give."""
    # The cookie is what tells RFC 8489 from its classic predecessor; the parser does not look.
    if len(data) > _MAX_DATAGRAM or data[4:8] != stun.COOKIE.to_bytes(4, "big"):
        return None
    try:
        request = stun.parse_message(data)
    except (ValueError, struct.error):
        return None
    if (request.message_method, request.message_class) != (
        stun.Method.BINDING,
        stun.Class.REQUEST,
    ):
        return None
    response = stun.Message(
        message_method=stun.Method.BINDING,
        message_class=stun.Class.RESPONSE,
        transaction_id=request.transaction_id,
    )
    response.attributes["XOR-MAPPED-ADDRESS"] = source
    response.add_fingerprint()
    return bytes(response)
