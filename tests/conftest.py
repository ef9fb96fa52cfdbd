"""What every test has: a profile of Hypothesis, Ctrl-C, and a replay of the sessions that it runs.

NAVTALK_PROFILE chooses the profile: dev by default, ci or nightly. NAVTALK_STOCK skips tests.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings
from replay_everything import (
    every_session_is_replayed,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

__all__ = ["every_session_is_replayed", "pytest_sessionfinish", "pytest_terminal_summary"]

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("NAVTALK_PROFILE", "dev"))

# A job in a shell's background ignores Ctrl-C, and so would every process that the tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of what NAVTALK_STOCK leaves as aiortc has it, see docs/media-engine.md.

    ``@pytest.mark.replaces(GROUP, ...)`` says of which groups' work a test is the proof.
    """
    off = {name.strip() for name in os.environ.get("NAVTALK_STOCK", "").split(",")} - {""}
    for item in items if off else ():
        groups = [group for mark in item.iter_markers("replaces") for group in mark.args]
        left = groups if "all" in off else [group for group in groups if group in off]
        if left:
            reason = f"shows what {', '.join(sorted(set(left)))} does, and NAVTALK_STOCK leaves it"
            item.add_marker(pytest.mark.skip(reason=reason))
