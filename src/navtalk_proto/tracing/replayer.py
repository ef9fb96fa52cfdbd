"""Does a trace again: its inputs into fresh cores, and what they do beside what was recorded.

The core has no clock, no randomness and no I/O, so that equal inputs make equal actions: a
difference is a change of navtalk's, or of the trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from attrs import define, field, frozen

from navtalk_proto.actions import Action
from navtalk_proto.connection import Connection
from navtalk_proto.tracing.records import (
    ActionRecord,
    ConnectionBegan,
    Gap,
    Header,
    InputRecord,
    Record,
    Sample,
    TraceError,
    decode_line,
    encode_action,
)
from navtalk_proto.wire.messages import JsonValue

__all__ = ["MAX_CONNECTIONS", "Divergence", "Replayed", "read", "replay"]

MAX_CONNECTIONS: Final = 10_000
"""Connections of one trace: a session that reconnects every second for three hours."""


@frozen(kw_only=True)
class Divergence:
    """The first difference. Lines are counted from 1.

    `line` is the recorded action's, or the place where one is missing; `cause` is the line of the
    input that it should follow from. `recorded` and `replayed` are JSON values; None: nothing.
    """

    line: int
    cause: int
    connection: int
    recorded: JsonValue
    replayed: JsonValue


@define(kw_only=True)
class Replayed:
    """What a replay came to."""

    connections: int = 0
    """Connections that were done again."""
    incomplete: int = 0
    """Connections whose beginning is not in the trace."""
    inputs: int = 0
    actions: int = 0
    """Those that were the same."""
    gap: str = ""
    """Why the replay ended before the trace."""
    gap_line: int = 0
    divergence: Divergence | None = None


@define
class _Core:
    core: Connection
    expected: list[tuple[int, Action]] = field(factory=list)
    """Actions that the core did and the trace has not told yet, with the line of their input."""
    cause: int = 0


def read(lines: Iterable[str]) -> Iterator[tuple[int, Record]]:
    """The records of a trace with their line numbers. Raises TraceError.

    A Header comes first and once; connections are numbered in order, and begin before anything
    happens to them.
    """
    began = 0
    number = 0
    for number, text in enumerate(lines, 1):
        record = decode_line(text, line=number)
        if isinstance(record, Header) is not (number == 1):
            raise TraceError("a trace begins with its header, and has one", line=number)
        if isinstance(record, ConnectionBegan):
            began += 1
            if record.connection != began or began > MAX_CONNECTIONS:
                raise TraceError("the connections are not numbered from 1", line=number)
        elif isinstance(record, InputRecord | ActionRecord | Sample) and not (
            0 < record.connection <= began
        ):
            raise TraceError("of a connection that did not begin", line=number)
        yield number, record
    if not number:
        raise TraceError("the trace is empty")


def replay(lines: Iterable[str]) -> Replayed:
    """Do it again, up to the first difference or a gap.

    Raises TraceError for a trace that cannot be read, or where nothing in it can be replayed.
    """
    result = Replayed()
    cores: dict[int, _Core] = {}
    for line, record in read(lines):
        if isinstance(record, Gap):
            result.gap, result.gap_line = record.reason, line
            break
        if isinstance(record, ConnectionBegan):
            if record.complete:
                cores[record.connection] = _Core(_fresh(record, line))
                result.connections += 1
            else:
                result.incomplete += 1
        elif isinstance(record, InputRecord | ActionRecord):
            running = cores.get(record.connection)
            if running is None:
                continue
            if isinstance(record, InputRecord):
                found = _missing(running, record.connection, line) or _give(running, record, line)
                result.inputs += found is None
            else:
                found = _compare(running, record, line)
                result.actions += found is None
            if found is not None:
                result.divergence = found
                break
    else:
        for number, running in cores.items():
            found = _missing(running, number, line + 1)
            if found is not None:
                result.divergence = found
                break
    if not cores and result.divergence is None:
        raise TraceError(
            result.gap or "no connection was recorded from its beginning: nothing can be replayed"
        )
    return result


def _fresh(record: ConnectionBegan, line: int) -> Connection:
    try:
        return Connection(record.role, record.config, now=record.now)
    except Exception as error:  # noqa: BLE001 - a hostile configuration makes it raise anything
        wrong = type(error).__name__
    raise TraceError(f"no core can be made with this configuration ({wrong})", line=line)


def _give(running: _Core, record: InputRecord, line: int) -> Divergence | None:
    raised = None
    try:
        record.input.give(running.core, now=record.now)
    except Exception as error:  # noqa: BLE001 - compared with what was recorded
        raised = type(error).__name__
    running.cause = line
    running.expected += ((line, action) for action in running.core.actions())
    if raised == record.raised:
        return None
    return Divergence(
        line=line,
        cause=line,
        connection=record.connection,
        recorded=record.raised and {"raised": record.raised},
        replayed=raised and {"raised": raised},
    )


def _compare(running: _Core, record: ActionRecord, line: int) -> Divergence | None:
    recorded = encode_action(record.action)
    replayed: JsonValue = None
    cause = running.cause
    if running.expected:
        cause, action = running.expected.pop(0)
        replayed = encode_action(action)
    if recorded == replayed:
        return None
    return Divergence(
        line=line,
        cause=cause,
        connection=record.connection,
        recorded=recorded,
        replayed=replayed,
    )


def _missing(running: _Core, connection: int, line: int) -> Divergence | None:
    """An action that the trace should have told before this line."""
    if not running.expected:
        return None
    cause, action = running.expected[0]
    return Divergence(
        line=line,
        cause=cause,
        connection=connection,
        recorded=None,
        replayed=encode_action(action),
    )
