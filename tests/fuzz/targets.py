"""Receiving never raises; a violation is an event; counters add up; Closed once and last; what is
held stays within Limits; decode(encode(m)) == m.

Each function takes any bytes and raises only when an invariant is broken. Hypothesis feeds them
(test_fuzz.py), atheris does (atheris_targets.py), and what atheris found worth keeping is replayed
(test_corpus.py).

A session is written as bytes, see :func:`connection`: a header byte, then records between 0x1E. A
record is a text that is received, unless its first byte is below 0x09: then it is something else
that happens to a connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, get_args

from navtalk_proto.actions import (
    AbortTransport,
    CloseTransport,
    Emit,
    MediaCommand,
    SendText,
)
from navtalk_proto.config import ClientConfig, ServerConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import (
    EndpointError,
    LocalProtocolError,
    MalformedMessageError,
    NavTalkError,
)
from navtalk_proto.events import (
    BinaryIgnored,
    Closed,
    Event,
    OutOfOrder,
    ProtocolViolation,
    UnknownMessage,
)
from navtalk_proto.intents import Close, Negotiate, SayText, SendAudio
from navtalk_proto.limits import MIB, Limits
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import MediaKind, MediaLine
from navtalk_proto.roles import Role
from navtalk_proto.testing.engine import StrictEngine
from navtalk_proto.testing.scripted_peer import ScriptedPeer
from navtalk_proto.wire import codec, jsontext
from navtalk_proto.wire.endpoint import Endpoint, parse_request_target
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    FunctionCallDone,
    IceCandidate,
    InputText,
    Offer,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
    ToolResult,
    TranscriptDelta,
    Unknown,
)
from navtalk_proto.wire.sdp import candidate_ufrag, check_description, same_transport

__all__ = ["SEPARATOR", "STATES", "TARGETS", "Session", "begun", "connection"]

SEPARATOR: Final = b"\x1e"
"""Between two records of a session (RFC 7464 has it between JSON texts)."""

STATES: Final = ("new", "welcoming", "opening", "configuring", "ready", "talking", "closing")
"""Where a session may be when the records begin."""

ENGINE_DONE, ENGINE_FAILS, TIME, OPENED, LOST, BINARY, INTENT = range(1, 8)

MEDIA: Final = (MediaLine(kind=MediaKind.VIDEO), MediaLine(kind=MediaKind.AUDIO))
SMALL: Final = Limits(
    client_message=65_536,
    server_message=65_536,
    sdp=8192,
    candidates=4,
    candidate=512,
    violations=8,
    queued_intents=8,
    queued_bytes=4096,
    unknown_raw=64,
    ice_servers=2,
    values=512,
    m_lines=8,
)
"""Small, so that short inputs reach the bounds."""
WIDE: Final = Limits(
    client_message=64 * MIB, server_message=64 * MIB, sdp=16 * MIB, candidate=MIB, values=10**7
)
"""For what we wrote ourselves, which may say the same thing twice."""


class Session:
    """One connection with a strict engine; every input is followed by all the checks."""

    def __init__(self, role: Role, *, media: bool) -> None:
        lines = MEDIA if media else ()
        self.now = 0.0
        self.engine = StrictEngine("n")
        self.core = Connection(
            role,
            ClientConfig(media=lines, limits=SMALL)
            if role is Role.CLIENT
            else ServerConfig(media=lines, limits=SMALL, idle_timeout=60.0),
            now=0.0,
        )
        self.events: list[Event] = []
        self.sent = 0
        self.texts = 0

    # ---- inputs

    def open(self) -> None:
        """The transport opens, which it does once."""
        if self.core.state is State.IDLE:
            self.core.transport_opened(now=self.now)
        self.check()

    def receive(self, text: str | bytes) -> None:
        """Something was received on an open transport."""
        if self.core.state is not State.IDLE:
            self.core.receive_text(text, now=self.now)
            self.texts += 1
            self.check()

    def receive_binary(self, size: int) -> None:
        if self.core.state is not State.IDLE:
            self.core.receive_binary(size, now=self.now)
            self.check()

    def lose(self) -> None:
        """The transport closes."""
        self.core.transport_closed(code=None, reason="", now=self.now)
        self.check()

    def pass_time(self) -> None:
        """The next timer fires."""
        when = self.core.next_timeout()
        if when is not None:
            self.now = max(self.now, when)
            self.core.handle_timeout(now=self.now)
            after = self.core.next_timeout()
            assert after is None or after > self.now, "the timer that fired is due again"
            self.check()

    def run_engine(self, *, fail: bool = False) -> None:
        """The oldest command ends, and what happens to media on its own is told."""
        if self.engine.busy:
            command, result, reason = self.engine.finish(fail="fuzzed" if fail else None)
            if reason is None:
                self.core.media_done(command.op, result, now=self.now)
            else:
                self.core.media_failed(command.op, reason, now=self.now)
        while self.engine.events:
            self.core.media_event(self.engine.events.popleft(), now=self.now)
        self.check()

    def settle(self) -> None:
        """Every command ends well."""
        while self.engine.busy:
            self.run_engine()

    def intend(self, number: int) -> None:
        """Something of the application; it may be refused, and then nothing changes."""
        with suppress(NavTalkError):
            self.core.send(_INTENTS[number % len(_INTENTS)], now=self.now)
        self.check()

    # ---- the checks

    def check(self) -> None:
        for action in self.core.actions():
            assert not self._closed, f"{action!r} after Closed"
            if isinstance(action, Emit):
                self.events.append(action.event)
            elif isinstance(action, SendText):
                self.sent += 1
                codec.decode(action.text, sender=self.core.role, limits=WIDE)
            elif not isinstance(action, CloseTransport | AbortTransport):
                assert isinstance(action, get_args(MediaCommand))
                self.engine.execute(action)
        counters = self.core.counters
        assert counters.received == self.texts
        assert counters.sent == self.sent
        assert counters.violations == self._told(ProtocolViolation)
        assert counters.unknown == self._told(UnknownMessage)
        assert counters.out_of_order == self._told(OutOfOrder)
        assert counters.binary == self._told(BinaryIgnored)
        assert counters.violations <= SMALL.violations + 1
        assert self._closed == (self.core.state is State.CLOSED)
        negotiation = self.core._negotiation
        assert negotiation.held_candidates <= SMALL.candidates
        assert len(negotiation._adding) <= SMALL.candidates
        assert len(negotiation._unsent) <= SMALL.candidates
        waiting = [text for _, text in (*self.core._early, *self.core._waiting)]
        assert len(waiting) <= SMALL.queued_intents
        assert sum(map(len, waiting)) <= SMALL.queued_bytes
        repr(self.core)

    def end(self) -> None:
        """Lose the transport: Closed was told, once, and last."""
        self.lose()
        assert self._told(Closed) == 1
        assert self.core.next_timeout() is None
        repr(self.events)

    @property
    def _closed(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Closed)

    def _told(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


_INTENTS: Final[tuple[Any, ...]] = (
    Close(code=1000, reason="fuzzed"),
    Negotiate(media=MEDIA),
    SayText(text="hello"),
    SendAudio(pcm=b"\0\0"),
    ResponseCreate(),
    InputText(content="x" * 2000),
    ToolResult(call_id="call_1", output="{}"),
    SessionCreated(),
    SessionUpdated(),
    ConnectedSuccess(session_id="s"),
    TranscriptDelta(response_id="r", content="x"),
)

_NO_TRANSPORT: Final[Any] = None
_PRELUDE: Final = (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated())


def begun(role: Role, state: str, *, media: bool) -> Session:
    """A session in a state of STATES. ``talking``: ready, and descriptions were exchanged."""
    session = Session(role, media=media)
    steps = STATES.index(state)
    if steps == 0:
        return session
    session.open()
    for message in _PRELUDE[: steps - 1]:
        if role is Role.CLIENT:
            session.receive(codec.encode(message))
        else:
            session.intend(_INTENTS.index(message))
    if state in ("talking", "closing"):
        far = ScriptedPeer(_NO_TRANSPORT, role=role.peer, name="f")
        if role is Role.CLIENT:
            session.receive(codec.encode(far.offer()))
            session.settle()
        else:
            session.intend(_INTENTS.index(Negotiate(media=MEDIA)))
            session.settle()
            if isinstance(session.engine.local, Offer):
                session.receive(codec.encode(far.answer(session.engine.local)))
                session.settle()
    if state == "closing":
        session.intend(_INTENTS.index(Close(code=1000, reason="fuzzed")))
    return session


def connection(data: bytes) -> None:
    """A whole session of either role, from any state.

    The header's bits, from the lowest: the role, media, texts as bytes; the rest is the state.
    """
    if not data:
        return
    header = data[0]
    role = Role.SERVER if header & 1 else Role.CLIENT
    session = begun(role, STATES[(header >> 3) % len(STATES)], media=bool(header & 2))
    for record in data[1:].split(SEPARATOR):
        kind = record[0] if record else 0
        if kind == ENGINE_DONE:
            session.run_engine()
        elif kind == ENGINE_FAILS:
            session.run_engine(fail=True)
        elif kind == TIME:
            session.pass_time()
        elif kind == OPENED:
            session.open()
        elif kind == LOST:
            session.lose()
        elif kind == BINARY:
            session.receive_binary(len(record))
        elif kind == INTENT:
            session.intend(record[1] if len(record) > 1 else 0)
        else:
            session.receive(record if header & 4 else _text(record))
    session.end()


def _text(data: bytes) -> str:
    """Any bytes as a text; those that are not UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def decode_and_encode(data: bytes) -> None:
    """Decoding raises nothing but MalformedMessageError; what was decoded survives the wire."""
    sender = Role.SERVER if data[:1] < b"\x80" else Role.CLIENT
    text: str | bytes = data[1:] if data[:1] > b"\x40" else _text(data[1:])
    try:
        message = codec.decode(text, sender=sender, limits=Limits())
    except MalformedMessageError:
        return
    repr(message)
    if isinstance(message, Unknown):
        assert len(message.type) <= codec.MAX_TYPE
        assert len(message.raw) <= Limits().unknown_raw
        return
    try:
        written = codec.encode(message)
    except LocalProtocolError:
        return  # Read, but not to be written: a user name without its credential.
    again = codec.decode(written, sender=sender, limits=WIDE)
    assert not isinstance(again, Unknown)
    assert codec.encode(again) == written
    if not (isinstance(message, FunctionCallDone) and message.raw_data is None):
        # Written for the JS SDK, which needs raw_data.name.
        assert again == message


def description(data: bytes) -> None:
    """A description is refused with MalformedMessageError, or all its m-lines make sense."""
    offer = Offer(sdp=_text(data))
    try:
        sdp = check_description(offer, Limits())
    except MalformedMessageError:
        return
    assert 1 <= len(sdp.medias) <= Limits().m_lines
    for media in sdp.medias:
        if media.active:
            assert media.ufrag
            assert media.fingerprints
        else:
            assert media.ufrag is None
            assert not media.fingerprints
    assert same_transport(sdp, sdp)
    assert all(sdp.ufrags)


def candidate(data: bytes) -> None:
    """A candidate is refused, or says which generation it belongs to, and survives the wire."""
    fields = data.split(SEPARATOR)
    inner: dict[str, Any] = {"candidate": _printable(fields[0])}
    for name, value in zip(
        ("sdpMid", "sdpMLineIndex", "usernameFragment"), fields[1:], strict=False
    ):
        text = _printable(value)
        inner[name] = int(text) if text.isdecimal() and text.isascii() and len(text) < 16 else text
    text = json.dumps({"type": IceCandidate.TYPE, "data": {"candidate": inner}})
    for sender in Role:
        try:
            message = codec.decode(text, sender=sender, limits=Limits())
        except MalformedMessageError:
            continue
        assert isinstance(message, IceCandidate)
        ufrag = candidate_ufrag(message)
        assert ufrag is None or ufrag
        assert codec.decode(codec.encode(message), sender=sender, limits=WIDE) == message


def _printable(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def endpoint(data: bytes) -> None:
    """A URL is refused with EndpointError, or means the same after it was written again."""
    text = _text(data)
    with suppress(EndpointError):
        parse_request_target(text)
    try:
        where = Endpoint.parse(text)
    except EndpointError:
        return
    assert Endpoint.parse(where.url()) == where
    assert where.redacted_url().count("license=***") >= 1
    repr(where)


def json_text(data: bytes) -> None:
    """Both JSON parsers have one verdict, on texts and on bytes."""
    for text in (data, _text(data)):
        assert _verdict(jsontext._loads_reference, text) == _verdict(jsontext._loads_orjson, text)


def _verdict(loads: Callable[[str | bytes, int], Any], text: str | bytes) -> str:
    try:
        return repr(loads(text, 64))
    except MalformedMessageError as error:
        return f"malformed: {error}"


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "connection": connection,
    "codec": decode_and_encode,
    "sdp": description,
    "candidate": candidate,
    "endpoint": endpoint,
    "jsontext": json_text,
}
