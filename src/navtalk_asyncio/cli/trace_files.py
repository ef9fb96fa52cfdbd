"""Reading a trace from its files: those of a stranger, perhaps, so that everything is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from navtalk_proto.limits import MIB
from navtalk_proto.tracing.records import MAX_LINE, Record, TraceError
from navtalk_proto.tracing.replayer import read
from navtalk_proto.tracing.rotation import SUFFIXES, joined

__all__ = ["MAX_FILES", "trace_lines", "trace_records"]

MAX_FILES: Final = 512 * MIB
"""Bytes of a trace, all parts together: eight times what one has by default."""


def trace_lines(path: Path) -> Iterator[str]:
    """The lines of a trace, with the parts beside it. Raises TraceError and OSError."""
    parts = [path, *(there for suffix in SUFFIXES if (there := _part(path, suffix)).is_file())]
    size = sum(part.stat().st_size for part in parts)
    if size > MAX_FILES:
        raise TraceError(f"{path} has {size} bytes; a trace has at most {MAX_FILES}")
    return joined(
        _lines(path),
        {part.name.removeprefix(path.name): _lines(part) for part in parts[1:]},
    )


def trace_records(path: Path) -> list[tuple[int, Record]]:
    """The records of a trace with their line numbers. Raises TraceError and OSError."""
    return list(read(trace_lines(path)))


def _part(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _lines(path: Path) -> Iterator[str]:
    number = 0
    with path.open(encoding="utf-8", newline="\n") as file:
        while True:
            number += 1
            try:
                line = file.readline(MAX_LINE + 1)
            except UnicodeDecodeError:
                break
            if not line:
                return
            yield line
    raise TraceError(f"{path.name} is not a text in UTF-8", line=number)
