"""The loop that a command runs on, seen from the command line.

The commands are written with anyio, so that one definition serves both adapters; a backend brings
the adapter's ``connect`` and the emulator.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

import anyio

from navtalk_proto.errors import ConnectTimeoutError
from navtalk_proto.limits import Limits
from navtalk_proto.redacting_transport import RedactingTransport
from navtalk_proto.transport import Transport
from navtalk_proto.wire.avatar_lookup import AvatarDetail
from navtalk_proto.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from navtalk_asyncio.emulator import Visit

__all__ = ["AsyncioBackend", "Backend", "RunningEmulator", "run_on_loop"]

T = TypeVar("T")

_LOOP_OPTIONS: Final[dict[str, dict[str, bool]]] = {
    "asyncio": {},
    "trio": {"restrict_keyboard_interrupt_to_checkpoints": True},
}
"""Ctrl-C cancels on both loops. Trio's default raises it between any two lines: in the middle of an
import, of a callback, of handing a result across threads; what that breaks is printed last."""


class RunningEmulator(Protocol):
    """An emulator to connect to."""

    @property
    def url(self) -> str:
        """Its base URL."""
        ...

    @property
    def visits(self) -> Iterable[Visit]:
        """The sessions that run now; their ``status`` may be read from any thread."""
        ...

    def endpoint(self) -> Endpoint:
        """Where to connect, with a licence that it takes."""
        ...


class Backend(Protocol):
    """An adapter and its loop."""

    @property
    def name(self) -> Literal["asyncio", "trio"]:
        """The anyio backend to run on."""
        ...

    @property
    def connect(self) -> Callable[..., AbstractAsyncContextManager[Any]]:
        """The adapter's ``connect``."""
        ...

    @property
    def resolve_avatar(self) -> Callable[..., Awaitable[AvatarDetail]]:
        """The adapter's ``resolve_avatar``."""
        ...

    @property
    def list_avatars(self) -> Callable[..., Awaitable[tuple[AvatarDetail, ...]]]:
        """The adapter's ``list_avatars``."""
        ...

    def websocket(
        self, endpoint: Endpoint, *, timeout: float
    ) -> AbstractAsyncContextManager[Transport]:
        """A WebSocket by itself, as ``connect`` opens it, within `timeout` seconds.

        Raises ConnectFailedError and ConnectTimeoutError.
        """
        ...

    def emulate(self, **options: Any) -> AbstractAsyncContextManager[RunningEmulator]:
        """Run an emulator in this process, by default on a free loopback port."""
        ...


class AsyncioBackend:
    """navtalk_asyncio on asyncio."""

    name: Literal["asyncio"] = "asyncio"

    @property
    def connect(self) -> Callable[..., AbstractAsyncContextManager[Any]]:
        """navtalk_asyncio.connect."""
        from navtalk_asyncio.client import connect

        return connect

    @property
    def resolve_avatar(self) -> Callable[..., Awaitable[AvatarDetail]]:
        """navtalk_asyncio.resolve_avatar."""
        from navtalk_asyncio.rest import resolve_avatar

        return resolve_avatar

    @property
    def list_avatars(self) -> Callable[..., Awaitable[tuple[AvatarDetail, ...]]]:
        """navtalk_asyncio.list_avatars."""
        from navtalk_asyncio.rest import list_avatars

        return list_avatars

    @asynccontextmanager
    async def websocket(
        self,
        endpoint: Endpoint,
        *,
        timeout: float,  # noqa: ASYNC109 - the error names the seconds
    ) -> AsyncGenerator[Transport]:
        """A WebSocket of navtalk_asyncio."""
        import asyncio

        from navtalk_asyncio.websocket import open_websocket

        try:
            async with asyncio.timeout(timeout):
                opened = await open_websocket(endpoint, max_size=Limits().server_message)
        except TimeoutError:
            raise ConnectTimeoutError("the WebSocket handshake", timeout) from None
        try:
            yield RedactingTransport(opened, endpoint.license)
        finally:
            await opened.aclose()

    def emulate(self, **options: Any) -> AbstractAsyncContextManager[RunningEmulator]:
        """navtalk_asyncio.emulator.emulate."""
        from navtalk_asyncio.emulator import emulate

        return emulate(**options)


def run_on_loop(backend: Backend, command: Callable[[], Awaitable[T]]) -> T:
    """Run a command on the backend's loop. Ctrl-C cancels it and raises KeyboardInterrupt."""
    return anyio.run(command, backend=backend.name, backend_options=_LOOP_OPTIONS[backend.name])
