"""Recordings of the emulator as others play them: Chromium, with sound, and ffprobe."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route

from navtalk_asyncio import connect
from navtalk_asyncio.emulator import Emulator, emulate
from navtalk_asyncio.media.recorder import RecorderCounters
from navtalk_proto.media import MediaKind, recording_media

pytestmark = pytest.mark.anyio

OpenPage = Callable[[str], Awaitable[Page]]

NIGHTLY = os.environ.get("NAVTALK_PROFILE") == "nightly"
SECONDS = 60.0 if NIGHTLY else 3.0
"""Length of a recording, on the clock of its sound."""

FILES = [(".mp4", "h264"), (".mkv", "vp8"), *([(".webm", "vp8")] if NIGHTLY else [])]

PAGE = """<!doctype html><button>Play</button><video src="call{suffix}"></video>
<script>
const video = document.querySelector("video");
window.loudest = 0;
window.over = new Promise((resolve, reject) => {{
  video.onended = () => resolve("ended");
  video.onerror = () => reject(new Error(video.error.message));
}});
document.querySelector("button").onclick = async () => {{
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaElementSource(video).connect(analyser).connect(context.destination);
  const samples = new Float32Array(analyser.fftSize);
  setInterval(() => {{
    analyser.getFloatTimeDomainData(samples);
    window.loudest = Math.max(window.loudest, ...samples.map(Math.abs));
  }}, 20);
  video.playbackRate = {rate};
  await video.play();
}};
</script>"""
"""Plays a recording after a click, as people do, and listens to it."""


async def record(human: Emulator, path: Path) -> tuple[RecorderCounters, int]:
    """A spoken answer, recorded for SECONDS of its sound; and how many pictures came meanwhile."""
    pictures = sounds = 0
    async with (
        asyncio.timeout(SECONDS + 60),
        connect(human.endpoint(), media=recording_media(path)) as session,
        session.record(path) as recorder,
    ):
        await session.send_text("Tell me everything that you remember of today, please.")
        async for packet in session.packets():
            if packet.kind is MediaKind.AUDIO:
                sounds += 1
            else:
                pictures += 1
            if sounds >= SECONDS * 50:
                break
    assert recorder.source == "sender-reports"
    return recorder.counters, pictures


async def probe(path: Path) -> dict[str, Any]:
    """The streams of a file by kind, as ffprobe tells them."""
    if shutil.which("ffprobe") is None:
        if os.environ.get("NAVTALK_REQUIRE_PEERS") == "1":
            pytest.fail("ffprobe is not installed")
        pytest.skip("ffprobe is not installed")
    process = await asyncio.create_subprocess_exec(
        *("ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    return {stream["codec_type"]: stream for stream in json.loads(out)["streams"]}


@pytest.mark.parametrize(("suffix", "codec"), FILES)
async def test_a_recording_plays_elsewhere_with_sound(
    open_page: OpenPage, tmp_path: Path, suffix: str, codec: str
) -> None:
    path = tmp_path / f"call{suffix}"
    async with emulate() as human:
        counters, pictures = await record(human, path)
    assert counters.queue_full == counters.too_late == counters.wrong_codec == 0

    streams = await probe(path)
    assert streams["video"]["codec_name"] == codec
    assert streams["audio"]["codec_name"] == "opus"
    assert int(streams["audio"]["nb_read_frames"]) >= SECONDS * 50 - 25
    seen = int(streams["video"]["nb_read_frames"])
    assert pictures - 25 <= seen <= pictures + 25

    content = path.read_bytes()

    async def serve(route: Route) -> None:
        if route.request.url.endswith(suffix):
            await route.fulfill(body=content, content_type="application/octet-stream")
        else:
            page_text = PAGE.format(suffix=suffix, rate=1 if SECONDS < 10 else 4)
            await route.fulfill(body=page_text, content_type="text/html")

    page = await open_page("about:blank")
    await page.route("http://127.0.0.1/**", serve)
    await page.goto("http://127.0.0.1/")
    await page.get_by_role("button").click()
    assert await page.evaluate("over") == "ended"
    played = await page.evaluate(
        "[video.duration, video.videoWidth, video.webkitDecodedFrameCount, loudest]"
    )
    duration, width, decoded, loudest = played
    assert duration == pytest.approx(SECONDS, abs=1.0)
    assert width == streams["video"]["width"]
    assert decoded >= seen * 0.5  # A busy machine skips pictures; it does not skip all.
    assert loudest > 0.02
