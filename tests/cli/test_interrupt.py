"""Ctrl-C at any moment of the demo leaves no thread, task, socket, process or broken file."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import av
import pytest

from navtalk_asyncio.cli.demo import run_demo

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")

PATIENCE = 20.0
"""Seconds until a wait is given up; only a failing test gets near it."""

STEPS = (
    "starting",
    "emulator",
    "connecting",
    "welcome",
    "ready",
    "media",
    "negotiated",
    "packets",
    "usable",
    "connected",
    "asking",
    "picture",
    "heard",
    "asked",
    "silence",
    "understood",
    "transcript",
    "says",
    "voice",
    "answered",
    "closed",
    "written",
    "still",
)
"""What the demo of a spoken question tells of itself; a step that is missing here fails below."""


def sockets() -> set[str]:
    """The sockets of this process, as /proc names them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def children() -> set[str]:
    """The process ids of this process's children."""
    lists = Path("/proc/self/task").glob("*/children")
    found: set[str] = set()
    for one in lists:
        with suppress(FileNotFoundError):  # A thread that ended meanwhile has no children.
            found.update(one.read_text().split())
    return found


def assert_playable_or_absent(path: Path) -> None:
    if not path.exists():
        return
    with av.open(str(path)) as file:
        assert {stream.type for stream in file.streams} <= {"video", "audio"}
        packets = [packet for packet in file.demux() if packet.size]
        assert packets
    with av.open(str(path)) as file:
        for stream in file.streams:
            if stream.type == "video":
                assert next(file.decode(stream)) is not None


async def demo(
    backend: Any, folder: Path, question: Path, report: Callable[[str, str], None]
) -> Any:
    return await run_demo(
        backend,
        report,
        output=folder / "answer.mkv",
        still=folder / "answer.png",
        question=question,
        text=None,
        limit=PATIENCE,
    )


def test_the_steps_above_are_all_there_are(
    backend: Callable[..., Any], tmp_path: Path, question: Path
) -> None:
    told: list[str] = []

    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await demo(backend(), tmp_path, question, lambda step, text: told.append(step))

    asyncio.run(main())
    assert set(told) == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_cancelling_at_a_step_leaves_nothing(
    step: str, backend: Callable[..., Any], tmp_path: Path, question: Path
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda loop, context: errors.append(context))
        tasks, open_before = asyncio.all_tasks(), sockets()
        cancelled_at: list[str] = []

        def report(now: str, text: str) -> None:
            if now == step and not cancelled_at:
                cancelled_at.append(now)
                running.cancel()

        running = asyncio.create_task(demo(backend(), tmp_path, question, report))
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([running])
        assert cancelled_at == [step]
        # After the last step there is nothing left to cancel.
        assert running.cancelled() or step in ("written", "still")
        assert asyncio.all_tasks() == tasks
        assert sockets() == open_before
        assert children() == set()
        assert errors == []
        # The loop's own executor ends with the loop.
        await loop.shutdown_default_executor()
        # Of those before, one of trio's may have ended meanwhile: they do after 10 s of idleness.
        assert set(threading.enumerate()) <= threads

    threads = set(threading.enumerate())
    asyncio.run(main())
    assert_playable_or_absent(tmp_path / "answer.mkv")


def session_members(session: int) -> list[str]:
    """The processes that belong to a session: what a command started and left behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = path.read_text().rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, of_session = fields.split()[:4]
        if int(of_session) == session and state != "Z":
            found.append(name)
    return found


Start = Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]


def exists(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


async def interrupted(process: asyncio.subprocess.Process) -> None:
    """Ctrl-C, and what must come of it."""
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        out, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    assert out == b""
    assert err.decode().splitlines()[-1] == "interrupted"
    assert b"Traceback" not in err
    assert b"Error" not in err
    assert session_members(process.pid) == []


@pytest.mark.parametrize(
    "step", ["starting", "connecting", "connected", "asking", "heard", "voice"]
)
def test_ctrl_c_ends_the_process(step: str, command_beside: Start, tmp_path: Path) -> None:
    async def main() -> None:
        async with command_beside("demo") as process:
            assert process.stderr is not None
            while step not in (line := (await process.stderr.readline()).decode()).split():
                assert line, "the demo ended before this step"
            await interrupted(process)

    asyncio.run(main())
    assert_playable_or_absent(tmp_path / "answer.mkv")
    # The picture is written last, of a whole answer.
    assert not (tmp_path / "answer.png").exists()


def test_ctrl_c_while_the_synthesiser_speaks_ends_its_process_too(
    command_beside: Start, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    synthesiser = tmp_path / "espeak-ng"
    synthesiser.write_text(f"#!/bin/sh\necho $$ > {started}\nexec sleep 300\n")
    synthesiser.chmod(0o755)

    async def main() -> None:
        path = f"{tmp_path}:{os.environ['PATH']}"
        async with command_beside("demo", "--text", "Hello", PATH=path) as process:
            # Opening a pipe waits for its writer: the synthesiser runs from here on.
            pid = (await asyncio.to_thread(started.read_text)).strip()
            assert pid.isdigit()
            assert exists(pid)
            # To the command alone, as `kill -INT` does: the synthesiser is its to end.
            await interrupted(process)
            assert not exists(pid)

    asyncio.run(main())


def test_ctrl_c_while_the_libraries_load_is_quiet(command_beside: Start, tmp_path: Path) -> None:
    # A module that is imported early by the command line, and waits to be interrupted.
    started = tmp_path / "started"
    os.mkfifo(started)
    (tmp_path / "cyclopts.py").write_text(
        f"open({str(started)!r}, 'w').write('here')\nimport time\ntime.sleep(300)\n"
    )

    async def main() -> None:
        async with command_beside("demo", PYTHONPATH=str(tmp_path)) as process:
            assert await asyncio.to_thread(started.read_text) == "here"
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(10):
                out, err = await process.communicate()
            assert (process.returncode, out, err) == (130, b"", b"")

    asyncio.run(main())
