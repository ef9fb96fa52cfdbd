"""A TCP proxy on trio that can be cut, held and slowed down: WebSockets fail below the library.

Held, it is what a half-open connection is to both ends: bytes are taken and go nowhere, and an end
that closes is not noticed at the other one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from navtalk_proto.exception_groups import raise_unchanged
from navtalk_proto.limits import KIB
from navtalk_trio.driver import bare
from navtalk_trio.flag import Flag

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
        self._moving = Flag()
        self._moving.set()
        self._scopes: set[trio.CancelScope] = set()

    @property
    def url(self) -> str:
        """The base URL for an Endpoint whose server is behind the proxy."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    def cut(self) -> None:
        """Drop every connection now, at both ends. New ones are taken."""
        for scope in self._scopes:
            scope.cancel()

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
    failure: BaseException | None = None

    async def carry(one: trio.SocketStream, other: trio.SocketStream) -> None:
        while data := bytes(await one.receive_some(_CHUNK)):
            await proxy._moving.wait()
            if proxy.rate is not None:
                await trio.sleep(len(data) / proxy.rate)
            proxy.moved += len(data)  # Before somebody can have received it.
            await other.send_all(data)
        await proxy._moving.wait()
        await other.send_eof()

    async def accept(near: trio.SocketStream) -> None:
        proxy.accepted += 1
        far: trio.SocketStream | None = None
        try:
            async with trio.open_nursery() as both:
                proxy._scopes.add(both.cancel_scope)
                far = await trio.open_tcp_stream(to_host, to_port)
                both.start_soon(carry, near, far)
                both.start_soon(carry, far, near)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # An end dropped the connection: so is the other.
        finally:
            proxy._scopes.discard(both.cancel_scope)
            for end in (near, far):
                if end is not None:
                    end.socket.close()  # Not awaited: this task may be cancelled.

    try:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, accept, port, host=host, handler_nursery=nursery)
            )
            proxy.host, proxy.port = listeners[0].socket.getsockname()[:2]
            yield proxy
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure = bare(group)
    if failure is not None:
        raise_unchanged(failure)
