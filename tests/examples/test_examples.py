"""Every example is run, as its own documentation says, against the emulator."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import av
import pytest
from websockets.asyncio.client import connect as open_websocket

from navtalk_asyncio import Endpoint, connect
from navtalk_asyncio.emulator import Emulator, emulate
from navtalk_proto import HumanTurn

EXAMPLES = Path(__file__).parents[2] / "examples"
LICENCE = "sk_navtalk_EXAMPLE"
PATIENCE = 60.0


@asynccontextmanager
async def started(*arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """An example as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        cwd=EXAMPLES.parent,
        env={**os.environ, "NAVTALK_LICENSE": LICENCE, "QT_QPA_PLATFORM": "offscreen"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(name: str, *arguments: str, typed: bytes = b"") -> str:
    """Run an example to its end, with `typed` as its standard input; returns what it printed."""
    async with started(str(EXAMPLES / name), *arguments) as process:
        out, err = await process.communicate(typed)
    assert LICENCE.encode() not in out + err
    assert (process.returncode, err) == (0, b""), err.decode()
    return out.decode()


def needs(module: str) -> None:
    """Skip by name what an optional package is for; with NAVTALK_REQUIRE_PEERS=1 that fails."""
    try:
        importlib.import_module(module)
    except ImportError as missing:  # a library of the system too: Qt wants those of a display
        if os.environ.get("NAVTALK_REQUIRE_PEERS") == "1":
            raise
        pytest.skip(f"{module} cannot be imported: {missing}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def embed_blocking(human: Emulator) -> None:
    printed = await run("embed_blocking.py", human.url, "navtalk.Lea")
    assert re.fullmatch(
        r"human: You wrote: Hello from a blocking loop!( \[in tones: .*\])?\n", printed
    )


async def tools(human: Emulator) -> None:
    for loop in ("asyncio", "trio"):
        called, said = (await run("tools.py", human.url, "navtalk.Lea", loop)).splitlines()
        assert called == 'calls: opening_hours({"day": "Saturday"})'
        assert said.startswith("human: opening_hours says: from 10:00, to 18:00.")


async def kiosk(human: Emulator) -> None:
    """Asked nothing; what becomes of it when its server dies is in test_kiosk.py."""
    printed = await run("kiosk.py", human.url, "navtalk.Lea")
    assert re.fullmatch(r"(picture: \d+ x \d+\n)?closed: 0 entries remembered\n", printed)


async def embed_own_loop(human: Emulator) -> None:
    printed = await run("embed_own_loop.py", human.url, "navtalk.Lea")
    assert printed.startswith("human: You wrote: Hello from my own loop!")


async def embed_qt(human: Emulator) -> None:
    needs("PySide6.QtWidgets")
    printed = await run("embed_qt.py", human.url, "navtalk.Lea")
    assert printed.startswith("label: You wrote: Hello from Qt!")


async def image_question(human: Emulator) -> None:
    picture = str(EXAMPLES.parent / "docs" / "demo-page.png")
    printed = await run("image_question.py", human.url, "navtalk.Lea", picture, "What is this?")
    assert re.search(r"What is this\? .*I see a picture of \d+ x \d+ pixels\.", printed)


async def telephony(human: Emulator) -> None:
    call = bytes([0x10, 0x90]) * 4_000 + b"\xff" * 8_000  # a second of a loud tone, one of silence
    caller, answer = (await run("telephony.py", human.url, "navtalk.Lea", typed=call)).splitlines()
    assert caller == "caller: 2.0 s"
    # What the emulator measured: its ears cut at frames of 20 ms and hold on after the end.
    measured = re.search(r"\[(\d\.\d) s of speech, -\d+ dBFS\]", answer)
    assert measured is not None
    assert 0.9 <= float(measured[1]) <= 1.3


async def own_brain(human: Emulator) -> None:
    printed = await run("own_brain.py", human.url, "navtalk.Lea", typed=b"Hello!\n")
    assert printed.splitlines()[0] == "human: You said: Hello!"
    assert re.fullmatch(r"picture: \d+ x \d+", printed.splitlines()[1])


async def load_generator(human: Emulator) -> None:
    opened, answered = (await run("load_generator.py", human.url, "navtalk.Lea", "5")).splitlines()
    assert opened.startswith("opened: 5, median ")
    assert answered.startswith("answered: 5, median ")


async def man_in_the_middle(human: Emulator) -> None:
    async with started(str(EXAMPLES / "man_in_the_middle.py"), human.url, "0") as process:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[-1]
        endpoint = Endpoint(base_url=url, name="navtalk.Lea", license=LICENCE)
        async with connect(endpoint) as session:  # with media, which goes past the process
            await session.send_text("Hello!")
            assert await anext(t.text async for t in session.turns() if isinstance(t, HumanTurn))
        process.terminate()
        out, err = await process.communicate()
    assert err == b""
    lines = out.decode().splitlines()
    assert {"> UserMessage", "> ResponseCreate", "< | Ready", "< TranscriptDone"} <= set(lines)
    assert LICENCE.encode() not in out


async def fastapi_bridge(human: Emulator) -> None:
    needs("fastapi")
    needs("uvicorn")
    port = free_port()
    example = str(EXAMPLES / "fastapi_bridge.py")
    async with started(example, human.url, "navtalk.Lea", str(port)) as process:
        # A client that is refused tries again by itself: nobody listens yet.
        async for page in open_websocket(f"ws://127.0.0.1:{port}/session", proxy=None):
            await page.send("Hello!")
            pictures, said = [], []
            async for message in page:
                (said if isinstance(message, str) else pictures).append(message)
                if len(said) == 2 and pictures:
                    break
            await page.close()
            break
        process.terminate()
        out, err = await process.communicate()
    assert said[0] == "UserTurn: Hello!"
    assert said[1].startswith("HumanTurn: You wrote: Hello!")
    assert pictures[0][:2] == b"\xff\xd8"  # a JPEG's first marker
    assert LICENCE.encode() not in out + err


async def pytest_usage(human: Emulator) -> None:
    """Brings an emulator of its own."""
    example = str(EXAMPLES / "pytest_usage.py")
    async with started("-m", "pytest", "-q", "-p", "no:cacheprovider", example) as process:
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert b"2 passed" in out


async def wav_to_mp4(human: Emulator) -> None:
    question = EXAMPLES.parent / "src" / "navtalk_asyncio" / "cli" / "question.wav"
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / f"{name}.wav" for name in ("first", "second")]
        for copy in copies:
            copy.write_bytes(question.read_bytes())
        printed = await run("wav_to_mp4.py", human.url, "navtalk.Lea", *map(str, copies))
        assert sorted(line.split(":")[0] for line in printed.splitlines()) == [
            "first.mp4",
            "second.mp4",
        ]
        for copy in copies:
            with av.open(str(copy.with_suffix(".mp4"))) as film:
                codecs = {stream.codec_context.name for stream in film.streams}
                assert codecs == {"h264", "opus"}


async def otel_console(human: Emulator) -> None:
    needs("opentelemetry.sdk")
    printed = await run("otel_console.py", human.url, "navtalk.Lea")
    scopes = json.loads(printed)["resource_metrics"][0]["scope_metrics"]
    names = {metric["name"] for scope in scopes for metric in scope["metrics"]}
    assert any(name.startswith("navtalk.") for name in names), names


async def recorder(human: Emulator) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for loop, name, codec in (("asyncio", "call.mp4", "h264"), ("trio", "call.webm", "vp8")):
            path = f"{folder}/{name}"
            printed = await run("recorder.py", human.url, "navtalk.Lea", path, loop)
            assert re.match(rf"{path}: \d+ packets, in step by (sender-reports|arrival)\n", printed)
            with av.open(path) as file:
                streams = [stream.codec_context.name for stream in file.streams]
                assert streams == [codec, "opus", "opus"]
                assert len(list(file.decode(audio=0))) > 10


async def relay_packets(human: Emulator) -> None:
    for loop in ("asyncio", "trio"):
        program = str(EXAMPLES / "relay_packets.py")
        async with started(program, human.url, "navtalk.Lea", "1", loop) as process:
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            kinds = set()
            while line := await reader.readline():
                head = json.loads(line)
                assert len(await reader.readexactly(head["size"])) == head["size"]
                assert "video" in kinds or head["kind"] == "audio" or head["keyframe"]
                kinds.add(head["kind"])
            writer.close()
            assert kinds == {"audio", "video"}
            out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert re.fullmatch(rb"relayed \d+, dropped 0\n", out)


RUNS: dict[str, Callable[[Emulator], Awaitable[None]]] = {
    "embed_blocking.py": embed_blocking,
    "embed_own_loop.py": embed_own_loop,
    "embed_qt.py": embed_qt,
    "fastapi_bridge.py": fastapi_bridge,
    "image_question.py": image_question,
    "kiosk.py": kiosk,
    "load_generator.py": load_generator,
    "man_in_the_middle.py": man_in_the_middle,
    "otel_console.py": otel_console,
    "own_brain.py": own_brain,
    "pytest_usage.py": pytest_usage,
    "recorder.py": recorder,
    "relay_packets.py": relay_packets,
    "telephony.py": telephony,
    "tools.py": tools,
    "wav_to_mp4.py": wav_to_mp4,
}


def test_every_example_is_run_here() -> None:
    found = {path.name for path in EXAMPLES.glob("*.py")}
    assert found == set(RUNS)


@pytest.mark.parametrize("name", sorted(RUNS))
def test_an_example_does_what_it_shows(name: str) -> None:
    async def main() -> None:
        async with emulate() as human:
            await RUNS[name](human)

    asyncio.run(main())


@pytest.mark.parametrize("name", sorted(RUNS))
def test_an_example_is_short_and_says_what_it_is(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) <= 60
    documented = ast.get_docstring(ast.parse(text))
    assert documented
    assert re.search(rf"python (-m pytest )?examples/{name}", documented)
