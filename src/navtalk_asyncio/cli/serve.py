"""``navtalk serve``: the emulator for people, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from navtalk_asyncio.cli.backend import Backend
from navtalk_asyncio.cli.question import Report

if TYPE_CHECKING:
    from navtalk_asyncio.emulator import Brain

__all__ = ["DEFAULT_PORT", "find_brain", "logged", "run_serve"]

DEFAULT_PORT: Final = 8000
"""Where it listens unless told otherwise, so that a bookmark of the page stays good."""

_LOGGERS: Final = ("navtalk.emulator", "navtalk.server")
"""What tells of sessions: that they began and ended, and what went wrong in them."""


class _Reporting(logging.Handler):
    """Hands records on as steps. Neither logger is ever given a licence."""

    def __init__(self, report: Report) -> None:
        super().__init__(logging.INFO)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        try:
            kind = "session" if record.levelno < logging.WARNING else "warning"
            self._report(kind, self.format(record))
        except Exception:  # noqa: BLE001 - logging's own way: a log line must not end a session
            self.handleError(record)


@contextmanager
def logged(report: Report) -> Iterator[None]:
    """Report what the emulator logs of its sessions, from INFO on."""
    handler = _Reporting(report)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def find_brain(name: str) -> Brain:
    """The brain that ``--brain`` names. Its module may be in the folder that the command runs in.

    Raises BrainLoadError, ScriptError, and what the module itself raises.
    """
    from navtalk_asyncio.emulator import load_brain

    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return load_brain(name)


async def run_serve(
    backend: Backend,
    report: Report,
    serving: Callable[[str, str, str], None],
    **options: Any,
) -> None:
    """Run the emulator with these `options` of ``emulate()`` until it is cancelled.

    `serving` is called once it can be connected to, with the URL for people, that for programs, and
    the name of the first avatar.
    Raises OSError where host and port cannot be bound.
    """
    report("starting", "drawing a digital human")
    with logged(report):
        async with backend.emulate(**options) as human:
            avatar = human.endpoint().name
            assert avatar is not None
            serving(f"http{human.url.removeprefix('ws')}/", human.url, avatar)
            if not _on_loopback(options["host"]):
                report(
                    "notice",
                    "other machines reach it at this one's address; their browsers give a page "
                    "the microphone through https only, so put a proxy with TLS in front",
                )
            await anyio.sleep_forever()


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
