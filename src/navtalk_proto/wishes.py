"""Who waits for which negotiation: the book that an adapter's ``negotiate()`` keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from navtalk_proto.errors import MediaError, NavTalkError, SessionClosedError
from navtalk_proto.events import Closed, Event, Negotiated, NegotiationFailed, Reconnecting

__all__ = ["PendingWishes"]

W = TypeVar("W")


class PendingWishes(Generic[W]):
    """Waiters (a future, an event, whatever a loop waits on) by the number of their wish.

    Wishes coalesce in the core: the exchange that ends the newest of them ends those before it,
    whoever made them, the engine or an application that sent Negotiate itself included.
    """

    def __init__(self, tell: Callable[[W, NavTalkError | None], None]) -> None:
        self._tell = tell
        self._waiting: list[tuple[int, W]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, number: int, waiter: W) -> None:
        """A wish is about to be sent: the connection's `number`-th, counted from 1."""
        self._waiting.append((number, waiter))

    def forget(self, waiter: W) -> None:
        """Nobody waits any more; told or not."""
        self._waiting = [entry for entry in self._waiting if entry[1] is not waiter]

    def observe(self, event: Event) -> None:
        """See every event in order; tells each waiter once, with an error or None."""
        match event:
            case Negotiated():
                self._settle(event.wish, lambda: None)
            case NegotiationFailed(session_ended=True):
                self._settle(event.wish, _session_ended)
            case NegotiationFailed():
                self._settle(event.wish, lambda: MediaError(f"negotiation failed: {event.reason}"))
            case Closed() | Reconnecting():
                self._settle(None, _session_ended)
            case _:
                pass

    def _settle(self, newest: int | None, outcome: Callable[[], NavTalkError | None]) -> None:
        """End the waiters up to a wish, or all of them."""
        ended = [entry for entry in self._waiting if newest is None or entry[0] <= newest]
        self._waiting = self._waiting[len(ended) :]
        for _, waiter in ended:
            self._tell(waiter, outcome())  # One exception each: raising it writes into it.


def _session_ended() -> SessionClosedError:
    return SessionClosedError("the session ended")
