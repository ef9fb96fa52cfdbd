"""Transparency and audioBack: the human says what it is sent (protocol.md 6.2)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from navtalk_asyncio.emulator.tracks import VoiceTrack
from navtalk_asyncio.emulator.voice_activity import rms_dbfs
from navtalk_asyncio.testing import run_virtual

Visiting = Callable[..., AbstractAsyncContextManager[Any]]
Tone = Callable[[float], bytes]

MODES = {
    "transparency": "license=EXAMPLE&name=navtalk.Lea&model=transparency",
    "audioBack": "license=EXAMPLE&name=navtalk.Lea&audioBack=true",
}
UPDATED = "realtime.session.updated"

both_modes = pytest.mark.parametrize("query", MODES.values(), ids=MODES)


class Nobody:
    """A brain that must not be asked."""

    async def hear(self, conversation: Any) -> str:
        raise AssertionError("heard")

    async def reply(self, conversation: Any) -> Any:
        raise AssertionError("asked")


def prefixed(pcm: bytes) -> dict[str, Any]:
    audio = base64.b64encode(pcm).decode()
    return {"type": "realtime.input_audio_buffer.append", "data": {"audio": audio}}


def bare(pcm: bytes) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm).decode()}


def audio_back(pcm: bytes) -> dict[str, Any]:
    data = {"audio": base64.b64encode(pcm).decode(), "sampleRate": 24000, "sequence": 3}
    return {"type": "realtime.input_audio_buffer.append", "messageId": "s1_0", "data": data}


COMMIT = {"type": "realtime.input_audio_buffer.commit", "data": {}}


class Voice:
    """What the voice track gives, frame by frame of 20 ms: whether it is audible, and the mouth."""

    def __init__(self, client: Any) -> None:
        self._track = VoiceTrack(client.mouthpiece)
        self._mouthpiece = client.mouthpiece
        self.audible: list[bool] = []
        self.openness: list[float] = []

    async def run(self) -> None:
        while True:
            frame = await self._track.recv()
            self.audible.append(rms_dbfs(frame.to_ndarray().tobytes()) > -60.0)
            self.openness.append(self._mouthpiece.openness)

    @property
    def seconds(self) -> float:
        """How much was audible, with the quiet 20 ms between two audible ones."""
        return sum(self.audible) * 0.02

    @property
    def stretches(self) -> int:
        """How often it began to be audible."""
        return sum(
            now and not before
            for before, now in zip([False, *self.audible], self.audible, strict=False)
        )


@asynccontextmanager
async def listening(visiting: Visiting, query: str) -> AsyncIterator[tuple[Any, Voice]]:
    async with visiting(Nobody(), query) as client:
        await client.next("session.updated")
        voice = Voice(client)
        running = asyncio.create_task(voice.run())
        try:
            yield client, voice
        finally:
            running.cancel()


@both_modes
@pytest.mark.parametrize("append", [prefixed, bare, audio_back])
def test_what_is_sent_is_said_at_its_own_pace_and_moves_the_mouth(
    visiting: Visiting, tone: Tone, query: str, append: Callable[[bytes], dict[str, Any]]
) -> None:
    async def main() -> None:
        async with listening(visiting, query) as (client, voice):
            await asyncio.sleep(1.0)
            assert not any(voice.audible)
            await client.send(append(tone(2.0)))  # As fast as it goes.
            await asyncio.sleep(1.0)
            assert voice.seconds == pytest.approx(1.0, abs=0.05)
            await asyncio.sleep(3.0)
            assert voice.seconds == pytest.approx(2.0, abs=0.05)
            assert voice.stretches == 1
            assert max(voice.openness) > 0.5
            assert voice.openness[-1] == 0.0
            assert len(voice.audible) == pytest.approx(250, abs=2)
        # No turn: nothing but the session's beginning.
        assert client.types() == ["success", "created", "updated"]

    run_virtual(main())


def test_pieces_that_come_unevenly_are_said_without_a_gap(visiting: Visiting, tone: Tone) -> None:
    async def main() -> None:
        async with listening(visiting, MODES["audioBack"]) as (client, voice):
            sound = tone(3.072)
            late = (0.0, 0.05, 0.12, 0.01)
            loop = asyncio.get_running_loop()
            start = loop.time()
            for number, at in enumerate(range(0, len(sound), 3072)):
                await asyncio.sleep(start + 0.064 * number + late[number % 4] - loop.time())
                await client.send(prefixed(sound[at : at + 3072]))
            await client.send(COMMIT)
            await asyncio.sleep(2.0)
            assert voice.stretches == 1
            assert voice.seconds == pytest.approx(3.072, abs=0.05)

    run_virtual(main())


@pytest.mark.parametrize("committed", [True, False])
def test_less_than_the_lead_is_said_when_it_is_committed_or_nothing_follows(
    visiting: Visiting, tone: Tone, committed: bool
) -> None:
    async def main() -> None:
        async with listening(visiting, MODES["transparency"]) as (client, voice):
            await client.send(bare(tone(0.1)))
            if committed:
                await client.send(COMMIT)
            await asyncio.sleep(0.15)
            assert voice.seconds == pytest.approx(0.1 if committed else 0.0, abs=0.03)
            await asyncio.sleep(1.0)
            assert voice.seconds == pytest.approx(0.1, abs=0.03)

    run_virtual(main())


@both_modes
@pytest.mark.parametrize("kind", ["input_audio_buffer.clear", "realtime.input_audio_buffer.clear"])
def test_clear_stops_it_at_once_and_what_follows_is_said(
    visiting: Visiting, tone: Tone, query: str, kind: str
) -> None:
    async def main() -> None:
        async with listening(visiting, query) as (client, voice):
            await client.send(prefixed(tone(30.0)))
            await asyncio.sleep(1.0)
            await client.send(prefixed(tone(0.1)), {"type": kind, "data": {}})
            await asyncio.sleep(1.0)
            assert voice.seconds == pytest.approx(1.0, abs=0.05)
            await client.send(prefixed(tone(0.1)), {"type": kind}, prefixed(tone(0.5)))
            await asyncio.sleep(2.0)
            assert voice.seconds == pytest.approx(1.5, abs=0.1)

    run_virtual(main())


@both_modes
def test_nothing_of_a_conversation_means_anything(visiting: Visiting, query: str) -> None:
    async def main() -> None:
        async with listening(visiting, query) as (client, _):
            item = {"type": "message", "role": "user", "content": "Hello"}
            await client.send(
                {"type": "realtime.input_config", "data": {"content": "{}"}},
                {"type": "conversation.item.create", "item": item},
                {"type": "response.create"},
                {"type": "realtime.input_text", "data": {"content": "Hello"}},
                {"type": "realtime.input_image", "data": {"content": "x", "reply": 1}},
                {"type": "something.new"},
                COMMIT,
            )
            await asyncio.sleep(60.0)
        assert client.types() == ["success", "created", "updated"]

    run_virtual(main())


def test_more_than_can_wait_is_an_error_once_and_the_rest_is_said(
    visiting: Visiting, tone: Tone
) -> None:
    async def main() -> None:
        async with visiting(Nobody(), MODES["transparency"]) as client:
            await client.next("session.updated")
            minute = prefixed(bytes(60 * 48_000))
            await client.send(*(minute for _ in range(7)))
            error = await client.next("response.error")
            assert error["data"]["message"] == "240.0 s wait to be said, at most 240 s may"
            await client.send({"type": "input_audio_buffer.clear"}, *(minute for _ in range(5)))
            await client.next("response.error")
            assert client.types().count("error") == 2
            assert client.mouthpiece.queued_seconds == 240.0

    run_virtual(main())


def test_a_client_that_leaves_takes_what_waits_with_it(visiting: Visiting, tone: Tone) -> None:
    async def main() -> None:
        async with visiting(Nobody(), MODES["transparency"]) as client:
            await client.next("session.updated")
            await client.send(bare(tone(0.1)))
        assert not client.mouthpiece.speaking
        await asyncio.sleep(1.0)
        assert not client.mouthpiece.speaking
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())
