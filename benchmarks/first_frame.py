"""How soon after the offer are picture and sound there, and when does the answer leave?

Run: ``python benchmarks/first_frame.py`` (3 minutes). Needs ``navtalk[all,bench]``, and Chromium
for its column.

How to read it: milliseconds, from the moment at which the receiver read the offer from its
WebSocket to the first decoded picture, and to the first piece of sound that is not silence, in the
user's hands. A receiver plays five sessions in one process; the first, in which modules are loaded
and coders opened, does not count, the value of a round is the median of the others. "stock sender"
is aiortc without any patch, "our sender" our own server role, which is as quick as we can make it;
a session's first picture is always a keyframe, sent when the far end's DTLS is ready. "answer" is
the time until the answer is handed to the WebSocket. A STUN server that never answers stands on
loopback; the bar compares ours with a list that names it to ours with a list that does not.
"""

from __future__ import annotations

import sys

from answers import Answer, Bar, Options, main, progress
from receivers import median, receive
from sender import running_sender

SESSIONS = 5
SMALL = ("--width", "320", "--height", "256", "--clip", "2")
"""Where no picture is waited for, none needs to be large."""

STOCK_VIDEO_BARS = (Bar(0.75, "stock"), Bar(1.1, "libwebrtc"))
STOCK_AUDIO_BARS = (Bar(0.5, "stock"),)
OURS_VIDEO_BARS = (Bar(0.6, "stock"), Bar(0.9, "libwebrtc"))
SILENT_STUN_BAR = 2.0


def run(options: Options) -> list[Answer]:
    """All answers."""
    return [
        *_first(options, "stock sender", ("--stock",), STOCK_VIDEO_BARS, STOCK_AUDIO_BARS),
        *_first(options, "our sender", (), OURS_VIDEO_BARS, ()),
        *_silent_stun(options),
    ]


def _first(
    options: Options,
    name: str,
    arguments: tuple[str, ...],
    video_bars: tuple[Bar, ...],
    audio_bars: tuple[Bar, ...],
) -> list[Answer]:
    video: list[dict[str, float]] = []
    audio: list[dict[str, float]] = []
    answer: list[dict[str, float]] = []
    with running_sender("--clip", "2", *arguments) as sender:
        for _ in range(options.times(3)):
            for made in (video, audio, answer):
                made.append({})
            for peer in options.among():
                progress(f"first frame, {name}: {peer}")
                count = 2 if options.quick else SESSIONS
                counted = receive(
                    peer, sender.url, loop=options.loop, consume="first", sessions=count
                )[1:]
                video[-1][peer] = median([1000 * (s.pictures[0][1] - s.offer) for s in counted])
                audio[-1][peer] = median([1000 * (s.sounds[0][1] - s.offer) for s in counted])
                answer[-1][peer] = median([1000 * (s.answer - s.offer) for s in counted])
    return [
        Answer(f"first picture, {name}, ms", list(video), video_bars),
        Answer(f"first sound, {name}, ms", list(audio), audio_bars),
        Answer(f"answer, {name}, ms", list(answer)),
    ]


def _silent_stun(options: Options) -> list[Answer]:
    """Time to the answer with a silent STUN server, and how many times that without."""
    without: list[dict[str, float]] = []
    silent: list[dict[str, float]] = []
    ratio: list[dict[str, float]] = []
    with (
        running_sender("--stock", *SMALL) as plain,
        running_sender("--stock", "--silent-stun", *SMALL) as mute,
    ):
        for _ in range(options.times(3)):
            for made in (without, silent, ratio):
                made.append({})
            for peer in options.among():
                progress(f"answer with a silent STUN server: {peer}")
                for sender, into in ((plain, without), (mute, silent)):
                    # Five seconds each for who waits for the server.
                    count = 2 if options.quick or peer == "stock" else SESSIONS
                    counted = receive(
                        peer, sender.url, loop=options.loop, consume="first", sessions=count
                    )[1:]
                    into[-1][peer] = median([1000 * (s.answer - s.offer) for s in counted])
                ratio[-1][peer] = silent[-1][peer] / without[-1][peer]
    return [
        Answer("answer, no STUN server, ms", list(without)),
        Answer("answer, a silent STUN server, ms", list(silent)),
        Answer(
            "answer: silent STUN, times that without",
            list(ratio),
            (Bar(SILENT_STUN_BAR),),
            digits=2,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main("time to the first frame and to the answer", run))
