"""A telephone call as the user's voice: 8 kHz mu-law frames of 20 ms, as SIP gateways send them.

Usage: python examples/telephony.py WS_URL AVATAR < CALL.ulaw  (licence in NAVTALK_LICENSE)
Shortcomings: reads the call from standard input, and sends no voice back to the caller.
"""

import os
import sys
from collections.abc import AsyncIterator

import av
import trio

from navtalk_proto import Endpoint, HumanTurn
from navtalk_trio import connect

FRAME = 160  # bytes: 20 ms at 8,000 Hz, one byte a sample (RFC 3551 section 4.5.14)


async def gateway() -> AsyncIterator[bytes]:
    """The frames of the call, as a gateway would hand them out."""
    call = trio.wrap_file(sys.stdin.buffer)
    while frame := await call.read(FRAME):
        yield frame


async def for_navtalk(frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """mu-law at 8,000 Hz becomes what the wire takes: PCM16 at 24,000 Hz."""
    decoder = av.CodecContext.create("pcm_mulaw", "r")
    decoder.sample_rate, decoder.layout = 8_000, "mono"
    resampler = av.AudioResampler(format="s16", layout="mono", rate=24_000)
    async for data in frames:
        for decoded in decoder.decode(av.Packet(data)):
            for frame in resampler.resample(decoded):
                yield bytes(frame.planes[0])[: frame.samples * 2]
    for frame in resampler.resample(None):
        yield bytes(frame.planes[0])[: frame.samples * 2]


async def main(url: str, avatar: str) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    async with connect(endpoint, media=False) as session:
        seconds = await session.say(for_navtalk(gateway()), trailing_silence=1.0)
        print(f"caller: {seconds:.1f} s")
        async for turn in session.turns():
            if isinstance(turn, HumanTurn):
                print(f"human: {turn.text}")
                return


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
