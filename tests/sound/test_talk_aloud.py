"""A person talks with the human: sound out, sound in, and silence when it is interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import av
import numpy as np
import pytest

from navtalk_sound import SoundDeviceError, devices, talk_aloud

PATIENCE = 80.0
"""Seconds until a wait is given up; only a failing test gets near it."""

BLOCK = 960


# ---- with a sound card that is turned by hand


class Card:
    """In place of sounddevice: its streams call back when the test says so."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.streams: dict[str, Any] = {}

    def RawOutputStream(self, *, callback: Any, **options: Any) -> Any:  # noqa: N802 - its name
        return self._stream("out", callback)

    def RawInputStream(self, *, callback: Any, **options: Any) -> Any:  # noqa: N802 - its name
        return self._stream("in", callback)

    def _stream(self, name: str, callback: Any) -> Any:
        def nothing(**_: Any) -> None:
            pass

        self.streams[name] = callback
        return SimpleNamespace(start=nothing, abort=nothing, close=nothing)

    def play(self) -> int:
        """20 ms leave the speaker; the loudest sample of them."""
        data = bytearray(BLOCK * 4)
        now = SimpleNamespace(outputBufferDacTime=0.0, currentTime=0.0)
        self.streams["out"](data, BLOCK, now, None)
        return int(np.abs(np.frombuffer(data, "<i2").astype(int)).max())


class Session:
    """What talk_aloud() asks of one."""

    def __init__(self) -> None:
        self.send, self.sound = anyio.create_memory_object_stream[Any](100)
        self.told: list[Callable[[], None]] = []

    @property
    def audio(self) -> AsyncIterator[Any]:
        return self.sound

    async def say(self, chunks: Any, *, paced: bool = True, trailing_silence: float = 0.0) -> float:
        async for _ in chunks:
            pass
        return 0.0

    def on_interruption(self, told: Callable[[], None]) -> Callable[[], None]:
        self.told.append(told)
        return lambda: self.told.remove(told)


def sound(amplitude: int, *, blocks: int = 1) -> list[Any]:
    frames = []
    for _ in range(blocks):
        wave = np.sin(np.arange(BLOCK) * 2 * np.pi * 500 / 48_000) * amplitude
        frame = av.AudioFrame.from_ndarray(
            np.repeat(wave.astype("<i2"), 2).reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate = 48_000
        frames.append(frame)
    return frames


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    monkeypatch.setattr(devices, "load_portaudio", lambda: made)
    return made


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_interrupted_human_falls_silent_at_once(card: Card, backend: str) -> None:
    async def main() -> None:
        session = Session()

        async def give(frames: list[Any]) -> None:
            for frame in frames:
                await session.send.send(frame)
            await anyio.wait_all_tasks_blocked()

        async with session.sound, anyio.create_task_group() as tasks:
            tasks.start_soon(talk_aloud, session)
            await give(sound(12_000, blocks=20))
            assert card.play() > 6_000
            (interrupted,) = session.told
            interrupted()
            assert card.play() == 0
            # What was on its way is not played either, until it ends.
            await give(sound(12_000, blocks=10))
            assert card.play() == 0
            await give([*sound(0), *sound(12_000, blocks=10)])
            assert [card.play() > 6_000 for _ in range(3)][1:] == [True, True]
            # A sound that does not end is another answer's.
            interrupted()
            await give(sound(12_000, blocks=25))
            assert card.play() == 0
            await give(sound(12_000, blocks=10))
            assert card.play() > 6_000
            session.send.close()
        assert session.told == []

    anyio.run(main, backend=backend)


def test_a_card_that_cannot_be_opened_is_named(card: Card) -> None:
    def refuse(**_: Any) -> Any:
        raise card.PortAudioError("no such device")

    card.RawOutputStream = refuse  # type: ignore[method-assign]

    async def main() -> None:
        session = Session()
        async with session.send, session.sound:
            await talk_aloud(session)

    with pytest.raises(SoundDeviceError, match="speaker cannot be opened: no such device"):
        anyio.run(main)


# ---- with a sound server and a session


CALL = """
import json, sys, anyio
import numpy as np
import navtalk_asyncio, navtalk_trio
from navtalk_asyncio.emulator import Reply
from navtalk_asyncio.testing import emulator_thread
from navtalk_proto.events import UserSilent, UserSpeaking
from navtalk_sound import Microphone, talk_aloud

backend, duplex = sys.argv[1:]
adapter = {"asyncio": navtalk_asyncio, "trio": navtalk_trio}[backend]
tone = (np.sin(np.arange(60_000) * 2 * np.pi * 500 / 24_000) * 12_000).astype("<i2").tobytes()

class Singer:
    async def hear(self, conversation):
        return "a tone"
    async def reply(self, conversation):
        return None if conversation.heard else Reply(text="La.", pcm=tone)

async def hears(microphone):
    heard = b""
    async for piece in microphone.pieces():
        heard = (heard + piece)[-48_000:]
        samples = np.frombuffer(heard, "<i2").astype(float)
        if (np.abs(samples) > 6_000).sum() > 8_000:
            spectrum = np.abs(np.fft.rfft(samples))
            return float(spectrum.argmax() * 24_000 / samples.size)

async def main(human):
    found, interruptions = {"spoke": 0}, []
    async with adapter.connect(human.endpoint()) as session:
        session.on_interruption(lambda: interruptions.append(None))
        with anyio.fail_after(60), Microphone() as microphone:
            async with anyio.create_task_group() as tasks:
                async def talk():
                    await talk_aloud(session, half_duplex=duplex == "half")
                tasks.start_soon(talk)
                async for _ in session.packets():
                    break
                await session.send_text("Sing.")
                if duplex == "full":
                    # The null sink's echo is the user here, and interrupts the human at once.
                    async for event in session.events():
                        if isinstance(event, UserSpeaking):
                            found["spoke"] += 1
                            break
                else:
                    found["hertz"] = await hears(microphone)
                    (visit,) = human.visits
                    while visit.mouthpiece.speaking:
                        await anyio.sleep(0.05)
                    found["spoke"] = visit.status.audio_in > 1.0
                tasks.cancel_scope.cancel()
    found["interrupted"] = bool(interruptions)
    print(json.dumps(found))

with emulator_thread(brain=Singer()) as human:
    anyio.run(main, human, backend=backend)
"""


@pytest.mark.parametrize(
    ("backend", "duplex"), [("asyncio", "full"), ("trio", "full"), ("asyncio", "half")]
)
def test_a_session_is_heard_and_hears(
    sound_server: dict[str, str], backend: str, duplex: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CALL, backend, duplex],
        env=sound_server,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert duplex == "full" or found["hertz"] == pytest.approx(500, abs=10)
    assert found["spoke"]
    assert found["interrupted"] == (duplex == "full")
