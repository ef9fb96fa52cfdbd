"""Relay a digital human's encoded packets to whoever connects over TCP, without decoding any.

Usage: python examples/relay_packets.py WS_URL AVATAR SECONDS asyncio|trio
(licence in NAVTALK_LICENSE). Prints the port on 127.0.0.1; each packet goes out as a line of JSON
(kind, codec, timestamp, clock_rate, keyframe, size) and its bytes.
Shortcomings: one receiver; no encryption; a receiver that stalls loses what is older than the
newest keyframe, and is not told.
"""

import importlib
import json
import os
import sys
from typing import Any

import anyio
from anyio.abc import SocketStream

from navtalk_proto import Endpoint


async def relay(url: str, avatar: str, seconds: float, adapter: Any) -> None:
    endpoint = Endpoint(base_url=url, name=avatar, license=os.environ["NAVTALK_LICENSE"])
    async with adapter.connect(endpoint) as session:

        async def serve(receiver: SocketStream) -> None:
            packets = session.packets()
            async with receiver:
                with anyio.move_on_after(seconds):
                    async for packet in packets:
                        head = {
                            "kind": packet.kind.value,
                            "codec": packet.codec,
                            "timestamp": packet.timestamp,
                            "clock_rate": packet.clock_rate,
                            "keyframe": packet.keyframe,
                            "size": len(packet.data),
                        }
                        await receiver.send(json.dumps(head).encode() + b"\n" + packet.data)
            print(f"relayed {packets.counters.taken}, dropped {packets.counters.dropped}")
            tasks.cancel_scope.cancel()

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as tasks:
            print(listener.extra(anyio.abc.SocketAttribute.local_port), flush=True)
            await listener.serve(serve)


def main(url: str, avatar: str, seconds: str, loop: str = "asyncio") -> None:
    adapter = importlib.import_module(f"navtalk_{loop}")
    anyio.run(relay, url, avatar, float(seconds), adapter, backend=loop)


if __name__ == "__main__":
    main(*sys.argv[1:])
