"""What does the drawn face cost, beside the coding of its video?

Run: ``python benchmarks/face.py``. Needs ``navtalk[emulator]``.

How to read it: a picture is due every 40 ms, so a cost of 4 ms is a tenth of one core. "steady" is
what a picture costs once its pose and its mouth were drawn before; "first loop" is the first 8 s
of a face whose poses were prepared, in which each mouth is drawn once in each pose. The VP8 rows
code what the face track sends, with aiortc's own encoder, at its default and its highest bit rate.
The medians are solid on a busy machine, the 99th percentiles are not.
"""

from __future__ import annotations

import fractions
import statistics
import time
from collections.abc import Callable
from functools import partial

import av
import numpy as np
from aiortc.codecs.opus import OpusEncoder
from aiortc.codecs.vpx import Vp8Encoder

from navtalk_asyncio.emulator.clip_making import FRAMES_PER_SECOND
from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece

PERIOD_MS = 1000.0 / FRAMES_PER_SECOND
LOOP_FRAMES = 8 * FRAMES_PER_SECOND


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000.0


def mouth_at(number: int) -> float:
    """An opening that goes through its range as in speech, about four syllables a second."""
    return 0.5 + 0.5 * float(np.sin(number * 1.01) * np.sin(number * 0.13))


def row(name: str, costs: list[float], period: float = PERIOD_MS) -> None:
    costs = sorted(costs)
    median, worst = statistics.median(costs), costs[int(len(costs) * 0.99)]
    print(
        f"{name:<34} {statistics.fmean(costs):8.3f} {median:8.3f} {worst:8.3f}"
        f" {statistics.fmean(costs) / period:9.2%}"
    )


def main() -> None:
    begin = time.perf_counter()
    face = Face()
    made = time.perf_counter()
    face.prepare()
    print(
        f"painting the layers {1000 * (made - begin):.0f} ms, "
        f"preparing the poses {1000 * (time.perf_counter() - made):.0f} ms, once\n"
    )
    print(f"{'ms':<34} {'mean':>8} {'median':>8} {'99 %':>8} {'one core':>9}")

    def draw(number: int) -> av.VideoFrame:
        return face.draw(number / FRAMES_PER_SECOND, mouth_at(number))

    row("draw, first loop", [timed(partial(draw, n)) for n in range(LOOP_FRAMES)])
    for number in range(LOOP_FRAMES, 40 * LOOP_FRAMES):
        draw(number)
    steady = range(40 * LOOP_FRAMES, 50 * LOOP_FRAMES)
    row("draw, steady", [timed(partial(draw, n)) for n in steady])

    for bitrate in (500_000, 1_500_000):
        encoder = Vp8Encoder()
        encoder.target_bitrate = bitrate
        costs, size = [], 0
        for number in range(2 * LOOP_FRAMES):
            frame = draw(number)
            frame.pts = number * 3600
            frame.time_base = fractions.Fraction(1, 90_000)
            at = time.thread_time()
            payloads, _ = encoder.encode(frame)
            costs.append((time.thread_time() - at) * 1000.0)
            size += sum(map(len, payloads))
        rate = size * 8 / (2 * LOOP_FRAMES / FRAMES_PER_SECOND) / 1000
        row(f"VP8 512x512, limit {bitrate // 1000} kb/s ({rate:.0f})", costs)

    mouthpiece = Mouthpiece()
    voice = np.random.default_rng(1).normal(0, 3000, 24_000 * 20).astype("<i2")
    mouthpiece.say(voice.tobytes())
    row("voice, 20 ms taken", [timed(mouthpiece.take) for _ in range(900)], 20.0)
    opus = OpusEncoder()
    costs = []
    for number in range(500):
        sound = av.AudioFrame.from_ndarray(
            np.repeat(voice[number * 480 : number * 480 + 480], 2).reshape(1, -1),
            format="s16",
            layout="mono",
        )
        sound.sample_rate = 48_000
        sound.pts = number * 960
        sound.time_base = fractions.Fraction(1, 48_000)
        costs.append(timed(partial(opus.encode, sound)))
    row("Opus, 20 ms", costs, 20.0)


if __name__ == "__main__":
    main()
