"""A browser as the media engine of a connection: the core's commands, carried out in a page.

The second engine with real media beside aiortc's. It trickles, rolls back, and describes itself as
browsers do. The page, media_engine.html, sends its camera and its microphone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final, assert_never

from playwright.async_api import Error, Page

from navtalk_asyncio.media.interface import EngineCallbacks, TrackCounters
from navtalk_proto.actions import (
    AddCandidate,
    ClosePeer,
    CreateOffer,
    MediaCommand,
    MediaResult,
    OpenPeer,
    ResetPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.media import (
    Capabilities,
    LocalCandidate,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    TrackAdded,
)
from navtalk_proto.stats import MediaStats
from navtalk_proto.wire.messages import Answer, IceCandidate, IceServer, Offer
from navtalk_proto.wire.plain_http import HttpReply, HttpRequest

__all__ = ["CAPABILITIES", "BrowserEngine", "EnginePage", "engine_page_reply"]

CAPABILITIES: Final = Capabilities(rollback=True)
"""For the configuration of a core with this engine."""

_PAGE: Final = Path(__file__).with_name("media_engine.html")
_PATH: Final = "/media_engine.html"

_ICE_STATES: Final = {
    "checking": MediaState.CHECKING,
    "connected": MediaState.ICE_CONNECTED,
    "completed": MediaState.ICE_CONNECTED,
}
_STATES: Final = {
    "connected": MediaState.CONNECTED,
    "disconnected": MediaState.DISCONNECTED,
    "failed": MediaState.FAILED,
}


def engine_page_reply(request: HttpRequest) -> HttpReply | None:
    """The page, for ``serve(http=...)``: cameras are for pages of loopback, not of files."""
    if request.target != _PATH:
        return None
    body = _PAGE.read_bytes()
    headers = (("Content-Type", "text/html"), ("Content-Length", str(len(body))))
    return HttpReply(status=200, headers=headers, body=body)


class EnginePage:
    """A page of the browser that waits for an engine's commands."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.told: Callable[[dict[str, Any]], None] = lambda told: None
        """Called with what happens in the page on its own."""

    @classmethod
    async def open(cls, open_page: Callable[[str], Any], http_url: str) -> EnginePage:
        """Open the page of a server with :func:`engine_page_reply`."""
        here = cls(await open_page(f"{http_url}{_PATH}"))
        await here._page.expose_function("tell", lambda told: here.told(told))
        return here

    async def run(self, name: str, argument: Any = None) -> Any:
        """Carry out a command. Raises playwright's Error with what the browser says of it."""
        return await self._page.evaluate(
            "([name, argument]) => commands[name](argument)", [name, argument]
        )

    async def peek(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return await self._page.evaluate(expression)


class BrowserEngine:
    """The media engine of one connection, in a page of its own while the connection lasts."""

    def __init__(self, callbacks: EngineCallbacks, page: EnginePage) -> None:
        self._callbacks = callbacks
        self._page = page
        page.told = self._tell
        self._waiting: asyncio.Queue[MediaCommand | None] = asyncio.Queue()
        self._closed = False
        self._ended = asyncio.Event()
        self._worker = asyncio.create_task(self._work())

    @property
    def capabilities(self) -> Capabilities:
        """Browsers roll back."""
        return CAPABILITIES

    def execute(self, command: MediaCommand) -> None:
        """Start a command; they run one after the other."""
        if self._closed:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._callbacks.failed, command.op, "the engine is closed")
        else:
            self._waiting.put_nowait(command)

    def frames(self, kind: MediaKind) -> AsyncIterator[Any]:
        """None: what the browser receives stays there. Ends with the media."""
        return self._no_frames()

    async def _no_frames(self) -> AsyncIterator[Any]:
        await self._ended.wait()
        return
        yield

    def counters(self) -> Mapping[str, TrackCounters]:
        """None: the browser's own are asked for with :meth:`EnginePage.peek`."""
        return {}

    def stats(self) -> MediaStats:
        return MediaStats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        pass

    async def aclose(self) -> None:
        """Close the peer connection; what waits for it fails."""
        if not self._closed:
            self._closed = True
            self._waiting.put_nowait(None)
        await asyncio.shield(self._worker)

    async def _work(self) -> None:
        while (command := await self._waiting.get()) is not None:
            if self._closed:
                self._callbacks.failed(command.op, "the engine is closed")
                continue
            try:
                result = await self._carry_out(command)
            except Error as error:
                self._callbacks.failed(command.op, error.message)
            else:
                self._callbacks.done(command.op, result)
        await self._page.run("close")
        self._page.told = lambda told: None
        self._ended.set()

    async def _carry_out(self, command: MediaCommand) -> MediaResult:
        run = self._page.run
        match command:
            case OpenPeer() | ResetPeer():
                servers = [_server(each) for each in command.ice_servers]
                await run("open", {"iceServers": servers, "policy": command.policy.value})
            case ClosePeer():
                await run("close")
            case CreateOffer():
                return Offer(sdp=await run("createOffer", {"media": _lines(command.media)}))
            case SetLocal(description=offer):
                sdp = None if offer is None else offer.sdp
                local = await run("setLocal", {"offer": sdp, "media": _lines(command.media)})
                kind = Offer if local["type"] == "offer" else Answer
                return kind(sdp=local["sdp"])
            case SetRemote(description=description):
                name = "offer" if isinstance(description, Offer) else "answer"
                await run("setRemote", {"type": name, "sdp": description.sdp})
            case AddCandidate(candidate=candidate):
                await run(
                    "addCandidate",
                    {
                        "candidate": candidate.candidate,
                        "sdpMid": candidate.sdp_mid,
                        "sdpMLineIndex": candidate.sdp_m_line_index,
                        "usernameFragment": candidate.username_fragment,
                    },
                )
            case _:
                assert_never(command)
        return None

    def _tell(self, told: dict[str, Any]) -> None:
        event = self._callbacks.event
        match told:
            case {"candidate": found}:
                event(LocalCandidate(candidate=_candidate(found)))
            case {"ice": ice} if ice in _ICE_STATES:
                event(MediaStateChanged(state=_ICE_STATES[ice]))
            case {"connection": state} if state in _STATES:
                event(MediaStateChanged(state=_STATES[state], reason=f"the browser says {state}"))
            case {"track": {"id": track, "kind": kind, "mid": mid, "stream": stream}}:
                event(TrackAdded(track_id=track, kind=MediaKind(kind), mid=mid, stream_id=stream))
            case {"started": {"id": track, "kind": kind}}:
                event(MediaStarted(track_id=track, kind=MediaKind(kind)))


def _candidate(found: dict[str, Any] | None) -> IceCandidate:
    if found is None:
        return IceCandidate(candidate="")
    return IceCandidate(
        candidate=found["candidate"],
        sdp_mid=found["sdpMid"],
        sdp_m_line_index=found["sdpMLineIndex"],
        username_fragment=found["usernameFragment"],
    )


def _server(server: IceServer) -> dict[str, Any]:
    credential = None if server.credential is None else server.credential.reveal()
    return {"urls": list(server.urls), "username": server.username, "credential": credential}


def _lines(media: tuple[MediaLine, ...]) -> list[dict[str, Any]]:
    return [
        {
            "kind": line.kind.value,
            "direction": line.direction.value,
            "codecs": list(line.codecs),
        }
        for line in media
    ]
