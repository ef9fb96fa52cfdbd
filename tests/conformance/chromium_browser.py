"""Chromium as a client that is not ours: how it is started, and what is read from its pages.

Also used by docs/take_screenshot.py. Only loopback is reached: names do not resolve, and what a
browser fetches on its own is switched off.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright

EXECUTABLE: Final = "chromium"

FLAGS: Final = (
    "--no-sandbox",  # Root has no sandbox.
    "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",  # Grants the microphone.
    "--allow-loopback-in-peer-connection",
    "--autoplay-policy=user-gesture-required",  # As people have it: sound needs a click.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

WATCH_PEERS: Final = """
const Native = RTCPeerConnection;
window.peers = [];
window.RTCPeerConnection = class extends Native {
  constructor(...all) { super(...all); peers.push(this); }
};
window.inbound = async (kind) => {
  for (const report of (await peers.at(-1)?.getStats())?.values() ?? []) {
    if (report.type === "inbound-rtp" && report.kind === kind) return report;
  }
  return { framesDecoded: 0, totalAudioEnergy: 0, packetsReceived: 0 };
};
"""
"""Runs before a page's own scripts: what its peer connections receive, without asking the page."""

READ_FRAME: Final = """
async ([left, top, width, height]) => {
  const video = document.querySelector("video");
  await new Promise((shown) => video.requestVideoFrameCallback(shown));
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const drawing = canvas.getContext("2d");
  drawing.drawImage(video, 0, 0);
  const { data } = drawing.getImageData(left, top, width, height);
  let text = "";
  for (let at = 0; at < data.length; at += 4096) {
    text += String.fromCharCode(...data.subarray(at, at + 4096));
  }
  return btoa(text);
}
"""
"""The RGBA bytes, in base64, of a part of the next frame that the page's video element shows."""


def obstacle() -> str | None:
    """Why Chromium cannot be started here; None if it can."""
    return None if shutil.which(EXECUTABLE) else f"{EXECUTABLE} is not installed"


@asynccontextmanager
async def chromium(home: Path, *, microphone: Path) -> AsyncGenerator[Browser]:
    """A headless Chromium with a home of its own. Its microphone plays a wav file, once."""
    path = shutil.which(EXECUTABLE)
    assert path is not None
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={microphone}%noloop"],
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
        )
        try:
            yield browser
        finally:
            await browser.close()
