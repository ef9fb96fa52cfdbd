"""The soak: that it plays its sessions on both loops, and that it would see a leak."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "soak.py"
PATIENCE = 100.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("navtalk_benchmark_soak", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


soak: Any = _load()


NIGHTLY = os.environ.get("NAVTALK_PROFILE") == "nightly"


@pytest.mark.parametrize("loop", ["asyncio", "trio"] if NIGHTLY else ["trio"])
def test_every_session_of_a_short_run_ends_as_planned(loop: str) -> None:
    run = subprocess.run(
        [sys.executable, str(FILE), "--loop", loop, "--cycles", "16", "--seconds", "6"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    # Too short for a verdict, and nothing strange: the code is neither that of success nor 1.
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert "!" not in run.stdout
    cycles, outcomes = re.fullmatch(rf"{loop}: (\d+) cycles in \d+ s: (.*)", lines[1]).groups()  # type: ignore[union-attr]
    counted = [int(each.split()[0]) for each in outcomes.split(", ")]
    assert sum(counted) == int(cycles) == 16
    long = next(line for line in lines if line.startswith(f"{loop}: one session"))
    # The number of cuts is that of the reconnections, and there was one.
    assert re.search(r" turns; ([1-9]\d*) cuts, \1 times back$", long), long
    rows = [line.split() for line in lines if line.startswith(("  client", "  server"))]
    names = {(row[0], row[1]) for row in rows}
    assert names == set(
        itertools.product(("client", "server"), (each.name for each in soak.MEASURES))
    )
    assert {row[-1] for row in rows} == {"short"}


def test_each_kind_of_session_has_a_player_and_an_outcome() -> None:
    assert set(soak.KINDS) == set(soak.PLAYED_BY) == set(soak.OUTCOMES)


# ---- what a process holds


def test_a_sample_sees_what_is_held() -> None:
    before = soak.take_sample(3)
    read, write = os.pipe()
    sleeper = subprocess.Popen(["sleep", "60"])
    held = [bytearray(8 * 2**20), *([] for _ in range(1000))]
    after = soak.take_sample(4)
    os.close(read)
    os.close(write)
    sleeper.kill()
    sleeper.wait()
    assert (before.tasks, after.tasks) == (3, 4)
    assert after.files - before.files == 2
    assert after.heap - before.heap > 8000
    assert after.objects - before.objects > 1000
    del held
    assert soak.take_sample(3).heap - before.heap < 1000


# ---- the slope and the verdict


def test_a_line_without_noise_is_found_exactly() -> None:
    slope = soak.fit([0, 1, 2, 3], [5.0, 7.0, 9.0, 11.0])
    assert slope.value == pytest.approx(2)
    assert slope.low == pytest.approx(2)
    assert slope.high == pytest.approx(2)
    assert soak.fit([0, 1, 2, 3], [8, 8, 8, 8]).verdict(bar=1) == "flat"
    assert soak.fit([0, 1, 2, 3], [8, 10, 12, 14]).verdict(bar=1) == "grows"


def test_the_interval_holds_the_slope_as_often_as_it_says() -> None:
    chance = random.Random(4)
    x = list(range(30))
    hits = 0
    for _ in range(400):
        slope = soak.fit(x, [0.5 * each + chance.gauss(0, 3) for each in x])
        hits += slope.low <= 0.5 <= slope.high
    assert 0.92 <= hits / 400 <= 0.98


def test_noise_with_a_memory_makes_it_wider() -> None:
    chance = random.Random(4)
    x = list(range(40))
    hits = 0
    for _ in range(200):
        noise = list(
            itertools.accumulate((chance.gauss(0, 1) for _ in x), lambda a, b: 0.7 * a + b)
        )
        slope = soak.fit(x, noise)
        hits += slope.low <= 0 <= slope.high
    # Least squares alone says so in 60 of 100 cases.
    assert hits / 200 > 0.85


def test_a_leak_in_noise_grows_and_noise_alone_does_not() -> None:
    chance = random.Random(4)
    at = [4.0 * each for each in range(1, 61)]
    calm = [100_000 + chance.gauss(0, 300) for _ in at]
    leaking = [value + 100 * cycle for value, cycle in zip(calm, at, strict=True)]
    hundreds = [each / 100 for each in at]
    assert soak.fit(hundreds, calm).verdict(bar=2048) == "flat"
    assert soak.fit(hundreds, leaking).verdict(bar=2048) == "grows"
    assert soak.fit(hundreds[:4], calm[:4]).verdict(bar=20) == "unclear"


def test_one_long_wave_says_nothing() -> None:
    slope = soak.fit(list(range(60)), [100 * math.sin(each / 10) for each in range(60)])
    assert slope.verdict(bar=1) == "unclear"
    assert math.isinf(slope.high)


@pytest.mark.parametrize(("freedom", "quantile"), [(2, 4.303), (4, 2.776), (10, 2.228), (60, 2.0)])
def test_students_quantiles(freedom: int, quantile: float) -> None:
    assert soak.student_t(freedom) == pytest.approx(quantile, rel=0.1 if freedom < 4 else 0.01)


def test_two_points_are_needed() -> None:
    with pytest.raises(statistics.StatisticsError):
        soak.fit([1], [1])


def test_what_a_process_tells_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    soak.tell(outcomes=["a\nb"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"outcomes": ["a\nb"]}
