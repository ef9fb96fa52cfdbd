"""Your own brain and voice: what the human says is made here, and only its face is the service's.

Usage: python examples/own_brain.py WS_URL AVATAR  (licence in NAVTALK_LICENSE; reads stdin)
Shortcomings: think() repeats and speak() hums; put your language model and your speech in there.
"""

import math
import os
import struct
import sys
from collections.abc import AsyncIterator

import trio

from navtalk_proto import Endpoint
from navtalk_trio import connect

RATE = 24_000  # PCM16, little-endian, mono


async def think(question: str) -> str:
    """What a language model would answer."""
    return f"You said: {question}"


async def speak(text: str) -> AsyncIterator[bytes]:
    """What a speech service would stream: a hum of 80 ms for each letter."""
    for letter in text:
        pitch = 150 + 10 * (ord(letter) % 16) if letter.isalpha() else 0
        wave = (math.sin(math.tau * pitch * i / RATE) for i in range(RATE * 8 // 100))
        yield b"".join(struct.pack("<h", round(9_000 * sample)) for sample in wave)


async def main(url: str, avatar: str) -> None:
    endpoint = Endpoint(
        base_url=url,
        name=avatar,
        license=os.environ["NAVTALK_LICENSE"],
        audio_back=True,  # what we send is what the human says
    )
    async with connect(endpoint) as session, session.voice_line() as line:
        # The line sends silence in between: the video of such a human stalls without.
        async for question in trio.wrap_file(sys.stdin):
            answer = await think(question.strip())
            async for chunk in speak(answer):
                await line.write(chunk)
            await line.drain()
            print(f"human: {answer}", flush=True)
        async for picture in session.video:
            print(f"picture: {picture.width} x {picture.height}")
            return


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
