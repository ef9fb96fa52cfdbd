"""Certificates, an environment without proxies, and a WebSocket server made of bytes."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from navtalk_proto.wire import codec
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import ConnectedSuccess, SessionCreated, SessionUpdated

PATIENCE = 20.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
"""RFC 6455 section 5.2."""


class RawWebSocket:
    """One client's connection, played frame by frame."""

    ready = tuple(
        codec.encode(message)
        for message in (ConnectedSuccess(session_id="s-1"), SessionCreated(), SessionUpdated())
    )

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.head = ""
        self._read = b""

    async def accept(self) -> None:
        """The opening handshake of RFC 6455 section 4.2."""
        while b"\r\n\r\n" not in self._read:
            self._read += await self._some()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        self.head = head.decode()
        (key,) = (
            line.split(": ")[1]
            for line in self.head.splitlines()
            if line.lower().startswith("sec-websocket-key:")
        )
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
        await self.stream.send_all(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )

    async def say(self, opcode: int, payload: bytes | str, *, fin: bool = True) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        head = bytes([opcode | (0x80 if fin else 0)])
        if len(data) < 126:
            head += bytes([len(data)])
        elif len(data) < 65_536:
            head += struct.pack(">BH", 126, len(data))
        else:
            head += struct.pack(">BQ", 127, len(data))
        await self.stream.send_all(head + data)

    async def welcome(self) -> None:
        """Accept, and say what makes a session without media usable."""
        await self.accept()
        for text in self.ready:
            await self.say(TEXT, text)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.say(CLOSE, struct.pack(">H", code) + reason.encode())

    async def hear(self) -> tuple[int, bytes]:
        """The next frame of the client, which masks it."""
        first, second = await self._take(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self._take(8))
        mask = await self._take(4)
        data = await self._take(size)
        return first & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))

    async def hear_only(self, opcode: int) -> bytes:
        """The next frame of this kind."""
        while True:
            found, data = await self.hear()
            if found == opcode:
                return data

    async def hear_close(self) -> tuple[int, str]:
        data = await self.hear_only(CLOSE)
        return struct.unpack(">H", data[:2])[0], data[2:].decode()

    async def _take(self, number: int) -> bytes:
        while len(self._read) < number:
            self._read += await self._some()
        taken, self._read = self._read[:number], self._read[number:]
        return taken

    async def _some(self) -> bytes:
        data = bytes(await self.stream.receive_some(65_536))
        if not data:
            raise trio.BrokenResourceError("the client hung up")
        return data


class Certificates:
    """A certificate for 127.0.0.1 that its own client context trusts, and no other."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "navtalk test")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        chain, private = folder / "cert.pem", folder / "key.pem"
        chain.write_bytes(certificate.public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(chain, private)
        self.client = ssl.create_default_context(cafile=chain)


class Net:
    """What tests of real sockets use; importing a conftest is not possible."""

    text, binary, close, ping, pong = TEXT, BINARY, CLOSE, PING, PONG
    raw_web_socket = RawWebSocket
    patience = PATIENCE

    def __init__(self) -> None:
        self.license = f"sk_navtalk_{secrets.token_hex(16)}"

    def endpoint(self, port: int, *, host: str = "127.0.0.1", scheme: str = "ws") -> Endpoint:
        return Endpoint(
            base_url=f"{scheme}://{host}:{port}", license=self.license, name="navtalk.Leo"
        )

    @staticmethod
    def run(main: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            with trio.fail_after(PATIENCE):
                await main()

        trio.run(bounded)

    @asynccontextmanager
    async def tcp(self, serve: Callable[[Any], Awaitable[None]]) -> AsyncIterator[int]:
        """A TCP server on loopback: `serve` runs once per connection, and is cancelled at the end.

        A client that hangs up ends it.
        """

        async def handle(stream: Any) -> None:
            try:
                await serve(stream)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, handle, 0)
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def web_socket(
        self, play: Callable[[RawWebSocket], Awaitable[None]]
    ) -> AsyncIterator[int]:
        """A WebSocket server that plays this after the welcome."""

        async def serve(stream: Any) -> None:
            connection = RawWebSocket(stream)
            await connection.welcome()
            await play(connection)

        async with self.tcp(serve) as port:
            yield port


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy from the environment of whoever runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
