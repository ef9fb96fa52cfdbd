"""The trio server over real sockets, and each adapter's client against the other's server."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio

import navtalk_asyncio
import navtalk_trio
from navtalk_proto import ConnectFailedError, GpuFullError, Limits, ServerConfig
from navtalk_proto.events import CloseCause, Closed, MessageReceived, Notice
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    GpuFull,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
    TranscriptDone,
)
from navtalk_trio import HttpReply, HttpRequest, serve

NO_MEDIA = ServerConfig(media=())


async def welcome(session: Any) -> None:
    for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
        await session.send(message)


async def be_human(session: Any) -> None:
    """Answer each question; knows no loop."""
    await welcome(session)
    async for event in session.events():
        if isinstance(event, MessageReceived) and isinstance(event.message, ResponseCreate):
            await session.send(TranscriptDone(response_id="r", content="Seven."))


async def ask(connect: Any, where: Any, **options: Any) -> str:
    """Ask once; knows no loop."""
    answer = None
    async with connect(where, media=False, **options) as session:
        await session.send_text("When is breakfast?")
        async for event in session.events():
            if isinstance(event, MessageReceived) and isinstance(event.message, TranscriptDone):
                answer = event.message.content
                break
    assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="")
    assert isinstance(answer, str)
    return answer


# ---- the two adapters with each other


@contextmanager
def asyncio_server(**options: Any) -> Iterator[int]:
    """navtalk_asyncio.serve() in a thread of its own; the port."""
    ready = threading.Event()
    found: list[Any] = []

    async def main() -> None:
        stop = asyncio.Event()
        async with navtalk_asyncio.serve(be_human, config=NO_MEDIA, **options) as server:
            found.extend((server.port, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(20)
    port, loop, stop = found
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("secure", [False, True])
def test_trio_client_and_asyncio_server(net: Any, certificates: Any, secure: bool) -> None:
    with asyncio_server(ssl=certificates.server if secure else None) as port:

        async def main() -> None:
            where = net.endpoint(port, scheme="wss" if secure else "ws")
            options = {"ssl": certificates.client} if secure else {}
            assert await ask(navtalk_trio.connect, where, **options) == "Seven."

        net.run(main)


@pytest.mark.parametrize("secure", [False, True])
def test_asyncio_client_and_trio_server(net: Any, certificates: Any, secure: bool) -> None:
    async def main() -> None:
        ssl = certificates.server if secure else None
        async with serve(be_human, config=NO_MEDIA, ssl=ssl) as server:
            where = net.endpoint(server.port, scheme="wss" if secure else "ws")
            options = {"ssl": certificates.client} if secure else {}

            def client() -> str:
                return asyncio.run(ask(navtalk_asyncio.connect, where, **options))

            assert await trio.to_thread.run_sync(client) == "Seven."

    net.run(main)


def test_trio_and_trio_many_at_once(net: Any) -> None:
    answers: list[str] = []

    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:

            async def one() -> None:
                answers.append(await ask(navtalk_trio.connect, net.endpoint(server.port)))

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(one)

    net.run(main)
    assert answers == ["Seven."] * 20


def test_what_the_client_asked_for(net: Any) -> None:
    requests: list[Any] = []

    async def look(session: Any) -> None:
        requests.append(session.request)
        await session.send(GpuFull(message="none"))

    async def main() -> None:
        async with serve(look, config=NO_MEDIA) as server:
            with pytest.raises(GpuFullError):
                await ask(navtalk_trio.connect, net.endpoint(server.port))

    net.run(main)
    assert requests[0].license.reveal() == net.license
    assert (requests[0].path, requests[0].name) == ("/wss/v2/realtime-chat", "navtalk.Leo")


# ---- handlers


@pytest.mark.parametrize("how", ["returns", "fails"])
def test_a_handler_ends_its_own_session_only(
    net: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(session: Any) -> None:
        await welcome(session)
        if session.request.name == "navtalk.Leo":
            await be_patient(session)
        elif how == "fails":
            raise KeyError("handler")

    async def be_patient(session: Any) -> None:
        async for _ in session.events():
            pass

    async def main() -> None:
        async with serve(handler, config=NO_MEDIA) as server:
            where = net.endpoint(server.port)
            other = navtalk_trio.Endpoint(base_url=server.url, license=net.license, name="another")
            async with navtalk_trio.connect(where, media=False) as patient:
                async with navtalk_trio.connect(other, media=False) as session:
                    events = [event async for event in session.events()]
                code, reason = (1000, "") if how == "returns" else (1011, "internal error")
                assert events[-1] == Closed(cause=CloseCause.REMOTE, code=code, reason=reason)
                assert patient.end is None
            assert patient.end is not None

    net.run(main)
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in failures] == (["navtalk.server"] if how == "fails" else [])


def test_leaving_closes_every_session_with_1001(net: Any) -> None:
    ends: list[Any] = []

    async def handler(session: Any) -> None:
        await welcome(session)
        await trio.sleep_forever()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            entered = 0
            all_in = trio.Event()

            async def visit(port: int) -> None:
                nonlocal entered
                async with navtalk_trio.connect(net.endpoint(port), media=False) as session:
                    entered += 1
                    if entered == 3:
                        all_in.set()
                    ends.extend([event async for event in session.events()][-1:])

            async with serve(handler, config=NO_MEDIA) as server:
                for _ in range(3):
                    nursery.start_soon(visit, server.port)
                await all_in.wait()
                assert len(server.sessions) == 3

    net.run(main)
    assert (
        ends == [Closed(cause=CloseCause.REMOTE, code=1001, reason="server is shutting down")] * 3
    )


def test_one_session_too_many(net: Any) -> None:
    async def handler(session: Any) -> None:
        await welcome(session)
        await trio.sleep_forever()

    async def main() -> None:
        async with serve(handler, config=NO_MEDIA, max_sessions=1) as server:
            where = net.endpoint(server.port)
            async with navtalk_trio.connect(where, media=False):
                with pytest.raises(ConnectFailedError, match="HTTP 503"):
                    async with navtalk_trio.connect(where, media=False):
                        pytest.fail("it is usable")
            # The first one's place is free as soon as its handler has ended.

    net.run(main)


def test_media_needs_an_engine(net: Any) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="needs an engine"):
            async with serve(be_human):
                pytest.fail("it serves")

    net.run(main)


def test_a_refusal_of_a_running_session(net: Any) -> None:
    async def handler(session: Any) -> None:
        await welcome(session)
        await session.send(GpuFull(message="gone"))

    async def main() -> None:
        async with (
            serve(handler, config=NO_MEDIA) as server,
            navtalk_trio.connect(net.endpoint(server.port), media=False) as session,
        ):
            events = [event async for event in session.events()]
        assert isinstance(events[-2], Notice)
        assert isinstance(events[-1], Closed)
        assert events[-1].code == 1013

    net.run(main)


# ---- plain HTTP


def http(request: HttpRequest) -> HttpReply | None:
    if request.target == "/broken":
        raise KeyError("http")
    if request.target.startswith("/echo"):
        body = json.dumps([request.method, request.target, request.headers.get("x-who")]).encode()
        headers = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
        return HttpReply(status=200, headers=headers, body=body)
    if request.method == "OPTIONS":
        return HttpReply(status=204, headers=(("Access-Control-Allow-Origin", "*"),), body=b"")
    return None


async def exchange(port: int, request: bytes) -> str:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request)
        return b"".join([bytes(data) async for data in stream]).decode()


@pytest.mark.parametrize(
    ("request_head", "status", "body"),
    [
        ("GET /echo?a=1 HTTP/1.1\r\nHost: x\r\nX-Who: me\r\n\r\n", 200, ["GET", "/echo?a=1", "me"]),
        (
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
            200,
            ["POST", "/echo", None],
        ),
        ("OPTIONS /x HTTP/1.1\r\nHost: x\r\n\r\n", 204, ""),
        ("GET /none HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not found\n"),
        ("GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", 500, "internal server error\n"),
        ("nonsense\r\n\r\n", 400, "bad request\n"),
        ("GET /none HTTP/1.1\r\nHost: x\r\nX: " + "y" * 200_000 + "\r\n\r\n", 400, "bad request\n"),
    ],
    ids=["GET", "POST", "OPTIONS", "404", "broken handler", "not HTTP", "too long"],
)
def test_plain_http(net: Any, request_head: str, status: int, body: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA, http=http) as server:
            answer = await exchange(server.port, request_head.encode())
            head, _, text = answer.partition("\r\n\r\n")
            assert head.startswith(f"HTTP/1.1 {status} ")
            assert "connection: close" in head.lower()
            assert (json.loads(text) if isinstance(body, list) else text) == body
            # And it still serves.
            assert await ask(navtalk_trio.connect, net.endpoint(server.port)) == "Seven."

    net.run(main)


def test_without_a_handler_everything_is_404(net: Any) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            answer = await exchange(server.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer.startswith("HTTP/1.1 404 ")

    net.run(main)


@pytest.mark.parametrize("target", ["*", "/" + "x" * 9000], ids=["star", "too long"])
def test_an_upgrade_for_a_target_that_is_none(net: Any, target: str) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            answer = await exchange(
                server.port,
                f"GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n".encode(),
            )
            assert answer.startswith("HTTP/1.1 400 ")

    net.run(main)


# ---- clients that do not mean it


async def hang_up_at_once(port: int) -> None:
    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()


async def hang_up_in_the_head(port: int) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HT")


async def hang_up_after_the_upgrade(port: int) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )


async def ask_for_half_an_upgrade(port: int) -> None:
    answer = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n")
    assert answer.startswith("HTTP/1.1 4")


@pytest.mark.parametrize(
    "visit",
    [
        hang_up_at_once,
        hang_up_in_the_head,
        hang_up_after_the_upgrade,
        ask_for_half_an_upgrade,
    ],
)
def test_a_client_that_does_not_mean_it(
    net: Any, visit: Callable[[int], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serve(be_human, config=NO_MEDIA) as server:
            await visit(server.port)
            assert await ask(navtalk_trio.connect, net.endpoint(server.port)) == "Seven."

    net.run(main)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_half_open_clients_do_not_hold_up_the_end(net: Any) -> None:
    async def main() -> None:
        with trio.fail_after(5):  # REQUEST_SECONDS is 10.
            async with serve(be_human, config=NO_MEDIA) as server:
                half = await trio.open_tcp_stream("127.0.0.1", server.port)
                await half.send_all(b"GET / HTTP/1.1\r\n")
                assert await ask(navtalk_trio.connect, net.endpoint(server.port)) == "Seven."
            with suppress(trio.BrokenResourceError):
                assert await half.receive_some(100) == b""
            await half.aclose()

    net.run(main)


def test_a_clients_message_over_the_limit(net: Any) -> None:
    ends: list[Any] = []

    async def handler(session: Any) -> None:
        await welcome(session)
        ends.extend([event async for event in session.events()][-1:])

    async def main() -> None:
        config = ServerConfig(media=(), limits=Limits(client_message=1000))
        async with serve(handler, config=config) as server:
            where = net.endpoint(server.port)
            async with navtalk_trio.connect(where, media=False) as session:
                await session.send_text("x" * 1000, respond=False)
                events = [event async for event in session.events()]
        assert events[-1] == Closed(cause=CloseCause.REMOTE, code=1009, reason="message too big")

    net.run(main)
    assert ends == [Closed(cause=CloseCause.VIOLATION, code=1009, reason="message too big")]


def test_the_licence_is_in_no_log_record_of_the_server(
    net: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(session: Any) -> None:
        await welcome(session)
        raise KeyError("handler")

    async def main() -> None:
        async with serve(handler, config=NO_MEDIA) as server:
            async with navtalk_trio.connect(net.endpoint(server.port), media=False) as session:
                async for _ in session.events():
                    pass
            bad = f"GET *?license={net.license} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"
            assert net.license not in await exchange(server.port, bad.encode())

    with caplog.at_level(logging.DEBUG):
        net.run(main)
    assert any(record.name == "navtalk.server" for record in caplog.records)
    assert net.license not in caplog.text
