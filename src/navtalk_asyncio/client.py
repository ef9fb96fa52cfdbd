"""The client: ``connect()`` returns a session that is usable, or raises."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs

from navtalk_asyncio.driver import Driver
from navtalk_asyncio.media.interface import Engine, EngineFactory
from navtalk_asyncio.session import Session
from navtalk_asyncio.session_scope import SessionScope
from navtalk_asyncio.succession import Opener, Succession, TransportOpener
from navtalk_asyncio.tool_runner import ToolRunner
from navtalk_asyncio.trace_file import trace_file, wanted_trace
from navtalk_proto.config import ClientConfig
from navtalk_proto.engine import EngineCallbacks
from navtalk_proto.events import Event
from navtalk_proto.history import History, Past
from navtalk_proto.media import MediaLine
from navtalk_proto.pump import Observer
from navtalk_proto.reconnect import ReconnectPolicy
from navtalk_proto.redacting_transport import RedactingTransport
from navtalk_proto.session import PACE_MS, ClientCalls
from navtalk_proto.succession import reconnect_policy
from navtalk_proto.tools.schema import ToolLike, ToolSet
from navtalk_proto.transport import Transport
from navtalk_proto.voice_line import VoiceLine
from navtalk_proto.wire.avatar_lookup import AvatarDetail
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.image import IMAGE_QUALITY, IMAGE_SIDE
from navtalk_proto.wire.messages import InputImage, UserMessage

if TYPE_CHECKING:
    from navtalk_asyncio.media.image import ImageSource
    from navtalk_proto.tracing.output import TraceOptions

__all__ = ["ClientSession", "TransportOpener", "connect"]

T = TypeVar("T")


class ClientSession(Session, ClientCalls):
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

        def encode() -> str:
            from navtalk_asyncio.media.image import image_url

            return image_url(image, quality=quality, max_side=max_side)

        content = await _in_thread(encode)
        await self._send_when_ready(InputImage(content=content, reply=reply))

    @asynccontextmanager
    async def voice_line(self) -> AsyncGenerator[VoiceLine]:
        """A voice that is always there: paced, and silence while nothing is written to it.

        ``async with session.voice_line() as line: await line.write(pcm)``. For audioBack mode,
        where the human's video stalls without audio, and for a microphone that is switched off and
        on. Leaving the block waits until all is said; an exception, or the session's end, does not.
        Raises RuntimeError while another line of this session is open.
        """
        with self._voice_line() as line:
            running = asyncio.create_task(line.run())
            try:
                yield line
                await line.leave()
            finally:
                running.cancel()
                await _ended(running)
        if not running.cancelled():
            running.result()

    async def _decode(self, path: str | Path) -> AsyncGenerator[bytes]:
        def opened() -> Generator[bytes]:
            from navtalk_asyncio.media.audio_file import iter_pcm

            return iter_pcm(path, frame_ms=PACE_MS)

        pieces = await _in_thread(opened)
        try:
            while (piece := await _in_thread(partial(next, pieces, None))) is not None:
                yield piece
        finally:
            pieces.close()

    async def _sleep_until(self, when: float) -> None:
        await asyncio.sleep(when - asyncio.get_running_loop().time())


async def _in_thread(work: Callable[[], T]) -> T:
    """Run something in a thread. A thread cannot be cancelled: its end is waited for."""
    working = asyncio.create_task(asyncio.to_thread(work))
    await _ended(working)
    return working.result()


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for the end of a task; when cancelled meanwhile, raise CancelledError after it."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not task.cancelled():
            task.exception()  # Seen: nobody else will ask for it.
        raise asyncio.CancelledError


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
    engine: EngineFactory | Literal["thread"] | None = None,
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
    arguments win over it. `engine` and `transport` replace aiortc and websockets;
    ``engine="thread"`` runs aiortc on a loop of its own, for applications that may block theirs.
    `observe` is called with every event as it happens, also before the session is usable; it must
    be quick. What it raises ends the session, and it is not called again then.

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
    make_engine: EngineFactory | None = None
    if config.media:
        if engine is None or engine == "thread":
            make_engine = _aiortc_factory(endpoint, on_thread=engine == "thread")
        else:
            make_engine = engine
    opener = Opener(
        endpoint,
        transport or _websocket_opener(config, ssl, proxy),
        make_engine,
        threaded=engine == "thread",
        timeout=timeout,
    )
    told = Observer()
    carrier: Driver | Succession
    options = await wanted_trace(trace)
    secrets = (endpoint.license,)
    async with AsyncExitStack() as stack:
        recorder = None
        if options is not None:
            recorder = await stack.enter_async_context(trace_file(options, secrets))
        if policy is None:
            driver, opening = await opener.open(config, observe=told)
            carrier = driver
            told.add(opening.observe)
        else:
            carrier = Succession(opener, policy, config=config, history=past.history, observe=told)
            driver, opening = await carrier.open()
        # Whatever happens before the driver runs: the socket is open, and ours to close.
        await stack.enter_async_context(aclosing(driver))
        carrier.secrets = secrets
        if recorder is not None:
            carrier.begin_trace(recorder)
        session = ClientSession(carrier)
        session.continue_history(past.history)
        runner = ToolRunner(carrier, tool_set, config, past.history)
        session.use_tools(runner)
        told.add(session.observe)
        told.add(runner.observe)
        if observe is not None:
            told.add(observe)
        driver.start()
        async with SessionScope(carrier), runner:
            await opening.wait()
            yield session


def _aiortc_factory(endpoint: Endpoint, *, on_thread: bool) -> EngineFactory:
    from navtalk_asyncio.media import AiortcEngine
    from navtalk_asyncio.media.engine_thread import HEAD_START

    # A server on loopback is reached there for media too: the machine may have no other address,
    # and aiortc leaves 127.0.0.1 out of its candidates.
    loopback = endpoint.is_loopback
    head_start = HEAD_START if on_thread else 0.0

    def make(callbacks: EngineCallbacks) -> Engine:
        return AiortcEngine(callbacks, loopback=loopback, head_start=head_start)

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
        opened = await open_websocket(
            endpoint, max_size=config.limits.server_message, ssl=ssl, proxy=proxy
        )
        return RedactingTransport(opened, endpoint.license)

    return open_transport
