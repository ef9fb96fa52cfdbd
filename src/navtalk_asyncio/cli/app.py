"""The application of the command line: its commands, where their options come from, their end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError

from navtalk_asyncio.cli.avatars import add_avatars
from navtalk_asyncio.cli.backend import Backend
from navtalk_asyncio.cli.chat import add_chat
from navtalk_asyncio.cli.demo import add_demo
from navtalk_asyncio.cli.devices import add_devices
from navtalk_asyncio.cli.doctor import add_doctor
from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.record import add_record
from navtalk_asyncio.cli.replay import add_replay
from navtalk_asyncio.cli.serve import add_serve
from navtalk_asyncio.cli.settings import Settings, SettingsError
from navtalk_asyncio.cli.talk import add_talk
from navtalk_asyncio.cli.terminal import Screen, error_console
from navtalk_asyncio.cli.tools import add_tools
from navtalk_asyncio.cli.trace_command import add_trace

__all__ = ["build", "run"]


def run(backend: Backend, arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default on the process's own arguments; returns the exit code."""
    try:
        settings = Settings.read()
        settings.check()
    except SettingsError as error:
        return Screen().failed(error)
    try:
        code: int | None = build(backend, settings)(
            arguments, exit_on_error=False, print_error=True
        )
        sys.stdout.flush()
    except CycloptsError:
        return ExitCode.USAGE
    except KeyboardInterrupt:
        error_console().print("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever reads the output, as head(1), has seen enough. What Python still holds of it would
        # be tried again at exit, and complained about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    return code or ExitCode.OK  # None: --help and --version


def build(backend: Backend, settings: Settings) -> App:
    """The application for one backend. Its commands return exit codes."""
    app = App(
        name="navtalk",
        version=version("navtalk"),
        help="Talk to NavTalk digital humans.",
        help_epilogue=(
            "An option is also NAVTALK_COMMAND_OPTION in the environment, and option under "
            "[command] in the config file; docs/command-line.md lists exit codes and files."
        ),
        config=settings.sources,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.register_install_completion_command(
        help="Install shell completion for bash, zsh, fish or PowerShell."
    )
    add_demo(app, backend)
    add_talk(app, backend, settings)
    add_chat(app, backend, settings)
    add_devices(app)
    add_serve(app, backend)
    add_doctor(app, backend, settings)
    add_record(app, backend, settings)
    add_avatars(app, backend, settings)
    add_tools(app)
    add_trace(app)
    add_replay(app)
    return app
