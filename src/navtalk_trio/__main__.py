"""``python -m navtalk_trio``: the command line on trio."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from navtalk_proto.transport import Transport
    from navtalk_proto.wire.avatar_lookup import AvatarDetail
    from navtalk_proto.wire.endpoint import Endpoint

__all__ = ["TrioBackend", "main"]


class TrioBackend:
    """navtalk_trio on trio; a Backend of navtalk_asyncio.cli."""

    name: Literal["trio"] = "trio"

    @property
    def connect(self) -> Callable[..., AbstractAsyncContextManager[Any]]:
        """navtalk_trio.connect."""
        from navtalk_trio.client import connect

        return connect

    @property
    def resolve_avatar(self) -> Callable[..., Awaitable[AvatarDetail]]:
        """navtalk_trio.resolve_avatar."""
        from navtalk_trio.rest import resolve_avatar

        return resolve_avatar

    @property
    def list_avatars(self) -> Callable[..., Awaitable[tuple[AvatarDetail, ...]]]:
        """navtalk_trio.list_avatars."""
        from navtalk_trio.rest import list_avatars

        return list_avatars

    @asynccontextmanager
    async def websocket(
        self,
        endpoint: Endpoint,
        *,
        timeout: float,  # noqa: ASYNC109 - the error names the seconds
    ) -> AsyncGenerator[Transport]:
        """A WebSocket of navtalk_trio."""
        import trio

        from navtalk_proto.errors import ConnectTimeoutError
        from navtalk_proto.limits import Limits
        from navtalk_proto.redacting_transport import RedactingTransport
        from navtalk_trio.driver import bare
        from navtalk_trio.websocket import open_websocket

        try:
            async with trio.open_nursery() as nursery:
                try:
                    with trio.fail_after(timeout):
                        opened = await open_websocket(
                            nursery, endpoint, max_size=Limits().server_message
                        )
                except trio.TooSlowError:
                    raise ConnectTimeoutError("the WebSocket handshake", timeout) from None
                try:
                    yield RedactingTransport(opened, endpoint.license)
                finally:
                    with trio.CancelScope(shield=True):
                        await opened.aclose()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            failure = bare(group)
        else:
            return
        raise failure

    def emulate(self, **options: Any) -> AbstractAsyncContextManager[Any]:
        """The emulator on the media loop."""
        from navtalk_trio.testing.emulator import emulate

        return emulate(**options)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from navtalk_asyncio.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed; pip install 'navtalk[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)  # While the libraries load there is nothing to clean up yet.
    sys.exit(run(TrioBackend()))


if __name__ == "__main__":
    main()
