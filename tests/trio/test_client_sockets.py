"""The trio client over real sockets, on 127.0.0.1: what goes well, and every way it does not."""

from __future__ import annotations

import base64
import logging
import re
import socket
import ssl
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

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
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    SessionCreated,
    SessionUpdated,
    UserMessage,
)
from navtalk_trio import connect, serve
from navtalk_trio.testing.tcp_proxy import tcp_proxy
from navtalk_trio.websocket import KEEPALIVE_SECONDS, WebSocketTransport

NO_MEDIA = ServerConfig(media=())


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


async def converse(where: Any, **options: Any) -> None:
    """One normal session without media."""
    async with connect(where, media=False, **options) as session:
        assert session.id == "s"
        await session.send_text("hello", respond=False)
        async for event in session.events():
            if type(event).__name__ == "ConfigUpdated":
                break
    assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="")


async def fails(net: Any, where: Any, **options: Any) -> ConnectFailedError:
    with pytest.raises(ConnectFailedError) as caught:
        async with connect(where, media=False, **options):
            pytest.fail("it is usable")
    error = caught.value
    printed = "".join(traceback.format_exception(error))
    assert net.license not in printed
    assert net.license not in repr(error)
    return error


# ---- what goes well


def test_a_session(net: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            assert server.url == f"ws://127.0.0.1:{server.port}"
            await converse(net.endpoint(server.port))

    net.run(main)


def test_a_body_that_fails_leaves_bare_through_both(net: Any) -> None:
    error = KeyError("body")

    async def main() -> None:
        async with (
            serve(be_human, config=NO_MEDIA) as server,
            connect(net.endpoint(server.port), media=False),
        ):
            raise error

    with pytest.raises(KeyError) as caught:
        net.run(main)
    assert caught.value is error


def test_a_group_of_one_that_the_body_raises_stays_a_group(net: Any) -> None:
    error = ExceptionGroup("mine", [KeyError("body")])

    async def main() -> None:
        async with (
            serve(be_human, config=NO_MEDIA) as server,
            connect(net.endpoint(server.port), media=False),
        ):
            raise error

    with pytest.raises(ExceptionGroup) as caught:
        net.run(main)
    # trio makes a new group of what passes a cancelled scope; it is the same in all but identity.
    assert caught.value.message == "mine"
    assert caught.value.exceptions == error.exceptions


def test_no_compression_is_asked_for(net: Any) -> None:
    heads: list[str] = []

    async def play(connection: Any) -> None:
        heads.append(connection.head)
        await connection.close(1008, "seen")

    async def main() -> None:
        async with (
            net.web_socket(play) as port,
            connect(net.endpoint(port), media=False) as session,
        ):
            events = [event async for event in session.events()]
        assert events[-1] == Closed(cause=CloseCause.REMOTE, code=1008, reason="seen")

    net.run(main)
    assert "sec-websocket-extensions" not in heads[0].lower()
    assert f"license={net.license}" in heads[0]


def test_tls_with_a_context_of_ones_own(net: Any, certificates: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA, ssl=certificates.server) as server:
            assert server.url == f"wss://127.0.0.1:{server.port}"
            where = net.endpoint(server.port, scheme="wss")
            await converse(where, ssl=certificates.client)

    net.run(main)


@pytest.mark.parametrize("own_context", [False, True])
def test_a_certificate_that_nobody_vouches_for(
    net: Any, certificates: Any, own_context: bool
) -> None:
    async def main() -> None:
        context = ssl.create_default_context() if own_context else None
        async with serve(be_human, config=NO_MEDIA, ssl=certificates.server) as server:
            error = await fails(net, net.endpoint(server.port, scheme="wss"), ssl=context)
        assert error.stage == "open"
        assert "certificate verify failed" in str(error)
        assert error.retryable

    net.run(main)


def test_an_ssl_context_without_tls(net: Any, certificates: Any) -> None:
    async def main() -> None:
        with pytest.raises(EndpointError, match="wss://"):
            async with connect(net.endpoint(1), media=False, ssl=certificates.client):
                pytest.fail("it is usable")

    net.run(main)


# ---- proxies

AT_ONCE = ReconnectPolicy(first_delay=0.001)


class Proxy:
    """An HTTP CONNECT (RFC 9110 9.3.6) or SOCKS5 (RFC 1928) proxy; everything leads to one port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked: list[str] = []
        self.authorized: list[str] = []

    async def __call__(self, stream: Any) -> None:
        first = bytes(await stream.receive_some(65_536))
        await (self._socks(stream, first) if first[0] == 5 else self._connect(stream, first))
        back = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with back, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, stream, back)
            await self._copy(back, stream)
            nursery.cancel_scope.cancel()

    async def _connect(self, stream: Any, read: bytes) -> None:
        while b"\r\n\r\n" not in read:
            read += await stream.receive_some(65_536)
        lines = read.decode().splitlines()
        self.asked.append(lines[0])
        self.authorized += [
            base64.b64decode(line.split()[-1]).decode()
            for line in lines
            if line.lower().startswith("proxy-authorization:")
        ]
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def _socks(self, stream: Any, methods: bytes) -> None:
        assert 0 in methods[2:]
        await stream.send_all(b"\x05\x00")
        request = bytes(await stream.receive_some(65_536))
        assert request[:4] == b"\x05\x01\x00\x03"  # CONNECT to a name: the proxy resolves it.
        name = request[5 : 5 + request[4]].decode()
        self.asked.append(f"SOCKS {name}:{int.from_bytes(request[-2:], 'big')}")
        await stream.send_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")

    @staticmethod
    async def _copy(source: Any, sink: Any) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@pytest.mark.parametrize(
    "how", ["argument", "password", "socks5h", "ws_proxy", "http_proxy", "HTTPS_PROXY", "all_proxy"]
)
def test_a_proxy_carries_the_session(net: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            proxy = Proxy(server.port)
            async with net.tcp(proxy) as port:
                options: dict[str, Any] = {}
                if how == "argument":
                    options["proxy"] = f"http://127.0.0.1:{port}"
                elif how == "password":
                    options["proxy"] = f"http://user:word@127.0.0.1:{port}"
                elif how == "socks5h":
                    options["proxy"] = f"socks5h://127.0.0.1:{port}"
                elif how == "all_proxy":
                    monkeypatch.setenv("socks_proxy", f"socks5h://127.0.0.1:{port}")
                else:
                    monkeypatch.setenv(how, f"http://127.0.0.1:{port}")
                # Only the proxy knows this name.
                await converse(net.endpoint(80, host="human.invalid"), **options)
        if how in ("socks5h", "all_proxy"):
            assert proxy.asked == ["SOCKS human.invalid:80"]
        else:
            assert proxy.asked == ["CONNECT human.invalid:80 HTTP/1.1"]
        assert proxy.authorized == (["user:word"] if how == "password" else [])

    net.run(main)


def test_tls_through_a_proxy(net: Any, certificates: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA, ssl=certificates.server) as server:
            proxy = Proxy(server.port)
            async with net.tcp(proxy) as port:
                where = net.endpoint(server.port, scheme="wss")
                await converse(where, ssl=certificates.client, proxy=f"http://127.0.0.1:{port}")
        assert proxy.asked == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]

    net.run(main)


def test_the_environments_proxy_is_not_for_loopback(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            proxy = Proxy(server.port)
            async with net.tcp(proxy) as port:
                monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
                monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
                await converse(net.endpoint(server.port))
        assert proxy.asked == []

    net.run(main)


@pytest.mark.parametrize("bypassed", [False, True])
def test_a_proxy_of_the_environment_may_be_declined(
    net: Any, bypassed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        options: dict[str, Any] = {} if bypassed else {"proxy": None}
        if bypassed:
            monkeypatch.setenv("no_proxy", ".invalid")
        error = await fails(net, net.endpoint(80, host="human.invalid"), **options)
        assert "proxy" not in str(error)

    net.run(main)


@pytest.mark.parametrize("where", ["environment", "argument"])
def test_without_python_socks_a_proxy_is_an_error_that_says_so(
    net: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setitem(sys.modules, "python_socks", None)
        options: dict[str, Any] = {}
        if where == "environment":
            monkeypatch.setenv("https_proxy", "http://user:pa55word@127.0.0.1:1")
        else:
            options["proxy"] = "http://user:pa55word@127.0.0.1:1"
        error = await fails(net, net.endpoint(80, host="human.invalid"), **options)
        assert "python-socks" in str(error)
        assert "proxy=None" in str(error)
        assert "pa55word" not in "".join(traceback.format_exception(error))

    net.run(main)


@pytest.mark.parametrize(
    "proxy", ["http://user:pa55word@", "ftp://user:pa55word@proxy.invalid", "http://user@127.0.0.1"]
)
def test_a_proxy_url_that_is_not_one(net: Any, proxy: str) -> None:
    async def main() -> None:
        error = await fails(net, net.endpoint(80, host="human.invalid"), proxy=proxy)
        assert "proxy" in str(error)
        assert "pa55word" not in "".join(traceback.format_exception(error))

    net.run(main)


@pytest.mark.parametrize(
    ("replies", "status", "says"),
    [
        ([b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"], 403, "403 Forbidden"),
        ([b"HTTP/1.1 407 Who is it?\r\nContent-Length: 0\r\n\r\n"], 407, "407 Who is it?"),
        ([b"\5\0", b"\5\2\0\1" + bytes(6)], 2, "not allowed"),
        ([b"\5\2", b"\1\1"], None, "authentication failure"),
    ],
    ids=["403", "407", "socks-rule", "socks-user"],
)
def test_a_proxy_that_refuses(
    net: Any, replies: list[bytes], status: int | None, says: str
) -> None:
    async def main() -> None:
        async with net.tcp(replying(replies)) as port:
            where = net.endpoint(80, host="human.invalid")
            scheme = "http" if status and status > 2 else "socks5h"
            error = await fails(net, where, proxy=f"{scheme}://user:pa55word@127.0.0.1:{port}")
        assert isinstance(error, ProxyRefusedError)
        assert (error.status, error.retryable) == (status, False)
        assert says in str(error)
        assert "pa55word" not in "".join(traceback.format_exception(error))

    net.run(main)


def test_a_proxy_that_is_out_of_order_may_be_tried_again(net: Any) -> None:
    async def main() -> None:
        async with net.tcp(replying([b"HTTP/1.1 502 Later\r\nContent-Length: 0\r\n\r\n"])) as port:
            where = net.endpoint(80, host="human.invalid")
            error = await fails(net, where, proxy=f"http://127.0.0.1:{port}")
        assert type(error) is ConnectFailedError
        assert error.retryable

    net.run(main)


def test_a_proxy_that_refuses_a_session_that_was_lost_ends_it(net: Any) -> None:
    """At once, and not after everything was tried that the policy allows."""

    class Once(Proxy):
        async def __call__(self, stream: Any) -> None:
            if not self.asked:
                await super().__call__(stream)
            else:
                refusal = b"HTTP/1.1 407 Who is it?\r\nContent-Length: 0\r\n\r\n"
                await replying([refusal])(stream)

    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            proxy = Once(server.port)
            async with net.tcp(proxy) as port:
                where = net.endpoint(80, host="human.invalid")
                options = {"proxy": f"http://127.0.0.1:{port}", "reconnect": AT_ONCE}
                async with connect(where, media=False, **options) as session:
                    (one,) = server.sessions
                    await one.close()
                    told = [event async for event in session.events()]
        attempts = [event for event in told if isinstance(event, Reconnecting)]
        assert len(attempts) == 1
        assert session.end is told[-1]
        assert session.end.cause is CloseCause.REFUSED
        assert re.match(r"gave up after 1 attempt \(.* s\): .*407", session.end.reason)

    net.run(main)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_is_not_there(net: Any, scheme: str, unused_port: int) -> None:
    async def main() -> None:
        proxy = f"{scheme}://user:pa55word@127.0.0.1:{unused_port}"
        error = await fails(net, net.endpoint(80, host="human.invalid"), proxy=proxy)
        assert error.stage == "open"
        assert "pa55word" not in "".join(traceback.format_exception(error))

    net.run(main)


# ---- what cannot be opened


def replying(replies: list[bytes]) -> Callable[[Any], Awaitable[None]]:
    """A server that reads something before each of these, and says nothing more."""

    async def serve(stream: Any) -> None:
        for reply in replies:
            await stream.receive_some(65_536)
            await stream.send_all(reply)
        await trio.sleep_forever()

    return serve


def answering(response: bytes, *, hang_up: bool = False) -> Callable[[Any], Awaitable[None]]:
    """A server that reads one request and answers with this."""

    async def serve(stream: Any) -> None:
        read = b""
        while b"\r\n\r\n" not in read:
            read += await stream.receive_some(65_536)
        if response:
            await stream.send_all(response)
        if not hang_up:
            await trio.sleep_forever()

    return serve


def test_a_port_that_refuses(net: Any, unused_port: int) -> None:
    async def main() -> None:
        error = await fails(net, net.endpoint(unused_port))
        assert error.stage == "open"
        assert error.close_code is None
        assert f"ws://127.0.0.1:{unused_port}/wss/v2/realtime-chat?license=***" in str(error)

    net.run(main)


def test_a_host_that_does_not_exist(net: Any) -> None:
    async def main() -> None:
        error = await fails(net, net.endpoint(80, host="human.invalid"))
        assert error.stage == "open"

    net.run(main)


@pytest.mark.parametrize("hang_up", [False, True])
@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "HTTP 401"),
        ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno", "HTTP 503"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP 200"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", ""),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", ""),
        ("HTTP/1.1 302 Found\r\nLocation: /?license=x\r\nContent-Length: 0\r\n\r\n", "HTTP 302"),
    ],
    ids=["401", "503", "200", "ssh", "half", "redirect"],
)
def test_a_server_that_does_not_upgrade(net: Any, response: str, text: str, hang_up: bool) -> None:
    async def main() -> None:
        answer = response.replace("=x", f"={net.license}").encode()
        async with net.tcp(answering(answer, hang_up=hang_up)) as port:
            error = await fails(net, net.endpoint(port))
        assert error.stage == "open"
        assert text in str(error)
        assert isinstance(error, HandshakeRefusedError) is ("HTTP 401" in text)

    net.run(main)


def test_a_server_that_hangs_up_in_the_handshake(net: Any) -> None:
    async def main() -> None:
        async with net.tcp(answering(b"", hang_up=True)) as port:
            error = await fails(net, net.endpoint(port))
        assert "hung up" in str(error)

    net.run(main)


def test_a_server_that_says_nothing(net: Any) -> None:
    async def main() -> None:
        async with net.tcp(answering(b"")) as port:
            with pytest.raises(ConnectTimeoutError) as caught:
                async with connect(net.endpoint(port), media=False, timeout=0.2):
                    pytest.fail("it is usable")
        assert caught.value.waiting_for == "the WebSocket handshake"
        assert net.license not in "".join(traceback.format_exception(caught.value))

    net.run(main)


# ---- what a server may send


async def played(net: Any, play: Callable[[Any], Awaitable[None]]) -> list[Any]:
    """A session with a server that plays this after the welcome: its events after those."""
    async with net.web_socket(play) as port, connect(net.endpoint(port), media=False) as session:
        return [event async for event in session.events()][3:]


def test_a_message_over_the_limit(net: Any) -> None:
    """1 MiB is the limit for a server's message; up to 64 KiB more is read and judged."""
    closes: list[Any] = []

    async def play(connection: Any) -> None:
        await connection.say(net.text, "x" * (1024 * 1024 + 1))
        closes.append(await connection.hear_close())
        await connection.close(*closes[0])

    async def main() -> None:
        events = await played(net, play)
        assert isinstance(events[0], ProtocolViolation)
        assert events[0].fatal
        assert "1048576" in events[0].reason
        assert events[1] == Closed(cause=CloseCause.VIOLATION, code=1009, reason="message too big")
        assert closes == [(1009, "message too big")]

    net.run(main)


def test_a_message_far_over_the_limit(net: Any) -> None:
    closes: list[Any] = []

    async def play(connection: Any) -> None:
        await connection.say(net.text, "x" * (1024 * 1024 + 64 * 1024 + 1))
        closes.append((await connection.hear_close())[0])

    async def main() -> None:
        events = await played(net, play)
        assert [type(event).__name__ for event in events] == ["ProtocolViolation", "Closed"]
        assert (events[-1].cause, events[-1].code) == (CloseCause.VIOLATION, 1009)
        assert closes == [1009]

    net.run(main)


def test_a_close_of_the_servers_with_1009_is_the_servers(net: Any) -> None:
    async def play(connection: Any) -> None:
        await connection.close(1009, "too big for me")

    async def main() -> None:
        events = await played(net, play)
        assert events == [Closed(cause=CloseCause.REMOTE, code=1009, reason="too big for me")]

    net.run(main)


def test_a_binary_message(net: Any) -> None:
    async def play(connection: Any) -> None:
        await connection.say(net.binary, b"\x00\xff\x00")
        await connection.close(1000, "done")

    async def main() -> None:
        assert await played(net, play) == [
            BinaryIgnored(size=3),
            Closed(cause=CloseCause.REMOTE, code=1000, reason="done"),
        ]

    net.run(main)


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\x81\x02\xff\xfe", 1007), (b"\xf1\x00", 1002), (b"\x83\x00", 1002)],
    ids=["not UTF-8", "reserved bits", "reserved opcode"],
)
def test_what_is_no_text_or_no_frame(net: Any, frame: bytes, code: int) -> None:
    async def play(connection: Any) -> None:
        await connection.stream.send_all(frame)
        await trio.sleep_forever()

    async def main() -> None:
        events = await played(net, play)
        assert [type(event).__name__ for event in events] == ["ProtocolViolation", "Closed"]
        assert (events[-1].cause, events[-1].code) == (CloseCause.VIOLATION, code)

    net.run(main)


def test_a_message_in_fragments(net: Any) -> None:
    async def play(connection: Any) -> None:
        whole = '{"type": "realtime.input_audio_buffer.speech_started"}'
        await connection.say(net.text, whole[:5], fin=False)
        await connection.say(0, whole[5:9], fin=False)
        await connection.say(0, whole[9:])
        await connection.close()

    async def main() -> None:
        events = await played(net, play)
        names = [type(event).__name__ for event in events]
        assert names == ["MessageReceived", "UserSpeaking", "Closed"]

    net.run(main)


def test_a_connection_that_breaks(net: Any) -> None:
    async def play(connection: Any) -> None:
        await trio.aclose_forcefully(connection.stream)

    async def main() -> None:
        assert await played(net, play) == [Closed(cause=CloseCause.REMOTE, code=None, reason="")]

    net.run(main)


def test_a_server_that_does_not_answer_the_close(net: Any) -> None:
    async def play(connection: Any) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        config = ClientConfig(close_timeout=0.2)
        async with net.web_socket(play) as port:
            async with connect(net.endpoint(port), media=False, config=config) as session:
                pass
            assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="", forced=True)

    net.run(main)


def test_a_ping_that_crosses_our_close(net: Any) -> None:
    """trio-websocket's reader fails then: no pong is allowed any more. The end is ours anyway."""

    async def play(connection: Any) -> None:
        await connection.hear_close()
        await connection.say(net.ping, b"there?")
        await connection.close(1000, "")
        await trio.sleep_forever()

    async def main() -> None:
        async with net.web_socket(play) as port:
            async with connect(net.endpoint(port), media=False) as session:
                pass
            assert session.end is not None
            assert session.end.cause is CloseCause.LOCAL
            assert not session.end.forced

    net.run(main)


def test_a_server_that_stops_reading_in_the_middle_of_a_message(net: Any) -> None:
    """The sender is in a frame that is never cancelled; dropping the connection makes it fail."""

    async def play(connection: Any) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        config = ClientConfig(close_timeout=0.2)
        async with net.web_socket(play) as port:
            async with connect(net.endpoint(port), media=False, config=config) as session:
                with trio.move_on_after(0.3) as scope:
                    while True:
                        await session.send_audio(bytes(480_000))
                assert scope.cancelled_caught
            assert session.end is not None
            assert session.end.forced

    net.run(main)


# ---- pings


def test_a_lagging_application_does_not_stop_the_pongs(net: Any) -> None:
    """Its events wait in our buffer, and the messages after those in trio-websocket's."""
    pongs: list[bytes] = []
    answered = trio.Event()

    async def play(connection: Any) -> None:
        text = '{"type": "realtime.status"}'
        # Three were said; the driver stops at 1025 events, and 64 messages more are read ahead.
        for _ in range(1022 + 64):
            await connection.say(net.text, text)
        await connection.say(net.ping, b"busy?")
        pongs.append(await connection.hear_only(net.pong))
        answered.set()
        await connection.hear_close()
        await connection.close()

    async def main() -> None:
        async with net.web_socket(play) as port:
            async with connect(net.endpoint(port), media=False) as session:
                events = session.events()
                await answered.wait()
            assert [type(event).__name__ async for event in events][-1] == "Closed"

    net.run(main)
    assert pongs == [b"busy?"]


class QuietConnection:
    """A trio-websocket connection as keep_alive() knows it."""

    def __init__(self, pongs: int) -> None:
        self.pongs = pongs
        self.pings: list[float] = []
        self.closed = None

    async def ping(self) -> None:
        self.pings.append(trio.current_time())
        if len(self.pings) > self.pongs:
            await trio.sleep_forever()

    async def get_message(self) -> str:
        from trio_websocket import ConnectionClosed

        raise ConnectionClosed(None)


class QuietStream:
    def __init__(self) -> None:
        self.dropped: list[float] = []
        self.ended = trio.Event()

    async def aclose(self) -> None:
        self.dropped.append(trio.current_time())
        self.ended.set()
        await trio.lowlevel.cancel_shielded_checkpoint()


def test_a_peer_without_pongs_is_dropped() -> None:
    async def main() -> None:
        connection: Any = QuietConnection(pongs=3)
        stream: Any = QuietStream()
        start = trio.current_time()
        transport = WebSocketTransport(connection, stream)
        await transport.keep_alive()
        assert [time - start for time in connection.pings] == [20.0, 40.0, 60.0, 80.0]
        assert [time - start for time in stream.dropped] == [100.0]
        with pytest.raises(TransportClosedError, match="no pong within 20 s") as caught:
            await transport.receive()
        assert caught.value.code is None

    assert KEEPALIVE_SECONDS == 20.0  # protocol.md 2.6
    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_half_open_connection_ends(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over sockets, through a proxy that stops forwarding: after twice the keep-alive at most."""
    seconds, slack = 0.4, 2.0
    monkeypatch.setattr("navtalk_trio.websocket.KEEPALIVE_SECONDS", seconds)

    async def main() -> None:
        async def deaf(stream: Any) -> None:
            web_socket = net.raw_web_socket(stream)
            await web_socket.welcome()
            await web_socket.hear_close()

        async with (
            net.tcp(deaf) as port,
            tcp_proxy("127.0.0.1", port) as proxy,
            connect(net.endpoint(proxy.port), media=False) as session,
        ):
            proxy.hold()
            held = trio.current_time()
            async for _ in session.events():
                pass
            assert trio.current_time() - held < 2 * seconds + slack
        assert session.end == Closed(
            cause=CloseCause.REMOTE, code=None, reason=f"no pong within {seconds:g} s"
        )

    net.run(main)


def test_a_half_open_client_is_dropped(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, slack = 0.4, 2.0
    monkeypatch.setattr("navtalk_trio.websocket.KEEPALIVE_SECONDS", seconds)

    async def main() -> None:
        ends: list[Any] = []
        ended = trio.Event()

        async def human(session: Any) -> None:
            await session.send(ConnectedSuccess(session_id="s"))
            async for _ in session.events():
                pass
            ends.append(session.end)
            ended.set()

        async with (
            serve(human, config=NO_MEDIA) as server,
            tcp_proxy("127.0.0.1", server.port) as proxy,
            await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream,
        ):
            await stream.send_all(
                f"GET /wss/v2/realtime-chat?license={net.license}&name=x HTTP/1.1\r\n"
                "Host: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            proxy.hold()
            held = trio.current_time()
            await ended.wait()
            assert trio.current_time() - held < 2 * seconds + slack
        assert ends == [
            Closed(cause=CloseCause.REMOTE, code=None, reason=f"no pong within {seconds:g} s")
        ]

    net.run(main)


def test_a_server_that_answers_no_ping_before_its_welcome(
    net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navtalk_trio.websocket.KEEPALIVE_SECONDS", 0.2)

    async def main() -> None:
        async def mute(stream: Any) -> None:
            web_socket = net.raw_web_socket(stream)
            await web_socket.accept()
            await web_socket.hear_close()

        async with net.tcp(mute) as port:
            error = await fails(net, net.endpoint(port))
        assert "no pong within 0.2 s" in str(error)

    net.run(main)


def test_pongs_in_time_keep_the_connection(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("navtalk_trio.websocket.KEEPALIVE_SECONDS", 0.1)

    async def main() -> None:
        pings = 0
        enough = trio.Event()

        async def human(stream: Any) -> None:
            nonlocal pings
            web_socket = net.raw_web_socket(stream)
            await web_socket.welcome()
            while True:
                await web_socket.say(net.pong, await web_socket.hear_only(net.ping))
                pings += 1
                if pings == 5:
                    enough.set()

        async with (
            net.tcp(human) as port,
            connect(net.endpoint(port), media=False) as session,
        ):
            await enough.wait()
            assert session.end is None

    net.run(main)


# ---- secrets


def test_the_licence_is_in_no_log_record(net: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            await converse(net.endpoint(server.port))
        async with net.tcp(answering(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")) as port:
            await fails(net, net.endpoint(port))

    with caplog.at_level(logging.DEBUG):
        net.run(main)
    told = [record for record in caplog.records if record.name.startswith("trio-websocket")]
    assert told  # It does log; none of it is the URL.
    for record in caplog.records:
        assert net.license not in record.getMessage()
        assert net.license not in str(record.__dict__)
