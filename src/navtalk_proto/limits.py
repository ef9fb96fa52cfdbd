"""How much of a peer's input a connection accepts and keeps."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen, validators

__all__ = ["KIB", "MIB", "Limits", "ToolLimits"]

KIB: Final = 1024
MIB: Final = 1024 * KIB

_positive = validators.and_(validators.instance_of(int), validators.ge(1))


@frozen(kw_only=True)
class Limits:
    """Bounds on what the far end can make us hold. Sizes are UTF-8 bytes unless said otherwise."""

    client_message: int = field(default=16 * MIB, validator=_positive)
    """Largest text message a server takes from a client. Camera frames arrive as data URLs of full
    camera resolution (protocol.md 5.14, rule E12)."""

    server_message: int = field(default=1 * MIB, validator=_positive)
    """Largest text message a client takes from a server. The largest legal one is an offer or an
    audio delta, both far below this."""

    values: int = field(default=100_000, validator=_positive)
    """Values in one message: commas and opening brackets outside its strings. A value costs up to
    100 bytes of memory for 2 bytes of text; the largest tool list has some thousands."""

    sdp: int = field(default=128 * KIB, validator=_positive)
    """Largest session description. A browser's offer with every codec is about 8 KiB."""

    m_lines: int = field(default=64, validator=_positive)
    """m-lines of one session description; an engine makes a transceiver for each. Stock peers have
    two, and a line per track that was ever added."""

    candidates: int = field(default=64, validator=_positive)
    """Remote candidates held while their description is not applied yet. A browser with ten
    interfaces, TCP and two relays sends about 40."""

    candidate: int = field(default=2 * KIB, validator=_positive)
    """Largest candidate line in characters; real ones are below 300."""

    violations: int = field(default=32, validator=_positive)
    """Protocol violations tolerated before the connection is closed with 1002."""

    queued_intents: int = field(default=256, validator=_positive)
    """Local intents that wait for READY. One more raises LocalProtocolError."""

    queued_bytes: int = field(default=8 * MIB, validator=_positive)
    """Total size of what waits for READY, in characters of encoded JSON."""

    unknown_raw: int = field(default=64 * KIB, validator=_positive)
    """How much of an unknown message's text its event keeps, in characters."""

    ice_servers: int = field(default=16, validator=_positive)
    """ICE servers taken from connected.success; no service lists more, the rest are left out."""

    transcript: int = field(default=64 * KIB, validator=_positive)
    """Text of one answer, in characters: an hour of speech."""

    responses: int = field(default=16, validator=_positive)
    """Answers asked for or being spoken at a time. Servers make one after the other."""

    calls: int = field(default=256, validator=_positive)
    """Function calls remembered, most of them answered; as many may wait for their answers."""

    arguments: int = field(default=64 * KIB, validator=_positive)
    """Arguments of one function call, in characters of JSON."""


@frozen(kw_only=True)
class ToolLimits:
    """How many tools a session runs, and how many calls may wait for their turn."""

    running: int = field(default=4, validator=_positive)
    """Functions that run at the same time; 1 runs them one after the other. One whose call is
    answered counts until it has ended: a thread that is stuck keeps its place."""

    waiting: int = field(
        default=16, validator=validators.and_(validators.instance_of(int), validators.ge(0))
    )
    """Calls that wait, in the order in which they came. One more is answered with an error."""
