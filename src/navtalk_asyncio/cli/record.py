"""``navtalk record``: write down what a digital human shows and says, for a while."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
from cyclopts import App, Parameter

from navtalk_asyncio.cli.backend import Backend, run_on_loop
from navtalk_asyncio.cli.exit_codes import ExitCode, exit_code_of_end
from navtalk_asyncio.cli.output_files import problem_with
from navtalk_asyncio.cli.question import Report, reporting
from navtalk_asyncio.cli.settings import Avatar, AvatarId, Model, Seconds, Settings, Trace, Url
from navtalk_asyncio.cli.terminal import Screen, StepPrinter, error_console
from navtalk_proto.errors import NavTalkError
from navtalk_proto.events import CloseCause, Closed
from navtalk_proto.media import recording_media
from navtalk_proto.wire.endpoint import DEFAULT_BASE_URL, Endpoint

__all__ = ["add_record"]


async def run_record(
    backend: Backend,
    endpoint: Endpoint,
    report: Report,
    *,
    output: Path,
    text: str | None,
    seconds: float | None,
    timeout: float,  # noqa: ASYNC109 - passed on to connect(), which names what it waits for
    trace: Path | None,
    began: list[float],
) -> Closed | None:
    """Record until `seconds` have passed, the session ends or this is cancelled.

    The time at which it began is put into `began`. Returns how the session ended, None if we did.
    """
    report("connecting", f"opening {endpoint.redacted_url()}")

    proxy = None if endpoint.is_loopback else True
    async with (
        backend.connect(
            endpoint,
            timeout=timeout,
            proxy=proxy,
            media=recording_media(output),
            observe=reporting(report),
            trace=trace,
        ) as session,
        session.record(output),
    ):
        began.append(time.monotonic())
        limit = "until Ctrl-C" if seconds is None else f"for {seconds:g} s"
        report("recording", f"into {output}, {limit}")
        if text is not None:
            await session.send_text(text)
        with anyio.move_on_after(seconds):
            async for event in session.events():
                if isinstance(event, Closed):
                    return event
    return None


def add_record(app: App, backend: Backend, settings: Settings) -> None:
    """Add the command."""

    @app.command
    def record(
        output: Path,
        *,
        seconds: Seconds | None = None,
        text: str | None = None,
        avatar: Avatar = None,
        avatar_id: AvatarId = None,
        url: Url = DEFAULT_BASE_URL,
        model: Model = None,
        timeout: Seconds = 30.0,
        trace: Trace = None,
        json: Annotated[bool, Parameter(negative=())] = False,
    ) -> int:
        """Record a digital human, untouched by any encoder, until Ctrl-C or for some seconds.

        Parameters
        ----------
        output
            Video and voice, as .mp4, .mkv or .webm.
        seconds
            How long; without it, until Ctrl-C or until the server ends the session.
        text
            Type this first, so that there is something to hear.
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
        json
            The result as one JSON object.
        """
        screen = Screen(json=json)
        if problem := problem_with(output=output):
            return screen.complain(problem, code=ExitCode.USAGE)
        began: list[float] = []
        end: Closed | None = None
        try:
            endpoint = settings.endpoint(url, avatar=avatar, avatar_id=avatar_id, model=model)
            end = run_on_loop(
                backend,
                partial(
                    run_record,
                    backend,
                    endpoint,
                    StepPrinter(error_console()),
                    output=output,
                    text=text,
                    seconds=seconds,
                    timeout=timeout,
                    trace=trace,
                    began=began,
                ),
            )
        except KeyboardInterrupt:
            if not began:
                raise  # Ctrl-C is how a recording ends, and not how it begins.
        except (NavTalkError, OSError) as error:
            return screen.failed(error)
        took = time.monotonic() - began[0]
        if not output.is_file():
            return screen.complain(
                f"nothing came in {took:.1f} s that could be written to {output}",
                "a recording begins with the first whole picture; give it more time",
                code=ExitCode.MEDIA,
            )
        screen.result(
            "record",
            {"output": str(output), "seconds": round(took, 3), "ended": _ended(end)},
            f"{output}: {took:.1f} s",
        )
        if end is not None and end.cause is not CloseCause.REMOTE:
            return exit_code_of_end(end.cause)
        return ExitCode.OK


def _ended(end: Closed | None) -> dict[str, Any] | None:
    return None if end is None else {"cause": end.cause.value, "reason": end.reason}
