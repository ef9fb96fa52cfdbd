"""``navtalk demo``: what it writes, what it says, and when it is not content."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc.codecs.opus import OpusEncoder
from aiortc.codecs.vpx import Vp8Encoder, VpxPayloadDescriptor
from PIL import Image

from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.question import ask
from navtalk_asyncio.client import connect
from navtalk_asyncio.emulator import Conversation, Emulator, Reply, emulate
from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack
from navtalk_asyncio.emulator.voice import SynthesisError
from navtalk_asyncio.media.aiortc_engine import AiortcEngine
from navtalk_asyncio.server import ServerSession, serve
from navtalk_proto import Endpoint
from navtalk_proto.config import SEND_MEDIA
from navtalk_proto.events import MessageReceived
from navtalk_proto.wire.messages import (
    AudioDone,
    ConnectedSuccess,
    IceServer,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
    TranscriptDone,
)

Run = Callable[..., subprocess.CompletedProcess[str]]
LICENCE = "sk_navtalk_EXAMPLE"


# ---- the README's first command


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """One demo as a process of its own, as a stranger runs it."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "navtalk_asyncio", "demo"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return folder, done


def test_the_demo_succeeds_and_says_what_it_did(demo: tuple[Path, Any]) -> None:
    _, done = demo
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    told = re.fullmatch(r"answer\.mkv: (\d+) pictures of 512x512 and (\d+\.\d) s of voice", first)
    assert told
    assert int(told[1]) > 75
    assert float(told[2]) > 1.0
    # What was measured of the spoken question, and nothing that was not.
    assert re.fullmatch(r'the human says: "You said: \[\d\.\d s of speech, -\d\d dBFS\]"', second)


def test_the_demo_shows_each_step_with_its_time(demo: tuple[Path, Any]) -> None:
    _, done = demo
    lines = done.stderr.splitlines()
    steps = []
    times = []
    for line in lines:
        step = re.fullmatch(r" *(\d+\.\d{3}) s  ([a-z]+) +(\S.*)", line)
        assert step, line
        times.append(float(step[1]))
        steps.append(step[2])
    assert times == sorted(times)
    assert "\x1b" not in done.stderr
    for earlier, later in (
        ("starting", "emulator"),
        ("emulator", "connecting"),
        ("connecting", "welcome"),
        ("welcome", "ready"),
        ("welcome", "negotiated"),
        ("negotiated", "packets"),
        ("packets", "usable"),
        ("usable", "connected"),
        ("connected", "asking"),
        ("asking", "heard"),
        ("heard", "asked"),
        ("asked", "silence"),
        ("silence", "understood"),
        ("understood", "transcript"),
        ("transcript", "voice"),
        ("voice", "answered"),
        ("answered", "closed"),
        ("closed", "written"),
        ("written", "still"),
    ):
        assert steps.index(earlier) < steps.index(later), (earlier, later)
    assert "picture" in steps
    assert LICENCE not in done.stderr + done.stdout
    assert "license=***" in done.stderr


def test_the_answer_is_one_video_and_one_voice(demo: tuple[Path, Any]) -> None:
    folder, _ = demo
    with av.open(str(folder / "answer.mkv")) as file:
        assert [(s.type, s.codec_context.name) for s in file.streams] == [
            ("video", "vp8"),
            ("audio", "opus"),
        ]
        assert file.duration is not None
        assert file.duration / 1_000_000 >= 3.0
        pictures, loudest = 0, 0
        for frame in file.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                pictures += 1
                assert (frame.width, frame.height) == (512, 512)
            elif isinstance(frame, av.AudioFrame):
                loudest = max(loudest, int(np.abs(frame.to_ndarray() * 32768.0).max()))
    assert pictures >= 75
    assert loudest > 3000


def test_the_still_shows_the_face_with_its_mouth_open(demo: tuple[Path, Any]) -> None:
    folder, _ = demo
    with Image.open(folder / "answer.png") as file:
        still = np.asarray(file.convert("RGB")).astype(int)
    assert still.shape == (512, 512, 3)
    face = Face()
    drawn = [np.asarray(face.still(mouth=mouth)).astype(int) for mouth in (0.0, 0.8)]
    # The mouth lies here at 512 x 512; elsewhere the sway and the codec move little.
    mouth = np.s_[300:380, 200:312]
    shut, open_ = (np.abs(still[mouth] - one[mouth]).mean() for one in drawn)
    assert open_ < shut
    assert np.abs(still - drawn[1]).mean() < 12


# ---- the file holds what was sent


SILENCE = b"\xfc\xff\xfe"
"""20 ms of stereo Opus that say no more than that they are silent."""


def test_what_is_written_is_what_was_sent_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: Callable[..., Any]
) -> None:
    sent: dict[str, list[bytes]] = {"video": [], "audio": []}
    lock = threading.Lock()

    def watch(encoder: type[Vp8Encoder] | type[OpusEncoder], name: str) -> None:
        """See what is sent: what is encoded, and what an emulator has prepared (``pack``)."""
        method = getattr(encoder, name)

        def watched(self: Any, *arguments: Any, **options: Any) -> Any:
            payloads, timestamp = method(self, *arguments, **options)
            with lock:
                if encoder is OpusEncoder:
                    sent["audio"].extend(payloads)
                else:
                    pieces = (VpxPayloadDescriptor.parse(one)[1] for one in payloads)
                    sent["video"].append(b"".join(pieces))
            return payloads, timestamp

        monkeypatch.setattr(encoder, name, watched)

    for name in ("encode", "pack"):
        watch(Vp8Encoder, name)
        watch(OpusEncoder, name)
    answer = tmp_path / "answer.mkv"
    still = tmp_path / "answer.png"
    assert run(backend(), ["demo", "--text", "Hi", f"-o{answer}", f"--still={still}"]) == 0
    for kind, encoded in sent.items():
        with av.open(str(answer)) as file:
            stream = file.streams.video[0] if kind == "video" else file.streams.audio[0]
            written = [bytes(packet) for packet in file.demux(stream) if packet.size]
        assert len(written) > 25, kind
        # Without a gap, from the first keyframe on, as loopback loses nothing. Silence is put in
        # where the emulator stalled.
        written = [data for data in written if data != SILENCE]
        encoded = [data for data in encoded if data != SILENCE]
        first = encoded.index(written[0])
        assert encoded[first : first + len(written)] == written


# ---- what else can be asked


def test_a_question_of_ones_own(
    tmp_path: Path, question: Path, backend: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("-o", str(tmp_path / "a.webm"), "--still", str(tmp_path / "a.jpg"))
    assert run(backend(), ["demo", "--question", str(question), *files]) == 0
    captured = capsys.readouterr()
    assert 'the human says: "Parrot: something"' in captured.out
    assert "saying question.wav" in captured.err
    assert "said 0.6 s" in captured.err
    with av.open(str(tmp_path / "a.webm")) as file:
        assert "webm" in file.format.name
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.format == "JPEG"


def test_typed_text_without_a_synthesiser_is_said_in_tones(command: Run, tmp_path: Path) -> None:
    done = command("demo", "--text", "Hello there", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == (
        'the human says: "You wrote: Hello there [in tones: espeak-ng is not installed]"'
    )


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(command: Run) -> None:
    nowhere = "http://127.0.0.1:9"
    done = command(
        "demo", "--text", "Hi", http_proxy=nowhere, https_proxy=nowhere, all_proxy=nowhere,
        no_proxy="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# ---- what is missing


class Mute:
    """Answers in writing only."""

    async def hear(self, conversation: Conversation) -> str:
        return ""

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text="...", pcm=b"")


class Elsewhere:
    """A server that is not an emulator, as one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def endpoint(self) -> Endpoint:
        return Endpoint(base_url=self.url, license=LICENCE, name="navtalk.Lea")


@asynccontextmanager
async def scripted(*, video: bool, transcript: bool) -> AsyncIterator[Elsewhere]:
    """A server that answers each wish for a response aloud, and in writing if it has to."""

    async def visit(session: ServerSession) -> None:
        engine = session.engine
        assert isinstance(engine, AiortcEngine)
        mouthpiece = Mouthpiece()
        tracks: list[Any] = [VoiceTrack(mouthpiece)]
        if video:
            tracks.insert(0, FaceTrack(Face(64, 64), mouthpiece))
        engine.add_tracks(*tracks)
        ice = (IceServer(urls=("stun:127.0.0.1:9",)),)
        for message in (
            ConnectedSuccess(session_id="s", ice_servers=ice),
            SessionCreated(),
            SessionUpdated(),
        ):
            await session.send(message)
        await session.negotiate(*SEND_MEDIA[0 if video else 1 :])
        async for event in session.events():
            if isinstance(event, MessageReceived) and isinstance(event.message, ResponseCreate):
                tone = np.sin(np.arange(12_000) / 10.0) * 10_000
                mouthpiece.say(tone.astype("<i2").tobytes())
                if transcript:
                    await session.send(TranscriptDone(response_id="r", content="hm"))
                await session.send(AudioDone())

    async with serve(visit, engine=lambda back: AiortcEngine(back, loopback=True)) as server:
        yield Elsewhere(server.url)


@pytest.mark.parametrize(
    ("emulator", "missing"),
    [
        (lambda: emulate(brain=Mute()), "audible audio did not arrive"),
        (lambda: scripted(video=True, transcript=False), "the transcript did not arrive"),
        (lambda: scripted(video=False, transcript=True), "decoded video frames did not arrive"),
        (
            lambda: scripted(video=False, transcript=False),
            "decoded video frames, the transcript did not arrive",
        ),
    ],
    ids=["mute", "no transcript", "no video", "only a voice"],
)
def test_an_incomplete_answer_is_not_a_success(
    emulator: Callable[[], AbstractAsyncContextManager[Emulator]],
    missing: str,
    backend: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = ("-o", str(tmp_path / "a.mkv"), "--still", str(tmp_path / "a.png"))
    code = run(backend(emulator), ["demo", "--text", "Hi", "--limit", "2.5", *files])
    captured = capsys.readouterr()
    assert code == 6
    assert captured.err.splitlines()[-1] == f"error: no answer: {missing}"
    assert captured.out == ""


def test_the_scripted_server_is_complete_when_nothing_is_left_out(
    backend: Callable[..., Any], tmp_path: Path
) -> None:
    files = ("-o", str(tmp_path / "a.mkv"), "--still", str(tmp_path / "a.png"))
    whole = backend(lambda: scripted(video=True, transcript=True))
    assert run(whole, ["demo", "--text", "Hi", *files]) == 0


def test_an_answer_that_the_server_reports_to_fail_is_not_waited_for(
    backend: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("-o", str(tmp_path / "a.mkv"), "--still", str(tmp_path / "a.png"))
    failing = backend(error=SynthesisError("no voice today"))
    # Far above the time limit of a test run: it ends because the server says that it failed.
    code = run(failing, ["demo", "--text", "Hi", "--limit", "3600", *files])
    captured = capsys.readouterr()
    assert code == 6
    last = captured.err.splitlines()[-1]
    assert last.startswith("error: no answer: ")
    assert last.endswith(
        "audible audio, the transcript did not arrive; the server reports: no voice today"
    )


class Greeter:
    """Greets when it is let, and answers speech with its own text."""

    def __init__(self) -> None:
        self.may_greet = asyncio.Event()

    async def hear(self, conversation: Conversation) -> str:
        return "a question"

    async def reply(self, conversation: Conversation) -> Reply:
        if not conversation.text:
            await self.may_greet.wait()
        tone = np.sin(np.arange(12_000) / 10.0) * 10_000
        return Reply(
            text="An answer." if conversation.text else "Welcome!", pcm=tone.astype("<i2").tobytes()
        )


def test_a_greeting_during_the_question_is_not_its_answer(tmp_path: Path, question: Path) -> None:
    with wave.open(str(question), "rb") as short:
        speech = short.readframes(short.getnframes())
    with wave.open(str(question), "wb") as long:
        long.setparams((1, 2, 24_000, 0, "NONE", ""))
        # Long enough for the greeting, its voice, and the silence that ends an answer.
        long.writeframes(bytes(2 * 24_000 * 3) + speech)

    async def main() -> None:
        brain = Greeter()

        def report(step: str, text: str) -> None:
            if step == "asking":
                brain.may_greet.set()

        async with (
            emulate(brain=brain) as human,
            connect(human.endpoint(), proxy=None) as session,
        ):
            await session.send(ResponseCreate())
            answer = await ask(
                session,
                report,
                question=question,
                text=None,
                recording=tmp_path / "a.mkv",
                limit=20.0,
            )
        assert answer.transcript == "An answer."
        assert answer.heard == "a question"
        assert answer.missing == []
        assert 0.3 < answer.audible_seconds < 0.7

    asyncio.run(main())
