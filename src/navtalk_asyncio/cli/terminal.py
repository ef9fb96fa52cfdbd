"""What a command says: results on standard output, everything else on standard error.

With ``--json`` standard output has one JSON object and nothing else, whatever happened; the schemas
are in docs/command-line.schema.json. Colour and live tables are for terminals, and NO_COLOR is
heeded (https://no-color.org); that is rich's work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from navtalk_asyncio.cli.exit_codes import ExitCode, exit_code
from navtalk_proto.errors import NavTalkError

__all__ = ["STEP_INDENT", "STEP_NAME", "Screen", "StepPrinter", "error_console"]

STEP_INDENT: Final = 11
"""Columns of a step's time, with the two spaces behind it; an hour needs one more."""

STEP_NAME: Final = 11
"""Columns of a step's name: the longest is "interrupted"."""

_STYLES: Final = {
    "understood": "bold",
    "transcript": "dim",
    "says": "bold",
    "answered": "green",
    "written": "green",
    "still": "green",
    "warning": "yellow",
    "notice": "yellow",
    "violation": "yellow",
    "error": "red",
}
"""What stands out among the steps; the others are how it came about."""


def error_console() -> Console:
    """Standard error. Made where it is used: it looks at once whether that is a terminal."""
    return Console(stderr=True, highlight=False)


class StepPrinter:
    """Prints each step with its time since the start, on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()

    def __call__(self, step: str, text: str) -> None:
        """Print one step."""
        line = Text(f"{time.monotonic() - self._start:7.3f} s  ", style="dim")
        line.append(f"{step:<{STEP_NAME}} ", style="not dim cyan")
        line.append(text, style=f"not dim {_STYLES.get(step, '')}".rstrip())
        self._console.print(line, soft_wrap=True)


class Screen:
    """Where a command speaks. `json`: its result, or its error, is one JSON object."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    def result(self, kind: str, data: Mapping[str, Any], text: str) -> None:
        """The result, on standard output: `data` under the schema of this `kind`, or `text`."""
        print(_document(kind, data) if self.json else text, flush=True)

    def failed(self, error: NavTalkError | OSError, code: ExitCode | None = None) -> ExitCode:
        """An exception ended the command. Returns its exit code."""
        code = exit_code(error) if code is None else code
        if not isinstance(error, NavTalkError):
            return self.complain(str(error), code=code)
        return self.complain(
            str(error), error.hint, code=code, name=error.code, retryable=error.retryable
        )

    def complain(
        self,
        problem: str,
        hint: str = "",
        *,
        code: ExitCode,
        name: str = "",
        retryable: bool = False,
    ) -> ExitCode:
        """Say what is wrong and what to do about it; returns `code`."""
        line = Text("error: ", style="red").append(problem, style="default")
        if hint:
            line.append("\nhint: ", style="dim").append(hint, style="default")
        error_console().print(line, soft_wrap=True)
        if self.json:
            error = {
                "code": name or code.name.lower(),
                "message": problem,
                "hint": hint,
                "retryable": retryable,
                "exit_code": int(code),
            }
            print(_document("error", error), flush=True)
        return code


def _document(kind: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"schema": f"navtalk.{kind}/1", **data}, ensure_ascii=False)
