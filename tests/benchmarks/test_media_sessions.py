"""Sessions with media on one core, as a benchmark: it counts what comes, and finds the knee."""

from __future__ import annotations

import os
from pathlib import Path

import media_sessions
import pytest
from attrs import evolve
from media_sessions import MediaPoint, knee, measure_point, numbers, told
from sender import running_sender

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="cores are chosen as Linux does"
)


MEASURED = [("trio", "vp8")]
if os.environ.get("NAVTALK_PROFILE") == "nightly":
    MEASURED.append(("asyncio", "recorded"))


def test_what_comes_is_counted() -> None:
    cores = os.sched_getaffinity(0)
    with running_sender("--codec", "vp8") as sender:
        points = [measure_point(adapter, mode, sender, 2, 1.0, cores) for adapter, mode in MEASURED]
    for found in points:
        # How much of it, and at what price, is the machine's business.
        assert found.sessions == 2
        assert found.cpu > 0
        assert 0 < found.arrived <= 100
        assert found.sent > 0
    assert os.sched_getaffinity(0) == cores


def point(number: int, *, mode: str = "idle", arrived: float = 100.0) -> MediaPoint:
    return MediaPoint(
        adapter="trio",
        mode=mode,
        sessions=number,
        cpu=4.0 * number,
        waited=0.0,
        sent=100.0,
        arrived=arrived,
        lost=0.0,
    )


def test_the_knee_is_the_last_that_was_held_with_all_before() -> None:
    points = [point(1), point(30, arrived=90), point(20), point(25, arrived=98.9)]
    assert knee(points, "trio", "idle") == (20, True)
    assert knee(points[:1], "trio", "idle") == (1, False)
    assert knee(points, "asyncio", "idle") == (0, False)
    late = evolve(point(30, arrived=50), sent=97.0)
    assert knee([point(1), point(20), late], "trio", "idle") == (20, False)
    assert told([point(1), late])[0] == "trio, idle: one core holds at least 1 sessions"


def test_the_numbers_tried_are_parts_of_what_there_is_room_for() -> None:
    assert list(numbers(10.0)) == [8, 11, 15]
    assert list(numbers(90.0)) == [2]
    assert max(numbers(0.5)) == media_sessions.MOST


def test_the_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [point(number, mode=mode) for mode in media_sessions.MODES for number in (1, 8)]
    media_sessions.plot(points, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
