"""``navtalk devices``: the loudspeakers and microphones that ``navtalk chat`` can use."""

from __future__ import annotations

from typing import Annotated

from attrs import asdict
from cyclopts import App, Parameter
from rich import box
from rich.console import Console
from rich.table import Table

from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.terminal import Screen, error_console
from navtalk_sound import SoundDeviceError, SoundDevices, sound_devices

__all__ = ["add_devices", "no_sound"]


def no_sound(screen: Screen, error: ImportError | SoundDeviceError) -> ExitCode:
    """Say why there is no sound, and what to install."""
    if isinstance(error, SoundDeviceError):
        return screen.failed(error)
    return screen.complain(
        str(error),
        "it needs PortAudio too: apt install libportaudio2",
        code=ExitCode.USAGE,
    )


def add_devices(app: App) -> None:
    """Add the command."""

    @app.command
    def devices(*, json: Annotated[bool, Parameter(negative=())] = False) -> int:
        """List the loudspeakers and microphones of this machine; the default ones are marked.

        Parameters
        ----------
        json
            The result as one JSON object.
        """
        screen = Screen(json=json)
        try:
            found = sound_devices()
        except (ImportError, SoundDeviceError) as error:
            return no_sound(screen, error)
        for kind, listed in (("speaker", found.speakers), ("microphone", found.microphones)):
            if not listed:
                error_console().print(f"warning: there is no {kind}", style="yellow")
        _print(screen, found)
        return ExitCode.OK


def _print(screen: Screen, found: SoundDevices) -> None:
    if screen.json:
        screen.result(
            "devices",
            {
                "speakers": [asdict(one) for one in found.speakers],
                "microphones": [asdict(one) for one in found.microphones],
            },
            "",
        )
        return
    rows = [
        (kind, str(one.number), one.name, one.interface, "default" if one.default else "")
        for kind, listed in (("speaker", found.speakers), ("microphone", found.microphones))
        for one in listed
    ]
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for column in ("kind", "number", "name", "interface", ""):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row, style="bold" if row[-1] else "")
    console.print(table)
