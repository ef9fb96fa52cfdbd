"""What does a 720p30 session cost, and how many fit on a core?

Run: ``python benchmarks/cpu.py`` (7 minutes), and ``python benchmarks/cpu.py --loop asyncio``.
Needs ``navtalk[all,bench]``, and Chromium for its column.

How to read it: user and system time of the receiving process, all its threads, in percent of one
core, in six seconds that begin two seconds after the offer. Chromium's is that of all the browser's
processes, which also draw. The sender is aiortc without any patch and runs in another process; what
it costs is not in here. "a core holds" is 100 divided by that: sessions of one process share some
costs, and other things come first, see `sessions.py`.

nobody       ours with nobody who reads a track; beside stock aiortc's decoded session, which is
             what stock costs: it decodes whether anybody reads or not
recorded     `session.record()` to Matroska; beside stock's decoded session, and beside aiortc's
             MediaRecorder to mp4, which codes anew
decoded      both tracks are read, and nothing is done with what comes
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from answers import Answer, Bar, Options, Round, main, progress
from plots import bars
from receivers import OURS, receive
from sender import running_sender

SECONDS = 6.0

NOBODY_BARS = {"asyncio": (Bar(0.35, "stock"),), "uvloop": (Bar(0.3, "stock"),)}
RECORDED_BARS = (Bar(0.4, "stock"),)
RECORDER_BARS = (Bar(0.1, "stock"),)
DECODED_BARS = (Bar(1.0, "stock"),)


def run(options: Options) -> list[Answer]:
    """All answers; draws the bars."""
    nobody: list[dict[str, float]] = []
    recorded: list[dict[str, float]] = []
    decoded: list[dict[str, float]] = []
    recorder: list[dict[str, float]] = []
    h264: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        running_sender("--stock") as vp8_sender,
        running_sender("--stock", "--codec", "h264") as h264_sender,
    ):

        def cost(peer: str, consume: str, url: str = vp8_sender.url) -> float:
            progress(f"CPU, {consume}: {peer}")
            file = str(Path(directory) / ("stock.mp4" if peer == "stock" else "ours.mkv"))
            seconds = options.seconds(SECONDS)
            (seen,) = receive(
                peer, url, loop=options.loop, consume=consume, seconds=seconds, file=file
            )
            return seen.cpu_percent

        for _ in range(options.times(3)):
            decoded.append({peer: cost(peer, "decoded") for peer in options.among()})
            ours = options.among(*OURS)
            nobody.append({peer: cost(peer, "nothing") for peer in ours})
            recorded.append({peer: cost(peer, "recorded") for peer in ours})
            recorder.append(dict(recorded[-1]))
            if "stock" in options.peers:
                for made in (nobody, recorded):
                    made[-1]["stock"] = decoded[-1]["stock"]
                recorder[-1]["stock"] = cost("stock", "recorded")
            # wrtc has no H.264.
            with_h264 = options.among(*OURS, "stock", "chromium")
            h264.append({peer: cost(peer, "decoded", h264_sender.url) for peer in with_h264})

    answers = [
        Answer("CPU, nobody (stock: decoded), %", list(nobody), NOBODY_BARS[options.loop]),
        Answer("CPU, recorded (stock: decoded), %", list(recorded), RECORDED_BARS),
        Answer("CPU, recorded (stock: MediaRecorder), %", list(recorder), RECORDER_BARS),
        Answer("CPU, decoded VP8, %", list(decoded), DECODED_BARS),
        Answer("CPU, decoded H.264, %", list(h264), DECODED_BARS),
    ]
    if options.plots:
        draw(answers, options)
    return [
        *answers,
        _sessions("a core holds: nobody reads", nobody, OURS),
        _sessions("a core holds: recorded", recorded, OURS),
        _sessions("a core holds: decoded VP8", decoded),
        _sessions("a core holds: decoded H.264", h264),
    ]


def _sessions(question: str, rounds: list[dict[str, float]], only: tuple[str, ...] = ()) -> Answer:
    made: list[Round] = [
        {peer: 100 / value for peer, value in one.items() if not only or peer in only}
        for one in rounds
    ]
    return Answer(question, made)


def draw(answers: list[Answer], options: Options) -> None:
    """One drawing of all modes; stock's decoded session stands once only."""
    assert options.plots is not None
    by_name = {answer.question.split(" (")[0].split(", %")[0]: answer for answer in answers}
    recorder = answers[2]
    shown: list[tuple[str, Answer, Callable[[str], bool]]] = [
        ("nobody reads", answers[0], lambda peer: peer in OURS),
        ("recorded (stock: MediaRecorder)", recorder, lambda _: True),
        ("decoded, VP8", by_name["CPU, decoded VP8"], lambda _: True),
        ("decoded, H.264", by_name["CPU, decoded H.264"], lambda _: True),
    ]
    values = {
        name: {
            peer: answer.value(peer)
            for peer in options.among()
            if wanted(peer) and any(peer in one for one in answer.rounds)
        }
        for name, answer, wanted in shown
    }
    bars(
        values,
        f"A 720p30 session with sound, on {options.loop}",
        "% of one core",
        options.plots / f"cpu_{options.loop}.png",
    )


if __name__ == "__main__":
    sys.exit(main("CPU of one session", run))
