"""One Chromium for the tests of a file, and a page of it for each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import as_file

import pytest
from chromium_browser import WATCH_PEERS, chromium, obstacle
from playwright.async_api import Browser, Page, expect

from navtalk_asyncio.cli.demo import QUESTION

PATIENCE_MS = 15_000
"""Milliseconds until a wait in a page is given up; only a failing test gets near it."""

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")  # A runner that lives longer is in the way of every anyio.run().
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def browser(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Browser]:
    if reason := obstacle():
        if os.environ.get("NAVTALK_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with as_file(QUESTION) as question:
        async with chromium(tmp_path_factory.mktemp("home"), microphone=question) as running:
            yield running


OpenPage = Callable[[str], Awaitable[Page]]


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Opens a URL in a profile of its own. No script may fail, nor a policy be violated."""
    context = await browser.new_context(viewport={"width": 1100, "height": 700})
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(WATCH_PEERS)
    problems: list[str] = []

    async def open_(url: str) -> Page:
        page = await context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda told: problems.append(told.text) if "Content Security" in told.text else None,
        )
        await page.goto(url)
        return page

    try:
        yield open_
    finally:
        await context.close()
    assert problems == []
