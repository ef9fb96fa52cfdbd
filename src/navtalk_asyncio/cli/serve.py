"""``navtalk serve``: the emulator for people, until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
from cyclopts import App, Parameter

from navtalk_asyncio.cli.backend import Backend, run_on_loop
from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.output_files import unwritable
from navtalk_asyncio.cli.question import Report
from navtalk_asyncio.cli.session_table import SessionTable
from navtalk_asyncio.cli.settings import Port
from navtalk_asyncio.cli.terminal import Screen, StepPrinter, error_console
from navtalk_proto.errors import NavTalkError

if TYPE_CHECKING:
    from navtalk_asyncio.emulator import Brain

__all__ = ["DEFAULT_PORT", "add_serve", "find_brain", "logged", "run_serve"]

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
    table: SessionTable | None = None,
    **options: Any,
) -> None:
    """Run the emulator with these `options` of ``emulate()`` until it is cancelled.

    `serving` is called once it can be connected to, with the URL for people, that for programs, and
    the name of the first avatar. `table` shows the sessions that run.
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
            if table is None:
                await anyio.sleep_forever()
            else:
                await table.show(human)


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def add_serve(app: App, backend: Backend) -> None:
    """Add the command."""

    @app.command
    def serve(
        *,
        host: str = "127.0.0.1",
        port: Port = DEFAULT_PORT,
        brain: str | None = None,
        faults: str | None = None,
        license: Annotated[list[str] | None, Parameter(negative=())] = None,
        trace: Annotated[Path | None, Parameter(env_var="NAVTALK_TRACE")] = None,
    ) -> int:
        """Run the built-in digital human for browsers and programs, until Ctrl-C.

        Prints where its demo page is, where programs connect, and to which avatar. They need the
        licence sk_navtalk_EXAMPLE unless others are given.

        Parameters
        ----------
        host
            The address to listen at; 0.0.0.0 is every one of this machine's.
        port
            The port to listen at; 0 takes a free one.
        brain
            What it says: a script, as lines.toml, or a brain of your own, as module:attribute, from
            this folder too. By default it echoes.
        faults
            What goes wrong in every session, as drop_ws@30s,loss=5%; docs/reliability.md lists it.
        license
            A licence to accept instead of sk_navtalk_EXAMPLE; may be given several times. Make one
            up: who lists this machine's processes reads it.
        trace
            Write what happens in each session to a file of its own, for navtalk trace and navtalk
            replay: a folder, or a file, to which a number is added where it exists.
        """
        screen = Screen()
        if trace is not None and not trace.is_dir() and (problem := unwritable(trace)):
            return screen.complain(problem, code=ExitCode.USAGE)
        served: list[str] = []
        console = error_console()
        report = StepPrinter(console)
        table = SessionTable(console, faults or "") if console.is_terminal else None

        def serving(page: str, programs: str, avatar: str) -> None:
            served.append(page)
            print(f"demo page: {page}\nprograms:  {programs}\navatar:    {avatar}", flush=True)
            report("serving", "Ctrl-C ends it")

        options: dict[str, object] = {"host": host, "port": port, "faults": faults, "trace": trace}
        if license:
            options["licenses"] = tuple(license)
        try:
            if brain is not None:
                options["brain"] = find_brain(brain)
            run_on_loop(backend, partial(run_serve, backend, report, serving, table, **options))
        except KeyboardInterrupt:
            if not served:
                raise
            report("ended", "every session was closed")
        except NavTalkError as error:  # of the brain, or of the faults
            return screen.failed(error, ExitCode.USAGE)
        except OSError as error:
            return screen.complain(
                f"cannot listen at {host}, port {port}: {error.strerror or error}",
                "--port 0 takes a free one" if error.errno == errno.EADDRINUSE else "",
                code=ExitCode.NETWORK,
            )
        return ExitCode.OK
