"""What do loss, jitter and outages do to picture and sound, with ours and with stock aiortc?

Run: ``python benchmarks/bad_network.py`` (10 minutes). Needs ``navtalk[all,bench]``. Of the other
receivers, those that ``--peers`` names are measured too.

The sender is aiortc without any patch, behind the test kit's UDP wire, and codes 640x384 at 30
pictures a second while it sends, so that it answers when a keyframe is asked for.

loss        5 % of the RTP packets towards the receiver are lost, and everything is delayed by up
            to 30 ms, both ways, by a seed, another one in each round: the n-th packet to each
            receiver has the same fate, what is sent again counted. A picture is late when it is
            delivered more than 200 ms after it was sent, and lost when it never is.
one sound   a single packet of sound is lost. How much later sound comes from then on: the median
            of the last 3 s of the session minus that of the 3 s before the loss.
outage      nothing passes for 1, 2 and 5 s, in one session one after the other. Picture is back
            when one is delivered that was sent after the path's return; the time from that return.

How to read it: the share of pictures that are late or lost, in all rounds together, is compared
with stock's; below it is how many that were, and of how many. The other bars are values: 20 ms,
which is one packet, and half a second.
"""

from __future__ import annotations

import math
import sys

from answers import Answer, Bar, Options, main, progress
from receivers import Received, median, percentile, receive_one
from sender import Sent, running_sender

LIVE = ("--stock", "--live", "--width", "640", "--height", "384")
LOSS = ("--loss", "0.05", "--jitter", "0.03")

LATE_MS = 200.0
"""A picture that is later is late: two and a half times the delay of stock's sound."""

LOSS_SECONDS = 30.0
DROP_AT = 6.0
"""Seconds after the answer; 2 of them are the warm-up, in 3 the delay before is measured."""
DROP_SECONDS = 10.0
"""Measured in all; in the last 3 of them the delay after."""
DELAY_SECONDS = 3.0
ADDED_BAR = 20.0
"""Milliseconds: one packet. Stock adds 200 for good."""

OUTAGES = ((4.0, 1.0), (10.0, 2.0), (18.0, 5.0))
"""When after the answer, and for how long; between them 5 to 6 s to recover."""
OUTAGE_SECONDS = 28.0
BACK_BAR = 0.5


def run(options: Options) -> list[Answer]:
    """All answers."""
    return [*_loss(options), *_one_sound(options), *_outages(options)]


def _loss(options: Options) -> list[Answer]:
    late: list[dict[str, float]] = []
    due: list[dict[str, float]] = []
    p50: list[dict[str, float]] = []
    p99: list[dict[str, float]] = []
    for seed in range(options.times(3)):
        with running_sender(*LIVE, *LOSS, "--seed", str(seed)) as sender:
            for made in (late, due, p50, p99):
                made.append({})
            for peer in _receivers(options):
                progress(f"5 % loss, 30 ms jitter: {peer}")
                seconds = options.seconds(LOSS_SECONDS)
                seen, sent = receive_one(
                    peer, sender.url, loop=options.loop, consume="read", seconds=seconds
                )
                latencies = seen.video_latencies(sent)
                late[-1][peer], due[-1][peer] = late_or_lost(seen, sent)
                p50[-1][peer] = percentile(latencies, 0.5)
                p99[-1][peer] = percentile(latencies, 0.99)
    return [
        Answer(
            "5 % loss: late or lost, % of pictures",
            list(late),
            (Bar(1.0, "stock"),),
            digits=2,
            out_of=list(due),
        ),
        Answer("5 % loss: picture p50, ms", p50),
        Answer("5 % loss: picture p99, ms", p99),
    ]


def late_or_lost(seen: Received, sent: Sent) -> tuple[int, int]:
    """How many pictures sent in the measured part came late, or never; and how many were sent."""
    due = [at for at in sent.times if seen.counted(at) and at + LATE_MS / 1000 <= seen.end]
    in_time = set()
    for number, at in seen.pictures:
        when = None if number is None else sent.when(number, before=at)
        if when is not None and at - when <= LATE_MS / 1000:
            in_time.add(when)
    return sum(at not in in_time for at in due), len(due)


def _one_sound(options: Options) -> list[Answer]:
    added: list[dict[str, float]] = []
    if options.quick:
        drop_at, around, seconds = 2.8, 0.5, 1.5
    else:
        drop_at, around, seconds = DROP_AT, DELAY_SECONDS, DROP_SECONDS
    with running_sender(*LIVE, "--drop-sound", str(drop_at)) as sender:
        for _ in range(options.times(3)):
            added.append({})
            for peer in _receivers(options):
                progress(f"one sound lost: {peer}")
                seen, sent = receive_one(
                    peer, sender.url, loop=options.loop, consume="read", seconds=seconds
                )
                (dropped,) = (at for what, at in sent.happened if what == "drop")
                before = seen.audio_latencies(sent, dropped - around, dropped)
                after = seen.audio_latencies(sent, seen.end - around)
                added[-1][peer] = max(0.0, median(after) - median(before))
    return [
        Answer("one sound lost: later from then on, ms", added, (Bar(ADDED_BAR),)),
    ]


def _outages(options: Options) -> list[Answer]:
    plan = ((2.2, 0.3),) if options.quick else OUTAGES
    seconds = 3.0 if options.quick else OUTAGE_SECONDS
    arguments = [part for at, length in plan for part in ("--cut", f"{at}+{length}")]
    back: dict[float, list[dict[str, float]]] = {length: [] for _, length in plan}
    with running_sender(*LIVE, *arguments) as sender:
        for _ in range(options.times(2)):
            for made in back.values():
                made.append({})
            for peer in _receivers(options):
                progress(f"outages: {peer}")
                seen, sent = receive_one(
                    peer, sender.url, loop=options.loop, consume="read", seconds=seconds
                )
                healed = [at for what, at in sent.happened if what == "heal"]
                for (_, length), at in zip(plan, healed, strict=True):
                    back[length][-1][peer] = back_after(seen, sent, at)
    return [
        Answer(
            f"picture back after an outage of {length:g} s, s", rounds, (Bar(BACK_BAR),), digits=2
        )
        for length, rounds in back.items()
    ]


def back_after(seen: Received, sent: Sent, healed: float) -> float:
    """Seconds from a moment to the delivery of the first picture that was sent after it."""
    for number, at in seen.pictures:
        when = None if number is None or at < healed else sent.when(number, before=at)
        if when is not None and when >= healed:
            return at - healed
    return math.inf


def _receivers(options: Options) -> list[str]:
    return options.among("ours", "ours_trio", "stock", "libwebrtc")


if __name__ == "__main__":
    sys.exit(main("picture and sound on a bad network", run))
