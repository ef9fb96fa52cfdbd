"""What every test has: a profile of Hypothesis, Ctrl-C, and a replay of the sessions that it runs.

NAVTALK_PROFILE chooses the profile: dev by default, ci or nightly.
"""

from __future__ import annotations

import os
import signal

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
