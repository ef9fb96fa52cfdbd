"""Headless Chromium, whose page `chromium.html` does what the seed's pages say.

Pictures and sound are read by MediaStreamTrackProcessors, beside a video element that plays them.
CPU is that of all the browser's processes. There is no recorder, and no loop to choose.
"""

from __future__ import annotations

import asyncio
import base64
import math
import os
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from playwright.async_api import Page, async_playwright

from peers.visit import PATIENCE_SECONDS, Visit, main

EXECUTABLE: Final = "chromium"

FLAGS: Final = (
    "--no-sandbox",  # Root has no sandbox.
    "--disable-dev-shm-usage",
    "--allow-loopback-in-peer-connection",
    # Without a microphone that is granted it names no addresses but .local ones.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

CLOCK_LOOKS: Final = 50
"""Of so many looks at the page's clock the quickest counts; it is off by half of what it took."""


class _Browser:
    """One Chromium and its page, for all sessions of a process."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._page: Page | None = None

    async def page(self) -> Page:
        if self._page is None:
            home = self._stack.enter_context(tempfile.TemporaryDirectory())
            playwright = await self._stack.enter_async_context(async_playwright())
            browser = await playwright.chromium.launch(
                executable_path=shutil.which(EXECUTABLE),
                args=FLAGS,
                env={"HOME": home, "PATH": os.environ["PATH"]},
            )
            self._stack.push_async_callback(browser.close)
            self._page = await browser.new_page()
            await self._page.goto(Path(__file__).with_suffix(".html").as_uri())
        return self._page

    async def aclose(self) -> None:
        await self._stack.aclose()


async def receive(browser: _Browser, url: str, visit: Visit) -> None:
    page = await browser.page()
    ahead = await _clock_ahead(page)
    about = {
        "url": url,
        "consume": visit.consume,
        "seconds": visit.seconds,
        "warmUp": visit.warm_up,
        "patience": PATIENCE_SECONDS,
    }
    receiving = asyncio.create_task(page.evaluate("(about) => receive(about)", about))
    if visit.consume != "first":
        # The page's offer comes a moment later than this; what is measured is as long.
        await asyncio.sleep(visit.warm_up + 0.2)
        visit.begin, before = time.monotonic(), _browser_seconds()
        await asyncio.sleep(max(0.0, visit.seconds - 0.4))
        visit.end, visit.cpu = time.monotonic(), _browser_seconds() - before
    found = await receiving
    visit.session = found["session"]
    visit.offer = found["offer"] / 1000 - ahead
    visit.answer = found["answer"] / 1000 - ahead
    visit.pictures = [(number, at / 1000 - ahead) for number, at in found["pictures"]]
    for samples, at, *rate in found["sounds"]:
        if rate and rate != [48_000]:
            raise RuntimeError(f"Chromium gives sound with {rate[0]} Hz")
        pcm = None if samples is None else np.frombuffer(base64.b64decode(samples), np.int16)
        visit.sounds.append((pcm, at / 1000 - ahead))


async def _clock_ahead(page: Page) -> float:
    """Seconds by which performance.now() is ahead of this process's CLOCK_MONOTONIC."""
    best, ahead = math.inf, 0.0
    for _ in range(CLOCK_LOOKS):
        before = time.monotonic()
        there = await page.evaluate("performance.now()") / 1000
        after = time.monotonic()
        if after - before < best:
            best, ahead = after - before, there - (before + after) / 2
    return ahead


def _browser_seconds() -> float:
    """Processor seconds of all processes that this one started, without itself; Linux only."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue  # It ended meanwhile.
        parents[int(directory.name)] = int(fields[1])
        seconds[int(directory.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf(
            "SC_CLK_TCK"
        )

    def is_ours(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == os.getpid():
                return True
        return False

    return sum(spent for process, spent in seconds.items() if is_ours(process))


def obstacle() -> str | None:
    """Why Chromium cannot be started here; None if it can."""
    return None if shutil.which(EXECUTABLE) else f"{EXECUTABLE} is not installed"


def run_browser(sessions: Any, loop: str) -> None:
    """Run on asyncio, whatever the loop: it has no part in the browser."""
    asyncio.run(sessions())


if __name__ == "__main__":
    shared = _Browser()

    async def receive_in_shared(url: str, visit: Visit) -> None:
        await receive(shared, url, visit)

    main(receive_in_shared, run_browser, aclose=shared.aclose)
