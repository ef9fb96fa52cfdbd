"""Who waits for which negotiation: the book that an adapter's ``negotiate()`` keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from navtalk_proto.errors import MediaError, NavTalkError, SessionClosedError
from navtalk_proto.events import Closed, Event, Negotiated, NegotiationFailed
from navtalk_proto.media import MediaLine

__all__ = ["PendingWishes"]

W = TypeVar("W")


class PendingWishes(Generic[W]):
    """Waiters (a future, an event, whatever a loop waits on) by the wish they made.

    Wishes coalesce in the core: the exchange that ends the newest of them ends those before it.
    """

    def __init__(self, tell: Callable[[W, NavTalkError | None], None]) -> None:
        self._tell = tell
        self._waiting: list[tuple[tuple[MediaLine, ...], W]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, media: tuple[MediaLine, ...], waiter: W) -> None:
        """A wish is about to be sent."""
        self._waiting.append((media, waiter))

    def forget(self, waiter: W) -> None:
        """Nobody waits any more; told or not."""
        self._waiting = [entry for entry in self._waiting if entry[1] is not waiter]

    def observe(self, event: Event) -> None:
        """See every event in order; tells each waiter once, with an error or None."""
        match event:
            case Negotiated(offered_by_us=True):
                self._settle(event.media, None)
            case NegotiationFailed():
                self._settle(event.media, f"negotiation failed: {event.reason}")
            case Closed():
                ended, self._waiting = self._waiting, []
                for _, waiter in ended:
                    self._tell(waiter, SessionClosedError("the session ended"))
            case _:
                pass

    def _settle(self, media: tuple[MediaLine, ...], failure: str | None) -> None:
        # The same wish twice is met by the first exchange that grants it.
        count = max((n for n, (wish, _) in enumerate(self._waiting, 1) if wish == media), default=0)
        ended, self._waiting = self._waiting[:count], self._waiting[count:]
        for _, waiter in ended:
            # One exception each: raising it writes into it.
            self._tell(waiter, None if failure is None else MediaError(failure))
