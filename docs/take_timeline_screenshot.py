"""Take docs/trace-timeline.png: the page of ``navtalk trace --html``, light above dark.

Run it after a change of the page, and look at what it made: ``python
docs/take_timeline_screenshot.py``. The conversation is scripted, since the emulator's own brain
recognises no words; the rest is a session as any other. Needs Chromium, espeak-ng and
``navtalk[all,test]``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from importlib.resources import as_file
from pathlib import Path
from typing import Literal

from PIL import Image

from navtalk_asyncio import connect
from navtalk_asyncio.cli.demo import QUESTION
from navtalk_asyncio.cli.timeline import timeline, timeline_page
from navtalk_asyncio.cli.trace_files import trace_records
from navtalk_asyncio.emulator import Conversation, EchoBrain, Reply, emulate
from navtalk_proto.events import (
    ResponseDone,
    ResponseGenerated,
    ResponseInterrupted,
    ResponseStarted,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "conformance"))

from chromium_browser import chromium  # noqa: E402 - it is beside the tests

SPOKEN = "Hello! What can you tell me about yourself?"
"""What question.wav says."""

LONG = "Of course. There is so much to see here that I hardly know where to begin: the old harbour,"


class Guide(EchoBrain):
    """Knows what question.wav asks, and tells a long story."""

    async def hear(self, conversation: Conversation) -> str:
        return SPOKEN

    async def reply(self, conversation: Conversation) -> Reply:
        if conversation.heard is not None:
            answer = "I live on your own machine, and my face is drawn."
        elif conversation.text == "Tell me a story":
            answer = f"{LONG} the market, the lighthouse and the theatre."
        else:
            return await super().reply(conversation)
        return Reply(text=answer, pcm=await self.synthesiser.synthesise(answer))


async def opening_hours(place: str) -> str:
    """When a place is open."""
    await asyncio.sleep(0.6)
    return f"{place} is open from nine to five"


async def record(path: Path) -> None:
    """A session with a spoken turn, a function call, and an interruption."""
    async with (
        emulate(brain=Guide()) as human,
        connect(human.endpoint(), trace=path, tools=[opening_hours]) as session,
    ):
        events = session.events()

        async def until(*kinds: type) -> None:
            async for event in events:
                if isinstance(event, kinds):
                    return

        with as_file(QUESTION) as question:
            await session.say_file(question)
        await until(ResponseDone)
        await session.send_text('What are the opening hours of "the museum"?')
        await until(ResponseGenerated)
        await until(ResponseDone)
        await session.send_text("Tell me a story")
        await until(ResponseStarted)
        await asyncio.sleep(2.5)
        await session.interrupt()
        await until(ResponseInterrupted)


async def main() -> None:
    picture = ROOT / "docs" / "trace-timeline.png"
    with tempfile.TemporaryDirectory() as home, as_file(QUESTION) as question:
        trace = Path(home) / "call.jsonl"
        await record(trace)
        page_file = Path(home) / "call.html"
        page_file.write_text(timeline_page(timeline(trace_records(trace)), title="call.jsonl"))
        pictures = []
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        async with chromium(Path(home), microphone=question) as browser:
            for scheme in schemes:
                page = await browser.new_page(
                    viewport={"width": 1280, "height": 760}, color_scheme=scheme
                )
                await page.goto(page_file.as_uri())
                taken = Path(home) / f"{scheme}.png"
                await page.screenshot(path=taken, full_page=True)
                pictures.append(taken)
        images = [Image.open(taken) for taken in pictures]
        width = max(image.width for image in images)
        both = Image.new("RGB", (width, sum(image.height for image in images)))
        top = 0
        for image in images:
            both.paste(image, (0, top))
            top += image.height
            image.close()
    # 256 colours, chosen well, keep it small.
    both.quantize(256, kmeans=4).save(picture, optimize=True)


if __name__ == "__main__":
    asyncio.run(main())
