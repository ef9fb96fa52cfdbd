"""Many sessions on one core, as a benchmark: it runs, and its knee is the knee."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "sessions.py"
PATIENCE = 120.0

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="cores are chosen as Linux does"
)


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("navtalk_benchmark_sessions", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sessions: Any = _load()


def test_a_quick_run_hears_what_is_said_on_both_loops() -> None:
    run = subprocess.run(
        [sys.executable, str(FILE), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    told = json.loads(run.stdout.splitlines()[-1])
    points = {(point["adapter"], point["sessions"]): point for point in told["points"]}
    assert set(points) == {
        (adapter, number) for adapter in sessions.ADAPTERS for number in sessions.QUICK_STEPS
    }
    for point in points.values():
        # How much of it, and how late, is the machine's business.
        assert 0 < point["arrived"] <= 100
        assert 0 < point["delay_p50"] <= point["delay_p99"]
    assert set(told["knee"]) == set(sessions.ADAPTERS)


def point(number: int, *, adapter: str = "trio", arrived: float = 100.0, p99: float = 5.0) -> Any:
    return sessions.Point(
        adapter=adapter,
        sessions=number,
        cpu=number / 10,
        waited=0.0,
        delay_p50=p99 / 2,
        delay_p99=p99,
        arrived=arrived,
        open_seconds=1.0,
    )


def test_the_knee_is_the_last_that_was_held_with_all_before() -> None:
    assert sessions.knee([point(1), point(50), point(100)], "trio") == 100
    assert sessions.knee([point(1), point(50, arrived=98), point(100)], "trio") == 1
    assert sessions.knee([point(100, p99=101), point(1), point(50)], "trio") == 50
    assert sessions.knee([point(1, p99=500)], "trio") == 0
    assert sessions.knee([point(1, adapter="asyncio")], "trio") == 0


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [point(number, adapter=each) for each in sessions.ADAPTERS for number in (1, 50, 100)]
    sessions.plot(points, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
