"""Stand between a client and its server: every message passes as it is, and two cores explain it.

Usage: python examples/man_in_the_middle.py WS_URL PORT  (the clients bring their own licences)
Shortcomings: media and REST look-ups go past it; each core only hears, so that what answers the
other side is OutOfOrder or ignored to it.
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection as WebSocket
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from navtalk_proto import ClientConfig, Connection, Role, ServerConfig
from navtalk_proto.actions import Emit
from navtalk_proto.events import MessageReceived


async def relay(near: WebSocket, far: WebSocket, core: Connection, arrow: str) -> None:
    """Pass on what one side says, and have a core of the other side's role look at it."""
    now = asyncio.get_running_loop().time
    core.transport_opened(now=now())
    try:
        async for text in near:
            core.receive_text(text, now=now())
            for action in core.actions():  # what the core would send is not ours to send
                match action:
                    case Emit(event=MessageReceived(message=message)):
                        print(arrow, type(message).__name__, flush=True)
                    case Emit(event=event):
                        print(arrow, "|", type(event).__name__, flush=True)
            await far.send(text)
    except ConnectionClosed:
        pass  # that side went in the middle of a message
    await far.close()


async def main(url: str, port: str) -> None:
    async def visited(client: ServerConnection) -> None:
        assert client.request is not None
        # The path has the licence: it is passed on, and never printed.
        async with connect(url + client.request.path, compression=None, proxy=None) as server:
            # Each core plays the side that hears; its clock-driven deadlines are not run here.
            hears = Connection(Role.SERVER, ServerConfig(media=()), now=0.0)
            listens = Connection(Role.CLIENT, ClientConfig(media=()), now=0.0)
            async with asyncio.TaskGroup() as both:
                both.create_task(relay(client, server, hears, ">"))
                both.create_task(relay(server, client, listens, "<"))

    async with serve(visited, "127.0.0.1", int(port), compression=None, max_size=2**24) as server:
        print(f"listening on ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
