"""Take docs/chat.png: ``navtalk chat`` on a terminal while the human speaks.

Run it after a change of what the command shows, and look at what it made: ``python
docs/take_chat_screenshot.py``. The user is espeak-ng, heard through a sound server without a sound
card; the answer is scripted, since the emulator's own brain recognises no words. Needs tmux,
PulseAudio, Chromium, espeak-ng and ``navtalk[all,test]``.
"""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import sys
import tempfile
from importlib.resources import as_file
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from navtalk_asyncio.cli.demo import QUESTION
from navtalk_asyncio.emulator import Conversation, EchoBrain, Emulator, Reply, emulate

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests" / "conformance"), str(ROOT / "tests" / "peers")]

from chromium_browser import chromium  # noqa: E402 - it is beside the tests
from null_sink import null_sink  # noqa: E402

COLUMNS, ROWS = 110, 20

SPOKEN = "Hello! What can you tell me about yourself?"
"""What question.wav says."""

ANSWER = "I live on your own machine. My face is drawn, and my voice is espeak's. Ask me anything."


class Guide(EchoBrain):
    """Knows what question.wav asks."""

    async def hear(self, conversation: Conversation) -> str:
        return SPOKEN

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text=ANSWER, pcm=await self.synthesiser.synthesise(ANSWER))


async def run(*command: str | Path, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return out.decode()


async def shown(human: Emulator, environment: dict[str, str], question: Path) -> str:
    """What the terminal shows in the middle of the second sentence, with its colours."""
    tmux = ("tmux", "-L", f"navtalk-{os.getpid()}")
    arguments = ("chat", "--url", human.url, "--avatar", "navtalk.Lea")
    chat = shlex.join([sys.executable, "-m", "navtalk_asyncio", *arguments])
    size = ("-x", str(COLUMNS), "-y", str(ROWS))
    await run(*tmux, "new-session", "-d", *size, chat, environment=environment)
    try:
        screen = ""
        for text in ("q ends it", "My face is drawn", "\x1b[32m━━━━━━━"):  # a meter, half full
            while text not in screen:
                await asyncio.sleep(0.1)  # Another process's terminal: nothing tells of it.
                screen = await run(*tmux, "capture-pane", "-e", "-p", environment=environment)
            if text == "q ends it":
                await run("paplay", question, environment=environment)
        return screen
    finally:
        await run(*tmux, "kill-server", environment=environment)


def drawn(screen: str) -> str:
    """A page with the terminal's contents."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(Text.from_ansi(screen.rstrip()))
    return f'<body style="margin:0">{console.export_svg(title="navtalk chat")}</body>'


async def main() -> None:
    picture = ROOT / "docs" / "chat.png"
    with tempfile.TemporaryDirectory() as folder, as_file(QUESTION) as question:
        with null_sink(Path(folder)) as environment:
            environment |= {"NAVTALK_LICENSE": "sk_navtalk_EXAMPLE"}
            async with emulate(brain=Guide()) as human:
                screen = await shown(human, environment, question)
        async with chromium(Path(folder), microphone=question) as browser:
            page = await browser.new_page(viewport={"width": 1000, "height": 600})
            await page.set_content(drawn(screen))
            await page.locator("svg").first.screenshot(path=picture)
    with Image.open(picture) as taken:
        # 256 colours, chosen well, keep it small.
        taken.convert("RGB").quantize(256, kmeans=4).save(picture, optimize=True)


if __name__ == "__main__":
    asyncio.run(main())
