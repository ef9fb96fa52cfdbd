"""Every ``sh`` block of docs/ that begins with navtalk runs as it stands, against an emulator."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from navtalk_asyncio.emulator import emulate

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```sh\n(navtalk .*?)^```$", re.MULTILINE | re.DOTALL)
LICENCE = "sk_navtalk_EXAMPLE"


def blocks() -> list[object]:
    found = []
    for page in sorted((ROOT / "docs").glob("**/*.md")):
        text = page.read_text("utf-8")
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 2
            found.append(pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize("block", blocks())
def test_a_block_of_commands_runs(block: str, tmp_path: Path) -> None:
    """Each line by itself, without a shell; ``# exits N`` at its end says how it is to end."""

    async def main() -> None:
        async with emulate() as human:
            environment = {
                **os.environ,
                "NAVTALK_LICENSE": LICENCE,
                "NAVTALK_URL": human.url,
                "NAVTALK_AVATAR": human.endpoint().name or "",
            }
            for line in block.splitlines():
                command, _, wanted = line.partition("  # exits ")
                program, *arguments = shlex.split(command)
                assert program == "navtalk"
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "navtalk_asyncio", *arguments),
                    cwd=tmp_path,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                async with asyncio.timeout(60):
                    out, _ = await process.communicate()
                assert process.returncode == int(wanted or 0), f"{line}\n{out.decode()}"
                assert LICENCE not in out.decode()

    asyncio.run(main())
