"""As much of SDP as signaling needs: is a description usable, and is its transport a known one.

Only RFC 8866, 8829, 8839 and 9143 are checked. What one engine cannot take is that engine's
business (docs/architecture.md). Times and sizes are linear in the text, which Limits bounds.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import field, frozen

from navtalk_proto.construct import positional
from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.wire.messages import Description, IceCandidate

__all__ = [
    "Sdp",
    "SdpMedia",
    "candidate_ufrag",
    "check_description",
    "directions_fit",
    "may_answer",
    "same_transport",
]

_FIELD: Final = "data.sdp.sdp"
_M_LINE: Final = re.compile(r"m=([!-~]+) ([0-9]{1,5})(?:/[0-9]+)? [!-~]+(?: |\r?$)")
_USUAL_M_LINE: Final = re.compile(
    r"m=[!-~]+ (?:[1-5][0-9]{4}|6[0-4][0-9]{3}|[1-9][0-9]{0,3}) [!-~]+ "
)
_VERSION: Final = re.compile(r"v=0(?:\r?\n|\Z)")
_TRANSPORT: Final = r"a=(?:ice-|fin).*(?:\na=(?:ice-|fin).*)*+"
_MATTERS: Final = re.compile(
    rf"\n(?:(m=.*)|({_TRANSPORT})|a=((?:mid|bun|send|recv|ina|group:BUNDLE ).*))"
)
"""What matters of a description, in order: an m-line, or neighbouring lines about its transport, or
another attribute. Of eighty lines a dozen are found; the others are passed over in C. A dot is any
character but LF: the CR of a CRLF is still there."""
_SKELETON: Final = re.compile(rf"\n(m=.*|{_TRANSPORT})")
_ICE_TEXT: Final = re.compile(r"[!-~]{1,256}")  # RFC 8839 5.4: at most 256 characters
_HEX: Final = "[0-9A-Fa-f][0-9A-Fa-f]"
_FINGERPRINT: Final = re.compile(rf"([!-~]+) ((?:{_HEX}:)*+{_HEX})")
_MAX_FINGERPRINTS: Final = 16  # per m-line; one per hash function, aiortc writes 3
_USUAL_TRANSPORT: Final = re.compile(
    r"a=ice-ufrag:([!-~]{1,256})\r\na=ice-pwd:[!-~]{1,256}(?:\r\na=ice-options:[ -~]*)?"
    rf"(?:\r\na=fingerprint:[!-~]+ (?:{_HEX}:)*+{_HEX}){{1,{_MAX_FINGERPRINTS}}}\r"
)
"""As aiortc and browsers write it; what is in it that can be malformed is proven not to be."""
_DIRECTIONS: Final = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})
_ANSWERED_BY: Final = {
    "sendrecv": _DIRECTIONS,
    "sendonly": frozenset({"recvonly", "inactive"}),
    "recvonly": frozenset({"sendonly", "inactive"}),
    "inactive": frozenset({"inactive"}),
}
"""The directions that an answer may give to one of an offer (RFC 3264 section 6.1)."""
_NONE: Final[frozenset[str]] = frozenset()
_MAX_PORT: Final = 65_535
_CANDIDATE_FIXED_TOKENS: Final = 8  # RFC 8839 5.1, up to and with the candidate's type


@frozen(kw_only=True)
class SdpMedia:
    """One m-line (RFC 8866 section 5.14) with what decides about its transport."""

    kind: str
    """The media type: ``audio``, ``video``, ``application``."""
    mid: str | None
    active: bool
    """Not rejected: the port is not 0, or ``a=bundle-only`` explains the 0 (RFC 9143 section 6)."""
    direction: str
    """``sendrecv``, ``sendonly``, ``recvonly`` or ``inactive`` (RFC 8866 section 6.7)."""
    ufrag: str | None
    """The ICE user name fragment, also where it is inherited; None on rejected lines only."""
    fingerprints: frozenset[str]
    """DTLS fingerprints ``hash HEX:HEX`` (RFC 8122 section 5), also where inherited."""


@frozen(kw_only=True)
class Sdp:
    """A checked session description."""

    ufrags: frozenset[str]
    """The user name fragments that candidates for this description may carry."""
    transports: tuple[str, ...]
    """The ICE and DTLS lines of each m-line as they are, where all are active and of the usual
    shape; else empty."""
    _text: str = field(repr=False)
    _medias: tuple[SdpMedia, ...] | None = field(repr=False)

    @property
    def medias(self) -> tuple[SdpMedia, ...]:
        """The m-lines in order; the index is an RTCIceCandidate's sdpMLineIndex.

        Read anew each time where ``transports`` was all that was looked at until now.
        """
        return _read(self._text) if self._medias is None else self._medias


_sdp: Final = positional(Sdp)
_sdp_media: Final = positional(SdpMedia)


@frozen
class _Transport:
    """What neighbouring lines say about the transport; with BUNDLE every m-line repeats them."""

    ufrag: str | None
    pwd: bool
    fingerprints: frozenset[str]


class _Section:
    """What was read of the session part or of one m-line; filled piece by piece."""

    __slots__ = ("bundle_only", "direction", "fingerprints", "kind", "mid", "port", "pwd", "ufrag")

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port
        self.mid: str | None = None
        self.ufrag: str | None = None
        self.pwd = False
        self.fingerprints: frozenset[str] = _NONE
        self.direction: str | None = None
        self.bundle_only = False

    @property
    def active(self) -> bool:
        return self.port != 0 or self.bundle_only


def check_description(description: Description, limits: Limits) -> Sdp:
    """Check an offer or an answer, ours or theirs, and return what signaling needs of it.

    It starts with ``v=0`` and has 1 to ``limits.m_lines`` m-lines; every active one has ice-ufrag,
    ice-pwd and a DTLS fingerprint: its own, the session's, or those of its BUNDLE group's tagged
    m-line (RFC 9143 section 7.1.3). LF line ends are read like CRLF. Raises MalformedMessageError
    with field ``data.sdp.sdp``; the reason names m-lines by index and quotes nothing.
    """
    text = description.sdp
    if len(text) > limits.sdp or (not text.isascii() and _utf8_size(text) > limits.sdp):
        raise _malformed(description, f"is larger than {limits.sdp} bytes")
    if _VERSION.match(text) is None:
        raise _malformed(description, "does not start with v=0")

    usual = _usual(text, limits.m_lines)
    if usual is not None:
        return usual
    try:
        medias = _read(text, limits.m_lines)
    except MalformedMessageError as error:
        raise _malformed(description, error.reason) from None
    ufrags = frozenset([media.ufrag for media in medias if media.ufrag is not None])
    return _sdp(ufrags, (), "", medias)


def _usual(text: str, m_lines: int) -> Sdp | None:
    """A description in which each m-line is active and has all its transport in one piece.

    That is what stock peers write. It inherits nothing, so that nothing else decides whether it is
    usable. None: :func:`_read` decides.
    """
    found = _SKELETON.findall(text)
    lines, transports = found[::2], tuple(found[1::2])
    if not 0 < len(lines) == len(transports) <= m_lines or text.endswith("\r"):
        return None
    ufrags = []
    checked = None
    for line, transport in zip(lines, transports, strict=True):
        if _USUAL_M_LINE.match(line) is None:
            return None
        if transport != checked:
            match = _USUAL_TRANSPORT.fullmatch(transport)
            if match is None:
                return None
            ufrags.append(match[1])
            checked = transport
    return _sdp(frozenset(ufrags), transports, text, None)


def _read(text: str, m_lines: int | None = None) -> tuple[SdpMedia, ...]:
    """The m-lines of a description, at most so many. Raises MalformedMessageError."""
    session = section = _Section("", 0)
    sections: list[_Section] = []
    groups: list[list[str]] = []
    transports: dict[str, _Transport | None] = {}
    for media, lines, attribute in _pieces(text):
        if media:
            if len(sections) == m_lines:
                raise MalformedMessageError(f"has more than {m_lines} m-lines")
            match = _M_LINE.match(media)
            if match is None or (port := int(match[2])) > _MAX_PORT:
                raise MalformedMessageError(f"m-line {len(sections)} is not one")
            section = _Section(match[1], port)
            sections.append(section)
        elif lines:
            if lines not in transports:
                transports[lines] = _read_transport(lines)
            if not _add_transport(section, transports[lines]):
                where = f"m-line {len(sections) - 1}" if sections else "the session part"
                raise MalformedMessageError(f"{where} has a malformed ICE or DTLS attribute")
        else:
            name, _, value = attribute.removesuffix("\r").partition(":")
            if name in _DIRECTIONS:
                section.direction = name
            elif name == "mid":
                section.mid = value
            elif name == "bundle-only":
                section.bundle_only = True
            elif name == "group" and not sections:
                groups.append(value.split()[1:])
    if not sections:
        raise MalformedMessageError("has no m-line")
    tagged = _tagged_by_mid(sections, groups)
    return tuple(
        [
            _media(index, section, tagged.get(section.mid), session)
            for index, section in enumerate(sections)
        ]
    )


def _pieces(text: str) -> list[tuple[str, str, str]]:
    """What matters of a description, see _MATTERS, with some that only begins like it."""
    if text.endswith("\r"):
        text += "\r\n"  # A CR without LF is part of its line, also of the last one.
    return _MATTERS.findall(text)


def _malformed(description: Description, reason: str) -> MalformedMessageError:
    return MalformedMessageError(reason, type=description.TYPE, field=_FIELD)


def _utf8_size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _read_transport(lines: str) -> _Transport | None:
    """What ICE and DTLS lines say; None when one of them is malformed."""
    ufrag = None
    pwd = False
    fingerprints = set()
    for line in lines.split("\n"):
        name, _, value = line.removesuffix("\r").partition(":")
        if name == "a=fingerprint":
            match = _FINGERPRINT.fullmatch(value)
            if match is None:
                return None
            fingerprints.add(f"{match[1].lower()} {match[2].upper()}")
        elif name == "a=ice-ufrag" or name == "a=ice-pwd":
            if _ICE_TEXT.fullmatch(value) is None:
                return None
            if name == "a=ice-ufrag":
                ufrag = value
            else:
                pwd = True
    return _Transport(ufrag, pwd, frozenset(fingerprints))


def _add_transport(section: _Section, transport: _Transport | None) -> bool:
    """Note what lines say about a section's transport; False: they are malformed, or too many."""
    if transport is None:
        return False
    if transport.ufrag is not None:
        section.ufrag = transport.ufrag
    section.pwd = section.pwd or transport.pwd
    section.fingerprints |= transport.fingerprints
    return len(section.fingerprints) <= _MAX_FINGERPRINTS


def _tagged_by_mid(sections: list[_Section], groups: list[list[str]]) -> dict[str | None, _Section]:
    """For every mid in a BUNDLE group, the section whose transport the group shares."""
    by_mid = {section.mid: section for section in sections if section.mid is not None}
    tagged: dict[str | None, _Section] = {}
    for mids in groups:
        shared = next((by_mid[mid] for mid in mids if mid in by_mid and by_mid[mid].active), None)
        if shared is not None:
            tagged.update(dict.fromkeys(mids, shared))
    return tagged


def _media(index: int, section: _Section, tagged: _Section | None, session: _Section) -> SdpMedia:
    """An m-line with its own transport, or what it inherits of it."""
    direction = section.direction or session.direction or "sendrecv"
    if not section.active:
        return _sdp_media(section.kind, section.mid, False, direction, None, _NONE)
    ufrag, pwd, fingerprints = section.ufrag, section.pwd, section.fingerprints
    for source in (tagged, session):
        if source is not None:
            ufrag = source.ufrag if ufrag is None else ufrag
            pwd = pwd or source.pwd
            fingerprints = fingerprints or source.fingerprints
    if ufrag is None:
        raise MalformedMessageError(f"m-line {index} has no ice-ufrag")
    if not pwd:
        raise MalformedMessageError(f"m-line {index} has no ice-pwd")
    if not fingerprints:
        raise MalformedMessageError(f"m-line {index} has no DTLS fingerprint")
    return _sdp_media(section.kind, section.mid, True, direction, ufrag, fingerprints)


def same_transport(old: Sdp, new: Sdp) -> bool:
    """Whether `new`, from the same peer as `old`, goes on with the transport of `old`.

    By index, every m-line that is active in both has the same ice-ufrag and shares a DTLS
    fingerprint (docs/architecture.md). m-lines may be added or rejected; fewer m-lines than before
    are another peer connection's (RFC 8829 section 5.2.2). The ``o=`` line is not compared: aiortc
    writes a new session id in every description.
    """
    if old.transports and new.transports[: len(old.transports)] == old.transports:
        return True
    ours, theirs = old.medias, new.medias
    if len(theirs) < len(ours):
        return False
    return all(
        before.ufrag == after.ufrag and not before.fingerprints.isdisjoint(after.fingerprints)
        for before, after in zip(ours, theirs, strict=False)
        if before.active and after.active
    )


def may_answer(offer: Sdp, answer: Sdp) -> bool:
    """Whether `answer` can be to `offer`: its m-lines are the offer's.

    As many and in their order (RFC 3264 section 6), each of the same kind and mid (RFC 8829 section
    5.3.1). A mid that the answer leaves out contradicts nothing. Formats are not compared: an
    answer may add to them.
    """
    ours, theirs = offer.medias, answer.medias
    return len(ours) == len(theirs) and all(
        offered.kind == answered.kind and answered.mid in (offered.mid, None)
        for offered, answered in zip(ours, theirs, strict=True)
    )


def directions_fit(offer: Sdp, answer: Sdp) -> bool:
    """Whether `answer`, with the m-lines of `offer`, lets nothing flow that was not offered.

    By RFC 3264 section 6.1. Some answer sendrecv to anything, so this alone refutes no answer.
    """
    return all(
        not theirs.active or (ours.active and theirs.direction in _ANSWERED_BY[ours.direction])
        for ours, theirs in zip(offer.medias, answer.medias, strict=True)
    )


def candidate_ufrag(candidate: IceCandidate) -> str | None:
    """The ICE generation a candidate belongs to, None where it does not say.

    The usernameFragment field, else the ``ufrag`` extension in the text (RFC 8839 section 5.1, as
    browsers write it).
    """
    if candidate.username_fragment:
        return candidate.username_fragment
    extensions = candidate.candidate.split()[_CANDIDATE_FIXED_TOKENS:]
    for name, value in zip(extensions[::2], extensions[1::2], strict=False):
        if name == "ufrag":
            return value
    return None
