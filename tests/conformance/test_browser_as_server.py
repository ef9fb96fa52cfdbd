"""Chromium as the media engine of the server: it offers its camera and microphone to our client.

Our server core negotiates, over a real WebSocket, and knows nothing of who moves the media; our
client answers with aiortc, and decodes. What is asserted is what the client decoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from browser_engine import CAPABILITIES, BrowserEngine, EnginePage, engine_page_reply
from playwright.async_api import Page

from navtalk_asyncio import ClientSession, ServerSession, connect, serve
from navtalk_asyncio.client import TransportOpener
from navtalk_asyncio.media import AiortcEngine
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.testing.cutter import through
from navtalk_asyncio.testing.udp_wire import udp_wire
from navtalk_proto import Endpoint, ServerConfig
from navtalk_proto.config import SEND_MEDIA
from navtalk_proto.events import Event, MediaResumed, MediaStalled
from navtalk_proto.media import Direction, MediaKind, MediaLine, MediaState, MediaStateChanged
from navtalk_proto.wire.messages import ConnectedSuccess, SessionCreated, SessionUpdated

pytestmark = pytest.mark.anyio

OpenPage = Callable[[str], Awaitable[Page]]

PATIENCE = 15.0
"""Seconds until a wait is given up; only a failing test gets near it."""


class Watch:
    """Events, and who waits for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    async def until(self, wanted: Callable[[Event], bool], *, since: int = 0) -> None:
        async with asyncio.timeout(PATIENCE):
            while not any(map(wanted, self.events[since:])):
                self._more.clear()
                await self._more.wait()


class Call:
    """A client and a server whose media is a browser's."""

    def __init__(self, client: ClientSession, server: ServerSession, page: EnginePage) -> None:
        self.client = client
        self.server = server
        self.page = page
        self.pictures: list[np.ndarray[Any, Any]] = []
        self.codecs: list[str] = []
        self.sounds = 0
        self.energy = 0.0
        self._more = asyncio.Event()

    async def watch(self) -> None:
        async for frame in self.client.video:
            self.pictures.append(frame.to_ndarray(format="rgb24"))
            self._more.set()

    async def listen(self) -> None:
        async for frame in self.client.audio:
            self.sounds += 1
            self.energy += float(np.square(frame.to_ndarray() / 32768).mean())
            self._more.set()

    def encoded(self, frame: EncodedFrame) -> None:
        self.codecs.append(frame.codec)
        self._more.set()

    async def until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not enough():
                self._more.clear()
                await self._more.wait()

    async def more(self, *, pictures: int = 10, sounds: int = 10) -> None:
        """Wait until as much more was decoded."""
        before = len(self.pictures) + pictures, self.sounds + sounds
        await self.until(lambda: len(self.pictures) >= before[0] and self.sounds >= before[1])


@asynccontextmanager
async def calling(
    open_page: OpenPage,
    *,
    transport: TransportOpener | None = None,
    seen_by_server: Watch | None = None,
    seen_by_client: Watch | None = None,
) -> AsyncIterator[Call]:
    """A call in which both run, decoded."""
    began: asyncio.Future[ServerSession] = asyncio.get_running_loop().create_future()
    pages: list[EnginePage] = []

    async def human(session: ServerSession) -> None:
        await session.send(ConnectedSuccess(session_id="s", ice_servers=()))
        await session.send(SessionCreated())
        await session.send(SessionUpdated())
        await session.negotiate(*SEND_MEDIA)
        began.set_result(session)
        async for event in session.events():
            if seen_by_server is not None:
                seen_by_server.observe(event)

    async with serve(
        human,
        config=ServerConfig(media=SEND_MEDIA, capabilities=CAPABILITIES),
        engine=lambda callbacks: BrowserEngine(callbacks, pages[0]),
        http=engine_page_reply,
    ) as server:
        pages.append(await EnginePage.open(open_page, f"http{server.url.removeprefix('ws')}"))
        endpoint = Endpoint(base_url=server.url, license="sk_navtalk_EXAMPLE", name="navtalk.Leo")
        async with connect(
            endpoint,
            proxy=None,
            transport=transport,
            observe=None if seen_by_client is None else seen_by_client.observe,
        ) as client:
            async with asyncio.timeout(PATIENCE):
                call = Call(client, await began, pages[0])
            assert isinstance(client.engine, AiortcEngine)
            client.engine.add_encoded_sink(MediaKind.VIDEO, call.encoded)
            tasks = [asyncio.create_task(call.watch()), asyncio.create_task(call.listen())]
            try:
                yield call
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_browser_offers_and_our_client_sees_and_hears(open_page: OpenPage) -> None:
    async with calling(open_page) as call:
        await call.more(pictures=30, sounds=50)
        first, last = call.pictures[0].astype(int), call.pictures[-1].astype(int)
        assert last.shape == (240, 320, 3)
        # Chromium's test camera: a dark disc that turns on green.
        red, green, blue = last.reshape(-1, 3).mean(axis=0)
        assert green > red + 50
        assert green > blue + 50
        assert np.abs(last - first).mean() > 0.5
        # Half a second of speech at -30 dBFS: the microphone plays a question.
        await call.until(lambda: call.energy > 0.025)
        assert {each.kind for each in call.client.track_counters().values()} == set(MediaKind)
    assert await call.page.peek("peers.at(-1).connectionState") == "closed"
    assert await call.page.peek("peers.length") == 1


async def test_the_browser_offers_again(open_page: OpenPage) -> None:
    silent = [MediaLine(kind=MediaKind.VIDEO, direction=Direction.INACTIVE), SEND_MEDIA[1]]
    async with calling(open_page) as call:
        await call.more()
        await call.server.negotiate(*silent)
        directions = "peers[0].getTransceivers().map((each) => each.currentDirection)"
        assert await call.page.peek(directions) == ["inactive", "sendonly"]
        await call.more(pictures=0, sounds=25)
        await call.server.negotiate(*SEND_MEDIA)
        assert await call.page.peek(directions) == ["sendonly", "sendonly"]
        await call.more()
        assert call.codecs[-1] == "VP8"
        preferring = MediaLine(
            kind=MediaKind.VIDEO, direction=Direction.SENDONLY, codecs=("H264", "VP8")
        )
        await call.server.negotiate(preferring, SEND_MEDIA[1])
        await call.until(lambda: call.codecs[-1] == "H264")
        await call.more()
        assert await call.page.peek("peers.length") == 1


async def test_our_client_offers_to_the_browser(open_page: OpenPage) -> None:
    receive = [
        MediaLine(kind=MediaKind.VIDEO, codecs=("H264", "VP8")),
        MediaLine(kind=MediaKind.AUDIO),
    ]
    async with calling(open_page) as call:
        await call.more()
        await call.client.negotiate(
            MediaLine(kind=MediaKind.VIDEO, direction=Direction.INACTIVE), receive[1]
        )
        directions = "peers[0].getTransceivers().map((each) => each.currentDirection)"
        assert await call.page.peek(directions) == ["inactive", "sendonly"]
        await call.client.negotiate(*receive)
        assert await call.page.peek(directions) == ["sendonly", "sendonly"]
        await call.until(lambda: call.codecs[-1] == "H264")
        await call.more()
        # And once more the other way, over what our offer left behind.
        await call.server.negotiate(*SEND_MEDIA)
        await call.more()
        assert await call.page.peek("peers.length") == 1


async def test_both_offer_at_once(open_page: OpenPage) -> None:
    receive = [MediaLine(kind=MediaKind.VIDEO), MediaLine(kind=MediaKind.AUDIO)]
    async with calling(open_page) as call:
        await call.more()
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as both:
            both.create_task(call.server.negotiate(*SEND_MEDIA))
            both.create_task(call.client.negotiate(*receive))
        await call.more()
        assert await call.page.peek("peers.length") == 1


async def test_the_browser_restarts_ice(open_page: OpenPage) -> None:
    async with calling(open_page) as call:
        await call.more()
        await call.page.peek("peers[0].restartIce()")
        await call.server.negotiate(*SEND_MEDIA)
        # aiortc cannot restart ICE: our client starts anew, and so does the server that sees it.
        assert await call.page.peek("peers.map((each) => each.connectionState)[0]") == "closed"
        await call.more()
        assert await call.page.peek("peers.length") == 2


async def test_the_path_is_cut_and_healed(open_page: OpenPage) -> None:
    server, client = Watch(), Watch()

    def is_state(event: Event, state: MediaState) -> bool:
        return isinstance(event, MediaStateChanged) and event.state is state

    async with (
        udp_wire() as wire,
        through(wire.wrap) as opener,
        calling(open_page, transport=opener, seen_by_server=server, seen_by_client=client) as call,
    ):
        await call.more()
        wire.cut()
        # Ours looks at packets and says so after 2 s, Chromium at ICE checks, after 5 to 7 s.
        await client.until(lambda event: isinstance(event, MediaStalled))
        await server.until(lambda event: is_state(event, MediaState.DISCONNECTED))
        wire.heal()
        healed = len(server.events)
        await server.until(lambda event: is_state(event, MediaState.CONNECTED), since=healed)
        await call.more()
        await client.until(lambda event: isinstance(event, MediaResumed))
        assert await call.page.peek("peers.length") == 1
