"""``navtalk talk``: ask a digital human one question and write its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from PIL.Image import Image

from navtalk_asyncio.cli.backend import Backend, run_on_loop
from navtalk_asyncio.cli.exit_codes import ExitCode, exit_code_of_end
from navtalk_asyncio.cli.output_files import problem_with
from navtalk_asyncio.cli.preview import PREVIEW_MEDIA, preview
from navtalk_asyncio.cli.question import Answer, Report, ask, reporting
from navtalk_asyncio.cli.settings import Avatar, AvatarId, Model, Seconds, Settings, Trace, Url
from navtalk_asyncio.cli.terminal import Screen, StepPrinter, error_console
from navtalk_asyncio.media.audio_file import AudioFileError
from navtalk_asyncio.media.recorder import RecordingError
from navtalk_proto.errors import NavTalkError
from navtalk_proto.media import recording_media
from navtalk_proto.wire.endpoint import DEFAULT_BASE_URL, Endpoint

__all__ = ["add_talk", "answered", "run_talk"]


async def run_talk(
    backend: Backend,
    endpoint: Endpoint,
    report: Report,
    *,
    output: Path,
    still: Path | None,
    question: Path | None,
    text: str | None,
    image: Path | None = None,
    limit: float,
    timeout: float = 30.0,  # noqa: ASYNC109 - passed on to connect(), which names what it waits for
    show: bool = False,
    trace: Path | None = None,
) -> Answer:
    """Ask one question and write the answer; `show` it on a page meanwhile."""
    report("connecting", f"opening {endpoint.redacted_url()}")

    # A proxy leads elsewhere: what is on this machine is not behind it.
    proxy = None if endpoint.is_loopback else True
    media = PREVIEW_MEDIA if show and output.suffix != ".mp4" else recording_media(output)
    async with backend.connect(
        endpoint,
        timeout=timeout,
        proxy=proxy,
        media=media,
        observe=reporting(report),
        trace=trace,
    ) as session:
        report("connected", f"connected as session {session.id}")
        async with AsyncExitStack() as stack:
            if show:
                page = await stack.enter_async_context(preview(session))
                report("preview", f"watch at {page}")
            answer = await ask(
                session,
                report,
                question=question,
                text=text,
                image=image,
                recording=output,
                limit=limit,
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


def answered(
    backend: Backend,
    screen: Screen,
    command: Callable[[], Awaitable[Answer]],
    *,
    output: Path,
    still: Path | None,
) -> ExitCode:
    """Run a command that asks a question, and tell what came of it."""
    try:
        answer = run_on_loop(backend, command)
    except AudioFileError as error:
        return screen.failed(error, ExitCode.USAGE)
    except (NavTalkError, OSError) as error:
        return screen.failed(error)
    if answer.missing:
        said = answer.farewell or answer.error
        reported = f"; the server reports: {said}" if said else ""
        cause = None if answer.ended is None else answer.ended.cause
        return screen.complain(
            f"no answer: {', '.join(answer.missing)} did not arrive{reported}",
            code=exit_code_of_end(cause),
        )
    screen.result(
        "talk",
        {
            "output": str(output),
            "still": None if still is None or answer.still is None else str(still),
            "pictures": answer.video_frames,
            "width": answer.width,
            "height": answer.height,
            "voice_seconds": round(answer.audible_seconds, 3),
            "heard": answer.heard,
            "text": answer.transcript,
        },
        f"{output}: {answer.video_frames} pictures of {answer.width}x{answer.height} "
        f"and {answer.audible_seconds:.1f} s of voice\n"
        f'the human says: "{answer.transcript}"',
    )
    return ExitCode.OK


def add_talk(app: App, backend: Backend, settings: Settings) -> None:
    """Add the command."""

    @app.command
    def talk(
        question: Path | None = None,
        *,
        output: Annotated[Path, Parameter(alias="-o")],
        avatar: Avatar = None,
        avatar_id: AvatarId = None,
        text: str | None = None,
        image: Path | None = None,
        still: Path | None = None,
        url: Url = DEFAULT_BASE_URL,
        model: Model = None,
        limit: Seconds = 60.0,
        timeout: Seconds = 30.0,
        preview: Annotated[bool, Parameter(negative=())] = False,
        trace: Trace = None,
        json: Annotated[bool, Parameter(negative=())] = False,
    ) -> int:
        """Ask a digital human one question and write its answer.

        The licence is taken from the environment variable NAVTALK_LICENSE or from the config file,
        never from an argument.

        Parameters
        ----------
        question
            An audio file with the question; any format that FFmpeg reads.
        output
            The answer, video and voice, as .mp4, .mkv or .webm.
        avatar
            The human's name, as in navtalk.Leo.
        avatar_id
            The human's id; wins over the name.
        text
            Type this, instead of or before speaking.
        image
            Show this picture first; alone, it is the question.
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
        preview
            Show the human on a page of 127.0.0.1, whose address is printed.
        json
            The result as one JSON object.
        """
        screen = Screen(json=json)
        if question is None and text is None and image is None:
            return screen.complain(
                "give an audio file with the question, --text or --image", code=ExitCode.USAGE
            )
        if problem := problem_with(question=question, image=image, output=output, still=still):
            return screen.complain(problem, code=ExitCode.USAGE)
        try:
            endpoint = settings.endpoint(url, avatar=avatar, avatar_id=avatar_id, model=model)
        except NavTalkError as error:
            return screen.failed(error)
        return answered(
            backend,
            screen,
            partial(
                run_talk,
                backend,
                endpoint,
                StepPrinter(error_console()),
                output=output,
                still=still,
                question=question,
                text=text,
                image=image,
                limit=limit,
                timeout=timeout,
                show=preview,
                trace=trace,
            ),
            output=output,
            still=still,
        )
