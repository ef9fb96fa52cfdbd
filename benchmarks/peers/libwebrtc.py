"""libwebrtc through `wrtc`, put together after the seed's pages as `stock.py` is.

Its API is the browser's, so the steps are those of the seed word for word: candidates are sent as
`icecandidate` tells of them, tracks are read through a MediaStreamTrackProcessor. It has no
recorder. Loopback candidates are allowed, as they are for the other receivers.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import numpy as np
import webrtc
from sender import BITS, number_of_squares
from websockets.asyncio.client import ClientConnection, connect

from peers.visit import Visit, main

webrtc.allow_loopback()


async def receive(url: str, visit: Visit) -> None:
    session = _Session(visit)
    path = "/wss/v2/realtime-chat?license=sk_navtalk_EXAMPLE&name=navtalk.Leo"
    async with connect(url + path, proxy=None, compression=None) as socket:
        signaling = asyncio.create_task(session.talk(socket))
        try:
            await visit.last(asyncio.sleep)
        finally:
            signaling.cancel()
            await asyncio.wait([signaling])
            session.close()


class _Session:
    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.ice_servers: list[Any] = []
        self.peer: Any = None
        self.tasks: set[asyncio.Task[None]] = set()

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
                        webrtc.RTCIceServer(urls=server["urls"]) for server in data["iceServers"]
                    ]
                case "webrtc.signaling.offer":
                    await self.handle_offer(socket, data["sdp"])
                case "webrtc.signaling.iceCandidate":
                    if self.peer is not None:
                        init = webrtc.RTCIceCandidateInit(
                            candidate=data["candidate"]["candidate"],
                            sdp_mid=data["candidate"]["sdpMid"],
                        )
                        await self.peer.add_ice_candidate(init)

    async def handle_offer(self, socket: ClientConnection, sdp: dict[str, str]) -> None:
        configuration = webrtc.RTCConfiguration(ice_servers=self.ice_servers)
        self.peer = peer = webrtc.RTCPeerConnection(configuration)
        peer.on("track", self.handle_track)
        candidates: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        peer.on("icecandidate", lambda event: _put(candidates, event.candidate))
        await peer.set_remote_description(webrtc.RTCSessionDescriptionInit(**sdp))
        await peer.set_local_description(await peer.create_answer())
        answer = {"type": "answer", "sdp": peer.local_description.sdp}
        text = json.dumps({"type": "webrtc.signaling.answer", "data": {"sdp": answer}})
        self.visit.sent(text)
        await socket.send(text)
        self.start(self.send_candidates(socket, candidates))

    async def send_candidates(
        self, socket: ClientConnection, candidates: asyncio.Queue[dict[str, Any]]
    ) -> None:
        while True:
            data = {"candidate": await candidates.get()}
            await socket.send(json.dumps({"type": "webrtc.signaling.iceCandidate", "data": data}))

    def handle_track(self, event: Any) -> None:
        if self.visit.wants_media:
            self.start(self.read(event.track))

    async def read(self, track: Any) -> None:
        processor = webrtc.MediaStreamTrackProcessor(
            webrtc.MediaStreamTrackProcessorInit(track=track)
        )
        video = track.kind == "video"
        async for item in processor.readable:
            now = time.monotonic()
            if video:
                self.visit.picture(now, lambda: _number(item))  # noqa: B023 - called at once
            else:
                self.visit.sound(now, lambda: _samples(item))  # noqa: B023 - called at once
            item.close()

    def start(self, work: Any) -> None:
        self.tasks.add(asyncio.create_task(work))

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.peer is not None:
            self.peer.close()


def _put(candidates: asyncio.Queue[dict[str, Any]], candidate: Any) -> None:
    if candidate is not None and candidate.candidate:
        init = {"candidate": candidate.candidate, "sdpMid": candidate.sdp_mid}
        candidates.put_nowait(init | {"sdpMLineIndex": candidate.sdp_m_line_index})


def _number(frame: Any) -> int | None:
    """The number in the two rows of squares at the top, of which only they are copied."""
    width = frame.coded_width
    height = 2 * (width // BITS)
    rect = webrtc.DOMRectInit(x=0, y=0, width=width, height=height)
    options = webrtc.VideoFrameCopyToOptions(rect=rect)
    planes = bytearray(frame.allocation_size(options))
    frame.copy_to(planes, options)
    return number_of_squares(memoryview(planes), width, width)


def _samples(data: Any) -> np.ndarray[Any, Any]:
    options = webrtc.AudioDataCopyToOptions(plane_index=0, format="s16")
    samples = bytearray(data.allocation_size(options))
    data.copy_to(samples, options)
    return np.frombuffer(samples, np.int16)[:: data.number_of_channels].copy()


if __name__ == "__main__":
    main(receive)
