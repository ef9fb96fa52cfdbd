"""A kiosk that runs for weeks: whatever becomes of the server, it comes back and remembers.

Usage: python examples/kiosk.py WS_URL AVATAR  (licence in NAVTALK_LICENSE; asks what stdin says)
Shortcomings: it prints where a kiosk would draw; its history is lost with the process.
"""

import os
import sys
from typing import Any

import trio

from navtalk_proto import Endpoint, ReconnectPolicy, SessionLostError
from navtalk_proto.events import Reconnected, Reconnecting, ResponseGenerated
from navtalk_trio import ClientSession, connect

FOR_EVER = ReconnectPolicy(longest_delay=2.0, give_up_after=None)


async def tell(session: ClientSession, screen: dict[str, Any]) -> None:
    async for event in session.events():
        match event:
            case ResponseGenerated():
                print(f"human: {event.text}", flush=True)
            case Reconnecting():
                print(f"lost: {event.reason}; attempt {event.attempt}", flush=True)
            case Reconnected():
                print(f"back: {len(session.history)} entries remembered", flush=True)
                screen["stale"] = True


async def show(session: ClientSession, screen: dict[str, Any]) -> None:
    async for picture in session.video:  # one loop, whatever happens to the connection
        if screen["stale"]:
            print(f"picture: {picture.width} x {picture.height}", flush=True)
            screen["stale"] = False


async def ask(session: ClientSession, question: str) -> None:
    while True:
        try:
            return await session.send_text(question)  # waits while the session is lost
        except SessionLostError:
            continue  # it was on its way: once more, to the next connection


async def main(url: str, avatar: str) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    screen = {"stale": True}
    async with connect(endpoint, reconnect=FOR_EVER) as session, trio.open_nursery() as nursery:
        nursery.start_soon(tell, session, screen)
        nursery.start_soon(show, session, screen)
        async for line in trio.wrap_file(sys.stdin):
            await ask(session, line.strip())
        nursery.cancel_scope.cancel()
    print(f"closed: {len(session.history)} entries remembered")


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
