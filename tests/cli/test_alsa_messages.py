"""ALSA writes to standard error, and is quiet while it is asked to be."""

from __future__ import annotations

import ctypes
import subprocess
import sys

from null_sink import missing

PROGRAM = """
import ctypes, sys
from navtalk_asyncio.cli.alsa_messages import no_alsa_messages

alsa = ctypes.CDLL("libasound.so.2")

def fail(name):
    pcm = ctypes.c_void_p()
    assert alsa.snd_pcm_open(ctypes.byref(pcm), name, 0, 0) < 0

with no_alsa_messages():
    fail(b"nobody")
fail(b"somebody")
"""


def test_it_is_quiet_inside_of_the_block_and_only_there() -> None:
    try:
        ctypes.CDLL("libasound.so.2")
    except OSError:
        missing("libasound2")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ALSA lib" in done.stderr
    assert "somebody" in done.stderr
    assert "nobody" not in done.stderr
