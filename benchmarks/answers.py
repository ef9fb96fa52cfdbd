"""What a benchmark found out: values of each receiver, ratios, bars, and the table of them.

No benchmark. A round is one dictionary of values by receiver. What is printed are the medians of
the rounds; a ratio is the median of the rounds' own ratios, so that a slow moment of the machine,
which meets the receivers of one round alike, does not pass for a difference between them.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import define, field, frozen
from receivers import NAMES, OURS, loops, median, present

NOT_MEASURED: Final = "not measured"
WIDTH: Final = len(NOT_MEASURED) + 1
"""Of a column of the table."""

Round = Mapping[str, float]
"""A value for each receiver."""


@frozen
class Bar:
    """What ours is to reach: at most so much, as a ratio to another receiver or as it is."""

    at_most: float
    to: str = ""
    """The receiver compared with; none: `at_most` is a value."""

    def __str__(self) -> str:
        return f"<= {self.at_most:g}" + (f"x {NAMES[self.to]}" if self.to else "")


@frozen(kw_only=True)
class Verdict:
    """One bar, for one of our adapters. `value` is what is compared: the ratio, or the value."""

    bar: Bar
    adapter: str
    value: float

    @property
    def met(self) -> bool | None:
        """None where the other receiver was not there."""
        return None if math.isnan(self.value) else self.value <= self.bar.at_most


@define
class Answer:
    """A question and its rounds. `digits` are printed behind the point."""

    question: str
    rounds: list[Round]
    bars: Sequence[Bar] = ()
    digits: int = 1
    adapters: Sequence[str] = OURS
    """Which of ours are compared."""
    at_least: set[str] = field(factory=set)
    """Receivers whose value may be larger: more could not be measured."""
    out_of: list[Round] = field(factory=list)
    """Of how many, where the rounds are counts. A value is then the percentage in all rounds, and a
    ratio that of two percentages: of what is rare a median of rounds is one of noughts."""

    def value(self, receiver: str) -> float:
        """The median of a receiver's rounds, NaN where it was not there. A round that could not be
        measured is NaN, and left out."""
        if self.out_of:
            count, total = self.counted(receiver)
            return 100 * count / total if total else math.nan
        values = [one[receiver] for one in self.rounds if receiver in one]
        return median([value for value in values if not math.isnan(value)])

    def counted(self, receiver: str) -> tuple[float, float]:
        """How many in all rounds, and of how many."""
        count, total = (
            sum(one.get(receiver, 0.0) for one in rounds) for rounds in (self.rounds, self.out_of)
        )
        return count, total

    def text(self, receiver: str) -> str:
        """The value as the table has it."""
        value = self.value(receiver)
        if math.isnan(value):
            return NOT_MEASURED if any(receiver in one for one in self.rounds) else "-"
        return f"{'>= ' if receiver in self.at_least else ''}{value:.{self.digits}f}"

    def ratio(self, receiver: str, other: str) -> float:
        """The median of the rounds' ratios; NaN where one of them was not there."""
        if self.out_of:
            of, base = self.value(receiver), self.value(other)
            return math.nan if math.isnan(of) or math.isnan(base) else _ratio(of, base)
        return median(
            [
                _ratio(one[receiver], one[other])
                for one in self.rounds
                if {receiver, other} <= set(one)
            ]
        )

    def verdicts(self) -> list[Verdict]:
        """All bars, for each of our adapters that was measured."""
        adapters = [a for a in self.adapters if any(a in one for one in self.rounds)]
        return [
            Verdict(
                bar=bar,
                adapter=adapter,
                value=self.ratio(adapter, bar.to) if bar.to else self.value(adapter),
            )
            for bar in self.bars
            for adapter in adapters
        ]


def _ratio(value: float, base: float) -> float:
    """Nothing is as much as nothing, and anything is infinitely more."""
    if base:
        return value / base
    return math.inf if value else 1.0


def table(answers: Sequence[Answer]) -> str:
    """One line for each bar, and one for a question without any."""
    columns = "".join(f"{name:>{WIDTH}}" for name in NAMES.values())
    lines = [f"{'':<46}{columns}   {'ratio':<14}{'bar':<18}met"]
    for answer in answers:
        values = ""
        for receiver in NAMES:
            values += f"{answer.text(receiver):>{WIDTH}}"
        line = f"{answer.question:<46}{values}"
        if not answer.bars:
            lines.append(line)
        for bar in answer.bars:
            of_bar = [verdict for verdict in answer.verdicts() if verdict.bar is bar]
            ratios = " ".join(f"{verdict.value:.2f}" for verdict in of_bar)
            met = " ".join({True: "yes", False: "NO", None: "-"}[v.met] for v in of_bar)
            lines.append(f"{line}   {ratios if bar.to else '':<14}{bar!s:<18}{met}")
            line = " " * len(line)
        if answer.out_of:
            counts = [answer.counted(receiver) for receiver in NAMES]
            texts = [f"{count:.0f}/{total:.0f}" if total else "-" for count, total in counts]
            lines.append(f"{'  counted':<46}" + "".join(f"{text:>{WIDTH}}" for text in texts))
    return "\n".join(lines)


def missed(answers: Sequence[Answer]) -> list[str]:
    """A sentence for each bar that is not met."""
    return [
        f"{answer.question}, {NAMES[verdict.adapter]}: {verdict.value:.2f}, bar {verdict.bar}"
        for answer in answers
        for verdict in answer.verdicts()
        if verdict.met is False
    ]


# ---- the command line that benchmarks share


@frozen(kw_only=True)
class Options:
    """How a benchmark is to be run."""

    quick: bool = False
    """One short round, to see that it runs: its figures mean little."""
    rounds: int = 3
    loop: str = "uvloop"
    """The loop of the Python receivers, and the one under trio's engine."""
    peers: Sequence[str] = tuple(NAMES)
    plots: Path | None = None
    """Where to draw; None: nowhere."""

    def times(self, full: int) -> int:
        """Rounds to make where the default number is `full`."""
        return 1 if self.quick else max(1, round(full * self.rounds / 3))

    def seconds(self, full: float) -> float:
        """For how long to measure."""
        return 1.5 if self.quick else full

    def among(self, *peers: str) -> list[str]:
        """Those of these receivers that were asked for."""
        return [peer for peer in peers or NAMES if peer in self.peers]


def options_of(description: str, arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default=loops()[0])
    parser.add_argument("--peers", default=",".join(NAMES), help="some of " + ",".join(NAMES))
    parser.add_argument("--plots", type=Path, help="draw into this directory")
    given = parser.parse_args(arguments)
    wanted = given.peers.split(",")
    if unknown := set(wanted) - set(NAMES):
        parser.error(f"no receiver: {', '.join(sorted(unknown))}")
    return Options(
        quick=given.quick,
        rounds=given.rounds,
        loop=given.loop,
        peers=tuple(present(wanted)),
        plots=given.plots,
    )


def machine() -> str:
    """What the figures were measured on."""
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}"
    )


def progress(text: str) -> None:
    """Say on standard error what is being measured."""
    print(f"... {text}", file=sys.stderr, flush=True)


def main(description: str, run: Callable[[Options], list[Answer]]) -> int:
    """A benchmark's main(): measure, print the table; exit code 1 when a bar is missed."""
    options = options_of(description)
    print(f"{machine()}; {options.loop}; medians of rounds", flush=True)
    answers = run(options)
    print(table(answers))
    for sentence in missed(answers):
        print(f"missed: {sentence}")
    return 1 if missed(answers) and not options.quick else 0
