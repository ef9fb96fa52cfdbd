"""A trace on trio: the files, and the task that has them written."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from attrs import evolve

from navtalk_proto.exception_groups import raise_unchanged
from navtalk_proto.secret import Secret
from navtalk_trio.driver import bare
from navtalk_trio.flag import Flag

if TYPE_CHECKING:
    from navtalk_proto.tracing.output import TraceOptions
    from navtalk_proto.tracing.recorder import Recorder
    from navtalk_proto.tracing.rotation import Write

__all__ = ["TRACE_VARIABLE", "new_trace", "session_trace", "trace_file", "wanted_trace"]

log: Final = logging.getLogger("navtalk.trace")

TRACE_VARIABLE: Final = "NAVTALK_TRACE"
"""Names the file that a session is traced to, or a folder, where ``connect()`` is not told."""

_LIBRARIES: Final = ("navtalk", "aiortc", "aioice", "av", "trio", "trio-websocket")


async def wanted_trace(
    trace: str | Path | TraceOptions | None,
) -> TraceOptions | None:
    """What ``connect()`` was given, or what the environment says: a new file for each session.

    Raises TraceError where a new one cannot be made.
    """
    if trace is None:
        named = os.environ.get(TRACE_VARIABLE)
        return await new_trace(named) if named else None
    from navtalk_proto.tracing.output import trace_options

    return trace_options(trace)


async def new_trace(trace: str | Path | TraceOptions) -> TraceOptions:
    """For one session of several: a file that was not there. Raises TraceError."""
    from navtalk_proto.tracing.output import trace_options

    options = trace_options(trace)
    assert options is not None
    return evolve(options, path=await trio.to_thread.run_sync(_claimed, Path(options.path)))


def _claimed(path: Path) -> Path:
    """The path, or one with a number, at which there was no file; in a folder one by the time."""
    if path.is_dir():
        path /= f"navtalk-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
    number, free = 1, path
    while True:
        # Two sessions may begin at once: whoever makes the file has it.
        with _writable(free), suppress(FileExistsError), open(free, "x", encoding="utf-8"):
            return free
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")


@asynccontextmanager
async def trace_file(options: TraceOptions, secrets: Iterable[Secret]) -> AsyncGenerator[Recorder]:
    """Write a trace while the block runs. Raises TraceError where it cannot be written."""
    from navtalk_proto.tracing.output import TraceOutput

    output = TraceOutput(
        options,
        secrets=secrets,
        flag=Flag,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
    )
    path = str(options.path)
    await trio.to_thread.run_sync(_begin, path)

    async def write(writes: list[Write]) -> None:
        await trio.to_thread.run_sync(_write, path, writes)

    async def run() -> None:
        # The rest is written also when we are cancelled: it is little, and says how it ended.
        with trio.CancelScope(shield=True):
            await output.run(write)

    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                yield output.recorder
            finally:
                output.close()
    except BaseExceptionGroup as group:
        failure = bare(group)
    finally:
        if output.error is not None:
            log.warning("! the trace %s is incomplete: %s", path, output.error)
    if failure is not None:
        raise_unchanged(failure)


@asynccontextmanager
async def session_trace(
    trace: str | Path | TraceOptions | None, secrets: Iterable[Secret]
) -> AsyncGenerator[Recorder | None]:
    """Trace one session of a server into a new file; None where there is none, or cannot be."""
    async with AsyncExitStack() as stack:
        recorder = None
        if trace is not None:
            from navtalk_proto.tracing.records import TraceError

            try:
                options = await new_trace(trace)
                recorder = await stack.enter_async_context(trace_file(options, secrets))
            except TraceError as error:
                log.warning("! a session goes on without a trace: %s", error)
        yield recorder


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _begin(path: str) -> None:
    from navtalk_proto.tracing.rotation import SUFFIXES

    with _writable(path):
        with open(path, "w", encoding="utf-8"):
            pass
        for suffix in SUFFIXES:
            Path(path + suffix).unlink(missing_ok=True)


@contextmanager
def _writable(path: str | Path) -> Generator[None]:
    from navtalk_proto.tracing.records import TraceError

    try:
        yield
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
