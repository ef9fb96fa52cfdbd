"""Canned speech: encoded once for all sessions, joined and left without being noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import av
import numpy as np
import pytest

from navtalk_asyncio import connect
from navtalk_asyncio.emulator import Conversation, Reply, emulate, emulator
from navtalk_asyncio.emulator.clip_making import FRAMES_PER_SECOND, KEYFRAME_FRAMES, Clip
from navtalk_asyncio.emulator.face import Face, mouth_level
from navtalk_asyncio.emulator.idle_clip import LOOP_FRAMES, IdleClips, encoded_silence, idle_clip
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.speech_clip import (
    START_STEP,
    SpeechClip,
    SpeechClips,
    SpeechPictures,
    nearest_start,
)
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.testing import run_virtual
from navtalk_proto.media import MediaKind, MediaLine

PATIENCE = 60.0
"""Seconds until a wait is given up; only a failing test gets near it."""

CODECS = pytest.mark.parametrize("codec", ["VP8", "H264"])
FACE = Face(128, 128)


def voice(seconds: float, *, silent_from: float = 1e9, hertz: float = 300.0) -> bytes:
    """A tone in bursts of 0.2 s with as long pauses, after 60 ms of silence."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    sounds = (t >= 0.06) & (t < silent_from) & ((t - 0.06) % 0.4 < 0.2)
    return (np.sin(2 * np.pi * hertz * t) * 9000 * sounds).astype("<i2").tobytes()


def made(clip: Any) -> Any:
    while not clip.ready:
        clip.encode_some()
    return clip


def decoder(codec: str) -> Any:
    return av.CodecContext.create({"VP8": "vp8", "H264": "h264"}[codec], "r")


def luma(frame: av.VideoFrame) -> Any:
    return frame.to_ndarray(format="gray").astype(float)


# ---- a clip


def test_the_sound_and_the_mouth_are_those_of_a_live_voice() -> None:
    pcm = voice(0.99)
    clip = made(SpeechClip(pcm))
    live = Mouthpiece()
    live.say(pcm)
    decoding: Any = av.CodecContext.create("libopus", "r")
    heard, spoken = [], []
    for period in range(clip.periods):
        spoken.append(live.take())
        assert clip.opening(period) == live.openness
        for frame in decoding.decode(av.Packet(clip.packet(period))):
            heard.append(frame.to_ndarray().reshape(-1, 2)[:, 0])
    assert len(heard) == clip.periods
    # The decoder is 312 samples behind, which is what libopus looks ahead.
    said, got = np.concatenate(spoken)[:-312], np.concatenate(heard)[312:]
    assert np.corrcoef(said, got)[0, 1] > 0.95
    assert not heard[-1].any()
    assert clip.opening(clip.periods) == 0.0
    assert clip.packet(clip.periods) == encoded_silence()


@CODECS
def test_the_pictures_show_the_mouth_and_end_where_the_idle_clip_can_be_joined(codec: str) -> None:
    speech = made(SpeechClip(voice(0.6)))
    start = 3 * START_STEP
    pictures = made(SpeechPictures(speech, FACE, codec, start))
    assert (start + pictures.length) % KEYFRAME_FRAMES == 0
    decoding = decoder(codec)
    for number, data in enumerate(pictures.frames):
        (picture,) = decoding.decode(av.Packet(data))
        place = (start + number) % LOOP_FRAMES
        drawn = FACE.draw(place / FRAMES_PER_SECOND, speech.opening(2 * number))
        assert np.abs(luma(picture) - luma(drawn)).mean() < 6.0
        assert pictures.is_open(number) == (mouth_level(speech.opening(2 * number)) != 0)
    assert any(map(pictures.is_open, range(pictures.length)))
    assert not pictures.is_open(pictures.length - 1)


def test_a_clip_is_not_changed_to_where_it_is_being_made() -> None:
    pictures = SpeechPictures(made(SpeechClip(voice(3.0))), FACE, "VP8", 0)
    assert not pictures.can_begin(0)
    while len(pictures.frames) < 30:
        pictures.encode_some()
    assert [number for number in range(60) if pictures.can_begin(number)] == [0]
    made(pictures)
    assert [number for number in range(60) if pictures.can_begin(number)] == [0, 25, 50]


def test_pictures_wait_for_the_voice() -> None:
    speech = SpeechClip(voice(3.0))
    pictures = SpeechPictures(speech, FACE, "VP8", 0)
    pictures.encode_some()
    assert not pictures.frames
    speech.encode_some()
    pictures.encode_some()
    assert len(pictures.frames) == 10


def test_the_head_moves_less_than_half_a_step_to_where_a_clip_begins() -> None:
    for place in range(LOOP_FRAMES):
        away = abs(nearest_start(place) - place)
        assert min(away, LOOP_FRAMES - away) <= START_STEP // 2


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        SpeechClip(b"\0\0\0")


# ---- what an emulator keeps


def test_the_same_answer_is_made_once_and_what_was_not_used_for_long_gives_way() -> None:
    async def main() -> None:
        clips = SpeechClips(kept_seconds=7.0)
        one, other = clips.speech(voice(2.0)), clips.speech(voice(2.1))
        assert clips.speech(voice(2.0)) is one
        first = clips.pictures(one, FACE, "VP8", 0)
        assert first is not None
        assert clips.pictures(one, FACE, "VP8", 0) is first
        assert clips.pictures(one, FACE, "VP8", 10) is not first
        assert clips.kept_seconds <= 7.0
        assert clips.pictures(one, FACE, "AV1", 0) is None
        # The third takes the first one's place, and that of the second.
        clips.pictures(other, FACE, "VP8", 0)
        assert clips.kept_seconds <= 7.0
        assert clips.pictures(one, FACE, "VP8", 0) is not first
        # A speech that is given up takes its pictures along, and gets none any more.
        clips.speech(voice(5.0))
        await clips.aclose()
        assert clips.pictures(one, FACE, "VP8", 20) is None

    asyncio.run(main())


# ---- the tracks


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


class ByHand(SpeechClips):
    """Threads know no virtual time: the test makes what is to be made."""

    def make(self, clip: Clip) -> None:
        pass

    def is_making(self, clip: Clip) -> bool:
        return True


class Stage:
    """Both tracks of a session, taken in step, and clips that are made beforehand."""

    def __init__(self, codec: str = "VP8") -> None:
        self.clips, self.speeches = IdleClips(), ByHand()
        self.mouthpiece = Mouthpiece()
        self.face = FaceTrack(FACE, self.mouthpiece, clips=self.clips, speeches=self.speeches)
        self.voice = VoiceTrack(self.mouthpiece)
        self.control: Any = Control(codec)
        self.face.control = self.control
        sound: Any = Control("opus")
        self.voice.control = sound
        made(idle_clip(FACE, codec))

    def say(self, pcm: bytes, *, start: int = 0, ready: bool = True) -> SpeechPictures:
        speech = self.speeches.speech(pcm)
        pictures = self.speeches.pictures(speech, FACE, self.control.codec, start)
        assert pictures is not None
        if ready:
            made(speech)
            made(pictures)
        self.mouthpiece.say(pcm, speech)
        return pictures

    async def show(self, count: int) -> str:
        """The next pictures, with the 40 ms of sound before each: (p)repared or (d)rawn."""
        seen = ""
        for _ in range(count):
            await self.voice.recv()
            await self.voice.recv()
            seen += "p" if isinstance(await self.face.recv(), av.Packet) else "d"
        return seen


def staged(test: Callable[[Stage], Awaitable[None]], codec: str = "VP8") -> None:
    async def main() -> None:
        await test(Stage(codec))

    run_virtual(main())


@CODECS
def test_nothing_is_encoded_from_the_first_word_to_the_last(codec: str) -> None:
    async def test(stage: Stage) -> None:
        assert await stage.show(50) == "p" * 50
        pictures = stage.say(voice(2.0), start=50)
        # One picture passes until it is seen that the clip is there.
        assert await stage.show(1) == "p"
        sent = [await show_one(stage) for _ in range(pictures.length + 30)]
        assert [bytes(packet) for packet in sent[: pictures.length]] == pictures.frames
        idle = idle_clip(FACE, codec).frames
        place = (50 + pictures.length) % LOOP_FRAMES
        assert [bytes(packet) for packet in sent[pictures.length :]] == idle[place : place + 30]
        assert stage.control.forced == 0
        assert not stage.mouthpiece.speaking
        assert (stage.face.drawn, stage.face.prepared) == (0, 81 + pictures.length)

    async def show_one(stage: Stage) -> Any:
        await stage.voice.recv()
        await stage.voice.recv()
        return await stage.face.recv()

    staged(test, codec)


def test_the_sound_is_the_clips_and_fits_the_pictures() -> None:
    async def test(stage: Stage) -> None:
        await stage.show(12)
        pcm = voice(1.0)
        pictures = stage.say(pcm, start=25)
        await stage.show(1)
        speech = stage.speeches.speech(pcm)
        sounds = []
        for number in range(pictures.length):
            sounds += [await stage.voice.recv(), await stage.voice.recv()]
            await stage.face.recv()
            assert stage.face._at[1] == number
            # The picture is of the older of the two periods that were taken since the last one.
            assert speech.opening(2 * number + 1) == stage.mouthpiece.openness
        assert all(isinstance(sound, av.Packet) for sound in sounds)
        packets = [bytes(sound) for sound in sounds if isinstance(sound, av.Packet)]
        assert packets[: speech.periods] == speech.packets
        assert set(packets[speech.periods :]) <= {encoded_silence()}

    staged(test)


def test_it_ends_when_its_last_sound_is_over_and_not_with_the_silence_behind_it() -> None:
    async def test(stage: Stage) -> None:
        stage.say(voice(0.2))
        waiting = asyncio.ensure_future(stage.mouthpiece.wait_spoken())
        assert await stage.show(5) == "ppppp"
        assert stage.mouthpiece.speaking
        await stage.voice.recv()
        assert not stage.mouthpiece.speaking
        assert await waiting

    staged(test)


def test_barge_in_shuts_the_mouth_and_goes_back_to_the_idle_clip() -> None:
    async def test(stage: Stage) -> None:
        stage.say(voice(4.0), start=0)
        assert await stage.show(30) == "p" * 30
        assert stage.mouthpiece.interrupt() > 0
        assert stage.mouthpiece.saying is None
        seen = await stage.show(30)
        # A keyframe first; drawn until the mouth is shut and the idle clip has one, at place 50.
        assert seen == "d" * 20 + "p" * 10
        assert stage.control.forced == 1
        assert isinstance(stage.face._clip, type(idle_clip(FACE, "VP8")))

    staged(test)


def test_barge_in_in_a_pause_does_not_open_the_mouth_again() -> None:
    async def test(stage: Stage) -> None:
        pictures = stage.say(voice(4.0, silent_from=0.4))
        await stage.show(45)
        assert not stage.mouthpiece.openness
        stage.mouthpiece.interrupt()
        assert await stage.show(7) == "dddddpp"
        assert stage.face._clip is not pictures

    staged(test)


def test_a_keyframe_that_is_asked_for_is_drawn_and_the_clip_gone_on_with_at_its_next() -> None:
    async def test(stage: Stage) -> None:
        pictures = stage.say(voice(4.0))
        assert await stage.show(10) == "p" * 10
        stage.control.asked = True
        assert await stage.show(16) == "d" * 15 + "p"
        assert stage.control.forced == 1
        assert stage.face._at[1] == 25
        # One that the clip has by itself costs nothing.
        assert await stage.show(24) == "p" * 24
        stage.control.asked = True
        assert await stage.show(2) == "pp"
        assert (stage.control.forced, stage.face._clip) == (1, pictures)

    staged(test)


def test_what_nobody_has_said_yet_waits_for_its_first_second() -> None:
    async def test(stage: Stage) -> None:
        await stage.show(15)
        pictures = stage.say(voice(4.0), start=25, ready=False)
        waiting = asyncio.ensure_future(stage.mouthpiece.wait_spoken())
        assert await stage.show(6) == "p" * 6
        assert stage.mouthpiece.saying is None
        assert stage.mouthpiece.speaking
        made(stage.speeches.speech(voice(4.0)))
        while len(pictures.frames) < 25:
            pictures.encode_some()
        assert await stage.show(10) == "p" * 10
        assert stage.face._clip is pictures
        assert not waiting.done()
        assert stage.mouthpiece.interrupt() > 0
        assert not await waiting

    staged(test)


def test_it_waits_no_longer_than_two_seconds() -> None:
    async def test(stage: Stage) -> None:
        await stage.show(1)
        stage.say(voice(4.0), ready=False)
        assert await stage.show(50) == "p" * 50
        assert stage.mouthpiece.saying is None
        await stage.show(1)
        assert stage.mouthpiece.saying is not None
        assert await stage.show(5) == "d" * 5

    staged(test)


def test_without_a_face_that_can_show_it_nothing_waits() -> None:
    async def test(stage: Stage) -> None:
        stage.say(voice(4.0), ready=False)
        await stage.voice.recv()
        assert stage.mouthpiece.saying is not None

    staged(test)


def test_speech_is_followed_live_until_its_clip_is_made_so_far() -> None:
    async def test(stage: Stage) -> None:
        pictures = stage.say(voice(4.0), ready=False)
        kinds = [type(await stage.voice.recv()).__name__ for _ in range(2)]
        assert kinds == ["AudioFrame", "AudioFrame"]
        assert not isinstance(await stage.face.recv(), av.Packet)
        assert await stage.show(9) == "d" * 9
        made(stage.mouthpiece.saying.speech)  # type: ignore[union-attr]
        made(pictures)
        assert isinstance(await stage.voice.recv(), av.Packet)
        await stage.voice.recv()
        await stage.face.recv()
        assert await stage.show(15) == "d" * 14 + "p"
        assert stage.face._at[1] == 25

    staged(test)


def test_a_clip_that_runs_out_before_it_is_made_is_gone_on_with_live() -> None:
    async def test(stage: Stage) -> None:
        pictures = stage.say(voice(4.0), ready=False)
        speech = stage.speeches.speech(voice(4.0))
        made(speech)
        while len(pictures.frames) < 30:
            pictures.encode_some()
        assert await stage.show(32) == "p" * 30 + "dd"
        assert stage.control.forced == 1

    staged(test)


def test_after_a_stall_what_is_prepared_catches_up_and_skips_nothing() -> None:
    async def test(stage: Stage) -> None:
        pictures = stage.say(voice(4.0))
        assert await stage.show(10) == "p" * 10
        await asyncio.sleep(0.8)
        begin = asyncio.get_running_loop().time()
        sent = [bytes(await stage.face.recv()) for _ in range(20)]  # type: ignore[arg-type]
        sounds = [bytes(await stage.voice.recv()) for _ in range(40)]  # type: ignore[arg-type]
        # At once: nothing of it is waited for.
        assert asyncio.get_running_loop().time() - begin < 0.04
        assert sent == pictures.frames[10:30]
        assert sounds == stage.speeches.speech(voice(4.0)).packets[20:60]
        assert await stage.show(30) == "p" * 30
        assert stage.face._at[1] == 59
        assert stage.face.pace.skipped == stage.voice.pace.skipped == 0

    staged(test)


def test_after_a_long_stall_it_is_drawn_until_the_clip_can_be_joined() -> None:
    async def test(stage: Stage) -> None:
        stage.say(voice(8.0))
        assert await stage.show(10) == "p" * 10
        await asyncio.sleep(1.3)
        seen = await stage.show(30)
        drawn = seen.count("d")
        assert 0 < drawn < 25
        assert seen == "d" * drawn + "p" * (30 - drawn)
        # The voice was delayed by the stall, and the mouth with it.
        saying = stage.mouthpiece.saying
        assert saying is not None
        assert stage.face._at[1] == saying.period // 2

    staged(test)


def test_a_mouth_out_of_step_with_its_voice_is_drawn_until_the_clip_can_be_joined() -> None:
    async def test(stage: Stage) -> None:
        stage.say(voice(8.0))
        assert await stage.show(10) == "p" * 10
        saying = stage.mouthpiece.saying
        assert saying is not None
        # The voice was held up by 0.2 s.
        stage.voice.pace._next += 10
        seen = await stage.show(30)
        assert seen[-1] == "p"
        drawn = seen.count("d")
        assert "d" * drawn in seen
        assert drawn
        assert abs(stage.face.pace.due - saying.began - stage.face._at[1] / 25) <= 0.06  # type: ignore[operator]

    staged(test)


def test_what_is_said_after_a_canned_answer_is_live_and_begins_with_a_period() -> None:
    async def test(stage: Stage) -> None:
        stage.say(voice(0.25))
        stage.mouthpiece.say(voice(0.5))
        kinds = [type(await stage.voice.recv()).__name__ for _ in range(14)]
        assert kinds == ["Packet"] * 13 + ["AudioFrame"]
        assert stage.mouthpiece.saying is None

    staged(test)


def test_a_silenced_voice_is_silent_and_a_frozen_face_is_drawn() -> None:
    async def test(stage: Stage) -> None:
        stage.say(voice(4.0))
        await stage.show(8)
        stage.voice.silent = stage.face.frozen = True
        sound = await stage.voice.recv()
        assert isinstance(sound, av.AudioFrame)
        assert not sound.to_ndarray().any()
        assert await stage.show(30) == "d" * 30

    staged(test)


# ---- sessions


class Canned:
    """A brain that always says the same."""

    async def hear(self, conversation: Conversation) -> str:
        return "something"

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text="Hm.", pcm=voice(1.5), canned=True)


def plain(data: bytes) -> bytes:
    """Without the choice between the two start codes of H.264's Annex B."""
    return data.replace(b"\0\0\0\1", b"\0\0\1")


@CODECS
def test_a_client_decodes_every_picture_of_a_canned_answer(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(idle_clip(FACE, codec))
    made_by_start = {
        start: made(SpeechPictures(made(SpeechClip(voice(1.5))), FACE, codec, start))
        for start in range(0, LOOP_FRAMES, START_STEP)
    }
    speech = {plain(data) for one in made_by_start.values() for data in one.frames}
    monkeypatch.setattr(
        SpeechClips, "pictures", lambda _, __, ___, ____, start: made_by_start[start]
    )
    monkeypatch.setattr(emulator, "_default_face", lambda: FACE)
    frames: list[EncodedFrame] = []
    media = (MediaLine(kind=MediaKind.VIDEO, codecs=(codec,)), MediaLine(kind=MediaKind.AUDIO))

    async def main() -> None:
        async with (
            emulate(brain=Canned()) as human,
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
            await more(60)

    asyncio.run(main())
    first = next(number for number, frame in enumerate(frames) if frame.keyframe)
    decoding = decoder(codec)
    decoded = [decoding.decode(av.Packet(frame.data)) for frame in frames[first:]]
    assert all(len(pictures) == 1 for pictures in decoded)
    idle = {plain(data) for data in idle_clip(FACE, codec).frames}
    spoken, candidates = 0, {"speech", "idle", "drawn"}
    for frame in frames:
        data = plain(frame.data)
        # Pictures on which nothing moves are the same bytes in both clips.
        of = {name for name, clip in (("speech", speech), ("idle", idle)) if data in clip}
        of = of or {"drawn"}
        candidates = of if frame.keyframe else candidates & of
        assert candidates
        spoken += of == {"speech"}
    assert spoken >= 20
