"""A trace as rows for people: who did what to whom, when, how much of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

import attrs
from attrs import evolve, frozen

from navtalk_proto.actions import (
    AbortTransport,
    CloseTransport,
    Emit,
    SendText,
)
from navtalk_proto.events import MessageReceived
from navtalk_proto.inputs import (
    BinaryReceived,
    IntentGiven,
    MediaDone,
    MediaFailed,
    MediaHappened,
    TextReceived,
    TimePassed,
)
from navtalk_proto.secret import Secret
from navtalk_proto.tracing.records import (
    ActionRecord,
    ConnectionBegan,
    Gap,
    Header,
    InputRecord,
    Record,
    Sample,
    Told,
)

__all__ = ["Row", "message_type", "note", "printable", "rows"]

NOTE: Final = 120
"""Characters of a note."""


@frozen(kw_only=True)
class Row:
    """One thing that happened. `time` is seconds since the trace began."""

    line: int
    time: float
    connection: int
    direction: str
    """``received``, ``sent``, ``event``, ``intent``, ``engine``, ``command``, ``timer`` or
    ``trace``."""
    event: str
    size: int | None = None
    """Characters of the message, or bytes of the audio."""
    note: str = ""
    count: int = 1
    """How many of these followed each other."""


def rows(records: Iterable[tuple[int, Record]]) -> list[Row]:
    """Every record as a row, but for what says the same twice; equal neighbours are one row."""
    start: float | None = None
    now = 0.0
    found: list[Row] = []
    for line, record in records:
        moment = getattr(record, "now", None)
        if moment is not None:
            start = moment if start is None else start
            now = moment - start
        row = _row(line, now, record)
        if row is None:
            continue
        last = found[-1] if found else None
        if (
            last is not None
            and (last.direction, last.event, last.connection)
            == (row.direction, row.event, row.connection)
            and row.event not in ("gap",)
        ):
            size = None if last.size is None else last.size + (row.size or 0)
            found[-1] = evolve(last, count=last.count + 1, size=size, note=row.note or last.note)
        else:
            found.append(row)
    return found


def _row(line: int, now: float, record: Record) -> Row | None:
    connection = getattr(record, "connection", 0)

    def row(direction: str, event: str, about: str = "", size: int | None = None) -> Row:
        return Row(
            line=line,
            time=now,
            connection=connection,
            direction=direction,
            event=printable(event),
            size=size,
            note=about,
        )

    match record:
        case Header():
            versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
            return row("trace", "begins", printable(f"{record.started}; {versions}"))
        case ConnectionBegan():
            whole = "" if record.complete else ", in mid-session"
            return row("trace", "connection", f"{record.role.value}{whole}")
        case Gap():
            return row("trace", "gap", printable(record.reason))
        case Sample():
            return row(
                "trace", "sample", f"outgoing {record.outgoing}, events {record.events} waiting"
            )
        case Told():
            return row("event", type(record.event).__name__, note(record.event))
        case InputRecord():
            raised = f"refused: {record.raised}" if record.raised else ""
            match record.input:
                case TextReceived(text=text):
                    shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
                    return row("received", message_type(shown), raised, len(text))
                case BinaryReceived(size=size):
                    return row("received", "binary", raised, size)
                case IntentGiven(intent=intent):
                    audio = getattr(intent, "pcm", None)
                    return row(
                        "intent",
                        type(intent).__name__,
                        raised or note(intent),
                        None if audio is None else len(audio),
                    )
                case MediaHappened(event=happened):
                    return row("engine", type(happened).__name__, note(happened))
                case MediaDone(op=op):
                    return row("engine", "done", f"operation {op}")
                case MediaFailed(op=op, reason=reason):
                    return row("engine", "failed", printable(f"operation {op}: {reason}"))
                case TimePassed():
                    return row("timer", "timeout")
                case other:
                    return row("received", type(other).__name__, note(other))
        case ActionRecord():
            match record.action:
                case Emit(event=MessageReceived()):
                    return None  # The received message is a row already.
                case Emit(event=event):
                    return row("event", type(event).__name__, note(event))
                case SendText(text=text, kind=kind):
                    return row("sent", kind, "", len(text))
                case CloseTransport() | AbortTransport() as action:
                    return row("sent", type(action).__name__, note(action))
                case command:
                    return row("command", type(command).__name__, note(command))


def message_type(text: str) -> str:
    """The type of a message, for a label."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "not JSON"
    kind = value.get("type") if isinstance(value, dict) else None
    return kind[:NOTE] if isinstance(kind, str) else "no type"


def note(value: Any) -> str:
    """The short fields of something, for a line."""
    told = []
    for field in attrs.fields(type(value)):
        item = getattr(value, field.name)
        if isinstance(item, Enum):
            item = item.value
        if isinstance(item, str | int | float) and item not in ("", False):
            told.append(f"{field.name} {item}")
        elif isinstance(item, tuple) and item and not isinstance(item[0], Secret):
            told.append(f"{len(item)} {field.name}")
    return printable(", ".join(told))[:NOTE]


def printable(text: str) -> str:
    """A text of the far end's for a terminal, which must not obey it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
