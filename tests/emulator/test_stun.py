"""The STUN server answers Binding requests and survives everything else."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Sequence
from typing import cast

import pytest
from aioice import stun as aioice_stun
from hypothesis import given, settings
from hypothesis import strategies as st

from navtalk_asyncio.emulator.stun import StunServer

COOKIE = bytes.fromhex("2112a442")  # RFC 8489 section 5
TRANSACTION = bytes(range(1, 13))


def request(
    body: bytes = b"", *, kind: int = 0x0001, cookie: bytes = COOKIE, length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    return struct.pack("!HH", kind, size) + cookie + TRANSACTION + body


class Client(asyncio.DatagramProtocol):
    """Sends datagrams and keeps what comes back."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.answers.put_nowait(data)

    @property
    def port(self) -> int:
        assert self.transport is not None
        port: int = self.transport.get_extra_info("sockname")[1]
        return port

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.sendto(data)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def connect(server: StunServer) -> Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_datagram_endpoint(Client, remote_addr=server.address)
    return client


async def converse(datagrams: Sequence[bytes]) -> tuple[bytes, int, int, int]:
    """Send all, then a good request: its answer, the client's port, answered and ignored."""
    async with StunServer() as server, asyncio.timeout(5):
        client = await connect(server)
        assert client.transport is not None
        try:
            for data in (*datagrams, request()):
                client.send(data)
            # On one loopback socket the datagrams arrive in order.
            answer = await client.answers.get()
            return answer, client.port, server.counters.answered, server.counters.ignored
        finally:
            client.transport.close()


def test_a_binding_request_is_answered_with_the_address_it_came_from() -> None:
    answer, port, answered, ignored = asyncio.run(converse([]))
    # RFC 8489 section 5: success response, 12 + 8 bytes of attributes, cookie, transaction.
    assert answer[:20] == struct.pack("!HH", 0x0101, 20) + COOKIE + TRANSACTION
    # Section 14.2: XOR-MAPPED-ADDRESS, 8 bytes, family 1, port and address xor the cookie.
    assert answer[20:26] == bytes.fromhex("002000080001")
    assert int.from_bytes(answer[26:28], "big") ^ 0x2112 == port
    assert bytes(a ^ b for a, b in zip(answer[28:32], COOKIE, strict=True)) == b"\x7f\x00\x00\x01"
    # Section 14.7: FINGERPRINT, the CRC-32 of what is before it, xor 0x5354554e.
    assert answer[32:36] == bytes.fromhex("80280004")
    assert int.from_bytes(answer[36:40], "big") == zlib.crc32(answer[:32]) ^ 0x5354554E
    assert len(answer) == 40
    assert (answered, ignored) == (1, 0)


def test_aioices_own_transaction_is_satisfied() -> None:
    class Sender(Client):
        def send_stun(self, message: aioice_stun.Message, addr: tuple[str, int]) -> None:
            self.send(bytes(message))

    async def main() -> tuple[tuple[str, int], int]:
        async with StunServer() as server, asyncio.timeout(5):
            loop = asyncio.get_running_loop()
            _, sender = await loop.create_datagram_endpoint(Sender, remote_addr=server.address)
            assert sender.transport is not None
            message = aioice_stun.Message(
                message_method=aioice_stun.Method.BINDING,
                message_class=aioice_stun.Class.REQUEST,
            )
            transaction = aioice_stun.Transaction(message, server.address, sender)
            running = asyncio.ensure_future(transaction.run())
            answer = aioice_stun.parse_message(await sender.answers.get())
            transaction.response_received(answer, server.address)
            response, _ = await running
            port = sender.port
            sender.transport.close()
            return response.attributes["XOR-MAPPED-ADDRESS"], port

    mapped, port = asyncio.run(main())
    assert mapped == ("127.0.0.1", port)


def test_credentials_are_not_asked_for_and_not_answered() -> None:
    # USERNAME "ab", and MESSAGE-INTEGRITY with a key that nobody knows.
    body = bytes.fromhex("00060002") + b"ab\0\0" + bytes.fromhex("00080014") + bytes(20)
    first = request(body)[:8] + bytes(12) + body
    answer, _, _, ignored = asyncio.run(converse([first]))
    # The answer to the first one: its own transaction, address and fingerprint, and no more.
    assert answer[8:20] == bytes(12)
    assert len(answer) == 40
    assert ignored == 0


GARBAGE = {
    "one byte": b"\x00",
    "zeros": bytes(20),
    "no cookie": request(cookie=b"\x00\x00\x00\x00"),
    "too short": request()[:19],
    "longer than it says": request(b"\x00" * 4, length=0),
    "shorter than it says": request(length=8),
    "an attribute that goes on": request(bytes.fromhex("0024000400")),
    "a broken attribute": request(bytes.fromhex("0024000100000000")),
    "a user name that is no text": request(bytes.fromhex("00060004fffefdfc")),
    "a wrong fingerprint": request(bytes.fromhex("8028000400000000")),
    "an indication": request(kind=0x0011),
    "a response": request(kind=0x0101),
    "an error": request(kind=0x0111),
    "an allocation": request(kind=0x0003),
    "an unknown method": request(kind=0x00EF),
    "longer than is read": request(b"\x80\x22\x02\x20" + bytes(544)),
    "rtp": bytes.fromhex("8060000100000000") + bytes(100),
    "dtls": bytes.fromhex("16feff0000000000") + bytes(100),
}


def test_garbage_is_ignored_and_counted() -> None:
    answer, _, answered, ignored = asyncio.run(converse(list(GARBAGE.values())))
    assert answer[:2] == b"\x01\x01"
    assert (answered, ignored) == (1, len(GARBAGE))


@pytest.mark.parametrize("name", GARBAGE)
def test_each_kind_of_garbage_is_ignored(name: str) -> None:
    _, _, answered, ignored = asyncio.run(converse([GARBAGE[name]]))
    assert (answered, ignored) == (1, 1)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=20))
def test_nothing_stops_the_server(bodies: list[bytes]) -> None:
    # Every datagram has a good header, so that the attributes' parser sees the bytes.
    answer, _, answered, ignored = asyncio.run(
        converse([request(body, kind=0x0011) for body in bodies])
    )
    assert answer[:20] == struct.pack("!HH", 0x0101, 20) + COOKIE + TRANSACTION
    assert (answered, ignored) == (1, len(bodies))


def test_the_url_names_the_bound_port() -> None:
    async def main() -> None:
        async with StunServer() as server:
            host, port = server.address
            assert host == "127.0.0.1"
            assert server.url == f"stun:127.0.0.1:{port}"
            assert 0 < port < 65_536

    asyncio.run(main())


def test_the_port_is_free_again_at_the_end() -> None:
    async def main() -> None:
        first = StunServer()
        async with first:
            _, port = first.address
            with pytest.raises(OSError, match="in use"):
                await StunServer(port=port).__aenter__()
        async with StunServer(port=port) as second:
            assert second.url == f"stun:127.0.0.1:{port}"
        with pytest.raises(RuntimeError, match="not running"):
            _ = first.url

    asyncio.run(main())


@pytest.mark.skipif(not _has_ipv6(), reason="needs ::1")
def test_an_ipv4_client_of_a_server_on_every_ipv6_address_is_told_its_ipv4_address() -> None:
    async def main() -> None:
        async with StunServer(host="::") as server:
            assert server.url_at("192.0.2.7") == f"stun:192.0.2.7:{server.address[1]}"
            assert server.url_at("2001:db8::1") == f"stun:[2001:db8::1]:{server.address[1]}"
            loop = asyncio.get_running_loop()
            where = ("127.0.0.1", server.address[1])
            _, client = await loop.create_datagram_endpoint(Client, remote_addr=where)
            client.send(request())
            async with asyncio.timeout(20):
                answer = aioice_stun.parse_message(await client.answers.get())
            assert answer.attributes["XOR-MAPPED-ADDRESS"] == ("127.0.0.1", client.port)
            assert client.transport is not None
            client.transport.abort()

    asyncio.run(main())
