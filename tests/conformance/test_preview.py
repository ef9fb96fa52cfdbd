"""The page of ``navtalk talk --preview`` in Chromium: what is received is shown as it is."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from navtalk_asyncio import connect
from navtalk_asyncio.cli.preview import PREVIEW_MEDIA, preview
from navtalk_asyncio.emulator import emulate
from navtalk_proto.media import MediaKind, MediaLine

pytestmark = pytest.mark.anyio

PLAYS = """() => {
  const video = document.querySelector("video");
  const quality = video.getVideoPlaybackQuality();
  return video.videoWidth === 512 && video.currentTime > 1 && quality.totalVideoFrames > 20
    && video.webkitAudioDecodedByteCount > 0;
}"""


H264_MEDIA = (MediaLine(kind=MediaKind.VIDEO, codecs=("H264",)), MediaLine(kind=MediaKind.AUDIO))


MEDIA = {"VP8": PREVIEW_MEDIA}
if os.environ.get("NAVTALK_PROFILE") == "nightly":
    MEDIA["H264"] = H264_MEDIA


@pytest.mark.parametrize("media", MEDIA.values(), ids=MEDIA.keys())
async def test_a_browser_shows_the_human_live(open_page: Any, media: Any) -> None:
    async with (
        emulate() as human,
        connect(human.endpoint(), media=media) as session,
        preview(session) as address,
    ):
        page = await open_page(address)
        await page.wait_for_function(PLAYS)
        counters = session.track_counters()
        # The packets go to the browser as they are.
        assert all(track.frames_decoded == 0 for track in counters.values())
        # A second viewer begins with a keyframe of its own.
        second = await open_page(address)
        await second.wait_for_function(PLAYS)


class Foreign:
    """A session with a codec that no browser is sent."""

    async def packets(self) -> AsyncIterator[Any]:
        yield SimpleNamespace(kind=MediaKind.VIDEO, keyframe=True, codec="AV1")


async def test_what_cannot_be_shown_is_said(open_page: Any) -> None:
    async with preview(Foreign()) as address:
        answer = await ask(address, urlsplit(address).path + "live")
        assert answer.startswith("HTTP/1.1 501")
        assert "AV1 cannot be shown" in answer
        page = await open_page(address)
        await page.wait_for_function(
            "document.querySelector('p').textContent.includes('AV1 cannot be shown')"
        )


async def ask(address: str, path: str, *, host: str | None = None) -> str:
    """The status line and the body of an answer."""
    at = urlsplit(address)
    assert at.port is not None
    async with await anyio.connect_tcp("127.0.0.1", at.port) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: {host or at.netloc}\r\n\r\n".encode())
        answer = b""
        try:
            while True:
                answer += await stream.receive()
        except anyio.EndOfStream:
            return answer.decode()


async def test_only_who_knows_the_address_may_look(anyio_backend: str) -> None:
    async with preview(None) as address:
        path = urlsplit(address).path
        assert address.startswith("http://127.0.0.1:")
        assert len(path) > 20
        found = await ask(address, path)
        assert found.startswith("HTTP/1.1 200 OK")
        assert "default-src 'none'" in found
        for wrong in ("/", "/live", path[:-2] + "/", path + "other"):
            assert (await ask(address, wrong)).startswith("HTTP/1.1 404")
        # A page of another site, whose name was made to lead here.
        assert (await ask(address, path, host="example.com")).startswith("HTTP/1.1 404")
        assert (await ask(address, path + "live", host="example.com")).startswith("HTTP/1.1 404")
