"""What is encoded once for all sessions, and how one changes between that and drawn pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest

from navtalk_asyncio import connect
from navtalk_asyncio.emulator import Conversation, Reply, emulate, emulator
from navtalk_asyncio.emulator.clip_making import FRAMES_PER_SECOND
from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.emulator.idle_clip import (
    LOOP_FRAMES,
    IdleClip,
    IdleClips,
    encoded_silence,
    idle_clip,
)
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.testing import VirtualClockLoop
from navtalk_proto.media import MediaKind, MediaLine

PATIENCE = 60.0
"""Seconds until a wait is given up; only a failing test gets near it."""

CODECS = pytest.mark.parametrize("codec", ["VP8", "H264"])
LOUD = (np.sin(np.arange(12_000) / 10) * 12_000).astype("<i2").tobytes()
"""Half a second."""

FACE = Face(128, 128)


def whole(codec: str, face: Face = FACE) -> IdleClip:
    clip = idle_clip(face, codec)
    while not clip.ready:
        clip.encode_some()
    return clip


def decoder(codec: str) -> Any:
    return av.CodecContext.create({"VP8": "vp8", "H264": "h264"}[codec], "r")


def luma(frame: av.VideoFrame) -> Any:
    return frame.to_ndarray(format="gray").astype(float)


@CODECS
def test_a_clip_is_a_loop_that_can_be_joined_at_each_keyframe(codec: str) -> None:
    clip = whole(codec)
    assert len(clip.frames) == LOOP_FRAMES
    assert len(clip.keyframes) == LOOP_FRAMES // FRAMES_PER_SECOND
    for start in sorted(clip.keyframes)[-2:]:
        decoding = decoder(codec)
        # Once around, over its end.
        for number in (*range(start, LOOP_FRAMES), *range(3)):
            (picture,) = decoding.decode(av.Packet(clip.frames[number]))
            drawn = luma(FACE.draw(number / FRAMES_PER_SECOND, 0.0))
            assert np.abs(luma(picture) - drawn).mean() < 6.0


def test_a_clip_is_the_processes_and_not_a_sessions() -> None:
    assert idle_clip(FACE, "VP8") is idle_clip(FACE, "VP8")
    assert idle_clip(FACE, "VP8") is not idle_clip(FACE, "H264")


def test_the_silence_is_silent() -> None:
    decoding: Any = av.CodecContext.create("libopus", "r")
    for _ in range(5):
        for frame in decoding.decode(av.Packet(encoded_silence())):
            assert frame.samples == 960
            assert not frame.to_ndarray().any()


def test_a_clip_that_is_given_up_is_gone_on_with() -> None:
    face = Face(64, 64)

    async def main() -> None:
        clips = IdleClips()
        assert clips.get(face, "VP8") is None
        assert clips.get(face, "AV1") is None
        clip = idle_clip(face, "VP8")
        await clips.aclose()
        made = list(clip.frames)
        assert len(made) < LOOP_FRAMES
        again = IdleClips()
        assert again.get(face, "VP8") is None
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(again._making.values())
        assert again.get(face, "VP8") is clip
        assert clip.frames[: len(made)] == made
        await again.aclose()

    asyncio.run(main())


# ---- one track


class Control:
    """A sender that somebody else is."""

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self.asked = False
        self.forced = 0

    def take_keyframe_request(self) -> bool:
        asked, self.asked = self.asked, False
        return asked

    def encode_keyframe(self) -> None:
        self.forced += 1


def run(main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(main())


async def pictures(track: FaceTrack, count: int) -> str:
    """What the next pictures are: (p)repared or (d)rawn."""
    given = [await track.recv() for _ in range(count)]
    return "".join("p" if isinstance(one, av.Packet) else "d" for one in given)


@CODECS
def test_a_track_changes_at_keyframes_only(codec: str) -> None:
    clip = whole(codec)

    async def main() -> None:
        mouthpiece, clips = Mouthpiece(), IdleClips()
        track = FaceTrack(FACE, mouthpiece, clips=clips)
        voice = VoiceTrack(mouthpiece)
        # Without a sender that can be asked, everything is drawn.
        assert await pictures(track, 3) == "ddd"
        control: Any = Control(codec)
        track.control = control
        # Begun in the middle of a group: drawn, from a keyframe on, until the clip has one.
        assert await pictures(track, 22) == "d" * 22
        assert control.forced == 1
        packet = await track.recv()
        assert isinstance(packet, av.Packet)
        assert bytes(packet) == clip.frames[25]
        assert packet.pts == 25 * 3600
        # The mouth moves: drawn, from a keyframe on, and until it is shut and the clip has one.
        mouthpiece.say(LOUD)
        assert await pictures(track, 4) == "dddd"
        assert control.forced == 2
        while mouthpiece.speaking or mouthpiece.openness:
            await voice.recv()
        drawn = 0
        while isinstance(picture := await track.recv(), av.VideoFrame):
            drawn += 1
            assert drawn < 30
        assert picture.pts % (25 * 3600) == 0
        assert await pictures(track, 2) == "pp"
        assert control.forced == 2
        # A keyframe is asked for: drawn, until the clip has one.
        control.asked = True
        assert await pictures(track, 22) == "d" * 22
        assert await pictures(track, 2) == "pp"
        assert control.forced == 3
        assert (track.prepared, track.drawn) == (6, 51 + drawn)
        await clips.aclose()

    run(main)


def test_a_keyframe_that_is_asked_for_while_pictures_are_drawn_is_encoded() -> None:
    whole("VP8")

    async def main() -> None:
        mouthpiece, clips = Mouthpiece(), IdleClips()
        track = FaceTrack(FACE, mouthpiece, clips=clips)
        control: Any = Control("VP8")
        track.control = control
        mouthpiece.say(LOUD)
        assert await pictures(track, 2) == "dd"
        assert control.forced == 1
        control.asked = True
        assert await pictures(track, 2) == "dd"
        assert control.forced == 2
        # A request that a keyframe of the clip answers costs nothing.
        mouthpiece.close()
        track.control = again = control
        assert await pictures(track, 21) == "d" * 21
        again.asked = True
        assert await pictures(track, 1) == "p"
        assert control.forced == 2

    run(main)


def test_another_codec_is_another_clip_and_a_frozen_picture_is_none() -> None:
    for codec in ("VP8", "H264"):
        whole(codec)

    async def main() -> None:
        clips = IdleClips()
        track = FaceTrack(FACE, Mouthpiece(), clips=clips)
        control: Any = Control("VP8")
        track.control = control
        assert await pictures(track, 3) == "ppp"
        control.codec = "H264"
        assert await pictures(track, 22) == "d" * 22
        packet = await track.recv()
        assert bytes(packet) == idle_clip(FACE, "H264").frames[25]
        track.frozen = True
        assert await pictures(track, 30) == "d" * 30

    run(main)


def test_silence_is_encoded_once_the_encoder_has_heard_the_end() -> None:
    async def main() -> None:
        mouthpiece = Mouthpiece()
        voice = VoiceTrack(mouthpiece)
        control: Any = Control("opus")
        voice.control = control
        kinds = [type(await voice.recv()).__name__ for _ in range(12)]
        assert kinds == ["AudioFrame"] * 10 + ["Packet"] * 2
        mouthpiece.say(LOUD[:960])
        kinds = [type(await voice.recv()).__name__ for _ in range(14)]
        # 20 ms, the end of the filter, and what the decoder fades out on.
        assert kinds == ["AudioFrame"] * 12 + ["Packet"] * 2

    run(main)


# ---- a session


def plain(data: bytes) -> bytes:
    """Without the choice between the two start codes of H.264's Annex B."""
    return data.replace(b"\0\0\0\1", b"\0\0\1")


class Toner:
    """A brain that answers at once: no synthesiser is started."""

    async def hear(self, conversation: Conversation) -> str:
        return "something"

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text="Hm.", pcm=LOUD)


@CODECS
def test_a_client_can_decode_every_picture_across_the_changes(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = FACE
    whole(codec)
    monkeypatch.setattr(emulator, "_default_face", lambda: face)
    frames: list[EncodedFrame] = []
    media = (MediaLine(kind=MediaKind.VIDEO, codecs=(codec,)), MediaLine(kind=MediaKind.AUDIO))

    async def main() -> None:
        async with (
            emulate(brain=Toner()) as human,
            connect(human.endpoint(), media=media) as session,
            asyncio.timeout(PATIENCE),
        ):
            engine: Any = session.engine
            (visit,) = human.visits
            grown = asyncio.Event()

            def take(frame: EncodedFrame) -> None:
                frames.append(frame)
                grown.set()

            async def more(count: int) -> None:
                target = len(frames) + count
                while len(frames) < target:
                    grown.clear()
                    await grown.wait()

            engine.add_encoded_sink(MediaKind.VIDEO, take)
            await more(5)
            await session.send_text("Hello?")
            while not visit.mouthpiece.speaking:
                await more(1)
            await visit.mouthpiece.wait_spoken()
            await more(35)
            engine.request_keyframe()
            await more(35)

    asyncio.run(main())
    assert {frame.codec for frame in frames} == {codec}
    first = next(number for number, frame in enumerate(frames) if frame.keyframe)
    decoding = decoder(codec)
    decoded = [decoding.decode(av.Packet(frame.data)) for frame in frames[first:]]
    assert all(len(pictures) == 1 for pictures in decoded)
    prepared = {plain(data) for data in idle_clip(face, codec).frames}
    kinds = ["p" if plain(frame.data) in prepared else "d" for frame in frames]
    sent = "".join(kinds)
    # Prepared and drawn, to and fro.
    assert "pd" in sent
    assert "dp" in sent
    for (before, after), frame in zip(pairwise(kinds), frames[1:], strict=True):
        assert before == after or frame.keyframe
