"""A trio task that another thread wakes by a file descriptor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from navtalk_trio.doorbell import EventBell, event_bells

pytestmark = pytest.mark.skipif(not event_bells, reason="this system has no eventfd")

PATIENCE = 20.0


def on_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)


def run(scene: Callable[[EventBell], object]) -> EventBell:
    bell = EventBell()

    async def bounded() -> None:
        with trio.fail_after(PATIENCE):
            await scene(bell)  # type: ignore[misc]

    trio.run(bounded)
    return bell


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_ring_wakes_the_wait_that_runs_or_the_next_one_once() -> None:
    async def scene(bell: EventBell) -> None:
        for _ in range(2):
            await trio.to_thread.run_sync(bell.ring)
        await bell.wait()
        with trio.move_on_after(0) as waited:
            await bell.wait()
        assert waited.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.wait)
            await trio.testing.wait_all_tasks_blocked()
            on_thread(bell.ring)

    run(scene)


def test_several_tasks_hear_it() -> None:
    async def scene(bell: EventBell) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(bell.wait)
            await trio.testing.wait_all_tasks_blocked()
            bell.ring()

    run(scene)


def test_a_cancelled_wait_has_heard_nothing() -> None:
    async def scene(bell: EventBell) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await bell.wait()
        bell.ring()
        await bell.wait()

    run(scene)


def test_closing_wakes_who_waits_and_gives_the_descriptor_back() -> None:
    async def scene(bell: EventBell) -> None:
        descriptor = bell._fd
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.wait)
            await trio.testing.wait_all_tasks_blocked()
            bell.close()
            # trio still waits for it.
            assert is_open(descriptor)
        assert not is_open(descriptor)
        bell.close()
        bell.ring()
        await bell.wait()

    run(scene)


def test_a_bell_that_is_dropped_gives_its_descriptor_back() -> None:
    bell = EventBell()
    descriptor = bell._fd
    assert is_open(descriptor)
    del bell
    assert not is_open(descriptor)
