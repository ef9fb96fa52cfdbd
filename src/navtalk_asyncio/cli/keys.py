"""Keys of a terminal, one by one, without Enter and without echo."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress

import anyio

__all__ = ["has_keys", "key_presses", "single_keys"]

if sys.platform != "win32":
    import termios
    import tty

    def has_keys() -> bool:
        """Whether standard input is a terminal whose keys can be read."""
        return sys.stdin is not None and sys.stdin.isatty()

    @contextmanager
    def single_keys() -> Iterator[None]:
        """Standard input gives each key at once; afterwards it is as it was.

        SIGTERM ends the block as Ctrl-C does meanwhile: a process that is simply ended leaves its
        user a terminal that shows nothing of what is typed.
        """
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        with _terminated_as_interrupted():
            try:
                tty.setcbreak(descriptor)
                yield
            finally:
                with suppress(termios.error):  # The terminal itself is gone.
                    termios.tcsetattr(descriptor, termios.TCSANOW, before)

    @contextmanager
    def _terminated_as_interrupted() -> Iterator[None]:
        # Only the main thread has signals; and who ignores Ctrl-C must still end by SIGTERM.
        if threading.current_thread() is not threading.main_thread() or not callable(
            signal.getsignal(signal.SIGINT)
        ):
            yield
            return
        before = signal.signal(
            signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT)
        )
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    async def key_presses() -> AsyncGenerator[str]:
        """Keys from now on, inside single_keys(); ends where the terminal does."""
        descriptor = sys.stdin.fileno()
        while True:
            await anyio.wait_readable(descriptor)
            try:
                typed = os.read(descriptor, 64)
            except OSError:  # EIO: the far end of a pseudo-terminal was closed
                return
            if not typed:
                return
            for key in typed.decode("ascii", "ignore"):
                yield key

else:

    def has_keys() -> bool:
        """There is no termios."""
        return False

    @contextmanager
    def single_keys() -> Iterator[None]:
        """Not called: see has_keys()."""
        yield

    async def key_presses() -> AsyncGenerator[str]:
        """Not called: see has_keys()."""
        return
        yield
