"""Where the lines of a trace go, so that it never grows beyond its bound.

The first half of the bound holds the beginning, which is what can be replayed. What comes then goes
by turns into two parts of a quarter each, of which the older one gives way: the newest lines are
kept too, for those who look at how it ended. Between the two is a Gap.

The parts are named by a suffix: "" is the file that was asked for, ``.1`` and ``.2`` stand beside
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from attrs import evolve, frozen

from navtalk_proto.limits import MIB
from navtalk_proto.tracing.records import Gap, TraceError, encode_line

__all__ = ["DEFAULT_SIZE", "LEAST_SIZE", "PENDING_SIZE", "SUFFIXES", "Rotation", "Write", "joined"]

DEFAULT_SIZE: Final = 64 * MIB
"""Characters of a trace, all parts together: some hours of talk without its audio."""

LEAST_SIZE: Final = 64 * 1024
"""The smallest bound: less does not hold one offer and its answer."""

PENDING_SIZE: Final = 8 * MIB
"""Characters that may wait for the disk. More are left out, with a Gap."""

SUFFIXES: Final = (".1", ".2")


@frozen(kw_only=True)
class Write:
    """Something for a file: `fresh` replaces what is in it, else it is appended to."""

    suffix: str
    fresh: bool
    text: str


class Rotation:
    """Takes lines at once, gives them out as writes. `size` bounds all parts, in characters."""

    def __init__(self, size: int = DEFAULT_SIZE) -> None:
        if size < LEAST_SIZE:
            raise TraceError(f"a trace has room for at least {LEAST_SIZE} characters")
        self._size: Final = size
        self._waiting: list[Write] = []
        self._pending = 0
        self._written = 0
        """In the current part."""
        self._part = -1
        """-1 is the beginning; then the parts are counted on."""
        self._left_out = 0
        """Lines that were left out because the disk was too slow, and not told yet."""
        self.dropped: int = 0
        """Lines that were never written."""

    def add(self, line: str) -> None:
        """Take a line, to be written later."""
        if self._pending + len(line) > PENDING_SIZE:
            self._left_out += 1
            self.dropped += 1
            return
        if self._left_out:
            gap = Gap(reason="the disk was too slow", lines=self._left_out)
            self._left_out = 0
            self._place(encode_line(gap))
        self._place(line)

    def take(self) -> list[Write]:
        """What is to be written, in order; it is then out of our hands."""
        waiting, self._waiting = self._waiting, []
        self._pending = 0
        together: list[list[Write]] = []
        for write in waiting:
            if together and not write.fresh:
                together[-1].append(write)  # Nothing is appended to any but the newest part.
            else:
                together.append([write])
        return [evolve(some[0], text="".join(write.text for write in some)) for some in together]

    def _place(self, line: str) -> None:
        room = self._size // 2 if self._part < 0 else self._size // 4
        fresh = False
        if self._written and self._written + len(line) > room:
            self._part += 1
            self._written = 0
            fresh = True
            head = json.dumps({"line": "part", "number": self._part, "size": self._size}) + "\n"
            line = head + line
        elif not self._written and self._part < 0:
            fresh = True
        self._written += len(line)
        self._pending += len(line)
        suffix = "" if self._part < 0 else SUFFIXES[self._part % 2]
        self._waiting.append(Write(suffix=suffix, fresh=fresh, text=line))


def joined(beginning: Iterable[str], parts: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """The lines of a trace that was written in parts, oldest first, with Gaps where some are lost.

    `parts` has the lines of those that are there, by suffix. Raises TraceError for one that is no
    part.
    """
    yield from beginning
    numbered = []
    for suffix, lines in parts.items():
        rest = iter(lines)
        try:
            number = json.loads(next(rest))["number"]
        except (StopIteration, ValueError, KeyError, TypeError, RecursionError):
            number = None
        if type(number) is not int:
            raise TraceError(f"the part {suffix} is not a part of a trace")
        numbered.append((number, rest))
    following = 0
    for number, rest in sorted(numbered, key=lambda item: item[0]):
        if number != following:
            yield encode_line(Gap(reason="the trace reached its size, the oldest part gave way"))
        yield from rest
        following = number + 1
