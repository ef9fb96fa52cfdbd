"""The benchmarks' arithmetic: receivers whose latency is known give the figures that follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bad_network
import core_speed
import cpu
import first_frame
import media_sessions
import memory_unread
import pytest
import run_all
import sessions
import steady_latency
from answers import Answer, Bar, Options
from attrs import evolve
from media_sessions import Knee
from receivers import Received
from sender import Sent

LATENCY = {"ours": 0.010, "ours_trio": 0.011, "stock": 0.040, "libwebrtc": 0.020, "chromium": 0.015}
CPU = {"ours": 0.10, "ours_trio": 0.11, "stock": 0.20, "libwebrtc": 0.21, "chromium": 0.30}
IDLE_SHARE = {"nothing": 0.25, "recorded": 0.35}
GROWTH = {"stock": 44.0}
OFFER = 100.0
BEGIN, END = 102.0, 106.0
HEALED = 105.0
PICTURES = 60


def sent_times(step: float) -> list[float]:
    return [OFFER + 0.1 + step * number for number in range(round(6.0 / step))]


def received(peer: str, consume: str = "first") -> Received:
    """A session in which everything comes with the receiver's latency."""
    late = LATENCY[peer]
    video, audio = sent_times(1 / 30), sent_times(0.02)
    return Received(
        consume=consume,
        seconds=END - BEGIN,
        file="",
        warm_up=2.0,
        session=peer,
        offer=OFFER,
        answer=OFFER + late / 10,
        begin=BEGIN,
        end=END,
        cpu=(END - BEGIN) * CPU[peer] * IDLE_SHARE.get(consume, 1.0),
        pictures=[(number % PICTURES, at + late) for number, at in enumerate(video)],
        sounds=[(0.02 * (n % 100), at + 2 * late) for n, at in enumerate(audio)],
        memory=[(BEGIN, 90.0), (END, 90.0 + 4 * GROWTH.get(peer, 0.0))],
    )


@pytest.fixture
def known_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent(
        pictures=PICTURES,
        first=0,
        times=tuple(sent_times(1 / 30)),
        sounds=tuple(sent_times(0.02)),
        happened=(("drop", 104.0), ("cut", 104.7), ("heal", HEALED)),
    )

    @contextmanager
    def no_sender(*arguments: str) -> Iterator[Any]:
        # The drop is planned in one session, the cut in another.
        yield SimpleNamespace(url=" ".join(arguments))

    def receive(
        peer: str, url: str, *, consume: str, sessions: int = 1, **_: Any
    ) -> list[Received]:
        return [received(peer, consume) for _ in range(sessions)]

    def receive_one(peer: str, url: str, **how: Any) -> tuple[Received, Sent]:
        return receive(peer, url, **how)[0], sent

    for module in (first_frame, steady_latency, bad_network, cpu, memory_unread):
        monkeypatch.setattr(module, "running_sender", no_sender)
        for replacement in (receive, receive_one):
            if hasattr(module, replacement.__name__):
                monkeypatch.setattr(module, replacement.__name__, replacement)


@pytest.mark.usefixtures("known_receivers")
def test_each_file_makes_of_known_sessions_what_follows() -> None:
    options = Options(quick=True, loop="uvloop")
    files = (first_frame, steady_latency, bad_network, cpu, memory_unread)
    found = {answer.question: answer for file in files for answer in file.run(options)}

    def values(question: str) -> list[float]:
        return [found[question].value(peer) for peer in ("ours", "stock")]

    assert values("first picture, stock sender, ms") == pytest.approx([110, 140])
    assert values("first sound, our sender, ms") == pytest.approx([120, 180])
    assert values("answer, a silent STUN server, ms") == pytest.approx([1, 4])
    assert found["answer: silent STUN, times that without"].value("ours") == 1.0
    assert values("picture p50, sent to delivered, ms") == pytest.approx([10, 40])
    assert values("sound p50, sent to delivered, ms") == pytest.approx([20, 80])
    assert values("pictures a second") == pytest.approx([30, 30], abs=0.5)
    assert values("5 % loss: late or lost, % of pictures") == [0, 0]
    count, total = found["5 % loss: late or lost, % of pictures"].counted("ours")
    assert (count, total) == (0, pytest.approx(30 * (END - BEGIN - 0.2), abs=1))
    assert values("one sound lost: later from then on, ms") == pytest.approx([0, 0], abs=1e-6)
    (outage,) = (a for question, a in found.items() if question.startswith("picture back"))
    # The next picture after the path's return is sent within 1/30 s.
    assert 0.010 <= outage.value("ours") < 0.010 + 1 / 30
    assert values("CPU, nobody (stock: decoded), %") == pytest.approx([2.5, 20])
    assert values("CPU, recorded (stock: decoded), %") == pytest.approx([3.5, 20])
    assert values("CPU, recorded (stock: MediaRecorder), %") == pytest.approx([3.5, 7])
    assert values("a core holds: decoded VP8") == pytest.approx([10, 5])
    assert found["a core holds: nobody reads"].value("ours") == pytest.approx(40)
    assert values("memory of an unread session, MiB/s") == pytest.approx([0, 44])


def test_a_picture_is_late_after_a_fifth_of_a_second_and_lost_when_it_never_comes() -> None:
    sent = Sent(pictures=100, first=0, times=tuple(102.0 + 0.1 * n for n in range(38)))
    # Number 3 comes late, number 7 never does.
    came = [(n, 102.0 + 0.1 * n + (0.25 if n == 3 else 0.05)) for n in range(38) if n != 7]
    seen = evolve(received("ours"), pictures=came)
    assert bad_network.late_or_lost(seen, sent) == (2, 38)


def test_back_is_a_picture_that_was_sent_after_the_return() -> None:
    sent = Sent(pictures=100, first=0, times=tuple(102.0 + 0.1 * n for n in range(38)))
    old_then_new = [(9, 103.05), (10, 103.4), (11, 103.5)]  # 9 was sent at 102.9.
    seen = SimpleNamespace(pictures=old_then_new)
    assert bad_network.back_after(seen, sent, 103.0 - 1e-9) == pytest.approx(0.4)
    assert bad_network.back_after(seen, sent, 105.0) == float("inf")


def test_pieces_of_a_run_are_kept_and_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kept.json"
    for value in (30.0, 10.0, 20.0):
        kept = run_all.load(path)
        answer = Answer("latency, ms", [{"ours": value, "stock": 40.0}], [Bar(0.4, "stock")])
        run_all.merge(kept, "steady_latency uvloop", [answer])
        run_all.save(path, kept)
    assert run_all.show(run_all.load(path)) == [
        "latency, ms, asyncio: 0.50, bar <= 0.4x stock (uvloop)"
    ]
    printed = capsys.readouterr().out
    assert "steady_latency.py, uvloop, 3 rounds" in printed
    assert "0 of 1 bars met" in printed


def test_counts_of_pieces_are_added(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    for late in (0, 1, 0):
        kept = run_all.load(path)
        answer = Answer(
            "late, %",
            [{"ours": late, "stock": 1}],
            [Bar(1.0, "stock")],
            out_of=[{"ours": 400, "stock": 400}],
        )
        run_all.merge(kept, "bad_network uvloop", [answer])
        run_all.save(path, kept)
    (added,) = run_all.load(path)["bad_network uvloop"]
    assert (added.counted("ours"), added.counted("stock")) == ((1, 1200), (3, 1200))
    assert added.ratio("ours", "stock") == pytest.approx(1 / 3)


def test_the_cores_speed_and_its_sessions_are_lines_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = core_speed.Row(
        question="small message", ours=6.0, reference=0.75, ratio=8.0, unit="us", bar=8.0
    )
    monkeypatch.setattr(core_speed, "report", lambda *, quick: {"orjson": [row]})
    monkeypatch.setattr(sessions, "report", lambda *, quick: ["points"])
    monkeypatch.setattr(
        sessions, "knee", lambda points, adapter: {"asyncio": 900, "trio": 400}[adapter]
    )
    (speed,) = run_all.FILES["core_speed"](Options(quick=True))
    assert [(verdict.adapter, verdict.met) for verdict in speed.verdicts()] == [("ours", True)]
    (held,) = run_all.FILES["sessions"](Options(quick=True))
    assert (held.value("ours"), held.value("ours_trio")) == (900, 400)
    monkeypatch.setattr(media_sessions, "report", lambda *, quick: [])
    knees = {"idle": Knee(sessions=60, sure=False), "vp8": Knee(sessions=15, sure=True)}
    monkeypatch.setattr(media_sessions, "knee", lambda points, adapter, mode: knees.get(mode))
    with_media = run_all.FILES["media_sessions"](Options(quick=True))
    assert [answer.text("ours_trio") for answer in with_media] == [
        *(">= 60", "not measured", "15", "not measured"),
    ]
    path = tmp_path / "kept.json"
    run_all.save(path, {"media_sessions uvloop": with_media})
    kept = run_all.load(path)
    run_all.merge(kept, "media_sessions uvloop", with_media[1:])
    assert [answer.text("ours") for answer in kept["media_sessions uvloop"]] == [
        *("not measured", "15", "not measured"),
    ]
    again = [Answer(with_media[0].question, [{"ours": 62.0}], digits=0)]
    run_all.merge(kept := run_all.load(path), "media_sessions uvloop", again)
    assert kept["media_sessions uvloop"][0].text("ours") == ">= 61"


@pytest.mark.usefixtures("known_receivers")
def test_the_drawings_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = Options(quick=True, loop="asyncio", plots=tmp_path)
    for run in (steady_latency.run, cpu.run, memory_unread.run):
        run(options)
    drawn = {path.name for path in tmp_path.iterdir()}
    names = {"video_latency.png", "audio_latency.png", "cpu_asyncio.png", "unread_memory.png"}
    assert drawn == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
