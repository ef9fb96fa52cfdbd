"""The client: ``connect()`` returns a session that is usable, or raises."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import attrs

from navtalk_asyncio.driver import Driver
from navtalk_asyncio.media.interface import Engine, EngineFactory
from navtalk_asyncio.session import Session
from navtalk_asyncio.session_scope import SessionScope
from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.engine import EngineCallbacks
from navtalk_proto.errors import ConnectTimeoutError
from navtalk_proto.events import Event
from navtalk_proto.media import MediaLine
from navtalk_proto.opening import Opening
from navtalk_proto.pump import Observer
from navtalk_proto.roles import Role
from navtalk_proto.session import PACE_MS, TRAILING_SILENCE, ClientCalls
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import JsonObject, UserMessage

__all__ = ["ClientSession", "TransportOpener", "connect"]

TransportOpener: TypeAlias = Callable[[Endpoint], Awaitable[Transport]]
"""Opens a WebSocket to an endpoint; raises ConnectFailedError."""


class ClientSession(Session, ClientCalls):
    """A usable session with a digital human. Made by :func:`connect`."""

    async def say_file(
        self, path: str | Path, *, trailing_silence: float = TRAILING_SILENCE
    ) -> float:
        """Speak a recording, in real time; returns its length in seconds, without the silence.

        Any file that PyAV reads, resampled to 24 kHz mono. `trailing_silence` seconds follow, so
        that the server hears the end of the turn.

        Raises ValueError for a silence that is negative or not finite, before anything is opened;
        OSError where the file cannot be read, AudioFileError where it is no audio or broken, and
        SessionClosedError when the session ends meanwhile: what was decoded until then was said.
        """
        self._check_silence(trailing_silence)
        from navtalk_asyncio.media.audio_file import iter_pcm

        pieces = iter_pcm(path, frame_ms=PACE_MS)
        start, sent = asyncio.get_running_loop().time(), 0
        decoding: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                decoding = asyncio.create_task(asyncio.to_thread(next, pieces, None))
                piece = await asyncio.shield(decoding)
                if piece is None:
                    return await self._say_silence(start, sent, trailing_silence)
                sent = await self._say_piece(start, sent, piece)
        finally:
            # A thread cannot be cancelled: the file is closed when it has decoded its piece.
            if decoding is not None:
                await asyncio.wait([decoding])
            pieces.close()

    async def _sleep_until(self, when: float) -> None:
        await asyncio.sleep(when - asyncio.get_running_loop().time())


@asynccontextmanager
async def connect(
    endpoint: Endpoint,
    *,
    media: bool | Sequence[MediaLine] = True,
    voice: str | None = None,
    prompt: str | None = None,
    tools: Sequence[JsonObject] = (),
    history: Sequence[UserMessage] = (),
    timeout: float = 30.0,  # noqa: ASYNC109 - the deadline names what it waited for
    ssl: ssl_module.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
    config: ClientConfig | None = None,
    engine: EngineFactory | Literal["thread"] | None = None,
    transport: TransportOpener | None = None,
    observe: Callable[[Event], None] | None = None,
) -> AsyncGenerator[ClientSession]:
    """Open a session: ``async with connect(Endpoint(...)) as session``.

    The session that is handed out is usable: the socket is open, the server is configured and,
    unless ``media=False``, video or audio packets arrive. Otherwise one of these is raised, within
    `timeout` seconds and those of the closing handshake (``config.close_timeout`` at most, where
    the server is mute), and nothing is left behind:

    - RefusedError, one subclass per reason: the server said no;
    - ConnectTimeoutError: `waiting_for` names the step that did not happen;
    - MediaError: no media connection, with the candidate pairs tried;
    - ConnectFailedError: the transport could not be opened, or ended early.

    `voice`, `prompt` and `tools` (OpenAI function format) configure the human; `history` are
    earlier user messages, replayed. `config` sets everything else; the named arguments win over
    it. `engine` and `transport` replace aiortc and websockets; ``engine="thread"`` runs aiortc on a
    loop of its own, for applications that may block theirs. `observe` is called with every
    event as it happens, also before the session is usable; it must be quick. What it raises ends
    the session, and it is not called again then.

    Leaving the block closes the session. An exception of the body, or of exactly one of the
    driver's tasks, leaves bare; several unrelated ones leave as an ExceptionGroup. What the body
    raises because the driver failed (SessionClosedError, ConnectError) counts as the same.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    config = (config or ClientConfig()).configured(
        media=media, voice=voice, prompt=prompt, tools=tools, history=history
    )
    threaded = engine == "thread"
    make_engine: EngineFactory | None = None
    if config.media:
        make_engine = _aiortc_factory(endpoint) if engine is None or engine == "thread" else engine
    open_transport = transport or _websocket_opener(config, ssl, proxy)
    limit = asyncio.timeout_at(deadline)
    try:
        async with limit:
            opened = await open_transport(endpoint)
    except TimeoutError:
        if not limit.expired():
            raise
        raise ConnectTimeoutError("the WebSocket handshake", timeout) from None
    # Whatever happens before the driver runs: the socket is open, and ours to close.
    async with aclosing(opened):
        if threaded and make_engine is not None:
            from navtalk_asyncio.thread_engine import ThreadEngine

            make_engine = await ThreadEngine.factory(make_engine)
        remaining = max(deadline - loop.time(), 0.001)
        config = attrs.evolve(config, connect_timeout=remaining)
        opening = Opening(asyncio.Event, timeout=timeout, armed=remaining)
        told = Observer(opening.observe)
        core = Connection(Role.CLIENT, config, now=loop.time())
        driver = Driver(core, opened, make_engine, observe=told)
        session = ClientSession(driver)
        told.add(session.observe)
        if observe is not None:
            told.add(observe)
        driver.start()
        async with SessionScope(driver):
            await opening.wait()
            yield session


def _aiortc_factory(endpoint: Endpoint) -> EngineFactory:
    from navtalk_asyncio.media import AiortcEngine

    # A server on loopback is reached there for media too: the machine may have no other address,
    # and aiortc leaves 127.0.0.1 out of its candidates.
    loopback = endpoint.is_loopback

    def make(callbacks: EngineCallbacks) -> Engine:
        return AiortcEngine(callbacks, loopback=loopback)

    return make


def _websocket_opener(
    config: ClientConfig, ssl: ssl_module.SSLContext | None, proxy: str | Literal[True] | None
) -> TransportOpener:
    try:
        from navtalk_asyncio.websocket import open_websocket
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise ImportError(
            f"{missing} is not installed; pip install 'navtalk[asyncio]'", name=missing
        ) from None

    async def open_transport(endpoint: Endpoint) -> Transport:
        return await open_websocket(
            endpoint, max_size=config.limits.server_message, ssl=ssl, proxy=proxy
        )

    return open_transport
