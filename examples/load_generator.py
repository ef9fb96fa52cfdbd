"""Many visitors at once: how fast does a server let them in, and how fast does it answer?

Usage: python examples/load_generator.py WS_URL AVATAR [VISITORS]  (licence in NAVTALK_LICENSE)
Shortcomings: signaling and text only, without media; all visitors come from this one process.
"""

import asyncio
import os
import statistics
import sys
import time

from navtalk_asyncio import connect
from navtalk_proto import Endpoint, NavTalkError
from navtalk_proto.events import ResponseStarted


async def visit(endpoint: Endpoint, opened: list[float], answered: list[float]) -> None:
    start = time.monotonic()
    async with connect(endpoint, media=False) as session:
        opened.append(time.monotonic() - start)
        start = time.monotonic()
        await session.send_text("Hello!")
        async for event in session.events():
            if isinstance(event, ResponseStarted):
                answered.append(time.monotonic() - start)
                return


async def main(url: str, avatar: str, visitors: str = "10") -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    opened: list[float] = []
    answered: list[float] = []
    visits = (visit(endpoint, opened, answered) for _ in range(int(visitors)))
    failures = [
        error
        for error in await asyncio.gather(*visits, return_exceptions=True)
        if error is not None
    ]
    for what, seconds in (("opened", opened), ("answered", answered)):
        if seconds:
            median, worst = statistics.median(seconds) * 1000, max(seconds) * 1000
            print(f"{what}: {len(seconds)}, median {median:.0f} ms, slowest {worst:.0f} ms")
    for error in failures:
        if not isinstance(error, NavTalkError):
            raise error
        print(f"failed: {error}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
