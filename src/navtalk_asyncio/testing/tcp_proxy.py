"""A TCP proxy on asyncio that can be cut, held and slowed down: WebSockets fail below the library.

Held, it is what a half-open connection is to both ends: bytes are taken and go nowhere, and an end
that closes is not noticed at the other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

from navtalk_proto.limits import KIB

__all__ = ["TcpProxy", "tcp_proxy"]

_CHUNK: Final = 64 * KIB
"""Bytes that are carried at once."""


class TcpProxy:
    """A running proxy. Made by :func:`tcp_proxy`."""

    def __init__(self) -> None:
        self.host: str = ""
        self.port: int = 0
        self.rate: float | None = None
        """Bytes per second and direction; None: as fast as it goes."""
        self.accepted: int = 0
        """Connections since the start."""
        self.moved: int = 0
        """Bytes carried since the start, both ways."""
        self._moving = asyncio.Event()
        self._moving.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base URL for an Endpoint whose server is behind the proxy."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    def cut(self) -> None:
        """Drop every connection now, at both ends. New ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Carry nothing from now on, and close nothing."""
        self._moving.clear()

    def release(self) -> None:
        """Undo :meth:`hold`; what was taken meanwhile is carried."""
        self._moving.set()


@asynccontextmanager
async def tcp_proxy(
    to_host: str, to_port: int, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncGenerator[TcpProxy]:
    """Carry TCP connections to a server: ``async with tcp_proxy(host, port) as proxy``.

    `port` 0 takes a free one, found in ``proxy.port``. Raises OSError where it cannot be bound. A
    server that cannot be reached is a connection that is dropped.
    """
    proxy = TcpProxy()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await proxy._moving.wait()
            if proxy.rate is not None:
                await asyncio.sleep(len(data) / proxy.rate)
            proxy.moved += len(data)  # Before somebody can have received it.
            writer.write(data)
            await writer.drain()
        await proxy._moving.wait()
        if writer.can_write_eof():
            writer.write_eof()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: asyncio would report the end of its own as an error when it is cancelled.
        task = asyncio.create_task(join(reader, writer))
        proxy._tasks.add(task)
        task.add_done_callback(proxy._tasks.discard)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            proxy.accepted += 1
            far_reader, far_writer = await asyncio.open_connection(to_host, to_port)
            ends.append(far_writer)
            proxy._writers.update(ends)
            async with asyncio.TaskGroup() as both:
                both.create_task(carry(reader, far_writer))
                both.create_task(carry(far_reader, writer))
        except* OSError:
            pass  # An end dropped the connection: so is the other.
        finally:
            proxy._writers.difference_update(ends)
            for end in ends:
                end.transport.abort()
            for end in ends:
                with suppress(OSError):
                    await end.wait_closed()

    server = await asyncio.start_server(accept, host, port)
    proxy.host, proxy.port = server.sockets[0].getsockname()[:2]
    try:
        yield proxy
    finally:
        server.close()
        tasks = set(proxy._tasks)
        for one in tasks:
            one.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
