"""Renegotiation and glare between two real aiortc peers, driven by the two cores over sockets.

Media has to flow on, on the same tracks: frames are counted before and after each exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import av
import pytest

from navtalk_asyncio import ClientSession, ServerSession, Session, connect
from navtalk_asyncio.emulator import emulate
from navtalk_asyncio.media.aiortc_engine import AiortcEngine
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.websocket import open_websocket
from navtalk_proto import SEND_MEDIA, MediaError
from navtalk_proto.events import (
    Event,
    Negotiated,
    OfferIgnored,
    ProtocolViolation,
)
from navtalk_proto.media import Direction, MediaKind, MediaLine, MediaState, MediaStateChanged
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


def call(scenario: object, *, failures: int = 0) -> None:
    """Run a scenario on an established call, whose transport fails so many times."""

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
        # One transport for the whole call unless it failed, and a new one each time that it did.
        assert states.count(MediaState.CONNECTED) == 1 + failures
        assert states.count(MediaState.FAILED) == failures

    asyncio.run(run())


@pytest.mark.replaces("receiving")
def test_the_client_adds_a_line_and_media_flows_on() -> None:
    async def scenario(call: Call) -> None:
        before = await flowing(call.client)
        await call.negotiate(call.client, VIDEO, AUDIO, VIDEO)
        after = await flowing(call.client)
        assert after[MediaKind.VIDEO] > before[MediaKind.VIDEO]
        assert after[MediaKind.AUDIO] > before[MediaKind.AUDIO]
        assert call.events.count(Negotiated(offered_by_us=True, media=(VIDEO, AUDIO, VIDEO))) == 1

    call(scenario)


@pytest.mark.replaces("receiving")
def test_the_server_offers_again_and_media_flows_on() -> None:
    async def scenario(call: Call) -> None:
        before = await flowing(call.client)
        await call.negotiate(call.server, *SEND_MEDIA)
        after = await flowing(call.client)
        assert after[MediaKind.VIDEO] > before[MediaKind.VIDEO]
        assert call.events.count(Negotiated(offered_by_us=False)) == 2

    call(scenario)


@pytest.mark.replaces("receiving")
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


@pytest.mark.replaces("sending")
def test_the_client_prefers_another_codec_and_gets_it() -> None:
    async def scenario(call: Call) -> None:
        codecs: list[str] = []
        keyframes: list[bool] = []
        changed = asyncio.Event()

        def see(frame: EncodedFrame) -> None:
            if frame.codec == "H264":
                changed.set()
                keyframes.append(frame.keyframe)
            if frame.codec not in codecs[-1:]:
                codecs.append(frame.codec)

        engine = call.client._pump.engine
        assert isinstance(engine, AiortcEngine)
        engine.add_encoded_sink(MediaKind.VIDEO, see)
        before = await flowing(call.client)
        assert codecs == ["VP8"]
        wanted = MediaLine(kind=MediaKind.VIDEO, codecs=("H264",))
        await call.negotiate(call.client, wanted, AUDIO)
        async with asyncio.timeout(DEADLINE):
            await changed.wait()
        after = await flowing(call.client)
        assert codecs == ["VP8", "H264"], "no frame of the old codec after the change"
        # aiortc's receiver releases the last frame of the old codec under the name of the new one.
        assert True in keyframes[:2]
        assert after[MediaKind.VIDEO] > before[MediaKind.VIDEO]

    call(scenario)


@pytest.mark.replaces("receiving")
def test_a_codec_that_nobody_has_is_refused_and_media_flows_on() -> None:
    async def scenario(call: Call) -> None:
        before = await flowing(call.client)
        with pytest.raises(MediaError, match="AV9"):
            await call.negotiate(
                call.client, MediaLine(kind=MediaKind.VIDEO, codecs=("AV9",)), AUDIO
            )
        after = await flowing(call.client)
        assert after[MediaKind.VIDEO] > before[MediaKind.VIDEO]

    call(scenario)


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.replaces("receiving")
def test_a_fresh_offer_recovers_a_failed_transport(who: str) -> None:
    async def scenario(call: Call) -> None:
        before = await flowing(call.client)
        engine = call.client._pump.engine
        assert isinstance(engine, AiortcEngine)
        assert engine._peer is not None
        # What half a minute without consent would come to.
        engine._peer._tell_failed()
        if who == "client":
            await call.negotiate(call.client, VIDEO, AUDIO)
        else:
            # Until now the server did not know. The client's new peer connection closes the old
            # one, and with it the server's, under this offer.
            with pytest.raises(MediaError, match="the peer connection was closed"):
                await call.negotiate(call.server, *SEND_MEDIA)
            # It may be answered all the same, after the next offer has left.
            await call.negotiate(call.server, *SEND_MEDIA)
        after = await flowing(call.client)
        assert after[MediaKind.VIDEO] > 0 < before[MediaKind.VIDEO]

    call(scenario, failures=1)


@pytest.mark.replaces("receiving")
def test_glare_ends_with_both_wishes_met_and_media_running() -> None:
    async def scenario(call: Call) -> None:
        before = await flowing(call.client)
        seen_by_server: list[Event] = []
        told = call.server._pump._observe

        def observe(event: Event) -> None:
            told(event)
            seen_by_server.append(event)

        call.server._pump._observe = observe
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
