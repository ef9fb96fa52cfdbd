"""The server role over websockets: ``serve(handler)``."""

from __future__ import annotations

import asyncio
import logging
import ssl as ssl_module
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
)
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from navtalk_asyncio.driver import Driver
from navtalk_asyncio.media.interface import EngineFactory
from navtalk_asyncio.session import Session
from navtalk_asyncio.session_scope import SessionScope
from navtalk_asyncio.trace_file import session_trace
from navtalk_proto.config import ServerConfig
from navtalk_proto.connection import Connection
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.pump import Observer
from navtalk_proto.roles import Role
from navtalk_proto.session import is_farewell
from navtalk_proto.transport import DoorCounters, Transport
from navtalk_proto.wire.endpoint import RequestTarget
from navtalk_proto.wire.plain_http import HttpHandler

if TYPE_CHECKING:
    from navtalk_asyncio.websocket import WebSocketTransport
    from navtalk_proto.tracing.output import TraceOptions

__all__ = [
    "Server",
    "ServerHandler",
    "ServerSession",
    "serve",
    "serve_session",
]

log: Final = logging.getLogger("navtalk.server")

MAX_SESSIONS: Final = 1000
"""Sessions at a time, unless given; one more is refused with HTTP 503 before it costs anything."""


class ServerSession(Session):
    """One client's session, seen from the server. Made by :func:`serve`."""

    def __init__(self, driver: Driver, request: RequestTarget, transport: Transport) -> None:
        super().__init__(driver)
        self.transport = transport
        """The WebSocket, as `through` of :func:`serve` gave it."""
        self.request = request
        """What the client asked for in its URL; the licence is a Secret."""
        self.local_address: str | None = None
        """Our IP address that this client connected to; None unless :func:`serve` accepted it."""
        self.remote_address: str | None = None
        """The client's ``host:port``; None unless :func:`serve` accepted it."""


ServerHandler: TypeAlias = Callable[[ServerSession], Awaitable[None]]
"""Runs one session; the session is closed when it returns."""


class Server:
    """A running server."""

    def __init__(self, host: str, port: int, *, secure: bool, counters: DoorCounters) -> None:
        self.host = host
        self.port = port
        self._scheme = "wss" if secure else "ws"
        self.counters: DoorCounters = counters
        """Who was turned away before a session, or dropped beside one."""
        self._sessions: set[ServerSession] = set()

    @property
    def url(self) -> str:
        """The base URL for an Endpoint, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._scheme}://{host}:{self.port}"

    @property
    def sessions(self) -> frozenset[ServerSession]:
        """The sessions that run now."""
        return frozenset(self._sessions)


async def serve_session(
    handler: ServerHandler,
    transport: Transport,
    request: RequestTarget,
    *,
    config: ServerConfig,
    engine: EngineFactory | None,
    register: Callable[[ServerSession], None] = lambda session: None,
    trace: str | Path | TraceOptions | None = None,
) -> None:
    """Run one session over an open transport; returns when nothing of it is left.

    `trace` is a new file for this session. Without it, should it be impossible, the session runs.
    An exception of the handler closes the session with 1011 and leaves bare. SessionClosedError is
    none once this session is over: the client left while the handler was sending.
    """
    secrets = () if request.license is None else (request.license,)
    async with aclosing(transport), session_trace(trace, secrets) as recorder:
        core = Connection(Role.SERVER, config, now=asyncio.get_running_loop().time())
        told = Observer()
        driver = Driver(core, transport, engine if config.media else None, observe=told)
        driver.secrets = secrets
        if recorder is not None:
            driver.begin_trace(recorder)
        session = ServerSession(driver, request, transport)
        told.add(session.observe)
        register(session)
        driver.start()
        scope = SessionScope(driver)
        async with scope:
            try:
                await handler(session)
            except asyncio.CancelledError:
                scope.close_code, scope.close_reason = 1001, "server is shutting down"
                raise
            except Exception as error:
                over = session.state in (State.CLOSING, State.CLOSED)
                if not (over and is_farewell(error)):
                    scope.close_code, scope.close_reason = 1011, "internal error"
                    raise


@asynccontextmanager
async def serve(
    handler: ServerHandler,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    config: ServerConfig | None = None,
    engine: EngineFactory | None = None,
    http: HttpHandler | None = None,
    ssl: ssl_module.SSLContext | None = None,
    max_sessions: int = MAX_SESSIONS,
    origins: Collection[str] | None = None,
    through: Callable[[Transport], AbstractAsyncContextManager[Transport]] | None = None,
    trace: str | Path | TraceOptions | None = None,
) -> AsyncGenerator[Server]:
    """Accept sessions: ``async with serve(handler) as server``.

    `handler` runs once per client, in its own task; it sends ConnectedSuccess and what follows, and
    the session is closed when it returns. An exception of a handler is logged and ends its own
    session only. `port` 0 takes a free one. `engine` makes each session's media engine; without
    it, `config` must have no media. `http` answers plain HTTP on the same port. One client more
    than `max_sessions` is refused with HTTP 503. Leaving the block closes every session with 1001.

    Web pages of every origin may connect, as stock clients do from any site (protocol.md 2.2): a
    licence is needed, and no cookie stands in for it. `origins`, for example
    ``{"https://kiosk.example.org"}``, refuses pages of others with HTTP 403, also ``null`` of files
    unless it is listed; programs that are no browsers send no Origin and are not held up.

    `through` is called with each session's WebSocket, and gives what the session is to use instead
    while the block of its context manager runs: something that records, or a bad network.

    `trace` writes what happens in each session to a file of its own, from the first input on: a
    folder, or a path, to which a number is added where it exists. Licences and credentials are not
    in it; see docs/tracing.md. A session whose file cannot be written goes on without, and a
    warning is logged.
    """
    try:
        from navtalk_asyncio.websocket import accept_websockets
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise ImportError(
            f"{missing} is not installed; pip install 'navtalk[asyncio]'", name=missing
        ) from None
    settings = config or ServerConfig()
    if settings.media and engine is None:
        raise ValueError("a server with media needs an engine; without, give config media=()")

    counters = DoorCounters()

    async def session(transport: WebSocketTransport, request: RequestTarget) -> None:
        running: list[ServerSession] = []

        def register(session: ServerSession) -> None:
            session.local_address = transport._connection.local_address[0]
            host, port = transport._connection.remote_address[:2]
            session.remote_address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            running.append(session)
            server._sessions.add(session)

        try:
            async with AsyncExitStack() as around:
                used: Transport = transport
                if through is not None:
                    around.push_async_callback(transport.aclose)
                    used = await around.enter_async_context(through(transport))
                await serve_session(
                    handler,
                    used,
                    request,
                    config=settings,
                    engine=engine,
                    register=register,
                    trace=trace,
                )
        except Exception:
            log.exception("! session failed")
        finally:
            server._sessions.difference_update(running)

    async with accept_websockets(
        session,
        host,
        port,
        http=http,
        ssl=ssl,
        max_size=settings.limits.client_message,
        max_sessions=max_sessions,
        origins=origins,
        counters=counters,
    ) as bound:
        server = Server(host, bound, secure=ssl is not None, counters=counters)
        yield server
