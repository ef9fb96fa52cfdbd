"""The sender of the benchmarks: a process that serves numbered pictures to either loop."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

import navtalk_asyncio
import navtalk_trio
from navtalk_asyncio import Endpoint

PATIENCE = 30.0
WIDTH, HEIGHT, FPS, SECONDS = 320, 256, 30, 2
PICTURES = 25


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "sender.py"
    spec = importlib.util.spec_from_file_location("navtalk_benchmark_sender", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sender_module = _load()


@pytest.fixture(scope="module", params=["vp8", "h264"])
def sender(request: pytest.FixtureRequest) -> Iterator[Any]:
    size = ("--width", str(WIDTH), "--height", str(HEIGHT), "--fps", str(FPS))
    with sender_module.running_sender(
        "--codec", request.param, *size, "--clip", str(SECONDS)
    ) as running:
        assert running.codec == request.param
        assert running.pictures == FPS * SECONDS
        yield running


def number_of(frame: Any) -> int:
    """Sixteen squares, the highest bit at the left, and their inverse below."""
    luma = frame.to_ndarray(format="gray")
    square = WIDTH // 16
    bits = ""
    for position in range(16):
        left = position * square
        above = luma[4 : square - 4, left + 4 : left + square - 4].mean()
        below = luma[square + 4 : 2 * square - 4, left + 4 : left + square - 4].mean()
        assert abs(above - below) > 150
        bits += "1" if above > below else "0"
    return int(bits, 2)


class Seen:
    """What a client received: numbers and times of its pictures."""

    def __init__(self) -> None:
        self.session_id = ""
        self.pictures: list[tuple[int, float]] = []

    async def watch(self, session: Any) -> None:
        self.session_id = session.id
        async for frame in session.video:
            assert (frame.width, frame.height) == (WIDTH, HEIGHT)
            self.pictures.append((number_of(frame), time.monotonic()))
            assert sender_module.read_number(frame) == self.pictures[-1][0]
            if len(self.pictures) == PICTURES:
                return


def endpoint(sender: Any) -> Endpoint:
    return Endpoint(base_url=sender.url, license="sk_navtalk_EXAMPLE", name="navtalk.Leo")


async def asyncio_client(sender: Any, seen: Seen) -> None:
    async with (
        asyncio.timeout(PATIENCE),
        navtalk_asyncio.connect(endpoint(sender), proxy=None) as session,
    ):
        await seen.watch(session)


async def trio_client(sender: Any, seen: Seen) -> None:
    with trio.fail_after(PATIENCE):
        async with navtalk_trio.connect(endpoint(sender), proxy=None) as session:
            await seen.watch(session)


def check(sender: Any, seen: Seen) -> None:
    numbers = [number for number, _ in seen.pictures]
    assert len(numbers) == PICTURES
    assert all(0 <= number < FPS * SECONDS for number in numbers)
    # A busy machine may lose some, and the clip begins anew at most once in that time.
    steps = [(b - a) % (FPS * SECONDS) for a, b in itertools.pairwise(numbers)]
    assert all(1 <= step < FPS for step in steps), numbers
    sent = sender.sent(seen.session_id)
    assert sent.pictures == FPS * SECONDS
    assert sent.first == 0
    for number, received in seen.pictures:
        at = sent.when(number, before=received)
        assert at is not None
        assert 0 < received - at < SECONDS
        assert sent.times.index(at) % (FPS * SECONDS) == number


def test_an_asyncio_client_sees_increasing_numbers(sender: Any) -> None:
    seen = Seen()
    asyncio.run(asyncio_client(sender, seen))
    check(sender, seen)


def test_a_trio_client_sees_increasing_numbers(sender: Any) -> None:
    seen = Seen()
    trio.run(trio_client, sender, seen)
    check(sender, seen)


def test_clients_at_once_each_start_at_the_first_picture(sender: Any) -> None:
    async def both(one: Seen, other: Seen) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio_client(sender, one))
            tasks.create_task(asyncio_client(sender, other))

    one, other = Seen(), Seen()
    asyncio.run(both(one, other))
    assert one.session_id != other.session_id
    for seen in (one, other):
        check(sender, seen)
        assert seen.pictures[0][0] < FPS


def test_an_unknown_session_has_no_table(sender: Any) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        sender.sent("another")
    with caught.value as answer:
        assert answer.code == 404


def test_a_number_stands_for_its_newest_sending_before_the_arrival() -> None:
    # Pictures 0, 1, 2, 0, 1, 2, 0 of a clip of three; the first two times are forgotten.
    sent = sender_module.Sent(pictures=3, first=2, times=(2.0, 3.0, 4.0, 5.0, 6.0))
    assert sent.when(0, before=6.5) == 6.0
    assert sent.when(0, before=5.9) == 3.0
    assert sent.when(1, before=6.5) == 4.0
    assert sent.when(2, before=6.5) == 5.0
    assert sent.when(2, before=4.9) == 2.0
    assert sent.when(1, before=3.9) is None


def test_a_sender_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(RuntimeError, match="ended before it served"),
        sender_module.running_sender("--width", "100"),
    ):
        pytest.fail("it serves")
    assert "multiple of 32" in capfd.readouterr().err
