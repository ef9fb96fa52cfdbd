"""``navtalk talk`` and what every command has: exit codes, files, the licence that never shows."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import pytest

from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend
from navtalk_asyncio.emulator import Conversation, Emulator, Reply, emulate
from navtalk_asyncio.server import ServerSession, serve
from navtalk_proto.config import ServerConfig
from navtalk_proto.wire.messages import GpuFull, InsufficientBalance, Message

LICENCE = "sk_navtalk_EXAMPLE_of_the_talk_tests"
Start = Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]


async def ended(
    process: asyncio.subprocess.Process, license: str = LICENCE
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; neither shows the licence."""
    out, err = await process.communicate()
    assert license.encode() not in out + err
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


class Polite:
    """Answers with a text that says what was asked, and half a second of noise."""

    async def hear(self, conversation: Conversation) -> str:
        return "speech"

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text=f"You asked: {conversation.text}", pcm=b"\x00\x20\x00\xe0" * 6_000)


class Silent(Polite):
    """Never answers."""

    async def reply(self, conversation: Conversation) -> None:  # type: ignore[override]
        return None


@asynccontextmanager
async def polite() -> AsyncIterator[Emulator]:
    async with emulate(brain=Polite(), licenses=[LICENCE]) as human:
        yield human


def test_a_typed_question_is_answered_into_a_file(command_beside: Start, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            polite() as human,
            command_beside(
                "talk", "--text", "How are you?", "-o", "a.mkv", "--avatar", "navtalk.Lea",
                "--url", human.url, "--still", "a.png", NAVTALK_LICENSE=LICENCE,
            ) as process,
        ):  # fmt: skip
            code, out, err = await ended(process)
        assert code == 0, err
        first, second = out.splitlines()
        assert re.fullmatch(r"a\.mkv: \d+ pictures of 512x512 and 0\.[56] s of voice", first)
        assert second == 'the human says: "You asked: How are you?"'
        assert "license=***" in err

    asyncio.run(main())
    with av.open(str(tmp_path / "a.mkv")) as file:
        assert [stream.type for stream in file.streams] == ["video", "audio"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_preview_has_an_address_of_this_machine(command_beside: Start) -> None:
    async def main() -> None:
        async with (
            polite() as human,
            command_beside(
                "talk", "--text", "How are you?", "-o", "a.webm", "--avatar", "navtalk.Lea",
                "--url", human.url, "--preview", NAVTALK_LICENSE=LICENCE,
            ) as process,
        ):  # fmt: skip
            code, _, err = await ended(process)
        assert code == 0, err
        assert re.search(r"watch at http://127\.0\.0\.1:\d+/[\w-]{22}/", err)

    asyncio.run(main())


def test_a_spoken_question_to_an_avatar_id(command_beside: Start, question: Path) -> None:
    async def main() -> None:
        async with (
            polite() as human,
            command_beside(
                "talk", question, "-o", "a.mkv", "--avatar-id",
                human.directory.avatars[0].id, "--url", human.url, NAVTALK_LICENSE=LICENCE,
            ) as process,
        ):  # fmt: skip
            code, out, err = await ended(process)
        assert code == 0, err
        assert out.splitlines()[1] == 'the human says: "You asked: speech"'
        assert "the human understood: speech" in err

    asyncio.run(main())


def test_a_wrong_licence_is_3_and_is_not_shown(command_beside: Start, tmp_path: Path) -> None:
    wrong = "sk_navtalk_WRONG_of_the_talk_tests"

    async def main() -> None:
        async with (
            polite() as human,
            command_beside(
                "talk", "--text", "Hi", "-o", "a.mkv", "--avatar", "navtalk.Lea",
                "--url", human.url, NAVTALK_LICENSE=wrong,
            ) as process,
        ):  # fmt: skip
            code, out, err = await ended(process, wrong)
        assert (code, out) == (3, "")
        assert "Invalid license key" in err
        assert "hint: check the licence and the avatar's name or id" in err

    asyncio.run(main())
    assert not (tmp_path / "a.mkv").exists()


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (GpuFull(message="No GPU worker is free, try again later."), "hint: try again later"),
        (InsufficientBalance(message="No points"), "hint: add credit to the account"),
    ],
    ids=["gpu", "balance"],
)
def test_a_refusal_is_5(command_beside: Start, refusal: Message, text: str) -> None:
    async def refuse(session: ServerSession) -> None:
        await session.send(refusal)

    async def main() -> None:
        async with (
            serve(refuse, config=ServerConfig(media=())) as server,
            command_beside(
                "talk", "--text", "Hi", "-o", "a.mkv", "--avatar", "x",
                "--url", server.url, NAVTALK_LICENSE=LICENCE,
            ) as process,
        ):  # fmt: skip
            code, out, err = await ended(process)
        assert (code, out) == (5, "")
        assert err.splitlines()[-1] == text

    asyncio.run(main())


def test_a_server_that_is_not_there_is_4(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAVTALK_LICENSE", LICENCE)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        code = talk("--text", "Hi", "-o", str(tmp_path / "a.mkv"), "--avatar", "x", "--url", url)
    captured = capsys.readouterr()
    assert code == 4
    assert f"cannot open {url}/wss/v2/realtime-chat?license=***&name=x" in captured.err
    assert "hint: check the URL, the network and the proxy" in captured.err
    assert LICENCE not in captured.err + captured.out


def test_an_answer_as_mp4(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(backend(), ["demo", "--text", "Hi", "-o", "a.mp4"]) == 0
    assert "says        Parrot: Hi" in capsys.readouterr().err
    with av.open("a.mp4") as file:
        assert [one.codec_context.name for one in file.streams] == ["h264", "opus"]


# ---- before anything is connected


def talk(*arguments: str) -> int:
    return run(AsyncioBackend(), ["talk", *arguments])


def test_no_licence_is_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NAVTALK_LICENSE", raising=False)
    assert talk("--text", "Hi", "-o", "a.mkv", "--avatar", "x") == 3
    assert capsys.readouterr().err == (
        "error: set NAVTALK_LICENSE to your licence\n"
        "hint: the console of your account shows it; the emulator takes sk_navtalk_EXAMPLE\n"
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["missing.wav", "-o", "a.mkv", "--avatar", "x"], "there is no file missing.wav"),
        (
            ["-o", "a.mkv", "--avatar", "x"],
            "give an audio file with the question, --text or --image",
        ),
        (
            ["--text", "Hi", "-o", "a.mkv"],
            "say which avatar: --avatar NAME, --avatar-id ID or NAVTALK_AVATAR",
        ),
        (
            ["--text", "Hi", "-o", "a.mkv", "--avatar", "x", "--url", "http://127.0.0.1"],
            "hint: give a wss:// or ws:// base URL, a licence, and an avatar id or name",
        ),
        (
            ["--text", "Hi", "-o", "a.avi", "--avatar", "x"],
            "a.avi is not named as one of .mp4, .mkv, .webm",
        ),
        (
            ["--text", "Hi", "-o", "a.mkv", "--avatar", "x", "--still", "a.txt"],
            "a.txt is not named as a picture, for example .png",
        ),
        (
            ["--text", "Hi", "-o", "nowhere/a.mkv", "--avatar", "x"],
            "there is no folder nowhere",
        ),
        (["--text", "Hi", "--avatar", "x"], "--output"),
        (["--text", "Hi", "-o", "a.mkv", "--avatar", "x", "--limit", "0"], "--limit"),
        (["--text", "Hi", "-o", "a.mkv", "--avatar", "x", "--license", "y"], "--license"),
    ],
)
def test_a_mistake_in_the_arguments_is_2(
    arguments: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAVTALK_LICENSE", LICENCE)
    assert talk(*arguments) == 2
    captured = capsys.readouterr()
    assert problem in captured.err
    assert captured.out == ""
    assert LICENCE not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["demo", "--question", "notes.txt"], "notes.txt: not a media file"),
        (["talk", "notes.txt", "-o", "a.mkv"], "notes.txt: not a media file"),
        (["talk", "--image", "notes.txt", "-o", "a.mkv"], "notes.txt: not a picture"),
    ],
)
def test_a_question_that_is_no_sound_or_picture_is_2_before_anything_is_connected(
    arguments: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAVTALK_LICENSE", LICENCE)
    monkeypatch.setenv("NAVTALK_AVATAR", "x")
    (tmp_path / "notes.txt").write_text("What time is it?")
    # Nothing but the line: a step would have come before it.
    assert run(AsyncioBackend(), arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")


def test_an_answer_that_the_server_ends_says_why(command_beside: Start) -> None:
    async def main() -> None:
        async with (
            emulate(brain=Silent(), licenses=[LICENCE], faults="refuse=gpu_full@1s") as human,
            command_beside(
                "talk", "--text", "Hi", "-o", "a.mkv", "--avatar", "navtalk.Lea",
                "--url", human.url, NAVTALK_LICENSE=LICENCE,
            ) as process,
        ):  # fmt: skip
            code, _, err = await ended(process)
        assert code == 5
        *_, closed, _, error = err.splitlines()
        assert closed.endswith("the session ended: refused (no worker is free)")
        assert error.startswith("error: no answer: ")
        assert error.endswith("; the server reports: No GPU worker is free, try again later.")

    asyncio.run(main())


def test_a_full_disk_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full.mkv").symlink_to("/dev/full")
    assert run(backend(), ["demo", "--text", "Hi", "-o", "full.mkv"]) == 6
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: full.mkv is incomplete: [Errno 28] No space left on device")
    assert hint.startswith("hint: check the disk")


def test_a_full_disk_under_the_picture_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full.png").symlink_to("/dev/full")
    assert run(backend(), ["demo", "--text", "Hi", "-o", "a.mkv", "--still", "full.png"]) == 6
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: full.png is incomplete: [Errno 28] No space left on device")
    assert hint.startswith("hint: check the disk")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-o", "folder.mkv"], "folder.mkv is a folder"),
        (["-o", "a.mkv", "--still", "folder.png"], "folder.png is a folder"),
        (["-o", "a.mkv", "--still", "nowhere/a.png"], "there is no folder nowhere"),
        (["-o", "locked.mkv"], "locked.mkv may not be written"),
        (["-o", "a.mkv", "--still", "locked.png"], "locked.png may not be written"),
    ],
)
def test_a_file_that_cannot_be_written_is_2_before_anything_starts(
    arguments: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def emulate() -> Any:
        pytest.fail("it was started")

    # Root may write everything: what the system would say is said here.
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).stem != "locked" and access(path, mode)
    )
    monkeypatch.chdir(tmp_path)
    for name in ("folder.mkv", "folder.png"):
        (tmp_path / name).mkdir()
    for name in ("locked.mkv", "locked.png"):
        (tmp_path / name).touch()
    before = sorted(os.listdir(tmp_path))
    backend = AsyncioBackend()
    monkeypatch.setattr(backend, "emulate", emulate)
    assert run(backend, ["demo", "--text", "Hi", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {problem}\n"
    assert sorted(os.listdir(tmp_path)) == before


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(AsyncioBackend(), ["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("navtalk")
    assert run(AsyncioBackend(), ["--help"]) == 0
    general = capsys.readouterr().out
    assert "demo" in general
    assert "talk" in general
    assert run(AsyncioBackend(), ["talk", "--help"]) == 0
    of_talk = capsys.readouterr().out
    assert "NAVTALK_LICENSE" in of_talk
    assert "--output" in of_talk


def test_an_unknown_command_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(AsyncioBackend(), ["sing"]) == 2
    assert "sing" in capsys.readouterr().err
