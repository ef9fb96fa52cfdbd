"""``session.stats()`` of real sessions, on both loops and with the engine on a thread."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any

import anyio
import pytest

import navtalk_asyncio
import navtalk_trio
from navtalk_asyncio.emulator import Conversation, Reply, emulate, emulator
from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.testing import emulator_thread
from navtalk_proto.config import ServerConfig
from navtalk_proto.events import ResponseDone
from navtalk_proto.media import MediaKind
from navtalk_proto.stats import AvSync, SessionStats, TurnLatency

PATIENCE = 30.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""

AGREEMENT = 0.005
"""Seconds by which what a client measures may differ from what the emulator did."""

TURNS = 4


def tone(seconds: float) -> bytes:
    samples = (
        round(14_000 * math.sin(2 * math.pi * 300 * at / 24_000))
        for at in range(round(24_000 * seconds))
    )
    return b"".join(struct.pack("<h", sample) for sample in samples)


SPOKEN = bytes(24_000) + tone(0.3) + bytes(24_000)
"""Half a second of silence, a tone, and half a second of silence."""


class Toner:
    """A brain that answers at once: no synthesiser is started."""

    def __init__(self, *, canned: bool = False) -> None:
        self._canned = canned

    async def hear(self, conversation: Conversation) -> str:
        return "something"

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text="Hm.", pcm=SPOKEN, canned=self._canned)


async def look(session: Any, enough: Any) -> SessionStats:
    """Read pictures until what is measured is enough."""
    with anyio.fail_after(PATIENCE):
        async for _ in session.video:
            stats: SessionStats = session.stats()
            if enough(stats):
                return stats
    raise AssertionError("the media ended")


@pytest.mark.parametrize(
    ("backend", "options"),
    [("asyncio", {}), ("asyncio", {"engine": "thread"}), ("trio", {})],
    ids=["asyncio", "asyncio, engine in a thread", "trio"],
)
@pytest.mark.replaces("receiving")
def test_a_session_is_measured_from_its_first_packet_to_after_its_end(
    backend: str, options: dict[str, Any]
) -> None:
    adapter: Any = navtalk_asyncio if backend == "asyncio" else navtalk_trio

    def enough(stats: SessionStats) -> bool:
        video, audio = stats.received(MediaKind.VIDEO), stats.received(MediaKind.AUDIO)
        return bool(
            video and audio and video.frames_decoded > 20 and audio.packets > 40
            and video.decode_seconds and stats.media.av_sync.offset is not None
        )  # fmt: skip

    async def main() -> None:
        async with adapter.connect(human.endpoint(), **options) as session:
            stats = await look(session, enough)
        video, audio = stats.received(MediaKind.VIDEO), stats.received(MediaKind.AUDIO)
        assert video is not None
        assert audio is not None
        assert (audio.codec, audio.keyframes) == ("opus", 0)
        assert video.codec in ("VP8", "H264")
        assert video.keyframes >= 1
        assert video.frames_received >= video.frames_decoded > 20
        assert video.frames_per_second > 0
        assert video.bitrate > audio.bitrate > 0
        assert (audio.packets_lost, audio.loss) == (0, 0.0)
        for track in (video, audio):
            assert track.last_packet is not None
            # In the session's own time, whichever clock its engine has.
            assert stats.at - PATIENCE < track.last_packet <= stats.at + 0.001
            assert 0.0 <= track.jitter < PATIENCE
        sync = stats.media.av_sync
        assert sync.source == "sender-reports"
        assert sync.offset is not None
        assert abs(sync.offset) < PATIENCE
        pair = stats.media.pair
        assert pair is not None
        assert (pair.local_type, pair.remote_type, pair.protocol) == ("host", "host", "udp")
        assert pair.local.rpartition(":")[2].isdigit()
        # The emulator's are of hosts over UDP: all can be used.
        assert stats.media.ignored_candidates == {}
        assert stats.latencies == ()
        # After the end it is what was known last.
        last = session.stats()
        after = last.received(MediaKind.VIDEO)
        assert after is not None
        assert after.packets >= video.packets
        assert last.at >= stats.at
        assert last.media == session.stats().media

    with emulator_thread(brain=Toner()) as human:
        anyio.run(main, backend=backend)


def test_a_session_without_media_is_measured_too() -> None:
    async def main() -> None:
        async with (
            emulate(brain=Toner(), config=ServerConfig(media=())) as human,
            navtalk_asyncio.connect(human.endpoint(), media=False) as session,
        ):
            stats = session.stats()
            assert stats.media.received == ()
            assert stats.media.av_sync == AvSync(source="arrival", offset=None)
            assert stats.counters.received > 0

    anyio.run(main)


def differences(turns: Iterable[tuple[float | None, float | None]]) -> list[float]:
    """What was measured over what was so, of the turns of which both are known."""
    return [ours - truth for ours, truth in turns if ours is not None and truth is not None]


class StillFace(Face):
    """Neither breathes nor blinks: nothing moves but the mouth."""

    def draw(self, t: float, mouth: float) -> Any:
        return super().draw(0.0, mouth)


@pytest.mark.parametrize("canned", [False, True], ids=["live", "prepared"])
@pytest.mark.replaces("receiving")
def test_the_latency_of_a_turn_is_what_the_emulator_did(
    canned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends are in one process, on one loop and clock. What a busy machine adds is added to
    single turns; what we would measure wrong is in all of them. So the best turn counts."""

    face = StillFace(128, 128)
    monkeypatch.setattr(emulator, "_default_face", lambda: face)

    async def main() -> tuple[list[TurnLatency], list[Any]]:
        async with (
            emulate(brain=Toner(canned=canned)) as human,
            navtalk_asyncio.connect(human.endpoint()) as session,
        ):
            (visit,) = human.visits
            await look(session, lambda _: True)
            pictures = session.video
            measured: list[TurnLatency] = []

            async def watch() -> None:
                async for _ in pictures:
                    pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                with anyio.fail_after(PATIENCE):
                    for _ in range(TURNS):
                        await session.send_text("Hello?")
                        async for event in session.events():
                            if isinstance(event, ResponseDone):
                                break
                        await visit.mouthpiece.wait_spoken()
                        measured.append(session.stats().latencies[-1])
                tasks.cancel_scope.cancel()
            return measured, list(visit.mouthpiece.utterances)

    measured, said = anyio.run(main)
    assert len(measured) == len(said) == TURNS
    assert all(turn.typed and not turn.interrupted for turn in measured)
    turns = list(zip(measured, said, strict=True))
    audio = differences((turn.first_audio, truth.first_audio) for turn, truth in turns)
    video = differences((turn.first_movement, truth.first_movement) for turn, truth in turns)
    assert 0.0 <= min(audio) < AGREEMENT
    assert 0.0 <= min(video) < AGREEMENT
