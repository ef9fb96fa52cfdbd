"""Named deadlines. The core arms and reads them; the adapter owns the one real timer."""

from __future__ import annotations

from enum import Enum

from navtalk_proto.identity_hash import identity_hash

__all__ = ["Timer", "Timers"]


@identity_hash
class Timer(Enum):
    """Every deadline a connection can have. The order is the order in which ties fire."""

    CLOSE = "close"
    """CLOSING began: the transport has this long to report that it closed."""
    WELCOME = "welcome"
    """The transport opened: the server has this long to say connected.success."""
    SETUP = "setup"
    """connected.success came: the server has this long to reach session.updated."""
    CONNECT = "connect"
    """The transport opened: READY and media have this long together."""
    FAREWELL = "farewell"
    """A refusal arrived in READY: the server has this long to close before we do."""
    ANSWER = "answer"
    """Our offer left: the answer has this long."""
    TRANSPORT = "transport"
    """Descriptions were exchanged: ICE and DTLS have this long. Runs when CONNECT does not."""
    RESPONSE = "response"
    """The nearest deadline of an answer: to begin, to go on, or to have been spoken."""
    VIDEO_FLOW = "video-flow"
    """The nearest deadline of a video track: to begin, to go on, or to come back."""
    AUDIO_FLOW = "audio-flow"
    """The same of an audio track that is received."""
    AUDIO = "audio"
    """Less than a frame of the user's voice waits for more: it leaves then, however little."""
    IDLE = "idle"
    """Nothing was received for this long. Off unless configured."""


class Timers:
    """A table of deadlines in the adapter's monotonic seconds."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[Timer, float] = {}

    def arm(self, timer: Timer, deadline: float) -> None:
        """Set or move one deadline."""
        self._deadlines[timer] = deadline

    def stop(self, *timers: Timer) -> None:
        """Forget deadlines; those not armed are ignored."""
        for timer in timers:
            self._deadlines.pop(timer, None)

    def stop_all(self) -> None:
        """Forget every deadline."""
        self._deadlines.clear()

    def armed(self, timer: Timer) -> bool:
        """Whether the timer has a deadline."""
        return timer in self._deadlines

    def next(self) -> float | None:
        """The earliest deadline, None when nothing is armed."""
        return min(self._deadlines.values(), default=None)

    def pop_due(self, now: float) -> Timer | None:
        """Remove and return the earliest timer that is due at `now`.

        Ties fire in the order of :class:`Timer`. Early calls return None, which makes early and
        repeated timeouts harmless.
        """
        due = [timer for timer in Timer if self._deadlines.get(timer, now + 1) <= now]
        if not due:
            return None
        first = min(due, key=lambda timer: self._deadlines[timer])
        del self._deadlines[first]
        return first

    def __repr__(self) -> str:
        armed = ", ".join(f"{t.value}={self._deadlines[t]:.3f}" for t in Timer if self.armed(t))
        return f"<Timers {armed or 'none'}>"
