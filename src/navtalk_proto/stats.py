"""What ``session.stats()`` tells: one frozen class per kind of thing, with its units.

Everything is a snapshot: taking one moves nothing and asks nobody, and two snapshots may be
subtracted. Rates are over the last :data:`RATE_SECONDS`. Names follow W3C webrtc-stats where it has
one for the same thing; where a definition differs, the field says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from attrs import field, frozen

from navtalk_proto.connection import Counters
from navtalk_proto.media import MediaKind

__all__ = [
    "RATE_SECONDS",
    "AvSync",
    "IcePairStats",
    "MediaStats",
    "ReceivedTrackStats",
    "SentTrackStats",
    "SessionStats",
    "TurnLatency",
]

RATE_SECONDS: Final = 2.0
"""What rates are measured over: long enough for one Opus packet more or less not to show."""


@frozen(kw_only=True)
class ReceivedTrackStats:
    """One track that is received, since it was added."""

    track_id: str
    kind: MediaKind
    codec: str | None = None
    """As the rtpmap spells it: ``VP8``, ``H264``, ``opus``. None before the first packet."""
    packets: int = 0
    """RTP packets, retransmissions included."""
    bytes: int = 0
    """RTP payload bytes, without headers."""
    bitrate: float = 0.0
    """Bits of payload per second."""
    packets_lost: int = 0
    """Packets expected and not received (RFC 3550 A.3). What was sent again on a stream of its own
    (RFC 4588) is lost here: the network lost it once. Negative when the network duplicates."""
    loss: float = 0.0
    """The share of expected packets that were lost, 0 to 1, over the last seconds."""
    jitter: float = 0.0
    """Interarrival jitter in seconds (RFC 3550 A.8)."""
    frames_received: int = 0
    """Complete frames: pictures, or Opus packets."""
    frames_per_second: float = 0.0
    """Complete frames per second."""
    keyframes: int = 0
    """Complete video frames that decoding can start at; 0 for audio."""
    frames_decoded: int = 0
    """Frames that were decoded, which happens only while somebody reads them."""
    frames_dropped: int = 0
    """Frames that a full buffer gave up, before or after decoding."""
    decode_seconds: float | None = None
    """Seconds that decoding one frame took, a mean of the newest ones; None if none was."""
    freezes: int = 0
    """How often no complete picture came for max(3 d, d + 150 ms), d being the mean duration of
    the 30 before (webrtc-stats freezeCount, counted at arrival and not at rendering)."""
    freeze_seconds: float = 0.0
    """How long these lasted, with one that lasts still."""
    jitter_buffer_packets: int = 0
    """RTP packets that wait for one that is missing, or for the rest of their frame."""
    packets_late: int = 0
    """Packets that came after they had been given up."""
    packets_duplicated: int = 0
    """Packets that came twice."""
    packets_discarded: int = 0
    """Packets that came, of pictures that were given up."""
    holes_given_up: int = 0
    """How often a missing packet was waited for in vain."""
    decoder_queue_frames: int = 0
    """Complete frames that wait for the decoder."""
    last_packet: float | None = None
    """When the newest packet came, in seconds of the session's clock."""


@frozen(kw_only=True)
class SentTrackStats:
    """One track that is sent."""

    kind: MediaKind
    packets: int = 0
    """RTP packets."""
    bytes: int = 0
    """RTP payload bytes, without headers."""
    packets_lost: int | None = None
    """What the far end's newest receiver report says is lost; None before it."""
    loss: float | None = None
    """The share that was lost between the far end's newest two reports, 0 to 1."""
    jitter: float | None = None
    """Interarrival jitter in seconds, as the far end reports it."""
    round_trip_time: float | None = None
    """Seconds, from RTCP reports; None before the far end reported on a report of ours."""


@frozen(kw_only=True)
class IcePairStats:
    """The candidate pair in use. Addresses are ``host:port``."""

    local: str
    remote: str
    local_type: str
    """``host``, ``srflx``, ``prflx`` or ``relay`` (RFC 8445 section 5.1.1)."""
    remote_type: str
    protocol: str
    """``udp`` or ``tcp``: between the two candidates, not to a TURN server."""
    round_trip_time: float | None = None
    """Seconds that the newest answered consent check took (RFC 7675); the first comes 4 to 6 s
    after ICE has completed."""
    consent_checks: int = 0
    """Consent checks that were answered."""


@frozen(kw_only=True)
class AvSync:
    """How sound and picture are related, and what was measured of it."""

    source: Literal["sender-reports", "arrival"] = "arrival"
    """``arrival`` is the fallback: a track lacks sender reports, so what arrives together is taken
    to belong together, and drift is not seen."""
    offset: float | None = None
    """How much later the picture arrives than the sound of the same instant, in seconds; negative
    where it comes earlier. None without sender reports of both."""


@frozen(kw_only=True)
class MediaStats:
    """What an engine knows. Empty before a peer connection is there."""

    received: tuple[ReceivedTrackStats, ...] = ()
    sent: tuple[SentTrackStats, ...] = ()
    pair: IcePairStats | None = None
    av_sync: AvSync = field(factory=AvSync)
    """How the first sound and the first picture that are received are related."""
    ignored_candidates: Mapping[str, int] = field(factory=dict)
    """Remote candidates that the engine could not use, by reason: all since the connection began.
    What the core itself kept from the engine is a CandidateIgnored event each."""


@frozen(kw_only=True)
class TurnLatency:
    """How long one answer took. Stamps are seconds of the session's clock.

    A stamp of media is when the frame's first packet was received: what a player's buffer and a
    sound card add comes on top.
    """

    speech_end: float
    """When the user stopped: the last piece of voice that was not silence was sent. For a turn that
    was typed, or a response that was asked for, when it was sent."""
    typed: bool = False
    silence_told: float | None = None
    """When the server said that it heard the end of the speech (speech_stopped)."""
    first_text: float | None = None
    """When the first words of the answer came."""
    first_audio: float | None = None
    """When the first sound of the answer came that is not silence."""
    first_movement: float | None = None
    """When the first picture came on which more changed than in an idle one: the mouth. Known only
    while somebody reads the pictures."""
    interrupted: bool = False
    """Whether the user spoke again before all of this was known."""

    @property
    def to_first_text(self) -> float | None:
        """Seconds from the end of the user's speech to the answer's first words."""
        return _since(self.speech_end, self.first_text)

    @property
    def to_first_audio(self) -> float | None:
        """Seconds from the end of the user's speech to the answer's first sound."""
        return _since(self.speech_end, self.first_audio)

    @property
    def to_first_movement(self) -> float | None:
        """Seconds from the end of the user's speech to the mouth's first movement."""
        return _since(self.speech_end, self.first_movement)

    @property
    def lip_offset(self) -> float | None:
        """Seconds from the first sound to the first movement; negative: the mouth was first."""
        if self.first_audio is None:
            return None
        return _since(self.first_audio, self.first_movement)


def _since(start: float, end: float | None) -> float | None:
    return None if end is None else end - start


@frozen(kw_only=True)
class SessionStats:
    """A session at one moment."""

    at: float
    """Seconds of the session's clock: asyncio's loop time, or trio's."""
    media: MediaStats = field(factory=MediaStats)
    latencies: tuple[TurnLatency, ...] = ()
    """The newest turns, oldest first; the last one may be growing still. Empty on a server."""
    counters: Counters
    """The protocol core's counters, copied."""
    events_dropped: int = 0
    """Events that gave way because nobody read them."""

    @property
    def round_trip_time(self) -> float | None:
        """Seconds to the far end and back: of the ICE pair, or else of RTCP."""
        if self.media.pair is not None and self.media.pair.round_trip_time is not None:
            return self.media.pair.round_trip_time
        return next(
            (sent.round_trip_time for sent in self.media.sent if sent.round_trip_time is not None),
            None,
        )

    def received(self, kind: MediaKind) -> ReceivedTrackStats | None:
        """The first received track of a kind; None if there is none."""
        return next((track for track in self.media.received if track.kind is kind), None)
