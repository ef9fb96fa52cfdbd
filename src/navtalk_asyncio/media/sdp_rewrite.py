r"""Session descriptions that are legal and that aiortc cannot take, made takeable.

Pure text; aiortc is not imported. The core has already checked a description against RFC 8866 and
RFC 8829; what is refused here is refused because aiortc would break on it.

What is rewritten, and what aiortc does without it (pinned by tests/media/test_aiortc_facts.py):

1. A rejected m-line (port 0 without ``a=bundle-only``) is taken for an active one. It becomes an
   inactive m-line with borrowed transport attributes, and is written with port 0 again in
   everything that we say (:func:`restore_rejected`). The same is done to kinds aiortc does not
   know.
2. ``a=extmap`` with extension attributes raises ValueError; the attributes are cut off.
3. Payload types without an rtpmap raise; static ones get theirs (RFC 3551), unknown codecs go.
4. Transport attributes that bundling lets a peer leave out (RFC 8843 section 7.1.3) are copied from
   the tagged m-line. Its candidates take the place of those of all bundled lines: aiortc reads the
   candidates of the last m-line only, and would check a transport that the far end drops.
5. ``.local`` candidates would block the description for a second; they are handed back
   (:attr:`RemoteSdp.deferred`). TCP and unreadable candidates go.
6. A missing direction means sendrecv (RFC 8866 section 6.7).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from attrs import define, field, frozen

__all__ = [
    "CANDIDATES_PER_DESCRIPTION",
    "M_LINES",
    "SUPPORTED_CODECS",
    "DeferredCandidate",
    "RemoteSdp",
    "UnusableSdpError",
    "drop_end_of_candidates",
    "mark_mids",
    "restore_rejected",
    "rewrite_answer",
    "rewrite_offer",
]

M_LINES: Final = 16
"""m-lines taken in one description. Each costs a transceiver and, when it runs, a decoder thread;
real peers send two or three."""

CANDIDATES_PER_DESCRIPTION: Final = 64
"""Candidates taken per m-line; a browser with ten interfaces and two relays sends about 40."""

SUPPORTED_CODECS: Final[Mapping[str, frozenset[str]]] = {
    "audio": frozenset({"opus", "g722", "pcmu", "pcma"}),
    "video": frozenset({"vp8", "h264", "rtx"}),
}
"""aiortc's codecs by media kind, in lower case."""

_STATIC: Final = {0: "PCMU/8000", 8: "PCMA/8000", 9: "G722/8000"}
_DIRECTIONS: Final = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})
_TRANSPORT: Final = ("ice-ufrag", "ice-pwd", "fingerprint", "setup")
_PAYLOAD_ATTRIBUTES: Final = frozenset({"rtpmap", "fmtp", "rtcp-fb"})
_M_LINE: Final = re.compile(r"m=(\S+) ([0-9]+)(?:/[0-9]+)? (\S+) (\S.*)")


class UnusableSdpError(ValueError):
    """A description aiortc cannot take. The text names the m-line and what is wrong with it."""


@frozen(kw_only=True)
class DeferredCandidate:
    """A candidate taken out of a description, without its ``candidate:`` prefix."""

    mid: str
    candidate: str


@frozen(kw_only=True)
class RemoteSdp:
    """A remote description as aiortc gets it, and what it must not see."""

    sdp: str = field(repr=lambda sdp: f"<{len(sdp)} characters>")
    rejected: Mapping[str, str] = field(factory=dict)
    """Original m-lines of the sections that stay rejected, by mid."""
    tagged_mid: str
    """The m-line that carries the bundle's transport (RFC 8843 section 7.2)."""
    mids: tuple[str, ...]
    """The mids in m-line order, which is what sdpMLineIndex counts."""
    stream_labels: Mapping[str, str] = field(factory=dict)
    """The msid stream label of each m-line that has one (RFC 8830), by mid."""
    deferred: tuple[DeferredCandidate, ...] = ()
    deferred_end: bool = False
    """An end-of-candidates mark was taken out too; it belongs after the deferred candidates."""
    ignored_candidates: Mapping[str, int] = field(factory=dict)
    """Candidates dropped, by reason: ``tcp``, ``component``, ``unreadable``, ``surplus``,
    ``bundled``."""


@define
class _Section:
    index: int
    lines: list[str]
    kind: str = ""
    port: int = 0
    proto: str = ""
    formats: list[str] = field(factory=list)

    def values(self, name: str) -> list[str]:
        prefix = f"a={name}:"
        return [line[len(prefix) :] for line in self.lines if line.startswith(prefix)]

    def value(self, name: str) -> str | None:
        # Asked for some thirty times between an offer and its answer: no line behind it is read.
        prefix = f"a={name}:"
        for line in self.lines:
            if line.startswith(prefix):
                return line[len(prefix) :]
        return None

    def has(self, name: str) -> bool:
        return f"a={name}" in self.lines or self.value(name) is not None

    @property
    def mid(self) -> str:
        return self.value("mid") or ""

    @property
    def where(self) -> str:
        return f"m-line {self.index} ({self.kind})"

    @property
    def rejected(self) -> bool:
        return self.port == 0 and not self.has("bundle-only")


@define
class _Sdp:
    session: list[str]
    sections: list[_Section]

    def text(self) -> str:
        lines = [*self.session, *(line for section in self.sections for line in section.lines)]
        return "\r\n".join(lines) + "\r\n"

    def session_value(self, name: str) -> str | None:
        prefix = f"a={name}:"
        return next((line[len(prefix) :] for line in self.session if line.startswith(prefix)), None)

    def bundle(self) -> list[str]:
        group = next((line for line in self.session if line.startswith("a=group:BUNDLE")), "")
        return group.split()[1:]


def _parse(sdp: str) -> _Sdp:
    lines = [line for line in sdp.splitlines() if line]
    if not lines or lines[0].strip() != "v=0":
        raise UnusableSdpError("the description does not start with v=0 (RFC 8866 section 5.1)")
    starts = [number for number, line in enumerate(lines) if line.startswith("m=")]
    if not starts:
        raise UnusableSdpError("the description has no m-line")
    if len(starts) > M_LINES:
        raise UnusableSdpError(f"{len(starts)} m-lines; {M_LINES} is the limit")
    sections = []
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], len(lines)], strict=True)):
        section = _Section(index=index, lines=lines[start:end])
        match = _M_LINE.fullmatch(section.lines[0].strip())
        if match is None:
            raise UnusableSdpError(f"m-line {index} is not readable")
        section.kind, port, section.proto, formats = match.groups()
        section.port = int(port)
        section.formats = formats.split()
        sections.append(section)
    return _Sdp(session=lines[: starts[0]], sections=sections)


def rewrite_offer(
    sdp: str, *, codecs: Mapping[str, frozenset[str]] = SUPPORTED_CODECS
) -> RemoteSdp:
    """A remote offer as aiortc can take it.

    Raises UnusableSdpError: no m-line, no active m-line, an audio or video m-line without a codec
    of `codecs`, without rtcp-mux, without a mid, or without ICE and DTLS attributes.
    """
    parsed = _parse(sdp)
    rejected = {
        section.mid: section.lines[0]
        for section in parsed.sections
        if section.rejected or section.kind not in ("audio", "video", "application")
    }
    return _rewrite(parsed, codecs=codecs, rejected=rejected, offered=None)


def rewrite_answer(
    sdp: str, *, local_offer: str, codecs: Mapping[str, frozenset[str]] = SUPPORTED_CODECS
) -> RemoteSdp:
    """A remote answer as aiortc can take it; `local_offer` is what it answers, as aiortc has it.

    An m-line that the answer rejects becomes inactive with the codecs of our offer.
    Raises UnusableSdpError as :func:`rewrite_offer`, and when every m-line is rejected.
    """
    offered = _parse(local_offer)
    parsed = _parse(sdp)
    if len(parsed.sections) != len(offered.sections):
        raise UnusableSdpError(
            f"the answer has {len(parsed.sections)} m-lines, the offer {len(offered.sections)}"
        )
    rejected = {
        offer.mid: answer.lines[0]
        for offer, answer in zip(offered.sections, parsed.sections, strict=True)
        if answer.rejected
    }
    for offer, answer in zip(offered.sections, parsed.sections, strict=True):
        # An answerer may leave out everything of an m-line that it rejects, its mid included.
        if answer.rejected and not answer.mid:
            answer.lines.append(f"a=mid:{offer.mid}")
    return _rewrite(parsed, codecs=codecs, rejected=rejected, offered=offered)


def _rewrite(
    parsed: _Sdp,
    *,
    codecs: Mapping[str, frozenset[str]],
    rejected: Mapping[str, str],
    offered: _Sdp | None,
) -> RemoteSdp:
    mids = tuple(section.mid for section in parsed.sections)
    if "" in mids:
        raise UnusableSdpError(f"{parsed.sections[mids.index('')].where} has no mid")
    if len(set(mids)) != len(mids):
        raise UnusableSdpError("two m-lines have the same mid")
    active = [section for section in parsed.sections if section.mid not in rejected]
    if not active:
        raise UnusableSdpError("every m-line is rejected")
    bundle = parsed.bundle()
    tagged = next(
        (section for mid in bundle for section in active if section.mid == mid), active[0]
    )
    _check_transport(parsed, tagged)

    default_direction = next(
        (line[2:].strip() for line in parsed.session if line[2:].strip() in _DIRECTIONS),
        "sendrecv",
    )
    ignored: Counter[str] = Counter()
    deferred: list[DeferredCandidate] = []
    for section in active:
        if section.kind in codecs:
            _rewrite_payload_types(section, codecs[section.kind])
            _rewrite_attributes(section)
            if not any(section.has(direction) for direction in _DIRECTIONS):
                section.lines.append(f"a={default_direction}")
        if section is not tagged and section.mid in bundle:
            _borrow_transport(parsed, section, tagged)
        _check_transport(parsed, section)
        if section.kind in codecs and not section.has("rtcp-mux"):
            raise UnusableSdpError(f"{section.where} has no rtcp-mux")
        _rewrite_candidates(section, ignored, deferred)

    # aiortc keeps one m-line's candidates per transport, the last one's (rule 4).
    end = any(section.has("end-of-candidates") for section in active)
    shared = [line for line in tagged.lines if line.startswith("a=candidate:")]
    for section in active:
        if section is not tagged and section.mid in bundle and shared:
            # Its own are of a transport that the far end drops when it reads that we bundle.
            own = [line for line in section.lines if line.startswith("a=candidate:")]
            if surplus := sum(line not in shared for line in own):
                ignored["bundled"] += surplus
            section.lines = [line for line in section.lines if line not in own] + shared
        section.lines = [line for line in section.lines if line != "a=end-of-candidates"]
        if end and not deferred:
            section.lines.append("a=end-of-candidates")

    for section in parsed.sections:
        if section.mid in rejected:
            template = None if offered is None else offered.sections[section.index]
            section.lines = _inactive(parsed, section, tagged, template)
            section.lines += shared
            if end and not deferred:
                section.lines.append("a=end-of-candidates")
    return RemoteSdp(
        sdp=parsed.text(),
        rejected=dict(rejected) if offered is None else {},
        tagged_mid=tagged.mid,
        mids=mids,
        stream_labels=_stream_labels(active),
        deferred=tuple(deferred),
        deferred_end=end and bool(deferred),
        ignored_candidates=dict(ignored),
    )


def _check_transport(parsed: _Sdp, section: _Section) -> None:
    missing = [
        name
        for name in _TRANSPORT
        if section.value(name) is None and parsed.session_value(name) is None
    ]
    if missing:
        raise UnusableSdpError(f"{section.where} has no {', '.join(missing)}")


def _borrow_transport(parsed: _Sdp, section: _Section, tagged: _Section) -> None:
    for name in _TRANSPORT:
        if section.value(name) is None and parsed.session_value(name) is None:
            section.lines += [f"a={name}:{value}" for value in tagged.values(name)]
    if tagged.has("rtcp-mux") and not section.has("rtcp-mux"):
        section.lines.append("a=rtcp-mux")


def _rewrite_payload_types(section: _Section, supported: frozenset[str]) -> None:
    names: dict[str, str] = {}
    for value in section.values("rtpmap"):
        payload_type, _, encoding = value.partition(" ")
        if re.fullmatch(r"[^/\s]+/[0-9]+(/[0-9]+)?", encoding.strip()):
            names[payload_type] = encoding.split("/")[0].lower()
    missing: list[str] = []
    for payload_type in section.formats:
        number = int(payload_type) if payload_type.isdecimal() else -1
        if payload_type not in names and number in _STATIC:
            names[payload_type] = _STATIC[number].split("/")[0].lower()
            missing.append(f"a=rtpmap:{payload_type} {_STATIC[number]}")
    kept = [
        payload_type
        for payload_type in section.formats
        if payload_type.isdecimal()
        and int(payload_type) < 128
        and names.get(payload_type) in supported
    ]
    if not any(names[payload_type] != "rtx" for payload_type in kept):
        offered = ", ".join(sorted(set(names.values()) - {"rtx"})) or "no codec"
        raise UnusableSdpError(f"{section.where} has only {offered}")
    section.formats = kept
    section.lines = [
        f"m={section.kind} {section.port} {section.proto} {' '.join(kept)}",
        *(line for line in section.lines[1:] if _keeps_payload_type(line, kept)),
        *missing,
    ]


def _keeps_payload_type(line: str, kept: Sequence[str]) -> bool:
    name, colon, value = line[2:].partition(":")
    if not line.startswith("a=") or not colon or name not in _PAYLOAD_ATTRIBUTES:
        return True
    payload_type = value.split(" ")[0]
    return payload_type in kept or (name == "rtcp-fb" and payload_type == "*")


def _rewrite_attributes(section: _Section) -> None:
    lines = []
    for line in section.lines:
        name, _, value = line[2:].partition(":") if line.startswith("a=") else ("", "", "")
        parts = value.split()
        if name == "extmap":
            if len(parts) < 2 or not parts[0].split("/")[0].isdecimal():
                continue
            lines.append(f"a=extmap:{parts[0]} {parts[1]}")
        elif name == "ssrc":
            # aiortc wants "<ssrc> <attribute>:<value>"; RFC 5576 lets the value be absent.
            if len(parts) >= 2 and parts[0].isdecimal() and ":" in value:
                lines.append(line)
        elif name == "ssrc-group":
            if len(parts) >= 2 and all(part.isdecimal() for part in parts[1:]):
                lines.append(line)
        else:
            lines.append(line)
    section.lines = lines


def _rewrite_candidates(
    section: _Section, ignored: Counter[str], deferred: list[DeferredCandidate]
) -> None:
    lines = []
    count = 0
    for line in section.lines:
        if not line.startswith("a=candidate:"):
            lines.append(line)
            continue
        text = line.removeprefix("a=candidate:")
        parts = text.split()
        count += 1
        if count > CANDIDATES_PER_DESCRIPTION:
            ignored["surplus"] += 1
        elif len(parts) < 8 or not all(parts[at].isdecimal() for at in (1, 3, 5)):
            ignored["unreadable"] += 1
        elif parts[2].lower() != "udp":
            ignored["tcp"] += 1
        elif parts[1] != "1":
            # RTCP is multiplexed; aioice asserts on a check from another component's address.
            ignored["component"] += 1
        elif parts[4].lower().endswith(".local"):
            deferred.append(DeferredCandidate(mid=section.mid, candidate=text))
        else:
            lines.append(line)
    section.lines = lines


def _inactive(
    parsed: _Sdp, section: _Section, tagged: _Section, offered: _Section | None
) -> list[str]:
    """The lines of an m-line that aiortc shall take for an inactive one."""
    if offered is not None:
        first = f"m={offered.kind} 9 {offered.proto} {' '.join(offered.formats)}"
        payload = [
            line
            for line in offered.lines
            if line.startswith(("a=rtpmap:", "a=fmtp:", "a=sctp-port:", "a=max-message-size:"))
        ]
        kind = offered.kind
    elif section.kind == "video":
        first, payload, kind = "m=video 9 UDP/TLS/RTP/SAVPF 96", ["a=rtpmap:96 VP8/90000"], "video"
    else:
        first, payload, kind = "m=audio 9 UDP/TLS/RTP/SAVPF 0", ["a=rtpmap:0 PCMU/8000"], "audio"
    lines = [first, "c=IN IP4 0.0.0.0", f"a=mid:{section.mid}", *payload]
    if kind != "application":
        lines += ["a=inactive", "a=rtcp-mux"]
    for name in _TRANSPORT:
        if parsed.session_value(name) is None or tagged.value(name) is not None:
            lines += [f"a={name}:{value}" for value in tagged.values(name)]
    return lines


def _stream_labels(sections: Iterable[_Section]) -> dict[str, str]:
    labels = {}
    for section in sections:
        label = (section.value("msid") or "").split(" ")[0]
        if label and label != "-":
            labels[section.mid] = label
    return labels


def mark_mids(sdp: str, known: Collection[str]) -> str:
    """Our offer with the ICE ufrag of its peer connection in each mid that is not agreed on yet.

    ``0`` and ``1`` become ``0.kX3f`` and ``1.kX3f``. An answer repeats the mids of its offer (RFC
    8829 section 5.3.1), so none to another peer connection's offer is taken for one to this. The
    ufrag is a random one: neither are the mids that a far end gave its own m-lines, whatever it
    names them by.
    """
    parsed = _parse(sdp)
    ufrag = next(
        line.partition(":")[2]
        for section in parsed.sections
        for line in section.lines
        if line.startswith("a=ice-ufrag:")
    )
    marked = {
        section.mid: f"{index}.{ufrag}"
        for index, section in enumerate(parsed.sections)
        if section.mid not in known
    }
    for section in parsed.sections:
        section.lines = [
            f"a=mid:{marked.get(section.mid, section.mid)}" if line.startswith("a=mid:") else line
            for line in section.lines
        ]
    parsed.session = [
        " ".join(marked.get(part, part) for part in line.split(" "))
        if line.startswith("a=group:BUNDLE")
        else line
        for line in parsed.session
    ]
    return parsed.text()


def restore_rejected(sdp: str, rejected: Mapping[str, str]) -> str:
    """A local description in which the m-lines of :attr:`RemoteSdp.rejected` have port 0 again.

    They leave the BUNDLE group (RFC 8843 section 7.3.3) and lose their transport.
    """
    if not rejected:
        return sdp
    parsed = _parse(sdp)
    for section in parsed.sections:
        if section.mid in rejected:
            kind, proto, formats = _m_line_parts(rejected[section.mid])
            section.lines = [
                f"m={kind} 0 {proto} {formats}",
                "c=IN IP4 0.0.0.0",
                f"a=mid:{section.mid}",
                "a=inactive",
            ]
    parsed.session = [
        " ".join(part for part in line.split(" ") if part not in rejected)
        if line.startswith("a=group:BUNDLE")
        else line
        for line in parsed.session
    ]
    return parsed.text()


def _m_line_parts(line: str) -> tuple[str, str, str]:
    match = _M_LINE.fullmatch(line.strip())
    if match is None:
        raise UnusableSdpError("an m-line is not readable")
    kind, _, proto, formats = match.groups()
    return kind, proto, formats


def drop_end_of_candidates(sdp: str) -> str:
    """A local description without its end-of-candidates marks: more candidates will follow."""
    return sdp.replace("a=end-of-candidates\r\n", "")
