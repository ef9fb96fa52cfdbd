"""``python -m navtalk_asyncio`` and ``navtalk``: the command line on asyncio."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from navtalk_asyncio.cli.app import run
        from navtalk_asyncio.cli.backend import AsyncioBackend
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed; pip install 'navtalk[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)  # While the libraries load there is nothing to clean up yet.
    sys.exit(run(AsyncioBackend()))


if __name__ == "__main__":
    main()
