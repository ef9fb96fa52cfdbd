"""Frame limits at the transport: a header that announces too much ends the connection."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
import websockets.asyncio.client
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from navtalk_asyncio import Endpoint, connect, serve
from navtalk_asyncio.websocket import open_websocket
from navtalk_proto import ClientConfig, Limits, ServerConfig
from navtalk_proto.events import CloseCause, Closed, ProtocolViolation

pytestmark = pytest.mark.usefixtures("direct")

LIMIT = 4096
MARGIN = 64 * 1024
"""A message may be this much over its limit and still be judged by the core."""

TRANSPORT_SAYS = Closed(cause=CloseCause.VIOLATION, code=1009, reason="a message is far too big")
CORE_SAYS = Closed(cause=CloseCause.VIOLATION, code=1009, reason="message too big")


def announced(size: int, *, masked: bool) -> bytes:
    """The header of an unfragmented text frame of `size` bytes (RFC 6455 section 5.2)."""
    return struct.pack("!BBQ", 0x81, 0x80 * masked | 127, size) + bytes(4 * masked)


@pytest.mark.parametrize("size", [LIMIT + MARGIN + 1, 2**40])
def test_a_server_reads_no_frame_that_is_too_big(kit: Any, size: int) -> None:
    """Only the header is sent: a server that wanted the rest would wait for it."""

    async def main() -> None:
        seen: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        async def handler(session: Any) -> None:
            seen.set_result([event async for event in session.events()])

        config = ServerConfig(media=(), limits=Limits(client_message=LIMIT))
        async with serve(handler, config=config) as server:
            url = f"{server.url}/wss/v2/realtime-chat?license={kit.license}&name=x"
            async with websockets.asyncio.client.connect(url, proxy=None) as client:
                client.transport.write(announced(size, masked=True))
                with pytest.raises(ConnectionClosed) as caught:
                    await client.recv()
            events = await seen
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        assert [type(event) for event in events] == [ProtocolViolation, Closed]
        assert events[0].fatal
        assert events[1] == TRANSPORT_SAYS

    kit.run(main(), real=True)


@pytest.mark.parametrize("size", [LIMIT + 1, LIMIT + MARGIN])
def test_a_server_says_what_is_wrong_with_a_message_a_little_too_big(kit: Any, size: int) -> None:
    async def main() -> None:
        seen: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        async def handler(session: Any) -> None:
            seen.set_result([event async for event in session.events()])

        config = ServerConfig(media=(), limits=Limits(client_message=LIMIT))
        async with serve(handler, config=config) as server:
            url = f"{server.url}/wss/v2/realtime-chat?license={kit.license}&name=x"
            async with websockets.asyncio.client.connect(url, proxy=None) as client:
                await client.send("x" * size)
                with pytest.raises(ConnectionClosed) as caught:
                    await client.recv()
            events = await seen
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1009, "message too big")
        assert [type(event) for event in events] == [ProtocolViolation, Closed]
        assert events[0].fatal
        assert str(LIMIT) in events[0].reason
        assert events[1] == CORE_SAYS

    kit.run(main(), real=True)


@pytest.mark.parametrize("size", [LIMIT + MARGIN + 1, 2**40])
def test_a_client_reads_no_frame_that_is_too_big(kit: Any, size: int) -> None:
    async def main() -> None:
        closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        async def handler(connection: ServerConnection) -> None:
            for type, data in kit.ready:
                await connection.send(kit.json(type, data))
            connection.transport.write(announced(size, masked=False))
            await connection.wait_closed()
            closed.set_result(connection.close_code)

        async with websockets.asyncio.server.serve(handler, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            where = Endpoint(base_url=f"ws://127.0.0.1:{port}", license=kit.license, name="x")
            config = ClientConfig(limits=Limits(server_message=LIMIT))
            async with connect(where, media=False, config=config) as session:
                events = [event async for event in session.events()]
            assert await closed == 1009
        assert isinstance(events[-2], ProtocolViolation)
        assert events[-1] == TRANSPORT_SAYS

    kit.run(main(), real=True)


def test_a_dropped_transport_has_no_socket_left(kit: Any) -> None:
    """When aclose() returns, not some turns of the loop later."""

    async def main() -> None:
        async def handler(session: Any) -> None:
            async for _ in session.events():
                pass

        async with serve(handler, config=ServerConfig(media=())) as server:
            where = Endpoint(base_url=server.url, license=kit.license, name="x")
            transport = await open_websocket(where, max_size=LIMIT)
            socket = transport._connection.transport.get_extra_info("socket")
            assert socket.fileno() >= 0
            await transport.aclose()
            assert socket.fileno() == -1
            await transport.aclose()

    kit.run(main(), real=True)
