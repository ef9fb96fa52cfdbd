"""One visit to the digital human: a handler of ``serve()``.

Who is let in, what the session begins with, what may end it. The conversation is the
:mod:`human <navtalk_asyncio.emulator.human>`'s; in transparency and audioBack mode a
:mod:`repeater <navtalk_asyncio.emulator.repeater>` takes its place.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import suppress
from typing import Final

from attrs import field, frozen, validators

from navtalk_asyncio.emulator.avatars import AvatarDirectory, FoundAvatar
from navtalk_asyncio.emulator.brain import Brain
from navtalk_asyncio.emulator.faults import Faults
from navtalk_asyncio.emulator.faulty_session import FaultySession
from navtalk_asyncio.emulator.human import TOOL_TIMEOUT, Human
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.refusals import Farewell, farewell
from navtalk_asyncio.emulator.repeater import Repeater
from navtalk_asyncio.emulator.speech_clip import SpeechClips
from navtalk_asyncio.server import ServerSession
from navtalk_proto.config import SEND_MEDIA
from navtalk_proto.errors import MediaError, RefusalKind, SessionClosedError
from navtalk_proto.events import MessageReceived
from navtalk_proto.media import MediaLine
from navtalk_proto.wire.audio import SAMPLE_RATE, SAMPLE_WIDTH
from navtalk_proto.wire.endpoint import DEFAULT_PATH, RequestTarget
from navtalk_proto.wire.messages import (
    AudioAppend,
    ConnectedFail,
    ConnectedSuccess,
    ConnectedWarning,
    IceServer,
    Message,
    SessionCreated,
    SessionUpdated,
)
from navtalk_proto.wire.obsolete import REASON

__all__ = ["HumanConfig", "Visit", "VisitStatus", "visit"]

log: Final = logging.getLogger("navtalk.emulator")

_V1_PATHS: Final = frozenset({"/api/realtime-api", "/api/webrtc"})
"""The two sockets of version 1 (protocol.md 6.1). Its messages on ours are refused by the core."""


@frozen(kw_only=True)
class HumanConfig:
    """What every visit has in common."""

    brain: Brain
    directory: AvatarDirectory
    ice_servers: tuple[IceServer, ...]
    """What clients are told; not empty (E2)."""
    media: tuple[MediaLine, ...] = SEND_MEDIA
    """What is offered; empty for a conversation without picture and voice."""
    faults: Faults = field(factory=Faults)
    faulty: FaultySession | None = None
    """What does to one session what its faults say; None: they need nothing done."""
    speeches: SpeechClips | None = None
    """What prepares canned replies."""
    tool_timeout: float = field(default=TOOL_TIMEOUT, validator=validators.gt(0.0))
    """Seconds that a function's result is waited for."""
    visits: set[Visit] = field(factory=set, repr=False)
    """The visits that run now and were let in."""


@frozen(kw_only=True)
class VisitStatus:
    """How a visit is going: for people who watch."""

    peer: str
    """The client's ``host:port``."""
    avatar: str
    since: float
    """When it was let in: :func:`time.monotonic`."""
    state: str
    """Of the session: ``opening``, ``configuring``, ``ready``, ``closing``, ``closed``."""
    audio_in: float
    """Seconds of the user's voice that came, silence included."""
    pictures_out: int
    speaking: bool
    """Whether the human speaks now."""


class Visit:
    """A session that was let in, and what a test can do to it. Lives on the emulator's loop."""

    def __init__(self, session: ServerSession, session_id: str, mouthpiece: Mouthpiece) -> None:
        self._session = session
        self.mouthpiece: Mouthpiece = mouthpiece
        """What is said here, and when it was: see :class:`Utterance`."""
        self.session_id: str = session_id
        self.request: RequestTarget = session.request
        """What the client asked for in its URL."""
        self._since = time.monotonic()
        self._audio_in = 0

    @property
    def status(self) -> VisitStatus:
        """How it is going. May be read from any thread: single numbers, none of them waited for."""
        return VisitStatus(
            peer=self._session.remote_address or "",
            avatar=self.request.name or self.request.avatar_id or "",
            since=self._since,
            state=self._session.state.value,
            audio_in=self._audio_in / (SAMPLE_RATE * SAMPLE_WIDTH),
            pictures_out=self.mouthpiece.pictures,
            speaking=self.mouthpiece.speaking,
        )

    def note(self, message: Message) -> None:
        """See a message of the client."""
        if isinstance(message, AudioAppend):
            self._audio_in += len(message.audio)

    async def refuse(self, kind: RefusalKind | str, message: str | None = None) -> None:
        """End the session as the service does: the event of that kind, then the close (E8).

        `kind` also by name, as in ``"insufficient_balance"``; ``"close"`` is connected.close.
        `message` replaces the usual text. Nothing happens to a session that is over. Raises
        ValueError for another kind.
        """
        await self._leave(farewell(kind, message))

    async def _leave(self, message: Farewell) -> None:
        with suppress(SessionClosedError):
            await self._session.send(message)


async def visit(session: ServerSession, mouthpiece: Mouthpiece, config: HumanConfig) -> None:
    """Be the digital human for one session; returns when the client is gone or was refused."""
    faults = config.faults
    if faults.mute:
        async for _ in session.events():
            pass
        return
    if faults.slow_start:
        await asyncio.sleep(faults.slow_start)
    found = await _admit(session, config)
    if found is None:
        return
    request = session.request
    session_id = str(uuid.uuid4())
    await session.send(ConnectedSuccess(session_id=session_id, ice_servers=config.ice_servers))
    if found.ambiguous:
        await session.send(
            ConnectedWarning(
                message=f"Multiple avatars share the name {found.avatar.name!r}; "
                "using the most recently updated one.",
                avatar_id=found.avatar.id,
            )
        )
    here = Visit(session, session_id, mouthpiece)
    config.visits.add(here)
    try:
        async with asyncio.TaskGroup() as tasks:
            listener: Human | Repeater
            if request.audio_back or request.model == "transparency":
                listener = Repeater(session, mouthpiece)
            else:
                listener = Human(
                    session,
                    mouthpiece,
                    config.brain,
                    found.avatar,
                    tasks,
                    tool_timeout=config.tool_timeout,
                    speeches=config.speeches,
                )
            beside = [tasks.create_task(_offer(session, config.media))]
            try:
                await session.send(SessionCreated())
                await session.send(SessionUpdated())
                beside += (
                    tasks.create_task(_later(after, here, message))
                    for after, message in _planned(faults)
                )
                if config.faulty is not None:
                    beside.append(tasks.create_task(config.faulty.run()))
                await _listen(session, here, listener)
            finally:
                for task in beside:
                    task.cancel()
                listener.hush()
    finally:
        config.visits.discard(here)


async def _listen(session: ServerSession, here: Visit, listener: Human | Repeater) -> None:
    async for event in session.events():
        if isinstance(event, MessageReceived):
            here.note(event.message)
            await listener.take(event.message)


async def _admit(session: ServerSession, config: HumanConfig) -> FoundAvatar | None:
    """Look at path, licence and avatar, in the order in which a service can."""
    request = session.request
    found = config.directory.find(avatar_id=request.avatar_id, name=request.name)
    planned = next((one for one in config.faults.refusals if one.after is None), None)
    refusal: Farewell
    if request.path in _V1_PATHS:
        refusal = ConnectedFail(message=f"{REASON}, at {DEFAULT_PATH}")
    elif not config.directory.accepts(request.license):
        refusal = ConnectedFail(message="Invalid license key")
    elif request.path != DEFAULT_PATH:
        refusal = ConnectedFail(message=f"There is no such path; sessions are at {DEFAULT_PATH}")
    elif found is None:
        refusal = ConnectedFail(message="Avatar not found")
    elif planned is not None:
        refusal = farewell(planned.name)
    else:
        return found
    await session.send(refusal)
    return None


def _planned(faults: Faults) -> list[tuple[float, Farewell]]:
    planned = [(one.after, farewell(one.name)) for one in faults.refusals if one.after is not None]
    if faults.time_limit is not None:
        planned.append((faults.time_limit, farewell("close")))
    return planned


async def _later(seconds: float, here: Visit, message: Farewell) -> None:
    await asyncio.sleep(seconds)
    await here._leave(message)


async def _offer(session: ServerSession, media: tuple[MediaLine, ...]) -> None:
    """E3, E11: one complete offer; a client that never answers it is not our failure."""
    if not media:
        return
    try:
        await session.negotiate(*media)
    except SessionClosedError:
        pass  # A client without media leaves like this; the end has a line of its own.
    except MediaError as error:
        log.info("! no media: %s", error)
