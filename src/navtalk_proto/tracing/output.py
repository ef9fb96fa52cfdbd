"""From the recorder to the files, without touching either: what an adapter's trace is made of.

The lines wait in a bounded buffer; one task of the adapter takes them and has them written in a
thread. A disk that fails ends the trace, and not the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from attrs import field, frozen, validators

from navtalk_proto.event_buffer import Flag
from navtalk_proto.secret import Secret
from navtalk_proto.tracing.recorder import Recorder
from navtalk_proto.tracing.rotation import DEFAULT_SIZE, LEAST_SIZE, Rotation, Write
from navtalk_proto.tracing.scrubber import Scrubber

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TraceOptions", "TraceOutput", "trace_options"]


@frozen(kw_only=True)
class TraceOptions:
    """What ``connect(trace=...)`` takes besides a path.

    `text` and `audio` False leave out what was said, and voices and pictures: lengths stay. Audio
    is left out by default; licences and TURN credentials always are. `size` is the most that the
    files of the trace hold together, in characters.
    """

    path: str | Path
    text: bool = True
    audio: bool = False
    size: int = field(default=DEFAULT_SIZE, validator=validators.ge(LEAST_SIZE))


def trace_options(
    trace: str | Path | TraceOptions | None,
) -> TraceOptions | None:
    """What was given as ``trace=``, as options."""
    if trace is None or isinstance(trace, TraceOptions):
        return trace
    return TraceOptions(path=trace)


class TraceOutput:
    """One trace on its way to the disk."""

    def __init__(
        self,
        options: TraceOptions,
        *,
        secrets: Iterable[Secret],
        flag: Callable[[], Flag],
        started: str,
        versions: Mapping[str, str],
    ) -> None:
        """`started` and `versions` are those of :class:`Recorder`; `flag` is the loop's."""
        self._rotation = Rotation(options.size)
        self._wake = flag()
        self._over = False
        self.error: OSError | None = None
        """Why the trace ends before the session; None while all is well."""
        known = [secret.reveal() for secret in secrets]
        scrubber = Scrubber(known, text=options.text, audio=options.audio)
        self.recorder: Final = Recorder(self._add, scrubber, started=started, versions=versions)

    def _add(self, line: str) -> None:
        if self.error is None:
            self._rotation.add(line)
            self._wake.set()

    def close(self) -> None:
        """No line comes any more: :meth:`run` ends when the rest is written."""
        self._over = True
        self._wake.set()

    async def run(self, write: Callable[[list[Write]], Awaitable[None]]) -> None:
        """Have it all written by `write`, which may raise OSError: then the trace ends early."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            over = self._over
            writes = self._rotation.take()
            if writes and self.error is None:
                try:
                    await write(writes)
                except OSError as error:
                    self.error = error
            if over:
                return
