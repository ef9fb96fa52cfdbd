"""The sessions of ``navtalk serve`` as a table that is always current, below the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import anyio
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from navtalk_asyncio.cli.backend import RunningEmulator

if TYPE_CHECKING:
    from navtalk_asyncio.emulator import VisitStatus

__all__ = ["SessionTable"]

_EVERY: Final = 0.5
"""Seconds between two looks: rates are over the time between them."""

_STATES: Final = {"ready": "green", "closing": "yellow", "closed": "dim"}


class SessionTable:
    """Peer, state, audio in, video out and faults of each session, on a terminal.

    What else is printed on the same console stands above it.
    """

    def __init__(
        self, console: Console, faults: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`faults` is what every session meets, as it was given; `clock` is monotonic seconds."""
        self._console = console
        self._faults = faults
        self._clock = clock
        self._before: dict[str, tuple[float, VisitStatus]] = {}

    async def show(self, human: RunningEmulator) -> None:
        """Show the sessions until this is cancelled; the table is gone then."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self.drawn(visit.status for visit in human.visits), refresh=True)
                await anyio.sleep(_EVERY)

    def drawn(self, visits: Iterable[VisitStatus]) -> Table | Text:
        """The table now, the oldest session first."""
        now = self._clock()
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        table.add_column("client", no_wrap=True)
        table.add_column("avatar", overflow="ellipsis", no_wrap=True)
        table.add_column("since", justify="right")
        table.add_column("state")
        table.add_column("audio in", justify="right")
        table.add_column("video out", justify="right")
        if self._faults:
            table.add_column("faults", overflow="fold", style="yellow")
        seen = {}
        for visit in sorted(visits, key=lambda one: one.since):
            before, was = self._before.get(visit.peer, (now, visit))
            over = now - before
            listens = over > 0 and visit.audio_in > was.audio_in
            rate = (visit.pictures_out - was.pictures_out) / over if over > 0 else 0.0
            state = "speaking" if visit.speaking else visit.state
            table.add_row(
                visit.peer,
                visit.avatar,
                _span(now - visit.since),
                Text(state, style="cyan" if visit.speaking else _STATES.get(state, "")),
                Text(f"{visit.audio_in:.1f} s", style="" if listens else "dim"),
                Text(f"{rate:.0f} fps", style="" if rate else "dim"),
                *([self._faults] if self._faults else []),
            )
            seen[visit.peer] = now, visit
        self._before = seen
        return table if seen else Text("no session now; the demo page opens one", style="dim")


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
