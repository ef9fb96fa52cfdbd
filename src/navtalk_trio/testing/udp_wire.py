"""The UDP wire of the core's test kit on trio: two sockets and three tasks."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio

from navtalk_proto.exception_groups import raise_unchanged
from navtalk_proto.testing.udp_wire import Side, UdpWire
from navtalk_trio.driver import bare
from navtalk_trio.flag import Flag

__all__ = ["udp_wire"]

_MAX_DATAGRAM: Final = 65536
"""Bytes: the largest that UDP has."""


@asynccontextmanager
async def udp_wire(seed: int = 0, *, host: str = "127.0.0.1") -> AsyncGenerator[UdpWire]:
    """A wire between the two peers of one session at a time: ``async with udp_wire(7) as wire``.

    Give the session a transport under ``wire.wrap``, see
    :func:`~navtalk_trio.testing.cutter.through`; then ``wire.set("rtp", loss=0.1)``,
    ``wire.cut()`` and ``wire.heal()``, at any time. `host` is the address of its two ports: the
    peers must reach it. Raises OSError where it cannot be bound.
    """
    wire = UdpWire(seed)
    wake = Flag()
    failure: BaseException | None = None
    sockets = {side: trio.socket.socket(type=trio.socket.SOCK_DGRAM) for side in Side}
    try:
        for side, socket in sockets.items():
            await socket.bind((host, 0))
            wire.ports[side] = socket.getsockname()[:2]

        async def read(side: Side) -> None:
            while True:
                data, source = await sockets[side].recvfrom(_MAX_DATAGRAM)
                wire.datagram(side, data, source, now=trio.current_time())
                wake.set()

        async def send() -> None:
            while True:
                for datagram in wire.due(now=trio.current_time()):
                    faces, data, to = datagram
                    try:
                        await sockets[faces].sendto(data, to)
                    except OSError:
                        wire.unsent(datagram)
                due = wire.next_due()
                with trio.move_on_at(math.inf if due is None else due):
                    await wake.wait()
                wake.clear()

        async with trio.open_nursery() as nursery:
            for side in Side:
                nursery.start_soon(read, side)
            nursery.start_soon(send)
            yield wire
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure = bare(group)
    finally:
        for socket in sockets.values():
            socket.close()
    if failure is not None:
        raise_unchanged(failure)
