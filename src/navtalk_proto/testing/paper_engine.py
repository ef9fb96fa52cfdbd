"""The strict engine as the media engine of an adapter, on any loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from navtalk_proto.actions import MediaCommand
from navtalk_proto.engine import EngineCallbacks, TrackCounters
from navtalk_proto.event_buffer import Flag
from navtalk_proto.media import Capabilities, MediaEvent, MediaKind
from navtalk_proto.stats import MediaStats
from navtalk_proto.testing.engine import StrictEngine

__all__ = ["PaperEngine"]


class _NoFrames:
    def __init__(self, ended: Flag) -> None:
        self._ended = ended

    def __aiter__(self) -> _NoFrames:
        return self

    async def __anext__(self) -> Any:
        await self._ended.wait()
        raise StopAsyncIteration


class PaperEngine:
    """A media engine that checks every command and moves no media; see StrictEngine.

    Each command ends on a later turn of the loop: `soon` calls back then. :attr:`held` keeps them
    from ending until :meth:`release`.
    """

    def __init__(
        self,
        callbacks: EngineCallbacks,
        *,
        soon: Callable[[Callable[[], None]], object],
        flag: Callable[[], Flag],
        strict: StrictEngine | None = None,
    ) -> None:
        self.strict: StrictEngine = strict or StrictEngine("p")
        self.held: bool = False
        self.closed: bool = False
        self.awaited: Callable[[MediaKind, float], None] | None = None
        self._callbacks = callbacks
        self._soon = soon
        self._ended = flag()

    @property
    def capabilities(self) -> Capabilities:
        """The strict engine's."""
        return self.strict.capabilities

    async def start(self) -> None:
        """Nothing to get ready."""

    def execute(self, command: MediaCommand) -> None:
        """Start a command. Raises EngineMisuseError, so that a test fails where it happened."""
        self.strict.execute(command)
        if not self.held:
            self._soon(self._step)

    def release(self) -> None:
        """End the commands that were held, and hold no more."""
        self.held = False
        self._soon(self._step)

    def fail(self, reason: str) -> None:
        """Fail the oldest command that waits; raises IndexError when none does."""
        command, _, why = self.strict.finish(fail=reason)
        assert why is not None
        self._callbacks.failed(command.op, why)

    def event(self, event: MediaEvent) -> None:
        """Report something that happened to the media on its own."""
        self._callbacks.event(event)

    def _step(self) -> None:
        if self.held or self.closed:
            return
        if self.strict.busy:
            command, result, reason = self.strict.finish()
            if reason is None:
                self._callbacks.done(command.op, result)
            else:
                self._callbacks.failed(command.op, reason)
        while self.strict.events:
            self._callbacks.event(self.strict.events.popleft())
        if self.strict.busy:
            self._soon(self._step)

    def frames(self, kind: MediaKind) -> AsyncIterator[Any]:
        """No frames; ends with the media."""
        return _NoFrames(self._ended)

    def stats(self) -> MediaStats:
        """Empty: no media moves."""
        return MediaStats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Remember who waits, in :attr:`awaited`: a test tells what it likes."""
        self.awaited = told

    def counters(self) -> Mapping[str, TrackCounters]:
        """Nothing is received."""
        return {}

    async def aclose(self) -> None:
        """End the media."""
        self.closed = True
        self._ended.set()
