"""serve() over real sockets: sessions, plain HTTP, limits, failures, the end."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

from navtalk_asyncio import (
    Endpoint,
    HttpReply,
    HttpRequest,
    Server,
    ServerSession,
    connect,
    serve,
)
from navtalk_asyncio.testing import PaperEngine
from navtalk_proto import ConnectFailedError, Limits, ServerConfig, State
from navtalk_proto.events import (
    BinaryIgnored,
    CloseCause,
    Closed,
    MessageReceived,
    ProtocolViolation,
)
from navtalk_proto.wire.messages import (
    ConnectedFail,
    ConnectedSuccess,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
)

pytestmark = pytest.mark.usefixtures("direct")

NO_MEDIA = ServerConfig(media=())
TARGET = "/wss/v2/realtime-chat?license=sk_navtalk_EXAMPLE&name=navtalk.Leo"


async def welcome(session: ServerSession) -> None:
    for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
        await session.send(message)


async def listen(session: ServerSession) -> None:
    await welcome(session)
    async for _ in session.events():
        pass


def endpoint(server: Server) -> Endpoint:
    return Endpoint(base_url=server.url, license="sk_navtalk_EXAMPLE", name="navtalk.Leo")


def stock(server: Server, **options: Any) -> websockets.asyncio.client.connect:
    """A client that is not ours."""
    return websockets.asyncio.client.connect(server.url + TARGET, proxy=None, **options)


class Watched:
    """A handler that is recorded, and run until its session's end."""

    def __init__(self) -> None:
        self.sessions: list[ServerSession] = []
        self.events: list[Any] = []
        self.started = asyncio.Event()
        self.done = asyncio.Event()

    async def __call__(self, session: ServerSession) -> None:
        self.sessions.append(session)
        try:
            await welcome(session)
            self.started.set()
            async for event in session.events():
                self.events.append(event)
        finally:
            self.done.set()


async def http(server: Server, request: str) -> tuple[int, dict[str, str], bytes]:
    """Send a plain request; status, headers and body of the answer, which ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request.replace("\n", "\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        body = await reader.read()
    finally:
        writer.close()
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), fields, body


# ---- sessions


def test_a_session_and_what_the_server_knows_of_it(kit: Any) -> None:
    async def main() -> None:
        watched = Watched()
        async with serve(watched, config=NO_MEDIA) as server:
            assert server.host == "127.0.0.1"
            assert server.url == f"ws://127.0.0.1:{server.port}"
            assert server.sessions == frozenset()
            async with connect(endpoint(server), media=False) as client:
                assert server.sessions == {watched.sessions[0]}
                assert watched.sessions[0].request.path == "/wss/v2/realtime-chat"
                assert watched.sessions[0].request.name == "navtalk.Leo"
                assert watched.sessions[0].id == "s"
                await client.send_text("hello")
            await watched.done.wait()
            assert watched.events[-1] == Closed(cause=CloseCause.REMOTE, code=1000, reason="")
        assert server.sessions == frozenset()

    kit.run(main(), real=True)


def test_sessions_do_not_know_of_each_other(kit: Any) -> None:
    async def main() -> None:
        async def name_yourself(session: ServerSession) -> None:
            await session.send(ConnectedSuccess(session_id=str(session.request.name)))
            await session.send(SessionCreated())
            await session.send(SessionUpdated())
            async for _ in session.events():
                pass

        async with serve(name_yourself, config=NO_MEDIA) as server, asyncio.TaskGroup() as tasks:

            async def visit(name: str) -> None:
                where = Endpoint(base_url=server.url, license="sk_navtalk_EXAMPLE", name=name)
                async with connect(where, media=False) as session:
                    assert session.id == name

            for number in range(20):
                tasks.create_task(visit(f"navtalk.{number}"))

    kit.run(main(), real=True)


def test_media_goes_through_the_engines(kit: Any) -> None:
    from navtalk_proto.config import SEND_MEDIA

    async def main() -> None:
        async def offer(session: ServerSession) -> None:
            await welcome(session)
            await session.negotiate(*SEND_MEDIA)
            async for _ in session.events():
                pass

        engines: list[PaperEngine] = []

        def factory(callbacks: Any) -> PaperEngine:
            engines.append(kit.engine(callbacks))
            return engines[-1]

        async with (
            serve(offer, engine=factory) as server,
            connect(endpoint(server), engine=kit.engine) as client,
        ):
            assert client.state is State.READY
            assert len(engines) == 1

    kit.run(main(), real=True)


def test_media_needs_an_engine() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="needs an engine"):
            async with serve(listen):
                pass

    asyncio.run(main())


@pytest.mark.parametrize("origin", ["https://example.org", "null", "http://127.0.0.1:8000"])
def test_every_origin_is_welcome(kit: Any, origin: str) -> None:
    async def main() -> None:
        async with (
            serve(listen, config=NO_MEDIA) as server,
            stock(server, origin=origin) as client,
        ):
            assert '"conversation.connected.success"' in str(await client.recv())

    kit.run(main(), real=True)


def test_no_compression_is_agreed_to(kit: Any) -> None:
    async def main() -> None:
        async with serve(listen, config=NO_MEDIA) as server, stock(server) as client:
            assert client.request is not None
            assert client.response is not None
            assert "permessage-deflate" in client.request.headers["Sec-WebSocket-Extensions"]
            assert "Sec-WebSocket-Extensions" not in client.response.headers

    kit.run(main(), real=True)


def test_what_a_client_may_send(kit: Any) -> None:
    async def main() -> None:
        watched = Watched()
        config = ServerConfig(media=(), limits=Limits(client_message=1000))
        async with serve(watched, config=config) as server, stock(server) as client:
            for _ in range(3):
                await client.recv()
            await client.send(b"binary")
            await client.send('{"type": "response.create"}')
            await client.send("{")
            await client.send("x" * 1001)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1009, "message too big")
            await watched.done.wait()
        ready, usable, *events = watched.events
        del ready, usable
        assert events[0] == BinaryIgnored(size=6)
        assert events[1] == MessageReceived(message=ResponseCreate())
        assert [event.fatal for event in events if isinstance(event, ProtocolViolation)] == [
            False,
            True,
        ]
        assert events[-1].cause is CloseCause.VIOLATION

    kit.run(main(), real=True)


def test_a_message_that_is_not_even_read(kit: Any) -> None:
    async def main() -> None:
        watched = Watched()
        config = ServerConfig(media=(), limits=Limits(client_message=1000))
        async with serve(watched, config=config) as server, stock(server) as client:
            await client.send("x" * (1000 + 64 * 1024 + 1))
            await client.wait_closed()
            assert client.close_code == 1009
            await watched.done.wait()
        assert watched.events[-1].code == 1009
        assert not [e for e in watched.events if isinstance(e, MessageReceived)]

    kit.run(main(), real=True)


def test_a_refusal_closes_as_stock_clients_expect(kit: Any) -> None:
    async def main() -> None:
        async def refuse(session: ServerSession) -> None:
            await session.send(ConnectedFail(message="Invalid license key"))

        async with serve(refuse, config=NO_MEDIA) as server, stock(server) as client:
            assert '"conversation.connected.fail"' in str(await client.recv())
            await client.wait_closed()
            assert client.close_code == 1008  # protocol.md 2.5: the event first, then the close.

    kit.run(main(), real=True)


# ---- failures


def test_a_handler_that_fails(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    class HandlerError(Exception):
        pass

    async def main() -> None:
        async def handler(session: ServerSession) -> None:
            await welcome(session)
            if session.request.name == "navtalk.Broken":
                raise HandlerError("handler text")
            async for _ in session.events():
                pass

        async with serve(handler, config=NO_MEDIA) as server:
            broken = Endpoint(
                base_url=server.url, license="sk_navtalk_EXAMPLE", name="navtalk.Broken"
            )
            async with connect(endpoint(server), media=False) as other:
                async with connect(broken, media=False) as session:
                    events = [event async for event in session.events()]
                assert events[-1] == Closed(
                    cause=CloseCause.REMOTE, code=1011, reason="internal error"
                )
                # The server lives, and so do the others.
                assert other.end is None
                async with connect(endpoint(server), media=False):
                    pass

    with caplog.at_level(logging.ERROR, logger="navtalk.server"):
        kit.run(main(), real=True)
    records = [record for record in caplog.records if record.name == "navtalk.server"]
    assert len(records) == 1
    assert "HandlerError: handler text" in caplog.text
    assert "in handler" in caplog.text  # The traceback leads to the handler.


def test_a_target_that_is_not_one(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serve(listen, config=NO_MEDIA) as server:
            status, _, _ = await upgrade(server, "http://absolute.example/")
            assert status == 400
            async with connect(endpoint(server), media=False):
                pass

    with caplog.at_level(logging.ERROR):
        kit.run(main(), real=True)
    assert not caplog.records  # A visitor's mistake is not the server's.


async def upgrade(server: Server, target: str) -> tuple[int, dict[str, str], bytes]:
    return await http(
        server,
        f"GET {target} HTTP/1.1\nHost: x\nUpgrade: websocket\nConnection: Upgrade\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-WebSocket-Version: 13\n\n",
    )


def test_an_engine_that_cannot_be_made(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def broken(callbacks: Any) -> Any:
            raise RuntimeError("no codec")

        async with serve(listen, engine=broken) as server:
            with pytest.raises(ConnectFailedError):
                async with connect(endpoint(server), media=False):
                    pass
            assert server.sessions == frozenset()

    kit.run(main(), real=True)
    assert "RuntimeError: no codec" in caplog.text


@pytest.mark.parametrize("how", ["abort", "garbage", "no-request", "half-request"])
def test_visitors_that_misbehave(kit: Any, how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serve(listen, config=NO_MEDIA) as server:
            if how == "abort":
                async with stock(server) as client:
                    client.transport.abort()
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                if how == "garbage":
                    writer.write(b"\x16\x03\x01\x02\x00\r\n\r\n")
                    await reader.read()
                elif how == "half-request":
                    writer.write(b"GET / HTTP/1.1\r\nHost:")
                writer.close()
                await writer.wait_closed()
            async with connect(endpoint(server), media=False):
                pass

    with caplog.at_level(logging.WARNING):
        kit.run(main(), real=True)
    assert not [record for record in caplog.records if record.name == "navtalk.server"]


# ---- limits


def test_no_more_sessions_than_allowed(kit: Any) -> None:
    async def main() -> None:
        watched = Watched()
        async with serve(watched, config=NO_MEDIA, max_sessions=1) as server:
            async with connect(endpoint(server), media=False):
                with pytest.raises(ConnectFailedError, match="HTTP 503"):
                    async with connect(endpoint(server), media=False):
                        pass
                with pytest.raises(InvalidStatus) as refused:
                    await stock(server)
                assert refused.value.response.status_code == 503
                status, _, _ = await http(server, "GET /x HTTP/1.1\nHost: x\n\n")
                assert status == 404  # Plain HTTP is no session.
            await watched.done.wait()
            while server.sessions:  # noqa: ASYNC110 - a few turns of the loop after the handler
                await asyncio.sleep(0)
            async with connect(endpoint(server), media=False):
                pass

    kit.run(main(), real=True)


# ---- plain HTTP on the same port


def answer(request: HttpRequest) -> HttpReply | None:
    if not request.target.startswith("/api/"):
        return None
    if request.target == "/api/broken":
        raise KeyError("broken")
    body = f"{request.method} {request.target} {request.headers.get('license')}".encode()
    return HttpReply(
        status=200,
        headers=(
            ("Content-Type", "text/plain"),
            ("Content-Length", str(len(body))),
            ("Access-Control-Allow-Origin", "*"),
        ),
        body=body,
    )


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST", "PUT"])
def test_the_http_handler(kit: Any, method: str) -> None:
    async def main() -> None:
        async with serve(listen, config=NO_MEDIA, http=answer) as server:
            length = "Content-Length: 0\n" if method in ("POST", "PUT") else ""
            status, fields, body = await http(
                server, f"{method} /api/x?y=1 HTTP/1.1\nHost: h\nLICENSE: abc\n{length}\n"
            )
            assert status == 200
            assert body == f"{method} /api/x?y=1 abc".encode()
            assert fields["content-type"] == "text/plain"
            assert fields["access-control-allow-origin"] == "*"
            assert fields["connection"] == "close"

    kit.run(main(), real=True)


@pytest.mark.parametrize("handler", [None, answer], ids=["none", "answer"])
def test_unknown_paths(kit: Any, handler: Any) -> None:
    async def main() -> None:
        async with serve(listen, config=NO_MEDIA, http=handler) as server:
            status, _, body = await http(server, "GET /elsewhere HTTP/1.1\nHost: h\n\n")
            assert (status, body) == (404, b"not found\n")

    kit.run(main(), real=True)


def test_an_http_handler_that_fails(kit: Any) -> None:
    async def main() -> None:
        async with serve(listen, config=NO_MEDIA, http=answer) as server:
            status, _, _ = await http(server, "GET /api/broken HTTP/1.1\nHost: h\n\n")
            assert status == 500
            async with connect(endpoint(server), media=False):
                pass

    kit.run(main(), real=True)


def test_http_messages_hide_what_may_be_secret() -> None:
    request = HttpRequest(method="GET", target="/?license=x", headers={"license": "x"})
    assert repr(request) == "HttpRequest(method='GET')"
    assert repr(HttpReply(status=200, body=b"abc")) == (
        "HttpReply(status=200, headers=(), body=<3 bytes>)"
    )


# ---- the end


def test_leaving_closes_the_sessions_and_waits_for_them(kit: Any) -> None:
    async def main() -> None:
        left: list[str] = []

        async def handler(session: ServerSession) -> None:
            await welcome(session)
            try:
                async for _ in session.events():
                    pass
            finally:
                await asyncio.sleep(0)
                left.append(str(session.request.name))

        async with serve(handler, config=NO_MEDIA) as server:
            one, two = await stock(server), await stock(server)
            for client in (one, two):
                for _ in range(3):
                    await client.recv()
        assert left == ["navtalk.Leo"] * 2
        assert server.sessions == frozenset()
        for client in (one, two):
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (1001, "server is shutting down")
        with pytest.raises(ConnectFailedError):
            async with connect(endpoint(server), media=False):
                pass

    kit.run(main(), real=True)


def test_leaving_because_of_an_exception(kit: Any) -> None:
    async def main() -> None:
        error = KeyError("body")
        watched = Watched()

        async def use() -> None:
            async with serve(watched, config=NO_MEDIA) as server, stock(server):
                await watched.started.wait()
                raise error

        with pytest.raises(KeyError) as caught:
            await use()
        assert caught.value is error
        assert watched.done.is_set()

    kit.run(main(), real=True)


def test_a_cancelled_server_ends_its_handlers(kit: Any) -> None:
    async def main() -> None:
        watched = Watched()
        running = asyncio.Event()
        servers: list[Server] = []

        async def use() -> None:
            async with serve(watched, config=NO_MEDIA) as server:
                servers.append(server)
                running.set()
                await asyncio.Event().wait()

        serving = asyncio.create_task(use())
        await running.wait()
        client = await stock(servers[0])
        await watched.started.wait()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert watched.done.is_set()
        await client.wait_closed()
        assert client.close_code == 1001

    kit.run(main(), real=True)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n"])
def test_leaving_does_not_wait_for_sockets_that_say_nothing(kit: Any, said: bytes) -> None:
    """Browsers open sockets ahead of need (a handshake may take 10 s otherwise)."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serve(listen, config=NO_MEDIA) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(said)
            async with connect(endpoint(server), media=False):
                pass  # The socket above was accepted before this one.
            start = loop.time()
        assert loop.time() - start < 5
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()

    kit.run(main(), real=True)


@pytest.mark.parametrize("turns", range(6))
def test_leaving_while_sockets_are_being_opened(kit: Any, turns: int) -> None:
    """Accepted by the kernel, not by the server yet: they are not waited for either."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sockets = [socket.socket() for _ in range(5)]
        try:
            async with serve(listen, config=NO_MEDIA) as server:
                for one in sockets:
                    one.connect(("127.0.0.1", server.port))
                for _ in range(turns):  # How far the server is with accepting them.
                    await asyncio.sleep(0)
                start = loop.time()
            assert loop.time() - start < 5
        finally:
            for one in sockets:
                one.close()

    kit.run(main(), real=True)


def test_a_client_that_is_deaf_does_not_hold_up_the_end(kit: Any) -> None:
    async def main() -> None:
        watched = Watched()
        config = ServerConfig(media=(), close_timeout=0.2)
        async with serve(watched, config=config) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                f"GET {TARGET} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            await reader.readuntil(b"\r\n\r\n")
            await watched.started.wait()
        assert watched.sessions[0].end == Closed(
            cause=CloseCause.LOCAL, code=1001, reason="server is shutting down", forced=True
        )
        writer.close()

    kit.run(main(), real=True)


def test_a_port_that_is_taken(kit: Any) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError, match="address already in use"):
                async with serve(listen, port=taken.getsockname()[1], config=NO_MEDIA):
                    pass

    kit.run(main(), real=True)


def test_ipv6_and_its_url(kit: Any) -> None:
    async def main() -> None:
        async with serve(listen, "::1", config=NO_MEDIA) as server:
            assert server.url == f"ws://[::1]:{server.port}"
            async with connect(endpoint(server), media=False) as session:
                assert session.id == "s"

    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    kit.run(main(), real=True)
