"""A page on loopback that shows the human while a command talks with it.

What is shown is what was received: the encoded packets as WebM, which a browser plays as it comes.
Nothing is decoded or encoded here. Every viewer has a reader of the session's packets, and so
begins with a keyframe. H.264, which WebM does not hold, comes as Matroska: Chromium plays that, and
not fragmented mp4 of one picture per fragment. Other browsers may not, and the page says so then;
where nothing speaks against it VP8 is asked for.

Whoever knows the address may look: it has a path of 128 random bits, and is bound to 127.0.0.1. A
page of another site cannot reach it by a name of its own (DNS rebinding): the Host must be ours.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
from anyio.abc import SocketAttribute, SocketStream

from navtalk_asyncio.media.muxing import Container, PacketFile
from navtalk_proto.media import MediaKind, MediaLine

__all__ = ["PREVIEW_MEDIA", "preview"]

REQUEST_BYTES: Final = 8192
"""Of a request's head; no browser sends more to a loopback address without cookies."""

REQUEST_SECONDS: Final = 10.0
"""Until a request's head must be there."""

PREVIEW_MEDIA: Final = (
    MediaLine(kind=MediaKind.VIDEO, codecs=("VP8",)),
    MediaLine(kind=MediaKind.AUDIO),
)
"""What a session that is to be shown asks for, if it is free to."""

_OPTIONS: Final = {"live": "1", "cluster_time_limit": "100"}

_LIVE: Final = {
    "VP8": ("video/webm", Container(format="webm", codecs=("VP8", "opus"), options=_OPTIONS)),
    "H264": (
        "video/x-matroska",
        Container(format="matroska", codecs=("H264", "opus"), options=_OPTIONS),
    ),
}
"""By codec, what is streamed. WebM is Matroska that knows no H.264."""

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>navtalk preview</title>
<style nonce="{nonce}">
body {{ margin: 0; height: 100vh; display: grid; place-items: center; background: #16181c }}
p {{ color: #e8e8e8; font: 1.1rem sans-serif }}
p:empty {{ display: none }}
video {{ max-width: 100vw; max-height: 100vh }}
</style>
<p></p><video autoplay muted playsinline controls src="live"></video>
<script nonce="{nonce}">
const video = document.querySelector("video");
// A page in the background falls behind, and hurries after: a decoder of H.264 cannot begin just
// anywhere, so nothing is skipped.
setInterval(() => {{
  const ranges = video.buffered;
  const behind = ranges.length ? ranges.end(ranges.length - 1) - video.currentTime : 0;
  video.playbackRate = behind > 5 ? 4 : behind > 1.5 ? 1.5 : 1;
}}, 1000);
// A picture that cannot be shown is no black one: whoever looks is told why.
video.onerror = async () => {{
  const answer = await fetch("live").catch(() => null);
  const refused = answer && !answer.ok;
  const why = refused ? await answer.text() : "this browser does not play it";
  if (answer && !refused) answer.body.cancel();
  document.querySelector("p").textContent = "The human cannot be shown here: " + why;
  video.remove();
}};
</script>
"""


@asynccontextmanager
async def preview(session: Any) -> AsyncGenerator[str]:
    """Show a session of either loop until the block ends; yields the page's address."""
    secret = secrets.token_urlsafe(16)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        port = listener.extra(SocketAttribute.local_port)
        pages = _Pages(session, f"127.0.0.1:{port}", secret)
        tasks.start_soon(listener.serve, pages.answer)
        yield f"http://127.0.0.1:{port}/{secret}/"
        tasks.cancel_scope.cancel()


class _Pages:
    def __init__(self, session: Any, host: str, secret: str) -> None:
        self._session = session
        self._host = host
        self._page = f"/{secret}/"

    async def answer(self, stream: SocketStream) -> None:
        """One connection: one request."""
        # A viewer that goes away in the middle is no failure of the session.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            async with stream:
                head = b""
                with anyio.move_on_after(REQUEST_SECONDS):
                    while b"\r\n\r\n" not in head and len(head) < REQUEST_BYTES:
                        head += await stream.receive(REQUEST_BYTES)
                await self._answer(stream, head.decode("latin-1"))

    async def _answer(self, stream: SocketStream, head: str) -> None:
        request, _, fields = head.partition("\r\n")
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0]
        hosts = [
            line.partition(":")[2].strip()
            for line in fields.split("\r\n")
            if line.partition(":")[0].lower() == "host"
        ]
        known = secrets.compare_digest(path.encode(), self._page.encode())
        live = secrets.compare_digest(path.encode(), f"{self._page}live".encode())
        if method != "GET" or hosts != [self._host] or not (known or live):
            await _send(stream, "404 Not Found", "text/plain", b"there is nothing here\n")
        elif known:
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; media-src 'self'; connect-src 'self'; "
                f"script-src 'nonce-{nonce}'; "
                f"style-src 'nonce-{nonce}'"
            )
            page = _PAGE.format(nonce=nonce).encode()
            await _send(
                stream,
                "200 OK",
                "text/html; charset=utf-8",
                page,
                ("Content-Security-Policy", policy),
            )
        else:
            await self._stream(stream)

    async def _stream(self, stream: SocketStream) -> None:
        """The packets from the next keyframe on, until the session or the viewer ends."""
        live: _Live | None = None
        try:
            async for frame in self._session.packets():
                if live is None:
                    if not (frame.kind is MediaKind.VIDEO and frame.keyframe):
                        continue
                    if frame.codec not in _LIVE:
                        body = f"{frame.codec} cannot be shown, only VP8 and H264\n".encode()
                        await _send(stream, "501 Not Implemented", "text/plain", body)
                        return
                    kind, container = _LIVE[frame.codec]
                    live = _Live(frame, container)
                    await _send(stream, "200 OK", kind, None)
                live.write(frame)
                if data := live.take():
                    await stream.send(data)
        finally:
            if live is not None:
                live.close()


class _Live:
    """A container that is written to a viewer."""

    def __init__(self, first: Any, container: Container) -> None:
        self._output = _Output()
        self._file = PacketFile(self._output, container)
        self._file.add("video", first.codec, first.data)
        self._file.add("audio", "opus", b"")
        self._start: float = first.arrival
        self._origins: dict[str, int] = {}
        """By track: its timestamp at the start. Tracks are related by their arrival."""

    def write(self, frame: Any) -> None:
        """A packet, where the container has a stream for it."""
        origin = self._origins.get(frame.track_id)
        if origin is None:
            late = round((frame.arrival - self._start) * frame.clock_rate)
            origin = self._origins[frame.track_id] = frame.timestamp - late
        self._file.write(
            frame.kind.value,
            frame.data,
            pts=frame.timestamp - origin,
            duration=960 if frame.kind is MediaKind.AUDIO else 0,
            keyframe=frame.keyframe,
        )

    def take(self) -> bytes:
        """What is to be sent."""
        data = bytes(self._output.written)
        self._output.written.clear()
        return data

    def close(self) -> None:
        """Nobody looks any more."""
        self._file.close()


class _Output:
    """What FFmpeg writes a container to; it cannot be sought in."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> int:
        """More of it."""
        self.written += data
        return len(data)


async def _send(
    stream: SocketStream, status: str, kind: str, body: bytes | None, *more: tuple[str, str]
) -> None:
    """A response, or its head only where it has no length."""
    fields = [
        ("Content-Type", kind),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "close"),
        *more,
    ]
    if body is not None:
        fields.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    await stream.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + (body or b""))
