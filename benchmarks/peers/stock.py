"""aiortc and websockets as a user would put them together after the seed's pages.

The steps of the page on the WebRTC connection: take `iceServers` from connected.success; on an
offer make an RTCPeerConnection with them, set the remote description, create an answer, set it,
send the local description; read the tracks that `track` tells of. aiortc has no `icecandidate`: its
answer has all candidates. Recorded is MediaRecorder; with nothing consumed the tracks are let be.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from aiortc import (
    MediaStreamError,
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.contrib.media import MediaRecorder
from aiortc.sdp import candidate_from_sdp
from stock_sender import give_an_address
from websockets.asyncio.client import ClientConnection, connect

from peers import frames
from peers.visit import Visit, main


async def receive(url: str, visit: Visit) -> None:
    give_an_address()
    session = _Session(visit)
    path = "/wss/v2/realtime-chat?license=sk_navtalk_EXAMPLE&name=navtalk.Leo"
    async with connect(url + path, proxy=None, compression=None) as socket:
        signaling = asyncio.create_task(session.talk(socket))
        try:
            await visit.last(asyncio.sleep)
        finally:
            signaling.cancel()
            await asyncio.wait([signaling])
            await session.close()


class _Session:
    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.ice_servers: list[RTCIceServer] = []
        self.peer: RTCPeerConnection | None = None
        self.recorder: Any = None
        self.tasks: list[asyncio.Task[None]] = []

    async def talk(self, socket: ClientConnection) -> None:
        async for text in socket:
            now = time.monotonic()
            assert isinstance(text, str)
            self.visit.received(text, now)
            message = json.loads(text)
            data = message.get("data")
            match message["type"]:
                case "conversation.connected.success":
                    self.ice_servers = [
                        RTCIceServer(urls=server["urls"]) for server in data["iceServers"]
                    ]
                case "webrtc.signaling.offer":
                    await self.handle_offer(socket, data["sdp"])
                case "webrtc.signaling.iceCandidate":
                    line = data["candidate"]["candidate"]
                    if line and self.peer is not None:
                        candidate = candidate_from_sdp(line.removeprefix("candidate:"))
                        candidate.sdpMid = data["candidate"]["sdpMid"]
                        await self.peer.addIceCandidate(candidate)

    async def handle_offer(self, socket: ClientConnection, sdp: dict[str, str]) -> None:
        self.peer = peer = RTCPeerConnection(RTCConfiguration(iceServers=self.ice_servers))
        peer.on("track", self.handle_track)
        if self.visit.consume == "recorded":
            self.recorder = MediaRecorder(self.visit.file)
        await peer.setRemoteDescription(RTCSessionDescription(**sdp))
        await peer.setLocalDescription(await peer.createAnswer())
        answer = {"type": peer.localDescription.type, "sdp": peer.localDescription.sdp}
        text = json.dumps({"type": "webrtc.signaling.answer", "data": {"sdp": answer}})
        self.visit.sent(text)
        await socket.send(text)
        if self.recorder is not None:
            await self.recorder.start()

    def handle_track(self, track: MediaStreamTrack) -> None:
        if self.recorder is not None:
            self.recorder.addTrack(track)
        elif self.visit.wants_media:
            self.tasks.append(asyncio.create_task(self.read(track)))

    async def read(self, track: MediaStreamTrack) -> None:
        tell = frames.picture if track.kind == "video" else frames.sound
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            tell(self.visit, time.monotonic(), frame)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.recorder is not None:
            await self.recorder.stop()
        if self.peer is not None:
            await self.peer.close()


if __name__ == "__main__":
    main(receive)
