"""One session over several connections: what is lost is opened again, behind the same face.

Theory of operation
===================

1. An adapter's ``connect(reconnect=...)`` holds one of these where it would hold a driver. It
   carries the session by one driver (a :class:`~navtalk_proto.pump.Pump`) at a time; each has a
   transport, a core and an engine of its own, and is left, with all that waits in it, before the
   next one is begun. So nothing that was queued for one connection can reach another.

2. The events of all drivers are told as one sequence, but for their ends: where another attempt
   follows, Reconnecting is told instead of Closed. When and whether is the
   :class:`~navtalk_proto.reconnect.Reconnector`'s to say.

3. A call belongs to the connection that it began in. One that waits when that is lost raises
   SessionLostError. One that begins while there is no usable connection waits for the next.

4. A new connection is given what the application last configured, and what the user said so far
   (protocol.md 3.3, 5.9). It answers with the m-lines that an offer of ours last agreed on, and
   offers them again where the server's own offer has no room for them.

5. What fails inside us is not reconnected: a broken engine, transport or observer ends the session
   with its exception, as it does without reconnecting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, runtime_checkable

from attrs import evolve

from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection, check_close
from navtalk_proto.errors import (
    ConnectError,
    ConnectTimeoutError,
    HandshakeRefusedError,
    RefusedError,
    SessionClosedError,
    SessionLostError,
)
from navtalk_proto.event_buffer import EventBuffer, Flag
from navtalk_proto.events import CloseCause, Closed, Event, Negotiated, Ready, Reconnected, Usable
from navtalk_proto.exception_groups import unwrap
from navtalk_proto.history import History
from navtalk_proto.intents import Close, Intent, Negotiate
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import MediaKind, MediaState
from navtalk_proto.opening import Opening
from navtalk_proto.pump import Carrier, Pump
from navtalk_proto.reconnect import Phase, Reconnector, ReconnectPolicy
from navtalk_proto.stats import MediaStats
from navtalk_proto.wire.messages import (
    InputConfig,
    InputFunctionCall,
    JsonObject,
    SessionUpdate,
)

if TYPE_CHECKING:
    from navtalk_proto.tracing.recorder import Recorder

__all__ = ["Succession", "reconfigured", "reconnect_policy"]

D = TypeVar("D", bound=Pump)
T = TypeVar("T")

_LIVE: Final = (Phase.LIVE, Phase.MEDIA_LOST)


def reconnect_policy(given: bool | ReconnectPolicy | None) -> ReconnectPolicy | None:
    """What ``connect(reconnect=...)`` was given, as a policy; None: do not reconnect.

    Raises TypeError for something else.
    """
    if given is None or isinstance(given, ReconnectPolicy):
        return given
    if isinstance(given, bool):
        return ReconnectPolicy() if given else None
    raise TypeError(f"reconnect is a bool or a ReconnectPolicy, not {type(given).__name__}")


def reconfigured(config: ClientConfig, intent: Intent) -> ClientConfig:
    """The configuration of a later connection, after `intent` was sent on this one.

    The newest list of tools replaces the others, whichever message it came with.
    """
    match intent:
        case InputConfig():
            own = config.input_config or InputConfig()
            merged = InputConfig(
                voice=own.voice if intent.voice is None else intent.voice,
                prompt=own.prompt if intent.prompt is None else intent.prompt,
                tools=own.tools if intent.tools is None else intent.tools,
            )
            config = evolve(config, input_config=merged)
            return config if intent.tools is None else evolve(config, input_function_call=None)
        case InputFunctionCall():
            before = config.input_config
            if before is not None:
                before = evolve(before, tools=None)
            return evolve(config, input_config=before, input_function_call=intent)
        case _:
            return config


class Succession(Carrier, Generic[D]):
    """Carries a session over one driver after the other; `observe` sees every event that is told.

    An adapter opens the first connection with :meth:`open`, starts its driver, and then runs
    :meth:`run` beside the application; :meth:`close` ends it.
    """

    def __init__(
        self,
        policy: ReconnectPolicy,
        *,
        jitter: Callable[[], float],
        config: ClientConfig,
        history: History,
        observe: Callable[[Event], None],
    ) -> None:
        """`config` is the first connection's; the `history` is what the session writes into."""
        flag = type(self).flag
        self.end = None
        self.failures: list[Exception] = []
        """What ended it, where something of ours failed; once run() has ended."""
        self.opening: Opening
        """What the newest connection is waited for with."""
        self.driver: D
        """The newest one."""
        self._shared = _Events(flag, ended=self._ended, after=self._after)
        self.events: EventBuffer = self._shared
        self._reconnector = Reconnector(policy, jitter=jitter)
        # A connection whose media is lost is worth nothing to somebody who reconnects.
        self._config = evolve(config, end_on_media_loss=True)
        self._history = history
        self._notes = tuple(message for message in config.history if message.role != "user")
        """What was replayed at first and is no turn of the user's: not in the history."""
        self._update: JsonObject = {}
        """All that was sent as session.update, merged."""
        self._agreed = False
        """Whether the configuration's m-lines are those of an offer of ours, and not its own."""
        self._offer_due = False
        """The newest connection is to have them too, and we have not looked at it yet."""
        self._observe = observe
        self._recorders: list[Recorder] = []
        self._followers: list[Callable[[], None]] = []
        self._losses = 0
        self._serial = 0
        """How many connections were usable so far."""
        self._close: Close | None = None
        self._last: Closed | None = None
        self._between = False
        """No driver runs."""
        self._faults: list[Exception] = []
        """What failed meanwhile: raised by run(), not by a driver."""
        self._closed = flag()
        self._up = flag()
        """Set when a connection is usable, and at the end; for those who wait for either."""
        self._wake = flag()

    # ---- what an adapter fills in

    def rearm(self, when: float | None) -> None:
        """Call :meth:`timeout` at `when`, and not at any time asked for before."""
        raise NotImplementedError

    async def begin(self, config: ClientConfig) -> tuple[D, Opening]:
        """Open a transport, and make a driver for it with :attr:`events` and :meth:`heard`.

        Raises ConnectError, also when :meth:`stop_beginning` is called meanwhile.
        """
        raise NotImplementedError

    def stop_beginning(self) -> None:
        """Let :meth:`begin` come to its end at once; nothing while it does not run."""
        raise NotImplementedError

    async def start(self, driver: D) -> None:
        """Tell a driver that its transport is open. What raises leaves nothing of it."""
        raise NotImplementedError

    async def drive(self, driver: D) -> None:
        """Run a driver until nothing of it is left; raises what failed in it."""
        raise NotImplementedError

    # ---- what the session asks

    @property
    def losses(self) -> int:
        """How many connections were lost; one that is closing, and not by us, counts."""
        closing = self._reconnector.phase in _LIVE and not self.core.usable
        return self._losses + (closing and self._close is None)

    def check_kept(self, losses: int) -> None:
        """Raise SessionLostError if a connection was lost since there were so many losses."""
        if self.losses != losses and not self._is_ending():
            raise self._gone()

    def check_up(self) -> None:
        """Raise SessionLostError while no connection is usable."""
        if not self.core.usable and not self._is_ending():
            raise self._gone()

    def send(self, intent: Intent) -> None:
        """Give an intent to the newest core. Raises what that raises, and SessionLostError."""
        if isinstance(intent, Close):
            if self.end is not None:
                raise self._gone()
            self._leave(intent)
            return
        config, update = reconfigured(self._config, intent), self._update
        # What is sent piece by piece is sent again as one message: that has to be possible.
        if isinstance(intent, SessionUpdate):
            update = {**update, **intent.session}
            self.core.check(SessionUpdate(session=update))
        elif isinstance(intent, InputConfig) and config.input_config is not None:
            self.core.check(config.input_config)
        try:
            self.driver.send(intent)
        except SessionClosedError:
            raise self._gone() from None
        self._config, self._update = config, update
        if isinstance(intent, Negotiate):
            self._offer_due = False

    async def room(self) -> None:
        """Wait for a usable connection, then until its socket has taken most of what was sent.

        Raises SessionLostError when that one is lost meanwhile, SessionClosedError when the session
        ends.
        """
        while not self.core.usable:
            if self._is_ending():
                raise self._gone()
            self._up.clear()
            await self._up.wait()
        losses = self.losses
        try:
            await self.driver.room()
        except SessionClosedError:
            raise self._gone() from None
        self.check_kept(losses)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the session; returns when it is over. Also while reconnecting: then at once."""
        if self.end is None:
            self._leave(Close(code=code, reason=reason))
        await self._closed.wait()

    def fail(self, error: Exception) -> None:
        """Something of ours failed: the session is to end and raise it."""
        if self._between:
            self._faults.append(error)
            self.stop_beginning()
            self._wake.set()
        else:
            self.driver.fail(error)

    def begin_trace(self, recorder: Recorder) -> None:
        """Record this connection, from now on, and those that follow it."""
        self._recorders.append(recorder)
        if self.driver.end is None:
            self.driver.begin_trace(recorder)

    def end_trace(self, recorder: Recorder) -> None:
        """Record no more for this one."""
        self._recorders.remove(recorder)
        self.driver.end_trace(recorder)

    def retry_now(self) -> None:
        """Wait no longer for the next attempt."""
        self._reconnector.retry_now()
        self._moved()

    def media_stats(self) -> MediaStats:
        """What the newest connection's engine measured."""
        return self.driver.media_stats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        """Have the newest connection's engine tell of sound and movement; None ends it."""
        self.driver.await_answer(told)

    def renewed(self, open: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
        """What `open` gives, and again from each connection that takes a lost one's place."""
        return _Renewed(self, open)

    def follow(self, started: Callable[[], None]) -> Callable[[], None]:
        """Call `started` when another connection takes a lost one's place; see there."""
        self._followers.append(started)

        def stop() -> None:
            self._followers.remove(started)

        return stop

    async def newer(self, serial: int) -> int | None:
        """Wait for a usable connection after the `serial`-th; its number, None: there is none."""
        while not (self._serial > serial and self.core.usable):
            if self.end is not None:
                return None
            self._up.clear()
            await self._up.wait()
        return self._serial

    @property
    def serial(self) -> int:
        """How many connections were usable so far."""
        return self._serial

    # ---- the adapter's side

    async def open(self) -> tuple[D, Opening]:
        """Open the first connection: its driver, to be started, and what is to be waited for."""
        return self._adopt(*await self.begin(self._config))

    def _adopt(self, driver: D, opening: Opening) -> tuple[D, Opening]:
        self.driver, self.opening = driver, opening
        self.core: Connection = driver.core
        self._offer_due = self._agreed
        self._shared.hold()
        for recorder in self._recorders:
            driver.begin_trace(recorder)
        return driver, opening

    def heard(self, event: Event) -> None:
        """The observer of every driver. Its end is not the session's: see `_ended`."""
        if not isinstance(event, Closed):
            self.opening.observe(event)
            self._observe(event)

    def timeout(self, *, now: float) -> None:
        """The timer fired."""
        try:
            self._reconnector.handle_timeout(now=now)
            self._moved()
        except Exception as error:  # noqa: BLE001 - raised by run()
            self.fail(error)

    async def run(self) -> None:
        """Drive one connection after the other until the last. Raises what failed in one.

        Also then, and when this is cancelled, the end is told.
        """
        try:
            while True:
                await self.drive(self.driver)
                if self.end is not None:
                    return
                self._between = True
                if not await self._renew():
                    return
                self._between = False
        except Exception as error:
            self.failures.append(error)
            raise
        finally:
            self._finish(self._last or Closed(cause=CloseCause.LOCAL, code=None, reason=""))

    async def _renew(self) -> bool:
        """Open the next connection, however many attempts it takes; False: that was the last."""
        while True:
            while self._reconnector.phase is Phase.WAITING and not self._must_stop():
                self._wake.clear()
                await self._wake.wait()
            if self._stopped():
                return False
            try:
                driver, opening = await self.begin(self._next_config())
            except ConnectError as error:
                if self._stopped() or not self._wait_on(error):
                    return False
                continue
            self._adopt(driver, opening)
            await self.start(driver)
            for started in tuple(self._followers):
                started()
            if self._must_stop():
                self._hang_up(self._close or Close())
            return True

    # ---- inside

    def _next_config(self) -> ClientConfig:
        said = self._history.replay(limits=self._config.limits)
        return evolve(self._config, history=(*self._notes, *said))

    def _is_ending(self) -> bool:
        return self.end is not None or self._close is not None

    def _must_stop(self) -> bool:
        return self._is_ending() or bool(self._faults)

    def _stopped(self) -> bool:
        """Whether the application, or a failure of ours, ends the session between connections."""
        if self._faults:
            raise unwrap(ExceptionGroup("the session failed while reconnecting", self._faults))
        if self._close is not None:
            self._finish(Closed(cause=CloseCause.LOCAL, code=None, reason=self._close.reason))
        return self.end is not None

    def _gone(self) -> SessionClosedError:
        if self._is_ending():
            why = self._reconnector.gave_up
            return SessionClosedError("the session is over" + (f": {why}" if why else ""))
        return SessionLostError("the session was lost; another is being opened in its place")

    def _leave(self, intent: Close) -> None:
        check_close(intent)
        self._close = self._close or intent
        self.stop_beginning()
        self._wake.set()
        self._up.set()
        if self.driver.end is None:
            self.driver.send(intent)

    def _hang_up(self, intent: Close) -> None:
        """Close the newest connection, and not the session."""
        if self.core.state not in (State.CLOSING, State.CLOSED):
            self.driver.send(intent)

    def _wait_on(self, error: ConnectError) -> bool:
        """An attempt opened no transport; whether another follows."""
        told = self._reconnector.failed(error, now=self.time())
        self.rearm(self._reconnector.next_timeout())
        if told is None:
            self._finish(self._given_up(_end_of(error)))
            return False
        self._tell(told)
        return True

    def _after(self, event: Event) -> None:
        """An event of the newest driver was told."""
        now, phase = self.time(), self._reconnector.phase
        if isinstance(event, Ready) and self._update:
            # Here, where it leaves at once: what waits for READY has a limit of its own.
            self.driver.send(SessionUpdate(session=self._update))
        if isinstance(event, Negotiated) and event.media:
            self._config, self._agreed = evolve(self._config, media=event.media), True
        if isinstance(event, Usable):
            self._reconnector.usable(now=now)
            self._serial += 1
            self._up.set()
            if phase is Phase.TRYING:
                attempts = self._reconnector.attempts
                self._tell(Reconnected(session_id=self.core.session_id, attempts=attempts))
        elif phase in _LIVE:
            self._reconnector.observe(event, now=now)
        elif phase is Phase.TRYING and self.opening.failure is not None:
            self._hang_up(Close())
        self._offer_what_was_agreed()
        self.rearm(self._reconnector.next_timeout())

    def _offer_what_was_agreed(self) -> None:
        """Where the server's offer has no room for it: once, when an offer disturbs nothing."""
        core = self.core
        up = core.state is State.READY and core.media_state is MediaState.CONNECTED
        if self._offer_due and up:
            self._offer_due = False
            if not core.carries(self._config.media):
                self.driver.send(Negotiate(media=self._config.media))

    def _given_up(self, end: Closed) -> Closed:
        """The end, in the words of who gave up."""
        return evolve(end, reason=self._reconnector.gave_up or end.reason)

    def _ended(self, closed: Closed) -> None:
        """The newest driver's connection is over."""
        self._last = closed
        if self._close is not None or self.driver.failures:
            self._finish(closed)
            return
        now, phase = self.time(), self._reconnector.phase
        if phase is Phase.TRYING:
            self.opening.observe(closed)
            assert self.opening.failure is not None, "Closed decides"
            told = self._reconnector.failed(self.opening.failure, now=now)
        else:
            self._losses += phase in _LIVE
            told = self._reconnector.lost(closed, now=now)
        self.rearm(self._reconnector.next_timeout())
        if told is None:
            self._finish(self._given_up(closed))
        else:
            self._tell(told)

    def _moved(self) -> None:
        if self._reconnector.phase is Phase.MEDIA_LOST:
            self._hang_up(Close(reason="media was lost"))
        self._wake.set()
        self.rearm(self._reconnector.next_timeout())

    def _tell(self, event: Event) -> None:
        for recorder in self._recorders:
            recorder.told(event, now=self.time())
        try:
            self._observe(event)
        finally:
            self._shared.tell(event)

    def _finish(self, end: Closed) -> None:
        """Tell the end, once."""
        if self.end is not None:
            return
        self._reconnector.over()
        self.rearm(None)
        for recorder in self._recorders:
            recorder.told(end, now=self.time())
        try:
            self.opening.observe(end)
            self._observe(end)
        finally:
            self.end = end
            self._shared.tell(end)
            self._closed.set()
            self._up.set()


def _end_of(error: ConnectError) -> Closed:
    """The end of a session that could not be opened again, where no connection says it."""
    cause = CloseCause.REMOTE
    if isinstance(error, RefusedError | HandshakeRefusedError):
        cause = CloseCause.REFUSED
    elif isinstance(error, ConnectTimeoutError):
        cause = CloseCause.TIMEOUT
    return Closed(cause=cause, code=None, reason=str(error))


class _Events(EventBuffer):
    """The events of all connections; the pump of each puts them here."""

    def __init__(
        self,
        flag: Callable[[], Flag],
        *,
        ended: Callable[[Closed], None],
        after: Callable[[Event], None],
    ) -> None:
        super().__init__(flag)
        self._connection_ended = ended
        self._after = after

    def put(self, item: Event, size: int = 0) -> None:
        """An event of the newest connection."""
        if isinstance(item, Closed):
            self._connection_ended(item)
            return
        super().put(item, size)
        self._after(item)

    def tell(self, item: Event) -> None:
        """An event of the session as a whole; Closed is the last.

        A reader that does not read holds no far end back meanwhile: above twice the high water the
        oldest give way, counted.
        """
        super().put(item)
        while len(self) > 2 * self.high_water:
            self._drop_oldest()


@runtime_checkable
class _Closable(Protocol):
    """What counts, or lets go of, what was held for its reader."""

    async def aclose(self) -> None: ...


class _Renewed(AsyncIterator[T]):
    """Items of one connection after the other; the iterator of a lost one is dropped.

    What that one still holds can be read until the next connection is usable, and no longer: a
    reader that was slow, or away, goes on with what is there now.
    """

    def __init__(self, succession: Succession[Any], open: Callable[[], AsyncIterator[T]]) -> None:
        self._succession = succession
        self._open = open
        # Opened when it is read: the engine of now may be closed by then, and its thread gone.
        self._serial = succession.serial - succession.core.usable
        self._items: AsyncIterator[T] | None = None
        self._over = False

    async def __anext__(self) -> T:
        while not self._over:
            if self._serial != self._succession.serial:
                await self._drop()
            if self._items is None:
                serial = await self._succession.newer(self._serial)
                if serial is None:
                    break
                self._serial, self._items = serial, self._open()
            try:
                return await anext(self._items)
            except StopAsyncIteration:
                self._items = None
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Read no more; what is held for this iterator is thrown away with it."""
        self._over = True
        await self._drop()

    async def _drop(self) -> None:
        items: object = self._items  # An iterator; what it can besides is for it to know.
        self._items = None
        if isinstance(items, _Closable):
            await items.aclose()
