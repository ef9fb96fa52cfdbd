"""The WebSocket transport over trio-websocket: opening, accepting, keep-alive, proxies.

trio-websocket opens connections by URL, and logs it, licence and all; here the stream is opened
first, which also makes proxies possible, and the library is given the stream.
"""

from __future__ import annotations

import logging
import ssl as ssl_module
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
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
from wsproto.utilities import LocalProtocolError

from navtalk_proto.errors import (
    ConnectFailedError,
    EndpointError,
    ProxyRefusedError,
    handshake_error,
)
from navtalk_proto.exception_groups import raise_unchanged
from navtalk_proto.limits import KIB
from navtalk_proto.redaction import redact
from navtalk_proto.transport import DoorCounters, TransportClosedError, may_come_from
from navtalk_proto.wire.endpoint import Endpoint, RequestTarget, parse_request_target
from navtalk_proto.wire.plain_http import HttpHandler, HttpReply, HttpRequest
from navtalk_trio.driver import bare

__all__ = ["WebSocketTransport", "accept_websockets", "open_websocket"]

log: Final = logging.getLogger("navtalk.websocket")

OVERSIZE_MARGIN: Final = 64 * KIB
"""How far above its limit a message may be and still reach the core, which then says what is wrong.
Beyond, trio-websocket closes with 1009."""

MESSAGE_QUEUE: Final = 64
"""Messages that a client reads ahead. With trio-websocket's own 1 its reader blocks, and answers no
ping, as soon as the application is busy."""

SERVER_MESSAGE_QUEUE: Final = 2
"""Messages that a server reads ahead: a client's may have 16 MiB each, and there are many clients.
The driver takes them at once, as long as the application reads its events."""

MAX_HANDSHAKES: Final = 256
"""Clients that may be in their opening handshake at a time. One more, and the oldest is dropped: a
handshake takes a round trip, so what waits longest is a spare socket of a browser, or an attack."""

MAX_FRAGMENTS: Final = 4096
"""Pieces that a message may have, and one more for each FRAGMENT_BYTES of it. trio-websocket bounds
their size only, so that pieces of nothing would fill the memory."""

FRAGMENT_BYTES: Final = 512
"""What a read of a slow network brings at least, on average."""

RECEIVE_BUFFER: Final = 64 * KIB
"""Bytes read from the socket at once."""

KEEPALIVE_SECONDS: Final = 20.0
"""Ping interval and pong timeout, as known Python clients have it (protocol.md 2.6). A far end that
is gone without a word is noticed after twice this at the latest."""

REQUEST_HEAD: Final = 64 * KIB
"""Largest HTTP request head that a server reads, in bytes."""

REQUEST_SECONDS: Final = 10.0
"""How long a client may take over its request head."""

LINGER_SECONDS: Final = 1.0
"""How long what a client goes on sending is read, and thrown away, after its request's answer."""


_OURS: Final = {
    1002: "not a WebSocket frame",
    1007: "a text message is not UTF-8",
    1009: "a message is far too big",
}
"""What the far end did when trio-websocket gives up with this (RFC 6455 section 7.4.1). It answers
every close frame that it receives, and sends none of its own for the first two."""

_TOO_BIG: Final = "Exceeded maximum message size"
"""What trio-websocket gives as the reason when it closes with 1009 by itself."""

_CLOSE_FRAME: Final = 0x88
"""The first byte of a close frame (RFC 6455 section 5.2): FIN, and opcode 8."""


class WebSocketTransport:
    """A :class:`~navtalk_proto.transport.Transport` over a trio-websocket connection."""

    def __init__(self, connection: WebSocketConnection, stream: _WatchedStream) -> None:
        self._connection = connection
        self._stream = stream
        self._closing: trio.Event | None = None
        self._lost: TransportClosedError | None = None
        self.reader_ended: trio.Event = trio.Event()
        """Set by who runs trio-websocket's reader: without it a closing handshake cannot finish."""

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

        async def until_the_reader_ends() -> None:
            await self.reader_ended.wait()
            handshake.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as handshake:
                handshake.start_soon(until_the_reader_ends)
                await self._connection.aclose(code, reason or None)
                handshake.cancel_scope.cancel()
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
        code, text = int(reason.code), reason.reason or ""
        if code in _OURS and (text.startswith(_TOO_BIG) or not self._stream.close_sent):
            return TransportClosedError(code, _OURS[code], violation=True)
        return TransportClosedError(code, text)


class _WatchedStream(trio.abc.Stream):
    """A stream that gives out some bytes again before its own, and tells when it has ended.

    It also tells whether a close frame was sent: the library sends a frame at a time. And it ends
    when the message that the library puts together has too many pieces.
    """

    def __init__(
        self, stream: trio.abc.Stream, head: bytes = b"", counters: DoorCounters | None = None
    ) -> None:
        self._stream = stream
        self._head = head
        self._counters = counters or DoorCounters()
        self.connection: WebSocketConnection | None = None
        """Who reads from here, once it is known."""
        self.ended: trio.Event = trio.Event()
        self.close_sent: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            await trio.lowlevel.checkpoint()
            return head
        if self.connection is not None and _is_in_too_many_pieces(self.connection):
            self._counters.fragments += 1
            self.ended.set()
            raise trio.BrokenResourceError("a message is in too many pieces")
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except BaseException:
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if data[:1] == bytes([_CLOSE_FRAME]):
            self.close_sent = True
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _is_in_too_many_pieces(connection: WebSocketConnection) -> bool:
    pieces: int = len(connection._message_parts)
    size: int = connection._message_size
    return pieces > MAX_FRAGMENTS + size // FRAGMENT_BYTES


_OPENING_ERRORS: Final = (
    HandshakeError,
    ConnectFailedError,
    OSError,
    ValueError,
    trio.BrokenResourceError,
    # trio-websocket wants to refuse what is not HTTP, as only a server may.
    h11.LocalProtocolError,
    LocalProtocolError,
)


async def open_websocket(
    nursery: trio.Nursery,
    endpoint: Endpoint,
    *,
    max_size: int,
    ssl: ssl_module.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
) -> WebSocketTransport:
    """Open a client WebSocket, read in `nursery`. Raises ConnectFailedError without the licence:
    HandshakeRefusedError or ProxyRefusedError where trying again is of no use.

    `ssl` replaces the default context of a ``wss`` endpoint; with a ``ws`` one it raises
    EndpointError. `proxy` True takes the proxy from the environment (``HTTPS_PROXY`` and the like,
    SOCKS included), but for an endpoint on loopback: a proxy's loopback is another machine's. A URL
    names the proxy, None goes direct. Proxies need python-socks. Redirects are not followed. No
    compression: base64 audio does not shrink.
    """
    if ssl is not None and not endpoint.base_url.startswith("wss:"):
        raise EndpointError("an SSL context is for a wss:// base URL; this one is ws://")
    if proxy is True and endpoint.is_loopback:
        proxy = None
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
    status: int | None = None
    if isinstance(error, ConnectFailedError):
        text = str(error)
        status = error.status if isinstance(error, ProxyRefusedError) else None
    elif isinstance(error, ConnectionRejected):
        status = error.status_code
        text = f"the server answered HTTP {error.status_code} {_phrase(error.status_code)}"
    elif isinstance(error, h11.LocalProtocolError | LocalProtocolError):
        text = "the server does not answer as a WebSocket server does"
    else:
        text = redact(str(error)) or type(error).__name__
    # Raised outside the except block: a traceback would print the cause, which may quote the URL.
    message = f"cannot open {endpoint.redacted_url()}: {text}"
    raise handshake_error(message, status, proxy=isinstance(error, ProxyRefusedError))


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

    async def shake_hands(reader: trio.Nursery) -> WebSocketConnection:
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
        return connection

    await _hold(watched, shake_hands, task_status)


async def _hold(
    stream: _WatchedStream,
    shake_hands: Callable[[trio.Nursery], Awaitable[WebSocketConnection]],
    task_status: trio.TaskStatus[WebSocketTransport],
) -> None:
    """Open a connection, then run its reader and its keep-alive until the stream is closed.

    The handshake may be cancelled. What follows may not: the closing handshake needs the reader,
    also when the application is cancelled. Whoever has the transport closes the stream.
    """
    try:
        with trio.CancelScope() as open_or_cancelled:
            async with trio.open_nursery() as beside:
                try:
                    async with trio.open_nursery() as reader:
                        connection = await shake_hands(reader)
                        stream.connection = connection
                        transport = WebSocketTransport(connection, stream)
                        task_status.started(transport)
                        # Cancelled in the last moment: then nobody has got the transport.
                        await trio.lowlevel.checkpoint_if_cancelled()
                        open_or_cancelled.shield = True
                        beside.start_soon(transport.keep_alive)
                except* LocalProtocolError:
                    # trio-websocket answers a ping that crossed our close, and is not allowed to.
                    if not open_or_cancelled.shield:
                        raise
                transport.reader_ended.set()
                beside.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def _open_stream(
    endpoint: Endpoint, ssl: ssl_module.SSLContext | None, proxy: str | Literal[True] | None
) -> trio.abc.Stream:
    url = urllib.parse.urlsplit(endpoint.base_url)
    secure = url.scheme == "wss"
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
    scheme, _, rest = proxy.partition("://")
    # python-socks has another way to say that the proxy resolves the name (curl's socks5h).
    plain = {"socks5h": "socks5", "socks4a": "socks4"}.get(scheme, scheme)
    try:
        through = Proxy.from_url(f"{plain}://{rest}", rdns=plain != scheme or None)
    except ValueError:
        pass  # Not raised from here: its text, and the context, quote the URL and its password.
    else:
        try:
            socket = await through.connect(dest_host=host, dest_port=port)
        except (ProxyError, OSError) as error:
            status = error.error_code if isinstance(error, ProxyError) else None
            message = f"the proxy did not connect: {error}"
            raise handshake_error(message, status, proxy=isinstance(error, ProxyError)) from None
        return trio.SocketStream(socket)
    raise ConnectFailedError("not a proxy's URL: http://, socks5:// and so on", stage="open")


def _proxy_from_environment(host: str, port: int, secure: bool) -> str | None:
    """The proxy that the environment names for a WebSocket, in the order websockets looks."""
    if urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    proxies = urllib.request.getproxies()
    for scheme in ("wss", "socks", "https") if secure else ("ws", "socks", "https", "http"):
        found = proxies.get(scheme)
        if found is not None:
            return found.replace("http://", "socks5h://", 1) if scheme == "socks" else found
    return None


# ---- the server's side


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
    opening: dict[trio.CancelScope, None] = {}
    admitted = 0

    def door(request: h11.Request) -> HttpReply | None:
        """The refusal of an upgrade, None to let it in."""
        given = [value.decode("latin-1") for name, value in request.headers if name == b"origin"]
        if not may_come_from(given, origins):
            counters.origin += 1
            return _text(HTTPStatus.FORBIDDEN, "not from this origin")
        if admitted >= max_sessions:
            counters.full += 1
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "no session is free")
        return None

    async def handle(stream: trio.abc.Stream) -> None:
        nonlocal admitted
        try:
            with trio.fail_after(REQUEST_SECONDS) as handshake:
                opening[handshake] = None
                if len(opening) > MAX_HANDSHAKES:
                    counters.opening += 1
                    oldest = next(iter(opening))
                    del opening[oldest]
                    oldest.cancel()
                try:
                    request, head = await _read_request(stream)
                    target = await _target_or_answer(stream, request, http, door)
                finally:
                    opening.pop(handshake, None)
            if target is not None:
                # Nothing has run since the door let it in.
                admitted += 1
                try:
                    watched = _WatchedStream(stream, head, counters)
                    await _accept(watched, session, target, max_size)
                finally:
                    admitted -= 1
        except* _CLIENT_IS_GONE:
            pass  # A client that hung up, or never finished its request, is not our failure.
        finally:
            await trio.aclose_forcefully(stream)

    listeners: list[Any]
    if ssl is None:
        listeners = list(await trio.open_tcp_listeners(port, host=host))
    else:
        listeners = list(
            await trio.open_ssl_over_tcp_listeners(port, ssl, host=host, https_compatible=True)
        )
    bound: int = (listeners[0].transport_listener if ssl else listeners[0]).socket.getsockname()[1]
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, handle, listeners)
            yield bound
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure = bare(group)
    if failure is not None:
        raise_unchanged(failure)


_CLIENT_IS_GONE: Final = (
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    ConnectionClosed,
    HandshakeError,
    OSError,
)


async def _target_or_answer(
    stream: trio.abc.Stream,
    request: h11.Request | None,
    http: HttpHandler | None,
    door: Callable[[h11.Request], HttpReply | None],
) -> RequestTarget | None:
    """What a client wants a session with; None: it wanted something else, and was answered."""
    if request is None or not _is_upgrade(request):
        await _answer(stream, _plain(request, http))
    elif (closed := door(request)) is not None:
        await _answer(stream, closed)
    else:
        try:
            return parse_request_target(request.target.decode("ascii"))
        except EndpointError as error:
            refusal = _text(HTTPStatus.BAD_REQUEST, str(error))
        await _answer(stream, refusal)
    return None


async def _accept(
    stream: _WatchedStream,
    session: Callable[[WebSocketTransport, RequestTarget], Awaitable[None]],
    target: RequestTarget,
    max_size: int,
) -> None:
    async def shake_hands(reader: trio.Nursery) -> WebSocketConnection:
        request = await wrap_server_stream(
            reader,
            stream,
            message_queue_size=SERVER_MESSAGE_QUEUE,
            max_message_size=max_size + OVERSIZE_MARGIN,
            receive_buffer_size=RECEIVE_BUFFER,
        )
        return await request.accept()

    async with trio.open_nursery() as tasks:
        with trio.fail_after(REQUEST_SECONDS):
            transport: WebSocketTransport = await tasks.start(_hold, stream, shake_hands)
        try:
            await session(transport, target)
        finally:
            await transport.aclose()


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
        asked = HttpRequest(
            method=request.method.decode("ascii"),
            target=request.target.decode("ascii", "replace"),
            headers={
                name.decode("ascii"): value.decode("latin-1") for name, value in request.headers
            },
        )
        try:
            reply = http(asked)
        except Exception:
            log.exception("! answering HTTP failed")
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR)
    return reply or _text(HTTPStatus.NOT_FOUND)


def _text(status: HTTPStatus, text: str = "") -> HttpReply:
    body = f"{text or status.phrase.lower()}\n".encode()
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
    if isinstance(stream, trio.abc.HalfCloseableStream):
        # Closing with something unread resets the connection, and may overtake the answer.
        await stream.send_eof()
        with trio.move_on_after(LINGER_SECONDS):
            while await stream.receive_some(RECEIVE_BUFFER):
                pass
