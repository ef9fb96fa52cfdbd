"""A server on a public port, and clients that mean no good: before a session begins."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from navtalk_asyncio.emulator import AvatarDirectory, emulate
from navtalk_proto import Secret, ServerConfig

SLOW = {"asyncio": "HANDSHAKE_SECONDS", "trio": "REQUEST_SECONDS"}


@pytest.fixture(autouse=True)
def no_errors(caplog: pytest.LogCaptureFixture) -> Any:
    """Whoever may write to our log at will fills the disk: hostile clients are no errors."""
    yield
    loud = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not loud, loud


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: "])
def test_a_request_that_is_never_finished(
    hostile: Any, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(hostile.websocket, SLOW[hostile.loop], 0.2)
    with hostile.server(hostile.listen) as server, hostile.raw_client(server.port) as client:
        client.socket.sendall(said)
        client.wait_for_end()
        assert not server.sessions


def test_a_request_that_comes_a_byte_at_a_time(
    hostile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte resets no clock: the whole request has a deadline."""
    monkeypatch.setattr(hostile.websocket, SLOW[hostile.loop], 0.3)
    with hostile.server(hostile.listen) as server, hostile.raw_client(server.port) as client:
        client.socket.settimeout(0.02)
        sent = 0
        while sent < 3000:  # A minute of it.
            try:
                client.socket.send(b"G")
                sent += 1
                if not client.socket.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert 0 < sent < 3000


def test_a_tls_handshake_that_never_begins(
    hostile: Any, monkeypatch: pytest.MonkeyPatch, certificate: ssl.SSLContext
) -> None:
    monkeypatch.setattr(hostile.websocket, SLOW[hostile.loop], 0.2)
    with (
        hostile.server(hostile.listen, ssl=certificate) as server,
        hostile.raw_client(server.port) as client,
    ):
        client.wait_for_end()


def test_too_many_clients_in_their_handshake(hostile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that waits longest gives way, and who has something to say gets in."""
    monkeypatch.setattr(hostile.websocket, "MAX_HANDSHAKES", 4)
    with hostile.server(hostile.listen) as server, ExitStack() as stack:
        idle = [stack.enter_context(hostile.raw_client(server.port)) for _ in range(7)]
        for client in idle[:3]:
            client.wait_for_end()
        assert server.counters.opening == 3
        late = stack.enter_context(hostile.raw_client(server.port))
        assert late.enter() == 101
        idle[3].wait_for_end()
        assert server.counters.opening == 4
        # Sessions are no handshakes: these are still three.
        for client in idle[4:]:
            assert client.enter() == 101
        assert server.counters.opening == 4


def test_sessions_are_counted_before_their_handshake_is_done(hostile: Any) -> None:
    """All ask at once: none is let in on a place that another one has got already."""
    with hostile.server(hostile.listen, max_sessions=3) as server, ExitStack() as stack:
        clients = [stack.enter_context(hostile.raw_client(server.port)) for _ in range(12)]
        asking = [threading.Thread(target=client.request) for client in clients]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(hostile.patience)
        answers = [client.status() for client in clients]
        assert sorted(answers) == [101] * 3 + [503] * 9
        assert server.counters.full == 9
        # A place that is left is free again.
        inside = clients[answers.index(101)]
        inside.socket.sendall(inside.frame(hostile.close, b"\x03\xe8"))
        inside.wait_for_end()
        inside.socket.close()
        gets_in_at_last(hostile, server)


def gets_in_at_last(hostile: Any, server: Any) -> None:
    """The server learns in its own thread that a client is gone, after the client."""
    deadline = time.monotonic() + hostile.patience
    while time.monotonic() < deadline:
        with hostile.raw_client(server.port) as client:
            if client.enter() == 101:
                return
    pytest.fail("the place was never free again")


def test_an_upgrade_that_fails_takes_no_place(
    hostile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # trio-websocket goes on waiting after its answer, and a place with it.
    monkeypatch.setattr(hostile.websocket, SLOW[hostile.loop], 0.5)
    with hostile.server(hostile.listen, max_sessions=1) as server:
        for _ in range(3):
            with hostile.raw_client(server.port) as client:
                client.socket.sendall(
                    b"GET /wss/v2/realtime-chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\n\r\n"
                )
                client.wait_for_end()
            gets_in_at_last(hostile, server)
            gets_in_at_last(hostile, server)


@pytest.mark.parametrize(
    ("origins", "header", "status"),
    [
        (None, "Origin: https://any.example.org", 101),
        (None, "Origin: null", 101),
        ({"https://kiosk.example.org"}, "Origin: https://kiosk.example.org", 101),
        ({"https://kiosk.example.org"}, "X: y", 101),
        ({"https://kiosk.example.org"}, "Origin: https://evil.example.org", 403),
        ({"https://kiosk.example.org"}, "Origin: null", 403),
        ({"https://kiosk.example.org"}, "origin: https://kiosk.example.org.evil", 403),
        ({"https://a"}, "Origin: https://a\r\nOrigin: https://b", 403),
    ],
)
def test_which_pages_may_connect(hostile: Any, origins: Any, header: str, status: int) -> None:
    with (
        hostile.server(hostile.listen, origins=origins) as server,
        hostile.raw_client(server.port) as client,
    ):
        assert client.enter(header) == status
        assert server.counters.origin == (status == 403)


HEADS = {
    "a long line": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
    "a long header": b"GET / HTTP/1.1\r\nA: " + b"b" * 500_000 + b"\r\n\r\n",
    "two upgrades": b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
    "not http": b"\x16\x03\x01\x02\x00\x01\x00" + bytes(400),
    "another method": b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    "no target": b"GET http://h/ HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
    "half a chunk": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_heads_that_are_none(hostile: Any, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    """Each ends its own connection; the next client is served."""
    monkeypatch.setattr(hostile.websocket, SLOW[hostile.loop], 1.0)
    with hostile.server(hostile.listen) as server:
        with hostile.raw_client(server.port) as client:
            client.pour(head, at_most=len(head))
            client.wait_for_end()
        with hostile.raw_client(server.port) as client:
            assert client.enter() == 101


# ---- the emulator, which adds avatars, a page and licences to it


@contextmanager
def emulator(asyncio_only: Any, **options: Any) -> Iterator[int]:
    enter = partial(emulate, **{"config": ServerConfig(media=()), **options})
    with asyncio_only.in_thread(enter) as human:
        yield human.server.port


def got(asyncio_only: Any, port: int, target: str, *headers: str) -> bytes:
    with asyncio_only.raw_client(port) as client:
        lines = (f"GET {target} HTTP/1.1", "Host: h", *headers, "", "")
        client.socket.sendall("\r\n".join(lines).encode("latin-1"))
        answer = b""
        while data := client.socket.recv(65_536):
            answer += data
        return answer


@pytest.mark.parametrize(
    "target",
    [
        f"{start}{up}{name}"
        for start in ("/", "/page/", "/avatars/", "/index.html/", "//")
        for up in ("../", "..%2f", "%2e%2e/", "..\\", "....//", "../../../../../../")
        for name in ("emulator.py", "etc/passwd", "page/index.html")
    ]
    + ["/app.js%00.png", "/app.js/", "/./app.js", "/%61pp.js", "/avatars/..%2f.png", "/C:/x"],
)
def test_no_file_but_those_of_the_page(asyncio_only: Any, target: str) -> None:
    with emulator(asyncio_only) as port:
        answer = got(asyncio_only, port, target)
    assert b" 404 " in answer.splitlines()[0]
    for leaked in (b"root:", b"import", b"<html", b"asyncio"):
        assert leaked not in answer.partition(b"\r\n\r\n")[2]


def test_the_page_is_there(asyncio_only: Any) -> None:
    """Else the test above would find nothing anywhere."""
    with emulator(asyncio_only) as port:
        assert b" 200 " in got(asyncio_only, port, "/?x=../..").splitlines()[0]


def test_which_pages_may_talk_to_the_emulator(asyncio_only: Any) -> None:
    with emulator(asyncio_only, origins={"https://a"}) as port:
        for origin, status in (("https://a", 101), ("https://b", 403)):
            with asyncio_only.raw_client(port) as client:
                assert client.enter(f"Origin: {origin}") == status


def test_licences_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of every licence is compared, whichever one is right, and however it begins."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return given == known

    monkeypatch.setattr("navtalk_asyncio.emulator.avatars.hmac.compare_digest", compare)
    directory = AvatarDirectory(licences=("EXAMPLE_one", "EXAMPLE_two"))
    for given in ("EXAMPLE_one", "EXAMPLE_two", "E", "\ud800"):
        compared.clear()
        assert directory.accepts(Secret(given)) == given.startswith("EXAMPLE_")
        assert [known for _, known in compared] == [b"EXAMPLE_one", b"EXAMPLE_two"]
