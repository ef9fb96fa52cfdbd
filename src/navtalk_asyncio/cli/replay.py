"""``navtalk replay``: do a trace again, and tell where today's navtalk goes another way."""

from __future__ import annotations

import json as json_module
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.terminal import Screen
from navtalk_asyncio.cli.trace_files import trace_lines
from navtalk_proto.tracing.records import TraceError
from navtalk_proto.tracing.replayer import Divergence, replay
from navtalk_proto.wire.messages import JsonValue

__all__ = ["add_replay"]


def add_replay(app: App) -> None:
    """Add the command."""

    @app.command(name="replay")
    def replay_command(file: Path, *, json: Annotated[bool, Parameter(negative=())] = False) -> int:
        """Give a trace's inputs to a fresh core, and compare what it does with what it did.

        Exits with 0 where all is the same, with 8 at the first difference.

        Parameters
        ----------
        file
            A trace, as --trace and NAVTALK_TRACE write it.
        json
            As one JSON object.
        """
        screen = Screen(json=json)
        try:
            result = replay(trace_lines(file))
        except (TraceError, OSError) as error:
            return screen.failed(error, ExitCode.USAGE)
        found = result.divergence
        data = {
            "file": str(file),
            "connections": result.connections,
            "incomplete": result.incomplete,
            "inputs": result.inputs,
            "actions": result.actions,
            "gap": {"line": result.gap_line, "reason": result.gap} if result.gap else None,
            "divergence": None
            if found is None
            else {
                "line": found.line,
                "cause": found.cause,
                "recorded": found.recorded,
                "replayed": found.replayed,
            },
        }
        told = f"{result.inputs} inputs and {result.actions} actions"
        if found is not None:
            screen.result("replay", data, f"{file}: {told} were the same, then:\n{_shown(found)}")
            return ExitCode.REPLAY
        several = "s" * (result.connections != 1)
        text = f"{file}: {told} of {result.connections} connection{several}, all the same"
        if result.incomplete:
            text += f"\n{result.incomplete} more began before the trace, and were left out"
        if result.gap:
            text += f"\nup to line {result.gap_line}, where lines are missing: {result.gap}"
        screen.result("replay", data, text)
        return ExitCode.OK


def _shown(found: Divergence) -> str:
    where = f"line {found.line}"
    if found.cause != found.line:
        where += f", which follows from the input in line {found.cause}"
    difference = unified_diff(
        _pretty(found.recorded),
        _pretty(found.replayed),
        fromfile="recorded",
        tofile="replayed",
        lineterm="",
        n=100,
    )
    return "\n".join([f"{where}, connection {found.connection}", *difference])


def _pretty(value: JsonValue) -> list[str]:
    return [] if value is None else json_module.dumps(value, indent=2).splitlines()
