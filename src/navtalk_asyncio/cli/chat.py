"""``navtalk chat``: talk with a digital human by microphone and loudspeaker."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import numpy as np
from cyclopts import App, Parameter
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from navtalk_asyncio.cli.alsa_messages import no_alsa_messages
from navtalk_asyncio.cli.backend import Backend, run_on_loop
from navtalk_asyncio.cli.captions import Captions
from navtalk_asyncio.cli.devices import no_sound
from navtalk_asyncio.cli.exit_codes import ExitCode, exit_code_of_end
from navtalk_asyncio.cli.keys import has_keys, key_presses, single_keys
from navtalk_asyncio.cli.level_meter import AUDIBLE_DBFS, LevelMeter, dbfs
from navtalk_asyncio.cli.question import Report, reporting
from navtalk_asyncio.cli.settings import Avatar, AvatarId, Model, Seconds, Settings, Trace, Url
from navtalk_asyncio.cli.terminal import (
    STEP_INDENT,
    STEP_NAME,
    Screen,
    StepPrinter,
    error_console,
)
from navtalk_proto.errors import NavTalkError, SessionClosedError
from navtalk_proto.events import CloseCause, Closed, ResponseGenerated, ResponseInterrupted
from navtalk_proto.exception_groups import raise_unchanged, unwrap
from navtalk_proto.playout import HalfDuplexGate
from navtalk_proto.wire.endpoint import DEFAULT_BASE_URL, Endpoint
from navtalk_sound import Microphone, SoundDeviceError, Speaker

__all__ = ["add_chat", "run_chat"]

_EVERY: Final = 0.1
"""Seconds between two looks of the level meters: as fast as an eye follows."""

_METER: Final = 16
"""Characters of a level meter."""

_WIDE: Final = 100
"""Columns of a terminal that shows the keys beside the meters."""

_TOO_LOUD: Final = 0.95
"""Of a meter: -3 dBFS, beyond which a voice is clipped."""

_HUNG_UP: Final = (1000, 1001)
"""Close codes of a server that ends a conversation (RFC 6455 section 7.4.1); others are losses."""


class _Conversation:
    """A session by voice, and what its keys change. Made for one run."""

    def __init__(
        self, session: Any, speaker: Speaker, microphone: Microphone, report: Report
    ) -> None:
        self._session = session
        self._speaker = speaker
        self._microphone = microphone
        self._report = report
        self._captions = Captions(partial(report, "says"))
        self._near = LevelMeter()
        self._far = LevelMeter()
        self._muted = False
        self._keys = has_keys()

    async def run(self, console: Console) -> Closed | None:
        """Talk until the session ends or a key says so; how it ended, None by a key."""
        end: Closed | None = None
        failure: BaseException | None = None
        try:
            with single_keys() if self._keys else nullcontext():
                end = await self._run(console)
        except BaseExceptionGroup as group:
            failure = unwrap(group)
        if failure is not None:
            raise_unchanged(failure)
        return end

    async def _run(self, console: Console) -> Closed | None:
        end: Closed | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._captions.run)
            tasks.start_soon(self._speak)
            tasks.start_soon(self._play)
            if console.is_terminal:
                tasks.start_soon(self._show, console)
            if self._keys:
                tasks.start_soon(self._obey, tasks.cancel_scope)
            self._report("keys", self._help())
            async for event in self._session.events():
                self._captions.take(event)
                if isinstance(event, ResponseInterrupted):
                    self._speaker.clear()
                if isinstance(event, Closed):
                    end = event
            tasks.cancel_scope.cancel()
        return end

    async def _speak(self) -> None:
        with suppress(SessionClosedError):  # Whoever reads the events is told how it ended.
            await self._session.say(self._voice(), paced=False)

    async def _voice(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._microphone.pieces()) as pieces:
            async for pcm in pieces:
                self._near.take(dbfs(np.frombuffer(pcm, "<i2")))
                # A server that listens hears by the silence that the user has finished.
                yield bytes(len(pcm)) if self._muted else pcm

    async def _play(self) -> None:
        async for frame in self._session.audio:
            self._speaker.play(bytes(frame.planes[0])[: frame.samples * 4])
            loudness = dbfs(frame.to_ndarray())
            self._far.take(loudness)
            if loudness > AUDIBLE_DBFS:
                self._captions.heard()

    async def _obey(self, scope: anyio.CancelScope) -> None:
        async with aclosing(key_presses()) as keys:
            async for key in keys:
                match key.lower():
                    case "m":
                        self._muted = not self._muted
                        self._report("muted" if self._muted else "unmuted", self._help())
                    case "i":
                        self._speaker.clear()
                        try:
                            await self._session.interrupt()
                        except SessionClosedError:
                            return  # Whoever reads the events is told how it ended.
                    case "q":
                        scope.cancel()
                        return

    def _help(self) -> str:
        if not self._keys:
            return "Ctrl-C ends it"
        return f"m {'unmutes' if self._muted else 'mutes'}, i interrupts, q ends it"

    async def _show(self, console: Console) -> None:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._drawn(console.width), refresh=True)
                await anyio.sleep(_EVERY)

    def _drawn(self, width: int) -> Table:
        line = Table.grid(padding=(0, 1))
        # What the keys do was printed, too: a narrow terminal has room for the meters.
        keys = self._help() if width >= _WIDE else ""
        line.add_column(width=STEP_INDENT - 1)
        line.add_column(width=STEP_NAME)
        name = Text("muted", style="yellow") if self._muted else Text("you", style="cyan")
        line.add_row(
            "",
            name,
            _bar(self._near.read()),
            Text("human", style="cyan"),
            _bar(self._far.read()),
            Text(keys, style="dim"),
        )
        return line


def _bar(level: float) -> ProgressBar:
    style = "red" if level > _TOO_LOUD else "green"
    return ProgressBar(
        total=1.0, completed=level, width=_METER, complete_style=style, finished_style=style
    )


async def run_chat(
    backend: Backend,
    endpoint: Endpoint,
    report: Report,
    console: Console,
    *,
    speaker: str | int | None,
    microphone: str | int | None,
    headphones: bool,
    timeout: float,  # noqa: ASYNC109 - passed on to connect(), which names what it waits for
    trace: Path | None,
    began: list[float],
) -> Closed | None:
    """Talk until a key, the session's end or a cancellation. How it ended; None if a key did it.

    The time at which it began is put into `began`. Raises SoundDeviceError before anything is
    connected, and ImportError without ``navtalk[audio]``.
    """
    gate = None if headphones else HalfDuplexGate()
    proxy = None if endpoint.is_loopback else True
    with (
        no_alsa_messages(),
        Speaker(speaker, gate=gate) as loud,
        Microphone(microphone, gate=gate) as near,
    ):
        report("connecting", f"opening {endpoint.redacted_url()}")
        # What the human says is shown as its voice gets there.
        async with backend.connect(
            endpoint,
            timeout=timeout,
            proxy=proxy,
            observe=reporting(report, without=ResponseGenerated),
            trace=trace,
        ) as session:
            began.append(time.monotonic())
            return await _Conversation(session, loud, near, report).run(console)


def add_chat(app: App, backend: Backend, settings: Settings) -> None:
    """Add the command."""

    @app.command
    def chat(
        *,
        headphones: Annotated[bool, Parameter(negative=())] = False,
        speaker: str | None = None,
        microphone: str | None = None,
        avatar: Avatar = None,
        avatar_id: AvatarId = None,
        url: Url = DEFAULT_BASE_URL,
        model: Model = None,
        timeout: Seconds = 30.0,
        trace: Trace = None,
    ) -> int:
        """Talk with a digital human by microphone and loudspeaker, until q or Ctrl-C.

        On a terminal, m mutes the microphone, i interrupts the human, and q ends the conversation.

        Parameters
        ----------
        headphones
            You wear some: the microphone is open while the human speaks, so that you can interrupt
            it by voice. Without them it would hear, and interrupt, itself.
        speaker
            Another loudspeaker, by name or number, as navtalk devices lists them.
        microphone
            Another microphone, by name or number.
        avatar
            The human's name, as in navtalk.Leo.
        avatar_id
            The human's id; wins over the name.
        url
            Another server: ws://127.0.0.1:8000 for an emulator.
        model
            The model, for servers that read it from the URL.
        timeout
            Seconds until the session must be usable.
        """
        screen = Screen()
        console = error_console()
        report = StepPrinter(console)
        began: list[float] = []
        end: Closed | None = None
        try:
            endpoint = settings.endpoint(url, avatar=avatar, avatar_id=avatar_id, model=model)
            end = run_on_loop(
                backend,
                partial(
                    run_chat,
                    backend,
                    endpoint,
                    report,
                    console,
                    speaker=_device(speaker),
                    microphone=_device(microphone),
                    headphones=headphones,
                    timeout=timeout,
                    trace=trace,
                    began=began,
                ),
            )
        except KeyboardInterrupt:
            if not began:
                raise  # Ctrl-C is how a conversation ends, and not how it begins.
        except (ImportError, SoundDeviceError) as error:
            return no_sound(screen, error)
        except (NavTalkError, OSError) as error:
            return screen.failed(error)
        report("ended", f"after {time.monotonic() - began[0]:.0f} s")
        if end is not None and not (end.cause is CloseCause.REMOTE and end.code in _HUNG_UP):
            return exit_code_of_end(end.cause)
        return ExitCode.OK


def _device(given: str | None) -> str | int | None:
    return int(given) if given is not None and given.isdecimal() else given
