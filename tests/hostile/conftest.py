"""A server of either loop in a thread of its own, and clients made of bytes."""

from __future__ import annotations

import asyncio
import base64
import importlib
import os
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import navtalk_asyncio
import navtalk_trio
from navtalk_proto import ServerConfig
from navtalk_proto.wire.messages import ConnectedSuccess, SessionCreated, SessionUpdated

PATIENCE = 20.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""

TEXT, CONTINUATION, CLOSE, PING = 1, 0, 8, 9
"""RFC 6455 section 5.2."""


class RawClient:
    """A TCP connection to a server, on which a test writes what it likes."""

    def __init__(self, port: int, *, unread: bool = False) -> None:
        self.socket = socket.socket()
        if unread:
            # So that little is needed to fill what the system buffers.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.license = f"sk_navtalk_{secrets.token_hex(16)}"

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, *headers: str, path: str | None = None) -> None:
        """Ask for a WebSocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {path or f'/wss/v2/realtime-chat?license={self.license}&name=x'} HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            *headers,
        )
        self.socket.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))

    def status(self) -> int:
        """The status of the answer; the rest of its head is read."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, head
            head += byte
        return int(head.split(b" ")[1])

    def enter(self, *headers: str) -> int:
        self.request(*headers)
        return self.status()

    @staticmethod
    def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
        """A client's frame, masked with zeros."""
        size = len(payload)
        first = bytes([opcode | (0x80 if fin else 0)])
        if size < 126:
            return first + bytes([0x80 | size]) + bytes(4) + payload
        if size < 65_536:
            return first + struct.pack("!BH", 0xFE, size) + bytes(4) + payload
        return first + struct.pack("!BQ", 0xFF, size) + bytes(4) + payload

    def pour(self, data: bytes, *, at_most: int, stuck: float = 2.0) -> int:
        """Send this over and over: the bytes that went out until it was cut off, or stuck."""
        self.socket.settimeout(stuck)
        sent = 0
        try:
            while sent < at_most:
                sent += self.socket.send(data)
        except OSError:
            pass
        self.socket.settimeout(PATIENCE)
        return sent

    def wait_for_end(self) -> None:
        """Read until the server ends the connection."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionError:
            pass


class Hostile:
    """What tests of this folder use; importing a conftest is not possible."""

    text, continuation, close, ping = TEXT, CONTINUATION, CLOSE, PING
    patience = PATIENCE
    raw_client = RawClient

    def __init__(self, loop: str) -> None:
        self.loop = loop
        self.package = {"asyncio": navtalk_asyncio, "trio": navtalk_trio}[loop]
        self.websocket: Any = importlib.import_module(f"navtalk_{loop}.websocket")

    @contextmanager
    def server(self, handler: Callable[[Any], Awaitable[None]], **options: Any) -> Iterator[Any]:
        """Run serve(); yields the Server, to be looked at only."""
        serve = partial(
            self.package.serve, handler, **{"config": ServerConfig(media=()), **options}
        )
        with self.in_thread(serve) as server:
            yield server

    @contextmanager
    def in_thread(self, enter: Callable[[], Any]) -> Iterator[Any]:
        """Run an async context manager of the loop in a thread; yields what it gives."""
        ready = threading.Event()
        found: list[Any] = []
        failures: list[BaseException] = []

        async def asyncio_main() -> None:
            stop = asyncio.Event()
            async with enter() as made:
                loop = asyncio.get_running_loop()
                found.extend((made, partial(loop.call_soon_threadsafe, stop.set)))
                ready.set()
                await stop.wait()

        async def trio_main() -> None:
            stop = trio.Event()
            async with enter() as made:
                token = trio.lowlevel.current_trio_token()
                found.extend((made, partial(token.run_sync_soon, stop.set)))
                ready.set()
                await stop.wait()

        def main() -> None:
            try:
                if self.loop == "asyncio":
                    asyncio.run(asyncio_main())
                else:
                    trio.run(trio_main)
            except BaseException as error:  # noqa: BLE001 - raised in the test
                failures.append(error)
            finally:
                ready.set()

        thread = threading.Thread(target=main)
        thread.start()
        assert ready.wait(PATIENCE)
        try:
            if found:
                yield found[0]
        finally:
            if found:
                found[1]()
            thread.join(PATIENCE)
            assert not thread.is_alive()
            if failures:
                raise failures[0]

    @staticmethod
    async def welcome(session: Any) -> None:
        for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
            await session.send(message)

    async def sleep(self, seconds: float) -> None:
        """On whichever loop; for a handler that is busy with something else."""
        if self.loop == "asyncio":
            await asyncio.sleep(seconds)
        else:
            await trio.sleep(seconds)

    async def listen(self, session: Any) -> None:
        """A handler that takes everything until the client is gone."""
        await self.welcome(session)
        async for _ in session.events():
            pass


@pytest.fixture(params=["asyncio", "trio"])
def hostile(request: pytest.FixtureRequest) -> Hostile:
    return Hostile(request.param)


@pytest.fixture
def asyncio_only() -> Hostile:
    return Hostile("asyncio")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's TLS context; nobody is to trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "navtalk test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
