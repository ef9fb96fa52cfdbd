"""The client over real sockets, on 127.0.0.1: what goes well, and every way it does not."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection

from navtalk_asyncio import Endpoint, connect, serve
from navtalk_proto import (
    ClientConfig,
    ConnectFailedError,
    ConnectTimeoutError,
    EndpointError,
    HandshakeRefusedError,
    ProxyRefusedError,
    ReconnectPolicy,
    ServerConfig,
)
from navtalk_proto.events import (
    BinaryIgnored,
    CloseCause,
    Closed,
    MessageReceived,
    ProtocolViolation,
    Reconnecting,
)
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    SessionCreated,
    SessionUpdated,
    UserMessage,
)

pytestmark = pytest.mark.usefixtures("direct")

NO_MEDIA = ServerConfig(media=())

Streams = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


async def be_human(session: Any) -> None:
    """Welcome the client, then confirm every user message by a session.updated."""
    for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
        await session.send(message)
    async for event in session.events():
        if isinstance(event, MessageReceived) and isinstance(event.message, UserMessage):
            await session.send(SessionUpdated())


def endpoint(kit: Any, port: int, *, host: str = "127.0.0.1", scheme: str = "ws") -> Endpoint:
    return Endpoint(base_url=f"{scheme}://{host}:{port}", license=kit.license, name="navtalk.Leo")


async def converse(where: Endpoint, **options: Any) -> None:
    """One normal session without media."""
    async with connect(where, media=False, **options) as session:
        assert session.id == "s"
        await session.send_text("hello", respond=False)
        async for event in session.events():
            if type(event).__name__ == "ConfigUpdated":
                break
    assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="")


def replying(replies: list[str]) -> Streams:
    """A server that reads something before each of these, and then until the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.read(65_536)
            writer.write(reply.encode("latin-1"))
            await writer.drain()
        await reader.read()

    return serve


def answering(response: str) -> Streams:
    """A server that reads one request and answers with this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response.encode())
        await writer.drain()
        await reader.read()

    return serve


async def fails(kit: Any, where: Endpoint, **options: Any) -> ConnectFailedError:
    with pytest.raises(ConnectFailedError) as caught:
        async with connect(where, media=False, **options):
            pytest.fail("it is usable")
    error = caught.value
    printed = "".join(traceback.format_exception(error))
    assert kit.license not in printed
    assert kit.license not in repr(error)
    return error


# ---- what goes well


def test_a_session(kit: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            await converse(endpoint(kit, server.port))

    kit.run(main(), real=True)


def test_no_compression_is_asked_for(kit: Any) -> None:
    async def main() -> None:
        asked: list[Any] = []

        async def look(connection: ServerConnection) -> None:
            assert connection.request is not None
            asked.append(connection.request.headers.get("Sec-WebSocket-Extensions"))
            await connection.close(1008, "seen")

        async with websockets.asyncio.server.serve(look, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            error = await fails(kit, endpoint(kit, port))
        assert asked == [None]
        assert error.close_code == 1008
        assert error.stage == "welcoming"

    kit.run(main(), real=True)


def test_tls_with_a_context_of_ones_own(kit: Any, certificates: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA, ssl=certificates.server) as server:
            assert server.url == f"wss://127.0.0.1:{server.port}"
            await converse(endpoint(kit, server.port, scheme="wss"), ssl=certificates.client)

    kit.run(main(), real=True)


@pytest.mark.parametrize("own_context", [False, True])
def test_a_certificate_that_nobody_vouches_for(
    kit: Any, certificates: Any, own_context: bool
) -> None:
    async def main() -> None:
        context = ssl.create_default_context() if own_context else None
        async with serve(be_human, config=NO_MEDIA, ssl=certificates.server) as server:
            where = endpoint(kit, server.port, scheme="wss")
            error = await fails(kit, where, ssl=context)
        assert error.stage == "open"
        assert "certificate verify failed" in str(error)
        assert error.retryable

    kit.run(main(), real=True)


def test_an_ssl_context_without_tls(kit: Any, certificates: Any) -> None:
    async def main() -> None:
        with pytest.raises(EndpointError, match="wss://"):
            async with connect(endpoint(kit, 1), media=False, ssl=certificates.client):
                pass

    kit.run(main(), real=True)


def test_a_redirect_is_followed(kit: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            moved = f"{server.url}/wss/v2/realtime-chat?license={kit.license}&name=x"
            response = (
                f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {moved}\r\nContent-Length: 0\r\n\r\n"
            )
            async with kit.tcp(answering(response)) as port:
                await converse(endpoint(kit, port))

    kit.run(main(), real=True)


# ---- proxies

AT_ONCE = ReconnectPolicy(first_delay=0.001)


class ConnectProxy:
    """An HTTP CONNECT proxy (RFC 9110 9.3.6) that leads everything to one port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.requests: list[str] = []
        self.authorized: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head.splitlines()[0])
        self.authorized += [
            base64.b64decode(line.split()[-1]).decode()
            for line in head.splitlines()
            if line.lower().startswith("proxy-authorization:")
        ]
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, back))
                tasks.create_task(self._copy(there, writer))
        finally:
            back.transport.abort()

    @staticmethod
    async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
        except OSError:
            sink.transport.abort()


@pytest.mark.parametrize("how", ["argument", "ws_proxy", "http_proxy", "HTTPS_PROXY", "all"])
def test_a_proxy_carries_the_session(kit: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            proxy = ConnectProxy(server.port)
            async with kit.tcp(proxy) as port:
                url = f"http://127.0.0.1:{port}"
                options: dict[str, Any] = {}
                if how == "argument":
                    options["proxy"] = url
                elif how == "all":
                    options["proxy"] = f"http://user:word@127.0.0.1:{port}"
                else:
                    monkeypatch.setenv(how, url)
                # Only the proxy knows this name.
                await converse(endpoint(kit, 80, host="human.invalid"), **options)
        assert proxy.requests == ["CONNECT human.invalid:80 HTTP/1.1"]
        assert proxy.authorized == (["user:word"] if how == "all" else [])

    kit.run(main(), real=True)


def test_tls_through_a_proxy(kit: Any, certificates: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA, ssl=certificates.server) as server:
            proxy = ConnectProxy(server.port)
            async with kit.tcp(proxy) as port:
                where = endpoint(kit, server.port, scheme="wss")
                await converse(where, ssl=certificates.client, proxy=f"http://127.0.0.1:{port}")
        assert proxy.requests == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]

    kit.run(main(), real=True)


def test_the_environments_proxy_is_not_for_loopback(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            proxy = ConnectProxy(server.port)
            async with kit.tcp(proxy) as port:
                monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
                monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
                await converse(endpoint(kit, server.port))
        assert proxy.requests == []

    kit.run(main(), real=True)


def test_a_proxy_of_the_environment_may_be_declined(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        error = await fails(kit, endpoint(kit, 80, host="human.invalid"), proxy=None)
        assert "proxy" not in str(error)

    kit.run(main(), real=True)


@pytest.mark.parametrize(
    "proxy", ["http://user:pa55word@", "ftp://user:pa55word@proxy.invalid", "http://user@127.0.0.1"]
)
def test_a_proxy_url_that_is_not_one(kit: Any, proxy: str) -> None:
    async def main() -> None:
        error = await fails(kit, endpoint(kit, 80, host="human.invalid"), proxy=proxy)
        assert "proxy" in str(error)
        assert "pa55word" not in "".join(traceback.format_exception(error))

    kit.run(main(), real=True)


@pytest.mark.parametrize(
    ("replies", "status", "says"),
    [
        (["HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"], 403, "HTTP 403"),
        (["HTTP/1.1 407 Who is it?\r\nContent-Length: 0\r\n\r\n"], 407, "HTTP 407"),
        (["\5\0", "\5\2\0\1" + "\0" * 6], 2, "not allowed"),
        (["\5\2", "\1\1"], None, "authentication failure"),
    ],
    ids=["403", "407", "socks-rule", "socks-user"],
)
def test_a_proxy_that_refuses(kit: Any, replies: list[str], status: int | None, says: str) -> None:
    async def main() -> None:
        async with kit.tcp(replying(replies)) as port:
            where = endpoint(kit, 80, host="human.invalid")
            scheme = "http" if status and status > 2 else "socks5h"
            error = await fails(kit, where, proxy=f"{scheme}://user:pa55word@127.0.0.1:{port}")
        assert isinstance(error, ProxyRefusedError)
        assert (error.status, error.retryable) == (status, False)
        assert says in str(error)
        assert "pa55word" not in "".join(traceback.format_exception(error))

    kit.run(main(), real=True)


def test_a_proxy_that_is_out_of_order_may_be_tried_again(kit: Any) -> None:
    async def main() -> None:
        async with kit.tcp(replying(["HTTP/1.1 502 Later\r\nContent-Length: 0\r\n\r\n"])) as port:
            where = endpoint(kit, 80, host="human.invalid")
            error = await fails(kit, where, proxy=f"http://127.0.0.1:{port}")
        assert type(error) is ConnectFailedError
        assert error.retryable

    kit.run(main(), real=True)


def test_a_proxy_that_refuses_a_session_that_was_lost_ends_it(kit: Any) -> None:
    """At once, and not after everything was tried that the policy allows."""

    class Once(ConnectProxy):
        async def __call__(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            if not self.requests:
                await super().__call__(reader, writer)
            else:
                refusal = "HTTP/1.1 407 Who is it?\r\nContent-Length: 0\r\n\r\n"
                await replying([refusal])(reader, writer)

    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            proxy = Once(server.port)
            async with kit.tcp(proxy) as port:
                where = endpoint(kit, 80, host="human.invalid")
                options = {"proxy": f"http://127.0.0.1:{port}", "reconnect": AT_ONCE}
                async with connect(where, media=False, **options) as session:
                    (one,) = server.sessions
                    await one.close()
                    told = [event async for event in session.events()]
        attempts = [event for event in told if isinstance(event, Reconnecting)]
        assert len(attempts) == 1
        assert session.end is told[-1]
        assert session.end.cause is CloseCause.REFUSED
        assert re.match(r"gave up after 1 attempt \(.* s\): .*HTTP 407", session.end.reason)

    kit.run(main(), real=True)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_is_not_there(kit: Any, scheme: str, unused_port: int) -> None:
    async def main() -> None:
        proxy = f"{scheme}://user:pa55word@127.0.0.1:{unused_port}"
        error = await fails(kit, endpoint(kit, 80, host="human.invalid"), proxy=proxy)
        assert error.stage == "open"
        assert "pa55word" not in "".join(traceback.format_exception(error))

    kit.run(main(), real=True)


# ---- what cannot be opened


def test_a_port_that_refuses(kit: Any, unused_port: int) -> None:
    async def main() -> None:
        error = await fails(kit, endpoint(kit, unused_port))
        assert error.stage == "open"
        assert error.close_code is None
        assert f"ws://127.0.0.1:{unused_port}/wss/v2/realtime-chat?license=***" in str(error)

    kit.run(main(), real=True)


def test_a_host_that_does_not_exist(kit: Any) -> None:
    async def main() -> None:
        error = await fails(kit, endpoint(kit, 80, host="human.invalid"))
        assert error.stage == "open"

    kit.run(main(), real=True)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "HTTP 401"),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno", "HTTP 503"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP 200"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", ""),
        ("", ""),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", ""),
        ("HTTP/1.1 302 Found\r\nLocation: http:///?license=x\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 302 Found\r\nLocation: ?license=x\r\nContent-Length: 0\r\n\r\n", "redirects"),
    ],
    ids=["401", "503", "200", "ssh", "nothing", "half", "bad-redirect", "redirect-loop"],
)
def test_a_server_that_does_not_upgrade(kit: Any, response: str, text: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response.replace("=x", f"={kit.license}").encode())
        await writer.drain()

    async def main() -> None:
        async with kit.tcp(serve) as port:
            error = await fails(kit, endpoint(kit, port))
        assert error.stage == "open"
        assert text in str(error)
        assert isinstance(error, HandshakeRefusedError) is (text == "HTTP 401")

    kit.run(main(), real=True)


def test_a_redirect_from_tls_to_none(kit: Any, certificates: Any) -> None:
    """websockets refuses, and quotes the whole URL: the licence in it is hidden."""

    async def main() -> None:
        moved = f"ws://127.0.0.1:1/?license={kit.license}"
        response = f"HTTP/1.1 302 Found\r\nLocation: {moved}\r\nContent-Length: 0\r\n\r\n"
        done = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await writer.start_tls(certificates.server)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response.encode())
            await done.wait()

        async with kit.tcp(serve) as port:
            where = endpoint(kit, port, scheme="wss")
            error = await fails(kit, where, ssl=certificates.client)
            done.set()
        assert "license=***" in str(error)

    kit.run(main(), real=True)


def test_a_server_that_says_nothing(kit: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with kit.tcp(silent) as port:
            with pytest.raises(ConnectTimeoutError) as caught:
                async with connect(endpoint(kit, port), media=False, timeout=0.2):
                    pytest.fail("it is usable")
        assert caught.value.waiting_for == "the WebSocket handshake"
        assert kit.license not in "".join(traceback.format_exception(caught.value))

    kit.run(main(), real=True)


# ---- what a server may send


async def played(
    kit: Any, play: Callable[[ServerConnection], Awaitable[None]]
) -> tuple[list[Any], Any]:
    """A session with a bare websockets server that plays this after the welcome: its events."""
    closes: list[tuple[int | None, str | None]] = []

    async def handler(connection: ServerConnection) -> None:
        for type, data in kit.ready:
            await connection.send(kit.json(type, data))
        await play(connection)
        await connection.wait_closed()
        closes.append((connection.close_code, connection.close_reason))

    async with websockets.asyncio.server.serve(
        handler, "127.0.0.1", 0, max_size=None, close_timeout=5
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(endpoint(kit, port), media=False) as session:
            events = [event async for event in session.events()]
    return events[3:], closes[0]


def test_a_message_over_the_limit(kit: Any) -> None:
    """1 MiB is the limit for a server's message; up to 64 KiB more is read and judged."""

    async def play(connection: ServerConnection) -> None:
        await connection.send("x" * (1024 * 1024 + 1))

    async def main() -> None:
        events, seen = await played(kit, play)
        assert isinstance(events[0], ProtocolViolation)
        assert events[0].fatal
        assert "1048576" in events[0].reason
        assert events[1] == Closed(cause=CloseCause.VIOLATION, code=1009, reason="message too big")
        assert seen == (1009, "message too big")

    kit.run(main(), real=True)


def test_a_message_far_over_the_limit(kit: Any) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.send("x" * (1024 * 1024 + 64 * 1024 + 1))

    async def main() -> None:
        events, seen = await played(kit, play)
        violation, closed = events
        assert (violation.reason, violation.fatal) == ("a message is far too big", True)
        assert closed.cause is CloseCause.VIOLATION
        assert closed.code == seen[0] == 1009
        assert type(closed.code) is int

    kit.run(main(), real=True)


def test_a_message_of_the_largest_size(kit: Any) -> None:
    async def play(connection: ServerConnection) -> None:
        frame = kit.json("realtime.strange", {"x": ""})
        await connection.send(frame[:-3] + "y" * (1024 * 1024 - len(frame)) + frame[-3:])
        await connection.close()

    async def main() -> None:
        events, _ = await played(kit, play)
        assert [type(event).__name__ for event in events] == ["UnknownMessage", "Closed"]

    kit.run(main(), real=True)


def test_a_binary_message(kit: Any) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.send(b"\x00\xff\x00")
        await connection.close(1000, "done")

    async def main() -> None:
        events, _ = await played(kit, play)
        assert events == [
            BinaryIgnored(size=3),
            Closed(cause=CloseCause.REMOTE, code=1000, reason="done"),
        ]

    kit.run(main(), real=True)


def test_text_that_is_not_utf8(kit: Any) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.send(b"\xff\xfe", text=True)

    async def main() -> None:
        events, seen = await played(kit, play)
        violation, closed = events
        assert (violation.reason, violation.fatal) == ("a text message is not UTF-8", True)
        assert closed.cause is CloseCause.VIOLATION
        assert closed.code == seen[0] == 1007

    kit.run(main(), real=True)


def test_a_message_in_fragments(kit: Any) -> None:
    async def play(connection: ServerConnection) -> None:
        whole = kit.json("realtime.input_audio_buffer.speech_started", {})
        await connection.send([whole[:5], whole[5:9], whole[9:]])
        await connection.close()

    async def main() -> None:
        events, _ = await played(kit, play)
        names = [type(event).__name__ for event in events]
        assert names == ["MessageReceived", "UserSpeaking", "Closed"]

    kit.run(main(), real=True)


def test_a_connection_that_breaks(kit: Any) -> None:
    async def play(connection: ServerConnection) -> None:
        connection.transport.abort()

    async def main() -> None:
        events, _ = await played(kit, play)
        assert events == [Closed(cause=CloseCause.REMOTE, code=None, reason="")]

    kit.run(main(), real=True)


def test_a_server_that_does_not_answer_the_close(kit: Any) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def handler(connection: ServerConnection) -> None:
            for type, data in kit.ready:
                await connection.send(kit.json(type, data))
            connection.transport.pause_reading()
            await done.wait()

        async with websockets.asyncio.server.serve(handler, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            config = ClientConfig(close_timeout=0.2)
            async with connect(endpoint(kit, port), media=False, config=config) as session:
                pass
            assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="", forced=True)
            done.set()
            for connection in server.connections:
                connection.transport.abort()

    kit.run(main(), real=True)


def test_a_flood_stays_in_the_far_ends_socket_while_nobody_reads(kit: Any) -> None:
    async def main() -> None:
        full, heard = asyncio.Event(), asyncio.Event()
        events = 0

        def observe(event: Any) -> None:
            nonlocal events
            events += 1
            if events == 1026:
                full.set()

        async def handler(connection: ServerConnection) -> None:
            async def listen() -> None:
                async for _ in connection:
                    heard.set()

            listening = asyncio.create_task(listen())
            text = kit.json("realtime.status", {"text": "x" * 1000})
            try:
                for type, data in kit.ready:
                    await connection.send(kit.json(type, data))
                while True:
                    await connection.send(text)
            finally:
                await listening

        async with websockets.asyncio.server.serve(handler, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(endpoint(kit, port), media=False, observe=observe) as session:
                reader = session.events()
                await anext(reader)
                await full.wait()
                await session.send_text("the other way is free", respond=False)
                await heard.wait()
                # One was read, 1025 are one more than the mark.
                assert session.counters.received == 1026
                assert events == 1026 + 1, "and the text that was sent"
                del reader
            assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="")

    kit.run(main(), real=True)
