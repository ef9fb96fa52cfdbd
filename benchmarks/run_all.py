"""Everything that has a bar, beside other receivers where there are any, in one table.

Run: ``python benchmarks/run_all.py`` (40 minutes on both loops), ``--quick`` (8 minutes) to see
that it runs. Needs ``navtalk[all,bench]``, and Chromium for its column. Draws into
`benchmarks/plots/`.

How to read it: one line for each bar. Values are medians of rounds, ratios medians of the rounds'
own ratios, asyncio's first and then trio's. "met" says for each of them whether the bar is met; one
that is not is named again at the end, and the exit code is 1.

``--only cpu,first_frame`` runs some of the files, ``--loop asyncio`` on one loop. ``--keep FILE``
adds the rounds to those in a file, so that the whole can be run in pieces; ``--show`` prints the
table of that file and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import bad_network
import core_speed
import cpu
import first_frame
import media_sessions
import memory_unread
import sessions
import steady_latency
from answers import Answer, Bar, Options, machine, missed, progress, table
from receivers import NAMES, OURS, loops, present


def run_core_speed(options: Options) -> list[Answer]:
    """The core's cost for each message, as a multiple of its parser's: there is one core, and its
    figures stand in the first column."""
    return [
        Answer(
            f"core: {row.question}, x {parser}",
            [{"ours": row.ratio}],
            () if row.bar is None else (Bar(row.bar),),
            digits=2,
        )
        for parser, rows in core_speed.report(quick=options.quick).items()
        for row in rows
    ]


def run_sessions(options: Options) -> list[Answer]:
    """How many signaling-only sessions each adapter holds on a core."""
    points = sessions.report(quick=options.quick)
    if options.plots:
        sessions.plot(points, options.plots / "signaling_sessions.png")
    held = {peer: float(sessions.knee(points, NAMES[peer])) for peer in OURS}
    return [Answer("signaling-only sessions on a core", [held], digits=0)]


def run_media_sessions(options: Options) -> list[Answer]:
    """How many sessions with media each adapter holds on a core."""
    points = media_sessions.report(quick=options.quick)
    if options.plots:
        media_sessions.plot(points, options.plots / "media_sessions.png")
    for sentence in media_sessions.told(points):
        progress(sentence)
    words = {"idle": "idle", "recorded": "recorded", "vp8": "decoded VP8", "h264": "decoded H.264"}
    answers = []
    for mode, word in words.items():
        knees = {peer: media_sessions.knee(points, NAMES[peer], mode) for peer in OURS}
        held = {peer: math.nan if one is None else one.sessions for peer, one in knees.items()}
        least = {peer for peer, one in knees.items() if one is not None and not one.sure}
        answer = Answer(f"sessions on a core: {word}", [held], digits=0, at_least=least)
        answers.append(answer)
    return answers


FILES: Final[dict[str, Callable[[Options], list[Answer]]]] = {
    "first_frame": first_frame.run,
    "steady_latency": steady_latency.run,
    "bad_network": bad_network.run,
    "cpu": cpu.run,
    "memory_unread": memory_unread.run,
    "core_speed": run_core_speed,
    "sessions": run_sessions,
    "media_sessions": run_media_sessions,
}

ONE_LOOP: Final = (
    "first_frame",
    "bad_network",
    "memory_unread",
    "core_speed",
    "sessions",
    "media_sessions",
)
"""Where the loop makes no difference that is asked about: these run on the first one only."""

PLOTS: Final = Path(__file__).parent / "plots"

Kept: TypeAlias = dict[str, list[Answer]]
"""Answers by ``FILE LOOP``."""


def load(path: Path) -> Kept:
    """What was kept; nothing if there is no file."""
    if not path.exists():
        return {}
    return {
        where: [
            Answer(
                answer["question"],
                answer["rounds"],
                [Bar(bar["at_most"], bar["to"]) for bar in answer["bars"]],
                answer["digits"],
                at_least=set(answer.get("at_least", ())),
                out_of=answer.get("out_of", []),
            )
            for answer in answers
        ]
        for where, answers in json.loads(path.read_text())["answers"].items()
    }


def save(path: Path, kept: Kept) -> None:
    """Keep it."""

    def plain(answer: Answer) -> dict[str, Any]:
        return {
            "question": answer.question,
            "rounds": [dict(one) for one in answer.rounds],
            "bars": [{"at_most": bar.at_most, "to": bar.to} for bar in answer.bars],
            "digits": answer.digits,
            "at_least": sorted(answer.at_least),
            "out_of": [dict(one) for one in answer.out_of],
        }

    answers = {where: [plain(one) for one in answers] for where, answers in kept.items()}
    about = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "answers": answers}
    path.write_text(json.dumps(about, indent=1))


def merge(kept: Kept, where: str, new: Sequence[Answer]) -> None:
    """Add the rounds of new answers to those of the same questions."""
    old = {answer.question: answer for answer in kept.get(where, ())}
    for answer in new:
        if answer.question in old:
            answer.rounds[:0] = old[answer.question].rounds
            answer.at_least |= old[answer.question].at_least
            answer.out_of[:0] = old[answer.question].out_of
    kept[where] = list(new)


def show(kept: Kept) -> list[str]:
    """Print the table; returns the bars that are missed."""
    everything = []
    for where, answers in kept.items():
        file, loop = where.split()
        print(f"\n{file}.py, {loop}, {max(len(one.rounds) for one in answers)} rounds")
        print(table(answers))
        everything += [f"{sentence} ({loop})" for sentence in missed(answers)]
    bars = [verdict for answers in kept.values() for one in answers for verdict in one.verdicts()]
    met = sum(verdict.met is True for verdict in bars)
    print(f"\n{met} of {len(bars)} bars met, on asyncio and on trio")
    for sentence in everything:
        print(f"missed: {sentence}")
    return everything


def main() -> int:
    parser = argparse.ArgumentParser(description="all that is measured beside other receivers")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(FILES), help="some of " + ",".join(FILES))
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], help="only this one")
    parser.add_argument("--peers", default=",".join(NAMES), help="some of " + ",".join(NAMES))
    parser.add_argument("--plots", type=Path, default=PLOTS, help="draw into this directory")
    parser.add_argument("--keep", type=Path, help="add the rounds to those in this file")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what is kept")
    given = parser.parse_args()
    files, peers = given.only.split(","), given.peers.split(",")
    if unknown := {*files} - {*FILES} | {*peers} - {*NAMES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    kept = load(given.keep) if given.keep else {}
    if not given.show:
        options = {"quick": given.quick, "rounds": given.rounds, "plots": given.plots}
        there = tuple(present(peers))
        for file in files:
            for number, loop in enumerate([given.loop] if given.loop else loops()):
                if number and file in ONE_LOOP:
                    continue
                progress(f"{file}.py on {loop}")
                answers = FILES[file](Options(loop=loop, peers=there, **options))
                merge(kept, f"{file} {loop}", answers)
                if given.keep:
                    save(given.keep, kept)
    print(machine())
    return 1 if show(kept) and not given.quick else 0


if __name__ == "__main__":
    sys.exit(main())
