"""The WebSocket transport over trio-websocket: opening, accepting, keep-alive, proxies.

trio-websocket opens connections by URL, and logs it, licence and all; here the stream is opened
first, which also makes proxies possible, and the library is given the stream.
"""

from __future__ import annotations

import ssl as ssl_module
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, Literal, cast

import h11
import trio
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
    wrap_server_stream,
)

from navtalk_proto.errors import ConnectFailedError
from navtalk_proto.limits import KIB
from navtalk_proto.redaction import redact
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.plain_http import HttpHandler, HttpReply, HttpRequest

__all__ = ["WebSocketTransport", "accept_websockets", "open_websocket"]

OVERSIZE_MARGIN: Final = 64 * KIB
"""How far above its limit a message may be and still reach the core, which then says what is wrong.
Beyond, trio-websocket closes with 1009."""

MESSAGE_QUEUE: Final = 64
"""Messages read ahead. With trio-websocket's own 1 its reader blocks, and answers no ping, as soon
as the application is busy."""

RECEIVE_BUFFER: Final = 64 * KIB
"""Bytes read from the socket at once."""

KEEPALIVE_SECONDS: Final = 20.0
"""Ping interval and pong timeout, as known Python clients have it (protocol.md 2.6)."""

REQUEST_HEAD: Final = 64 * KIB
"""Largest HTTP request head that a server reads, in bytes."""

REQUEST_SECONDS: Final = 10.0
"""How long a client may take over its request head."""


class WebSocketTransport:
    """A :class:`~navtalk_proto.transport.Transport` over a trio-websocket connection."""

    def __init__(self, connection: WebSocketConnection, stream: trio.abc.Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._closing: trio.Event | None = None
        self._lost: TransportClosedError | None = None

    async def send_text(self, text: str) -> None:
        """Send one text message."""
        try:
            await self._connection.send_message(text)
        except ConnectionClosed as closed:
            raise self._closed(closed) from None

    async def receive(self) -> str | bytes:
        """Receive one message."""
        try:
            return await self._connection.get_message()
        except ConnectionClosed as closed:
            if self._closing is None:
                raise self._closed(closed) from None
        # Closing woke us at once; how it ended is known after the handshake.
        await self._closing.wait()
        raise self._closed(ConnectionClosed(self._connection.closed))

    async def close(self, code: int, reason: str) -> None:
        """Do the closing handshake."""
        self._closing = trio.Event()
        try:
            await self._connection.aclose(code, reason or None)
        finally:
            self._closing.set()

    async def aclose(self) -> None:
        """Drop what is left."""
        await trio.aclose_forcefully(self._stream)

    async def keep_alive(self) -> None:
        """Ping for as long as the connection lives; drop it when a pong does not come."""
        while True:
            await trio.sleep(KEEPALIVE_SECONDS)
            try:
                with trio.move_on_after(KEEPALIVE_SECONDS) as waiting:
                    await self._connection.ping()
            except ConnectionClosed:
                return
            if waiting.cancelled_caught:
                self._lost = TransportClosedError(None, f"no pong within {KEEPALIVE_SECONDS:g} s")
                await self.aclose()
                return

    def _closed(self, closed: ConnectionClosed) -> TransportClosedError:
        if self._lost is not None:
            return self._lost
        reason: CloseReason | None = closed.reason
        if reason is None or reason.code == 1006:  # RFC 6455 7.4.1: never on the wire
            return TransportClosedError(None, "")
        return TransportClosedError(int(reason.code), reason.reason or "")


class _WatchedStream(trio.abc.Stream):
    """A stream that gives out some bytes again before its own, and tells when it has ended."""

    def __init__(self, stream: trio.abc.Stream, head: bytes = b"") -> None:
        self._stream = stream
        self._head = head
        self.ended = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            await trio.lowlevel.checkpoint()
            return head
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except BaseException:
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


_OPENING_ERRORS: Final = (
    HandshakeError,
    ConnectFailedError,
    OSError,
    ValueError,
    trio.BrokenResourceError,
)


async def open_websocket(
    nursery: trio.Nursery,
    endpoint: Endpoint,
    *,
    max_size: int,
    ssl: ssl_module.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
) -> WebSocketTransport:
    """Open a client WebSocket, read in `nursery`. Raises ConnectFailedError without the licence.

    `proxy` True takes the proxy from the environment (``HTTPS_PROXY`` and the like, SOCKS
    included), a URL names it, None goes direct.
    """
    error: BaseException
    try:
        stream = await _open_stream(endpoint, ssl, proxy)
        transport: WebSocketTransport = await nursery.start(_client, endpoint, stream, max_size)
    except* _OPENING_ERRORS as group:
        # A rejection and the hang-up that follows it may come together; the first says why.
        failures = _leaves(group)
        error = next((one for one in failures if isinstance(one, HandshakeError)), failures[0])
    else:
        return transport
    if isinstance(error, ConnectFailedError):
        text = str(error)
    elif isinstance(error, ConnectionRejected):
        text = f"the server answered HTTP {error.status_code} {_phrase(error.status_code)}"
    else:
        text = redact(str(error)) or type(error).__name__
    # Raised outside the except block: a traceback would print the cause, which may quote the URL.
    raise ConnectFailedError(f"cannot open {endpoint.redacted_url()}: {text}", stage="open")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for one in group.exceptions:
        found += _leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return found


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


async def _client(
    endpoint: Endpoint,
    stream: trio.abc.Stream,
    max_size: int,
    *,
    task_status: trio.TaskStatus[WebSocketTransport],
) -> None:
    """Hold a client connection: trio-websocket's reader, and the keep-alive, until both end."""
    url = urllib.parse.urlsplit(endpoint.url())
    watched = _WatchedStream(stream)

    async def refuse_silence() -> None:
        # trio-websocket goes on waiting for the handshake of a server that hung up.
        await watched.ended.wait()
        raise ConnectFailedError("the server hung up in the handshake", stage="open")

    try:
        async with trio.open_nursery() as beside:
            async with trio.open_nursery() as reader:
                async with trio.open_nursery() as handshake:
                    handshake.start_soon(refuse_silence)
                    connection = await wrap_client_stream(
                        reader,
                        cast("trio.SocketStream", watched),
                        url.netloc,
                        f"{url.path}?{url.query}",
                        message_queue_size=MESSAGE_QUEUE,
                        max_message_size=max_size + OVERSIZE_MARGIN,
                        receive_buffer_size=RECEIVE_BUFFER,
                    )
                    handshake.cancel_scope.cancel()
                transport = WebSocketTransport(connection, stream)
                beside.start_soon(transport.keep_alive)
                task_status.started(transport)
            beside.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _open_stream(
    endpoint: Endpoint, ssl: ssl_module.SSLContext | None, proxy: str | Literal[True] | None
) -> trio.abc.Stream:
    url = urllib.parse.urlsplit(endpoint.base_url)
    secure = url.scheme == "wss"
    if ssl is not None and not secure:
        raise ValueError("an SSL context goes with a wss:// URL")
    host = url.hostname or ""
    port = url.port or (443 if secure else 80)
    through = _proxy_from_environment(host, port, secure) if proxy is True else proxy
    if through is None:
        stream: trio.SocketStream = await trio.open_tcp_stream(host, port)
    else:
        stream = await _through_proxy(through, host, port)
    if not secure:
        return stream
    context = ssl or ssl_module.create_default_context()
    encrypted = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await encrypted.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(encrypted)
        if isinstance(error, trio.BrokenResourceError) and error.__cause__ is not None:
            raise ConnectFailedError(f"TLS: {error.__cause__}", stage="open") from None
        raise
    return encrypted


async def _through_proxy(proxy: str, host: str, port: int) -> trio.SocketStream:
    try:
        from python_socks import ProxyError
        from python_socks.async_.trio import Proxy
    except ModuleNotFoundError:
        raise ConnectFailedError(
            "a proxy is configured, which needs python-socks: pip install 'navtalk[trio]', "
            "or pass proxy=None to go direct",
            stage="open",
        ) from None
    try:
        socket = await Proxy.from_url(proxy).connect(dest_host=host, dest_port=port)
    except ProxyError as error:
        # The proxy's URL may hold a password: it is not shown.
        raise ConnectFailedError(f"the proxy did not connect: {error}", stage="open") from None
    return trio.SocketStream(socket)


def _proxy_from_environment(host: str, port: int, secure: bool) -> str | None:
    """The proxy that the environment names for a WebSocket, in the order websockets looks."""
    if urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    proxies = urllib.request.getproxies()
    for scheme in ("wss", "socks", "https") if secure else ("ws", "socks", "https", "http"):
        found = proxies.get(scheme)
        if found is not None:
            return found.replace("http://", "socks5://", 1) if scheme == "socks" else found
    return None


# ---- the server's side


@asynccontextmanager
async def accept_websockets(
    session: Callable[[WebSocketTransport, str], Awaitable[None]],
    host: str,
    port: int,
    *,
    http: HttpHandler | None,
    ssl: ssl_module.SSLContext | None,
    max_size: int,
    full: Callable[[], bool],
) -> AsyncGenerator[int]:
    """Run `session` for each WebSocket; yields the port. Leaving cancels the sessions and waits."""

    async def handle(stream: trio.abc.Stream) -> None:
        try:
            with trio.fail_after(REQUEST_SECONDS):
                request, head = await _read_request(stream)
                if request is None or not _is_upgrade(request):
                    await _answer(stream, _plain(request, http))
                    return
                if full():
                    await _answer(stream, _text(HTTPStatus.SERVICE_UNAVAILABLE))
                    return
            await _accept(stream, head, session, max_size)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # A client that hung up, or never finished its request, is not our failure.
        finally:
            await trio.aclose_forcefully(stream)

    listeners: list[Any]
    if ssl is None:
        listeners = list(await trio.open_tcp_listeners(port, host=host))
    else:
        listeners = list(await trio.open_ssl_over_tcp_listeners(port, ssl, host=host))
    bound: int = (listeners[0].transport_listener if ssl else listeners[0]).socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield bound
        nursery.cancel_scope.cancel()


async def _accept(
    stream: trio.abc.Stream,
    head: bytes,
    session: Callable[[WebSocketTransport, str], Awaitable[None]],
    max_size: int,
) -> None:
    async with trio.open_nursery() as tasks:
        with trio.fail_after(REQUEST_SECONDS):
            request = await wrap_server_stream(
                tasks,
                _WatchedStream(stream, head),
                message_queue_size=MESSAGE_QUEUE,
                max_message_size=max_size + OVERSIZE_MARGIN,
                receive_buffer_size=RECEIVE_BUFFER,
            )
            connection = await request.accept()
        transport = WebSocketTransport(connection, stream)
        tasks.start_soon(transport.keep_alive)
        await session(transport, request.path)
        tasks.cancel_scope.cancel()


async def _read_request(stream: trio.abc.Stream) -> tuple[h11.Request | None, bytes]:
    """The request and the bytes it was read from; None where it is not HTTP."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_HEAD)
    head = bytearray()
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError:
            return None, bytes(head)
        if isinstance(event, h11.Request):
            return event, bytes(head)
        if event is not h11.NEED_DATA:
            return None, bytes(head)
        data = bytes(await stream.receive_some(RECEIVE_BUFFER))
        head += data
        parser.receive_data(data)


def _is_upgrade(request: h11.Request) -> bool:
    return any(
        name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers
    )


def _plain(request: h11.Request | None, http: HttpHandler | None) -> HttpReply:
    if request is None:
        return _text(HTTPStatus.BAD_REQUEST)
    reply = None
    if http is not None:
        reply = http(
            HttpRequest(
                method=request.method.decode("ascii"),
                target=request.target.decode("ascii", "replace"),
                headers={
                    name.decode("ascii"): value.decode("latin-1") for name, value in request.headers
                },
            )
        )
    return reply or _text(HTTPStatus.NOT_FOUND)


def _text(status: HTTPStatus) -> HttpReply:
    body = f"{status.phrase.lower()}\n".encode()
    fields = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))))
    return HttpReply(status=status, headers=fields, body=body)


async def _answer(stream: trio.abc.Stream, reply: HttpReply) -> None:
    writer = h11.Connection(h11.SERVER)
    writer.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    writer.next_event()
    writer.next_event()
    phrase = _phrase(reply.status)
    head = h11.Response(
        status_code=reply.status,
        headers=[*reply.headers, ("Connection", "close")],
        reason=phrase,
    )
    parts = [writer.send(one) for one in (head, h11.Data(data=reply.body), h11.EndOfMessage())]
    await stream.send_all(b"".join(part for part in parts if part))
