"""Two engines on one loop, driven by commands, and encoded clips for them to send."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from itertools import count
from typing import Any, TypeVar

import av
import pytest
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from navtalk_asyncio.media.aiortc_engine import AiortcEngine
from navtalk_asyncio.media.interface import EngineCallbacks
from navtalk_proto.actions import (
    CreateOffer,
    MediaCommand,
    OpenPeer,
    ResetPeer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.ice import IceServerRule
from navtalk_proto.media import (
    Direction,
    IcePolicy,
    MediaEvent,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    OpId,
)
from navtalk_proto.wire.messages import Answer, IceServer, Offer

PATIENCE = 20.0
"""Seconds until a wait is given up; only a failing test gets near it."""

SEND = (
    MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY),
    MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDONLY),
)
RECEIVE = (MediaLine(kind=MediaKind.VIDEO), MediaLine(kind=MediaKind.AUDIO))

EventT = TypeVar("EventT")


class CommandFailedError(Exception):
    pass


class Driver:
    """An engine, its events in order, and a future for each of its commands."""

    def __init__(self, **options: Any) -> None:
        self.events: list[MediaEvent] = []
        self.completions: list[OpId] = []
        self._results: dict[OpId, asyncio.Future[Any]] = {}
        self._changed = asyncio.Event()
        self._ops = count(1)
        self.engine = AiortcEngine(
            EngineCallbacks(done=self._done, failed=self._failed, event=self._event),
            **{"loopback": True, **options},
        )

    def _done(self, op: OpId, result: Any) -> None:
        self.completions.append(op)
        self._results[op].set_result(result)

    def _failed(self, op: OpId, reason: str) -> None:
        self.completions.append(op)
        self._results[op].set_exception(CommandFailedError(reason))

    def _event(self, event: MediaEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def start(self, kind: type[MediaCommand], **fields: Any) -> asyncio.Future[Any]:
        """Give the engine a command; a second completion of it is an InvalidStateError."""
        op = OpId(next(self._ops))
        self._results[op] = asyncio.get_running_loop().create_future()
        self.engine.execute(kind(op=op, **fields))
        return self._results[op]

    async def do(self, kind: type[MediaCommand], **fields: Any) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await self.start(kind, **fields)

    async def open(
        self,
        media: tuple[MediaLine, ...] = (),
        *,
        servers: tuple[IceServer, ...] = (),
        policy: IcePolicy = IcePolicy.ALL,
        allow_ice_server: IceServerRule | None = None,
    ) -> None:
        await self.do(
            OpenPeer,
            ice_servers=servers,
            policy=policy,
            media=media,
            allow_ice_server=allow_ice_server,
        )

    async def reset(self, media: tuple[MediaLine, ...] = ()) -> None:
        await self.do(ResetPeer, ice_servers=(), policy=IcePolicy.ALL, media=media)

    async def event(
        self, kind: type[EventT], accept: Callable[[EventT], bool] = lambda _event: True
    ) -> EventT:
        """The first event of a class that is accepted, past or to come."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and accept(event):
                        return event
                self._changed.clear()
                await self._changed.wait()

    async def state(self, state: MediaState) -> MediaStateChanged:
        return await self.event(MediaStateChanged, lambda event: event.state is state)

    def states(self) -> list[MediaState]:
        return [event.state for event in self.events if isinstance(event, MediaStateChanged)]


async def connect(offerer: Driver, answerer: Driver) -> tuple[Offer, Answer]:
    """One offer and answer between open peer connections."""
    offer = await offerer.do(SetLocal)
    await answerer.do(SetRemote, description=offer)
    answer = await answerer.do(SetLocal)
    await offerer.do(SetRemote, description=answer)
    return offer, answer


async def renegotiate(offerer: Driver, answerer: Driver, media: tuple[MediaLine, ...]) -> None:
    """An offer of `media` on a running connection, set only when the answer is there."""
    offer = await offerer.do(CreateOffer, media=media)
    await answerer.do(SetRemote, description=offer)
    answer = await answerer.do(SetLocal)
    await offerer.do(SetLocal, description=offer)
    await offerer.do(SetRemote, description=answer)


class Clip:
    """Encoded frames of a known length, and which of them are keyframes."""

    def __init__(
        self, kind: str, frames: Sequence[bytes], keyframes: Sequence[bool], ticks: int, rate: int
    ) -> None:
        self.kind = kind
        self.frames = list(frames)
        self.keyframes = list(keyframes)
        self.ticks = ticks
        self.rate = rate
        self.seconds = ticks / rate


class ClipTrack(MediaStreamTrack):
    """Sends a clip in real time, again and again, as encoded packets."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.kind = clip.kind
        self.clip = clip
        self.sent: list[bytes] = []
        self._start: float | None = None

    async def recv(self) -> av.Packet:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._start is None:
            self._start = loop.time()
        number = len(self.sent)
        await asyncio.sleep(self._start + number * self.clip.seconds - loop.time())
        data = self.clip.frames[number % len(self.clip.frames)]
        packet = av.Packet(data)
        packet.pts = number * self.clip.ticks
        packet.time_base = Fraction(1, self.clip.rate)
        self.sent.append(data)
        return packet


def encode_video(codec: str, number: int = 60) -> Clip:
    """`number` different pictures of 176x144 at 30 per second, a keyframe every tenth."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 176, 144, "yuv420p"
    context.time_base = Fraction(1, 30)
    context.framerate = Fraction(30, 1)
    context.gop_size = 10
    context.bit_rate = 500_000
    if codec == "libx264":
        context.profile = "Baseline"
        context.options = {"tune": "zerolatency", "x264-params": "repeat-headers=1:scenecut=0"}
    else:
        context.options = {"deadline": "realtime", "lag-in-frames": "0"}
    packets = []
    for index in range(number):
        frame = av.VideoFrame(176, 144, "yuv420p")
        for plane, value in zip(frame.planes, (index * 4 % 256, 90, 160), strict=True):
            row = bytes((value + column) % 256 for column in range(plane.line_size))
            plane.update((row * (plane.height + 1))[: plane.buffer_size])
        frame.pts, frame.time_base = index, Fraction(1, 30)
        packets += context.encode(frame)
    packets += context.encode(None)
    frames = [bytes(packet) for packet in packets]
    keyframes = [index % 10 == 0 for index in range(number)]
    return Clip("video", frames, keyframes, 3000, 90_000)


def encode_audio(number: int = 100) -> Clip:
    """`number` different Opus packets of 20 ms."""
    context: Any = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.format, context.layout = 48_000, "s16", "stereo"
    context.time_base = Fraction(1, 48_000)
    packets = []
    for index in range(number + 1):
        frame = av.AudioFrame(format="s16", layout="stereo", samples=960)
        samples = (int(8000 * ((sample * (4 + index % 7)) % 96 - 48) / 48) for sample in range(960))
        frame.planes[0].update(
            b"".join(sample.to_bytes(2, "little", signed=True) * 2 for sample in samples)
        )
        frame.sample_rate, frame.pts = 48_000, index * 960
        frame.time_base = Fraction(1, 48_000)
        packets += context.encode(frame)
    frames = [bytes(packet) for packet in packets][:number]
    return Clip("audio", frames, [True] * number, 960, 48_000)


class Clips:
    """What the tests send."""

    def __init__(self) -> None:
        self.vp8, self.h264, self.opus = (
            encode_video("libvpx"),
            encode_video("libx264"),
            encode_audio(),
        )


class Silent(asyncio.DatagramProtocol):
    """A server that takes what it is sent and never answers."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.port = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked.put_nowait((data, addr))


@asynccontextmanager
async def silent_server() -> AsyncIterator[Silent]:
    """A silent UDP server on loopback."""
    loop = asyncio.get_running_loop()
    transport, silent = await loop.create_datagram_endpoint(Silent, local_addr=("127.0.0.1", 0))
    silent.port = transport.get_extra_info("sockname")[1]
    try:
        yield silent
    finally:
        transport.close()


class Media:
    """What tests of this folder use; importing a conftest is not possible."""

    clip = Clip
    track = ClipTrack
    failed = CommandFailedError
    send = SEND
    receive = RECEIVE
    connect = staticmethod(connect)
    silent_server = staticmethod(silent_server)
    renegotiate = staticmethod(renegotiate)

    def __init__(self, clips: Clips) -> None:
        self.vp8, self.h264, self.opus = clips.vp8, clips.h264, clips.opus
        self.drivers: list[Driver] = []

    def driver(self, **options: Any) -> Driver:
        """An engine and its driver, closed after the test."""
        driver = Driver(**options)
        self.drivers.append(driver)
        return driver

    def server(self, **options: Any) -> Driver:
        """An engine that sends VP8 and Opus clips."""
        return self.driver(tracks=[ClipTrack(self.vp8), ClipTrack(self.opus)], **options)

    async def call(self) -> tuple[Driver, Driver]:
        """A server that sends and a client that receives, connected, packets of both flowing."""
        server, client = self.server(), self.driver()
        await server.open(SEND)
        await client.open(RECEIVE)
        await connect(server, client)
        for kind in MediaKind:
            await client.event(MediaStarted, lambda event, kind=kind: event.kind is kind)
        return server, client


@pytest.fixture(scope="session")
def clips() -> Clips:
    return Clips()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def media(clips: Clips) -> AsyncIterator[Media]:
    """Fails a test that leaves a task or a thread behind once its engines are closed."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    media = Media(clips)
    yield media
    for driver in media.drivers:
        await driver.engine.aclose()
    left = {task for task in asyncio.all_tasks() - tasks if "TestRunner" not in repr(task)}
    assert not left
    started = set(threading.enumerate()) - threads
    # The loop's own executor (name look-ups, encoders) is not the engine's to end.
    assert not {thread for thread in started if not thread.name.startswith("asyncio_")}
