"""The pytest plugin for users, in a run of its own: what it gives, and what it does not load."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

HEAD = 'pytest_plugins = ["navtalk_asyncio.testing.pytest_plugin"]\n'


def test_a_core_test_on_a_linked_pair(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        HEAD
        + """
import sys

def test_pair(linked_pair, virtual_clock):
    linked_pair.open()
    assert linked_pair.clock is virtual_clock
    before = virtual_clock.now
    virtual_clock.advance(1.5)
    assert virtual_clock.now == before + 1.5

def test_what_is_loaded():
    for name in ("aiortc", "numpy", "PIL", "websockets", "trio"):
        assert name not in sys.modules, name
"""
    )
    # A process of its own: what this one has loaded does not count.
    pytester.runpytest_subprocess("-p", "no:anyio").assert_outcomes(passed=2)


def test_the_emulator_for_plain_asyncio_and_trio_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        HEAD
        + """
import asyncio
import threading

import trio

import navtalk_asyncio
import navtalk_trio

def test_asyncio(navtalk_emulator):
    async def main():
        async with navtalk_asyncio.connect(navtalk_emulator.endpoint()) as session:
            async for frame in session.video:
                assert frame.width
                break
    asyncio.run(main())

def test_trio(navtalk_emulator):
    async def main():
        async with navtalk_trio.connect(navtalk_emulator.endpoint()) as session:
            async for frame in session.video:
                assert frame.width
                break
    trio.run(main)

def test_nothing_is_left():
    assert "navtalk-emulator" not in [thread.name for thread in threading.enumerate()]
"""
    )
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=3)


def test_the_emulators_options(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        HEAD
        + """
import asyncio

import pytest

import navtalk_asyncio
from navtalk_proto import ConnectRefusedError

@pytest.fixture
def navtalk_emulator_options():
    return {"licenses": ["sk_navtalk_MINE"]}

@pytest.mark.parametrize("license", ["sk_navtalk_MINE", "sk_navtalk_EXAMPLE"])
def test_licence(navtalk_emulator, license):
    async def main():
        where = navtalk_emulator.endpoint(license=license)
        async with navtalk_asyncio.connect(where, media=False):
            pass
    if license == "sk_navtalk_MINE":
        asyncio.run(main())
    else:
        with pytest.raises(ConnectRefusedError):
            asyncio.run(main())
"""
    )
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=2)


def test_an_emulator_that_cannot_start(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        HEAD
        + """
import pytest

@pytest.fixture
def navtalk_emulator_options():
    return {"port": 1, "host": "192.0.2.1"}

def test_it(navtalk_emulator):
    pass
"""
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*OSError*"])


def test_it_is_not_loaded_unasked() -> None:
    from importlib.metadata import entry_points

    assert [one for one in entry_points(group="pytest11") if "navtalk" in one.value] == []
