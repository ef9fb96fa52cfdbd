"""What the doctor found: one finding per step, and what a session's events say about the steps.

Reading events is pure; the steps are looked at in :mod:`navtalk_asyncio.cli.doctor`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final, TypeVar

from attrs import define, field, frozen

from navtalk_asyncio.cli.exit_codes import ExitCode, exit_code, exit_code_of_end
from navtalk_proto.errors import (
    ConnectFailedError,
    ConnectTimeoutError,
    HandshakeRefusedError,
    NavTalkError,
    ObsoleteProtocolError,
    ProtocolViolatedError,
    RefusedError,
)
from navtalk_proto.events import (
    Closed,
    Connected,
    Event,
    Negotiated,
    NegotiationFailed,
    Notice,
    PeerClosing,
    PictureFrozen,
    Ready,
    ServerWarning,
)
from navtalk_proto.media import CandidatePair, MediaState, MediaStateChanged
from navtalk_proto.stats import IcePairStats
from navtalk_proto.wire.endpoint import DEFAULT_PATH
from navtalk_proto.wire.messages import Answer, Offer
from navtalk_proto.wire.obsolete import REASON as OBSOLETE

__all__ = [
    "Finding",
    "Observed",
    "Verdict",
    "of_pictures",
    "of_session",
    "of_throughput",
    "of_websocket",
]

EventT = TypeVar("EventT")


class Verdict(Enum):
    """What a step is."""

    OK = "ok"
    WARNING = "warning"
    """Something that is not as it should be; a session may work all the same."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """It needs another step, which failed."""


@frozen(kw_only=True)
class Finding:
    """One step's line. `seconds` is how long the step took; None where that means nothing."""

    step: str
    verdict: Verdict
    text: str
    seconds: float | None = None
    hint: str = ""
    code: ExitCode = ExitCode.OK
    """What the command ends with if this is its first failure."""


@define
class Observed:
    """One attempt at a session, as it was seen. Times are seconds of one monotonic clock."""

    began: float = 0.0
    events: list[tuple[float, Event]] = field(factory=list)
    offer: str | None = field(default=None, repr=False)
    answer: str | None = field(default=None, repr=False)
    pair: IcePairStats | None = None
    """The candidate pair that media took."""
    error: NavTalkError | OSError | None = None
    """Why there was no usable session."""

    def first(self, kind: type[EventT], **fields: Any) -> tuple[float, EventT] | None:
        """The first event of a class with these fields, and its time."""
        for when, event in self.events:
            if isinstance(event, kind) and all(
                getattr(event, name) == value for name, value in fields.items()
            ):
                return when, event
        return None

    def text(self, text: str, *, sent: bool) -> None:
        """See a message: the descriptions of an offer and an answer are kept."""
        if '"webrtc.signaling.' not in text:
            return
        try:
            message = json.loads(text)
            sdp = message["data"]["sdp"]
            sdp = sdp if isinstance(sdp, str) else sdp["sdp"]
        except (ValueError, LookupError, TypeError):
            return  # The core says what is wrong with it.
        if message.get("type") == Offer.TYPE and not sent and isinstance(sdp, str):
            self.offer = sdp
        elif message.get("type") == Answer.TYPE and sent and isinstance(sdp, str):
            self.answer = sdp


_FEW_PICTURES: Final = 10.0
"""Pictures per second below which something is wrong; services send 25 to 30."""

_PAUSE: Final = 1.0
"""Seconds without a picture, at the end, that are no late packet any more."""

_STATUS: Final = re.compile(r"\b(?:HTTP |status[ =:]*)?([45]\d\d)\b")

_HTTP_HINTS: Final = {
    "404": (
        ExitCode.NETWORK,
        f"there is no session endpoint at this host and path; version 2 is at {DEFAULT_PATH}",
    ),
    "502": (ExitCode.NETWORK, "the gateway is up and the service behind it is not: try later"),
    "503": (ExitCode.REFUSED, "the server is full or in maintenance: try later"),
}


def of_websocket(error: NavTalkError | OSError, seconds: float) -> Finding:
    """The upgrade failed."""
    status = _STATUS.search(str(error).rpartition(": ")[2])
    code, hint = ExitCode.NETWORK, "is this a NavTalk server? a web server answers otherwise"
    if isinstance(error, HandshakeRefusedError):
        code, hint = exit_code(error), error.hint
    elif isinstance(error, ConnectTimeoutError):
        hint = "the server takes the connection and does not answer: is this its port?"
    elif status is not None:
        code, hint = _HTTP_HINTS.get(status[1], (code, hint))
    return Finding(
        step="websocket",
        verdict=Verdict.FAILED,
        text=str(error),
        seconds=seconds,
        hint=hint,
        code=code,
    )


# ---- a session


def of_session(seen: Observed) -> list[Finding]:
    """The steps from the welcome to DTLS. Those after a failed one are left out."""
    findings = [_welcome(seen)]
    for step in (_ready, _negotiation, _ice, _dtls):
        if findings[-1].verdict is Verdict.FAILED:
            break
        findings.append(step(seen))
    return findings


def _failed(step: str, seen: Observed, text: str, hint: str, code: ExitCode) -> Finding:
    return Finding(step=step, verdict=Verdict.FAILED, text=text, hint=hint, code=code)


def _welcome(seen: Observed) -> Finding:
    welcome = seen.first(Connected)
    if welcome is None:
        return _not_welcome(seen)
    when, event = welcome
    warned = seen.first(ServerWarning)
    took = when - seen.began
    if warned is not None:
        return Finding(
            step="session",
            verdict=Verdict.WARNING,
            text=f"welcome, with a warning: {warned[1].text}",
            seconds=took,
            hint="several avatars share the name: use --avatar-id",
        )
    servers = len(event.ice_servers)
    return Finding(
        step="session",
        verdict=Verdict.OK,
        text=f"welcome, session {event.session_id}, {servers} ICE server{'s' * (servers != 1)}",
        seconds=took,
    )


def _not_welcome(seen: Observed) -> Finding:
    error = seen.error
    assert error is not None, "a session without a welcome has failed"
    text, code = str(error), exit_code(error)
    hint = getattr(error, "hint", "")
    match error:
        case RefusedError(text=said) if OBSOLETE in said:
            code = ExitCode.PROTOCOL
            hint = f"this path is of version 1; give the URL with {DEFAULT_PATH}, or without a path"
        case ObsoleteProtocolError():
            hint = "this server speaks version 1 of the protocol: find its version 2 endpoint"
        case ProtocolViolatedError():
            hint = "this is a WebSocket server, but not one of NavTalk: check host and path"
        case RefusedError() if code is ExitCode.REFUSED and "avatar" in text.lower():
            hint = "check --avatar or --avatar-id in the console; a name is case-sensitive"
        case RefusedError() if code is ExitCode.LICENCE:
            hint = "check the licence in NAVTALK_LICENSE: copy it whole, for this very server"
        case RefusedError():
            pass
        case ConnectTimeoutError():
            text = f"the WebSocket is open, and the server says nothing for {error.seconds:g} s"
            hint = "its backend hangs, or this is another service's WebSocket: check host and path"
        case ConnectFailedError():
            hint = "the server, or something on the way, hangs up: try without a proxy or VPN"
        case _:
            pass
    return _failed("session", seen, text, hint, code)


def _ready(seen: Observed) -> Finding:
    ready, welcome = seen.first(Ready), seen.first(Connected)
    assert welcome is not None
    if ready is None:
        return _failed(
            "ready", seen, _why(seen), "the avatar's backend does not start: try again later",
            ExitCode.NETWORK if seen.error is None else exit_code(seen.error),
        )  # fmt: skip
    return Finding(
        step="ready",
        verdict=Verdict.OK,
        text="the human is configured and listens",
        seconds=ready[0] - welcome[0],
    )


def _negotiation(seen: Observed) -> Finding:
    done, welcome = seen.first(Negotiated), seen.first(Connected)
    assert welcome is not None
    offered, answered = _codecs(seen.offer), _codecs(seen.answer)
    if done is None:
        failed = seen.first(NegotiationFailed)
        if seen.offer is None:
            text, hint = f"no offer came: {_why(seen)}", "the server has no media worker for us"
        else:
            why = failed[1].reason if failed is not None else _why(seen)
            text = f"offered {offered}: {why}"
            hint = "no codec in common: the server must offer VP8 or H264, and opus"
        return _failed("offer", seen, text, hint, ExitCode.MEDIA)
    return Finding(
        step="offer",
        verdict=Verdict.OK,
        text=f"offered {offered}; answered {'the same' if answered == offered else answered}",
        seconds=done[0] - welcome[0],
    )


def _codecs(sdp: str | None) -> str:
    """The codecs of a description, by m-line, without those that only repair another."""
    if sdp is None:
        return "nothing"
    lines = []
    for section in re.split(r"^m=", sdp, flags=re.MULTILINE)[1:]:
        kind = section.partition(" ")[0]
        names = dict.fromkeys(
            name
            for name in re.findall(r"^a=rtpmap:\d+ ([^/\s]+)", section, re.MULTILINE)
            if name.lower() not in ("rtx", "red", "ulpfec", "flexfec-03", "telephone-event")
        )
        refused = section.split(" ", 2)[1:2] == ["0"]
        lines.append(f"{kind} {'refused' if refused else ', '.join(names) or 'no codec'}")
    return "; ".join(lines) or "nothing"


def _ice(seen: Observed) -> Finding:
    found = seen.first(MediaStateChanged, state=MediaState.ICE_CONNECTED)
    checking = seen.first(MediaStateChanged, state=MediaState.CHECKING)
    if found is None:
        tried = [
            event.pairs for _, event in seen.events
            if isinstance(event, MediaStateChanged) and event.pairs
        ]  # fmt: skip
        pairs = tried[-1] if tried else ()
        hint = (
            "UDP is blocked between here and there: open it, or give the server a TURN "
            "server over TLS (turns:, port 443)"
            if pairs
            else "no candidate was gathered, or none came: is there a network interface?"
        )
        return _failed("ice", seen, f"no pair works; tried {_shown(pairs)}", hint, ExitCode.NETWORK)
    since = checking[0] if checking is not None else seen.began
    return Finding(
        step="ice",
        verdict=Verdict.OK,
        text="a pair works" if seen.pair is None else _taken(seen.pair),
        seconds=found[0] - since,
    )


def _taken(pair: IcePairStats) -> str:
    kinds = f"{pair.local_type} to {pair.remote_type}, {pair.protocol}"
    return f"{pair.local} -> {pair.remote} works: {kinds}"


def _dtls(seen: Observed) -> Finding:
    done = seen.first(MediaStateChanged, state=MediaState.CONNECTED)
    before = seen.first(MediaStateChanged, state=MediaState.ICE_CONNECTED)
    assert before is not None
    if done is not None:
        return Finding(
            step="dtls", verdict=Verdict.OK, text="encrypted", seconds=done[0] - before[0]
        )
    failed = seen.first(MediaStateChanged, state=MediaState.FAILED)
    if failed is None:
        text = f"the handshake did not end: {_why(seen)}"
        hint = "a firewall lets STUN pass and nothing else, or a path small packets only (MTU)"
    elif "certificate" in failed[1].reason:
        text = failed[1].reason
        hint = "the server mixes up its media workers, or something on the way answers for it"
    else:
        text = failed[1].reason
        hint = "both ends have no DTLS version or cipher in common, or the path breaks packets"
    return _failed("dtls", seen, text, hint, ExitCode.NETWORK)


# ---- a while of pictures and sound


def of_pictures(
    seen: Observed, pictures: list[float], size: str, *, began: float, took: float
) -> Finding:
    """The decoded pictures of `took` seconds since `began`; `pictures` are their times."""
    if not pictures:
        return _failed(
            "pictures", seen, f"packets come, and no picture could be decoded in {took:.1f} s",
            "the server sends no keyframe, or loses so many packets that none is whole",
            ExitCode.MEDIA,
        )  # fmt: skip
    since = pictures[-1] - pictures[0]
    rate = (len(pictures) - 1) / since if since else 0.0
    pause = began + took - pictures[-1]
    frozen = seen.first(PictureFrozen)
    text, hint = f"{size}, {rate:.0f} a second", ""
    if pause > _PAUSE:
        text += f", and none in the last {pause:.1f} s"
        hint = (
            "the server stopped sending, or the path was cut: try again, and from another network"
        )
    elif frozen is not None:
        text += f", which showed the same for {frozen[1].frozen_for:.1f} s"
        hint = "the server sends one picture again and again: what draws the human there stands"
    elif rate < _FEW_PICTURES:
        hint = "packets are lost, or the server or this machine is too slow"
    return Finding(
        step="pictures",
        verdict=Verdict.WARNING if hint else Verdict.OK,
        text=text,
        seconds=pictures[0] - seen.began,
        hint=hint,
    )


def of_throughput(seen: Observed, received: int, took: float) -> Finding:
    """The `received` bytes of `took` seconds, and whether the session was there to their end."""
    text = f"{received * 8 / took / 1000:.0f} kbit/s of media received in {took:.1f} s"
    notice, closing, closed = seen.first(Notice), seen.first(PeerClosing), seen.first(Closed)
    if notice is not None:
        refusal = RefusedError.of(notice[1].kind, notice[1].text)
        text += f", when {refusal}"
        return _failed("throughput", seen, text, refusal.hint, exit_code(refusal))
    if closing is not None:
        text += f", when the server ended the session: {closing[1].text}"
        hint = "sessions work here, and end early: the service's terms, or its support, say why"
        return _failed("throughput", seen, text, hint, ExitCode.NETWORK)
    if closed is not None:
        text += f", when the session ended: {closed[1].reason or closed[1].cause.value}"
        hint = "the server, or something on the way, hangs up: try without a proxy or VPN"
        return _failed("throughput", seen, text, hint, exit_code_of_end(closed[1].cause))
    if not received:
        hint = "the path was cut after the first packet"
        return _failed("throughput", seen, text, hint, ExitCode.MEDIA)
    return Finding(step="throughput", verdict=Verdict.OK, text=text)


def _why(seen: Observed) -> str:
    return "the session ended" if seen.error is None else str(seen.error)


def _shown(pairs: Iterable[CandidatePair]) -> str:
    listed = [f"{pair.local} -> {pair.remote}" for pair in pairs]
    rest = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return (", ".join(listed[:4]) or "none") + rest
