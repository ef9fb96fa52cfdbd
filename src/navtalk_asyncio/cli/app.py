"""The commands ``demo``, ``talk`` and ``serve``, their arguments and exit codes."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from functools import partial
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Final

import anyio
from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from PIL.Image import Image, registered_extensions
from rich.console import Console
from rich.text import Text

from navtalk_asyncio.cli.backend import Backend
from navtalk_asyncio.cli.question import Answer, Report, ask, describe
from navtalk_asyncio.cli.serve import DEFAULT_PORT, find_brain, run_serve
from navtalk_asyncio.media.audio_file import AudioFileError
from navtalk_asyncio.media.recorder import RecordingError
from navtalk_proto.errors import (
    ConnectRefusedError,
    EndpointError,
    MediaError,
    NavTalkError,
    RefusedError,
)
from navtalk_proto.events import CloseCause, Event
from navtalk_proto.wire.endpoint import DEFAULT_BASE_URL, Endpoint

__all__ = ["ExitCode", "StepPrinter", "build", "run", "run_demo", "run_talk"]

LICENSE_VARIABLE: Final = "NAVTALK_LICENSE"

QUESTION: Final = files("navtalk_asyncio.cli") / "question.wav"
"""Spoken by ``espeak-ng -v en-us+f3 -s 150 -p 55``, resampled to 24,000 Hz, mono, 16 bit, 0.2 s of
silence at both ends; the words are in tests/emulator/test_voice_activity.py."""


RECORDINGS: Final = (".mkv", ".webm")
"""What an answer is written as; the recorder takes no others."""


class ExitCode(IntEnum):
    """What a command's exit code means."""

    OK = 0
    USAGE = 2
    LICENCE = 3
    NETWORK = 4
    REFUSED = 5
    MEDIA = 6
    INTERRUPTED = 130


_LOOP_OPTIONS: Final[dict[str, dict[str, bool]]] = {
    "asyncio": {},
    "trio": {"restrict_keyboard_interrupt_to_checkpoints": True},
}
"""Ctrl-C cancels on both loops. Trio's default raises it between any two lines: in the middle of an
import, of a callback, of handing a result across threads; what that breaks is printed last."""

_STYLES: Final = {
    "understood": "bold",
    "transcript": "bold",
    "answered": "green",
    "written": "green",
    "still": "green",
    "warning": "yellow",
    "notice": "yellow",
    "violation": "yellow",
    "error": "red",
}
"""What stands out among the steps; the others are how it came about."""


class StepPrinter:
    """Prints each step with its time since the start, on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()

    def __call__(self, step: str, text: str) -> None:
        """Print one step."""
        line = Text(f"{time.monotonic() - self._start:7.3f} s  ", style="dim")
        line.append(f"{step:<11}", style="not dim cyan")
        line.append(text, style=f"not dim {_STYLES.get(step, '')}".rstrip())
        self._console.print(line, soft_wrap=True)


async def run_demo(
    backend: Backend,
    report: Report,
    *,
    output: Path,
    still: Path,
    question: Path | None,
    text: str | None,
    limit: float,
) -> Answer:
    """Start the emulator, ask it one question over real sockets, write the answer."""
    report("starting", "drawing a digital human")
    async with backend.emulate() as human:
        report("emulator", f"a digital human waits at {human.url}")
        return await run_talk(
            backend,
            human.endpoint(),
            report,
            output=output,
            still=still,
            question=question,
            text=text,
            limit=limit,
        )


async def run_talk(
    backend: Backend,
    endpoint: Endpoint,
    report: Report,
    *,
    output: Path,
    still: Path | None,
    question: Path | None,
    text: str | None,
    limit: float,
    timeout: float = 30.0,  # noqa: ASYNC109 - passed on to connect(), which names what it waits for
) -> Answer:
    """Ask one question and write the answer."""
    report("connecting", f"opening {endpoint.redacted_url()}")

    def observe(event: Event) -> None:
        step = describe(event)
        if step is not None:
            report(*step)

    # A proxy leads elsewhere: what is on this machine is not behind it.
    proxy = None if endpoint.is_loopback else True
    async with backend.connect(endpoint, timeout=timeout, proxy=proxy, observe=observe) as session:
        report("connected", f"connected as session {session.id}")
        answer = await ask(
            session, report, question=question, text=text, recording=output, limit=limit
        )
    report("written", f"wrote {output}")
    if still is not None and answer.still is not None:
        picture: Image = answer.still.to_image()  # type: ignore[no-untyped-call]
        try:
            picture.save(still)
        except OSError as error:
            raise RecordingError(f"{still} is incomplete: {error}") from error
        report("still", f"wrote {still}")
    return answer


Seconds = Annotated[float, Parameter(validator=Number(gt=0))]
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]


def run(backend: Backend, arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default on the process's own arguments; returns the exit code."""
    try:
        code: int | None = build(backend)(arguments, exit_on_error=False, print_error=True)
    except CycloptsError:
        return ExitCode.USAGE
    except KeyboardInterrupt:
        _complain("interrupted")
        return ExitCode.INTERRUPTED
    return code or ExitCode.OK  # None: --help and --version


def build(backend: Backend) -> App:
    """The application for one backend. Its commands return exit codes."""
    app = App(
        name="navtalk",
        version=version("navtalk"),
        help="Talk to NavTalk digital humans.",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )

    @app.command
    def demo(
        *,
        output: Annotated[Path, Parameter(alias="-o")] = Path("answer.mkv"),
        still: Path = Path("answer.png"),
        question: Path | None = None,
        text: str | None = None,
        limit: Seconds = 60.0,
    ) -> int:
        """Talk to the built-in digital human: no account, no network.

        Starts the emulator on loopback, says a spoken question to it, and writes its answer.

        Parameters
        ----------
        output
            The answer, video and voice, as .mkv or .webm.
        still
            A picture of the human while it speaks.
        question
            An audio file to say instead of the built-in question.
        text
            Type this instead of speaking.
        limit
            Seconds after which an answer that has not ended is cut off.
        """
        if problem := _problem(question, output, still):
            return _complain(problem, code=ExitCode.USAGE)
        with as_file(QUESTION) as own:
            spoken = question if question is not None or text is not None else own
            return _run(
                backend,
                partial(
                    run_demo,
                    backend,
                    StepPrinter(_console()),
                    output=output,
                    still=still,
                    question=spoken,
                    text=text,
                    limit=limit,
                ),
                output,
            )

    @app.command
    def talk(
        question: Path | None = None,
        *,
        output: Annotated[Path, Parameter(alias="-o")],
        avatar: str | None = None,
        avatar_id: str | None = None,
        text: str | None = None,
        still: Path | None = None,
        url: str = DEFAULT_BASE_URL,
        model: str | None = None,
        limit: Seconds = 60.0,
        timeout: Seconds = 30.0,
    ) -> int:
        """Ask a digital human one question and write its answer.

        The licence is taken from the environment variable NAVTALK_LICENSE, never from an argument.

        Parameters
        ----------
        question
            An audio file with the question; any format that FFmpeg reads.
        output
            The answer, video and voice, as .mkv or .webm.
        avatar
            The human's name, as in navtalk.Leo.
        avatar_id
            The human's id; wins over the name.
        text
            Type this, instead of or before speaking.
        still
            A picture of the human while it speaks.
        url
            Another server: ws://127.0.0.1:8000 for an emulator.
        model
            The model, for servers that read it from the URL.
        limit
            Seconds after which an answer that has not ended is cut off.
        timeout
            Seconds until the session must be usable.
        """
        license = os.environ.get(LICENSE_VARIABLE, "")
        if not license:
            return _complain(f"set {LICENSE_VARIABLE} to your licence", code=ExitCode.LICENCE)
        if question is None and text is None:
            return _complain("give an audio file with the question, or --text", code=ExitCode.USAGE)
        if problem := _problem(question, output, still):
            return _complain(problem, code=ExitCode.USAGE)
        try:
            endpoint = Endpoint(
                base_url=url, license=license, name=avatar, avatar_id=avatar_id, model=model
            )
        except EndpointError as error:
            return _complain(str(error), error.hint, code=ExitCode.USAGE)
        return _run(
            backend,
            partial(
                run_talk,
                backend,
                endpoint,
                StepPrinter(_console()),
                output=output,
                still=still,
                question=question,
                text=text,
                limit=limit,
                timeout=timeout,
            ),
            output,
        )

    @app.command
    def serve(
        *,
        host: str = "127.0.0.1",
        port: Port = DEFAULT_PORT,
        brain: str | None = None,
        faults: str | None = None,
        license: Annotated[list[str] | None, Parameter(negative=())] = None,
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
        """
        served: list[str] = []
        report = StepPrinter(_console())

        def serving(page: str, programs: str, avatar: str) -> None:
            served.append(page)
            print(f"demo page: {page}\nprograms:  {programs}\navatar:    {avatar}", flush=True)
            report("serving", "Ctrl-C ends it")

        options: dict[str, object] = {"host": host, "port": port, "faults": faults}
        if license:
            options["licenses"] = tuple(license)
        try:
            if brain is not None:
                options["brain"] = find_brain(brain)
            anyio.run(
                partial(run_serve, backend, report, serving, **options),
                backend=backend.name,
                backend_options=_LOOP_OPTIONS[backend.name],
            )
        except KeyboardInterrupt:
            if not served:
                raise
            report("ended", "every session was closed")
        except NavTalkError as error:  # of the brain, or of the faults
            return _complain(str(error), error.hint, code=ExitCode.USAGE)
        except OSError as error:
            return _complain(
                f"cannot listen at {host}, port {port}: {error.strerror or error}",
                "--port 0 takes a free one" if error.errno == errno.EADDRINUSE else "",
                code=ExitCode.NETWORK,
            )
        return ExitCode.OK

    return app


def _run(backend: Backend, command: Callable[[], Awaitable[Answer]], output: Path) -> int:
    """Run a command on the backend's loop and turn what comes of it into an exit code."""
    try:
        answer = anyio.run(
            command, backend=backend.name, backend_options=_LOOP_OPTIONS[backend.name]
        )
    except (NavTalkError, OSError) as error:
        return _complain(str(error), getattr(error, "hint", ""), code=_exit_code(error))
    if answer.missing:
        reported = f"; the server reports: {answer.error}" if answer.error else ""
        refused = answer.ended is not None and answer.ended.cause is CloseCause.REFUSED
        return _complain(
            f"no answer: {', '.join(answer.missing)} did not arrive{reported}",
            code=ExitCode.REFUSED if refused else ExitCode.MEDIA,
        )
    print(
        f"{output}: {answer.video_frames} pictures of {answer.width}x{answer.height} "
        f"and {answer.audible_seconds:.1f} s of voice\n"
        f'the human says: "{answer.transcript}"',
        flush=True,
    )
    return ExitCode.OK


def _console() -> Console:
    # Made where it is used: it looks at once whether standard error is a terminal.
    return Console(stderr=True, highlight=False)


def _complain(problem: str, hint: str = "", *, code: ExitCode = ExitCode.INTERRUPTED) -> ExitCode:
    line = Text("error: " if code is not ExitCode.INTERRUPTED else "", style="red")
    line.append(problem, style="default")
    if hint:
        line.append("\nhint: ", style="dim").append(hint, style="default")
    _console().print(line, soft_wrap=True)
    return code


def _problem(question: Path | None, output: Path, still: Path | None) -> str | None:
    """What is wrong with the files that were named, before anything is connected or paid for."""
    if question is not None and not question.is_file():
        return f"there is no file {question}"
    if output.suffix.lower() not in RECORDINGS:
        return f"{output} is not named as one of {', '.join(RECORDINGS)}"
    if still is not None and still.suffix.lower() not in registered_extensions():
        return f"{still} is not named as a picture, for example .png"
    for path in (output, still):
        if path is not None and (problem := _unwritable(path)):
            return problem
    return None


def _unwritable(path: Path) -> str | None:
    """Why a file cannot be written. Nothing is created: the disk may still say no later."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if path.is_dir():
        return f"{path} is a folder"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return f"{path} may not be written"
    return None


def _exit_code(error: Exception) -> ExitCode:
    match error:
        case ConnectRefusedError():
            return ExitCode.LICENCE
        case RefusedError():
            return ExitCode.REFUSED
        case MediaError() | RecordingError():
            return ExitCode.MEDIA
        case EndpointError() | AudioFileError():
            return ExitCode.USAGE
        case _:
            return ExitCode.NETWORK
