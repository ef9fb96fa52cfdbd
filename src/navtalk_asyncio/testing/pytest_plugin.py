"""Fixtures for users' own tests: ``pytest_plugins = ["navtalk_asyncio.testing.pytest_plugin"]``.

In a test module, or in the conftest.py beside pyproject.toml. Not an entry point: nothing is
loaded into a test run that does not ask for it, and aiortc only by a test that uses
:func:`navtalk_emulator`. The fixtures know no loop: plain, asyncio and trio tests can use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from navtalk_asyncio.testing.emulator_thread import emulator_thread
from navtalk_proto.testing import LinkedPair, VirtualClock

__all__ = ["linked_pair", "navtalk_emulator", "navtalk_emulator_options", "virtual_clock"]


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """Monotonic seconds that move when told to; the clock of `linked_pair`."""
    return VirtualClock()


@pytest.fixture
def linked_pair(virtual_clock: VirtualClock) -> LinkedPair:
    """A client and a server core joined without I/O, both strict, on `virtual_clock`."""
    return LinkedPair(clock=virtual_clock)


@pytest.fixture
def navtalk_emulator_options() -> dict[str, Any]:
    """What `navtalk_emulator` is started with: the arguments of ``emulate()``. To be overridden."""
    return {}


@pytest.fixture
def navtalk_emulator(navtalk_emulator_options: dict[str, Any]) -> Iterator[Any]:
    """A digital human on real sockets of 127.0.0.1, in a thread of its own.

    An Emulator: ``navtalk_emulator.endpoint()`` is where to connect. Needs ``navtalk[emulator]``.
    """
    with emulator_thread(**navtalk_emulator_options) as human:
        yield human
