"""The kit's sockets on both loops: the UDP wire, the TCP proxy, and a server's `through`."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

import navtalk_asyncio.testing
import navtalk_trio.testing
from navtalk_proto import ConnectFailedError, ServerConfig
from navtalk_proto.testing import Side
from navtalk_proto.wire.codec import encode
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import (
    Answer,
    ConnectedSuccess,
    Offer,
    SessionCreated,
    SessionUpdated,
)

ADAPTERS: dict[str, Any] = {"asyncio": navtalk_asyncio, "trio": navtalk_trio}
PATIENCE = 10.0
"""Seconds until a wait is given up; only a failing test gets near it."""

RTP = b"\x80\x60 a picture"


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def play(loop: str, scenario: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(PATIENCE):
            await scenario(ADAPTERS[loop])

    anyio.run(main, backend=loop)


async def until(happened: Callable[[], object]) -> None:
    """Wait for what no event tells: that a socket of the kit was read."""
    while not happened():
        await anyio.lowlevel.checkpoint()


# ---- the UDP wire


def description(host: str, port: int) -> str:
    return f"v=0\r\nm=video 9 X 1\r\na=candidate:1 1 udp 1 {host} {port} typ host\r\n"


class Peers:
    """Two UDP sockets that know each other by a wire, as two WebRTC peers do."""

    def __init__(self, wire: Any, client: Any, server: Any) -> None:
        self.wire, self.client, self.server = wire, client, server
        wire.received(encode(Offer(sdp=description(*address(server)))))
        wire.sent(encode(Answer(sdp=description(*address(client)))))

    async def to_client(self, data: bytes = RTP) -> None:
        await self.server.sendto(data, *self.wire.ports[Side.FAR])

    async def to_server(self, data: bytes = RTP) -> None:
        await self.client.sendto(data, *self.wire.ports[Side.NEAR])


def address(udp: Any) -> tuple[str, int]:
    host, port = udp.extra(anyio.abc.SocketAttribute.local_address)[:2]
    return host, port


@asynccontextmanager
async def peers(adapter: Any, seed: int = 1) -> AsyncGenerator[Peers]:
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(adapter.testing.udp_wire(seed))
        client, server = [
            await stack.enter_async_context(
                await anyio.create_udp_socket(family=socket.AF_INET, local_host="127.0.0.1")
            )
            for _ in range(2)
        ]
        yield Peers(wire, client, server)


def test_packets_come_from_where_the_other_peer_was_announced(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with peers(adapter) as both:
            await both.to_client(RTP)
            assert await both.client.receive() == (RTP, both.wire.ports[Side.NEAR])
            await both.to_server(b"\x00 a check")
            assert await both.server.receive() == (b"\x00 a check", both.wire.ports[Side.FAR])

    play(loop, scenario)


def test_packets_are_delayed_lost_doubled_and_cut(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with peers(adapter) as both:
            wire = both.wire
            wire.set(delay=0.05, duplicate=1.0)
            start = time.monotonic()
            await both.to_client()
            for _ in range(2):
                assert (await both.client.receive())[0] == RTP
            assert time.monotonic() - start >= 0.05
            wire.set(loss=1.0, delay=0.0, duplicate=0.0)
            await both.to_client()
            await until(lambda: wire.counters("rtp", towards=Side.NEAR).lost)
            wire.set(loss=0.0)
            wire.cut()
            await both.to_client()
            await until(lambda: wire.counters("rtp", towards=Side.NEAR).swallowed)
            wire.heal()
            await both.to_client(b"\x80\x60 the next")
            assert (await both.client.receive())[0] == b"\x80\x60 the next"

    play(loop, scenario)


def test_a_peer_that_cannot_be_reached_is_counted(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with peers(adapter) as both:
            # The wire is bound to loopback, and from there is no way to another network.
            both.wire.sent(encode(Answer(sdp=description("198.51.100.1", 9))))
            await both.to_client()
            counters = both.wire.counters("rtp", towards=Side.NEAR)
            await until(lambda: counters.unroutable)
            assert counters.passed == 1
            # And the wire still works.
            both.wire.sent(encode(Answer(sdp=description(*address(both.client)))))
            await both.to_client()
            assert (await both.client.receive())[0] == RTP

    play(loop, scenario)


def test_leaving_a_wire_frees_its_ports_with_packets_on_it(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with peers(adapter) as both:
            both.wire.set(delay=60.0)
            await both.to_client()
            await until(lambda: both.wire.waiting)
            ports = dict(both.wire.ports)
        for host, port in ports.values():
            with socket.socket(type=socket.SOCK_DGRAM) as again:
                again.bind((host, port))

    play(loop, scenario)


def test_a_wire_on_an_address_of_another_machine_is_refused(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        with pytest.raises(OSError):
            async with adapter.testing.udp_wire(host="198.51.100.1"):
                pytest.fail("there is no such address here")

    play(loop, scenario)


# ---- the TCP proxy


@asynccontextmanager
async def echo() -> AsyncGenerator[int]:
    """A server that says back what it hears; yields its port."""

    async def answer(stream: Any) -> None:
        async with stream:
            try:
                async for data in stream:
                    await stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def proxied(adapter: Any) -> AsyncGenerator[tuple[Any, Any]]:
    """A proxy to an echo, and a connection through it."""
    async with echo() as port, adapter.testing.tcp_proxy("127.0.0.1", port) as proxy:
        stream = await anyio.connect_tcp(proxy.host, proxy.port)
        async with stream:
            yield proxy, stream


async def ended(stream: Any) -> None:
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await stream.receive()


def test_bytes_are_carried_both_ways_and_an_end_ends_the_other(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with proxied(adapter) as (proxy, stream):
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
            assert (proxy.accepted, proxy.moved) == (1, 10)
            assert proxy.url == f"ws://127.0.0.1:{proxy.port}"
            await stream.send_eof()
            await ended(stream)

    play(loop, scenario)


def test_held_nothing_is_carried_and_nothing_closed(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with proxied(adapter) as (proxy, stream):
            await stream.send(b"one")
            assert await stream.receive() == b"one"
            proxy.hold()
            await stream.send(b"two")
            with anyio.move_on_after(0.05) as silence:
                await stream.receive()
            assert silence.cancelled_caught
            proxy.release()
            assert await stream.receive() == b"two"

    play(loop, scenario)


def test_a_cut_drops_what_is_open_and_takes_what_is_new(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with proxied(adapter) as (proxy, stream):
            await stream.send(b"one")
            assert await stream.receive() == b"one"
            proxy.hold()
            proxy.cut()
            await ended(stream)
            proxy.release()
            async with await anyio.connect_tcp(proxy.host, proxy.port) as another:
                await another.send(b"two")
                assert await another.receive() == b"two"
            assert proxy.accepted == 2

    play(loop, scenario)


def test_a_rate_takes_its_time(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with proxied(adapter) as (proxy, stream):
            proxy.rate = 10_000.0
            start = time.monotonic()
            await stream.send(bytes(500))
            received = 0
            while received < 500:
                received += len(await stream.receive())
            assert time.monotonic() - start >= 0.1  # 0.05 s in each direction

    play(loop, scenario)


def test_a_server_that_is_not_there_is_a_connection_that_is_dropped(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as placeholder:
            port = placeholder.getsockname()[1]
        async with (
            adapter.testing.tcp_proxy("127.0.0.1", port) as proxy,
            await anyio.connect_tcp(proxy.host, proxy.port) as stream,
        ):
            await ended(stream)

    play(loop, scenario)


def test_a_proxy_is_left_while_it_holds(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        async with echo() as port:
            async with adapter.testing.tcp_proxy("127.0.0.1", port) as proxy:
                stream = await anyio.connect_tcp(proxy.host, proxy.port)
                await stream.send(b"one")
                assert await stream.receive() == b"one"
                proxy.hold()
                await stream.send(b"two")
            async with stream:
                await ended(stream)

    play(loop, scenario)


# ---- serve(through=...)


def test_a_server_runs_its_sessions_through_what_it_was_given(loop: str) -> None:
    async def scenario(adapter: Any) -> None:
        cutters: list[Any] = []
        left: list[str] = []
        used: list[Any] = []

        @asynccontextmanager
        async def through(transport: Any) -> AsyncGenerator[Any]:
            cutters.append(adapter.testing.cutter())
            try:
                yield cutters[-1].wrap(transport)
            finally:
                left.append("left")

        async def handler(session: Any) -> None:
            used.append(session.transport)
            for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
                await session.send(message)
            async for _ in session.events():
                pass

        config = ServerConfig(media=())
        async with adapter.serve(handler, config=config, through=through) as server:
            endpoint = Endpoint(base_url=server.url, license="EXAMPLE", name="navtalk.Leo")
            async with adapter.connect(endpoint, media=False) as session:
                cutters[0].cut()
                async for _ in session.events():
                    pass
            assert session.end.code is None
        assert cutters[0].passed == [
            "> conversation.connected.success",
            "> realtime.session.created",
            "> realtime.session.updated",
        ]
        assert used[0]._cutter is cutters[0]
        assert left == ["left"]

    play(loop, scenario)


def test_a_through_that_fails_ends_that_session_only(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(adapter: Any) -> None:
        @asynccontextmanager
        async def through(transport: Any) -> AsyncGenerator[Any]:
            raise ValueError("not today")
            yield transport

        async def handler(session: Any) -> None:
            pytest.fail("there is no session")

        config = ServerConfig(media=())
        async with adapter.serve(handler, config=config, through=through) as server:
            endpoint = Endpoint(base_url=server.url, license="EXAMPLE", name="navtalk.Leo")
            with pytest.raises(ConnectFailedError):
                async with adapter.connect(endpoint, media=False):
                    pytest.fail("it is usable")
        assert "not today" in caplog.text

    play(loop, scenario)
