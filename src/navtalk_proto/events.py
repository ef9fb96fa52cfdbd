"""What a connection tells the application."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from attrs import field, frozen

from navtalk_proto.errors import RefusalKind
from navtalk_proto.media import (
    IceServerFailed,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaStateChanged,
    TrackAdded,
)
from navtalk_proto.wire.messages import (
    ClientMessage,
    IceCandidate,
    IceServer,
    Offer,
    ServerMessage,
)

__all__ = [
    "Connected",
    "ServerWarning",
    "Ready",
    "ConfigUpdated",
    "Usable",
    "MessageReceived",
    "UserSpeaking",
    "UserSilent",
    "UserTurn",
    "ResponseStarted",
    "ResponseText",
    "ResponseGenerated",
    "ResponseDone",
    "ResponseInterrupted",
    "ResponseFailed",
    "FunctionCall",
    "ErrorReported",
    "ConversationEvent",
    "UnknownMessage",
    "OutOfOrder",
    "ProtocolViolation",
    "BinaryIgnored",
    "Refused",
    "Notice",
    "PeerClosing",
    "ConnectFailed",
    "TimedOut",
    "CloseCause",
    "Closed",
    "Reconnecting",
    "Reconnected",
    "Negotiated",
    "NegotiationFailed",
    "OfferIgnored",
    "AnswerIgnored",
    "CandidateIgnored",
    "CandidateFailed",
    "MediaNotStarted",
    "MediaStalled",
    "MediaResumed",
    "MediaLost",
    "PictureFrozen",
    "PictureResumed",
    "MediaFlowEvent",
    "Event",
]


@frozen(kw_only=True)
class Connected:
    """connected.success arrived: the session has an id (seed step 2, protocol.md 5.1)."""

    session_id: str
    ice_servers: tuple[IceServer, ...]


@frozen(kw_only=True)
class ServerWarning:
    """The avatar's name was ambiguous; `avatar_id` is the one taken (protocol.md 5.2)."""

    text: str
    avatar_id: str | None


@frozen(kw_only=True)
class Ready:
    """The session is configured: audio may be sent (client), is expected (server)."""


@frozen(kw_only=True)
class ConfigUpdated:
    """A further session.updated arrived."""


@frozen(kw_only=True)
class Usable:
    """READY, and media is flowing where media was asked for. Told once."""


@frozen(kw_only=True)
class MessageReceived:
    """A message of the conversation, or from a client, as it was received.

    For relays, recorders and tests. On a client, what it means follows as a ConversationEvent.
    """

    message: ServerMessage | ClientMessage


# ---- the conversation, as the client sees it (machines/conversation.py)


@frozen(kw_only=True)
class UserSpeaking:
    """The server hears the user: its voice activity detection said so (protocol.md 3.2)."""


@frozen(kw_only=True)
class UserSilent:
    """The server hears the user no more. The transcript follows, or not."""


@frozen(kw_only=True)
class UserTurn:
    """What the user said, whole: the server's transcript of speech, or a text that we sent.

    Transcripts may come before, between or after the answer's events (protocol.md 3.2), and may
    be empty: something was heard, and nothing understood.
    """

    text: str
    typed: bool = False


@frozen(kw_only=True)
class ResponseStarted:
    """The human begins to answer, or to speak on its own.

    One ResponseDone, ResponseInterrupted or ResponseFailed of the same id follows. `response_id`
    is the server's, None where a response came about that it never named.
    """

    response_id: str | None


@frozen(kw_only=True)
class ResponseText:
    """The next piece of what the human says, as it is generated: ahead of the voice."""

    response_id: str
    delta: str


@frozen(kw_only=True)
class ResponseGenerated:
    """All of the answer is generated; the voice is still to be heard. `text` is the whole."""

    response_id: str | None
    text: str


@frozen(kw_only=True)
class ResponseDone:
    """The human has said all of it, by the reckoning of ``ClientConfig.speech_rate``."""

    response_id: str | None
    text: str


@frozen(kw_only=True)
class ResponseInterrupted:
    """The user spoke into the answer, or interrupted it: barge-in (protocol.md 3.2).

    `text` is what was generated until then, `heard` the part that can have been spoken: its words
    up to the time that passed since the answer began, at ``ClientConfig.speech_rate``.
    """

    response_id: str | None
    text: str
    heard: str


@frozen(kw_only=True)
class ResponseFailed:
    """No answer, or none that ended: `reason` is the server's error, or what did not happen.

    Also for a response that was asked for and never began; `response_id` and `text` are empty then.
    """

    response_id: str | None
    reason: str
    text: str = ""


@frozen(kw_only=True)
class FunctionCall:
    """The model calls a function (protocol.md 5.16); it waits for one answer.

    `arguments` is JSON text as the model wrote it, not checked to be JSON.
    """

    call_id: str
    name: str
    arguments: str


@frozen(kw_only=True)
class ErrorReported:
    """The server reported an error inside the running session; the session lives."""

    text: str
    code: str | None = None


ConversationEvent: TypeAlias = (
    UserSpeaking
    | UserSilent
    | UserTurn
    | ResponseStarted
    | ResponseText
    | ResponseGenerated
    | ResponseDone
    | ResponseInterrupted
    | ResponseFailed
    | FunctionCall
    | ErrorReported
)


@frozen(kw_only=True)
class UnknownMessage:
    """A message of unknown type; `raw` is its text, cut to ``Limits.unknown_raw`` characters."""

    type: str
    raw: str = field(repr=False)


@frozen(kw_only=True)
class OutOfOrder:
    """A message came in a state in which its order is wrong, and was taken nonetheless."""

    type: str
    state: str


@frozen(kw_only=True)
class ProtocolViolation:
    """The far end made a mistake; the message was dropped and counted.

    `fatal` says that the connection is closed because of it: over-size input, more than
    ``Limits.violations`` of them, or ``strict=True``.
    """

    reason: str
    type: str | None = None
    field: str | None = None
    fatal: bool = False


@frozen(kw_only=True)
class BinaryIgnored:
    """A binary frame of `size` bytes arrived; v2 has none (protocol.md 2.1)."""

    size: int


@frozen(kw_only=True)
class Refused:
    """The server does not want this session (protocol.md 5.3); Closed follows."""

    kind: RefusalKind
    text: str
    retryable: bool


@frozen(kw_only=True)
class Notice:
    """A running session is about to be ended by the server, for this reason."""

    kind: RefusalKind
    text: str


@frozen(kw_only=True)
class PeerClosing:
    """The server announced the end with connected.close."""

    text: str


@frozen(kw_only=True)
class ConnectFailed:
    """The transport closed before READY. `stage` is the lifecycle state it happened in."""

    code: int | None
    reason: str
    stage: str


@frozen(kw_only=True)
class TimedOut:
    """A deadline passed; `waiting_for` names the step that did not happen."""

    waiting_for: str
    seconds: float


class CloseCause(Enum):
    """Why a connection ended."""

    LOCAL = "local"
    """We closed it."""
    REMOTE = "remote"
    """The far end closed it, or the transport was lost."""
    REFUSED = "refused"
    TIMEOUT = "timeout"
    VIOLATION = "violation"
    """The far end broke the protocol too badly or too often."""
    MEDIA_LOST = "media lost"
    """We closed it because media did not come back: ``ClientConfig.end_on_media_loss``."""


@frozen(kw_only=True)
class Closed:
    """The end: exactly once, and last. `forced` says that the closing handshake never finished."""

    cause: CloseCause
    code: int | None
    reason: str
    forced: bool = False


@frozen(kw_only=True)
class Reconnecting:
    """The session was lost, or could not be opened again: the next attempt begins in `delay` s.

    Told by an adapter whose ``connect()`` was asked to reconnect, in place of the Closed that would
    have ended the session; `reason` says what happened. `attempt` is the number of the one that is
    waited for, counted from 1 since a session was last usable for ``steady_after`` seconds.
    """

    attempt: int
    delay: float
    reason: str


@frozen(kw_only=True)
class Reconnected:
    """A new session took the lost one's place: it is READY, and media flows where it was asked for.

    `session_id` is the new one's; None where the server has not named it. `attempts` is the number
    of the attempt that succeeded, as in Reconnecting.
    """

    session_id: str | None
    attempts: int


@frozen(kw_only=True)
class Negotiated:
    """An offer/answer exchange is complete.

    `offered_by_us` says whose offer it was, `media` what ours asked for. `wish` is the number of
    the newest wish that ended with it, counted from 1; those before it have ended too. 0: none.
    """

    offered_by_us: bool
    media: tuple[MediaLine, ...] = ()
    wish: int = field(default=0, eq=False)


@frozen(kw_only=True)
class NegotiationFailed:
    """An exchange, or a wish for one, came to nothing. What media runs keeps running.

    `media` is the wish that ended with it, empty where it was the far end's offer alone; `wish` is
    its number, as in Negotiated. `session_ended`: it came to nothing because the session is over.
    """

    reason: str
    media: tuple[MediaLine, ...] = ()
    wish: int = field(default=0, eq=False)
    session_ended: bool = False


@frozen(kw_only=True)
class OfferIgnored:
    """An offer was not applied: glare that we win, or no media on this connection."""

    offer: Offer
    reason: str


@frozen(kw_only=True)
class AnswerIgnored:
    """An answer to no offer of ours that is still out: late, repeated, or to one we gave up."""

    reason: str


@frozen(kw_only=True)
class CandidateIgnored:
    """A remote candidate was not given to the engine."""

    candidate: IceCandidate
    reason: str


@frozen(kw_only=True)
class CandidateFailed:
    """The engine could not take a remote candidate. It delays nothing."""

    candidate: IceCandidate
    reason: str


# ---- whether media comes (machines/media_flow.py)


@frozen(kw_only=True)
class MediaNotStarted:
    """A track that is received by the last answer, and connected, sent nothing for `after` seconds.

    Also one that was put on hold and taken back. MediaStarted, or MediaResumed, may follow.
    """

    kind: MediaKind
    track_id: str
    after: float


@frozen(kw_only=True)
class MediaStalled:
    """A track that was flowing, and was not put on hold, has been silent for `silent_for` seconds.

    MediaResumed follows when a packet comes, MediaLost after ``ClientConfig.stall_give_up``.
    `consent_age` is how long ago the far end last answered an ICE check, in seconds; None where
    the engine does not know. Checks are 4 to 6 s apart: an age above that says that the path is
    dead, one below that the far end may have stopped sending.
    """

    kind: MediaKind
    track_id: str
    silent_for: float
    consent_age: float | None = None


@frozen(kw_only=True)
class MediaResumed:
    """Packets of a track come again, `after` seconds of silence."""

    kind: MediaKind
    track_id: str
    after: float


@frozen(kw_only=True)
class MediaLost:
    """A stall lasted: media is not waited for any more, though it may still resume.

    Not told for sound while another track flows. The session ends with it where the configuration
    says so (``ClientConfig.end_on_media_loss``).
    """

    kind: MediaKind
    track_id: str
    silent_for: float
    consent_age: float | None = None


@frozen(kw_only=True)
class PictureFrozen:
    """Video is decoded and its packets come, but the picture has not changed for `frozen_for` s.

    Either every frame shows the same, or none could be decoded. Looked for only while somebody
    reads the decoded video.
    """

    track_id: str
    frozen_for: float


@frozen(kw_only=True)
class PictureResumed:
    """A frozen picture changed again; it had been the same for `after` seconds."""

    track_id: str
    after: float


MediaFlowEvent: TypeAlias = (
    MediaNotStarted | MediaStalled | MediaResumed | MediaLost | PictureFrozen | PictureResumed
)


Event: TypeAlias = (
    Connected
    | ServerWarning
    | Ready
    | ConfigUpdated
    | Usable
    | MessageReceived
    | ConversationEvent
    | UnknownMessage
    | OutOfOrder
    | ProtocolViolation
    | BinaryIgnored
    | Refused
    | Notice
    | PeerClosing
    | ConnectFailed
    | TimedOut
    | Closed
    | Reconnecting
    | Reconnected
    | Negotiated
    | NegotiationFailed
    | OfferIgnored
    | AnswerIgnored
    | CandidateIgnored
    | CandidateFailed
    | MediaStateChanged
    | TrackAdded
    | MediaStarted
    | IceServerFailed
    | MediaFlowEvent
)
