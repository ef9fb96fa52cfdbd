"""``navtalk demo``: talk to the built-in digital human, with no account and no network."""

from __future__ import annotations

from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from navtalk_asyncio.cli.backend import Backend
from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.output_files import problem_with
from navtalk_asyncio.cli.question import Answer, Report
from navtalk_asyncio.cli.settings import Seconds, Trace
from navtalk_asyncio.cli.talk import answered, run_talk
from navtalk_asyncio.cli.terminal import Screen, StepPrinter, error_console

__all__ = ["QUESTION", "add_demo", "run_demo"]

QUESTION: Final = files("navtalk_asyncio.cli") / "question.wav"
"""Spoken by ``espeak-ng -v en-us+f3 -s 150 -p 55``, resampled to 24,000 Hz, mono, 16 bit, 0.2 s of
silence at both ends; the words are in tests/emulator/test_voice_activity.py."""


async def run_demo(
    backend: Backend,
    report: Report,
    *,
    output: Path,
    still: Path,
    question: Path | None,
    text: str | None,
    limit: float,
    trace: Path | None = None,
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
            trace=trace,
        )


def add_demo(app: App, backend: Backend) -> None:
    """Add the command."""

    @app.command
    def demo(
        *,
        output: Annotated[Path, Parameter(alias="-o")] = Path("answer.mkv"),
        still: Path = Path("answer.png"),
        question: Path | None = None,
        text: str | None = None,
        limit: Seconds = 60.0,
        trace: Trace = None,
        json: Annotated[bool, Parameter(negative=())] = False,
    ) -> int:
        """Talk to the built-in digital human: no account, no network.

        Starts the emulator on loopback, says a spoken question to it, and writes its answer.

        Parameters
        ----------
        output
            The answer, video and voice, as .mp4, .mkv or .webm.
        still
            A picture of the human while it speaks.
        question
            An audio file to say instead of the built-in question.
        text
            Type this instead of speaking.
        limit
            Seconds after which an answer that has not ended is cut off.
        json
            The result as one JSON object.
        """
        screen = Screen(json=json)
        if problem := problem_with(question=question, output=output, still=still):
            return screen.complain(problem, code=ExitCode.USAGE)
        with as_file(QUESTION) as own:
            spoken = question if question is not None or text is not None else own
            return answered(
                backend,
                screen,
                partial(
                    run_demo,
                    backend,
                    StepPrinter(error_console()),
                    output=output,
                    still=still,
                    question=spoken,
                    text=text,
                    limit=limit,
                    trace=trace,
                ),
                output=output,
                still=still,
            )
