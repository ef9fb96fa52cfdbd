"""What a connection tells its adapter to do, in one causally ordered list."""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen

from navtalk_proto.events import Event
from navtalk_proto.ice import IceServerRule
from navtalk_proto.media import IcePolicy, MediaLine, OpId
from navtalk_proto.wire.messages import Answer, Description, IceCandidate, IceServer, Offer

__all__ = [
    "SendText",
    "Emit",
    "CloseTransport",
    "AbortTransport",
    "OpenPeer",
    "ResetPeer",
    "ClosePeer",
    "CreateOffer",
    "SetLocal",
    "SetRemote",
    "AddCandidate",
    "MediaCommand",
    "Action",
    "MediaResult",
]


@frozen(kw_only=True)
class SendText:
    """Send one WebSocket text message. `kind` is its type string, for logs and pacing."""

    text: str = field(repr=lambda text: f"<{len(text)} characters>")
    kind: str


@frozen(kw_only=True)
class Emit:
    """Hand an event to the application."""

    event: Event


@frozen(kw_only=True)
class CloseTransport:
    """Start the WebSocket closing handshake after everything sent so far."""

    code: int
    reason: str


@frozen(kw_only=True)
class AbortTransport:
    """Drop the connection at once; no handshake will finish."""


# ---- media commands. `op` identifies the completion: media_done(op, result) or media_failed(op).


@frozen(kw_only=True)
class OpenPeer:
    """Make a peer connection. Result: None.

    `media` are the m-lines to receive or send; an offer created later contains them. `ice_servers`
    is complete: an engine must not add servers of its own, and contacts none that
    `allow_ice_server` refuses; None stands for :func:`~navtalk_proto.ice.default_ice_rule`, with
    loopback let through where the engine was made for it.
    """

    op: OpId
    ice_servers: tuple[IceServer, ...]
    policy: IcePolicy
    media: tuple[MediaLine, ...]
    allow_ice_server: IceServerRule | None = None


@frozen(kw_only=True)
class ResetPeer:
    """Throw the peer connection away and make a new one, as OpenPeer. Result: None."""

    op: OpId
    ice_servers: tuple[IceServer, ...]
    policy: IcePolicy
    media: tuple[MediaLine, ...]
    allow_ice_server: IceServerRule | None = None


@frozen(kw_only=True)
class ClosePeer:
    """Close the peer connection; legal while another operation is in flight. Result: None."""

    op: OpId


@frozen(kw_only=True)
class CreateOffer:
    """Make an offer for `media` and set nothing. Result: Offer."""

    op: OpId
    media: tuple[MediaLine, ...]


@frozen(kw_only=True)
class SetLocal:
    """Set the local description. Result: the Offer or Answer as set, with its candidates.

    `description` None means: create it first, an answer if a remote offer is set, else an offer for
    `media` (W3C setLocalDescription without argument). A given description is an Offer that
    CreateOffer made.
    """

    op: OpId
    description: Offer | None = None
    media: tuple[MediaLine, ...] = ()


@frozen(kw_only=True)
class SetRemote:
    """Set the remote description. Result: None. The engine may rewrite what it cannot take."""

    op: OpId
    description: Description


@frozen(kw_only=True)
class AddCandidate:
    """Add one remote candidate, or its end mark, after what was added before. Result: None."""

    op: OpId
    candidate: IceCandidate


MediaCommand: TypeAlias = (
    OpenPeer | ResetPeer | ClosePeer | CreateOffer | SetLocal | SetRemote | AddCandidate
)
Action: TypeAlias = SendText | Emit | CloseTransport | AbortTransport | MediaCommand
MediaResult: TypeAlias = Offer | Answer | None
