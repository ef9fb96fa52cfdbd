"""The other peer of `sender.py`: aiortc as it is, behind a WebSocket written by hand.

No benchmark: ``python benchmarks/sender.py --stock`` runs it. Nothing of navtalk takes part in a
session, so that a receiver is measured against a far end that no patch of ours has touched.

With loss, jitter, cuts or a dropped packet, media takes the test kit's UDP wire
(:func:`navtalk_asyncio.testing.udp_wire`), between the sender's sockets and whatever the receiver
has. A session's cuts and drops are counted in seconds from its answer, and what really happened is
noted with CLOCK_MONOTONIC times, for ``GET /sent``.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import aioice.ice
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.sdp import candidate_from_sdp
from attrs import field, frozen, mutable
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from navtalk_asyncio.testing import udp_wire
from navtalk_proto.testing.udp_wire import Side, UdpWire

AUDIO_PAYLOAD_TYPE: Final = 96
"""aiortc's number for Opus, by which the wire finds a packet of sound."""


@frozen(kw_only=True)
class Network:
    """What happens to the packets of a session."""

    loss: float = 0.0
    """Share of RTP packets, towards the receiver."""
    jitter: float = 0.0
    """Seconds, of everything and both ways."""
    cuts: tuple[tuple[float, float], ...] = ()
    """(when, for how long) nothing passes."""
    drops: tuple[float, ...] = ()
    """When the next packet of sound is lost."""
    seed: int = 1
    """Decides which packets are lost, and how late each is: by how many were before it."""

    @property
    def perfect(self) -> bool:
        """Whether no wire is needed."""
        return self == Network(seed=self.seed)


@mutable
class Sending:
    """One session: its tracks, and what the network did to it."""

    video: MediaStreamTrack
    audio: MediaStreamTrack
    happened: list[tuple[str, float]] = field(factory=list)


@mutable
class StockSender:
    """Serves the same tracks to every client. `make_tracks` gives those of one session."""

    make_tracks: Callable[[str], Sending]
    codec: str
    ice_servers: list[dict[str, Any]]
    network: Network
    reply: Callable[[str], bytes | None]
    """What GET of a path is answered with; None is 404."""

    @asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncGenerator[str]:
        """Serve while the block runs; gives the URL."""
        give_an_address()
        async with serve(
            self._visit, host, port, compression=None, process_request=self._http
        ) as server:
            address, port = server.sockets[0].getsockname()[:2]
            yield f"ws://{address}:{port}"

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        body = self.reply(request.path)
        if body is None:
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
        return Response(200, "OK", headers, body)

    async def _visit(self, socket: ServerConnection) -> None:
        name = str(uuid.uuid4())
        sending = self.make_tracks(name)
        async with AsyncExitStack() as stack:
            wire: UdpWire | None = None
            if not self.network.perfect:
                wire = await stack.enter_async_context(udp_wire(self.network.seed))
                wire.set("rtp", towards=Side.FAR, loss=self.network.loss)
                wire.set(jitter=self.network.jitter)
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            stack.push_async_callback(peer.close)
            try:
                await self._talk(socket, peer, sending, name, wire)
            except ConnectionClosed:
                return

    async def _talk(
        self,
        socket: ServerConnection,
        peer: RTCPeerConnection,
        sending: Sending,
        name: str,
        wire: UdpWire | None,
    ) -> None:
        async def send(type: str, data: object = None) -> None:
            text = json.dumps({"type": type, "data": data})
            passed = text if wire is None else wire.sent(text)
            if passed is not None:
                await socket.send(passed)

        await send(
            "conversation.connected.success", {"sessionId": name, "iceServers": self.ice_servers}
        )
        await send("realtime.session.created")
        await send("realtime.session.updated")
        peer.addTrack(sending.video)
        peer.addTrack(sending.audio)
        known = RTCRtpSender.getCapabilities("video").codecs
        wanted = [c for c in known if c.mimeType.lower() in (f"video/{self.codec}", "video/rtx")]
        peer.getTransceivers()[0].setCodecPreferences(wanted)
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"type": "offer", "sdp": peer.localDescription.sdp}
        await send("webrtc.signaling.offer", {"sdp": offer})
        early: list[Any] | None = []
        async with AsyncExitStack() as stack:
            async for text in socket:
                passed = str(text) if wire is None else wire.received(str(text))
                message = json.loads(passed or "{}")
                if message.get("type") == "webrtc.signaling.answer":
                    answer = message["data"]["sdp"]
                    await peer.setRemoteDescription(RTCSessionDescription(**answer))
                    # Before its remote description aiortc forgets candidates.
                    for candidate in early or ():
                        await peer.addIceCandidate(candidate)
                    early = None
                    if wire is not None:
                        plan = asyncio.create_task(self._carry_out(wire, sending))
                        stack.callback(plan.cancel)
                elif message.get("type") == "webrtc.signaling.iceCandidate":
                    candidate = _candidate(message["data"]["candidate"])
                    if candidate is not None and early is not None:
                        early.append(candidate)
                    elif candidate is not None:
                        await peer.addIceCandidate(candidate)

    async def _carry_out(self, wire: UdpWire, sending: Sending) -> None:
        begin = time.monotonic()
        steps: list[tuple[float, str, Callable[[], None]]] = []
        for at, seconds in self.network.cuts:
            steps += [(at, "cut", wire.cut), (at + seconds, "heal", wire.heal)]
        for at in self.network.drops:
            steps.append((at, "drop", lambda: _drop_a_sound(wire)))
        for at, what, step in sorted(steps, key=lambda one: one[0]):
            await asyncio.sleep(begin + at - time.monotonic())
            step()
            sending.happened.append((what, time.monotonic()))


def _candidate(init: dict[str, Any]) -> Any:
    line = init.get("candidate") or ""
    if " udp " not in line.lower() or ".local " in line:
        return None  # The end mark, TCP, and names that only multicast DNS knows.
    candidate = candidate_from_sdp(line.removeprefix("candidate:"))
    candidate.sdpMid, candidate.sdpMLineIndex = init.get("sdpMid"), init.get("sdpMLineIndex")
    return candidate


def _drop_a_sound(wire: UdpWire) -> None:
    passes: Any = wire.datagram

    def lose_one(faces: Side, data: bytes, *rest: Any, **named: Any) -> None:
        if len(data) > 1 and data[0] >> 6 == 2 and data[1] & 0x7F == AUDIO_PAYLOAD_TYPE:
            del wire.__dict__["datagram"]
        else:
            passes(faces, data, *rest, **named)

    wire.__dict__["datagram"] = lose_one


def give_an_address() -> None:
    """On a machine that has only loopback, let aioice use that: it offers nothing otherwise."""
    module: Any = aioice.ice
    if not module.get_host_addresses(use_ipv4=True, use_ipv6=True):
        module.get_host_addresses = lambda **_: ["127.0.0.1"]
