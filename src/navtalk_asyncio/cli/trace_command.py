"""``navtalk trace``: what happened in a session, as a table, a page, JSON or a difference."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.terminal import Screen
from navtalk_asyncio.cli.timeline import timeline, timeline_page
from navtalk_asyncio.cli.trace_files import trace_records
from navtalk_asyncio.cli.trace_rows import Row, rows
from navtalk_proto.tracing.records import TraceError

__all__ = ["add_trace"]

_STYLES = {
    "received": "cyan",
    "sent": "green",
    "event": "bold",
    "intent": "magenta",
    "engine": "yellow",
    "command": "yellow",
    "timer": "dim",
    "trace": "dim",
}


def add_trace(app: App) -> None:
    """Add the command."""

    @app.command(name="trace")
    def trace_command(
        file: Path,
        *,
        table: Annotated[bool, Parameter(negative=())] = False,
        html: Path | None = None,
        diff: Path | None = None,
        json: Annotated[bool, Parameter(negative=())] = False,
    ) -> int:
        """Show what happened in a session.

        Parameters
        ----------
        file
            A trace, as --trace and NAVTALK_TRACE write it.
        table
            Row by row: what is shown unless something else is asked for.
        html
            Write a page with a timeline, which needs nothing but a browser.
        diff
            Another trace: what happened there and not here, without times. Exits with 8 if there
            is a difference.
        json
            The rows as one JSON object.
        """
        screen = Screen(json=json)
        try:
            records = trace_records(file)
            found = rows(records)
            if html is not None:
                html.write_text(timeline_page(timeline(records), title=file.name), "utf-8")
            if diff is not None:
                return _difference(screen, file, found, diff)
        except (TraceError, OSError) as error:
            return screen.failed(error, ExitCode.USAGE)
        if json:
            screen.result("trace", {"rows": [attrs.asdict(row) for row in found]}, "")
        elif html is not None and not table:
            print(f"wrote {html}", flush=True)
        else:
            _show(found)
        return ExitCode.OK


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    return (
        f"{row.time:.3f}",
        row.direction,
        row.event if row.count == 1 else f"{row.event} x{row.count}",
        "" if row.size is None else str(row.size),
        row.note,
    )


def _show(found: list[Row]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        # For other programs, and for files: a line each, with nothing cut off.
        for row in found:
            time, direction, event, size, note = _cells(row)
            print(
                f"{time:>9}  {direction:<8}  {event}{f' [{size}]' if size else ''}  {note}".rstrip()
            )
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("direction", no_wrap=True)
    table.add_column("event", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in found:
        time, direction, event, size, note = _cells(row)
        style = _STYLES[row.direction]
        table.add_row(
            Text(time, "dim"), Text(direction, style), Text(event, style), Text(size), Text(note)
        )
    console.print(table)


def _difference(screen: Screen, file: Path, found: list[Row], other: Path) -> ExitCode:
    def lines(these: list[Row]) -> list[str]:
        return [f"{row.direction} {_cells(row)[2]} {row.note}".rstrip() for row in these]

    changed = list(
        unified_diff(
            lines(found),
            lines(rows(trace_records(other))),
            fromfile=str(file),
            tofile=str(other),
            lineterm="",
        )
    )
    text = "\n".join(changed) or "the same happened in both"
    screen.result("trace-difference", {"difference": changed}, text)
    return ExitCode.REPLAY if changed else ExitCode.OK
