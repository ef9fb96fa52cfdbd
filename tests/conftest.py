"""Hypothesis profiles, chosen by NAVTALK_PROFILE (dev by default, ci or nightly), and Ctrl-C."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("NAVTALK_PROFILE", "dev"))

# A job in a shell's background ignores Ctrl-C, and so would every process that the tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
