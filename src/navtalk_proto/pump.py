"""The part of a driver that no loop shapes: inputs into the core, actions out of it.

A driver of an adapter *is* a pump that runs three things of its loop besides: a task that receives,
a task that sends, and one timer. An embedder with a loop of its own can do the same; one with a
blocking loop needs less (``examples/embed_blocking.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, TypeVar

from navtalk_proto.actions import (
    AbortTransport,
    Action,
    CloseTransport,
    Emit,
    MediaCommand,
    MediaResult,
    SendText,
)
from navtalk_proto.connection import Connection
from navtalk_proto.engine import EngineCallbacks
from navtalk_proto.errors import LocalProtocolError, SessionClosedError
from navtalk_proto.event_buffer import EventBuffer, Flag
from navtalk_proto.events import Closed, Event
from navtalk_proto.exception_groups import unwrap
from navtalk_proto.inputs import (
    BinaryReceived,
    Input,
    IntentGiven,
    MediaDone,
    MediaFailed,
    MediaHappened,
    TextReceived,
    TimePassed,
    TransportClosed,
)
from navtalk_proto.intents import Close, Intent
from navtalk_proto.limits import KIB
from navtalk_proto.media import MediaEvent, MediaKind, OpId
from navtalk_proto.secret import Secret
from navtalk_proto.stats import MediaStats
from navtalk_proto.transport import TransportClosedError

if TYPE_CHECKING:
    from navtalk_proto.tracing.recorder import Recorder, Recording

__all__ = ["OUTGOING_HIGH_WATER", "Carrier", "CoreInput", "Observer", "Pump"]

T = TypeVar("T")

OUTGOING_HIGH_WATER: Final = 256 * KIB
"""Characters that may wait for the socket before senders wait: about 4 s of base64 audio."""


class CoreInput(Protocol):
    """A method of a machine, complete but for the time."""

    def __call__(self, *, now: float) -> None:
        """Give the input."""
        ...


class Observer:
    """Calls several functions with each event, in order; one that raised is not called again."""

    def __init__(self, *observers: Callable[[Event], None] | None) -> None:
        self._observers = [one for one in observers if one is not None]

    def add(self, observer: Callable[[Event], None]) -> None:
        """One more, called last."""
        self._observers.append(observer)

    def __call__(self, event: Event) -> None:
        """Tell everybody, then raise what one raised; what several raised as an ExceptionGroup."""
        failures: list[Exception] = []
        for observer in tuple(self._observers):
            returned = False
            try:
                observer(event)
                returned = True
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
            finally:
                if not returned:
                    self._observers.remove(observer)
        if failures:
            raise unwrap(ExceptionGroup("several observers failed", failures))


class Carrier:
    """What carries a session: one pump, or a succession of them."""

    flag: ClassVar[Callable[[], Flag]]
    """Makes something to wait for on the loop."""

    core: Connection
    """The newest connection."""
    events: EventBuffer
    end: Closed | None
    """How the session ended; None while it lives."""
    secrets: tuple[Secret, ...] = ()
    """What no trace of this session may show: its licence."""

    @property
    def losses(self) -> int:
        """How many connections were lost and are, or will be, replaced."""
        return 0

    def time(self) -> float:
        """The loop's monotonic seconds."""
        raise NotImplementedError

    def send(self, intent: Intent) -> None:
        """Give an intent to the core. Raises what the core raises."""
        raise NotImplementedError

    async def room(self) -> None:
        """Wait until the socket has taken most of what was sent.

        Raises SessionClosedError when the session ends meanwhile.
        """
        raise NotImplementedError

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the session; returns when the core is closed, at the latest after CLOSE's timer."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Something of ours failed: the driver is to stop and raise it."""
        raise NotImplementedError

    def begin_trace(self, recorder: Recorder) -> None:
        """Record what happens from now on, until :meth:`end_trace`."""
        raise NotImplementedError

    def end_trace(self, recorder: Recorder) -> None:
        """Record no more for this one."""
        raise NotImplementedError

    def check_kept(self, losses: int) -> None:
        """Raise SessionLostError if a connection was lost since there were so many losses."""

    def check_up(self) -> None:
        """Raise SessionLostError while a lost connection is not replaced."""

    def retry_now(self) -> None:
        """Wait no longer for the next attempt to reconnect."""
        raise LocalProtocolError("this session was opened without reconnect")

    def media_stats(self) -> MediaStats:
        """What the newest connection's engine measured; empty without media."""
        return MediaStats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Have the newest connection's engine tell of sound and movement; None ends it."""

    def renewed(self, open: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
        """What `open` gives, and again from each connection that takes a lost one's place."""
        return open()

    def follow(self, started: Callable[[], None]) -> Callable[[], None]:
        """Call `started`, which must not raise, when another connection takes a lost one's place:
        before anything of it comes. Returns what ends that."""
        return lambda: None


class Pump(Carrier):
    """Calls the core, drains its actions, and carries out what needs no waiting.

    Between an input and its drain nothing else runs. What carrying out an action raises does not
    reach whoever happened to give the input: it is kept in :attr:`failures` and ends the driver.
    An observer may give an input: its actions are carried out after those that came before.
    """

    def __init__(
        self,
        core: Connection,
        *,
        observe: Callable[[Event], None],
        events: EventBuffer | None = None,
    ) -> None:
        """`events` is where they go instead of into a buffer of this pump's own."""
        flag = type(self).flag
        self.core: Connection = core
        self.events: EventBuffer = EventBuffer(flag) if events is None else events
        self.end: Closed | None = None
        """How the session ended; None while it lives."""
        self.failures: list[Exception] = []
        self.over: Flag = flag()
        """Set when the core is closed, or something of ours failed: the driver is to stop."""
        self._observe = observe
        self._closed = flag()
        self._begun = False
        """The core was given an input."""
        self._recordings: dict[Recorder, Recording] = {}
        self._actions: deque[Action] = deque()
        self._performing = False
        self._outgoing: deque[SendText | CloseTransport] = deque()
        self._outgoing_size = 0
        self._received_size = 0
        self._outgoing_wake = flag()
        self._outgoing_room = flag()
        self._outgoing_room.set()

    # ---- what an adapter fills in

    def rearm(self, when: float | None) -> None:
        """Call :meth:`timeout` at `when`, and not at any time asked for before."""
        raise NotImplementedError

    def execute(self, command: MediaCommand) -> None:
        """Hand a command to the engine."""
        raise NotImplementedError

    # ---- the application's side

    def send(self, intent: Intent) -> None:
        """Give an intent to the core. Raises what the core raises."""
        self.give(IntentGiven(intent=intent))

    async def room(self) -> None:
        """Wait until the socket has taken most of what was sent.

        Raises SessionClosedError when the session ends meanwhile.
        """
        await self._outgoing_room.wait()
        if self.end is not None:
            raise SessionClosedError("the session is over")

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the session; returns when the core is closed, at the latest after CLOSE's timer."""
        if self.end is None:
            self.send(Close(code=code, reason=reason))
        await self._closed.wait()

    # ---- inputs

    def give(self, given: Input) -> None:
        """One input of the core, and everything that follows from it. Raises what the core does."""
        self._begun = True
        if self._recordings:
            self._give_recorded(given)
        else:
            given.give(self.core, now=self.time())
            self._actions.extend(self.core.actions())
        if not self._performing:
            self._performing = True
            try:
                self._perform_all()
            finally:
                self._performing = False
        self.rearm(self.core.next_timeout())

    def _give_recorded(self, given: Input) -> None:
        now = self.time()
        raised: Exception | None = None
        try:
            given.give(self.core, now=now)
        except Exception as error:
            raised = error
            raise
        finally:
            actions = self.core.actions()
            self._actions.extend(actions)
            for recorder, recording in tuple(self._recordings.items()):
                try:
                    recording.happened(given, actions, now=now, raised=raised)
                    if recording.sample_due(now):
                        recording.sample(
                            now=now,
                            outgoing=self._outgoing_size,
                            events=len(self.events),
                            media=self.media_stats(),
                        )
                except Exception as error:  # noqa: BLE001 - told in the trace
                    # A call is worth more than its trace, which says that it ends here, and why.
                    recorder.broken(error)
                    self.end_trace(recorder)

    def begin_trace(self, recorder: Recorder) -> None:
        """Record what happens from now on, until :meth:`end_trace`."""
        recording = recorder.connection(self.core, now=self.time(), complete=not self._begun)
        self._recordings[recorder] = recording

    def end_trace(self, recorder: Recorder) -> None:
        """Record no more for this one."""
        self._recordings.pop(recorder, None)

    def guarded(self, given: Input) -> None:
        """An input from a callback of the loop: what the core raises ends the driver."""
        try:
            self.give(given)
        except Exception as error:  # noqa: BLE001 - raised by the driver
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Something of ours failed: the driver is to stop and raise it."""
        self.failures.append(error)
        self.over.set()

    def timeout(self) -> None:
        """The timer fired."""
        self.guarded(TimePassed())

    def received(self, message: str | bytes) -> None:
        """The transport received a message."""
        if isinstance(message, str):
            self._received_size = len(message)
            try:
                self.give(TextReceived(text=message))
            finally:
                self._received_size = 0
        else:
            self.give(BinaryReceived(size=len(message)))

    def lost(self, closed: TransportClosedError) -> None:
        """The transport is closed."""
        self.give(
            TransportClosed(code=closed.code, reason=closed.reason, violation=closed.violation)
        )

    def dropped(self) -> None:
        """The driver stops, for whatever reason: the core still tells its end, once."""
        if self.end is None:
            self.guarded(TransportClosed(code=None, reason=""))

    def engine_callbacks(self) -> EngineCallbacks:
        """Where an engine reports to, on the driver's loop."""

        def done(op: OpId, result: MediaResult) -> None:
            self.guarded(MediaDone(op=op, result=result))

        def failed(op: OpId, reason: str) -> None:
            self.guarded(MediaFailed(op=op, reason=reason))

        def event(event: MediaEvent) -> None:
            self.guarded(MediaHappened(event=event))

        return EngineCallbacks(done=done, failed=failed, event=event)

    # ---- outputs

    def _perform_all(self) -> None:
        while self._actions:
            try:
                self._perform(self._actions.popleft())
            except Exception as error:  # noqa: BLE001 - raised by the driver
                # The rest is still carried out: the end of the session may be in it.
                self.fail(error)

    def _perform(self, action: Action) -> None:
        match action:
            case SendText():
                self._outgoing_size += len(action.text)
                self._outgoing.append(action)
                self._outgoing_wake.set()
                if self._outgoing_size > OUTGOING_HIGH_WATER:
                    self._outgoing_room.clear()
            case CloseTransport():
                self._outgoing.append(action)
                self._outgoing_wake.set()
                # What still arrives is ignored by the core, and the far end's close is behind it.
                self.events.release()
            case AbortTransport():
                pass  # Closed follows in the same list, and the driver drops the transport then.
            case Emit():
                try:
                    self._observe(action.event)
                finally:
                    if isinstance(action.event, Closed):
                        self.end = action.event
                        self._closed.set()
                        self.over.set()
                        self._outgoing_room.set()
                    # The first event of a message stands for all that its events hold of it.
                    size, self._received_size = self._received_size, 0
                    self.events.put(action.event, size)
            case _:
                self.execute(action)

    async def outgoing(self) -> SendText | CloseTransport:
        """The next thing for the transport, in order; for the one task that sends."""
        while not self._outgoing:
            self._outgoing_wake.clear()
            await self._outgoing_wake.wait()
        return self._outgoing.popleft()

    def sent(self, action: SendText) -> None:
        """The transport took a message."""
        self._outgoing_size -= len(action.text)
        if self._outgoing_size <= OUTGOING_HIGH_WATER // 2:
            self._outgoing_room.set()
