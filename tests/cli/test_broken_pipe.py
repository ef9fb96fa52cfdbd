"""Whoever reads a command's output may stop, as ``navtalk trace call.jsonl | head`` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("count", [1, 1_000])
def test_a_reader_that_has_seen_enough_is_no_mistake(count: int, tmp_path: Path) -> None:
    """With less output than Python buffers, and with far more."""
    trace = tmp_path / "call.jsonl"
    trace.write_text(
        '{"line": "trace", "trace": 1, "versions": {}, "started": "now", "omitted": []}\n'
        + '{"line": "gap", "reason": "x"}\n' * count
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "navtalk_asyncio", "trace", "call.jsonl"],
            cwd=tmp_path,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
