"""A NavTalk server that sends a prepared clip: the far end of measurements.

Run: ``python benchmarks/sender.py --port 0``. Needs ``navtalk[asyncio]`` and numpy. It prints one
JSON line (`url`, `codec`, `fps`, `pictures`, `video_kbps`, `audio_kbps`) and serves until its
standard input is closed. Benchmarks start it with :func:`running_sender`.

The clip is encoded once, before the first session, and sent as it is, so that a session costs 5 to
6 % of a core here (engine.md section 4). Every session starts at its first picture, a keyframe, and
loops; there is a keyframe every two seconds. The sound is 48 kHz Opus in packets of 20 ms.

Every picture carries its number in the clip, 16 bits, in its luma: the picture is 16 squares wide,
the topmost row of squares holds the bits, the highest at the left (white 1, black 0), and the row
below holds their inverse. :func:`read_number` reads it from what a coder made of it.

``GET /sent?session=ID`` on the same port answers with the CLOCK_MONOTONIC times at which the
session's pictures were handed to the RTP sender, in order and from `first` on. That clock is one
for all processes of a host: the latency of a picture is the time of its arrival minus the time in
this table. Numbers repeat when the clip does; a picture that is less than one clip late is still
known by the newest sending before its arrival (:class:`Sent`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import av
import numpy as np
from aiortc import MediaStreamTrack
from attrs import define, field, frozen

from navtalk_asyncio import HttpReply, HttpRequest, ServerSession, serve
from navtalk_asyncio.media import AiortcEngine
from navtalk_proto import ServerConfig
from navtalk_proto.media import Direction, MediaKind, MediaLine
from navtalk_proto.wire.messages import ConnectedSuccess, SessionCreated, SessionUpdated

BITS: Final = 16
"""Bits of a picture's number, and squares across a picture."""

BLACK, WHITE = 16, 235
"""Luma of the squares, in video range."""

KEYFRAME_SECONDS: Final = 2

AUDIO_RATE, AUDIO_FRAME = 48_000, 960
"""Hz, and samples of one Opus packet: 20 ms."""

SENT_KEPT: Final = 65_536
"""Send times kept of a session: 36 minutes at 30 pictures a second."""

SESSIONS_KEPT: Final = 64
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
    """What is sent: complete encoded pictures and 20 ms Opus packets."""

    codec: str
    fps: int
    pictures: tuple[bytes, ...]
    sounds: tuple[bytes, ...]

    @property
    def video_kbps(self) -> float:
        """Mean rate of the pictures in kb/s, without headers."""
        return sum(map(len, self.pictures)) * 8 * self.fps / len(self.pictures) / 1000

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
    return Clip(codec=codec, fps=fps, pictures=pictures, sounds=tuple(_encode_sounds(seconds)))


def _encode_pictures(
    codec: str, width: int, height: int, fps: int, count: int
) -> Generator[bytes, None, None]:
    square = width // BITS
    if width % (2 * BITS) or height < 4 * square:
        raise ValueError("the width is a multiple of 32, the height at least a quarter of it")
    if count > 1 << BITS:
        raise ValueError(f"a clip has at most {1 << BITS} pictures")
    name, bit_rate, options = VIDEO_CODERS[codec]
    coder: Any = av.CodecContext.create(name, "w")
    coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
    coder.framerate, coder.time_base = Fraction(fps), Fraction(1, fps)
    coder.bit_rate, coder.gop_size = bit_rate, KEYFRAME_SECONDS * fps
    rates = {"minrate": str(bit_rate), "maxrate": str(bit_rate), "bufsize": str(bit_rate // 2)}
    coder.options = options | rates | {"keyint_min": str(coder.gop_size), "sc_threshold": "0"}
    coder.thread_count = 1

    random = np.random.default_rng(1)
    # A drifting texture with a patch of noise in it: enough to need the whole bit rate.
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
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = number, coder.time_base
        yield from map(bytes, coder.encode(frame))
    yield from map(bytes, coder.encode(None))


def _encode_sounds(seconds: int) -> Generator[bytes, None, None]:
    coder: Any = av.CodecContext.create("libopus", "w")
    coder.sample_rate, coder.format, coder.layout = AUDIO_RATE, "s16", "stereo"
    coder.time_base, coder.bit_rate = Fraction(1, AUDIO_RATE), 64_000
    count = seconds * AUDIO_RATE // AUDIO_FRAME
    for number in range(count):
        at = np.arange(number * AUDIO_FRAME, (number + 1) * AUDIO_FRAME) / AUDIO_RATE
        tone = 6000 * np.sin(2 * np.pi * 220 * at) * (1 + np.sin(2 * np.pi * 3 * at))
        stereo = tone.astype(np.int16).repeat(2).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(stereo, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = AUDIO_RATE, number * AUDIO_FRAME
        frame.time_base = coder.time_base
        yield from map(bytes, coder.encode(frame))
    # The last packet, which the coder's delay would make short, is not needed: a clip loops.


def read_number(frame: av.VideoFrame) -> int | None:
    """The number in a decoded yuv420p picture; None where it cannot be read beyond doubt."""
    plane = frame.planes[0]
    luma = memoryview(plane).cast("B")
    square = frame.width // BITS
    number = 0
    for bit in range(BITS):
        at = square // 2 * plane.line_size + bit * square + square // 2
        above, below = luma[at], luma[at + square * plane.line_size]
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
        packet = av.Packet(self._packets[self._count % len(self._packets)])
        packet.pts, packet.time_base = ticks, self._time_base
        self._count += 1
        self.sent.append(time.monotonic())
        return packet


class ClipVideo(_ClipTrack):
    """The pictures of a clip."""

    kind = "video"

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip.pictures, 1, clip.fps)


class ClipAudio(_ClipTrack):
    """The sound of a clip."""

    kind = "audio"

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip.sounds, AUDIO_FRAME, AUDIO_RATE)


@define
class _Visits:
    """The sessions' handler, and the table of what was sent when."""

    clip: Clip
    _videos: dict[str, ClipVideo] = field(factory=dict)

    async def visit(self, session: ServerSession) -> None:
        """Serve one client until it leaves."""
        engine = session.engine
        assert isinstance(engine, AiortcEngine)
        name, video = str(uuid.uuid4()), ClipVideo(self.clip)
        while len(self._videos) >= SESSIONS_KEPT:
            del self._videos[next(iter(self._videos))]
        self._videos[name] = video
        engine.add_tracks(video, ClipAudio(self.clip))
        await session.send(ConnectedSuccess(session_id=name, ice_servers=()))
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

    def http(self, request: HttpRequest) -> HttpReply | None:
        """Answer ``GET /sent``."""
        target = urlsplit(request.target)
        if request.method != "GET" or target.path != "/sent":
            return None
        video = self._videos.get(parse_qs(target.query).get("session", [""])[0])
        if video is None:
            return None
        table = {
            "pictures": len(self.clip.pictures),
            "first": video.first,
            "sent": list(video.sent),
        }
        body = json.dumps(table).encode()
        headers = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
        return HttpReply(status=200, headers=headers, body=body)


async def send(clip: Clip, host: str, port: int, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    visits = _Visits(clip)
    async with serve(
        visits.visit,
        host,
        port,
        config=ServerConfig(),
        engine=lambda callbacks: AiortcEngine(callbacks, loopback=True),
        http=visits.http,
    ) as server:
        ready = {
            "url": server.url,
            "codec": clip.codec,
            "fps": clip.fps,
            "pictures": len(clip.pictures),
            "video_kbps": round(clip.video_kbps),
            "audio_kbps": round(clip.audio_kbps),
        }
        print(json.dumps(ready), flush=True)
        await stop.wait()


async def _until_stdin_ends(clip: Clip, host: str, port: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        # Not sys.stdin: a thread that holds its lock cannot be left behind by the interpreter.
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    await send(clip, host, port, stop)


# ---- the sender as seen by a benchmark


@frozen(kw_only=True)
class Sent:
    """When the pictures of one session were sent; see ``GET /sent``."""

    pictures: int
    """How many different numbers there are."""
    first: int
    times: tuple[float, ...]

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
    return Sent(pictures=table["pictures"], first=table["first"], times=tuple(table["sent"]))


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


def main() -> None:
    parser = argparse.ArgumentParser(description="a NavTalk server that sends a prepared clip")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--codec", choices=sorted(VIDEO_CODERS), default="vp8")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--clip", type=int, default=20, help="length of the clip in seconds")
    options = parser.parse_args()
    clip = encode_clip(options.codec, options.width, options.height, options.fps, options.clip)
    try:
        asyncio.run(_until_stdin_ends(clip, options.host, options.port))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
