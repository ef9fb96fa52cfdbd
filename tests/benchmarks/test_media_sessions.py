"""Sessions with media on one core, as a benchmark: it counts what comes, and finds the knee."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import media_sessions
import pytest
from attrs import evolve
from media_sessions import (
    Knee,
    MediaPoint,
    Seen,
    close,
    hold,
    knee,
    measure_point,
    punctual,
    search,
    told,
)
from sender import Sent, running_sender

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
        assert 0 <= found.others < 100
        assert 0 < found.arrived <= 100
        assert 0 <= found.on_time <= 100
    assert os.sched_getaffinity(0) == cores


def point(
    number: int,
    *,
    mode: str = "idle",
    arrived: float = 100.0,
    others: float = 0.0,
    on_time: float = 100.0,
) -> MediaPoint:
    return MediaPoint(
        adapter="trio",
        mode=mode,
        sessions=number,
        cpu=min(100.0, 4.0 * number),
        others=others,
        on_time=on_time,
        arrived=arrived,
        lost=0.0,
    )


def test_counters_are_asked_where_nobody_loses_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On trio the counters of each session hold up all readers: what they lose then, and the time
    that it takes, are not the core's."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(media_sessions, "WARM_UP", 0.0)
    monkeypatch.setattr(
        media_sessions,
        "time",
        SimpleNamespace(monotonic=lambda: clock.now, process_time=lambda: clock.now / 2),
    )
    rows: list[list[float]] = []

    class Session:
        def __init__(self) -> None:
            self.id = f"session {id(self)}"
            self.video, self.audio = "video", "audio"

        def stats(self) -> Any:
            clock.now += 0.5  # And no picture is read meanwhile.
            return SimpleNamespace(
                received=lambda kind: SimpleNamespace(
                    frames_received=round(10 * clock.now), packets=0, packets_lost=0
                )
            )

    @asynccontextmanager
    async def connect(*_: Any, **__: Any) -> AsyncIterator[Session]:
        yield Session()

    async def sleep(seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            clock.now += 0.1
            for row in rows:
                row.append(clock.now - 0.01)

    def start(track: str, came: list[float]) -> None:
        if track == "video":
            rows.append(came)

    for mode in ("vp8", "idle"):
        held = hold(connect, sleep, start, mode, "ws://127.0.0.1:1", 3, 2.0)
        found = asyncio.run(held)
        assert len(found["sessions"]) == 3
        for counted in found["sessions"].values():
            seen = Seen(**counted)
            assert seen.pictures == pytest.approx(10 * (seen.end - seen.begin), abs=1)
        if mode == "vp8":
            assert found["seconds"] == pytest.approx(2.0)


def test_a_sender_is_late_that_sends_a_picture_after_the_next_is_due() -> None:
    times = [100.0 + number / 30 for number in range(90)]
    assert punctual(sent(times), 30, 101.0, 102.0) == (30, 30)
    for number in range(40, 46):
        times[number] = 100.0 + 46 / 30  # Held up, and then sent at once.
    assert punctual(sent(times), 30, 101.0, 102.0) == (30, 25)
    assert punctual(sent(times[:45]), 30, 101.0, 102.0) == (30, 10)


def sent(times: Sequence[float]) -> Sent:
    return Sent(pictures=600, first=0, times=tuple(times))


def test_the_knee_is_the_last_that_was_held_with_all_before() -> None:
    points = [point(1), point(26, arrived=90), point(20), point(21, arrived=98.9)]
    assert knee(points, "trio", "idle") == Knee(sessions=20, sure=True)
    assert str(knee(points, "trio", "idle")) == "20"
    # One of two tries was held: it was no limit.
    assert knee([*points, point(21)], "trio", "idle") == Knee(sessions=21, sure=False)
    assert knee([point(1, arrived=50)], "trio", "idle") == Knee(sessions=0, sure=True)


def test_what_others_hindered_is_no_knee() -> None:
    below = [point(1), point(20)]
    for hindered in (
        point(21, arrived=50, others=20.0),
        point(21, arrived=50, on_time=90.0),
        point(21, on_time=90.0),
    ):
        assert not hindered.too_many
        assert str(knee([*below, hindered], "trio", "idle")) == "at least 20"
    # Nor is one that is far from what was held.
    assert str(knee([*below, point(30, arrived=50)], "trio", "idle")) == "at least 20"
    # What was held in spite of others was held.
    assert str(knee([*below, point(22, others=30.0)], "trio", "idle")) == "at least 22"


def test_what_was_not_measured_has_no_number() -> None:
    """One session is what the search begins with, and says nothing."""
    assert knee([], "trio", "idle") is None
    assert knee([point(1)], "trio", "idle") is None
    assert told([point(1), point(8)], ["trio"]) == [
        "trio, idle: one core holds at least 8 sessions",
        "trio, recorded: not measured",
        "trio, vp8: not measured",
        "trio, h264: not measured",
    ]


@pytest.mark.parametrize("most", [1, 2, 9, 24, 31, 70, media_sessions.MOST])
def test_the_search_finds_how_many_are_held(most: int) -> None:
    points: list[MediaPoint] = []

    def measure(number: int) -> MediaPoint:
        one = point(number, arrived=100.0 if number <= most else 80.0)
        # The first costs more than those that come with it.
        points.append(evolve(one, cpu=min(100.0, 3.0 + 93.0 * number / most)))
        return points[-1]

    search(measure, math.inf)
    found = knee(points, "trio", "idle")
    assert found is not None
    assert found.sure is (most < media_sessions.MOST)
    assert close(found.sessions, most + 1)
    assert len(points) <= 9


def test_what_says_nothing_is_tried_again() -> None:
    for nothing in (
        point(25, arrived=80.0, others=20.0),
        point(25, on_time=90.0),
        point(25, arrived=98.0),
    ):
        tries: list[int] = []

        def measure(number: int, nothing: MediaPoint = nothing, tries: list[int] = tries) -> Any:
            tries.append(number)
            return nothing if number == 25 else point(number)

        search(measure, math.inf)
        assert tries == [1, 25, 25, 13, 19, 22, 23, 24]
    tries = []
    search(lambda number: measure(number, point(25, arrived=80.0), tries), math.inf)
    assert tries == [1, 25, 13, 19, 22, 23, 24]


def test_the_search_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(media_sessions, "time", SimpleNamespace(monotonic=lambda: clock.now))
    tries: list[int] = []

    def measure(number: int) -> MediaPoint:
        tries.append(number)
        clock.now += 10.0
        return point(number)

    search(measure, 25.0)
    assert len(tries) == 3


def test_each_curve_has_the_same_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(media_sessions, "time", SimpleNamespace(monotonic=lambda: clock.now))

    @contextmanager
    def no_sender(*arguments: str) -> Iterator[Any]:
        yield SimpleNamespace(url=arguments[-1])

    def measured(adapter: str, mode: str, sender: Any, number: int, *_: Any) -> MediaPoint:
        assert sender.url == ("h264" if mode == "h264" else "vp8")
        clock.now += 9.0
        # The first curves never end by themselves.
        wasted = mode == "idle"
        return evolve(
            point(number, mode=mode, arrived=98.0 if number > 20 else 100.0, others=50.0 * wasted),
            adapter=adapter,
        )

    monkeypatch.setattr(media_sessions, "running_sender", no_sender)
    monkeypatch.setattr(media_sessions, "measure_point", measured)
    points = media_sessions.report()
    for mode in media_sessions.MODES:
        for adapter in media_sessions.ADAPTERS:
            assert len([one for one in points if (one.adapter, one.mode) == (adapter, mode)]) >= 5
    assert clock.now < media_sessions.ALL_SECONDS + 10.0
    assert len(media_sessions.report(quick=True)) == 8


def test_only_what_was_measured_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    drawn: dict[str, list[int]] = {}
    plot = Axes.plot

    def watched(self: Axes, at: list[int], *rest: Any, **named: Any) -> Any:
        if "label" in named:
            drawn[named["label"]] = at
        return plot(self, at, *rest, **named)

    monkeypatch.setattr(Axes, "plot", watched)
    points = [
        *(point(number, mode="idle") for number in (1, 8)),
        point(9, arrived=50, others=30.0),
        point(10, on_time=50.0),
        *(point(number, mode="vp8", arrived=97 if number > 8 else 100) for number in (1, 8, 9)),
        point(1, mode="h264"),
    ]
    media_sessions.plot(points, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert drawn == {
        "idle, trio: at least 8": [1, 8],
        "recorded, trio: not measured": [],
        "vp8, trio: 8": [1, 8, 9],
        "h264, trio: not measured": [1],
    }
