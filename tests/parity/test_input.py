"""What a client says and shows, on both loops: in real time, as a line, and as pictures."""

from __future__ import annotations

import io
import json
import wave
from base64 import b64decode
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image

from navtalk_asyncio.media.image import ImageError
from navtalk_proto import LocalProtocolError, SessionClosedError
from navtalk_proto.wire.image import JPEG_PREFIX
from navtalk_proto.wire.messages import (
    AudioAppend,
    ConnectedSuccess,
    InputImage,
    SessionCreated,
    SessionUpdated,
)

READY = (ConnectedSuccess(session_id="s-1"), SessionCreated(), SessionUpdated())
APPEND = AudioAppend.TYPE
CLEAR = "realtime.input_audio_buffer.clear"


async def far(stage: Any) -> None:
    await stage.say(*READY)


def hangs_up_after(seconds: float) -> Callable[[Any], Awaitable[None]]:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        await stage.idle(seconds)
        await stage.close()

    return far


def audio(trace: Any) -> list[bytes]:
    """The audio that the client sent, message by message."""
    sent = [step.text for step in trace.steps if (step.what, step.name) == ("send", APPEND)]
    return [b64decode(json.loads(text)["data"]["audio"]) for text in sent]


def gaps(trace: Any) -> list[float]:
    """Seconds between the audio messages."""
    times = trace.at("send", APPEND)
    return [round(later - time, 3) for time, later in pairwise(times)]


def wav(path: Path, seconds: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(b"\1\2" * int(seconds * 24_000))
    return path


# ---- voice


def test_tiny_chunks_are_joined_and_the_last_leaves_by_itself(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        for number in range(5):
            await session.send_audio(bytes([number, 0]) * 120)  # 5 ms
        await stage.idle(0.1)
        await session.send_audio(b"\7\7")

    trace = parity(far, body, media=False)
    # 20 ms; 40 ms after their first byte the other 5 ms; before the close, the last sample.
    assert [len(piece) for piece in audio(trace)] == [960, 240, 2]
    assert gaps(trace) == [0.04, 0.06]
    assert trace.end == ("1000", "")


def test_paced_audio_is_sent_in_real_time(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        await session.send_audio(bytes(4 * 3072), paced=True)
        await stage.idle(0.5)
        await session.send_audio(bytes(2 * 3072), paced=True)
        with pytest.raises(LocalProtocolError):
            await session.send_audio(b"odd", paced=True)

    trace = parity(far, body, media=False)
    assert [len(piece) for piece in audio(trace)] == [3072] * 6
    assert gaps(trace) == [0.064] * 3 + [0.5] + [0.064]


def test_what_a_speech_service_yields(parity: Any) -> None:
    async def service() -> Any:
        for size in (5001, 1, 4000, 998):
            yield b"\1\2" * (size // 2) + b"\1" * (size % 2)
            await anyio.sleep(0.01)

    async def body(session: Any, stage: Any) -> None:
        stage.note(f"{await session.say(service()):.4f}")
        stage.note(f"{await session.say(service(), paced=False, trailing_silence=0.1):.4f}")

    trace = parity(far, body, media=False)
    assert trace.notes[1:3] == ["0.2083", "0.2083"]
    assert sum(map(len, audio(trace))) == 2 * 10_000 + 4800


def test_the_end_while_speaking(parity: Any) -> None:
    async def microphone() -> Any:
        try:
            while True:
                yield bytes(960)
        finally:
            closed.append(True)

    closed: list[bool] = []

    async def body(session: Any, stage: Any) -> None:
        with pytest.raises(SessionClosedError):
            await session.say(microphone())
        stage.note(f"closed {closed.pop()}")

    trace = parity(hangs_up_after(0.5), body, media=False)
    assert "closed True" in trace.notes
    assert 20 <= len(audio(trace)) <= 26


# ---- a voice line


def test_a_line_sends_silence_while_nobody_writes(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        async with session.voice_line() as line:
            await stage.idle(0.09)
            await line.write(b"\1\2" * 1536)
            await line.drain()
            stage.note("drained")

    trace = parity(far, body, media=False)
    pieces = audio(trace)
    spoken = pieces.index(b"\1\2" * 1536)
    assert set(pieces) == {bytes(960), b"\1\2" * 1536}
    assert 5 <= spoken <= 6
    # 250 ms of silence follow, in real time; then the line ends with its block.
    assert len(pieces) - spoken - 1 == 13
    assert set(gaps(trace)) == {0.02, 0.064}


def test_leaving_a_line_waits_until_all_is_said(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        async with session.voice_line() as line:
            await stage.idle(0.01)
            await line.write(b"\1\2" * 36_000)
            stage.note(f"{line.queued:.1f} s wait")
        stage.note("left the line")
        with pytest.raises(SessionClosedError):
            await line.write(b"\0\0")
        async with session.voice_line():
            pass

    trace = parity(far, body, media=False)
    assert trace.notes[1] == "1.0 s wait"
    assert b"".join(audio(trace)).count(b"\1\2") == 36_000


def test_clearing_a_line_stops_the_human(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        async with session.voice_line() as line, anyio.create_task_group() as tasks:
            await stage.idle(0.01)
            tasks.start_soon(line.write, b"\1\2" * 96_000)
            await stage.idle(0.5)
            await line.clear()
            await stage.idle(0.01)  # The writer is told, and counts what it did not write.
            stage.note(f"dropped {line.dropped:.1f} s")
            await line.write(b"\3\4" * 480)

    trace = parity(far, body, media=False)
    pieces = audio(trace)
    assert trace.said.count(CLEAR) == 1
    spoken = b"".join(pieces).count(b"\1\2") / 24_000
    assert spoken == pytest.approx(0.5, abs=0.07)
    assert pieces[-14] == b"\3\4" * 480


def test_the_end_of_a_session_with_a_line(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        async with session.voice_line() as line:
            await stage.idle(0.01)
            with pytest.raises(SessionClosedError):
                await line.write(bytes(48_000 * 60))
            stage.note("told")
        async with session.voice_line() as line:
            await stage.read_all(session)

    trace = parity(hangs_up_after(0.5), body, media=False)
    assert trace.notes[1:] == ["told", "left"]


def test_an_exception_leaves_a_line_bare(parity: Any) -> None:
    async def fail(session: Any, stage: Any) -> None:
        async with session.voice_line() as line:
            await stage.idle(0.01)
            try:
                await line.write(b"\1\2" * 48_000)
                raise KeyError("mine")
            finally:
                stage.note(f"{line.queued:.3f}")

    async def body(session: Any, stage: Any) -> None:
        with pytest.raises(KeyError, match="mine"):
            await fail(session, stage)
        async with session.voice_line():
            await stage.idle(0.1)
            with pytest.raises(RuntimeError, match="a voice line already"):
                async with session.voice_line():
                    pytest.fail("there are two")
        raise ValueError("bare")

    trace = parity(far, body, media=False)
    assert (trace.error.name, trace.error.text) == ("ValueError", "ValueError: bare")
    # What was queued then was not said, there or later.
    spoken = b"".join(audio(trace)).count(b"\1\2") / 24_000
    assert spoken == pytest.approx(2.0 - float(trace.notes[1]), abs=0.001)
    assert 0.9 < spoken < 1.1


async def talk_on_a_line(stage: Any) -> None:
    await stage.peer.say(*READY)
    async with stage.connect(media=False) as session, session.voice_line() as line:
        await line.write(bytes(48_000 + 3072))
        await line.drain()
        await line.clear()


async def talk_in_real_time(stage: Any) -> None:
    await stage.peer.say(*READY)

    async def service() -> Any:
        for _ in range(3):
            yield bytes(3072)
            await anyio.sleep(0.01)

    async with stage.connect(media=False) as session:
        await session.say(service(), trailing_silence=0.1)


@pytest.mark.parametrize("scenario", [talk_on_a_line, talk_in_real_time])
def test_cancelling(matrix: Any, scenario: Any) -> None:
    assert matrix(scenario) >= 5


# ---- pictures and files: encoded and decoded in threads, on the real clock


def jpeg(width: int, height: int, color: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), color).save(out, "JPEG")
    return out.getvalue()


async def heard_picture(stage: Any) -> tuple[bytes, bool]:
    message = await stage.peer.hear(InputImage)
    assert message.content.startswith(JPEG_PREFIX)
    return b64decode(message.content.removeprefix(JPEG_PREFIX)), message.reply


def test_pictures(matrix: Any, tmp_path: Path) -> None:
    small, large = jpeg(64, 48, "red"), jpeg(640, 480, "green")
    (tmp_path / "a.jpg").write_bytes(small)

    async def show(stage: Any) -> None:
        await stage.peer.say(*READY)
        async with stage.connect(media=False) as session:
            await session.send_image(tmp_path / "a.jpg")
            assert await heard_picture(stage) == (small, False)
            await session.send_image(large, reply=True, quality=50, max_side=100)
            data, reply = await heard_picture(stage)
            assert reply
            with Image.open(io.BytesIO(data)) as picture:
                assert picture.size == (100, 75)
            with pytest.raises(ImageError):
                await session.send_image(b"not a picture")
            await session.send_text("still here", respond=False)

    assert matrix(show, real=True) >= 6


def test_a_recording_as_fast_as_the_socket_takes_it(matrix: Any, tmp_path: Path) -> None:
    path = wav(tmp_path / "question.wav", 0.2)

    async def say(stage: Any) -> None:
        await stage.peer.say(*READY)
        async with stage.connect(media=False) as session:
            assert await session.say_file(path, paced=False, trailing_silence=0.5) == 0.2
            heard = bytearray()
            while len(heard) < 0.7 * 48_000:
                heard += (await stage.peer.hear(AudioAppend)).audio
            assert bytes(heard) == b"\1\2" * 4800 + bytes(24_000)

    # One for opening the file, one for each of four pieces and the end.
    assert matrix(say, real=True) >= 6
