"""H.264 whose parameter sets are in the description only, and H.264 that has none at all."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path
from typing import Any

import av
import pytest
from attrs import evolve

from navtalk_asyncio.media.parameter_sets import (
    MAX_BYTES,
    described_parameter_sets,
    has_parameter_sets,
    is_idr,
)
from navtalk_asyncio.media.recorder import Recorder, RecordingError
from navtalk_proto.actions import SetLocal, SetRemote
from navtalk_proto.media import Direction, MediaKind, MediaLine

pytestmark = pytest.mark.anyio

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO
PATIENCE = 60.0
"""Seconds until a wait is given up; only a failing test gets near it."""

SPS, PPS = b"\x67\x42\xe0\x1f", b"\x68\xce\x3c\x80"


def units(data: bytes) -> list[bytes]:
    return data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]


def fmtp(value: str, payload_type: int = 102) -> str:
    return f"a=rtpmap:{payload_type} H264/90000\r\na=fmtp:{payload_type} {value}\r\n"


def sprop(*sets: bytes) -> str:
    return "sprop-parameter-sets=" + ",".join(base64.b64encode(one).decode() for one in sets)


@pytest.mark.parametrize(
    "value",
    [
        sprop(SPS, PPS),
        f"packetization-mode=1;{sprop(SPS, PPS)}",
        f"packetization-mode=1; {sprop(SPS, PPS)};profile-level-id=42e01f",
    ],
)
def test_what_is_described_is_read(value: str) -> None:
    sdp = "v=0\r\n" + fmtp("profile-level-id=42e01f", 97) + fmtp(value) + "a=mid:0\r\n"
    assert described_parameter_sets(sdp) == {102: b"\0\0\0\1" + SPS + b"\0\0\0\1" + PPS}


@pytest.mark.parametrize(
    "value",
    [
        sprop(SPS),
        sprop(SPS, PPS)[:-3],
        sprop(SPS, PPS, bytes(MAX_BYTES)),
        "sprop-parameter-sets=,",
        "x-sprop-parameter-sets=" + sprop(SPS, PPS).partition("=")[2],
    ],
    ids=["half", "cut", "endless", "empty", "another name"],
)
def test_what_cannot_be_used_is_as_if_it_was_not_there(value: str) -> None:
    assert described_parameter_sets(fmtp(value)) == {}


def test_what_is_in_a_picture(clips: Any) -> None:
    first, second = clips.h264.frames[:2]
    assert is_idr(first)
    assert has_parameter_sets(first)
    assert not is_idr(second)
    assert not has_parameter_sets(second)
    late = b"".join(b"\0\0\1" + unit for unit in (b"\x65abc", SPS, PPS))
    assert not has_parameter_sets(late)
    assert not is_idr(b"\0\0\1")


async def call(media: Any, *, described: bool) -> tuple[Any, Any]:
    """A sender whose pictures lack what its clip's have, and a client of it."""
    sets = [unit for unit in units(media.h264.frames[0]) if unit[0] & 0x1F in (7, 8)]
    bare = [
        b"".join(b"\0\0\0\1" + unit for unit in units(frame) if unit[0] & 0x1F in (1, 5))
        for frame in media.h264.frames
    ]
    clip = media.clip("video", bare, media.h264.keyframes, 3000, 90_000)
    server = media.driver(tracks=[media.track(clip), media.track(media.opus)])
    client = media.driver()
    line = MediaLine(kind=VIDEO, direction=Direction.SENDONLY, codecs=("H264",))
    await server.open((line, MediaLine(kind=AUDIO, direction=Direction.SENDONLY)))
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    if described:
        changed = re.sub(
            r"(a=fmtp:\d+ [^\r\n]*packetization-mode=1[^\r\n]*)", rf"\1;{sprop(*sets)}", offer.sdp
        )
        assert changed != offer.sdp
        offer = evolve(offer, sdp=changed)
    await client.do(SetRemote, description=offer)
    answer = await client.do(SetLocal)
    await server.do(SetRemote, description=answer)
    return server, client


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.replaces("receiving")
async def test_parameter_sets_of_the_description_are_put_into_the_stream(
    media: Any, tmp_path: Path, suffix: str
) -> None:
    _, client = await call(media, described=True)
    path = tmp_path / f"call{suffix}"
    async with asyncio.timeout(PATIENCE), Recorder(client.engine, path) as recorder:
        pictures = client.engine.frames(VIDEO)
        for _ in range(20):
            picture = await anext(pictures)
            assert (picture.width, picture.height) == (176, 144)
        heard = client.engine.frames(AUDIO)
        while recorder.counters.written < 100:
            await anext(heard)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    assert len(decoded) >= 20
    assert {(one.width, one.height) for one in decoded} == {(176, 144)}


@pytest.mark.replaces("receiving")
async def test_without_any_a_recording_says_so(media: Any, tmp_path: Path) -> None:
    _, client = await call(media, described=False)

    async def record() -> None:
        async with Recorder(client.engine, tmp_path / "call.mkv") as recorder:
            heard = client.engine.frames(AUDIO)
            while recorder.failure is None:
                await anext(heard)

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(RecordingError, match="has no parameter sets"):
            await record()
