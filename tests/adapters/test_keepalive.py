"""Keepalive on real sockets: a peer that answers no ping is dropped (protocol.md 2.6)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from navtalk_asyncio import Endpoint, connect, serve
from navtalk_asyncio import websocket as websocket_module
from navtalk_asyncio.testing.tcp_proxy import tcp_proxy
from navtalk_proto import ConnectFailedError, ServerConfig
from navtalk_proto.events import CloseCause
from navtalk_proto.wire.messages import ConnectedSuccess

pytestmark = pytest.mark.usefixtures("direct")

TEXT, CLOSE, PING = 0x1, 0x8, 0x9
"""Opcodes of RFC 6455 section 5.2."""

SECONDS = 0.05

SLACK = 2.0
"""Seconds in which the end must have been told, on a machine that does much else."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    assert websocket_module.KEEPALIVE_SECONDS == 20.0
    monkeypatch.setattr(websocket_module, "KEEPALIVE_SECONDS", SECONDS)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Opcode and payload of the next frame (RFC 6455 section 5.2)."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        [size] = struct.unpack("!H", await reader.readexactly(2))
    assert size < 127 or second & 0x7F == 126, "no frame here is that long"
    mask = await reader.readexactly(4) if second & 0x80 else bytes(4)
    payload = await reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def text_frame(text: str) -> bytes:
    """One text frame of a server."""
    payload = text.encode()
    assert len(payload) < 65536
    return struct.pack("!BBH", 0x80 | TEXT, 126, len(payload)) + payload


async def until_close(reader: asyncio.StreamReader) -> tuple[list[int], bytes]:
    """Answer nothing: the opcodes that came before the close frame, and that one's payload."""
    opcodes = []
    while True:
        opcode, payload = await read_frame(reader)
        if opcode == CLOSE:
            return opcodes, payload
        opcodes.append(opcode)


def deaf_server(
    messages: Sequence[str], heard: asyncio.Future[tuple[list[int], bytes]]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A server that says these messages and answers nothing; what it hears is in `heard`."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        [key] = [
            line.split()[1]
            for line in head.splitlines()
            if line.lower().startswith("sec-websocket-key:")
        ]
        accept = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
            + base64.b64encode(accept)
            + b"\r\n\r\n"
        )
        for message in messages:
            writer.write(text_frame(message))
        heard.set_result(await until_close(reader))

    return deaf


def ready(kit: Any) -> list[str]:
    return [kit.json(type, data) for type, data in kit.ready]


def test_a_client_drops_a_server_that_answers_no_ping(kit: Any) -> None:
    async def main() -> None:
        heard: asyncio.Future[tuple[list[int], bytes]] = asyncio.get_running_loop().create_future()
        async with kit.tcp(deaf_server(ready(kit), heard)) as port:
            where = Endpoint(base_url=f"ws://127.0.0.1:{port}", license=kit.license, name="x")
            async with connect(where, media=False) as session:
                async for _ in session.events():
                    pass
            opcodes, payload = await heard
        assert opcodes == [PING]
        assert struct.unpack("!H", payload[:2]) == (1011,)
        assert session.end is not None
        # Nobody said a code: 1011 is what we sent.
        assert (session.end.cause, session.end.code) == (CloseCause.REMOTE, None)
        assert session.end.reason == f"no pong within {SECONDS:g} s"

    kit.run(main(), real=True)


def test_a_server_that_answers_no_ping_before_its_welcome(kit: Any) -> None:
    async def main() -> None:
        heard: asyncio.Future[tuple[list[int], bytes]] = asyncio.get_running_loop().create_future()
        async with kit.tcp(deaf_server((), heard)) as port:
            where = Endpoint(base_url=f"ws://127.0.0.1:{port}", license=kit.license, name="x")
            with pytest.raises(ConnectFailedError, match=f"no pong within {SECONDS:g} s"):
                async with connect(where, media=False):
                    pass
            await heard

    kit.run(main(), real=True)


def test_a_half_open_connection_ends(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After twice the keep-alive at most, and not the ten seconds more of websockets' own."""
    seconds = 0.4
    monkeypatch.setattr(websocket_module, "KEEPALIVE_SECONDS", seconds)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[tuple[list[int], bytes]] = loop.create_future()
        async with (
            kit.tcp(deaf_server(ready(kit), heard)) as port,
            tcp_proxy("127.0.0.1", port) as proxy,
        ):
            where = Endpoint(base_url=proxy.url, license=kit.license, name="x")
            async with connect(where, media=False) as session:
                proxy.hold()
                held = loop.time()
                async for _ in session.events():
                    pass
                assert loop.time() - held < 2 * seconds + SLACK
            proxy.release()
            await heard
        assert session.end is not None
        assert (session.end.cause, session.end.code) == (CloseCause.REMOTE, None)
        assert session.end.reason == f"no pong within {seconds:g} s"

    kit.run(main(), real=True)


def test_a_server_drops_a_client_that_answers_no_ping(kit: Any) -> None:
    async def main() -> None:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def handler(session: Any) -> None:
            await session.send(ConnectedSuccess(session_id="s"))
            async for _ in session.events():
                pass
            ended.set_result(session.end)

        async with serve(handler, config=ServerConfig(media=())) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET /wss/v2/realtime-chat?license={kit.license}&name=x HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            opcodes, payload = await until_close(reader)
            writer.transport.abort()
            end = await ended
        assert opcodes == [TEXT, PING]
        assert struct.unpack("!H", payload[:2]) == (1011,)
        assert (end.cause, end.code) == (CloseCause.REMOTE, None)
        assert end.reason == f"no pong within {SECONDS:g} s"

    kit.run(main(), real=True)
