"""What every test of this folder has."""

from __future__ import annotations

import os

if os.environ.get("NAVTALK_PROFILE") == "nightly":
    # Thousands of sessions that differ in the order of two messages: for a night.
    from replay_everything import every_session_is_replayed, pytest_terminal_summary  # noqa: F401
