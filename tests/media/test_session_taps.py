"""What a session gives away, on both loops and with the engine in a thread: packets, and sound and
picture in step. The emulator is on a loop of its own, in a thread of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import av
import pytest

from navtalk_asyncio.media.planes import yuv_planes
from navtalk_asyncio.testing import emulator_thread
from navtalk_proto.errors import LocalProtocolError
from navtalk_proto.media import MediaKind, recording_media

PATIENCE = 60.0
LOOPS = [("asyncio", {}), ("asyncio", {"engine": "thread"}), ("trio", {})]


@pytest.fixture(params=LOOPS, ids=["asyncio", "asyncio-thread", "trio"])
def connected(request: pytest.FixtureRequest) -> Any:
    """Runs a coroutine function with a session, and options of connect()."""
    loop, options = request.param
    adapter = importlib.import_module(f"navtalk_{loop}")

    def run(main: Callable[[Any], Any], **more: Any) -> None:
        async def bounded() -> None:
            with anyio.fail_after(PATIENCE):
                async with adapter.connect(human.endpoint(), **options, **more) as session:
                    await main(session)

        with emulator_thread() as human:
            anyio.run(bounded, backend=loop)

    return run


@pytest.mark.replaces("receiving")
def test_packets_can_be_decoded_and_are_counted(connected: Any) -> None:
    async def main(session: Any) -> None:
        decoder: Any = None
        pictures = sounds = 0
        packets = session.packets()
        async for packet in packets:
            assert packet.data
            if packet.kind is MediaKind.AUDIO:
                assert (packet.codec, packet.clock_rate) == ("opus", 48_000)
                sounds += 1
            else:
                if decoder is None:
                    assert packet.keyframe
                    name = {"VP8": "vp8", "H264": "h264"}[packet.codec]
                    decoder = av.CodecContext.create(name, "r")
                pictures += len(decoder.decode(av.Packet(packet.data)))
            if pictures >= 10 and sounds >= 10:
                break
        assert packets.counters.taken >= 20
        assert packets.counters.dropped == 0

    connected(main)


@pytest.mark.replaces("receiving")
def test_two_readers_of_packets_and_an_end(connected: Any) -> None:
    """Closing the session ends the iteration; what waits is still read."""

    async def main(session: Any) -> None:
        other = session.packets()
        assert await anext(other)
        async for _ in session.packets():
            break
        await session.close()
        left = [packet async for packet in other]
        assert all(packet.data for packet in left)
        with pytest.raises(StopAsyncIteration):
            await anext(other)

    connected(main)


@pytest.mark.replaces("receiving")
def test_sound_and_picture_come_in_step(connected: Any) -> None:
    """By sender reports, once those came: the emulator's are right, so on loopback the picture is
    late by its encoding, and by no more than that."""

    async def main(session: Any) -> None:
        times: dict[MediaKind, list[float]] = {kind: [] for kind in MediaKind}
        async for item in session.av():
            times[item.kind].append(item.time)
            if item.kind is MediaKind.VIDEO:
                planes = yuv_planes(item.frame)
                assert planes.y.shape == (item.frame.height, item.frame.width)
            if min(map(len, times.values())) >= 10 and session.av_sync.offset is not None:
                break
        sounds = times[MediaKind.AUDIO]
        assert sounds == sorted(sounds)
        assert session.av_sync.source == "sender-reports"

    connected(main)


@pytest.mark.replaces("receiving")
def test_a_recording_in_mp4_is_asked_for_and_has_the_users_voice(
    connected: Any, tmp_path: Path
) -> None:
    path = tmp_path / "call.mp4"

    async def main(session: Any) -> None:
        async with session.record(path, own_voice=True) as recorder:
            enough = 0
            async for packet in session.packets():
                if enough == 0:
                    await session.send_audio(b"\0\x20" * 24_00)
                enough += packet.kind is MediaKind.VIDEO
                if enough == 50:
                    break
        assert recorder.counters.written > 50
        assert recorder.failure is None

    connected(main, media=recording_media("call.mp4"))
    with av.open(str(path)) as file:
        assert [stream.codec_context.name for stream in file.streams] == ["h264", "opus", "opus"]
        assert len(list(file.decode(video=0))) > 20


@pytest.mark.replaces("receiving")
def test_vp8_into_mp4_is_refused_with_a_hint(connected: Any, tmp_path: Path) -> None:
    from navtalk_asyncio.media.recorder import CodecMisfitError

    async def main(session: Any) -> None:
        async for packet in session.packets():
            if packet.kind is MediaKind.VIDEO:
                assert packet.codec == "VP8"
                break
        with pytest.raises(CodecMisfitError, match="VP8 does not fit"):
            async with session.record(tmp_path / "call.mp4"):
                pytest.fail("it records")

    connected(main, media=recording_media("call.webm"))


def test_without_media_there_is_nothing_to_take(connected: Any, tmp_path: Path) -> None:
    async def main(session: Any) -> None:
        for read in (
            session.packets,
            session.av,
            lambda: session.av_sync,
            partial(session.record, tmp_path / "call.mkv"),
        ):
            with pytest.raises(LocalProtocolError, match="without media"):
                read()

    connected(main, media=False)
