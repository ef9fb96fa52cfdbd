#!/usr/bin/env bash
# Each adapter works without the other's libraries: navtalk_asyncio without trio, navtalk_trio
# without websockets. Library tests only; the command line and the emulator need more.
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

environment() { # NAME EXTRAS
    python3 -m venv "$scratch/$1"
    "$scratch/$1/bin/pip" install --quiet ".[$2]"
}

absent() { # NAME MODULE
    if "$scratch/$1/bin/python" -c "import $2" 2>"$scratch/import.log"; then
        echo "$2 is installed in the $1 environment" >&2
        exit 1
    fi
    grep -q "ModuleNotFoundError: No module named '$2'" "$scratch/import.log"
}

environment asyncio emulator
absent asyncio trio
(cd "$scratch" && asyncio/bin/python -W error - <<'PYTHON'
import asyncio

from navtalk_asyncio import connect
from navtalk_asyncio.emulator import emulate

async def main():
    async with emulate() as human, connect(human.endpoint()) as session:
        async for frame in session.video:
            print("asyncio without trio:", frame.width, "x", frame.height)
            break

asyncio.run(main())
try:
    import navtalk_trio
except ImportError as error:
    assert "pip install 'navtalk[trio]'" in str(error), error
else:
    raise AssertionError("navtalk_trio was imported without trio")
PYTHON
)

environment trio trio
"$scratch/trio/bin/pip" uninstall --quiet --yes websockets
absent trio websockets
(cd "$scratch" && trio/bin/python -W error - <<'PYTHON'
import trio

from navtalk_proto.config import SEND_MEDIA, ServerConfig
from navtalk_proto.intents import Negotiate
from navtalk_proto.wire.messages import ConnectedSuccess, SessionCreated, SessionUpdated
from navtalk_trio import Endpoint, connect, serve
from navtalk_trio.engine_thread import ThreadEngine, aiortc_engine

# Real signaling and a real media connection between two engines on the media thread; there is
# no emulator here, so the server sends no pictures, and the client only waits for DTLS.
def engine(callbacks):
    return ThreadEngine(callbacks, aiortc_engine(loopback=True))

async def handler(session):
    for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
        await session.send(message)
    await session.send(Negotiate(media=SEND_MEDIA))
    async for event in session.events():
        pass

async def main():
    connected = trio.Event()
    def observe(event):
        if getattr(getattr(event, "state", None), "value", None) == "connected":
            connected.set()
    async with serve(handler, engine=engine, config=ServerConfig()) as server:
        where = Endpoint(base_url=server.url, license="sk_navtalk_EXAMPLE", name="navtalk.Leo")
        async with connect(where, media=False) as session:
            print("trio without websockets: session", session.id)
        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:
                async def visit():
                    async with connect(where, observe=observe):
                        pass
                nursery.start_soon(visit)
                await connected.wait()
                nursery.cancel_scope.cancel()
        assert connected.is_set(), "no media connection"
        print("trio without websockets: media connected")

trio.run(main)
try:
    import navtalk_asyncio, asyncio
    async def open_one():
        async with navtalk_asyncio.connect(
            Endpoint(license="sk_navtalk_EXAMPLE", name="navtalk.Leo"), media=False
        ):
            pass
    asyncio.run(open_one())
except ImportError as error:
    assert "pip install 'navtalk[asyncio]'" in str(error), error
else:
    raise AssertionError("navtalk_asyncio opened a WebSocket without websockets")
PYTHON
)
