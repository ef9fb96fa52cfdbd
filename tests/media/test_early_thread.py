"""Decoder threads that are there before an offer comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from navtalk_asyncio.media.early_thread import EarlyThread
from navtalk_proto.actions import SetLocal, SetRemote
from navtalk_proto.media import MediaStarted

pytestmark = pytest.mark.anyio


def decoder_threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if isinstance(one, EarlyThread)}


async def until_begun(driver: Any) -> None:
    while rest := {task for task in driver.engine._tasks if "begin_receiving" in repr(task)}:
        await asyncio.wait(rest)


async def join(threads: set[threading.Thread]) -> None:
    for thread in threads:
        await asyncio.to_thread(thread.join)


@pytest.mark.replaces("opening", "gathering", "checks", "receiving")
async def test_no_thread_starts_between_an_offer_and_the_first_packet(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = decoder_threads()
    server = media.server()
    servers = decoder_threads() - before
    client = media.driver()
    clients = decoder_threads() - before - servers
    assert len(servers) == len(clients) == 2
    await server.open(media.send)
    offer = await server.do(SetLocal)
    # Who only sends has no use for them.
    await until_begun(server)
    await join(servers)

    def start(_thread: threading.Thread) -> None:
        raise AssertionError("a thread was started")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        await client.open(media.receive)
        await client.do(SetRemote, description=offer)
        answer = await client.do(SetLocal)
        await until_begun(client)
        await server.do(SetRemote, description=answer)
        await client.event(MediaStarted)
    assert {received.decoder_thread for received in client.engine._received} == clients
    await client.engine.aclose()
    assert not any(thread.is_alive() for thread in clients)


@pytest.mark.replaces("opening", "gathering", "checks")
async def test_an_engine_that_is_never_used_leaves_no_thread(media: Any) -> None:
    before = decoder_threads()
    client = media.driver()
    threads = decoder_threads() - before
    assert len(threads) == 2
    await client.engine.aclose()
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("first", ["work", "dismissal"])
def test_a_thread_serves_once(first: str) -> None:
    thread, ran = EarlyThread("early"), list[threading.Thread]()

    def work(kind: str) -> None:
        assert kind == "video"
        ran.append(threading.current_thread())

    def make() -> threading.Thread:
        made = thread._take(target=work, name="video-decoder", args=("video",))
        made.start()
        made.join()
        return made

    steps: list[Callable[[], object]] = [make, thread.dismiss]
    for step in steps if first == "work" else reversed(steps):
        step()
    thread.join()
    assert len(ran) == 1
    assert (ran[0] is thread) == (first == "work")
    assert make() is not thread
    assert len(ran) == 2
