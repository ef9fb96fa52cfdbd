"""Does to one session what its faults say: to its WebSocket, its packets and its tracks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from attrs import evolve

from navtalk_asyncio.emulator.faults import Faults, Step, timeline
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack
from navtalk_asyncio.testing.cutter import cutter
from navtalk_asyncio.testing.udp_wire import udp_wire
from navtalk_asyncio.websocket import WebSocketTransport
from navtalk_proto.testing.cutter import Cutter, CutTransport
from navtalk_proto.testing.udp_wire import UdpWire, WiredTransport
from navtalk_proto.transport import Transport

__all__ = ["FaultySession", "FaultyTransport"]


class FaultySession:
    """The faults of one session, which it meets as they were when it connected."""

    def __init__(self, faults: Faults, seed: int = 0) -> None:
        self.faults: Faults = evolve(faults)
        self._seed = seed
        self._cutter = cutter()
        self._wire: UdpWire | None = None
        self._socket: Transport | None = None
        self._face: FaceTrack | None = None
        self._voice: VoiceTrack | None = None

    @asynccontextmanager
    async def around(self, transport: Transport) -> AsyncGenerator[FaultyTransport]:
        """The transport to use instead, while the session runs."""
        self._socket = transport
        async with AsyncExitStack() as stack:
            if self.faults.on_the_wire:
                wire = self._wire = await stack.enter_async_context(
                    udp_wire(self._seed, host=_reached_at(transport))
                )
                bad = self.faults.network
                wire.set(
                    loss=bad.loss,
                    duplicate=bad.duplicate,
                    delay=bad.delay,
                    jitter=bad.jitter,
                    reorder=bad.reorder,
                    rate=bad.rate,
                )
                transport = WiredTransport(transport, wire)
            yield FaultyTransport(transport, self._cutter, self)

    def add_tracks(self, face: FaceTrack, voice: VoiceTrack) -> None:
        """The session's tracks, which may be told to stand still."""
        self._face, self._voice = face, voice

    async def run(self) -> None:
        """Do everything in its time, from the moment at which the session is ready."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for at, step in timeline(self.faults):
            await asyncio.sleep(start + at - loop.time())
            self._do(step)

    def _do(self, step: Step) -> None:
        match step:
            case Step.DROP_WS:
                self._cutter.cut()
            case Step.HALF_OPEN:
                self._cutter.go_silent()
                if isinstance(self._socket, WebSocketTransport):
                    _Silenced(self._socket)
            case Step.CUT_MEDIA | Step.HEAL_MEDIA:
                assert self._wire is not None
                (self._wire.cut if step is Step.CUT_MEDIA else self._wire.heal)()
            case Step.FREEZE | Step.THAW:
                if self._face is not None:
                    self._face.frozen = step is Step.FREEZE
            case Step.FALL_SILENT | Step.SPEAK_AGAIN:
                if self._voice is not None:
                    self._voice.silent = step is Step.FALL_SILENT


def _reached_at(transport: Transport) -> str:
    """The IPv4 address of ours that the client came to; the wire has no other kind."""
    if isinstance(transport, WebSocketTransport):
        host: str = transport._connection.local_address[0].removeprefix("::ffff:")
        if ":" not in host:
            return host
    return "127.0.0.1"


class FaultyTransport(CutTransport):
    """The transport of a session with faults; its handler finds them here."""

    def __init__(self, transport: Transport, cutter: Cutter, session: FaultySession) -> None:
        super().__init__(transport, cutter)
        self.session: FaultySession = session


class _Silenced(asyncio.Protocol):
    """Stands between websockets and its socket, in both directions, and lets nothing through.

    Pings are not answered and nothing is closed, as when the machine at the far end hangs. An end
    of the connection is still told, and to drop it is still possible.
    """

    def __init__(self, transport: WebSocketTransport) -> None:
        self._connection = transport._connection
        self._socket = self._connection.transport
        keepalive = self._connection.keepalive_task
        if keepalive is not None:
            keepalive.cancel()  # It would end what is to go on for good.
        self._socket.set_protocol(self)
        self._connection.transport = self  # type: ignore[assignment]  # duck, for its writes

    # ---- towards websockets

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> bool:
        self._socket.abort()  # The client left: there is nobody to be silent for.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    # ---- towards the socket

    def write(self, data: bytes) -> None:
        pass

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self._socket.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)
