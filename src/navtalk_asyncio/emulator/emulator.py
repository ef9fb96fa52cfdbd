"""The emulator as a whole: WebSocket endpoint, avatar look-ups, STUN, and one human per visitor."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import evolve

from navtalk_asyncio.emulator.avatars import Avatar, AvatarDirectory, answer
from navtalk_asyncio.emulator.brain import Brain, EchoBrain
from navtalk_asyncio.emulator.demo_page import page_reply
from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.emulator.faults import parse_faults
from navtalk_asyncio.emulator.faulty_session import FaultySession, FaultyTransport
from navtalk_asyncio.emulator.human import TOOL_TIMEOUT
from navtalk_asyncio.emulator.idle_clip import IdleClips
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.refusals import plan
from navtalk_asyncio.emulator.speech_clip import SpeechClips
from navtalk_asyncio.emulator.stun import StunServer
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack
from navtalk_asyncio.emulator.visit import HumanConfig, Visit, visit
from navtalk_asyncio.media.aiortc_engine import AiortcEngine
from navtalk_asyncio.server import Server, ServerSession, serve
from navtalk_proto.config import ServerConfig
from navtalk_proto.secret import Secret
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import IceServer
from navtalk_proto.wire.plain_http import HttpReply, HttpRequest

if TYPE_CHECKING:
    from navtalk_proto.tracing.output import TraceOptions

__all__ = ["EXAMPLE_LICENSE", "Emulator", "emulate"]

log: Final = logging.getLogger("navtalk.emulator")

EXAMPLE_LICENSE: Final = "sk_navtalk_EXAMPLE"
"""The licence that is accepted unless others are given. It opens nothing elsewhere."""

MAX_VISITORS: Final = 64
"""Sessions at a time. Each one that has media costs a live video encoder."""


_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that mean every address, and where this machine itself reaches them."""

_HOST: Final = re.compile(r"(?:([A-Za-z0-9.-]{1,253})|\[([0-9A-Fa-f:.]{2,45})\])(?::[0-9]{1,5})?")
"""A Host header: a name or an IPv4 address, or an IPv6 address in brackets (RFC 9110 7.2)."""


def _host_of(request: HttpRequest) -> str:
    """The host that a client reaches us at, as it says; loopback where it does not."""
    match = _HOST.fullmatch(request.headers.get("host", ""))
    return "127.0.0.1" if match is None else match[1] or match[2]


@cache
def _default_face() -> Face:
    """The one face of every visit and emulator of this process: painting it takes half a second."""
    return Face()


class Emulator:
    """A running emulator. Made by :func:`emulate`."""

    def __init__(self, server: Server, human: HumanConfig, stun: StunServer) -> None:
        self.server = server
        self.directory: AvatarDirectory = human.directory
        self.stun = stun
        self._human = human

    @property
    def visits(self) -> frozenset[Visit]:
        """The sessions that were let in and run now."""
        return frozenset(self._human.visits)

    def refuse(self, refuse: str | Iterable[str] | None) -> None:
        """From now on, refuse new sessions as ``emulate(refuse=...)`` does; None: none.

        Those that run go on, but see :meth:`Visit.refuse`. Raises ValueError.
        """
        self._human.faults.refusals = plan(refuse)

    def fail(self, faults: str | None) -> None:
        """From now on, new sessions meet these faults and no others; None: none at all.

        As ``emulate(faults=...)``; those that run keep theirs. Raises FaultError, and changes
        nothing then.
        """
        self._human.faults.become(parse_faults(faults))

    @property
    def url(self) -> str:
        """The base URL, as in ``ws://127.0.0.1:49152``; on loopback if every address is bound."""
        reached = _WILDCARDS.get(self.server.host)
        if reached is None:
            return self.server.url
        host = f"[{reached}]" if ":" in reached else reached
        return f"ws://{host}:{self.server.port}"

    def endpoint(
        self, *, license: str | None = None, name: str | None = None, avatar_id: str | None = None
    ) -> Endpoint:
        """Where and how to connect: to the first avatar and with a good licence by default."""
        first = self.directory.avatars[0]
        known = self.directory.licences
        good = known[0] if known else Secret(EXAMPLE_LICENSE)
        return Endpoint(
            base_url=self.url,
            license=Secret(license) if license is not None else good,
            avatar_id=avatar_id,
            name=name if name is not None or avatar_id is not None else first.name,
        )


@asynccontextmanager
async def emulate(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    brain: Brain | None = None,
    licenses: Iterable[str | Secret] | None = (EXAMPLE_LICENSE,),
    avatars: Iterable[Avatar] | None = None,
    config: ServerConfig | None = None,
    max_visitors: int = MAX_VISITORS,
    origins: Collection[str] | None = None,
    refuse: str | Iterable[str] | None = None,
    time_limit: float | None = None,
    faults: str | None = None,
    tool_timeout: float = TOOL_TIMEOUT,
    trace: str | Path | TraceOptions | None = None,
) -> AsyncGenerator[Emulator]:
    """Run a digital human: ``async with emulate() as human``.

    `host` ``0.0.0.0`` or ``::`` binds every address of that family; each client is told the STUN
    server at the address that it connected to. `port` 0 takes a free one. `brain` decides what is
    understood and said, an echo by default. `licenses` None accepts any. A `config` without media
    makes a human that only converses in writing. `origins`: the web pages that may connect, as for
    ``serve()``; any by default, because stock clients run on any. Leaving the block ends every
    session with 1001.

    `refuse` turns clients away: ``"gpu_full"`` at connect, ``"insufficient_balance@20s"`` 20
    seconds after the session was ready, or a list of such. The names are ``fail``,
    ``insufficient_balance``, ``connection_limit_exceeded``, ``gpu_full``, ``backend_error`` and
    ``close``. `time_limit` ends each session after so many seconds. `faults` is what else goes
    wrong, by name: ``"drop_ws@3s,loss=5%,freeze@10s"``; docs/reliability.md lists the names.
    `tool_timeout` is how long, in seconds, the result of a function call is waited for. `trace`
    writes each session to a file of its own, as ``serve()`` does.

    Raises ValueError for no avatar at all, for a refusal or a fault that does not exist (its
    subclass FaultError), and for times that are not above 0; OSError where host and port cannot be
    bound.
    """
    planned = parse_faults(faults)
    planned.refusals += plan(refuse)
    if time_limit is not None:
        planned.time_limit = time_limit
    directory = AvatarDirectory(licences=licenses)
    if avatars is not None:
        directory = AvatarDirectory(licences=licenses, avatars=tuple(avatars))
        if not directory.avatars:
            raise ValueError("an emulator needs an avatar: every client asks for one")
    settings = config or ServerConfig()
    face = await asyncio.to_thread(_default_face) if settings.media else None
    # aiortc takes no STUN server at an IPv6 address, and who reaches ::1 reaches 127.0.0.1 too.
    async with (
        aclosing(IdleClips()) as clips,
        aclosing(SpeechClips()) as speeches,
        StunServer(host="127.0.0.1" if host == "::1" else host) as stun,
    ):
        human = HumanConfig(
            brain=brain or EchoBrain(),
            directory=directory,
            ice_servers=(IceServer(urls=(stun.url,)),),
            media=settings.media,
            faults=planned,
            tool_timeout=tool_timeout,
            speeches=None if face is None else speeches,
        )

        numbers, seeds = itertools.count(1), itertools.count(1)

        def ice_servers_at(address: str) -> tuple[IceServer, ...]:
            if host not in _WILDCARDS:
                return human.ice_servers
            reached = address.removeprefix("::ffff:")
            return (IceServer(urls=(stun.url_at("127.0.0.1" if reached == "::1" else reached),)),)

        async def visited(session: ServerSession) -> None:
            assert session.local_address is not None
            number = next(numbers)
            log.info("= session %d began", number)
            told = evolve(human, ice_servers=ice_servers_at(session.local_address))
            if isinstance(session.transport, FaultyTransport):
                faulty = session.transport.session
                told = evolve(told, faults=faulty.faults, faulty=faulty)
            mouthpiece = Mouthpiece()
            if face is not None:
                engine = session.engine
                assert isinstance(engine, AiortcEngine)
                shown = FaceTrack(face, mouthpiece, clips=clips, speeches=speeches)
                tracks = shown, VoiceTrack(mouthpiece)
                engine.add_tracks(*tracks)
                if told.faulty is not None:
                    told.faulty.add_tracks(*tracks)
            try:
                await visit(session, mouthpiece, told)
            finally:
                mouthpiece.close()
                end = session.end
                log.info("x session %d ended%s", number, "" if end is None else f": {end.code}")

        def through(transport: Transport) -> AbstractAsyncContextManager[Transport]:
            if not human.faults.in_session:
                return nullcontext(transport)
            return FaultySession(human.faults, seed=next(seeds)).around(transport)

        def http(request: HttpRequest) -> HttpReply | None:
            return page_reply(request) or answer(
                request.method,
                request.target,
                request.headers,
                directory=directory,
                ice_servers=ice_servers_at(_host_of(request)),
            )

        async with serve(
            visited,
            host,
            port,
            config=settings,
            # E3: everything on loopback is a host candidate; its own STUN server is for clients.
            # Who is refused costs no peer connection.
            engine=lambda callbacks: AiortcEngine(callbacks, loopback=True, early=False),
            http=http,
            max_sessions=max_visitors,
            origins=origins,
            through=through,
            trace=trace,
        ) as server:
            yield Emulator(server, human, stun)
