"""The lifecycle of one session, from the open WebSocket to its end.

Theory of operation
===================

1. A session is one WebSocket, never resumed (protocol.md 3.3). Its states are the steps that the
   server announces: connected.success, session.created, session.updated.

2. The table is direction-neutral. An input says who sends a message (``S_`` the server, ``C_`` the
   client), not who we are; this file does not know which role is ours. What the edge *does* is
   named by an :class:`Effect`; :mod:`navtalk_proto.connection` carries it out, and is the only
   file that asks for the role: an effect of a message from the far end becomes events, the same
   effect of a message of ours becomes the message.

3. Every pair of state and input is in exactly one class: an edge of ``TRANSITIONS``; ignored on
   purpose (``IGNORED``); or a mistake of whoever caused it (neither). A mistake of ours raises
   LocalProtocolError and changes nothing, one of the far end is a ProtocolViolation.

4. Nothing here was checked against the live service. Messages that come in the wrong order but
   make sense are edges with ``out_of_order=True``: taken from the far end with an OutOfOrder
   event, refused when we are about to send them.

5. Client messages have edges everywhere after the transport opened, because stock clients send
   their configuration before the welcome (protocol.md 3.1). What *we* may send before READY is
   narrower: ``local`` says whether a message of ours leaves, waits for READY, or is too early.

6. Timers stand in the table. One whose duration the configuration does not give is never armed:
   that is how the welcome, set-up and connect timers run in clients only.

What does not fit: "the first connected.success" and "a further one" are two inputs, told apart by
whether a session id is known; and the CONNECT timer ends with media, which another machine knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from attrs import frozen

from navtalk_proto.identity_hash import identity_hash
from navtalk_proto.timers import Timer

__all__ = [
    "State",
    "Input",
    "Effect",
    "Local",
    "Verdict",
    "Edge",
    "TRANSITIONS",
    "IGNORED",
    "Lifecycle",
]


@identity_hash
class State(Enum):
    """Where a session is."""

    IDLE = "idle"
    """The transport is not open yet."""
    WELCOMING = "welcoming"
    """Waiting for connected.success."""
    OPENING = "opening"
    """Waiting for session.created."""
    CONFIGURING = "configuring"
    """Waiting for session.updated."""
    READY = "ready"
    """Audio may flow."""
    CLOSING = "closing"
    """The closing handshake is under way; what still arrives is ignored."""
    CLOSED = "closed"


@identity_hash
class Input(Enum):
    """What can happen to a session. ``S_``: the server sends; ``C_``: the client sends."""

    OPENED = "transport opened"
    LOST = "transport closed"
    S_SUCCESS = "first connected.success"
    S_SUCCESS_READY = "first connected.success, of a mode without turns"
    S_SUCCESS_AGAIN = "second connected.success"
    S_WARNING = "connected.warning"
    S_REFUSAL = "refusal"
    S_GOODBYE = "connected.close"
    S_CREATED = "session.created"
    S_UPDATED = "session.updated"
    S_CONVERSATION = "conversation message of the server"
    C_CONFIG = "configuration of the client"
    C_ITEM = "conversation item of the client"
    C_MEDIA = "audio or picture of the client"
    SIGNALING = "signaling message"
    UNKNOWN = "unknown message"
    WISH = "wish to negotiate"
    CLOSE = "close request"
    FATAL = "fatal violation"
    MEDIA_LOST = "media lost for good"
    T_WELCOME = "welcome timer"
    T_SETUP = "set-up timer"
    T_CONNECT = "connect timer"
    T_FAREWELL = "farewell timer"
    T_IDLE = "idle timer"
    T_CLOSE = "close timer"


class Effect(Enum):
    """What an edge does; carried out by connection.py."""

    START = "send the queued configuration"
    WELCOME = "note session id and ICE servers"
    WELCOME_READY = "note session id and ICE servers, tell that audio may flow"
    WARN = "tell of the ambiguous name"
    REFUSE = "tell of the refusal and close"
    NOTICE = "tell that the session is about to end"
    GOODBYE = "tell of the announced end and close"
    CREATED = "send the history"
    READY = "tell that audio may flow, send what waited"
    RECONFIGURED = "tell that the configuration changed"
    MESSAGE = "pass the message on"
    SIGNAL = "hand to the negotiation"
    CLOSE = "close as asked"
    VIOLATED = "close because of the far end's mistakes"
    MEDIA_LOST = "close because media does not come back"
    TIMED_OUT = "tell what was waited for and close"
    FAREWELL = "close because the server did not"
    FAILED = "tell that no session came about, and the end"
    END = "tell the end"
    FORCE_END = "drop the transport and tell the end"


class Local(Enum):
    """What becomes of a message that *we* want to send."""

    SEND = "leaves now"
    QUEUE = "waits for READY"
    TOO_EARLY = "NotReadyError"


class Verdict(Enum):
    """The two classes of pairs that are not edges."""

    IGNORED = "ignored on purpose"
    MISTAKE = "a mistake of the sender"


@frozen(kw_only=True)
class Edge:
    """One row of the table."""

    state: State
    effect: Effect
    start: tuple[Timer, ...] = ()
    stop: tuple[Timer, ...] = ()
    out_of_order: bool = False
    local: Local = Local.SEND


_SETTING_UP = (State.WELCOMING, State.OPENING, State.CONFIGURING)
_LIVE = (*_SETTING_UP, State.READY)
_MESSAGES = (
    Input.S_SUCCESS,
    Input.S_SUCCESS_READY,
    Input.S_SUCCESS_AGAIN,
    Input.S_WARNING,
    Input.S_REFUSAL,
    Input.S_GOODBYE,
    Input.S_CREATED,
    Input.S_UPDATED,
    Input.S_CONVERSATION,
    Input.C_CONFIG,
    Input.C_ITEM,
    Input.C_MEDIA,
    Input.SIGNALING,
    Input.UNKNOWN,
)
_TIMERS = (
    Input.T_WELCOME,
    Input.T_SETUP,
    Input.T_CONNECT,
    Input.T_FAREWELL,
    Input.T_IDLE,
    Input.T_CLOSE,
)


def _build() -> dict[tuple[State, Input], Edge]:
    table: dict[tuple[State, Input], Edge] = {}

    def edge(state: State, kind: Input, to: State, effect: Effect, **more: object) -> None:
        assert (state, kind) not in table, (state, kind)
        table[state, kind] = Edge(state=to, effect=effect, **more)  # type: ignore[arg-type]

    # Opening. The transport is up; the client's configuration may leave before the welcome.
    edge(
        State.IDLE,
        Input.OPENED,
        State.WELCOMING,
        Effect.START,
        start=(Timer.WELCOME, Timer.CONNECT, Timer.IDLE),
    )
    edge(State.IDLE, Input.LOST, State.CLOSED, Effect.FAILED)
    edge(State.IDLE, Input.CLOSE, State.CLOSED, Effect.END)
    edge(State.IDLE, Input.FATAL, State.CLOSED, Effect.END)
    edge(State.IDLE, Input.C_CONFIG, State.IDLE, Effect.MESSAGE, local=Local.QUEUE)
    edge(State.IDLE, Input.C_ITEM, State.IDLE, Effect.MESSAGE, local=Local.QUEUE)
    edge(State.IDLE, Input.C_MEDIA, State.IDLE, Effect.MESSAGE, local=Local.TOO_EARLY)

    # The three announcements, in order and (from the far end) out of it.
    edge(
        State.WELCOMING,
        Input.S_SUCCESS,
        State.OPENING,
        Effect.WELCOME,
        stop=(Timer.WELCOME,),
        start=(Timer.SETUP,),
    )
    for late in (State.CONFIGURING, State.READY):
        edge(late, Input.S_SUCCESS, late, Effect.WELCOME, out_of_order=True)
    # protocol.md 6.2: a caller that brings the human's speech pushes it from success on.
    edge(
        State.WELCOMING,
        Input.S_SUCCESS_READY,
        State.READY,
        Effect.WELCOME_READY,
        stop=(Timer.WELCOME,),
    )
    edge(State.OPENING, Input.S_CREATED, State.CONFIGURING, Effect.CREATED, start=(Timer.SETUP,))
    edge(
        State.WELCOMING,
        Input.S_CREATED,
        State.CONFIGURING,
        Effect.CREATED,
        out_of_order=True,
        stop=(Timer.WELCOME,),
        start=(Timer.SETUP,),
    )
    # protocol.md 6.4: in practice created and updated come together, updated may come alone.
    edge(State.READY, Input.S_CREATED, State.READY, Effect.CREATED, out_of_order=True)
    edge(State.CONFIGURING, Input.S_UPDATED, State.READY, Effect.READY, stop=(Timer.SETUP,))
    for unannounced in (State.WELCOMING, State.OPENING):
        edge(
            unannounced,
            Input.S_UPDATED,
            State.READY,
            Effect.READY,
            out_of_order=True,
            stop=(Timer.WELCOME, Timer.SETUP),
        )
    edge(State.READY, Input.S_UPDATED, State.READY, Effect.RECONFIGURED)

    # The server ends it.
    for state in _SETTING_UP:
        edge(state, Input.S_REFUSAL, State.CLOSING, Effect.REFUSE, start=(Timer.CLOSE,))
        edge(state, Input.LOST, State.CLOSED, Effect.FAILED)
    edge(State.READY, Input.S_REFUSAL, State.READY, Effect.NOTICE, start=(Timer.FAREWELL,))
    edge(State.READY, Input.T_FAREWELL, State.CLOSING, Effect.FAREWELL, start=(Timer.CLOSE,))
    edge(State.READY, Input.LOST, State.CLOSED, Effect.END)

    # What may happen in every live state.
    for state in _LIVE:
        early = state is State.WELCOMING
        edge(state, Input.S_WARNING, state, Effect.WARN, out_of_order=early)
        edge(state, Input.S_GOODBYE, State.CLOSING, Effect.GOODBYE, start=(Timer.CLOSE,))
        edge(state, Input.S_CONVERSATION, state, Effect.MESSAGE, out_of_order=early)
        edge(state, Input.UNKNOWN, state, Effect.MESSAGE)
        edge(state, Input.C_CONFIG, state, Effect.MESSAGE)
        ready = state is State.READY
        edge(
            state,
            Input.C_ITEM,
            state,
            Effect.MESSAGE,
            local=Local.SEND if ready else Local.QUEUE,
        )
        edge(
            state,
            Input.C_MEDIA,
            state,
            Effect.MESSAGE,
            local=Local.SEND if ready else Local.TOO_EARLY,
        )
        edge(state, Input.SIGNALING, state, Effect.SIGNAL, out_of_order=early)
        edge(
            state,
            Input.WISH,
            state,
            Effect.SIGNAL,
            local=Local.TOO_EARLY if early else Local.SEND,
        )
        edge(state, Input.CLOSE, State.CLOSING, Effect.CLOSE, start=(Timer.CLOSE,))
        edge(state, Input.FATAL, State.CLOSING, Effect.VIOLATED, start=(Timer.CLOSE,))
        edge(state, Input.MEDIA_LOST, State.CLOSING, Effect.MEDIA_LOST, start=(Timer.CLOSE,))
        edge(state, Input.T_CONNECT, State.CLOSING, Effect.TIMED_OUT, start=(Timer.CLOSE,))
        edge(state, Input.T_IDLE, State.CLOSING, Effect.TIMED_OUT, start=(Timer.CLOSE,))
    edge(State.WELCOMING, Input.T_WELCOME, State.CLOSING, Effect.TIMED_OUT, start=(Timer.CLOSE,))
    for state in (State.OPENING, State.CONFIGURING):
        edge(state, Input.T_SETUP, State.CLOSING, Effect.TIMED_OUT, start=(Timer.CLOSE,))

    # The end.
    edge(State.CLOSING, Input.LOST, State.CLOSED, Effect.END)
    edge(State.CLOSING, Input.T_CLOSE, State.CLOSED, Effect.FORCE_END)
    return table


_TABLE: Final = _build()
"""Looked into with every message; through a MappingProxyType that takes thrice as long."""

TRANSITIONS: Final[Mapping[tuple[State, Input], Edge]] = MappingProxyType(_TABLE)

IGNORED: Final[frozenset[tuple[State, Input]]] = frozenset(
    # What crossed our close on its way, and closing twice.
    {(State.CLOSING, kind) for kind in (*_MESSAGES, Input.CLOSE, Input.FATAL)}
    # Nothing matters after the end; send() raises SessionClosedError before it asks the table.
    | {(State.CLOSED, kind) for kind in Input}
)


class Lifecycle:
    """The state of one session. Everything that moves it is :meth:`take`."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: State = State.IDLE
        """The current state, to be read."""

    def look(self, kind: Input) -> Edge | Verdict:
        """The class of this input now, without taking the edge."""
        edge = _TABLE.get((self.state, kind))
        if edge is not None:
            return edge
        if (self.state, kind) in IGNORED:
            return Verdict.IGNORED
        return Verdict.MISTAKE

    def take(self, edge: Edge) -> None:
        """Move along an edge that :meth:`look` returned."""
        self.state = edge.state

    def __repr__(self) -> str:
        return f"<Lifecycle {self.state.value}>"
