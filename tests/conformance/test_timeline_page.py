"""The page of ``navtalk trace --html`` in Chromium: light, dark, and it obeys no peer."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from navtalk_asyncio.cli.timeline import timeline, timeline_page
from navtalk_proto.actions import Emit
from navtalk_proto.config import ClientConfig
from navtalk_proto.events import (
    ResponseDone,
    ResponseStarted,
    ResponseText,
    Usable,
    UserTurn,
)
from navtalk_proto.inputs import TextReceived, TransportOpened
from navtalk_proto.roles import Role
from navtalk_proto.tracing.records import (
    ActionRecord,
    ConnectionBegan,
    Header,
    InputRecord,
    Record,
    Sample,
)

HOSTILE = (
    "</script><script>document.title='owned'</script>"
    "<img src=x onerror=\"document.title='owned'\"><svg onload=\"document.title='owned'\">"
)


def told(event: Any) -> ActionRecord:
    return ActionRecord(connection=1, action=Emit(event=event))


def received(now: float, text: str = "{}") -> InputRecord:
    return InputRecord(connection=1, now=now, input=TextReceived(text=text))


def records() -> list[tuple[int, Record]]:
    made: list[Record] = [
        Header(versions={"navtalk": HOSTILE}, started="2026-01-01T00:00:00Z"),
        ConnectionBegan(
            connection=1, now=10.0, role=Role.CLIENT, complete=True, config=ClientConfig()
        ),
        InputRecord(connection=1, now=10.0, input=TransportOpened()),
        received(11.0),
        told(Usable()),
        received(12.0, f'{{"type": "{HOSTILE[:60]}"}}'),
        told(UserTurn(text=HOSTILE, typed=True)),
        received(12.75),
        told(ResponseStarted(response_id="r1")),
        told(ResponseText(response_id="r1", delta=HOSTILE)),
        Sample(connection=1, now=13.0, outgoing=5, events=1),
        Sample(connection=1, now=14.0, outgoing=50, events=2),
        received(15.0),
        told(ResponseDone(response_id="r1", text=HOSTILE)),
    ]
    return list(enumerate(made, 1))


async def opened(
    browser: Browser, tmp_path: Path, scheme: Literal["light", "dark"]
) -> tuple[Page, list[str]]:
    """The page, and what its console says."""
    path = tmp_path / "call.html"
    path.write_text(timeline_page(timeline(records()), title=f"call {HOSTILE}"), "utf-8")
    page = await browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 700})
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        said.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(str(error)))
    await page.goto(path.as_uri())
    return page, said


@pytest.mark.anyio
async def test_the_page_is_drawn_and_what_a_peer_wrote_is_text(
    browser: Browser, tmp_path: Path
) -> None:
    page, said = await opened(browser, tmp_path, "light")
    try:
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"call {HOSTILE}")
        await expect(page.locator("#turns td").nth(1)).to_have_text("750 ms")
        await expect(page.locator("#turns td").nth(3)).to_have_text(HOSTILE)
        for lane in ("WebSocket", "Signaling", "ICE and DTLS", "Human's speech", "Buffers"):
            await expect(page.locator("svg .title", has_text=lane)).to_be_visible()
        await expect(page.locator(".latency-text")).to_have_text("750 ms")
        assert await page.locator("img").count() == 0
        assert "owned" not in (await page.title()).replace(HOSTILE, "")
        span = page.locator("svg rect.span.good").last
        await span.hover()
        await expect(page.locator("#hint")).to_contain_text("2.25 s long")
        await expect(page.locator("#hint")).to_contain_text("onerror")
        before = await page.locator("svg .axis").first.text_content()
        await page.mouse.wheel(0, -800)
        await expect(page.locator("svg .axis").first).not_to_have_text(before or "")
        await page.get_by_role("button", name="Whole session").click()
        await expect(page.locator("svg .axis").first).to_have_text(before or "")
        assert said == []
    finally:
        await page.close()


@pytest.mark.anyio
async def test_light_is_light_and_dark_is_dark(browser: Browser, tmp_path: Path) -> None:
    brightness = {}
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page, said = await opened(browser, tmp_path, scheme)
        try:
            picture = Image.open(BytesIO(await page.screenshot())).convert("L")
        finally:
            await page.close()
        assert said == []
        brightness[scheme] = sum(picture.histogram()[128:]) / (picture.width * picture.height)
        assert sum(map(bool, picture.histogram())) > 20, "more than an empty page"
    assert brightness["light"] > 0.9
    assert brightness["dark"] < 0.1
