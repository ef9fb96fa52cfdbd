"""``navtalk record``: what it writes, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import av
import jsonschema

from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend
from navtalk_asyncio.emulator import emulate

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "command-line.schema.json").read_text("utf-8")
)
LICENCE = "sk_navtalk_EXAMPLE"
Start = Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]


def streams(path: Path) -> list[str]:
    with av.open(str(path)) as file:
        assert any(packet.size for packet in file.demux(video=0))
        return [stream.type for stream in file.streams]


def test_it_records_for_some_seconds(command_beside: Start, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            emulate() as human,
            command_beside(
                "record", "a.webm", "--seconds", "1.5", "--text", "Hi", "--json",
                "--trace", "call.jsonl", "--avatar", "navtalk.Lea",
                NAVTALK_LICENSE=LICENCE, NAVTALK_URL=human.url,
            ) as process,
        ):  # fmt: skip
            out, err = await process.communicate()
        assert process.returncode == 0, err
        document = json.loads(out)
        jsonschema.validate(document, SCHEMA)
        assert document["seconds"] >= 1.5
        assert document["ended"] is None
        assert LICENCE.encode() not in out + err

    asyncio.run(main())
    assert streams(tmp_path / "a.webm") == ["video", "audio"]
    assert run(AsyncioBackend(), ["replay", str(tmp_path / "call.jsonl")]) == 0


def test_ctrl_c_ends_it_with_a_whole_file(command_beside: Start, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            emulate() as human,
            command_beside(
                "record", "a.mkv", "--avatar", "navtalk.Lea",
                NAVTALK_LICENSE=LICENCE, NAVTALK_URL=human.url,
            ) as process,
        ):  # fmt: skip
            recording = tmp_path / "a.mkv"
            while not (recording.is_file() and recording.stat().st_size):
                assert process.returncode is None, "it ended before"
                await asyncio.sleep(0.02)  # Another process's file: nothing tells of it.
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
        assert process.returncode == 0, err
        assert out.startswith(b"a.mkv: ")

    asyncio.run(main())
    assert "video" in streams(tmp_path / "a.mkv")


def test_a_server_that_ends_it_is_told(command_beside: Start) -> None:
    async def main() -> None:
        async with (
            emulate(time_limit=1.0) as human,
            command_beside(
                "record", "a.mkv", "--json", "--avatar", "navtalk.Lea",
                NAVTALK_LICENSE=LICENCE, NAVTALK_URL=human.url,
            ) as process,
        ):  # fmt: skip
            out, err = await process.communicate()
        assert process.returncode == 0, err
        assert json.loads(out)["ended"]["cause"] == "remote"

    asyncio.run(main())
