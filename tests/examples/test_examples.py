"""Every example is run, as its own documentation says, against the emulator."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from navtalk_asyncio.emulator import Emulator, emulate

EXAMPLES = Path(__file__).parents[2] / "examples"
LICENCE = "sk_navtalk_EXAMPLE"
PATIENCE = 60.0


async def run(name: str, *arguments: str) -> str:
    """Run an example as a process of its own; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        str(EXAMPLES / name),
        *arguments,
        env={**os.environ, "NAVTALK_LICENSE": LICENCE},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert LICENCE.encode() not in out + err
    assert (process.returncode, err) == (0, b""), err.decode()
    return out.decode()


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


RUNS: dict[str, Callable[[Emulator], Awaitable[None]]] = {
    "embed_blocking.py": embed_blocking,
    "kiosk.py": kiosk,
    "tools.py": tools,
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
    assert f"python examples/{name}" in documented
