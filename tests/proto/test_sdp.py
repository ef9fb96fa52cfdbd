"""What signaling reads of SDP (RFC 8866, 8829, 8839, 9143; docs/architecture.md)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.wire import sdp
from navtalk_proto.wire.messages import Answer, IceCandidate, Offer
from navtalk_proto.wire.sdp import (
    Sdp,
    SdpMedia,
    candidate_ufrag,
    check_description,
    directions_fit,
    may_answer,
    same_transport,
)

LIMITS = Limits()
HEAD = ["v=0", "o=- 3900000000 3900000000 IN IP4 0.0.0.0", "s=-", "t=0 0"]
FINGERPRINT = "a=fingerprint:sha-256 AA:BB:CC"


def transport(ufrag: str = "uuuu", fingerprint: str = FINGERPRINT) -> list[str]:
    return [f"a=ice-ufrag:{ufrag}", "a=ice-pwd:pppppppppppppppppppppp", fingerprint]


def media(kind: str, mid: str, *lines: str, port: int = 9) -> list[str]:
    return [
        f"m={kind} {port} UDP/TLS/RTP/SAVPF 96",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{mid}",
        *lines,
        "a=rtpmap:96 VP8/90000",
    ]


def offer(*lines: str, end: str = "\r\n") -> Offer:
    return Offer(sdp="".join(line + end for line in lines))


def check(*lines: str) -> Sdp:
    return check_description(offer(*lines), LIMITS)


def refusal(*lines: str) -> str:
    with pytest.raises(MalformedMessageError) as caught:
        check(*lines)
    assert caught.value.type == "webrtc.signaling.offer"
    assert caught.value.field == "data.sdp.sdp"
    return caught.value.reason


def test_an_offer_of_the_service_is_read() -> None:
    sdp = check(
        *HEAD,
        "a=group:BUNDLE 0 1",
        *media("video", "0", "a=sendonly", *transport()),
        *media("audio", "1", "a=sendrecv", *transport()),
    )
    assert sdp.medias == (
        SdpMedia(
            kind="video",
            mid="0",
            active=True,
            direction="sendonly",
            ufrag="uuuu",
            fingerprints=frozenset({"sha-256 AA:BB:CC"}),
        ),
        SdpMedia(
            kind="audio",
            mid="1",
            active=True,
            direction="sendrecv",
            ufrag="uuuu",
            fingerprints=frozenset({"sha-256 AA:BB:CC"}),
        ),
    )
    assert sdp.ufrags == frozenset({"uuuu"})


def test_line_ends_may_be_lf_and_the_last_may_be_missing() -> None:
    lines = [*HEAD, *media("video", "0", *transport())]
    medias = check(*lines).medias
    assert check_description(offer(*lines, end="\n"), LIMITS).medias == medias
    assert check_description(Offer(sdp="\r\n".join(lines)), LIMITS).medias == medias


def test_an_answer_is_named_in_its_error() -> None:
    with pytest.raises(MalformedMessageError) as caught:
        check_description(Answer(sdp="garbage"), LIMITS)
    assert caught.value.type == "webrtc.signaling.answer"


def test_what_the_session_says_goes_for_every_m_line() -> None:
    sdp = check(
        *HEAD,
        *transport("sess"),
        "a=recvonly",
        *media("video", "0"),
        *media("audio", "1", "a=ice-ufrag:mine", "a=inactive"),
    )
    assert [m.ufrag for m in sdp.medias] == ["sess", "mine"]
    assert [m.direction for m in sdp.medias] == ["recvonly", "inactive"]
    assert [m.fingerprints for m in sdp.medias] == [frozenset({"sha-256 AA:BB:CC"})] * 2
    assert sdp.ufrags == frozenset({"sess", "mine"})


def test_sendrecv_and_no_mid_are_the_defaults() -> None:
    sdp = check(*HEAD, "m=audio 9 RTP/SAVPF 0", *transport())
    assert (sdp.medias[0].direction, sdp.medias[0].mid) == ("sendrecv", None)


def test_a_rejected_m_line_needs_no_transport() -> None:
    sdp = check(*HEAD, *media("video", "0", *transport()), *media("audio", "1", port=0))
    assert [m.active for m in sdp.medias] == [True, False]
    assert sdp.medias[1].ufrag is None
    assert sdp.medias[1].fingerprints == frozenset()
    assert sdp.ufrags == frozenset({"uuuu"})


def test_a_rejected_m_line_does_not_inherit_the_sessions_transport() -> None:
    sdp = check(*HEAD, *transport(), *media("video", "0", port=0), *media("audio", "1"))
    assert (sdp.medias[0].ufrag, sdp.medias[0].fingerprints) == (None, frozenset())
    assert sdp.medias[1].ufrag == "uuuu"


def test_a_bundle_only_m_line_is_active_and_shares_the_transport_of_its_group() -> None:
    sdp = check(
        *HEAD,
        "a=group:BUNDLE gone 2 0 1",
        *media("video", "0", *transport()),
        *media("audio", "1", "a=bundle-only", port=0),
        *media("audio", "2", port=0),
    )
    assert [(m.active, m.ufrag) for m in sdp.medias] == [
        (True, "uuuu"),
        (True, "uuuu"),
        (False, None),
    ]
    assert sdp.medias[1].fingerprints == frozenset({"sha-256 AA:BB:CC"})


def test_groups_without_an_active_m_line_and_other_groups_give_nothing() -> None:
    lines = ["a=group:BUNDLE 1 7", "a=group:LS 0 2", *media("video", "0", *transport())]
    reason = refusal(*HEAD, *lines, *media("audio", "1", port=0), *media("audio", "2"))
    assert reason == "m-line 2 has no ice-ufrag"


def test_a_group_after_the_first_m_line_is_none() -> None:
    video = media("video", "0", *transport(), "a=group:BUNDLE 0 1")
    assert refusal(*HEAD, *video, *media("audio", "1")) == "m-line 1 has no ice-ufrag"


def test_all_fingerprints_count_whatever_their_case() -> None:
    more = "a=fingerprint:SHA-1 aa:0b"
    sdp = check(*HEAD, *media("video", "0", *transport(), more))
    assert sdp.medias[0].fingerprints == frozenset({"sha-256 AA:BB:CC", "sha-1 AA:0B"})


def test_sixteen_fingerprints_are_taken() -> None:
    many = [f"a=fingerprint:h{n} AA:BB" for n in range(16)]
    sdp = check(*HEAD, *media("video", "0", *transport()[:2], *many))
    assert len(sdp.medias[0].fingerprints) == 16


def test_data_channels_and_port_ranges_are_m_lines() -> None:
    sdp = check(
        *HEAD,
        *["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", *transport()],
        *["m=video 49170/2 RTP/AVP", *transport()],
    )
    assert [m.kind for m in sdp.medias] == ["application", "video"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([""], "does not start with v=0"),
        (["v=1", *HEAD[1:]], "does not start with v=0"),
        (["garbage"], "does not start with v=0"),
        (["v=0"], "has no m-line"),
        (HEAD, "has no m-line"),
        ([*HEAD, *media("video", "0")], "m-line 0 has no ice-ufrag"),
        ([*HEAD, *media("video", "0", transport()[0])], "m-line 0 has no ice-pwd"),
        ([*HEAD, *media("video", "0", *transport()[:2])], "m-line 0 has no DTLS fingerprint"),
        (
            [*HEAD, *media("video", "0", *transport()), *media("audio", "1")],
            "m-line 1 has no ice-ufrag",
        ),
        ([*HEAD, "m=video", *transport()], "m-line 0 is not one"),
        ([*HEAD, "m=video x UDP 96", *transport()], "m-line 0 is not one"),
        ([*HEAD, "m=video -1 UDP 96", *transport()], "m-line 0 is not one"),
        ([*HEAD, "m=video 65536 UDP 96", *transport()], "m-line 0 is not one"),
        ([*HEAD, "m= 9 UDP 96", *transport()], "m-line 0 is not one"),
        (
            [*HEAD, *media("video", "0", *transport("bad frag"))],
            "m-line 0 has a malformed ICE or DTLS attribute",
        ),
        (
            [*HEAD, *media("video", "0", *transport("x" * 257))],
            "m-line 0 has a malformed ICE or DTLS attribute",
        ),
        (
            [*HEAD, *media("video", "0", *(f"a=fingerprint:h{n} AA:BB" for n in range(17)))],
            "m-line 0 has a malformed ICE or DTLS attribute",
        ),
        (
            [*HEAD, "a=ice-pwd:", *media("video", "0", *transport())],
            "the session part has a malformed ICE or DTLS attribute",
        ),
        (
            [*HEAD, *media("video", "0", *transport(fingerprint="a=fingerprint:sha-256"))],
            "m-line 0 has a malformed ICE or DTLS attribute",
        ),
        (
            [*HEAD, *media("video", "0", *transport(fingerprint="a=fingerprint:sha-256 XX"))],
            "m-line 0 has a malformed ICE or DTLS attribute",
        ),
    ],
)
def test_unusable_descriptions_are_refused(lines: list[str], reason: str) -> None:
    assert refusal(*lines) == reason


def test_size_is_counted_in_bytes() -> None:
    lines = [*HEAD, *media("video", "0", *transport())]
    size = len("".join(f"{line}\r\n" for line in lines))
    assert check_description(offer(*lines), Limits(sdp=size)).ufrags == {"uuuu"}
    with pytest.raises(MalformedMessageError, match=f"larger than {size - 1} bytes"):
        check_description(offer(*lines), Limits(sdp=size - 1))
    accented = [*HEAD[:2], "s=é", *lines[3:]]  # one character, two bytes
    with pytest.raises(MalformedMessageError, match="larger than"):
        check_description(offer(*accented), Limits(sdp=size))
    assert check_description(offer(*accented), Limits(sdp=size + 1)).ufrags == {"uuuu"}


def test_ten_thousand_lines_are_read_in_one_pass() -> None:
    lines = [
        *HEAD,
        "a=group:BUNDLE " + " ".join(str(n) for n in range(2000)),
        *media("video", "0", *transport()),
    ]
    for n in range(1, 2000):
        lines += media("audio", str(n), "a=inactive", "a=rtcp-mux")
    sdp = check_description(offer(*lines), Limits(sdp=2**20, m_lines=2000))
    assert len(lines) > 10_000
    assert len(sdp.medias) == 2000
    assert sdp.ufrags == frozenset({"uuuu"})


@pytest.mark.parametrize("lines", [64, 65])
def test_a_description_has_at_most_64_m_lines(lines: int) -> None:
    """An engine makes a transceiver for each, and 128 KiB hold 16,000."""
    text = [*HEAD, *transport(), *["m=audio 9 UDP/TLS/RTP/SAVPF 96"] * lines]
    if lines == 64:
        assert len(check(*text).medias) == 64
    else:
        assert refusal(*text) == "has more than 64 m-lines"


@given(
    st.lists(
        st.sampled_from([*HEAD, *transport(), *media("video", "0"), *media("audio", "0", port=0)])
        | st.text(max_size=20)
    )
)
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    try:
        medias = check(*HEAD, *lines).medias
    except MalformedMessageError as error:
        field = error.field
    else:
        field = "data.sdp.sdp" if medias else None
        assert all((m.ufrag is not None) == m.active == bool(m.fingerprints) for m in medias)
    assert field == "data.sdp.sdp"


# ---- same transport


def video_and_audio(
    ufrag: str = "uuuu", fingerprint: str = FINGERPRINT, session: str = "3900000000"
) -> Sdp:
    return check(
        "v=0",
        f"o=- {session} 1 IN IP4 0.0.0.0",
        *media("video", "0", *transport(ufrag, fingerprint)),
        *media("audio", "1", *transport(ufrag, fingerprint)),
    )


def test_the_origin_line_is_not_compared() -> None:
    assert same_transport(video_and_audio(session="1"), video_and_audio(session="2"))


def test_an_ice_restart_is_another_transport() -> None:
    assert not same_transport(video_and_audio(), video_and_audio(ufrag="vvvv"))


def test_another_certificate_is_another_transport() -> None:
    other = "a=fingerprint:sha-256 AA:BB:CD"
    assert not same_transport(video_and_audio(), video_and_audio(fingerprint=other))


def test_one_shared_fingerprint_is_the_same_certificate() -> None:
    more = check(*HEAD, *media("video", "0", *transport(), "a=fingerprint:sha-512 01:02"))
    less = check(*HEAD, *media("video", "0", *transport(fingerprint="a=fingerprint:sha-512 01:02")))
    assert same_transport(more, less)


def test_m_lines_may_be_added_and_rejected_but_not_vanish() -> None:
    one = check(*HEAD, *media("video", "0", *transport()))
    two = video_and_audio()
    rejected = check(*HEAD, *media("video", "0", *transport()), *media("audio", "1", port=0))
    assert same_transport(one, two)
    assert not same_transport(two, one)
    assert same_transport(two, rejected)
    assert same_transport(rejected, two)


def test_the_second_m_line_counts_too() -> None:
    mixed = check(
        *HEAD, *media("video", "0", *transport()), *media("audio", "1", *transport("vvvv"))
    )
    assert not same_transport(video_and_audio(), mixed)


# ---- candidates

HOST = "candidate:1666409998 1 udp 2122129151 192.168.1.81 64301 typ host"


def lines(*lines: tuple[str, str, str]) -> Sdp:
    """m-lines of kind, mid and direction; ``rejected`` is one that has port 0."""
    parts = list(HEAD)
    for kind, mid, direction in lines:
        if direction == "rejected":
            parts += media(kind, mid, port=0)
        else:
            parts += media(kind, mid, f"a={direction}", *transport())
    return check(*[part for part in parts if part != "a=mid:"])


OFFERED = (("video", "0", "recvonly"), ("audio", "1", "recvonly"))


@pytest.mark.parametrize(
    ("answer", "may"),
    [
        ((("video", "0", "sendonly"), ("audio", "1", "sendonly")), True),
        ((("video", "0", "sendonly"), ("audio", "1", "rejected")), True),
        ((("video", "", "sendonly"), ("audio", "1", "sendonly")), True),
        ((("video", "0", "sendonly"),), False),
        ((("video", "0", "sendonly"),) * 3, False),
        ((("audio", "0", "sendonly"), ("audio", "1", "sendonly")), False),
        ((("video", "0.2", "sendonly"), ("audio", "1.2", "sendonly")), False),
        ((("video", "1", "sendonly"), ("audio", "0", "sendonly")), False),
    ],
)
def test_what_may_be_an_answer(answer: tuple[tuple[str, str, str], ...], may: bool) -> None:
    assert may_answer(lines(*OFFERED), lines(*answer)) is may


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        ("sendrecv", "sendrecv sendonly recvonly inactive rejected"),
        ("sendonly", "recvonly inactive rejected"),
        ("recvonly", "sendonly inactive rejected"),
        ("inactive", "inactive rejected"),
        ("rejected", "rejected"),
    ],
)
def test_the_directions_of_an_answer(offered: str, answered: str) -> None:
    every = ("sendrecv", "sendonly", "recvonly", "inactive", "rejected")
    fitting = [
        direction
        for direction in every
        if directions_fit(lines(("audio", "0", offered)), lines(("audio", "0", direction)))
    ]
    assert fitting == answered.split()


@pytest.mark.parametrize(
    ("text", "field", "ufrag"),
    [
        (HOST, None, None),
        (HOST, "", None),
        (HOST, "lwyK", "lwyK"),
        (f"{HOST} generation 0 ufrag lwyK network-id 1", None, "lwyK"),
        (f"{HOST} generation 0 ufrag lwyK network-id 1", "abcd", "abcd"),
        (f"{HOST} generation ufrag lwyK 0", None, None),
        (f"{HOST} generation 0 ufrag", None, None),
        ("candidate:1 1 tcp 1 10.0.0.1 9 typ srflx raddr 1.2.3.4 rport 5 ufrag q", None, "q"),
        ("candidate:ufrag 1 ufrag x 1.2.3.4 9 typ host", None, None),
        ("", None, None),
    ],
)
def test_a_candidates_generation(text: str, field: str | None, ufrag: str | None) -> None:
    assert candidate_ufrag(IceCandidate(candidate=text, username_fragment=field)) == ufrag


LINES = st.lists(
    st.sampled_from(
        [
            "v=0",
            "m=audio 9 RTP 0",
            "a=mid:0",
            "a=mid:0\r",
            "a=ice-ufrag:x",
            "a=ice-pwd:y",
            "\r",
            "a=fingerprint:sha-1 AB",
            "a=sendonly",
            "a=recvonly",
            "a=sendrecv",
            "a=inactive",
            "a=bundle-only",
            "a=group:BUNDLE 0 1",
            "xa=mid:1",
            "",
            "a=",
            "a=rtpmap:96 opus/48000/2",
        ]
    ),
    max_size=8,
)


@given(lines=LINES, ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=8, max_size=8))
def test_no_line_that_matters_is_passed_over(lines: list[str], ends: list[str]) -> None:
    text = "v=0\r\n" + "".join(map("".join, zip(lines, ends, strict=False)))
    names = ("ice-ufrag:", "ice-pwd:", "fingerprint:", "mid:", "bundle-only", "group:BUNDLE ")
    names += ("sendonly", "recvonly", "sendrecv", "inactive")
    wanted = ("m=", *(f"a={name}" for name in names))
    every = text.replace("\r\n", "\n").split("\n")
    found = [
        line
        for media, transport, attribute in sdp._pieces(text)
        for line in (media or transport or f"a={attribute}").split("\n")
    ]
    assert [line.removesuffix("\r") for line in found if line.startswith(wanted)] == [
        line for line in every if line.startswith(wanted)
    ]


# ---- the usual shape

HASHES = [f"a=fingerprint:sha-{bits} " + ":".join(["0A"] * (bits // 8)) for bits in (256, 384, 512)]
AIORTC = [
    *[*HEAD, "a=group:BUNDLE 0 1", "a=msid-semantic:WMS *"],
    *["m=audio 54951 UDP/TLS/RTP/SAVPF 96 9", "c=IN IP4 192.0.2.17", "a=sendonly", "a=mid:0"],
    *["a=candidate:f957 1 udp 2130706431 192.0.2.17 54951 typ host", "a=end-of-candidates"],
    *["a=ice-ufrag:EsAw", "a=ice-pwd:EXAMPLEofApwdThatIs22c", *HASHES, "a=setup:actpass"],
    *["m=video 54951 UDP/TLS/RTP/SAVPF 97 98", "c=IN IP4 192.0.2.17", "a=sendonly", "a=mid:1"],
    *["a=ice-ufrag:EsAw", "a=ice-pwd:EXAMPLEofApwdThatIs22c", *HASHES, "a=setup:actpass"],
]
CHROMIUM = [
    *[*HEAD, "a=group:BUNDLE 0 1", "a=extmap-allow-mixed"],
    *["m=audio 9 UDP/TLS/RTP/SAVPF 111 63", "c=IN IP4 0.0.0.0", "a=rtcp:9 IN IP4 0.0.0.0"],
    *["a=ice-ufrag:sXJ3", "a=ice-pwd:EXAMPLEofApwdThatIs24char", "a=ice-options:trickle"],
    *[HASHES[0], "a=setup:actpass", "a=mid:0", "a=recvonly", "a=rtcp-mux"],
    *["m=video 9 UDP/TLS/RTP/SAVPF 96 97", "c=IN IP4 0.0.0.0", "a=rtcp:9 IN IP4 0.0.0.0"],
    *["a=ice-ufrag:sXJ3", "a=ice-pwd:EXAMPLEofApwdThatIs24char", "a=ice-options:trickle"],
    *[HASHES[0], "a=setup:actpass", "a=mid:1", "a=recvonly", "a=rtcp-mux"],
]


@pytest.mark.parametrize("lines", [AIORTC, CHROMIUM])
def test_of_stock_peers_descriptions_little_is_read_at_first(lines: list[str]) -> None:
    sdp = check(*lines)
    assert len(sdp.transports) == 2
    assert len(sdp.ufrags) == 1
    assert [(media.kind, media.mid) for media in sdp.medias] == [("audio", "0"), ("video", "1")]
    assert {media.ufrag for media in sdp.medias} == sdp.ufrags


STRAY = st.sampled_from(
    [
        *[*transport("vvvv"), "a=ice-ufrag:", "a=ice-pwd:b d", "a=ice-lite", "a=ice-options:x\ty"],
        *["a=fingerprint:sha-256 XX", "a=fingerprint:sha-1 aa:bb:", "a=finger", "a=inactive"],
        *["m=audio 0 RTP/AVP 0", "m=audio 65001 RTP/AVP 0", "m=audio 99999 RTP/AVP 0", "m=", "m"],
        *["m=video 9/2 RTP/AVP 96", "m=video 9 RTP/AVP", "a=mid:1", "a=bundle-only", "\r", ""],
    ]
)


@given(data=st.data(), lines=st.sampled_from([AIORTC, CHROMIUM]))
def test_the_usual_shape_decides_nothing_else(data: st.DataObject, lines: list[str]) -> None:
    lines = lines.copy()
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(1, len(lines) - 1))
        lines[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(STRAY, max_size=2))
    text = "\r\n".join(lines) + data.draw(st.sampled_from(["\r\n", "\n", "\r", ""]))
    usual = sdp._usual(text, LIMITS.m_lines)
    if usual is not None:
        medias = sdp._read(text, LIMITS.m_lines)  # Without it this would raise, or be the same.
        assert usual.medias == medias
        assert usual.ufrags == {media.ufrag for media in medias}
        assert len(usual.transports) == len(medias)


def test_equal_lines_are_the_same_transport_and_so_are_their_parts() -> None:
    chromium = check(*CHROMIUM)
    assert same_transport(chromium, check(*CHROMIUM, *media("audio", "2", *transport("vvvv"))))
    assert not same_transport(chromium, check(*CHROMIUM[: CHROMIUM.index("a=mid:0") + 1]))
    assert not same_transport(chromium, check(*AIORTC))
    rejected = [line.replace("m=audio 9", "m=audio 0") for line in CHROMIUM]
    assert check(*rejected).transports == ()
    assert same_transport(chromium, check(*rejected))


@pytest.mark.parametrize(("start", "good"), [("v=0\r\n", True), ("v=0\n", True), ("v=0\r", False)])
def test_the_first_line_is_a_whole_one(start: str, good: bool) -> None:
    assert (sdp._VERSION.match(start) is not None) is good
    assert sdp._VERSION.match("v=0") is not None
    assert sdp._VERSION.match("v=01\n") is None
