"""Take docs/demo-page.png: the demo page in Chromium while the human speaks.

Run it after a change of the page, and look at what it made: ``python docs/take_screenshot.py``. The
conversation is scripted, since the emulator's own brain recognises no words; the rest is as
``navtalk serve`` runs it. Needs Chromium, espeak-ng and ``navtalk[all,test]``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from importlib.resources import as_file
from pathlib import Path

from PIL import Image

from navtalk_asyncio.cli.demo import QUESTION
from navtalk_asyncio.emulator import Conversation, EchoBrain, Reply, emulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "conformance"))

from chromium_browser import chromium  # noqa: E402 - it is beside the tests

SPOKEN = "Hello! What can you tell me about yourself?"
"""What question.wav says."""

WRITTEN = "Can anybody else see me?"

ANSWERS = {
    SPOKEN: "I live on your own machine. My face is drawn, and my voice is espeak's.",
    WRITTEN: "Nobody. Your words reach me over a WebSocket, my face reaches you over WebRTC.",
}


class TwoAnswers(EchoBrain):
    """Knows two questions."""

    async def hear(self, conversation: Conversation) -> str:
        return SPOKEN

    async def reply(self, conversation: Conversation) -> Reply:
        answer = ANSWERS[conversation.text]
        return Reply(text=answer, pcm=await self.synthesiser.synthesise(answer))


async def main() -> None:
    picture = ROOT / "docs" / "demo-page.png"
    with as_file(QUESTION) as question, tempfile.TemporaryDirectory() as home:
        async with (
            emulate(brain=TwoAnswers()) as human,
            chromium(Path(home), microphone=question) as browser,
        ):
            page = await browser.new_page(
                viewport={"width": 1000, "height": 600}, device_scale_factor=1.5
            )
            await page.goto(f"http{human.url.removeprefix('ws')}/")
            await page.get_by_role("button", name="Start talking").click()
            status = page.get_by_role("status")
            await status.get_by_text("Connected").wait_for()
            await page.get_by_role("button", name="Microphone").click()
            for state in ("Speaking", "Connected"):
                await status.get_by_text(state).wait_for()
            await page.get_by_role("textbox", name="Message").fill(WRITTEN)
            await page.get_by_role("button", name="Send").click()
            await status.get_by_text("Speaking").wait_for()
            # Some pictures later the encoder has made up for the first, coarse ones.
            await page.evaluate(
                """async () => {
                  const video = document.querySelector("video");
                  for (let shown = 0; shown < 60; shown++) {
                    await new Promise((done) => video.requestVideoFrameCallback(done));
                  }
                }"""
            )
            await page.screenshot(path=picture)
    with Image.open(picture) as taken:
        # 256 colours, chosen well, keep it small.
        taken.convert("RGB").quantize(256, kmeans=4).save(picture, optimize=True)


if __name__ == "__main__":
    asyncio.run(main())
