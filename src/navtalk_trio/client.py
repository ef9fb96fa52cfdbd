"""The client: ``connect()`` returns a session that is usable, or raises."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import attrs
import trio

from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import ConnectTimeoutError
from navtalk_proto.events import Event
from navtalk_proto.exception_groups import raise_unchanged
from navtalk_proto.media import MediaLine
from navtalk_proto.opening import Opening
from navtalk_proto.pump import Observer
from navtalk_proto.roles import Role
from navtalk_proto.session import PACE_MS, SESSION_ENDED, TRAILING_SILENCE, ClientCalls
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import JsonObject, UserMessage
from navtalk_trio.driver import Driver, EngineFactory, bare
from navtalk_trio.flag import Flag
from navtalk_trio.session import MediaCalls

__all__ = ["ClientSession", "TransportOpener", "connect"]

TransportOpener: TypeAlias = Callable[[Endpoint], Awaitable[Transport]]
"""Opens a WebSocket to an endpoint; raises ConnectFailedError."""


class ClientSession(MediaCalls, ClientCalls):
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
        from navtalk_trio.engine_thread import iter_pcm

        pieces = await trio.to_thread.run_sync(iter_pcm, path, PACE_MS)
        try:
            start, sent = trio.current_time(), 0
            while (piece := await trio.to_thread.run_sync(next, pieces, None)) is not None:
                sent = await self._say_piece(start, sent, piece)
            return await self._say_silence(start, sent, trailing_silence)
        finally:
            # A decoder thread is not abandoned when we are cancelled, so nobody uses it now.
            pieces.close()

    async def _sleep_until(self, when: float) -> None:
        await trio.sleep_until(when)


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
    engine: EngineFactory | None = None,
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
    it. `engine` and `transport` replace aiortc and trio-websocket. `observe` is called with every
    event as it happens, also before the session is usable; it must be quick. What it raises ends
    the session, and it is not called again then.

    Leaving the block closes the session. An exception of the body, or of exactly one of the
    driver's tasks, leaves bare; several unrelated ones leave as an ExceptionGroup. What the body
    raises because the driver failed (SessionClosedError, ConnectError) counts as the same.
    """
    deadline = trio.current_time() + timeout
    config = (config or ClientConfig()).configured(
        media=media, voice=voice, prompt=prompt, tools=tools, history=history
    )
    make_engine = (engine or _thread_engine(endpoint)) if config.media else None
    failure: BaseException | None = None
    driver: Driver | None = None
    try:
        async with trio.open_nursery() as nursery:
            open_transport = transport or _websocket_opener(nursery, config, ssl, proxy)
            with trio.move_on_at(deadline) as opening_scope:
                opened = await open_transport(endpoint)
            if opening_scope.cancelled_caught:
                raise ConnectTimeoutError("the WebSocket handshake", timeout)
            remaining = max(deadline - trio.current_time(), 0.001)
            config = attrs.evolve(config, connect_timeout=remaining)
            opening = Opening(Flag, timeout=timeout, armed=remaining)
            told = Observer(opening.observe)
            core = Connection(Role.CLIENT, config, now=trio.current_time())
            try:
                driver = Driver(core, opened, make_engine, observe=told)
                session = ClientSession(driver)
                told.add(session.observe)
                if observe is not None:
                    told.add(observe)
                await driver.start()
            except BaseException:
                # The driver does not run yet: the socket is open, and ours to close.
                with trio.CancelScope(shield=True):
                    await opened.aclose()
                raise
            nursery.start_soon(driver.run)
            try:
                await opening.wait()
                yield session
            finally:
                # Bounded by the core's CLOSE timer: the far end is to see a close, not a cut.
                with trio.CancelScope(shield=True):
                    await driver.close()
    except BaseExceptionGroup as group:
        failure = bare(group, without=SESSION_ENDED if driver and driver.failures else ())
    if failure is not None:
        raise_unchanged(failure)


def _thread_engine(endpoint: Endpoint) -> EngineFactory:
    from navtalk_trio.engine_thread import ThreadEngine, aiortc_engine

    # A server on loopback is reached there for media too: the machine may have no other address,
    # and aiortc leaves 127.0.0.1 out of its candidates.
    make = aiortc_engine(loopback=endpoint.is_loopback)
    return lambda callbacks: ThreadEngine(callbacks, make)


def _websocket_opener(
    nursery: trio.Nursery,
    config: ClientConfig,
    ssl: ssl_module.SSLContext | None,
    proxy: str | Literal[True] | None,
) -> TransportOpener:
    from navtalk_trio.websocket import open_websocket

    async def open_transport(endpoint: Endpoint) -> Transport:
        return await open_websocket(
            nursery, endpoint, max_size=config.limits.server_message, ssl=ssl, proxy=proxy
        )

    return open_transport
