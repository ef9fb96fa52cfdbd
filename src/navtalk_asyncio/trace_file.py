"""A trace on asyncio: the files, and the task that has them written."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from navtalk_proto.secret import Secret

if TYPE_CHECKING:
    from navtalk_proto.tracing.output import TraceOptions
    from navtalk_proto.tracing.recorder import Recorder
    from navtalk_proto.tracing.rotation import Write

__all__ = ["TRACE_VARIABLE", "trace_file", "wanted_trace"]

log: Final = logging.getLogger("navtalk.trace")

TRACE_VARIABLE: Final = "NAVTALK_TRACE"
"""Names the file that a session is traced to, or a folder, where ``connect()`` is not told."""

_LIBRARIES: Final = ("navtalk", "aiortc", "aioice", "av", "websockets")


def wanted_trace(
    trace: str | Path | TraceOptions | None,
) -> TraceOptions | None:
    """What ``connect()`` was given, or what the environment says: a new file for each session."""
    named = os.environ.get(TRACE_VARIABLE) if trace is None else None
    if trace is None and not named:
        return None
    from navtalk_proto.tracing.output import trace_options

    return trace_options(_unused(Path(named)) if named else trace)


def _unused(path: Path) -> Path:
    """The path, or one with a number, at which there is no file; in a folder one by the time."""
    if path.is_dir():
        path /= f"navtalk-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


@asynccontextmanager
async def trace_file(options: TraceOptions, secrets: Iterable[Secret]) -> AsyncGenerator[Recorder]:
    """Write a trace while the block runs. Raises TraceError where it cannot be written."""
    from navtalk_proto.tracing.output import TraceOutput

    output = TraceOutput(
        options,
        secrets=secrets,
        flag=asyncio.Event,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
    )
    path = str(options.path)
    await asyncio.to_thread(_begin, path)

    async def write(writes: list[Write]) -> None:
        await asyncio.to_thread(_write, path, writes)

    writing = asyncio.create_task(output.run(write))
    try:
        yield output.recorder
    finally:
        output.close()
        # The rest is written also when this is cancelled: it is little, and says how it ended.
        cancelled = False
        while not writing.done():
            try:
                await asyncio.wait([writing])
            except asyncio.CancelledError:
                cancelled = True
        writing.result()
        if output.error is not None:
            log.warning("! the trace %s is incomplete: %s", path, output.error)
        if cancelled:
            raise asyncio.CancelledError


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _begin(path: str) -> None:
    from navtalk_proto.tracing.records import TraceError
    from navtalk_proto.tracing.rotation import SUFFIXES

    try:
        with open(path, "w", encoding="utf-8"):
            pass
        for suffix in SUFFIXES:
            Path(path + suffix).unlink(missing_ok=True)
    except OSError as error:
        reason = f"the trace {path} cannot be written: {error.strerror or error}"
    else:
        return
    raise TraceError(reason)


def _write(path: str, writes: list[Write]) -> None:
    # Lines are few and long; what belongs together is opened once.
    for write in writes:
        with open(path + write.suffix, "w" if write.fresh else "a", encoding="utf-8") as file:
            file.write(write.text)
