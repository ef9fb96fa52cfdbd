"""A NavTalk server that sends a prepared clip: the far end of measurements.

Run: ``python benchmarks/sender.py --port 0``. Needs ``navtalk[asyncio]`` and numpy. It prints one
JSON line (`url`, `codec`, `fps`, `pictures`, `video_kbps`, `audio_kbps`) and serves until its
standard input is closed. Benchmarks start it with :func:`running_sender`. The sending peer is our
own server role; with ``--stock`` it is aiortc without any patch (`stock_sender.py`), optionally
behind a bad network. ``--live`` codes while it sends, so that a keyframe that is asked for is sent.
``--silent-stun`` names a STUN server on loopback that never answers.

The clip is encoded once, before the first session, and sent as it is, so that a session costs 5 to
6 % of a core here (benchmarks/cpu.py). Every session starts at its first picture, a keyframe, and
loops; there is a keyframe every two seconds. The sound is 48 kHz Opus in packets of 20 ms; what it
is made of says how far into it each piece is (`chirp.py`).

Every picture carries its number in the clip, 16 bits, in its luma: the picture is 16 squares wide,
the topmost row of squares holds the bits, the highest at the left (white 1, black 0), and the row
below holds their inverse. :func:`read_number` reads it from what a coder made of it.

``GET /sent?session=ID`` on the same port answers with the CLOCK_MONOTONIC times at which the
session's pictures were handed to the RTP sender, in order and from `first` on, with those of its
sounds, and with what the network did. That clock is one for all processes of a host: the latency
of a picture is the time of its arrival minus the time in this table. Numbers repeat when the clip
does; a picture that is less than one clip late is still known by the newest sending before its
arrival (:class:`Sent`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import av
import numpy as np
from aiortc import MediaStreamTrack
from attrs import define, field, frozen
from chirp import chirp
from stock_sender import Network, Sending, StockSender

from navtalk_asyncio import HttpReply, HttpRequest, ServerSession, serve
from navtalk_asyncio.media import AiortcEngine
from navtalk_proto import ServerConfig
from navtalk_proto.media import Direction, MediaKind, MediaLine
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    IceServer,
    SessionCreated,
    SessionUpdated,
)

BITS: Final = 16
"""Bits of a picture's number, and squares across a picture."""

BLACK, WHITE = 16, 235
"""Luma of the squares, in video range."""

KEYFRAME_SECONDS: Final = 2

AUDIO_RATE, AUDIO_FRAME = 48_000, 960
"""Hz, and samples of one Opus packet: 20 ms."""

SENT_KEPT: Final = 65_536
"""Send times kept of a session: 36 minutes at 30 pictures a second."""

SESSIONS_KEPT: Final = 128
"""Sessions whose send times are kept, the newest."""

STOP_SECONDS: Final = 10.0
"""How long a sender may take to end its sessions; 5 s of it for clients that do not answer."""

VIDEO_CODERS: Final = {
    "vp8": (
        "libvpx",
        2_000_000,
        {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    ),
    "h264": (
        "libx264",
        1_800_000,
        {"profile": "baseline", "level": "3.1", "preset": "veryfast", "tune": "zerolatency"},
    ),
}
"""Coder, bits per second and coder options, by codec."""


@frozen(kw_only=True)
class Clip:
    """What is sent: complete encoded pictures and 20 ms Opus packets.

    Without pictures they are coded while they are sent, at whatever rate the peers agree on.
    """

    codec: str
    fps: int
    pictures: tuple[bytes, ...]
    sounds: tuple[bytes, ...]

    @property
    def video_kbps(self) -> float:
        """Mean rate of the pictures in kb/s, without headers."""
        total = sum(map(len, self.pictures))
        return total * 8 * self.fps / max(1, len(self.pictures)) / 1000

    @property
    def audio_kbps(self) -> float:
        """Mean rate of the sound in kb/s, without headers."""
        seconds = len(self.sounds) * AUDIO_FRAME / AUDIO_RATE
        return sum(map(len, self.sounds)) * 8 / seconds / 1000


def encode_clip(codec: str, width: int, height: int, fps: int, seconds: int) -> Clip:
    """Draw and encode a clip; 720p30 takes about 0.25 s a second.

    `width` is a multiple of 32. Raises RuntimeError if the coder left pictures out.
    """
    pictures = tuple(_encode_pictures(codec, width, height, fps, fps * seconds))
    if len(pictures) != fps * seconds:
        raise RuntimeError(f"{fps * seconds} pictures became {len(pictures)} packets")
    return Clip(codec=codec, fps=fps, pictures=pictures, sounds=encode_sounds(seconds))


def _encode_pictures(
    codec: str, width: int, height: int, fps: int, count: int
) -> Generator[bytes, None, None]:
    name, bit_rate, options = VIDEO_CODERS[codec]
    coder: Any = av.CodecContext.create(name, "w")
    coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
    coder.framerate, coder.time_base = Fraction(fps), Fraction(1, fps)
    coder.bit_rate, coder.gop_size = bit_rate, KEYFRAME_SECONDS * fps
    rates = {"minrate": str(bit_rate), "maxrate": str(bit_rate), "bufsize": str(bit_rate // 2)}
    coder.options = options | rates | {"keyint_min": str(coder.gop_size), "sc_threshold": "0"}
    coder.thread_count = 1
    for number, frame in enumerate(draw_pictures(width, height, count)):
        frame.pts, frame.time_base = number, coder.time_base
        yield from map(bytes, coder.encode(frame))
    yield from map(bytes, coder.encode(None))


def draw_pictures(width: int, height: int, count: int) -> Generator[av.VideoFrame, None, None]:
    """The pictures of a clip, each with its number: a drifting texture, and noise in a corner."""
    square = width // BITS
    if width % (2 * BITS) or height < 4 * square:
        raise ValueError("the width is a multiple of 32, the height at least a quarter of it")
    if count > 1 << BITS:
        raise ValueError(f"a clip has at most {1 << BITS} pictures")
    random = np.random.default_rng(1)
    # Enough to need the whole bit rate.
    coarse = random.integers(40, 200, (height // 8, (width + 2 * count) // 8 + 1), dtype=np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    planes = np.full((height * 3 // 2, width), 128, dtype=np.uint8)
    below = 2 * square
    for number in range(count):
        planes[below : texture.shape[0], :] = texture[below:, 2 * number : 2 * number + width]
        planes[height // 2 : height // 2 + 96, :128] = random.integers(0, 255, (96, 128))
        bits = np.array([number >> BITS - 1 - bit & 1 for bit in range(BITS)], dtype=bool)
        planes[:square] = np.where(bits, WHITE, BLACK).repeat(square)
        planes[square:below] = np.where(bits, BLACK, WHITE).repeat(square)
        yield av.VideoFrame.from_ndarray(planes, format="yuv420p")


def encode_sounds(seconds: int) -> tuple[bytes, ...]:
    """The sound of a clip, in Opus packets of 20 ms."""
    return tuple(_encode_sounds(seconds))


def _encode_sounds(seconds: int) -> Generator[bytes, None, None]:
    coder: Any = av.CodecContext.create("libopus", "w")
    coder.sample_rate, coder.format, coder.layout = AUDIO_RATE, "s16", "stereo"
    coder.time_base, coder.bit_rate = Fraction(1, AUDIO_RATE), 64_000
    count = seconds * AUDIO_RATE // AUDIO_FRAME
    for number in range(count):
        stereo = chirp(number * AUDIO_FRAME, AUDIO_FRAME).repeat(2).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(stereo, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = AUDIO_RATE, number * AUDIO_FRAME
        frame.time_base = coder.time_base
        yield from map(bytes, coder.encode(frame))
    # The last packet, which the coder's delay would make short, is not needed: a clip loops.


def read_number(frame: av.VideoFrame) -> int | None:
    """The number in a decoded yuv420p picture; None where it cannot be read beyond doubt."""
    plane = frame.planes[0]
    return number_of_squares(memoryview(plane).cast("B"), frame.width, plane.line_size)


def number_of_squares(luma: memoryview, width: int, line_size: int) -> int | None:
    """The number in the topmost rows of a picture's luma; see :func:`read_number`."""
    square = width // BITS
    number = 0
    for bit in range(BITS):
        at = square // 2 * line_size + bit * square + square // 2
        above, below = luma[at], luma[at + square * line_size]
        if abs(above - below) < (WHITE - BLACK) // 2:
            return None
        number = number << 1 | (above > below)
    return number


# ---- sending


class _ClipTrack(MediaStreamTrack):
    """Gives out the clip's packets when each is due, from the first call of recv() on."""

    def __init__(self, packets: Sequence[bytes], step: int, clock_rate: int) -> None:
        super().__init__()
        self._packets = packets
        self._step = step
        self._time_base = Fraction(1, clock_rate)
        self._count = 0
        self._begin: float | None = None
        self.sent: deque[float] = deque(maxlen=SENT_KEPT)

    @property
    def first(self) -> int:
        """How many send times were forgotten."""
        return self._count - len(self.sent)

    async def recv(self) -> Any:
        now = time.monotonic()
        if self._begin is None:
            self._begin = now
        ticks = self._count * self._step
        await asyncio.sleep(max(0.0, self._begin + float(ticks * self._time_base) - now))
        packet = self._next()
        packet.pts, packet.time_base = ticks, self._time_base
        self._count += 1
        self.sent.append(time.monotonic())
        return packet

    def _next(self) -> Any:
        return av.Packet(self._packets[self._count % len(self._packets)])


class ClipVideo(_ClipTrack):
    """The pictures of a clip."""

    kind = "video"

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip.pictures, 1, clip.fps)


class LiveVideo(_ClipTrack):
    """The same pictures for a coder: they come when they are due, and are told apart by number."""

    kind = "video"

    def __init__(self, frames: Sequence[av.VideoFrame], fps: int) -> None:
        super().__init__((), 1, fps)
        self._frames = frames

    def _next(self) -> Any:
        return self._frames[self._count % len(self._frames)]


class ClipAudio(_ClipTrack):
    """The sound of a clip."""

    kind = "audio"

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip.sounds, AUDIO_FRAME, AUDIO_RATE)


@define
class _Visits:
    """The sessions' handler, and the table of what was sent when."""

    clip: Clip
    live: Sequence[av.VideoFrame]
    ice_servers: Sequence[str]
    _sendings: dict[str, Sending] = field(factory=dict)

    def make_tracks(self, name: str) -> Sending:
        """The tracks of a new session, whose table is kept under this name."""
        while len(self._sendings) >= SESSIONS_KEPT:
            del self._sendings[next(iter(self._sendings))]
        video = LiveVideo(self.live, self.clip.fps) if self.live else ClipVideo(self.clip)
        self._sendings[name] = Sending(video, ClipAudio(self.clip))
        return self._sendings[name]

    async def visit(self, session: ServerSession) -> None:
        """Serve one client until it leaves."""
        engine = session.engine
        assert isinstance(engine, AiortcEngine)
        name = str(uuid.uuid4())
        tracks = self.make_tracks(name)
        engine.add_tracks(tracks.video, tracks.audio)
        servers = tuple(IceServer(urls=(url,)) for url in self.ice_servers)
        await session.send(ConnectedSuccess(session_id=name, ice_servers=servers))
        await session.send(SessionCreated())
        await session.send(SessionUpdated())
        await session.negotiate(
            MediaLine(
                kind=MediaKind.VIDEO,
                direction=Direction.SENDONLY,
                codecs=(self.clip.codec.upper(),),
            ),
            MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDONLY, codecs=("opus",)),
        )
        async for _ in session.events():
            pass

    def table(self, path: str) -> bytes | None:
        """The answer to ``GET /sent``; None for what it is not, and for an unknown session."""
        target = urlsplit(path)
        if target.path != "/sent":
            return None
        sending = self._sendings.get(parse_qs(target.query).get("session", [""])[0])
        if sending is None:
            return None
        video, audio = sending.video, sending.audio
        assert isinstance(video, _ClipTrack)
        assert isinstance(audio, _ClipTrack)
        table = {
            "pictures": len(self.live or self.clip.pictures),
            "first": video.first,
            "sent": list(video.sent),
            "sounds": list(audio.sent),
            "happened": sending.happened,
        }
        return json.dumps(table).encode()

    def http(self, request: HttpRequest) -> HttpReply | None:
        """Answer ``GET /sent`` beside our own server role."""
        body = self.table(request.target) if request.method == "GET" else None
        if body is None:
            return None
        headers = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
        return HttpReply(status=200, headers=headers, body=body)


@frozen(kw_only=True)
class Service:
    """What is served, and how."""

    clip: Clip
    live: Sequence[av.VideoFrame] = ()
    stock: bool = False
    network: Network = field(factory=Network)
    silent_stun: bool = False


async def send(service: Service, host: str, port: int, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    clip = service.clip
    with ExitStack() as stack:
        servers = [stack.enter_context(silent_stun_server())] if service.silent_stun else []
        visits = _Visits(clip, service.live, servers)

        def tell(url: str) -> None:
            ready = {
                "url": url,
                "codec": clip.codec,
                "fps": clip.fps,
                "pictures": len(service.live or clip.pictures),
                "video_kbps": round(clip.video_kbps),
                "audio_kbps": round(clip.audio_kbps),
            }
            print(json.dumps(ready), flush=True)

        if service.stock:
            stock = StockSender(
                visits.make_tracks,
                clip.codec,
                [{"urls": servers}] if servers else [],
                service.network,
                visits.table,
            )
            async with stock.serving(host, port) as url:
                tell(url)
                await stop.wait()
            return
        async with serve(
            visits.visit,
            host,
            port,
            config=ServerConfig(),
            engine=lambda callbacks: AiortcEngine(callbacks, loopback=True),
            http=visits.http,
        ) as server:
            tell(server.url)
            await stop.wait()


@contextmanager
def silent_stun_server() -> Generator[str]:
    """The URL of a STUN server that takes every question and answers none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.2", 0))
        yield f"stun:127.0.0.2:{silent.getsockname()[1]}"


async def _until_stdin_ends(service: Service, host: str, port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        # Not sys.stdin: a thread that holds its lock cannot be left behind by the interpreter.
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    await send(service, host, port, stop)


# ---- the sender as seen by a benchmark


@frozen(kw_only=True)
class Sent:
    """When the pictures of one session were sent; see ``GET /sent``."""

    pictures: int
    """How many different numbers there are."""
    first: int
    times: tuple[float, ...]
    sounds: tuple[float, ...] = ()
    """When each packet of sound was sent; of the newest ones only in a session of 20 minutes."""
    happened: tuple[tuple[str, float], ...] = ()
    """What the network did: ``cut``, ``heal``, ``drop``, and when."""

    def when(self, number: int, *, before: float) -> float | None:
        """The newest time at which the picture of that number was sent, not after `before`."""
        last = self.first + len(self.times) - 1
        sending = last - (last - number) % self.pictures
        while sending >= self.first:
            at = self.times[sending - self.first]
            if at <= before:
                return at
            sending -= self.pictures
        return None


@frozen(kw_only=True)
class Sender:
    """A running sender: where it is, and what it sends."""

    url: str
    codec: str
    fps: int
    pictures: int
    video_kbps: int
    audio_kbps: int

    def sent(self, session_id: str) -> Sent:
        """What a session was sent so far, also after its end. Blocks."""
        return fetch_sent(self.url, session_id)


def fetch_sent(url: str, session_id: str) -> Sent:
    """Ask the sender at a URL (``ws://host:port``) for a session's table. Blocks."""
    where = f"http{url.removeprefix('ws')}/sent?session={quote(session_id)}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(where, timeout=10) as answer:
        table = json.load(answer)
    return Sent(
        pictures=table["pictures"],
        first=table["first"],
        times=tuple(table["sent"]),
        sounds=tuple(table["sounds"]),
        happened=tuple((what, at) for what, at in table["happened"]),
    )


@contextmanager
def running_sender(*arguments: str) -> Generator[Sender]:
    """Run this file in a process of its own, with command-line arguments, while the block runs.

    Raises RuntimeError if it ends before it serves; what it wrote to standard error is on ours.
    """
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the sender ended before it served")
            yield Sender(**json.loads(line))
        finally:
            process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _moment_and_length(text: str) -> tuple[float, float]:
    moment, _, length = text.partition("+")
    return float(moment), float(length)


def main() -> None:
    parser = argparse.ArgumentParser(description="a NavTalk server that sends a prepared clip")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--codec", choices=sorted(VIDEO_CODERS), default="vp8")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--clip", type=int, default=20, help="length of the clip in seconds")
    parser.add_argument("--stock", action="store_true", help="the sending peer is stock aiortc")
    parser.add_argument("--live", action="store_true", help="code while sending (--stock only)")
    parser.add_argument("--silent-stun", action="store_true", help="name a server that is mute")
    network = parser.add_argument_group("the network (--stock only)")
    network.add_argument("--loss", type=float, default=0.0, help="share of RTP packets")
    network.add_argument("--jitter", type=float, default=0.0, help="seconds")
    network.add_argument("--seed", type=int, default=1, help="which packets are lost")
    network.add_argument("--cut", type=_moment_and_length, action="append", default=[])
    network.add_argument("--drop-sound", type=float, action="append", default=[])
    options = parser.parse_args()
    network_plan = Network(
        loss=options.loss,
        jitter=options.jitter,
        cuts=tuple(options.cut),
        drops=tuple(options.drop_sound),
        seed=options.seed,
    )
    if not options.stock and (options.live or not network_plan.perfect):
        parser.error("only with --stock")
    width, height, fps = options.width, options.height, options.fps
    if options.live:
        sounds = encode_sounds(options.clip)
        clip = Clip(codec=options.codec, fps=fps, pictures=(), sounds=sounds)
        live = tuple(draw_pictures(width, height, fps * options.clip))
    else:
        clip, live = encode_clip(options.codec, width, height, fps, options.clip), ()
    service = Service(
        clip=clip,
        live=live,
        stock=options.stock,
        network=network_plan,
        silent_stun=options.silent_stun,
    )
    try:
        asyncio.run(_until_stdin_ends(service, options.host, options.port))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
