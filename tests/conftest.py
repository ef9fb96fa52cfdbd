"""Hypothesis profiles, chosen by NAVTALK_PROFILE: dev (the default), ci or nightly."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("NAVTALK_PROFILE", "dev"))
