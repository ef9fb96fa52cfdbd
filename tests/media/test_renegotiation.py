"""Renegotiation and glare between two real aiortc peers, driven by the two cores over sockets.

Media has to flow on, on the same tracks: frames are counted before and after each exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import av

from navtalk_asyncio import ClientSession, ServerSession, Session, connect
from navtalk_asyncio.emulator import emulate
from navtalk_asyncio.websocket import open_websocket
from navtalk_proto import SEND_MEDIA
from navtalk_proto.events import Event, Negotiated, OfferIgnored, ProtocolViolation
from navtalk_proto.media import Direction, MediaKind, MediaLine, MediaState, MediaStateChanged
from navtalk_proto.pump import Observer
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint

VIDEO = MediaLine(kind=MediaKind.VIDEO)
AUDIO = MediaLine(kind=MediaKind.AUDIO)
NO_VIDEO = MediaLine(kind=MediaKind.VIDEO, direction=Direction.INACTIVE)

DEADLINE = 20.0


async def _take(frames: AsyncIterator[av.VideoFrame | av.AudioFrame], wanted: int) -> int:
    taken = 0
    async for _ in frames:
        taken += 1
        if taken == wanted:
            break
    return taken


async def flowing(session: ClientSession, wanted: int = 10) -> dict[MediaKind, int]:
    """Decode `wanted` new frames of each kind; returns the packets received so far, by kind."""
    async with asyncio.timeout(DEADLINE):
        video, audio = await asyncio.gather(
            _take(session.video, wanted), _take(session.audio, wanted)
        )
    assert (video, audio) == (wanted, wanted)
    return {one.kind: one.packets for one in session.track_counters().values()}


class CrossingTransport:
    """A WebSocket that can keep the server's next offer back until an offer of ours has left."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._offered = asyncio.Event()
        self.crossing = False

    async def send_text(self, text: str) -> None:
        await self._inner.send_text(text)
        if '"webrtc.signaling.offer"' in text:
            self._offered.set()

    async def receive(self) -> str | bytes:
        message = await self._inner.receive()
        if self.crossing and '"webrtc.signaling.offer"' in str(message):
            self.crossing = False
            await self._offered.wait()
        return message

    async def close(self, code: int, reason: str) -> None:
        await self._inner.close(code, reason)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Call:
    """A client and its server session, with everything that the client was told."""

    def __init__(
        self,
        client: ClientSession,
        server: ServerSession,
        events: list[Event],
        transport: CrossingTransport,
    ) -> None:
        self.client = client
        self.server = server
        self.events = events
        self.transport = transport

    async def negotiate(self, session: Session, *media: MediaLine) -> None:
        async with asyncio.timeout(DEADLINE):
            await session.negotiate(*media)


def call(scenario: object) -> None:
    """Run a scenario on an established call."""

    async def run() -> None:
        events: list[Event] = []
        transports: list[CrossingTransport] = []

        async def open_transport(endpoint: Endpoint) -> Transport:
            transports.append(CrossingTransport(await open_websocket(endpoint, max_size=1 << 20)))
            return transports[0]

        async with (
            emulate() as human,
            connect(human.endpoint(), observe=events.append, transport=open_transport) as client,
        ):
            (server,) = human.server.sessions
            await scenario(Call(client, server, events, transports[0]))  # type: ignore[operator]
        assert not [event for event in events if isinstance(event, ProtocolViolation)]
        states = [event.state for event in events if isinstance(event, MediaStateChanged)]
        # One transport for the whole call: it connected once and never failed.
        assert states.count(MediaState.CONNECTED) == 1
        assert MediaState.FAILED not in states

    asyncio.run(run())


def test_the_client_adds_a_line_and_media_flows_on() -> None:
    async def scenario(call: Call) -> None:
        before = await flowing(call.client)
        await call.negotiate(call.client, VIDEO, AUDIO, VIDEO)
        after = await flowing(call.client)
        assert after[MediaKind.VIDEO] > before[MediaKind.VIDEO]
        assert after[MediaKind.AUDIO] > before[MediaKind.AUDIO]
        assert call.events.count(Negotiated(offered_by_us=True, media=(VIDEO, AUDIO, VIDEO))) == 1

    call(scenario)


def test_the_server_offers_again_and_media_flows_on() -> None:
    async def scenario(call: Call) -> None:
        before = await flowing(call.client)
        await call.negotiate(call.server, *SEND_MEDIA)
        after = await flowing(call.client)
        assert after[MediaKind.VIDEO] > before[MediaKind.VIDEO]
        assert call.events.count(Negotiated(offered_by_us=False)) == 2

    call(scenario)


def test_the_client_drops_the_video_and_takes_it_back() -> None:
    async def scenario(call: Call) -> None:
        await flowing(call.client)
        await call.negotiate(call.client, NO_VIDEO, AUDIO)
        async with asyncio.timeout(DEADLINE):
            assert await _take(call.client.audio, 10) == 10
        stopped = {one.kind: one.packets for one in call.client.track_counters().values()}
        await call.negotiate(call.client, VIDEO, AUDIO)
        again = await flowing(call.client)
        assert again[MediaKind.VIDEO] > stopped[MediaKind.VIDEO]

    call(scenario)


def test_glare_ends_with_both_wishes_met_and_media_running() -> None:
    async def scenario(call: Call) -> None:
        before = await flowing(call.client)
        seen_by_server: list[Event] = []
        told = call.server._pump._observe
        assert isinstance(told, Observer)
        told.add(seen_by_server.append)
        call.transport.crossing = True
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(
                call.client.negotiate(VIDEO, AUDIO), call.server.negotiate(*SEND_MEDIA)
            )
        after = await flowing(call.client)
        assert after[MediaKind.VIDEO] > before[MediaKind.VIDEO]
        assert after[MediaKind.AUDIO] > before[MediaKind.AUDIO]
        # The server is impolite: its offer went through first, the client's afterwards.
        exchanges = [event for event in call.events if isinstance(event, Negotiated)]
        assert [event.offered_by_us for event in exchanges] == [False, False, True]
        ignored = [event for event in seen_by_server if isinstance(event, OfferIgnored)]
        assert len(ignored) == 1, "the offers did not cross"

    call(scenario)
