"""The tracks: continuous, in step with the clock and with each other. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from fractions import Fraction
from typing import Any, TypeVar

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from numpy.typing import NDArray

from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece, MouthpieceError
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack

T = TypeVar("T")


class Clock:
    """Seconds that pass in `sleep`, each of them by `late` more than was asked for."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.late = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + self.late
        await asyncio.sleep(0)


class SeenFace(Face):
    """A small face that remembers how its mouth stood."""

    def __init__(self) -> None:
        super().__init__(64, 64)
        self.mouths: list[float] = []

    def draw(self, t: float, mouth: float) -> av.VideoFrame:
        self.mouths.append(mouth)
        return super().draw(t, mouth)


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


def sine(seconds: float, hertz: float = 1000.0, amplitude: float = 8000.0) -> bytes:
    t = np.arange(round(seconds * 24_000)) / 24_000
    return bytes(np.round(amplitude * np.sin(2 * np.pi * hertz * t)).astype("<i2"))


def samples_of(frame: av.AudioFrame) -> NDArray[np.float64]:
    samples: NDArray[np.float64] = frame.to_ndarray()[0].astype(np.float64)
    return samples


def test_silence_flows_while_there_is_nothing_to_say() -> None:
    async def main() -> None:
        clock = Clock()
        track = VoiceTrack(Mouthpiece(), clock=clock, sleep=clock.sleep)
        for number in range(5):
            frame = await track.recv()
            assert (frame.format.name, frame.layout.name) == ("s16", "mono")
            assert (frame.sample_rate, frame.samples) == (48_000, 960)
            assert (frame.pts, frame.time_base) == (number * 960, Fraction(1, 48_000))
            assert not samples_of(frame).any()
        assert clock.now == pytest.approx(1000.08)

    run(main())


def test_pictures_flow_at_25_a_second() -> None:
    async def main() -> None:
        clock = Clock()
        track = FaceTrack(SeenFace(), Mouthpiece(), clock=clock, sleep=clock.sleep)
        for number in range(6):
            frame = await track.recv()
            assert (frame.width, frame.height, frame.format.name) == (64, 64, "yuv420p")
            assert (frame.pts, frame.time_base) == (number * 3600, Fraction(1, 90_000))
        assert clock.now == pytest.approx(1000.2)

    run(main())


def test_speech_comes_out_at_twice_the_rate_and_the_same_level() -> None:
    async def main() -> None:
        clock = Clock()
        mouthpiece = Mouthpiece()
        mouthpiece.say(sine(1.0))
        track = VoiceTrack(mouthpiece, clock=clock, sleep=clock.sleep)
        said = np.concatenate([samples_of(await track.recv()) for _ in range(51)])
        middle = said[4800:-4800]
        assert np.sqrt((middle**2).mean()) == pytest.approx(8000 / np.sqrt(2), rel=0.01)
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(middle.size)))
        hertz = np.fft.rfftfreq(middle.size, 1 / 48_000)
        assert hertz[spectrum.argmax()] == pytest.approx(1000.0, abs=2.0)
        # The mirror image above 12 kHz is at least 60 dB down.
        assert spectrum[hertz > 12_000].max() < spectrum.max() / 1000

    run(main())


def test_pieces_are_joined_without_a_seam() -> None:
    async def main() -> None:
        whole, cut = Mouthpiece(), Mouthpiece()
        pcm = sine(0.5)
        whole.say(pcm)
        for begin in range(0, len(pcm), 1234):
            cut.say(pcm[begin : begin + 1234])
        for _ in range(26):
            assert (whole.take() == cut.take()).all()

    run(main())


def test_speaking_ends_when_the_last_frame_is_over() -> None:
    async def main() -> None:
        mouthpiece = Mouthpiece()
        assert await mouthpiece.wait_spoken()
        mouthpiece.say(sine(0.05))  # two frames and a half
        waiting = asyncio.ensure_future(mouthpiece.wait_spoken())
        for _ in range(3):
            mouthpiece.take()
            await asyncio.sleep(0)
            assert mouthpiece.speaking
            assert not waiting.done()
        mouthpiece.take()
        assert await waiting
        assert not mouthpiece.speaking

    run(main())


def test_an_interruption_drops_the_rest_and_tells_how_much() -> None:
    async def main() -> None:
        mouthpiece = Mouthpiece()
        mouthpiece.say(sine(1.0))
        waiting = asyncio.ensure_future(mouthpiece.wait_spoken())
        await asyncio.sleep(0)
        for _ in range(10):
            mouthpiece.take()
        # 24,000 samples, of which ten frames of 480 were taken.
        assert mouthpiece.interrupt() == 19_200
        assert not await waiting
        assert not mouthpiece.speaking
        mouthpiece.take()  # the filter's end
        assert not mouthpiece.take().any()
        assert mouthpiece.interrupt() == 0
        assert await mouthpiece.wait_spoken()

    run(main())


def test_what_is_said_after_an_interruption_is_not_taken_for_the_old() -> None:
    async def main() -> None:
        mouthpiece = Mouthpiece()
        mouthpiece.say(sine(1.0))
        old = asyncio.ensure_future(mouthpiece.wait_spoken())
        await asyncio.sleep(0)
        mouthpiece.interrupt()
        mouthpiece.say(sine(0.02))
        new = asyncio.ensure_future(mouthpiece.wait_spoken())
        assert not await old
        assert not new.done()
        mouthpiece.take()
        mouthpiece.take()
        assert await new

    run(main())


def test_what_waits_is_bounded() -> None:
    async def main() -> None:
        mouthpiece = Mouthpiece(max_seconds=1.0)
        mouthpiece.say(sine(0.8))
        with pytest.raises(MouthpieceError, match=r"0\.8 s wait to be said, at most 1 s may"):
            mouthpiece.say(sine(0.3))
        assert mouthpiece.queued_seconds == pytest.approx(0.8)
        mouthpiece.say(sine(0.2))
        assert mouthpiece.interrupt() == 24_000

    run(main())


def test_half_a_sample_is_refused_and_nothing_is_said_in_no_time() -> None:
    async def main() -> None:
        mouthpiece = Mouthpiece()
        with pytest.raises(ValueError, match="odd"):
            mouthpiece.say(b"\x00\x01\x02")
        mouthpiece.say(b"")
        assert not mouthpiece.speaking

    run(main())


def test_a_closed_mouthpiece_releases_who_waits() -> None:
    async def main() -> None:
        mouthpiece = Mouthpiece()
        mouthpiece.say(sine(1.0))
        waiting = asyncio.ensure_future(mouthpiece.wait_spoken())
        await asyncio.sleep(0)
        mouthpiece.close()
        mouthpiece.close()
        assert not await waiting
        with pytest.raises(MouthpieceError, match="closed"):
            mouthpiece.say(sine(0.1))
        assert not mouthpiece.take()[480:].any()

    run(main())


def test_the_mouth_follows_the_voice() -> None:
    async def main() -> None:
        clock = Clock()
        mouthpiece = Mouthpiece()
        face = SeenFace()
        video = FaceTrack(face, mouthpiece, clock=clock, sleep=clock.sleep)
        voice = VoiceTrack(mouthpiece, clock=clock, sleep=clock.sleep)
        # Quiet, loud, quiet: 0.4 s each, two voice frames for one picture.
        mouthpiece.say(bytes(19_200) + sine(0.4, 300, 9000) + bytes(19_200))
        heard = []
        for _ in range(30):
            heard.append(float(np.abs(samples_of(await voice.recv())).mean()))
            await voice.recv()
            await video.recv()
        loud = [k for k, level in enumerate(heard) if level > 2000]
        assert loud == list(range(10, 20))
        assert face.mouths[:10] == [0.0] * 10
        assert min(face.mouths[10:20]) > 0.7
        # Shut again within 0.2 s, and gradually.
        assert face.mouths[20:23] == sorted(face.mouths[20:23], reverse=True)
        assert 0.0 < face.mouths[20] < face.mouths[19]
        assert max(face.mouths[25:]) < 0.1

    run(main())


def test_a_louder_voice_opens_the_mouth_wider() -> None:
    def opened(amplitude: float) -> float:
        mouthpiece = Mouthpiece()
        mouthpiece.say(sine(0.02, 300, amplitude))
        mouthpiece.take()
        return mouthpiece.openness

    openings = [opened(amplitude) for amplitude in (0, 100, 1000, 3000, 10_000, 30_000)]
    assert openings == sorted(openings)
    assert openings[0] == 0.0
    assert openings[1] == 0.0  # -53 dBFS is breath
    assert 0.2 < openings[2] < 0.7
    assert openings[-1] == 1.0


@pytest.mark.parametrize("kind", ["voice", "face"])
def test_late_wakes_do_not_add_up(kind: str) -> None:
    async def main() -> None:
        clock = Clock()
        clock.late = 0.007
        track: VoiceTrack | FaceTrack
        if kind == "voice":
            track, period = VoiceTrack(Mouthpiece(), clock=clock, sleep=clock.sleep), 0.02
        else:
            track = FaceTrack(SeenFace(), Mouthpiece(), clock=clock, sleep=clock.sleep)
            period = 0.04
        for _ in range(1000):
            await track.recv()
        assert clock.now == pytest.approx(1000.0 + 999 * period + 0.007)
        assert track.pace.skipped == 0

    run(main())


def test_after_a_stall_the_voice_skips_and_does_not_burst() -> None:
    async def main() -> None:
        clock = Clock()
        mouthpiece = Mouthpiece()
        mouthpiece.say(sine(1.0))
        track = VoiceTrack(mouthpiece, clock=clock, sleep=clock.sleep)
        for _ in range(10):
            await track.recv()
        clock.now += 0.51
        clock.slept.clear()
        # Of the 25 frames that became due, the last is given.
        frame = await track.recv()
        assert frame.pts == (9 + 25) * 960
        assert clock.slept == []
        frame = await track.recv()
        assert frame.pts == (9 + 26) * 960
        assert clock.slept == [pytest.approx(0.01)]
        assert track.pace.skipped == 24
        # A stall delays what is said and loses none of it: 12 frames were taken.
        assert mouthpiece.interrupt() == 24_000 - 12 * 480

    run(main())


def test_after_a_short_hitch_the_voice_catches_up() -> None:
    async def main() -> None:
        clock = Clock()
        track = VoiceTrack(Mouthpiece(), clock=clock, sleep=clock.sleep)
        await track.recv()
        clock.now += 0.065
        clock.slept.clear()
        pts = [(await track.recv()).pts for _ in range(4)]
        assert pts == [960, 1920, 2880, 3840]
        # Three at once, then the fourth when it is due.
        assert clock.slept == [pytest.approx(0.015)]
        assert track.pace.skipped == 0

    run(main())


def test_after_a_stall_the_picture_skips() -> None:
    async def main() -> None:
        clock = Clock()
        track = FaceTrack(SeenFace(), Mouthpiece(), clock=clock, sleep=clock.sleep)
        await track.recv()
        clock.now += 1.01
        pts = [(await track.recv()).pts for _ in range(3)]
        assert pts == [25 * 3600, 26 * 3600, 27 * 3600]
        assert track.pace.skipped == 24

    run(main())


@pytest.mark.parametrize("kind", ["voice", "face"])
def test_a_stopped_track_ends(kind: str) -> None:
    async def main() -> None:
        mouthpiece = Mouthpiece()
        gate = asyncio.Event()
        asleep = asyncio.Event()

        async def sleep(_: float) -> None:
            asleep.set()
            await gate.wait()

        track: VoiceTrack | FaceTrack
        if kind == "voice":
            track = VoiceTrack(mouthpiece, clock=lambda: 5.0, sleep=sleep)
        else:
            track = FaceTrack(SeenFace(), mouthpiece, clock=lambda: 5.0, sleep=sleep)
        await track.recv()
        waiting = asyncio.ensure_future(track.recv())
        await asleep.wait()
        track.stop()
        gate.set()
        with pytest.raises(MediaStreamError):
            await waiting
        with pytest.raises(MediaStreamError):
            await track.recv()

    run(main())


def test_on_the_loops_own_clock_the_first_second_takes_a_second() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        mouthpiece = Mouthpiece()
        mouthpiece.say(sine(0.2))
        voice, video = VoiceTrack(mouthpiece), FaceTrack(Face(64, 64), mouthpiece)
        begin = loop.time()

        async def listen() -> list[int | None]:
            return [(await voice.recv()).pts for _ in range(16)]

        async def watch() -> list[int | None]:
            return [(await video.recv()).pts for _ in range(8)]

        async with asyncio.timeout(10):
            heard, seen = await asyncio.gather(listen(), watch())
        # Neither early, nor out of order; how late a busy machine is, is not ours to say.
        assert loop.time() - begin >= 0.28
        assert heard == sorted(set(heard), key=lambda pts: pts or 0)
        assert seen == sorted(set(seen), key=lambda pts: pts or 0)
        assert not mouthpiece.speaking

    run(main())
