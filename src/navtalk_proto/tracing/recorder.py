"""Makes the lines of a trace out of what a session's pumps do.

One recorder per trace. A pump tells its recording of each input and of what it led to; whoever
writes the lines takes them from `write`, which is called at once and must be quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from navtalk_proto.actions import Action
from navtalk_proto.connection import Connection
from navtalk_proto.events import Event
from navtalk_proto.inputs import Input
from navtalk_proto.stats import MediaStats
from navtalk_proto.tracing.records import (
    ActionRecord,
    ConnectionBegan,
    Gap,
    Header,
    InputRecord,
    Record,
    Sample,
    Told,
    encode_line,
)
from navtalk_proto.tracing.scrubber import Scrubber

__all__ = ["SAMPLE_SECONDS", "Recorder", "Recording"]

SAMPLE_SECONDS: Final = 1.0
"""The least time between two samples of a connection."""


class Recorder:
    """One trace: a header, and the recordings of a session's connections."""

    def __init__(
        self,
        write: Callable[[str], None],
        scrubber: Scrubber,
        *,
        started: str,
        versions: Mapping[str, str],
    ) -> None:
        """`started` is the wall clock's time, ISO 8601; `versions` are those of the libraries."""
        self._write = write
        self.scrubber: Final = scrubber
        self._connections = 0
        python = "{}.{}.{}".format(*sys.version_info[:3])
        self.write(
            Header(versions={"python": python, **versions}, started=started, omitted=scrubber.omits)
        )

    def write(self, record: Record) -> None:
        """Write a record; it is to be scrubbed before."""
        self._write(encode_line(record))

    def connection(self, core: Connection, *, now: float, complete: bool) -> Recording:
        """Record a connection from now on; `complete`: it was given no input before."""
        self._connections += 1
        return Recording(self, core, number=self._connections, now=now, complete=complete)

    def broken(self, error: Exception) -> None:
        """Something could not be recorded: nothing of its connection is any more."""
        self.write(Gap(reason=f"this could not be recorded: {type(error).__name__}"))

    def told(self, event: Event, *, now: float) -> None:
        """The session told an event that is none of a connection's."""
        self.write(Told(now=now, event=self.scrubber.value(event)))


class Recording:
    """One connection in a trace; called by its pump."""

    def __init__(
        self, recorder: Recorder, core: Connection, *, number: int, now: float, complete: bool
    ) -> None:
        self._recorder = recorder
        self._number = number
        self._role = core.role
        self._limits = core.config.limits
        self._sampled = now
        recorder.write(
            ConnectionBegan(
                connection=number,
                now=now,
                role=core.role,
                complete=complete,
                config=recorder.scrubber.value(core.config),
            )
        )

    def happened(
        self, given: Input, actions: Iterable[Action], *, now: float, raised: Exception | None
    ) -> None:
        """The core was given an input and answered with `actions`, or raised."""
        scrubber = self._recorder.scrubber
        recorded = scrubber.input(given, role=self._role, limits=self._limits)
        if recorded is None:
            self._recorder.write(Gap(reason="a broken message is left out with its text"))
        else:
            self._recorder.write(
                InputRecord(
                    connection=self._number,
                    now=now,
                    input=recorded,
                    raised=None if raised is None else type(raised).__name__,
                )
            )
        for action in actions:
            clean = scrubber.action(action, role=self._role, limits=self._limits)
            self._recorder.write(ActionRecord(connection=self._number, action=clean))

    def sample_due(self, now: float) -> bool:
        """Whether it is time for a sample again."""
        return now - self._sampled >= SAMPLE_SECONDS

    def sample(self, *, now: float, outgoing: int, events: int, media: MediaStats) -> None:
        """What is counted now."""
        self._sampled = now
        self._recorder.write(
            Sample(
                connection=self._number,
                now=now,
                outgoing=outgoing,
                events=events,
                media=media,
            )
        )
