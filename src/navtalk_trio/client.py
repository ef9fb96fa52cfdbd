"""The client: ``connect()`` returns a session that is usable, or raises."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from navtalk_proto.config import ClientConfig
from navtalk_proto.events import Event
from navtalk_proto.exception_groups import raise_unchanged
from navtalk_proto.history import History, Past
from navtalk_proto.media import MediaLine
from navtalk_proto.pump import Observer
from navtalk_proto.reconnect import ReconnectPolicy
from navtalk_proto.redacting_transport import RedactingTransport
from navtalk_proto.session import PACE_MS, SESSION_ENDED, ClientCalls
from navtalk_proto.succession import reconnect_policy
from navtalk_proto.tools.schema import ToolLike, ToolSet
from navtalk_proto.transport import Transport
from navtalk_proto.voice_line import VoiceLine
from navtalk_proto.wire.avatar_lookup import AvatarDetail
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.image import IMAGE_QUALITY, IMAGE_SIDE
from navtalk_proto.wire.messages import InputImage, UserMessage
from navtalk_trio.driver import Driver, EngineFactory, bare
from navtalk_trio.session import MediaCalls
from navtalk_trio.succession import Opener, Succession, TransportOpener
from navtalk_trio.tool_runner import ToolRunner
from navtalk_trio.trace_file import trace_file, wanted_trace

if TYPE_CHECKING:
    from navtalk_proto.tracing.output import TraceOptions
    from navtalk_trio.engine_thread import ImageSource

__all__ = ["ClientSession", "TransportOpener", "connect"]


class ClientSession(MediaCalls, ClientCalls):
    """A usable session with a digital human. Made by :func:`connect`."""

    async def send_image(
        self,
        image: ImageSource,
        *,
        reply: bool = False,
        quality: int = IMAGE_QUALITY,
        max_side: int = IMAGE_SIDE,
    ) -> None:
        """Show the human a picture: a path, the bytes of a file, a PyAV frame or a numpy array.

        Sent as a JPEG of at most 512 KiB and `max_side` pixels on the longer side, encoded in a
        thread; a JPEG file that is that already is sent as it is. `reply` asks for an answer now;
        otherwise the next answer may be about it. Waits until the session is READY. Providers other
        than OpenAI's do not look at pictures (protocol.md 5.14).

        Raises what :func:`~navtalk_asyncio.media.image.encode_jpeg` raises (ImageError for what is
        no picture), and SessionClosedError when the session ends first. Needs Pillow:
        ``pip install 'navtalk[image]'``.
        """
        from navtalk_trio.engine_thread import image_url

        content = await trio.to_thread.run_sync(image_url, image, quality, max_side)
        await self._send_when_ready(InputImage(content=content, reply=reply))

    @asynccontextmanager
    async def voice_line(self) -> AsyncGenerator[VoiceLine]:
        """A voice that is always there: paced, and silence while nothing is written to it.

        ``async with session.voice_line() as line: await line.write(pcm)``. For audioBack mode,
        where the human's video stalls without audio, and for a microphone that is switched off and
        on. Leaving the block waits until all is said; an exception, or the session's end, does not.
        Raises RuntimeError while another line of this session is open.
        """
        failure: BaseException | None = None
        with self._voice_line() as line:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(line.run)
                    yield line
                    await line.leave()
                    nursery.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                failure = bare(group)
        if failure is not None:
            raise_unchanged(failure)

    async def _decode(self, path: str | Path) -> AsyncGenerator[bytes]:
        from navtalk_trio.engine_thread import iter_pcm

        pieces = await trio.to_thread.run_sync(iter_pcm, path, PACE_MS)
        try:
            while (piece := await trio.to_thread.run_sync(next, pieces, None)) is not None:
                yield piece
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
    tools: Iterable[ToolLike] = (),
    history: History | Sequence[UserMessage | str] = (),
    avatar: AvatarDetail | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109 - the deadline names what it waited for
    ssl: ssl_module.SSLContext | None = None,
    proxy: str | Literal[True] | None = True,
    config: ClientConfig | None = None,
    engine: EngineFactory | None = None,
    transport: TransportOpener | None = None,
    reconnect: bool | ReconnectPolicy | None = None,
    observe: Callable[[Event], None] | None = None,
    trace: str | Path | TraceOptions | None = None,
) -> AsyncGenerator[ClientSession]:
    """Open a session: ``async with connect(Endpoint(...)) as session``.

    The session that is handed out is usable: the socket is open, the server is configured and,
    unless ``media=False``, video or audio packets arrive. Otherwise one of these is raised, within
    `timeout` seconds and those of the closing handshake (``config.close_timeout`` at most, where
    the server is mute), and nothing is left behind:

    - RefusedError, one subclass per reason: the server said no;
    - ConnectTimeoutError: `waiting_for` names the step that did not happen;
    - MediaError: no media connection, with the candidate pairs tried;
    - ConnectFailedError: the transport could not be opened, or ended early; of it
      HandshakeRefusedError and ProxyRefusedError, where a gateway or a proxy refused us.

    `voice`, `prompt` and `tools` configure the human. A tool is a function with type hints, a
    ``Tool``, or a JSON schema in OpenAI's function format. Functions are run when the model calls
    them, coroutine functions as tasks of the session and others in threads, and each call is
    answered once; calls of a mere schema are FunctionCall events, for ``session.answer()``. A
    function that cannot be a tool raises ToolError, before anything is opened. `history` is
    what was said before: a History, which this session continues and whose user's turns are
    replayed, or texts and messages of the user. `avatar` is what ``resolve_avatar()`` found: the
    session is opened to that very one, and what its provider is known not to take raises
    UnsupportedByProviderError, here and when it is sent. `config` sets everything else; the named
    arguments win over it. `engine` and `transport` replace aiortc and trio-websocket. `observe` is
    called with every event as it happens, also before the session is usable; it must be quick. What
    it raises ends the session, and it is not called again then.

    `reconnect` True, or a ReconnectPolicy, opens a session that is lost again, in place of the old
    one and behind the same `session`: docs/reliability.md says what is kept.

    `trace` writes what happens to a file, line by line, from the first connection on: a path, or
    TraceOptions; licences and credentials are not in it. Without it the environment variable
    NAVTALK_TRACE may name one. TraceError is raised where it cannot be written: docs/tracing.md.

    Leaving the block closes the session. An exception of the body, or of exactly one of the
    driver's tasks, leaves bare; several unrelated ones leave as an ExceptionGroup. What the body
    raises because the driver failed (SessionClosedError, ConnectError) counts as the same.
    """
    policy = reconnect_policy(reconnect)
    tool_set = ToolSet.of(tools)
    config = (config or ClientConfig()).configured(
        media=media, voice=voice, prompt=prompt, tools=tool_set.announced, mode=endpoint.mode
    )
    past = Past.of(history, default=config.history, limits=config.limits)
    config = attrs.evolve(config, history=past.messages)
    if avatar is not None:
        endpoint = avatar.at(endpoint)
        config = attrs.evolve(config, provider=avatar.capabilities)
    make_engine = (engine or _thread_engine(endpoint)) if config.media else None
    options = await wanted_trace(trace)
    secrets = (endpoint.license,)
    async with AsyncExitStack() as stack:
        recorder = None
        if options is not None:
            recorder = await stack.enter_async_context(trace_file(options, secrets))
        failure: BaseException | None = None
        told = Observer()
        carrier: Driver | Succession | None = None
        try:
            async with trio.open_nursery() as nursery:
                open_transport = transport or _websocket_opener(nursery, config, ssl, proxy)
                opener = Opener(endpoint, open_transport, make_engine, timeout=timeout)
                if policy is None:
                    driver, opening = await opener.open(config, observe=told)
                    carrier = driver
                    told.add(opening.observe)
                else:
                    again = Succession(
                        opener, policy, config=config, history=past.history, observe=told
                    )
                    driver, opening = await again.open()
                    carrier = again
                carrier.secrets = secrets
                if recorder is not None:
                    carrier.begin_trace(recorder)
                try:
                    session = ClientSession(carrier)
                    session.continue_history(past.history)
                    runner = ToolRunner(nursery, carrier, tool_set, config, past.history)
                    session.use_tools(runner)
                    told.add(session.observe)
                    told.add(runner.observe)
                    if observe is not None:
                        told.add(observe)
                    await driver.start()
                except BaseException:
                    # The driver does not run yet: the socket is open, and ours to close.
                    with trio.CancelScope(shield=True):
                        await driver.aclose()
                    raise
                if isinstance(carrier, Succession):
                    nursery.start_soon(carrier.tick)
                nursery.start_soon(carrier.run)
                nursery.start_soon(runner.tick)
                try:
                    await opening.wait()
                    yield session
                finally:
                    await runner.aclose()
                    # Bounded by the core's CLOSE timer: the far end is to see a close, not a cut.
                    with trio.CancelScope(shield=True):
                        await carrier.close()
        except BaseExceptionGroup as group:
            failure = bare(group, without=SESSION_ENDED if carrier and carrier.failures else ())
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
        opened = await open_websocket(
            nursery, endpoint, max_size=config.limits.server_message, ssl=ssl, proxy=proxy
        )
        return RedactingTransport(opened, endpoint.license)

    return open_transport
