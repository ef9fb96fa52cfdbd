"""The far end of a session that is lost and opened again: a door, where one client comes.

Each time a new pair of memory transports is made, and the scenario says what the server does with
this visitor. Delays are without chance: half of each.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from attrs import frozen

from navtalk_proto import ReconnectPolicy
from navtalk_proto.errors import ConnectFailedError
from navtalk_proto.events import CloseCause, Closed, Reconnected, Reconnecting
from navtalk_proto.media import MediaKind, MediaLine
from navtalk_proto.testing import ScriptedPeer
from navtalk_proto.wire.messages import (
    Answer,
    ConnectedSuccess,
    SessionCreated,
    SessionUpdated,
    UserMessage,
)

POLICY = ReconnectPolicy(first_delay=2.0, longest_delay=8.0, give_up_after=60.0, jitter=lambda: 0.0)
"""Delays of 1, 2, 4, 4 seconds."""

VIDEO = MediaLine(kind=MediaKind.VIDEO)
AUDIO = MediaLine(kind=MediaKind.AUDIO)
LOST = "the connection was lost"


def ready(number: int) -> tuple[Any, ...]:
    return ConnectedSuccess(session_id=f"s-{number}"), SessionCreated(), SessionUpdated()


class Door:
    """Where one client comes, again and again."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.pairs: list[tuple[Any, Any]] = []
        self.knocks: list[float] = []
        """When the client tried to open a WebSocket."""
        self.shut = False
        """Nobody listens."""
        self.stuck = False
        """The WebSocket handshake does not finish."""
        self._came = anyio.Event()

    async def opening(self, endpoint: Any) -> Any:
        self.knocks.append(round(self.stage.loop.time() - self.stage.start, 3))
        if self.stuck:
            await anyio.sleep_forever()
        if self.shut:
            raise ConnectFailedError("nobody listens", stage="handshake")
        stage = self.stage
        stage.near, stage.far = stage.loop.kit.memory_transports()
        stage.peer = ScriptedPeer(stage.far)
        self.pairs.append((stage.near, stage.far))
        self._came.set()
        self._came = anyio.Event()
        return stage.near

    async def visitor(self, number: int, *messages: Any) -> None:
        """Wait for the client's visit, counted from 1, and say something."""
        while len(self.pairs) < number:
            await self._came.wait()
        await self.stage.say(*messages)


def door(stage: Any) -> Door:
    if not hasattr(stage, "door"):
        stage.door = Door(stage)
    found: Door = stage.door
    return found


async def opening(stage: Any, endpoint: Any) -> Any:
    return await door(stage).opening(endpoint)


@frozen(kw_only=True)
class Played:
    """What both loops did. Everything else is asked of the trace."""

    trace: Any
    knocks: list[float]
    sent: list[list[Any]]
    """What the client sent, by connection."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trace, name)


Play = Callable[..., Any]


@pytest.fixture(name="play")
def plays_with_a_door(parity: Any) -> Play:
    """A scenario with a door. `far` gets the stage and its door."""

    def play(
        far: Callable[[Any, Door], Awaitable[None]],
        body: Any = None,
        *,
        reconnect: Any = POLICY,
        cancel_after: float | None = None,
        **options: Any,
    ) -> Any:
        stages: list[Any] = []

        async def whole(stage: Any) -> None:
            stages.append(stage)
            await far(stage, door(stage))

        options = {"media": False, "transport": opening, "reconnect": reconnect, **options}
        if cancel_after is None:
            trace = parity(whole, body, **options)
        else:
            trace = parity.cancelled(cancel_after, whole, body, **options)
        first, second = (_played(trace, stage) for stage in stages)
        assert first.knocks == second.knocks
        return first

    return play


@pytest.fixture(name="play_apart")
def plays_apart_with_a_door(parity: Any) -> Play:
    """The same, and what each loop did, not compared: see Parity.apart()."""

    def play(far: Callable[[Any, Door], Awaitable[None]], body: Any, **options: Any) -> Any:
        stages: list[Any] = []

        async def whole(stage: Any) -> None:
            stages.append(stage)
            await far(stage, door(stage))

        options = {"media": False, "transport": opening, "reconnect": POLICY, **options}
        traces = parity.apart(whole, body, **options)
        return [_played(*each) for each in zip(traces, stages, strict=True)]

    return play


def _played(trace: Any, stage: Any) -> Played:
    for near, _ in stage.door.pairs:
        assert near.closed.is_set()
    sent = [[json.loads(text) for text in near.sent] for near, _ in stage.door.pairs]
    return Played(trace=trace, knocks=stage.door.knocks, sent=sent)


def texts(sent: list[Any]) -> list[str]:
    """The user's messages of one connection."""
    return [
        part["text"]
        for message in sent
        if message["type"] == UserMessage.TYPE
        for part in message["item"].get("content", ())
    ]


def content(message: Any) -> Any:
    """What an input_config says."""
    return json.loads(message["data"]["content"])


def told(trace: Any, *names: str) -> list[str]:
    """What the application read of some classes of events."""
    return [step.text for step in trace.steps if step.what == "read" and step.name in names]


def said(trace: Any) -> list[str]:
    return told(trace, "Reconnecting", "Reconnected", "Closed")


def again(attempt: int, delay: float, reason: str = LOST) -> str:
    return repr(Reconnecting(attempt=attempt, delay=delay, reason=reason))


def back(number: int, attempts: int = 1) -> str:
    return repr(Reconnected(session_id=f"s-{number}", attempts=attempts))


def closed(cause: CloseCause = CloseCause.LOCAL, code: int | None = 1000, reason: str = "") -> str:
    return repr(Closed(cause=cause, code=code, reason=reason))


async def until(session: Any, kind: type, stage: Any) -> Any:
    """Read events up to the next of a class."""
    async for event in session.events():
        stage.read(event)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


async def media(stage: Any, number: int) -> None:
    """The far end's part of a session with media, until it is usable."""
    success, created, updated = ready(number)
    await stage.say(success, stage.peer.offer(), created, updated)
    heard = None
    while not isinstance(heard, Answer):
        heard = await stage.peer.hear(object)
    stage.peer.take(heard)
    await stage.idle()
