"""What the core and a media engine say to each other, apart from the commands themselves.

Commands are in :mod:`navtalk_proto.actions`. An engine answers each with ``media_done`` or
``media_failed`` and reports what happens on its own as a MediaEvent.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NewType, TypeAlias

from attrs import field, frozen, validators

from navtalk_proto.identity_hash import identity_hash
from navtalk_proto.wire.messages import IceCandidate

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "OpId",
    "MediaKind",
    "Direction",
    "IcePolicy",
    "MediaLine",
    "recording_media",
    "Capabilities",
    "MediaState",
    "CandidatePair",
    "MediaStateChanged",
    "TrackAdded",
    "MediaStarted",
    "LocalCandidate",
    "IceServerFailed",
    "NegotiationNeeded",
    "MediaProgress",
    "ConsentRefreshed",
    "MediaEvent",
    "PROGRESS_SECONDS",
]

OpId = NewType("OpId", int)

PROGRESS_SECONDS: Final = 0.25
"""The least time between two MediaProgress of a track: an eighth of the shortest stall told by
default, and four reports a second are no load."""


@identity_hash
class MediaKind(Enum):
    """The media type of an m-line."""

    AUDIO = "audio"
    VIDEO = "video"


class Direction(Enum):
    """The direction attribute of an m-line (RFC 8866 section 6.7)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"


class IcePolicy(Enum):
    """RTCIceTransportPolicy: which candidates may be used."""

    ALL = "all"
    RELAY = "relay"


@frozen(kw_only=True)
class MediaLine:
    """One m-line that we want in an offer of ours (seed step 5).

    `codecs` are MIME subtypes by falling preference (``("H264", "VP8")``); empty means the engine's
    own order.
    """

    kind: MediaKind = field(validator=validators.instance_of(MediaKind))
    direction: Direction = field(
        default=Direction.RECVONLY, validator=validators.instance_of(Direction)
    )
    codecs: tuple[str, ...] = ()


_PREFERRED: Final = {".mp4": ("H264", "VP8"), ".mkv": (), ".webm": ("VP8", "H264")}
"""Video codecs by a file's suffix: the first is what the file holds."""


def recording_media(path: str | Path) -> tuple[MediaLine, ...]:
    """The m-lines to ask for when a session is to be recorded into a file: H.264 first for mp4.

    For ``connect(media=recording_media("call.mp4"))``. The codec is agreed when a session opens and
    stays; afterwards a file can only be chosen to fit. A preference is no demand: where the server
    has no H.264, VP8 comes, and recording into mp4 raises CodecMisfitError.

    Raises ValueError for a suffix other than .mp4, .mkv and .webm.
    """
    suffix = "." + str(path).rpartition(".")[2].lower()
    if suffix not in _PREFERRED:
        raise ValueError(f"cannot record into {path}: {', '.join(_PREFERRED)}")
    video = MediaLine(kind=MediaKind.VIDEO, codecs=_PREFERRED[suffix])
    return video, MediaLine(kind=MediaKind.AUDIO)


@frozen(kw_only=True)
class Capabilities:
    """What an engine can do. Policy in the core follows this, never an engine's name."""

    rollback: bool = False
    """An applied local offer can be taken back (RFC 8829 section 4.1.10.2). aiortc cannot."""


class MediaState(Enum):
    """How far the media connection is; ICE `completed` counts as connected (protocol.md 6.3)."""

    NEW = "new"
    CHECKING = "checking"
    ICE_CONNECTED = "ice-connected"
    CONNECTED = "connected"
    """DTLS is done: media may flow."""
    DISCONNECTED = "disconnected"
    FAILED = "failed"
    CLOSED = "closed"


@frozen(kw_only=True)
class CandidatePair:
    """One ICE candidate pair that was tried. Addresses are ``host:port``."""

    local: str
    remote: str
    state: str


@frozen(kw_only=True)
class MediaStateChanged:
    """The media connection's state moved. `pairs` is filled for FAILED.

    CHECKING is told again, with the pairs, where no pair has worked for a while.
    """

    state: MediaState
    reason: str = ""
    pairs: tuple[CandidatePair, ...] = ()


@frozen(kw_only=True)
class TrackAdded:
    """The far end's description added a track (seed step 4). `stream_id` is its msid label."""

    track_id: str
    kind: MediaKind
    mid: str | None = None
    stream_id: str | None = None


@frozen(kw_only=True)
class MediaStarted:
    """The first RTP packet of a track was received."""

    track_id: str
    kind: MediaKind


@frozen(kw_only=True)
class LocalCandidate:
    """The engine gathered a candidate that its last description does not carry."""

    candidate: IceCandidate


@frozen(kw_only=True)
class IceServerFailed:
    """A STUN or TURN server is of no use: it refused, did not answer, or may not be contacted.

    A warning: media may still connect without it. `url` names host and port; neither it nor
    `reason` holds a user name or a credential. Told once per server and peer connection.
    """

    url: str
    reason: str


@frozen(kw_only=True)
class NegotiationNeeded:
    """The engine's media changed and it wants these m-lines negotiated (seed step 5)."""

    media: tuple[MediaLine, ...]


@frozen(kw_only=True)
class MediaProgress:
    """Packets of a track arrive; at most one report in PROGRESS_SECONDS, none while none arrive.

    `age` is how many seconds ago the last packet came; no packet waits longer than PROGRESS_SECONDS
    for its report. `picture_age`: how long somebody has decoded this track without a new picture;
    None where nobody decodes, or the engine does not look. An engine that reports no progress is
    not watched for stalls.
    """

    track_id: str
    kind: MediaKind
    age: float = 0.0
    picture_age: float | None = None


@frozen(kw_only=True)
class ConsentRefreshed:
    """The far end answered an ICE check on the pair in use: the path works both ways (RFC 7675)."""


MediaEvent: TypeAlias = (
    MediaStateChanged
    | TrackAdded
    | MediaStarted
    | LocalCandidate
    | IceServerFailed
    | NegotiationNeeded
    | MediaProgress
    | ConsentRefreshed
)
