"""A conversation with one connection, written down as it should go.

::

    book = Playbook(Role.CLIENT, ClientConfig(media=()))
    book >> OPENED
    book >> ConnectedSuccess(session_id="s1") << Emit
    book >> SessionCreated()
    book >> SessionUpdated() << Emit(event=Ready()) << Emit
    book >> SayText(text="hi") << SendText << SendText
    book.end()

``>>`` gives the connection an input, ``<<`` says which action must be next: one to compare with, or
a class. What an input brought about must be said before the next input; :meth:`Playbook.end` checks
that nothing is left.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias, cast, get_args

from attrs import frozen

from navtalk_proto.actions import Action, MediaCommand, MediaResult
from navtalk_proto.config import ClientConfig, ServerConfig
from navtalk_proto.connection import Connection
from navtalk_proto.intents import Close, Negotiate, SayText, SendAudio
from navtalk_proto.media import MediaEvent, OpId
from navtalk_proto.roles import Role
from navtalk_proto.testing.clock import VirtualClock
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import ClientMessage, Message, ServerMessage

__all__ = ["OPENED", "Done", "Failed", "Input", "Lost", "Ours", "Pass", "Playbook"]


class _Opened(Enum):
    OPENED = "opened"


OPENED: Final = _Opened.OPENED
"""The transport opened."""


@frozen
class Lost:
    """The transport closed."""

    code: int | None = None
    reason: str = ""


@frozen
class Pass:
    """Time passes; what is due by then fires."""

    seconds: float


@frozen
class Done:
    """The engine carried out the command `op`."""

    op: OpId
    result: MediaResult = None


@frozen
class Failed:
    """The engine could not carry out the command `op`."""

    op: OpId
    reason: str = "failed"


@frozen
class Ours:
    """A message that our side sends, where both sides may send its class."""

    message: Message


Input: TypeAlias = (
    _Opened
    | Lost
    | Pass
    | Done
    | Failed
    | Ours
    | str
    | bytes
    | MediaEvent
    | Close
    | Negotiate
    | SendAudio
    | SayText
    | Message
)
"""What ``>>`` takes. A message of the far end's is received, one of ours is sent; a text is
received as it is, bytes as a binary message of that size."""

_INTENTS: Final = (Close, Negotiate, SendAudio, SayText)


class Playbook:
    """One connection and what is expected of it. A surprise raises AssertionError."""

    def __init__(
        self,
        role: Role,
        config: ClientConfig | ServerConfig,
        *,
        clock: VirtualClock | None = None,
    ) -> None:
        self.clock: VirtualClock = clock or VirtualClock()
        self.connection: Connection = Connection(role, config, now=self.clock.now)
        self.last: Action | None = None
        """The action that was matched last."""
        # Classes that both sides send are the far end's unless wrapped in Ours.
        ours, theirs = set(get_args(ClientMessage)), set(get_args(ServerMessage))
        if role is Role.SERVER:
            ours, theirs = theirs, ours
        self._sent: tuple[type, ...] = (*_INTENTS, *(ours - theirs))
        self._left: list[Action] = []
        self._input: object = None

    @property
    def op(self) -> OpId:
        """The id of the media command matched last, for Done and Failed."""
        assert isinstance(self.last, get_args(MediaCommand)), f"{self.last!r} is no media command"
        return OpId(self.last.op)

    def __rshift__(self, given: Input) -> Playbook:
        """Give an input."""
        self.end()
        self._input = given
        connection, now = self.connection, self.clock.now
        if given is OPENED:
            connection.transport_opened(now=now)
        elif isinstance(given, Lost):
            connection.transport_closed(code=given.code, reason=given.reason, now=now)
        elif isinstance(given, Pass):
            self.clock.advance(given.seconds)
            connection.handle_timeout(now=self.clock.now)
        elif isinstance(given, Done):
            connection.media_done(given.op, given.result, now=now)
        elif isinstance(given, Failed):
            connection.media_failed(given.op, given.reason, now=now)
        elif isinstance(given, Ours):
            connection.send(given.message, now=now)
        elif isinstance(given, str):
            connection.receive_text(given, now=now)
        elif isinstance(given, bytes):
            connection.receive_binary(len(given), now=now)
        elif isinstance(given, get_args(MediaEvent)):
            connection.media_event(given, now=now)
        elif isinstance(given, self._sent):
            connection.send(given, now=now)  # type: ignore[arg-type]
        else:
            connection.receive_text(codec.encode(cast("Message", given)), now=now)
        self._left = connection.actions()
        return self

    def __lshift__(self, expected: Action | type) -> Playbook:
        """Expect an action."""
        assert self._left, f"{self._input!r} brought about no further action, not {expected!r}"
        self.last = self._left.pop(0)
        matches = (
            isinstance(self.last, expected) if isinstance(expected, type) else self.last == expected
        )
        assert matches, f"{self._input!r} brought about {self.last!r}, not {expected!r}"
        return self

    def end(self) -> None:
        """Check that every action so far was expected."""
        assert not self._left, f"{self._input!r} also brought about {self._left!r}"
