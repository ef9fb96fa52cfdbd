"""The UDP wire of the core's test kit on asyncio: two sockets and a timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

from navtalk_proto.testing.udp_wire import Side, UdpWire

__all__ = ["udp_wire"]


@asynccontextmanager
async def udp_wire(seed: int = 0, *, host: str = "127.0.0.1") -> AsyncGenerator[UdpWire]:
    """A wire between the two peers of one session at a time: ``async with udp_wire(7) as wire``.

    Give the session a transport under ``wire.wrap``, see
    :func:`~navtalk_asyncio.testing.cutter.through`; then ``wire.set("rtp", loss=0.1)``,
    ``wire.cut()`` and ``wire.heal()``, at any time. `host` is the address of its two ports: the
    peers must reach it. Raises OSError where it cannot be bound.
    """
    wire = UdpWire(seed)
    pump = _Pump(wire)
    try:
        for side in Side:
            await pump.bind(side, host)
        yield wire
    finally:
        await pump.aclose()


class _Pump:
    """Carries datagrams between the sockets and the wire."""

    def __init__(self, wire: UdpWire) -> None:
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._ports: dict[Side, _Port] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def bind(self, side: Side, host: str) -> None:
        transport, port = await self._loop.create_datagram_endpoint(
            lambda: _Port(self, side), local_addr=(host, 0)
        )
        self._ports[side] = port
        self._wire.ports[side] = transport.get_extra_info("sockname")[:2]

    def read(self, side: Side, data: bytes, source: tuple[str, int]) -> None:
        self._wire.datagram(side, data, source, now=self._loop.time())
        self._send()

    def _send(self) -> None:
        for datagram in self._wire.due(now=self._loop.time()):
            faces, data, to = datagram
            if not self._ports[faces].send(data, to):
                self._wire.unsent(datagram)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._wire.next_due()
        if due is not None:
            self._timer = self._loop.call_at(due, self._send)

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for port in self._ports.values():
            port.transport.abort()
        for port in self._ports.values():
            await port.closed.wait()


class _Port(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def __init__(self, pump: _Pump, side: Side) -> None:
        self._pump = pump
        self._side = side
        self._full = False
        self._refused = False
        self.closed = asyncio.Event()

    def send(self, data: bytes, to: tuple[str, int]) -> bool:
        """Whether it was taken; asyncio would keep what a full socket does not."""
        if self._full:
            return False
        self._refused = False
        self.transport.sendto(data, to)
        return not self._refused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: the class that Python 3.11 passes is no DatagramTransport by name.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def error_received(self, exc: Exception) -> None:
        self._refused = True  # Called by sendto() itself, for what the system does not send.

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._pump.read(self._side, data, addr)
