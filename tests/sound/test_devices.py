"""A speaker and a microphone of a real sound server, whose sink leads nowhere but back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PATIENCE = 60.0
"""Seconds until a wait is given up; only a failing test gets near it."""

ROUND_TRIP = """
import json, sys, anyio
import numpy as np
from navtalk_proto.playout import HalfDuplexGate
from navtalk_sound import Microphone, Speaker

gate = HalfDuplexGate() if sys.argv[2] == "gated" else None
tone = np.sin(np.arange(960) * 2 * np.pi * 500 / 48_000) * 12_000
pcm = np.repeat(tone.astype("<i2")[:, None], 2, axis=1).tobytes()

async def main():
    heard = b""
    with Speaker(gate=gate) as speaker, Microphone(gate=gate) as microphone:
        with anyio.fail_after(30):
            async for piece in microphone.pieces():
                while speaker.stats().held < 0.2:
                    speaker.play(pcm)
                heard += piece
                loud = np.abs(np.frombuffer(heard, "<i2").astype(int)) > 6_000
                # Enough is a second of the tone, or where it is kept out, of what the gate took.
                if loud.sum() > 12_000 or microphone.stats().gated > 1.0:
                    break
        samples = np.frombuffer(heard, "<i2").astype(float)
        spectrum = np.abs(np.fft.rfft(samples[-24_000:]))
        print(json.dumps({
            "peak": float(np.abs(samples).max()),
            "hertz": float(spectrum.argmax() * 24_000 / min(samples.size, 24_000)),
            "underruns": speaker.stats().underruns,
            "gated": microphone.stats().gated,
        }))

anyio.run(main, backend=sys.argv[1])
"""


def run(environment: dict[str, str], program: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_is_played_is_heard(sound_server: dict[str, str], backend: str) -> None:
    result = run(sound_server, ROUND_TRIP, backend, "open")
    assert result["hertz"] == pytest.approx(500, abs=10)
    assert result["gated"] == 0


def test_a_gate_keeps_what_is_played_out_of_the_microphone(sound_server: dict[str, str]) -> None:
    result = run(sound_server, ROUND_TRIP, "asyncio", "gated")
    assert result["gated"] > 0.9
    # Nothing of the tone, or of its beginning before the gate knew.
    assert result["peak"] < 6_000 or result["hertz"] != pytest.approx(500, abs=10)


def test_a_device_that_is_not_there_says_so(sound_server: dict[str, str]) -> None:
    program = (
        "import json\n"
        "from navtalk_sound import SoundDeviceError, Speaker\n"
        "try:\n"
        "    Speaker('nobody').__enter__()\n"
        "except SoundDeviceError as error:\n"
        "    print(json.dumps([str(error), error.code]))\n"
    )
    text, code = run(sound_server, program)
    assert text.startswith("the speaker cannot be opened")
    assert code == "sound-device"
