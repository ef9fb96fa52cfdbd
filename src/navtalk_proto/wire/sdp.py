"""As much of SDP as signaling needs: is a description usable, and is its transport a known one.

Only RFC 8866, 8829, 8839 and 9143 are checked. What one engine cannot take is that engine's
business (design.md 3). Times and sizes are linear in the text, which Limits bounds.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import field, frozen

from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.wire.messages import Description, IceCandidate

__all__ = ["Sdp", "SdpMedia", "candidate_ufrag", "check_description", "same_transport"]

_FIELD: Final = "data.sdp.sdp"
_M_LINE: Final = re.compile(r"([!-~]+) ([0-9]{1,5})(?:/[0-9]+)? [!-~]+(?: |$)")
_VERSION: Final = re.compile(r"v=0(?:\r?\n|\Z)")
_MATTERS: Final = re.compile(
    r"\n(m=[^\n]*|a=(?:ice-|fin|mid|bun|send|recv|ina|group:BUNDLE )[^\n]*)"
)
"""Of eighty lines of a browser's description a dozen are about its transport; the others are passed
over in C."""
_ICE_TEXT: Final = re.compile(r"[!-~]{1,256}")  # RFC 8839 5.4: at most 256 characters
_FINGERPRINT: Final = re.compile(r"([!-~]+) ([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})++)")
_DIRECTIONS: Final = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})
_MAX_FINGERPRINTS: Final = 16  # per m-line; one per hash function, aiortc writes 3
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
    """A checked session description; its text is not kept."""

    medias: tuple[SdpMedia, ...]
    """The m-lines in order; the index is an RTCIceCandidate's sdpMLineIndex."""
    ufrags: frozenset[str] = field(init=False, repr=False, eq=False)
    """The user name fragments that candidates for this description may carry."""

    @ufrags.default
    def _ufrags(self) -> frozenset[str]:
        return frozenset([m.ufrag for m in self.medias if m.ufrag is not None])


class _Section:
    """What was read of the session part or of one m-line; filled line by line."""

    __slots__ = ("bundle_only", "direction", "fingerprints", "kind", "mid", "port", "pwd", "ufrag")

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port
        self.mid: str | None = None
        self.ufrag: str | None = None
        self.pwd = False
        self.fingerprints: set[str] = set()
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

    session = _Section("", 0)
    sections: list[_Section] = []
    groups: list[list[str]] = []
    for line in _lines_that_matter(text):
        if line.startswith("m="):
            if len(sections) == limits.m_lines:
                raise _malformed(description, f"has more than {limits.m_lines} m-lines")
            match = _M_LINE.match(line, 2)
            if match is None or int(match[2]) > 65535:
                raise _malformed(description, f"m-line {len(sections)} is not one")
            sections.append(_Section(match[1], int(match[2])))
        else:
            if not sections and line.startswith("a=group:BUNDLE "):
                groups.append(line[15:].split())
            elif not _read_attribute(sections[-1] if sections else session, line[2:]):
                where = f"m-line {len(sections) - 1}" if sections else "the session part"
                raise _malformed(description, f"{where} has a malformed ICE or DTLS attribute")
    if not sections:
        raise _malformed(description, "has no m-line")

    tagged = _tagged_by_mid(sections, groups)
    return Sdp(
        medias=tuple(
            _media(description, index, section, tagged.get(section.mid), session)
            for index, section in enumerate(sections)
        )
    )


def _lines_that_matter(text: str) -> list[str]:
    """The lines of a description that are read below, with some that only begin like them."""
    if text.endswith("\r"):
        text += "\r\n"  # A CR without LF is part of its line, also of the last one.
    return [line.removesuffix("\r") for line in _MATTERS.findall(text)]


def _malformed(description: Description, reason: str) -> MalformedMessageError:
    return MalformedMessageError(reason, type=description.TYPE, field=_FIELD)


def _utf8_size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _read_attribute(section: _Section, attribute: str) -> bool:
    """Note an attribute that matters; False when it matters and is malformed."""
    name, _, value = attribute.partition(":")
    if name == "ice-ufrag":
        section.ufrag = value
        return _ICE_TEXT.fullmatch(value) is not None
    if name == "ice-pwd":
        section.pwd = True
        return _ICE_TEXT.fullmatch(value) is not None
    if name == "fingerprint":
        match = _FINGERPRINT.fullmatch(value)
        if match is None:
            return False
        section.fingerprints.add(f"{match[1].lower()} {match[2].upper()}")
        return len(section.fingerprints) <= _MAX_FINGERPRINTS
    if name == "mid":
        section.mid = value
    elif name == "bundle-only":
        section.bundle_only = True
    elif name in _DIRECTIONS:
        section.direction = name
    return True


def _tagged_by_mid(sections: list[_Section], groups: list[list[str]]) -> dict[str | None, _Section]:
    """For every mid in a BUNDLE group, the section whose transport the group shares."""
    by_mid = {section.mid: section for section in sections if section.mid is not None}
    tagged: dict[str | None, _Section] = {}
    for mids in groups:
        shared = next((by_mid[mid] for mid in mids if mid in by_mid and by_mid[mid].active), None)
        if shared is not None:
            tagged.update(dict.fromkeys(mids, shared))
    return tagged


def _media(
    description: Description,
    index: int,
    section: _Section,
    tagged: _Section | None,
    session: _Section,
) -> SdpMedia:
    sources = [section, session] if tagged is None else [section, tagged, session]
    ufrag = next((s.ufrag for s in sources if s.ufrag is not None), None)
    fingerprints = next((s.fingerprints for s in sources if s.fingerprints), set[str]())
    if section.active:
        if ufrag is None:
            raise _malformed(description, f"m-line {index} has no ice-ufrag")
        if not any(source.pwd for source in sources):
            raise _malformed(description, f"m-line {index} has no ice-pwd")
        if not fingerprints:
            raise _malformed(description, f"m-line {index} has no DTLS fingerprint")
    return SdpMedia(
        kind=section.kind,
        mid=section.mid,
        active=section.active,
        direction=section.direction or session.direction or "sendrecv",
        ufrag=ufrag if section.active else None,
        fingerprints=frozenset(fingerprints) if section.active else frozenset(),
    )


def same_transport(old: Sdp, new: Sdp) -> bool:
    """Whether `new`, from the same peer as `old`, goes on with the transport of `old`.

    By index, every m-line that is active in both has the same ice-ufrag and shares a DTLS
    fingerprint (design.md 4.2). m-lines may be added or rejected; fewer m-lines than before are
    another peer connection's (RFC 8829 section 5.2.2). The ``o=`` line is not compared: aiortc
    writes a new session id in every description.
    """
    if len(new.medias) < len(old.medias):
        return False
    return all(
        before.ufrag == after.ufrag and not before.fingerprints.isdisjoint(after.fingerprints)
        for before, after in zip(old.medias, new.medias, strict=False)
        if before.active and after.active
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
