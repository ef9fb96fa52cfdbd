"""``python -m navtalk_trio``: the command line on trio."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

__all__ = ["TrioBackend", "main"]


class TrioBackend:
    """navtalk_trio on trio; a Backend of navtalk_asyncio.cli."""

    name: Literal["trio"] = "trio"

    @property
    def connect(self) -> Callable[..., AbstractAsyncContextManager[Any]]:
        """navtalk_trio.connect."""
        from navtalk_trio.client import connect

        return connect

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
