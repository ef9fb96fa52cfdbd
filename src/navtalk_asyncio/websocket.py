"""The WebSocket transport over the websockets library, and a logger that keeps the licence."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl as ssl_module
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Final, Literal

import websockets.asyncio.client
import websockets.asyncio.server
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection as WebSocketConnection
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosed,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    WebSocketException,
)
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State

from navtalk_proto.errors import ConnectFailedError, EndpointError, handshake_error
from navtalk_proto.limits import KIB, MIB
from navtalk_proto.redaction import redact
from navtalk_proto.transport import DoorCounters, TransportClosedError, may_come_from
from navtalk_proto.wire.endpoint import Endpoint, RequestTarget, parse_request_target
from navtalk_proto.wire.plain_http import HttpHandler, HttpRequest

__all__ = [
    "WebSocketTransport",
    "accept_websockets",
    "open_websocket",
    "websocket_logger",
]

OVERSIZE_MARGIN: Final = 64 * KIB
"""How far above its limit a message may be and still reach the core, which then says what is wrong.
Beyond, websockets closes with 1009 before it has read the message."""

KEEPALIVE_SECONDS: Final = 20.0
"""WebSocket ping interval and pong timeout, as known Python clients have it (protocol.md 2.6). A
far end that is gone without a word is noticed after twice this at the latest."""

HANDSHAKE_SECONDS: Final = 10.0
"""How long a client may take over its TLS handshake, and then over its request."""

MAX_HANDSHAKES: Final = 256
"""Clients that may be in their opening handshake at a time. One more, and the oldest is dropped: a
handshake takes a round trip, so what waits longest is a spare socket of a browser, or an attack."""

READ_AHEAD: Final = 2
"""Frames that a server reads ahead of its driver: a client's may have 16 MiB each."""

MAX_UNREAD: Final = 4 * MIB
"""Bytes that may wait for a client to read them. What a session sends waits for the client at 32
KiB; pongs do not, so that a client that pings and reads nothing would fill the memory."""


_FRAME = re.compile(r"\b(TEXT|BINARY|CONT)\b .*(\[[a-z0-9, ]*\])$", re.DOTALL)
"""A data frame in websockets' log: its payload may end in a TURN credential."""

_HEADER = re.compile(r"^([<>] (?:licen[cs]e|(?:proxy-)?authorization|cookie): ).*", re.IGNORECASE)
"""A header line in websockets' log that holds a secret; iOS sends ``license: ...`` (2.3)."""


class _HideSecrets(logging.Filter):
    """Takes licences and payloads out of a record before any handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        safe = _HEADER.sub(r"\1***", _FRAME.sub(r"\1 \2", redact(message)))
        if safe != message:
            record.msg, record.args = safe, ()
        if record.exc_info:
            # An exception's text and its context may quote the URL; its kind is enough here.
            kind = record.exc_info[0]
            record.msg, record.args = f"{safe} ({kind.__name__ if kind else 'error'})", ()
            record.exc_info = None
        return True


def websocket_logger() -> logging.Logger:
    """The logger given to websockets. Its own loggers show the request line with the licence."""
    logger = logging.getLogger("navtalk.websocket")
    if not any(isinstance(known, _HideSecrets) for known in logger.filters):
        logger.addFilter(_HideSecrets())
    return logger


class _Watched(WebSocketConnection):
    """A connection that ends when the far end answers no ping, or takes nothing of what waits.

    websockets' own keep-alive waits ten seconds more for an answer to its goodbye, and where its
    ping waits behind what is being sent, for ever.
    """

    took_nothing: bool = False
    """Whether that is why it ended."""
    no_pong: bool = False
    """Whether that is why it ended."""
    _waiting = 0
    _look_again: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._look_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_no_more()
        super().connection_lost(exc)

    async def keepalive(self) -> None:
        """Ping for as long as the connection lives; drop it when a pong does not come.

        Started and cancelled by websockets, in place of its own.
        """
        while True:
            await asyncio.sleep(KEEPALIVE_SECONDS)
            try:
                pong = await self.ping()
                async with asyncio.timeout(KEEPALIVE_SECONDS):
                    await pong
            except ConnectionClosed:
                return
            except TimeoutError:
                self.no_pong = True
                self.protocol.fail(CloseCode.INTERNAL_ERROR, "no pong")
                self.send_data()
                self.transport.close()
                return

    def _look_later(self) -> None:
        self._waiting = self.transport.get_write_buffer_size()
        self._look_again = self.loop.call_later(KEEPALIVE_SECONDS, self._look)

    def _look_no_more(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None

    def _look(self) -> None:
        if self.transport.get_write_buffer_size() < self._waiting:
            self._look_later()  # Slow, but it goes on.
            return
        self.took_nothing = True
        self.transport.abort()


class _ClientConnection(_Watched, ClientConnection):
    pass


class WebSocketTransport:
    """A :class:`~navtalk_proto.transport.Transport` over a websockets connection."""

    def __init__(self, connection: _Watched) -> None:
        self._connection = connection

    async def send_text(self, text: str) -> None:
        """Send one text message."""
        try:
            await self._connection.send(text)
        except ConnectionClosed as closed:
            raise self._closed(closed) from None

    async def receive(self) -> str | bytes:
        """Receive one message."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise self._closed(closed) from None

    async def close(self, code: int, reason: str) -> None:
        """Do the closing handshake."""
        await self._connection.close(code, reason)

    async def aclose(self) -> None:
        """Drop what is left."""
        self._connection.transport.abort()
        await self._connection.wait_closed()

    def _closed(self, closed: ConnectionClosed) -> TransportClosedError:
        if self._connection.took_nothing:
            return TransportClosedError(None, f"nothing was taken for {KEEPALIVE_SECONDS:g} s")
        if self._connection.no_pong and closed.rcvd is None:
            return TransportClosedError(None, f"no pong within {KEEPALIVE_SECONDS:g} s")
        return _closed(closed)


_OURS: Final[dict[int, str]] = {
    CloseCode.PROTOCOL_ERROR: "not a WebSocket frame",
    CloseCode.INVALID_DATA: "a text message is not UTF-8",
    CloseCode.MESSAGE_TOO_BIG: "a message is far too big",
}
"""What the far end did when websockets closes with this by itself (RFC 6455 section 7.4.1)."""


def _closed(closed: ConnectionClosed) -> TransportClosedError:
    if closed.rcvd is not None:
        return TransportClosedError(int(closed.rcvd.code), closed.rcvd.reason)
    if closed.sent is not None and closed.sent.code in _OURS:
        # websockets closed it before the core could see why.
        why = _OURS[closed.sent.code]
        return TransportClosedError(int(closed.sent.code), why, violation=True)
    return TransportClosedError(None, "")


async def open_websocket(
    endpoint: Endpoint,
    *,
    max_size: int,
    ssl: ssl_module.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
) -> WebSocketTransport:
    """Open a client WebSocket. Raises ConnectFailedError, whose text never has the licence:
    HandshakeRefusedError or ProxyRefusedError where trying again is of no use.

    `ssl` replaces the default context of a ``wss`` endpoint; with a ``ws`` one it raises
    EndpointError. `proxy` True takes the proxy from the environment (``HTTPS_PROXY`` and the like,
    SOCKS included), but for an endpoint on loopback: a proxy's loopback is another machine's. A URL
    names the proxy, None goes direct. No compression: base64 audio does not shrink.
    """
    if proxy is True and endpoint.is_loopback:
        proxy = None
    # websockets takes ssl=None for "no TLS" and refuses it with wss://.
    options: dict[str, Any] = {}
    if ssl is not None:
        if not endpoint.base_url.startswith("wss:"):
            raise EndpointError("an SSL context is for a wss:// base URL; this one is ws://")
        options["ssl"] = ssl
    try:
        connection = await websockets.asyncio.client.connect(
            endpoint.url(),
            max_size=max_size + OVERSIZE_MARGIN,
            proxy=proxy,
            compression=None,
            open_timeout=None,
            ping_interval=KEEPALIVE_SECONDS,
            ping_timeout=KEEPALIVE_SECONDS,
            logger=websocket_logger(),
            create_connection=_ClientConnection,
            **options,
        )
    except InvalidURI as error:
        raise ConnectFailedError(f"not a WebSocket URL: {error.msg}", stage="open") from None
    except InvalidProxy as error:
        # Its text quotes the proxy's URL, and that may hold a password.
        raise ConnectFailedError(f"not a proxy's URL: {error.msg}", stage="open") from None
    except (OSError, WebSocketException, ValueError) as error:
        # `from None`: the cause's text may quote the URL, and a traceback would print it.
        status, of_proxy, text = _answer(error)
        text = redact(text) or type(error).__name__
        message = f"cannot open {endpoint.redacted_url()}: {text}"
        raise handshake_error(message, status, proxy=of_proxy) from None
    assert isinstance(connection, _ClientConnection)
    return WebSocketTransport(connection)


def _answer(error: Exception) -> tuple[int | None, bool, str]:
    """What a failed handshake was answered, whether the proxy did, and the failure in words."""
    if isinstance(error, InvalidStatus):
        return error.response.status_code, False, str(error)
    if isinstance(error, InvalidProxyStatus):
        return error.response.status_code, True, str(error)
    if isinstance(error, ProxyError) and error.__cause__ is not None:
        # Of python-socks, whose error says what the proxy answered (RFC 1928 section 6).
        status: int | None = getattr(error.__cause__, "error_code", None)
        return status, True, f"the proxy did not connect: {error.__cause__}"
    return None, False, str(error)


_BODY_LENGTH: Final = re.compile(rb"(?im)^content-length:[^\r\n]*")
_BODY_CODING: Final = re.compile(rb"(?im)^transfer-encoding:[^\r\n]*\r\n")
_MAX_HEAD: Final = 16 * KIB
"""Bytes of a POST's head that are held back until it is whole."""


class _WithoutBody:
    """Takes the body off a plain POST, whose reply does not depend on it.

    websockets drops a connection whose request has one, before anybody is asked for a reply.
    """

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._ended = False

    def take(self, data: bytes) -> bytes:
        """What websockets may see of what was received."""
        if self._ended:
            return b""
        if self._head is None:
            return data
        head = self._head + data
        end = head.find(b"\r\n\r\n")
        if head[:5] == b"POST " and end >= 0:
            self._ended = True
            fields = _BODY_LENGTH.sub(b"Content-Length: 0", head[: end + 4])
            return _BODY_CODING.sub(b"", fields)
        if b"POST ".startswith(head[:5]) and len(head) < _MAX_HEAD:
            self._head = head
            return b""
        self._head = None
        return head


@asynccontextmanager
async def accept_websockets(
    session: Callable[[WebSocketTransport, RequestTarget], Awaitable[None]],
    host: str,
    port: int,
    *,
    http: HttpHandler | None,
    ssl: ssl_module.SSLContext | None,
    max_size: int,
    max_sessions: int,
    origins: Collection[str] | None,
    counters: DoorCounters,
) -> AsyncGenerator[int]:
    """Run `session` for each WebSocket; yields the port. Leaving cancels the sessions and waits.

    `origins` None lets every web page in; else only pages of these origins, and whatever sends no
    Origin. Who is turned away is in `counters`.
    """
    tasks: set[asyncio.Task[None]] = set()
    connections: weakref.WeakSet[ServerConnection] = weakref.WeakSet()
    opening: dict[ServerConnection, None] = {}
    admitted: set[ServerConnection] = set()
    """Those whose session is to begin when their handshake is done."""
    leaving = False

    class Visit(_Watched, ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.without_body = _WithoutBody()
            connections.add(self)
            opening[self] = None
            if len(opening) > MAX_HANDSHAKES:
                counters.opening += 1
                oldest = next(iter(opening))
                del opening[oldest]
                oldest.transport.abort()
            if leaving:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            opening.pop(self, None)
            admitted.discard(self)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if seen := self.without_body.take(data):
                super().data_received(seen)
            if self.transport.get_write_buffer_size() > MAX_UNREAD:
                counters.unread += 1
                self.took_nothing = True
                self.transport.abort()

    async def handle(connection: ServerConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert isinstance(connection, Visit)
        assert connection.request is not None
        tasks.add(task)
        opening.pop(connection, None)
        admitted.discard(connection)
        try:
            target = parse_request_target(connection.request.path)
            await session(WebSocketTransport(connection), target)
        finally:
            tasks.discard(task)

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        # Not get(): it raises for a header that was sent twice.
        upgrade = any(one.lower() == "websocket" for one in request.headers.get_all("Upgrade"))
        if upgrade:
            if not may_come_from(request.headers.get_all("Origin"), origins):
                counters.origin += 1
                return connection.respond(HTTPStatus.FORBIDDEN, "not from this origin\n")
            if len(tasks) + len(admitted) >= max_sessions:
                counters.full += 1
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no session is free\n")
            try:
                parse_request_target(request.path)
            except EndpointError as error:
                return connection.respond(HTTPStatus.BAD_REQUEST, f"{error}\n")
            admitted.add(connection)
            return None
        reply = None
        if http is not None:
            headers = {name.lower(): value for name, value in request.headers.raw_items()}
            reply = http(HttpRequest(method=request.method, target=request.path, headers=headers))
        if reply is None:
            return connection.respond(HTTPStatus.NOT_FOUND, "not found\n")
        status = HTTPStatus(reply.status)
        fields = Headers(reply.headers)
        fields["Connection"] = "close"
        return Response(status, status.phrase, fields, reply.body)

    async with websockets.asyncio.server.serve(
        handle,
        host,
        port,
        process_request=process_request,
        max_size=max_size + OVERSIZE_MARGIN,
        max_queue=READ_AHEAD,
        ssl=ssl,
        compression=None,
        open_timeout=HANDSHAKE_SECONDS,
        ping_interval=KEEPALIVE_SECONDS,
        ping_timeout=KEEPALIVE_SECONDS,
        logger=websocket_logger(),
        create_connection=Visit,
        ssl_handshake_timeout=None if ssl is None else HANDSHAKE_SECONDS,
    ) as server:
        try:
            yield next(iter(server.sockets)).getsockname()[1]
        finally:
            leaving = True
            # asyncio forgets a socket that it accepted and has no transport for when its server
            # closes: accept no more first, and let what was accepted get there.
            loop = asyncio.get_running_loop()
            for listening in server.sockets:
                with suppress(NotImplementedError):  # Windows' proactor loop has no readers.
                    loop.remove_reader(listening.fileno())
            for _ in ("transport", "connection_made"):
                await asyncio.sleep(0)
            server.close(close_connections=False)
            for task in tasks:
                task.cancel()
            for connection in connections:
                # Browsers open sockets ahead of need: one that has said nothing is not waited for.
                if connection.state is State.CONNECTING:
                    connection.transport.abort()
            if tasks:
                await asyncio.wait(tasks)
