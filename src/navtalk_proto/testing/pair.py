"""A client and a server connection, joined without I/O."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from attrs import define, field, frozen

from navtalk_proto.actions import (
    AbortTransport,
    Action,
    CloseTransport,
    Emit,
    MediaCommand,
    SendText,
)
from navtalk_proto.config import ClientConfig, ServerConfig
from navtalk_proto.connection import Connection
from navtalk_proto.events import Event
from navtalk_proto.intents import Intent
from navtalk_proto.roles import Role
from navtalk_proto.testing.clock import VirtualClock
from navtalk_proto.testing.engine import StrictEngine

__all__ = ["Cut", "End", "Link", "LinkedPair"]

E = TypeVar("E")

_ROUNDS = 10_000
"""A pair that is still busy after so many steps never settles."""


@frozen(kw_only=True)
class Cut:
    """The end of a link's traffic: a close frame, or (`code` None) a lost connection."""

    code: int | None
    reason: str


@define(kw_only=True)
class Link:
    """One direction of the WebSocket. What was sent waits in :attr:`queue` until delivered.

    A test holds the link by setting :attr:`held`, then reads, reorders or drops what is queued.
    """

    queue: deque[SendText | Cut] = field(factory=deque)
    held: bool = False

    def kinds(self) -> list[str]:
        """The type strings of the queued messages, in order."""
        return [item.kind for item in self.queue if isinstance(item, SendText)]


@define(kw_only=True)
class End:
    """One end of the pair: a connection, its engine, and what it told."""

    name: str
    connection: Connection
    engine: StrictEngine
    outbox: Link
    actions: list[Action] = field(factory=list)
    """Every action so far."""
    events: list[Event] = field(factory=list)
    """Every event so far."""
    engine_held: bool = False
    """Media commands are not finished while this is set."""
    open: bool = False

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def sent(self) -> list[str]:
        """The type strings of everything sent, in order."""
        return [action.kind for action in self.actions if isinstance(action, SendText)]


class LinkedPair:
    """A client and a server that talk over two links, driven by a test.

    Every method that makes something happen runs both ends until nothing is left to do, except for
    what a test holds back: a link (``pair.to_client.held``) or an engine
    (``pair.client.engine_held``). Both configurations are strict unless given.
    """

    def __init__(
        self,
        client: ClientConfig | None = None,
        server: ServerConfig | None = None,
        *,
        clock: VirtualClock | None = None,
        client_engine: StrictEngine | None = None,
        server_engine: StrictEngine | None = None,
    ) -> None:
        self.clock: VirtualClock = clock or VirtualClock()
        client = client or ClientConfig(strict=True)
        server = server or ServerConfig(strict=True)
        self.to_server: Link = Link()
        self.to_client: Link = Link()
        now = self.clock.now
        self.client: End = End(
            name="client",
            connection=Connection(Role.CLIENT, client, now=now),
            engine=client_engine or StrictEngine("c", capabilities=client.capabilities),
            outbox=self.to_server,
        )
        self.server: End = End(
            name="server",
            connection=Connection(Role.SERVER, server, now=now),
            engine=server_engine or StrictEngine("s", capabilities=server.capabilities),
            outbox=self.to_client,
        )

    def open(self) -> None:
        """Finish the WebSocket handshake on both ends."""
        for end in (self.server, self.client):
            end.open = True
            end.connection.transport_opened(now=self.clock.now)
        self.run()

    def send(self, end: End, *intents: Intent) -> None:
        """Send intents from one end."""
        for intent in intents:
            end.connection.send(intent, now=self.clock.now)
        self.run()

    def advance(self, seconds: float) -> None:
        """Let time pass, firing every deadline on its way in order."""
        until = self.clock.now + seconds
        while True:
            deadlines = [
                when
                for end in (self.client, self.server)
                if (when := end.connection.next_timeout()) is not None and when <= until
            ]
            self.clock.advance_to(max(self.clock.now, min(deadlines)) if deadlines else until)
            for end in (self.client, self.server):
                end.connection.handle_timeout(now=self.clock.now)
            self.run()
            if not deadlines:
                return

    def run(self) -> None:
        """Run both ends until nothing that is not held is left to do."""
        for _ in range(_ROUNDS):
            if not any([self._step(self.client), self._step(self.server)]):
                return
        raise AssertionError("the pair does not settle")

    def _step(self, end: End) -> bool:
        busy = self._perform(end)
        if end.engine.busy and not end.engine_held:
            self.finish(end)
            busy = True
        elif end.engine.events and not end.engine_held:
            end.connection.media_event(end.engine.events.popleft(), now=self.clock.now)
            busy = True
        if end.outbox.queue and not end.outbox.held:
            self.deliver(end)
            busy = True
        return busy

    def finish(self, end: End, *, fail: str | None = None) -> MediaCommand:
        """Finish the oldest media command of one end, also while its engine is held."""
        command, result, reason = end.engine.finish(fail=fail)
        if reason is None:
            end.connection.media_done(command.op, result, now=self.clock.now)
        else:
            end.connection.media_failed(command.op, reason, now=self.clock.now)
        self._perform(end)
        return command

    def deliver(self, end: End) -> SendText | Cut:
        """Deliver the oldest message that `end` sent, also while its link is held."""
        item = end.outbox.queue.popleft()
        peer = self.client if end is self.server else self.server
        if isinstance(item, SendText):
            peer.connection.receive_text(item.text, now=self.clock.now)
        else:
            end.outbox.queue.clear()
            # The closing handshake: the far end sees the close frame, then we see its echo.
            for side in (peer, end):
                side.open = False
                side.connection.transport_closed(
                    code=item.code, reason=item.reason, now=self.clock.now
                )
                self._perform(side)
        self._perform(peer)
        return item

    def cut(self) -> None:
        """Lose the connection: both ends see it end without a close frame."""
        for end in (self.client, self.server):
            end.outbox.queue.clear()
            end.open = False
            end.connection.transport_closed(code=None, reason="", now=self.clock.now)
        self.run()

    def _perform(self, end: End) -> bool:
        actions = end.connection.actions()
        for action in actions:
            end.actions.append(action)
            match action:
                case SendText():
                    assert end.open, f"{end.name} sends after its transport closed"
                    end.outbox.queue.append(action)
                case Emit():
                    end.events.append(action.event)
                case CloseTransport():
                    end.outbox.queue.append(Cut(code=action.code, reason=action.reason))
                case AbortTransport():
                    end.open = False
                    end.outbox.queue.append(Cut(code=None, reason=""))
                case _:
                    end.engine.execute(action)
        return bool(actions)
