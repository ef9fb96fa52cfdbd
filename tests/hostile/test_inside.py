"""A server on a public port, and clients that mean no good: inside a session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from navtalk_proto import Limits, ServerConfig, SessionClosedError
from navtalk_proto.limits import MIB
from navtalk_proto.wire.messages import TranscriptDelta

SYSTEM = 16 * MIB
"""What the system itself buffers between two sockets on loopback, generously."""


def eventually(happened: Callable[[], bool], patience: float) -> None:
    """A real server in another thread: looked at until it is so."""
    deadline = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_a_client_that_never_reads(hostile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends waits, so that little is kept; and the missing pong ends the session."""
    monkeypatch.setattr(hostile.websocket, "KEEPALIVE_SECONDS", 1.0)
    taken = 0
    ended = threading.Event()

    async def talk(session: Any) -> None:
        nonlocal taken
        await hostile.welcome(session)
        try:
            while True:
                await session.send(TranscriptDelta(response_id="r", content="x" * 60_000))
                taken += 60_000
        except SessionClosedError:
            ended.set()
            raise

    config = ServerConfig(media=(), close_timeout=0.5)
    with hostile.server(talk, config=config) as server:
        with hostile.raw_client(server.port, unread=True) as client:
            client.request()
            assert ended.wait(hostile.patience)
            assert taken < SYSTEM
        eventually(lambda: not server.sessions, hostile.patience)


def test_a_client_that_pings_and_never_reads(hostile: Any) -> None:
    """asyncio: pongs wait for nobody, so it is dropped. trio: the reader waits for the pong."""
    with (
        hostile.server(hostile.listen) as server,
        hostile.raw_client(server.port, unread=True) as client,
    ):
        assert client.enter() == 101
        pings = hostile.raw_client.frame(hostile.ping, b"x" * 125) * 500
        sent = client.pour(pings, at_most=8 * SYSTEM)
        assert sent < 2 * SYSTEM
        if hostile.loop == "asyncio":
            eventually(lambda: server.counters.unread == 1, hostile.patience)


def test_a_message_in_pieces_of_nothing(hostile: Any) -> None:
    with (
        hostile.server(hostile.listen) as server,
        hostile.raw_client(server.port) as client,
    ):
        assert client.enter() == 101
        client.socket.sendall(client.frame(hostile.text, b'{"type":', fin=False))
        client.pour(client.frame(hostile.continuation, b"", fin=False) * 1000, at_most=8 * MIB)
        client.wait_for_end()
        if hostile.loop == "trio":
            eventually(lambda: server.counters.fragments == 1, hostile.patience)


@pytest.mark.parametrize("size", [1, 700])
def test_a_long_message_in_small_pieces_is_one(hostile: Any, size: int) -> None:
    heard: list[int] = []

    async def listen(session: Any) -> None:
        await hostile.welcome(session)
        async for event in session.events():
            message = getattr(event, "message", None)
            if message is not None:
                heard.append(len(message.content))
                return

    text = b'{"type": "realtime.input_text", "data": {"content": "' + b"x" * 3000 * size + b'"}}'
    with hostile.server(listen) as server, hostile.raw_client(server.port) as client:
        assert client.enter() == 101
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        frames = [client.frame(hostile.text, pieces[0], fin=False)]
        frames += [client.frame(hostile.continuation, one, fin=False) for one in pieces[1:-1]]
        frames.append(client.frame(hostile.continuation, pieces[-1]))
        client.socket.sendall(b"".join(frames))
        client.wait_for_end()
    assert heard == [3000 * size]


def test_an_application_that_does_not_read(hostile: Any) -> None:
    """A client sends pictures to a handler that is busy: it has to wait, and nothing piles up."""
    busy = threading.Event()

    async def be_busy(session: Any) -> None:
        await hostile.welcome(session)
        events = aiter(session.events())  # It wants all of them, later.
        await anext(events)
        busy.set()
        while session.end is None:
            await hostile.sleep(0.05)

    picture = b'{"type": "realtime.input_image", "data": {"content": "' + b"A" * MIB + b'"}}'
    config = ServerConfig(media=(), limits=Limits(client_message=2 * MIB), close_timeout=0.5)
    with (
        hostile.server(be_busy, config=config) as server,
        hostile.raw_client(server.port) as client,
    ):
        assert client.enter() == 101
        assert busy.wait(hostile.patience)
        sent = client.pour(client.frame(hostile.text, picture), at_most=8 * SYSTEM)
        # The events' 4 MiB, what is read ahead, and the system's buffers.
        assert sent < 2 * SYSTEM
        client.socket.close()


def test_nonsense_ends_its_own_session(hostile: Any) -> None:
    with hostile.server(hostile.listen) as server, hostile.raw_client(server.port) as good:
        assert good.enter() == 101
        with hostile.raw_client(server.port) as bad:
            assert bad.enter() == 101
            bad.socket.sendall(bad.frame(hostile.text, b"[" * 70) * 40)
            bad.wait_for_end()
        eventually(lambda: len(server.sessions) == 1, hostile.patience)
        good.socket.sendall(good.frame(hostile.ping, b"still here"))
        answer = b""
        while b"still here" not in answer:
            answer += good.socket.recv(4096)
