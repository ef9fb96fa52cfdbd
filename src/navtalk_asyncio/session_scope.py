"""The ``async with`` of a session: its driver runs beside the body and ends before it is left."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Protocol

from navtalk_proto.exception_groups import raise_unchanged
from navtalk_proto.session import SESSION_ENDED

__all__ = ["SessionScope"]

_CONSEQUENCES: Final = (*SESSION_ENDED, asyncio.CancelledError)
"""What the body learns when its driver failed. Beside the failure itself it says nothing new."""


class Driving(Protocol):
    """A driver, or a succession of them."""

    async def run(self) -> None:
        """Drive until the session is over; raises what failed."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """End the session; returns when it is over."""
        ...


class SessionScope:
    """Runs a driver while a body runs; leaving closes the session and waits for the driver.

    - An exception of the body leaves as it is.
    - One of the driver cancels the body, and leaves in its place; what the body raised because of
      it is dropped.
    - Unrelated ones of both leave as a group.
    - Cancelling while the session is being closed hurries the driver up; CancelledError leaves,
      with a failure of the driver as its cause.

    A TaskGroup of one task, but for the last: before Python 3.13 a TaskGroup loses a cancellation
    that comes while it waits for its tasks and one of them, or the body, failed.
    """

    def __init__(self, driver: Driving) -> None:
        self._driver = driver
        self._in_body = True
        self._cancelled_body = False
        self.close_code = 1000
        self.close_reason = ""

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._driving = asyncio.create_task(self._driver.run())
        self._driving.add_done_callback(self._driver_ended)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in_body = False
        cancelled = isinstance(error, asyncio.CancelledError)
        if self._cancelled_body:
            # Ours is taken back; what is left is somebody else's.
            cancelled = self._task.uncancel() > self._cancelling and cancelled
        try:
            await self._driver.close(self.close_code, self.close_reason)
        except asyncio.CancelledError:
            cancelled = True
            self._driving.cancel()
        while not self._driving.done():
            try:
                await asyncio.wait([self._driving])
            except asyncio.CancelledError:
                cancelled = True
                self._driving.cancel()
        failure = None if self._driving.cancelled() else self._driving.exception()
        if cancelled:
            if failure is None and isinstance(error, asyncio.CancelledError):
                return
            raise asyncio.CancelledError from failure or error
        if failure is None:
            return
        if error is None or _follows(error):
            raise_unchanged(failure)
        raise BaseExceptionGroup("the session's body and driver failed", [error, failure])

    def _driver_ended(self, driving: asyncio.Task[None]) -> None:
        if self._in_body and not driving.cancelled() and driving.exception() is not None:
            self._cancelled_body = True
            self._task.cancel()


def _follows(error: BaseException) -> bool:
    """Whether an exception, or everything in a group however deep, is a consequence."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_follows, error.exceptions))
    return isinstance(error, _CONSEQUENCES)
