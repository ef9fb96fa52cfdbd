"""Speech from text: espeak-ng as a process that may fail in every way, and the tones."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import shutil
import stat
import wave
from pathlib import Path

import numpy as np
import pytest

from navtalk_asyncio.emulator.voice import (
    MAX_TEXT,
    EspeakSynthesiser,
    SynthesisError,
    ToneSynthesiser,
    find_synthesiser,
)
from navtalk_asyncio.emulator.voice_activity import rms_dbfs


def children() -> set[int]:
    """The processes that this one started and has not waited for."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= set(map(int, (task / "children").read_text().split()))
    return found


def tones(text: str) -> bytes:
    return asyncio.run(ToneSynthesiser().synthesise(text))


def script(directory: Path, body: str, name: str = "espeak-ng") -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def espeak(path: Path, timeout: float = 20.0) -> EspeakSynthesiser:
    return EspeakSynthesiser(executable=str(path), timeout=timeout)


def test_a_tone_for_each_syllable_and_a_pause_after_each_word() -> None:
    # 170 ms a syllable, 60 ms after a word, 300 ms after a sentence, at 24,000 samples of 2 bytes.
    assert len(tones("banana")) == 2 * (3 * 4080 + 1440)
    assert len(tones("Hi!")) == 2 * (1 * 4080 + 7200)
    assert len(tones("one banana.")) == 2 * (2 * 4080 + 1440 + 3 * 4080 + 7200)
    assert len(tones("你好吗")) == 2 * (2 * 4080 + 1440)


def test_the_same_text_sounds_the_same_and_another_does_not() -> None:
    assert tones("Good morning") == tones("Good morning")
    assert tones("ma") != tones("mo")


def test_tones_are_loud_enough_and_do_not_clip() -> None:
    samples = np.frombuffer(tones("What a pleasant day"), dtype="<i2")
    assert -25 < rms_dbfs(samples.tobytes()) < -12
    assert np.abs(samples.astype(int)).max() < 16_000


def test_tones_begin_and_end_without_a_click() -> None:
    samples = np.frombuffer(tones("la"), dtype="<i2").astype(int)
    assert abs(samples[0]) < 50
    assert np.abs(np.diff(samples)).max() < 3000


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_nothing_to_say_is_no_sound(text: str) -> None:
    assert tones(text) == b""
    assert asyncio.run(EspeakSynthesiser(executable="/nonexistent").synthesise(text)) == b""


def test_text_is_bounded() -> None:
    for synthesiser in (ToneSynthesiser(), EspeakSynthesiser(executable="/nonexistent")):
        with pytest.raises(SynthesisError, match="2001 characters, 2000 can"):
            asyncio.run(synthesiser.synthesise("x" * (MAX_TEXT + 1)))


def test_tones_are_bounded_in_seconds() -> None:
    # 1000 syllables in 1000 words are 170 s and 60 s.
    with pytest.raises(SynthesisError, match="longer than 180 s"):
        tones("a " * 1000)


def test_espeak_gets_the_text_on_its_input_and_its_rate_is_converted(tmp_path: Path) -> None:
    wav = io.BytesIO()
    with wave.open(wav, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes(b"\x00\x10" * 22_050)
    (tmp_path / "speech.wav").write_bytes(wav.getvalue())
    path = script(
        tmp_path,
        f'cat > {tmp_path}/said; echo "$@" > {tmp_path}/arguments; cat {tmp_path}/speech.wav',
    )
    pcm = asyncio.run(espeak(path).synthesise("--help; héllo $(reboot)"))
    assert (tmp_path / "said").read_text() == "--help; héllo $(reboot)"
    assert "help" not in (tmp_path / "arguments").read_text()
    assert len(pcm) / 48_000 == pytest.approx(1.0, abs=0.003)
    middle = np.frombuffer(pcm, dtype="<i2")[1000:-1000]
    assert np.abs(middle.astype(int) - 0x1000).max() <= 2


def test_espeak_that_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match="code 3"):
        asyncio.run(espeak(script(tmp_path, "cat > /dev/null; exit 3")).synthesise("hello"))


def test_espeak_that_does_not_read_is_no_surprise(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match="code 4"):
        asyncio.run(espeak(script(tmp_path, "exit 4")).synthesise("x" * MAX_TEXT))


def test_espeak_that_gives_garbage_says_so(tmp_path: Path) -> None:
    path = script(tmp_path, "cat > /dev/null; echo this is not audio")
    with pytest.raises(SynthesisError, match="no audio"):
        asyncio.run(espeak(path).synthesise("hello"))


def test_espeak_that_never_stops_talking_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match="longer than 180 s"):
        asyncio.run(espeak(script(tmp_path, "exec cat /dev/zero")).synthesise("hello"))


def test_espeak_that_hangs_is_killed(tmp_path: Path) -> None:
    path = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    with pytest.raises(SynthesisError, match=r"more than 0\.3 s"):
        asyncio.run(espeak(path, timeout=0.3).synthesise("hello"))
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_cancelled_synthesis_leaves_no_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    path = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000")

    async def main() -> int:
        task = asyncio.create_task(espeak(path).synthesise("hello"))
        # Reading the pipe waits until the process runs.
        pid = int(await asyncio.to_thread((tmp_path / "pid").read_text))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    pid = asyncio.run(main())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(
    not Path("/proc/self/task", str(os.getpid()), "children").exists(),
    reason="needs Linux's /proc with the children of a task",
)
@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_at_any_step_of_its_start_leaves_no_process(
    tmp_path: Path, steps: int, times: int
) -> None:
    """A process that is left behind is a ResourceWarning, and a zombie until this one ends."""
    path = script(tmp_path, "exec sleep 1000")
    before = children()

    async def main() -> None:
        task = asyncio.create_task(espeak(path).synthesise("hello"))
        for _ in range(steps):
            await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    gc.collect()
    assert children() == before


def test_cancelled_while_a_missing_espeak_starts_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        task = asyncio.create_task(espeak(tmp_path / "none").synthesise("hello"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_missing_espeak_says_so(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match="does not start"):
        asyncio.run(espeak(tmp_path / "none").synthesise("hello"))


def test_what_is_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_synthesiser().name == "tones"
    path = script(tmp_path, "exit 0")
    found = find_synthesiser()
    assert found.name == "espeak-ng"
    assert found == EspeakSynthesiser(executable=str(path))


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_the_real_espeak_speaks() -> None:
    short = asyncio.run(EspeakSynthesiser().synthesise("Hello."))
    long = asyncio.run(EspeakSynthesiser().synthesise("Hello. " * 8))
    assert 0.2 < len(short) / 48_000 < 2.0
    assert len(long) > 4 * len(short)
    assert -35 < rms_dbfs(short) < -10
