"""Record a conversation with a digital human into mp4, mkv or webm, with one's own voice in it.

Usage: python examples/recorder.py WS_URL AVATAR FILE asyncio|trio  (licence in NAVTALK_LICENSE)
Shortcomings: asks one question and records its answer; does not reconnect.
"""

import importlib
import os
import sys
from typing import Any

import anyio

from navtalk_proto import Endpoint
from navtalk_proto.events import ResponseDone
from navtalk_proto.media import recording_media


async def interview(url: str, avatar: str, path: str, adapter: Any) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    # The codec is agreed when the session opens: an mp4 file wants H.264.
    media = recording_media(path)
    async with (
        adapter.connect(endpoint, media=media) as session,
        session.record(path, own_voice=True) as recorder,
    ):
        await session.send_text("What do you remember of today?")
        async for event in session.events():
            if isinstance(event, ResponseDone):
                break
    counters = recorder.counters
    print(f"{path}: {counters.written} packets, in step by {recorder.source}")
    missing = counters.queue_full + counters.too_late + counters.wrong_codec
    if missing or counters.silence or counters.gaps:
        print(f"missing: {missing}, silence put in: {counters.silence}, gaps: {counters.gaps}")


def main(url: str, avatar: str, path: str, loop: str = "asyncio") -> None:
    adapter = importlib.import_module(f"navtalk_{loop}")
    anyio.run(interview, url, avatar, path, adapter, backend=loop)


if __name__ == "__main__":
    main(*sys.argv[1:])
