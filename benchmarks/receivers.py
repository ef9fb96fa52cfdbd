"""The receivers of `peers/` as a benchmark runs them, and the latencies in what they saw.

No benchmark. A receiver runs in a fresh interpreter, one at a time; a round is one run of each, so
that what else the machine does meets them alike, and ratios are made within a round.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import chirp
from attrs import frozen
from peers.visit import PATIENCE_SECONDS, WARM_UP_SECONDS
from sender import AUDIO_FRAME, AUDIO_RATE, Sent, fetch_sent

NAMES: Final = {
    "ours": "asyncio",
    "ours_trio": "trio",
    "stock": "stock",
    "libwebrtc": "wrtc",
    "chromium": "Chromium",
}
"""Headings of the receivers, by the file in `peers/`. The first two are navtalk's."""

OURS: Final = ("ours", "ours_trio")

START_SECONDS: Final = 60.0
"""How much longer than its sessions a receiver may take."""


class ReceiverError(Exception):
    """A receiver ended with an error, or saw no media."""


@frozen(kw_only=True)
class Received:
    """What a receiver saw of one session; :class:`peers.visit.Visit` says what each field is."""

    consume: str
    seconds: float
    file: str
    warm_up: float
    session: str
    offer: float
    answer: float
    begin: float
    end: float
    cpu: float
    pictures: Sequence[tuple[int | None, float]]
    sounds: Sequence[tuple[float | None, float]]
    memory: Sequence[tuple[float, float]]

    @property
    def cpu_percent(self) -> float:
        """Of one core."""
        return 100 * self.cpu / (self.end - self.begin)

    @property
    def growth(self) -> float:
        """MiB a second by which memory grew, between the first and the last look."""
        (first, before), (last, after) = self.memory[0], self.memory[-1]
        return (after - before) / (last - first)

    def counted(self, at: float) -> bool:
        """Whether a moment is in the part that is measured."""
        return self.begin <= at <= self.end

    def video_latencies(self, sent: Sent) -> list[float]:
        """Milliseconds from the sending to the delivery of each picture that came."""
        found = []
        for number, at in self.pictures:
            when = None if number is None else sent.when(number, before=at)
            if when is not None and self.counted(at):
                found.append(1000 * (at - when))
        return found

    def audio_latencies(
        self, sent: Sent, since: float = 0.0, until: float = math.inf
    ) -> list[float]:
        """Milliseconds from the sending to the delivery of each readable piece of sound."""
        found = []
        for place, at in self.sounds:
            if place is not None and self.counted(at) and since <= at < until:
                delay = chirp.latency(place, at, sent.sounds, AUDIO_FRAME / AUDIO_RATE)
                if delay is not None:
                    found.append(1000 * delay)
        return found


def obstacle(peer: str) -> str | None:
    """Why a receiver cannot run here; None if it can."""
    if peer == "libwebrtc" and importlib.util.find_spec("wrtc") is None:
        return "wrtc is not installed: pip install 'navtalk[bench]'"
    if peer == "chromium":
        if shutil.which("chromium") is None:
            return "chromium is not installed"
        if importlib.util.find_spec("playwright") is None:
            return "playwright is not installed: pip install 'navtalk[bench]'"
    return None


def present(peers: Sequence[str]) -> list[str]:
    """Those of these that can run here; says on standard error why others cannot."""
    found = []
    for peer in peers:
        if reason := obstacle(peer):
            print(f"without {NAMES[peer]}: {reason}", file=sys.stderr)
        else:
            found.append(peer)
    return found


def loops() -> list[str]:
    """The loops to measure on: both, where uvloop is installed."""
    return ["uvloop", "asyncio"] if importlib.util.find_spec("uvloop") else ["asyncio"]


def receive(
    peer: str,
    url: str,
    *,
    loop: str,
    consume: str,
    seconds: float = 0.0,
    sessions: int = 1,
    file: str = "",
    warm_up: float = WARM_UP_SECONDS,
) -> list[Received]:
    """Receive sessions, one after the other in one process. Raises ReceiverError."""
    command = [sys.executable, "-m", f"peers.{peer}", "--url", url, "--loop", loop]
    command += ["--consume", consume, "--seconds", str(seconds), "--sessions", str(sessions)]
    command += ["--warm-up", str(warm_up), "--file", file]
    each = PATIENCE_SECONDS if consume == "first" else warm_up + seconds
    run = subprocess.run(
        command,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=START_SECONDS + sessions * each,
        check=False,
    )
    if run.returncode != 0:
        raise ReceiverError(f"{NAMES[peer]} ended with {run.returncode}:\n{run.stderr}")
    found = [Received(**json.loads(line)) for line in run.stdout.splitlines()]
    wants_media = consume in ("first", "decoded", "read")
    if wants_media and not all(one.pictures and one.sounds for one in found):
        raise ReceiverError(f"{NAMES[peer]} saw no picture or no sound:\n{run.stderr}")
    return found


def receive_one(peer: str, url: str, **how: Any) -> tuple[Received, Sent]:
    """As :func:`receive` one session, and ask the sender what it sent. Raises ReceiverError."""
    (received,) = receive(peer, url, **how)
    return received, fetch_sent(url, received.session)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them are; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def median(values: Sequence[float]) -> float:
    """NaN of none."""
    return statistics.median(values) if values else math.nan
