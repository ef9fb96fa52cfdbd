"""``navtalk doctor``: look at each step of the way to a digital human, and name the cause.

A step that needs one that failed is said to be skipped. The exit code is that of the first failure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import anyio.to_thread
from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from navtalk_asyncio.cli.backend import Backend, run_on_loop
from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.findings import (
    Finding,
    Observed,
    Verdict,
    of_pictures,
    of_session,
    of_throughput,
    of_websocket,
)
from navtalk_asyncio.cli.reachability import reach
from navtalk_asyncio.cli.settings import Avatar, AvatarId, Model, Seconds, Settings, Trace, Url
from navtalk_asyncio.cli.terminal import Screen, error_console
from navtalk_asyncio.media.ice_probe import IceProbe, probe_ice_servers
from navtalk_asyncio.media.ice_servers import ANSWER_SECONDS
from navtalk_asyncio.media.sender_reports import av_sync
from navtalk_proto.errors import (
    AvatarLookupError,
    AvatarNotFoundError,
    LicenseRefusedError,
    NavTalkError,
    RefusedError,
)
from navtalk_proto.events import Connected, Event
from navtalk_proto.ice import any_ice_server, default_ice_rule
from navtalk_proto.media import MediaKind
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import DEFAULT_BASE_URL, Endpoint

__all__ = ["STEPS", "add_doctor", "examine"]

STEPS: Final = (
    "proxy",
    "name",
    "tcp",
    "tls",
    "websocket",
    "session",
    "ready",
    "ice server",
    "offer",
    "ice",
    "dtls",
    "pictures",
    "a/v offset",
    "throughput",
)
"""Every step, in order. ``ice server`` is told once for each URL."""

_NOTICED: Final = 0.125
"""Seconds of A/V offset that people notice (ITU-R BT.1359-1: 125 ms where the sound is late)."""


async def examine(
    backend: Backend,
    endpoint: Endpoint,
    found: Callable[[Finding], None],
    *,
    timeout: float,  # noqa: ASYNC109 - of each step, and the step says so
    seconds: float,
    trace: Path | None = None,
) -> None:
    """Look at every step, and tell `found` of each in order.

    `timeout` is for each step, and for the session to be usable; media are watched for `seconds`.
    `trace` is where the session is traced to.
    """
    told: list[Finding] = []

    def tell(finding: Finding) -> None:
        told.append(finding)
        found(finding)

    if await reach(endpoint, tell, timeout=timeout):
        await _Examination(backend, endpoint, tell, timeout, seconds, trace).run()
    failed = next((one.step for one in told if one.verdict is Verdict.FAILED), None)
    if failed is not None:
        seen = {one.step for one in told}
        for step in STEPS[STEPS.index(failed) :]:
            if step not in seen:
                found(Finding(step=step, verdict=Verdict.SKIPPED, text=f"it needs: {failed}"))


class _Examination:
    """The steps from the WebSocket on."""

    def __init__(
        self,
        backend: Backend,
        endpoint: Endpoint,
        tell: Callable[[Finding], None],
        limit: float,
        seconds: float,
        trace: Path | None,
    ) -> None:
        self._backend = backend
        self._endpoint = endpoint
        self._tell = tell
        self._limit = limit
        self._seconds = seconds
        self._trace = trace
        self._seen = Observed(began=time.monotonic())
        self._welcomed = anyio.Event()
        self._probes: list[IceProbe] = []
        self._media: list[Finding] = []

    async def run(self) -> None:
        """Open a WebSocket and a session, watch, and tell."""
        async with AsyncExitStack() as stack:
            transport = await self._opened(stack)
            if transport is None:
                return
            self._seen.began = time.monotonic()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._probe)
                await self._attempt(transport)
                if not self._welcomed.is_set():
                    tasks.cancel_scope.cancel()
        findings = of_session(self._seen)
        refused = isinstance(self._seen.error, RefusedError)
        if refused and findings[0].code is ExitCode.LICENCE:
            findings[0] = await self._looked_up(findings[0])
        told = {finding.step for finding in findings}
        for finding in findings:
            if finding.step == "offer":
                self._tell_probes()
            self._tell(finding)
        if "offer" not in told:
            self._tell_probes()
        for finding in self._media:
            self._tell(finding)

    def _tell_probes(self) -> None:
        for probe in self._probes:
            self._tell(_of_probe(probe))

    async def _opened(self, stack: AsyncExitStack) -> Transport | None:
        began = time.monotonic()
        try:
            transport = await stack.enter_async_context(
                self._backend.websocket(self._endpoint, timeout=self._limit)
            )
        except (NavTalkError, OSError) as error:
            self._tell(of_websocket(error, time.monotonic() - began))
            return None
        took = time.monotonic() - began
        self._tell(Finding(step="websocket", verdict=Verdict.OK, text="open", seconds=took))
        return transport

    async def _attempt(self, transport: Transport) -> None:
        async def opened(endpoint: Endpoint) -> Transport:
            return _Watched(transport, self._seen)

        try:
            async with self._backend.connect(
                self._endpoint,
                transport=opened,
                timeout=self._limit,
                observe=self._observe,
                trace=self._trace,
            ) as session:
                await self._watch(session)
        except (NavTalkError, OSError) as error:
            self._seen.error = error

    def _observe(self, event: Event) -> None:
        self._seen.events.append((time.monotonic(), event))
        if isinstance(event, Connected):
            self._welcomed.set()

    async def _probe(self) -> None:
        await self._welcomed.wait()
        welcome = self._seen.first(Connected)
        assert welcome is not None
        allow = any_ice_server if self._endpoint.is_loopback else default_ice_rule
        asking = partial(
            probe_ice_servers,
            welcome[1].ice_servers,
            allow,
            seconds=min(self._limit, ANSWER_SECONDS),
        )
        # aioice is asyncio code, whatever loop this is; a thread has room for one of its own.
        self._probes = await anyio.to_thread.run_sync(
            lambda: asyncio.run(asking()), abandon_on_cancel=True
        )

    async def _watch(self, session: Any) -> None:
        """Take pictures and sound for a while."""
        began = time.monotonic()
        pictures: list[float] = []
        size = ""

        async def watch() -> None:
            nonlocal size
            async for frame in session.video:
                pictures.append(time.monotonic())
                size = f"{frame.width}x{frame.height}"

        async def listen() -> None:
            async for _ in session.audio:
                pass

        before = _received(session)
        with anyio.move_on_after(self._seconds):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                tasks.start_soon(listen)
        took = time.monotonic() - began
        received = _received(session) - before
        self._seen.pair = session.stats().media.pair
        self._media = [
            of_pictures(self._seen, pictures, size, began=began, took=took),
            _of_offset(_offset(session)),
            of_throughput(self._seen, received, took),
        ]

    async def _looked_up(self, finding: Finding) -> Finding:
        """A refusal that may be about the licence or the avatar: the look-up service knows."""
        try:
            await self._backend.resolve_avatar(self._endpoint, timeout=min(self._limit, 5.0))
        except LicenseRefusedError as error:
            return _changed(finding, f"{finding.text}; the look-up says: {error}", ExitCode.LICENCE)
        except AvatarNotFoundError as error:
            return Finding(
                step="session",
                verdict=Verdict.FAILED,
                text=f"{finding.text}; the look-up says: {error}",
                hint=error.hint,
                code=ExitCode.REFUSED,
            )
        except (AvatarLookupError, ImportError):
            return finding  # It knows nothing either: a self-hosted server may have none.
        return finding


def _changed(finding: Finding, text: str, code: ExitCode) -> Finding:
    return Finding(
        step=finding.step, verdict=finding.verdict, text=text, hint=finding.hint, code=code
    )


class _Watched:
    """A transport whose descriptions are seen by the examination."""

    def __init__(self, transport: Transport, seen: Observed) -> None:
        self._transport = transport
        self._seen = seen

    async def send_text(self, text: str) -> None:
        self._seen.text(text, sent=True)
        await self._transport.send_text(text)

    async def receive(self) -> str | bytes:
        message = await self._transport.receive()
        if isinstance(message, str):
            self._seen.text(message, sent=False)
        return message

    async def close(self, code: int, reason: str) -> None:
        await self._transport.close(code, reason)

    async def aclose(self) -> None:
        await self._transport.aclose()


def _received(session: Any) -> int:
    return sum(track.bytes for track in session.track_counters().values())


def _offset(session: Any) -> float | None:
    """Seconds by which the picture is later than the sound; None where nobody can tell."""
    timing = getattr(session.engine, "timing", None)
    if timing is None:
        return None
    return av_sync(timing(MediaKind.AUDIO), timing(MediaKind.VIDEO)).offset


# ---- what was found


def _of_probe(probe: IceProbe) -> Finding:
    hint = ""
    if not probe.answered:
        if "credentials" in probe.text:
            hint = "the server's operator gave out a wrong or expired user name or password"
        elif probe.text.startswith("no answer"):
            hint = (
                "it is dead, or UDP to it is blocked; sessions work without it, unless it is TURN"
            )
        else:
            hint = "tell the server's operator; sessions work while others answer"
    return Finding(
        step="ice server",
        verdict=Verdict.OK if probe.answered else Verdict.WARNING,
        text=f"{probe.url}: {probe.text}",
        seconds=probe.seconds,
        hint=hint,
    )


def _of_offset(offset: float | None) -> Finding:
    if offset is None:
        return Finding(
            step="a/v offset",
            verdict=Verdict.OK,
            text="not known: it needs the sender's reports of both tracks, every few seconds",
        )
    late = abs(offset) > _NOTICED
    size, direction = round(abs(offset) * 1000), "later" if offset > 0 else "earlier"
    return Finding(
        step="a/v offset",
        verdict=Verdict.WARNING if late else Verdict.OK,
        text=f"the picture is {size} ms {direction} than the sound"
        if size
        else "the picture and the sound are in step",
        hint="people notice this: the server's, or the network's, queues differ" if late else "",
    )


# ---- the command

_SIGNS: Final = {
    Verdict.OK: ("ok", "green"),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.FAILED: ("FAILED", "bold red"),
    Verdict.SKIPPED: ("skipped", "dim"),
}


def _line(finding: Finding) -> Text:
    sign, style = _SIGNS[finding.verdict]
    took = "" if finding.seconds is None else f"{finding.seconds:.3f} s"
    line = Text().append(f"{sign:<8}", style=style)
    line.append(f" {finding.step:<11}").append(f"{took:>8}", style="dim")
    line.append(f"  {finding.text}")
    if finding.hint:
        line.append(f"\n{'':<30}hint: ", style="dim").append(finding.hint)
    return line


def _skipped(findings: Sequence[Finding]) -> Text:
    """One line for all that was not looked at."""
    sign, style = _SIGNS[Verdict.SKIPPED]
    steps = ", ".join(finding.step for finding in findings)
    return Text(f"{sign:<8} {steps}: {findings[0].text}", style=style)


def add_doctor(app: App, backend: Backend, settings: Settings) -> None:
    """Add the command."""

    @app.command
    def doctor(
        server: str | None = None,
        *,
        url: Url = DEFAULT_BASE_URL,
        emulator: Annotated[bool, Parameter(negative=())] = False,
        avatar: Avatar = None,
        avatar_id: AvatarId = None,
        model: Model = None,
        timeout: Seconds = 15.0,
        seconds: Seconds = 6.0,
        trace: Trace = None,
        json: Annotated[bool, Parameter(negative=())] = False,
    ) -> int:
        """Find out why there is no session, no picture or no sound.

        Looks at each step of the way: proxy, name, TCP, TLS, WebSocket, session, ICE servers, offer
        and answer, ICE, DTLS, pictures and sound. One line each, with its time and what to do. A
        session is opened for a few seconds, and counts as one.

        Parameters
        ----------
        server
            The server's URL, as --url.
        url
            Another server: ws://127.0.0.1:8000 for an emulator.
        emulator
            Look at the built-in digital human instead: what this machine by itself can do.
        avatar
            The human's name, as in navtalk.Leo.
        avatar_id
            The human's id; wins over the name.
        model
            The model, for servers that read it from the URL.
        timeout
            Seconds that each step may take.
        seconds
            How long pictures and sound are watched.
        json
            The findings as one JSON object.
        """
        screen = Screen(json=json)
        endpoint = None
        if not emulator:
            try:
                endpoint = settings.endpoint(
                    server or url, avatar=avatar, avatar_id=avatar_id, model=model
                )
            except NavTalkError as error:
                return screen.failed(error)
        findings: list[Finding] = []
        shown = Console(highlight=False)

        def found(finding: Finding) -> None:
            findings.append(finding)
            if not json and finding.verdict is not Verdict.SKIPPED:
                shown.print(_line(finding), soft_wrap=True)

        # On the console of the lines, which stand above it then.
        looking = error_console() if json else shown
        with looking.status("looking") if looking.is_terminal else nullcontext():
            where = run_on_loop(
                backend, partial(_examined, backend, endpoint, found, timeout, seconds, trace)
            )
        failed = next((one for one in findings if one.verdict is Verdict.FAILED), None)
        code = ExitCode.OK if failed is None else failed.code
        skipped = [one for one in findings if one.verdict is Verdict.SKIPPED]
        if skipped and not json:
            shown.print(_skipped(skipped), soft_wrap=True)
        if json:
            screen.result(
                "doctor",
                {
                    "url": where,
                    "failed": None if failed is None else failed.step,
                    "exit_code": int(code),
                    "steps": [_document(one) for one in findings],
                },
                "",
            )
        return code


async def _examined(
    backend: Backend,
    endpoint: Endpoint | None,
    found: Callable[[Finding], None],
    limit: float,
    seconds: float,
    trace: Path | None,
) -> str:
    """Examine an endpoint, or without one an emulator of our own; returns where it was."""
    async with AsyncExitStack() as stack:
        if endpoint is None:
            endpoint = (await stack.enter_async_context(backend.emulate())).endpoint()
        await examine(backend, endpoint, found, timeout=limit, seconds=seconds, trace=trace)
    return endpoint.redacted_url()


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "step": finding.step,
        "verdict": finding.verdict.value,
        "seconds": None if finding.seconds is None else round(finding.seconds, 4),
        "text": finding.text,
        "hint": finding.hint,
    }
