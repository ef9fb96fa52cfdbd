"""When a lost session is opened again, and whether: a policy without loop, clock or randomness.

1. OPENING is the first session on its way. If it fails, ``connect()`` raises: only what was usable
   once is opened again.
2. LIVE is a usable session. Media whose connection failed or closed has `media_timeout` seconds to
   flow again; then the session is to be closed by us (MEDIA_LOST): few servers survive a second
   offer on a dead connection. Silence on a connection that lives is the core's to judge
   (``ClientConfig.end_on_media_loss``).
3. WAITING and TRYING alternate until an attempt succeeds, is refused for good, or the time is up.
   What the last one failed of, and how many there were, is then in :attr:`Reconnector.gave_up`.
4. What is refused for good is what :attr:`NavTalkError.retryable` says: a bad licence and an empty
   account end it at once; too many connections, no worker, a failure of the service, a lost
   network, a deadline and the server's goodbye do not. A close of ours always does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from attrs import field, frozen, validators

from navtalk_proto.errors import ConnectError, RefusedError
from navtalk_proto.events import (
    CloseCause,
    Closed,
    Event,
    MediaLost,
    Notice,
    PeerClosing,
    ProtocolViolation,
    Reconnecting,
    TimedOut,
)
from navtalk_proto.media import MediaStarted, MediaState, MediaStateChanged

__all__ = ["Phase", "ReconnectPolicy", "Reconnector"]

_seconds = validators.gt(0.0)
_optional_seconds: Any = validators.optional(_seconds)


@frozen(kw_only=True)
class ReconnectPolicy:
    """How ``connect(reconnect=...)`` goes about it. All times are seconds.

    The delay before attempt n is ``first_delay * factor ** (n - 1)``, at most `longest_delay`, with
    *equal jitter*: half of it is fixed, the other half is drawn, so that clients that were lost
    together do not come back together, and none comes back at once.
    """

    first_delay: float = field(default=0.5, validator=_seconds)
    factor: float = field(default=2.0, validator=validators.ge(1.0))
    longest_delay: float = field(default=30.0, validator=_seconds)
    give_up_after: float | None = field(default=300.0, validator=_optional_seconds)
    """Since the loss. No attempt begins later; the last one begins then, if not before. None: never
    give up."""
    media_timeout: float = field(default=5.0, validator=_seconds)
    """How long media may take to flow again after its connection failed or closed. Media that falls
    silent without either has ``ClientConfig.stall_give_up``."""
    steady_after: float = field(default=10.0, validator=_seconds)
    """A session that was usable for so long was a success: delays and deadline begin anew after it.
    One that is lost earlier counts as one more failed attempt."""
    jitter: Callable[[], float] | None = field(default=None, repr=False, eq=False)
    """Returns a number in [0, 1), each time another. None: the adapter's ``random.random``."""

    def delay(self, attempt: int, draw: float) -> float:
        """Seconds before an attempt, counted from 1; `draw` is what jitter gave for it."""
        try:
            longest = self.first_delay * self.factor ** (attempt - 1)
        except OverflowError:
            longest = self.longest_delay
        half = min(longest, self.longest_delay) / 2
        return half + draw * half


class Phase(Enum):
    """Where a succession of sessions is."""

    OPENING = "opening"
    LIVE = "live"
    MEDIA_LOST = "media lost"
    """The session is usable but for its media: it is to be closed."""
    WAITING = "waiting"
    TRYING = "trying"
    OVER = "over"


class Reconnector:
    """Driven by whoever owns the sessions; `now` is its monotonic seconds.

    Every session is told by :meth:`usable` once it is, then :meth:`observe` with its events and
    :meth:`lost` at its end. While WAITING the phase moves to TRYING by :meth:`handle_timeout` or
    :meth:`retry_now`; then somebody opens a session and says how that went.
    """

    def __init__(self, policy: ReconnectPolicy, *, jitter: Callable[[], float]) -> None:
        """`jitter` is used where the policy brings none."""
        self._policy: Final = policy
        self._jitter: Final = policy.jitter or jitter
        self._phase = Phase.OPENING
        self._attempts = 0
        self._lost_at: float | None = None
        """When the trouble began: the loss of the last steady session."""
        self._usable_at = 0.0
        self._due = 0.0
        self._refusal: RefusedError | None = None
        self._reason = ""
        self._gave_up = ""
        self._media_due: float | None = None
        """Until when media has to flow again; None while it does."""

    @property
    def phase(self) -> Phase:
        """Where we are."""
        return self._phase

    @property
    def attempts(self) -> int:
        """The number of the attempt that is waited for, under way, or succeeded last."""
        return self._attempts

    @property
    def gave_up(self) -> str:
        """How it ended after attempts that all failed, in words; empty where there was none."""
        return self._gave_up

    def next_timeout(self) -> float | None:
        """When to call :meth:`handle_timeout`; None: not at all."""
        if self._phase is Phase.WAITING:
            return self._due
        return self._media_due

    # ---- a session

    def usable(self, *, now: float) -> None:
        """A session is usable, the first or another."""
        self._phase = Phase.LIVE
        self._usable_at = now
        self._refusal = None
        self._reason = ""

    def observe(self, event: Event, *, now: float) -> None:
        """See every event of a usable session, in order."""
        match event:
            case Notice():
                self._refusal = RefusedError.of(event.kind, event.text)
            case PeerClosing():
                self._reason = _said("the server ended the session", event.text)
            case TimedOut():
                self._reason = f"{event.seconds:g} s without {event.waiting_for}"
            case ProtocolViolation(fatal=True):
                self._reason = _said("the server broke the protocol", event.reason)
            case MediaLost():
                self._reason = f"no {event.kind.value} for {event.silent_for:.1f} s"
            case MediaStateChanged(state=MediaState.FAILED | MediaState.CLOSED):
                if self._phase is Phase.LIVE and self._media_due is None:
                    self._media_due = now + self._policy.media_timeout
            case MediaStarted():
                self._media_due = None
            case _:
                pass

    def lost(self, closed: Closed, *, now: float) -> Reconnecting | None:
        """A session is over. What is to be told, and waited for; None: that was the last one."""
        ours = closed.cause is CloseCause.LOCAL and self._phase is not Phase.MEDIA_LOST
        final = self._refusal is not None and not self._refusal.retryable
        if self._phase not in (Phase.LIVE, Phase.MEDIA_LOST) or ours:
            self.over()
            return None
        steady = now - self._usable_at >= self._policy.steady_after
        if self._lost_at is None or steady:
            self._attempts, self._lost_at = 0, now
        if self._refusal is not None:
            reason = str(self._refusal)
        elif self._reason:
            reason = self._reason
        elif closed.code is None:
            reason = _said("the connection was lost", closed.reason)
        else:
            reason = _said(f"the server closed with {closed.code}", closed.reason)
        if final:
            self._give_up(reason, self._lost_at, now)
            return None
        return self._wait(reason, self._lost_at, now)

    # ---- an attempt

    def failed(self, error: ConnectError, *, now: float) -> Reconnecting | None:
        """The attempt came to nothing. As :meth:`lost`."""
        assert self._lost_at is not None, "an attempt follows a loss"
        if not error.retryable:
            self._give_up(str(error), self._lost_at, now)
            return None
        return self._wait(str(error), self._lost_at, now)

    def retry_now(self) -> None:
        """Wait no longer; nothing while nothing is waited for."""
        if self._phase is Phase.WAITING:
            self._phase = Phase.TRYING

    def over(self) -> None:
        """The last session is over, or none is wanted any more."""
        self._phase = Phase.OVER
        self._media_due = None

    def handle_timeout(self, *, now: float) -> None:
        """Time passed; early or repeated calls do no harm."""
        if self._phase is Phase.WAITING and self._due <= now:
            self._phase = Phase.TRYING
        if self._media_due is not None and self._media_due <= now:
            self._media_due = None
            self._phase = Phase.MEDIA_LOST
            self._reason = f"no media for {self._policy.media_timeout:g} s"

    # ---- inside

    def _wait(self, reason: str, lost_at: float, now: float) -> Reconnecting | None:
        self._media_due = None
        left = None
        if self._policy.give_up_after is not None:
            left = self._policy.give_up_after - (now - lost_at)
            if left <= 0:
                self._give_up(reason, lost_at, now)
                return None
        self._attempts += 1
        delay = self._policy.delay(self._attempts, self._jitter())
        if left is not None:
            delay = min(delay, left)
        self._phase = Phase.WAITING
        self._due = now + delay
        return Reconnecting(attempt=self._attempts, delay=delay, reason=reason)

    def _give_up(self, reason: str, lost_at: float, now: float) -> None:
        if self._attempts:
            attempts = "1 attempt" if self._attempts == 1 else f"{self._attempts} attempts"
            self._gave_up = f"gave up after {attempts} ({now - lost_at:.1f} s): {reason}"
        self.over()


def _said(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what
