"""Descriptions as real peers write them, and what aiortc gets; expected texts are by hand."""

from __future__ import annotations

import pytest

from navtalk_asyncio.media.sdp_rewrite import (
    CANDIDATES_PER_DESCRIPTION,
    M_LINES,
    DeferredCandidate,
    UnusableSdpError,
    drop_end_of_candidates,
    mark_mids,
    restore_rejected,
    rewrite_answer,
    rewrite_offer,
)

SESSION = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]
TRANSPORT = [
    "a=ice-ufrag:abcd",
    "a=ice-pwd:" + "p" * 22,
    "a=fingerprint:sha-256 AB",
    "a=setup:actpass",
]
VIDEO = [
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
    "c=IN IP4 0.0.0.0",
    "a=mid:0",
    "a=msid:stream track0",
    "a=sendonly",
    "a=rtcp-mux",
    "a=rtpmap:96 VP8/90000",
    "a=rtpmap:97 rtx/90000",
    "a=fmtp:97 apt=96",
]
AUDIO = [
    "m=audio 9 UDP/TLS/RTP/SAVPF 111",
    "c=IN IP4 0.0.0.0",
    "a=mid:1",
    "a=msid:stream track1",
    "a=sendonly",
    "a=rtcp-mux",
    "a=rtpmap:111 opus/48000/2",
]
HOST = "a=candidate:1 1 udp 2130706431 192.0.2.1 4711 typ host"


def text(*parts: list[str]) -> str:
    return "\r\n".join(line for part in parts for line in part) + "\r\n"


def sections(sdp: str) -> list[list[str]]:
    """The session part and the m-line parts, as lists of lines."""
    found: list[list[str]] = [[]]
    for line in sdp.split("\r\n")[:-1]:
        if line.startswith("m="):
            found.append([])
        found[-1].append(line)
    return found


PLAIN = text(SESSION, VIDEO, TRANSPORT, AUDIO, TRANSPORT)


def test_a_plain_offer_is_left_alone() -> None:
    remote = rewrite_offer(PLAIN)
    assert remote.sdp == PLAIN
    assert remote.mids == ("0", "1")
    assert remote.tagged_mid == "0"
    assert remote.stream_labels == {"0": "stream", "1": "stream"}
    assert (remote.rejected, remote.deferred, remote.ignored_candidates) == ({}, (), {})


def test_line_ends_are_normalised() -> None:
    assert rewrite_offer(PLAIN.replace("\r\n", "\n")).sdp == PLAIN


def test_the_text_does_not_show_in_the_repr() -> None:
    assert "ice-pwd" not in repr(rewrite_offer(PLAIN))


@pytest.mark.parametrize(
    ("sdp", "reason"),
    [
        ("", "does not start with v=0"),
        ("garbage", "does not start with v=0"),
        ("v=0\r\n", "no m-line"),
        ("v=0\r\nm=nonsense\r\n", "m-line 0 is not readable"),
        (text(SESSION, *[VIDEO] * (M_LINES + 1)), "17 m-lines; 16 is the limit"),
        (PLAIN.replace("a=mid:1\r\n", ""), r"m-line 1 \(audio\) has no mid"),
        (PLAIN.replace("a=mid:1", "a=mid:0"), "the same mid"),
        (PLAIN.replace("a=rtcp-mux\r\n", ""), r"m-line 0 \(video\) has no rtcp-mux"),
        (PLAIN.replace("a=ice-ufrag:abcd\r\n", ""), r"m-line 0 \(video\) has no ice-ufrag"),
        (PLAIN.replace("a=fingerprint:sha-256 AB\r\n", ""), "has no fingerprint"),
        (PLAIN.replace("VP8", "AV1"), r"m-line 0 \(video\) has only av1"),
        (PLAIN.replace("a=rtpmap:96 VP8/90000\r\n", ""), r"m-line 0 \(video\) has only no codec"),
        (PLAIN.replace(" 9 UDP", " 0 UDP"), "every m-line is rejected"),
    ],
)
def test_what_is_refused(sdp: str, reason: str) -> None:
    with pytest.raises(UnusableSdpError, match=reason):
        rewrite_offer(sdp)


def test_extension_attributes_are_cut_and_broken_lines_go() -> None:
    odd = [
        "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on",
        "a=extmap:x urn:x",
        "a=extmap:3",
        "a=extmap-allow-mixed",
        "a=ssrc:1 cname:x",
        "a=ssrc:2",
        "a=ssrc:2 cname",
        "a=ssrc-group:FID 1 2",
        "a=ssrc-group:FID 1 x",
    ]
    remote = rewrite_offer(text(SESSION, VIDEO, odd, TRANSPORT, AUDIO, TRANSPORT))
    assert sections(remote.sdp)[1] == [
        *VIDEO,
        "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=extmap-allow-mixed",
        "a=ssrc:1 cname:x",
        "a=ssrc-group:FID 1 2",
        *TRANSPORT,
    ]


def test_unknown_codecs_go_and_static_ones_are_named() -> None:
    audio = [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 0 8 126 50",
        "a=mid:1",
        "a=rtcp-mux",
        "a=sendonly",
        "a=rtpmap:111 opus/48000/2",
        "a=rtcp-fb:111 transport-cc",
        "a=rtcp-fb:* nack",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
        "a=rtcp-fb:63 nack",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:126 telephone-event/8000",
        "a=fmtp:50 orphan=1",
        *TRANSPORT,
    ]
    remote = rewrite_offer(text(SESSION, VIDEO, TRANSPORT, audio))
    assert sections(remote.sdp)[2] == [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8",
        "a=mid:1",
        "a=rtcp-mux",
        "a=sendonly",
        "a=rtpmap:111 opus/48000/2",
        "a=rtcp-fb:111 transport-cc",
        "a=rtcp-fb:* nack",
        "a=rtpmap:8 PCMA/8000",
        *TRANSPORT,
        "a=rtpmap:0 PCMU/8000",
    ]


def test_a_missing_direction_is_sendrecv_or_the_sessions() -> None:
    bare = [line for line in AUDIO if line != "a=sendonly"]
    remote = rewrite_offer(text(SESSION, VIDEO, TRANSPORT, bare, TRANSPORT))
    assert "a=sendrecv" in sections(remote.sdp)[2]
    remote = rewrite_offer(text(SESSION, ["a=recvonly"], VIDEO, TRANSPORT, bare, TRANSPORT))
    assert "a=recvonly" in sections(remote.sdp)[2]
    assert "a=sendonly" in sections(remote.sdp)[1]


def test_a_bundled_line_borrows_transport_and_candidates() -> None:
    """As RFC 8843 section 7.1.3 allows, and as a max-bundle browser writes candidates."""
    bare = [line for line in AUDIO if line != "a=rtcp-mux"]
    end = "a=end-of-candidates"
    remote = rewrite_offer(text(SESSION, VIDEO, TRANSPORT, [HOST, end], bare))
    assert sections(remote.sdp)[1] == [*VIDEO, *TRANSPORT, HOST, end]
    assert sections(remote.sdp)[2] == [*bare, *TRANSPORT, "a=rtcp-mux", HOST, end]


def test_transport_attributes_of_the_session_are_enough() -> None:
    sdp = text(SESSION, TRANSPORT, VIDEO, AUDIO)
    assert rewrite_offer(sdp).sdp == sdp


def test_a_rejected_line_becomes_inactive_and_is_remembered() -> None:
    dead = ["m=audio 0 UDP/TLS/RTP/SAVPF 111", "a=mid:0", "a=inactive"]
    video = [line.replace("a=mid:0", "a=mid:1") for line in VIDEO]
    session = [line.replace("BUNDLE 0 1", "BUNDLE 1") for line in SESSION]
    remote = rewrite_offer(text(session, dead, video, TRANSPORT, [HOST]))
    assert sections(remote.sdp)[1] == [
        "m=audio 9 UDP/TLS/RTP/SAVPF 0",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        "a=rtpmap:0 PCMU/8000",
        "a=inactive",
        "a=rtcp-mux",
        *TRANSPORT,
        HOST,
    ]
    assert sections(remote.sdp)[2] == [*video, *TRANSPORT, HOST]
    assert remote.rejected == {"0": "m=audio 0 UDP/TLS/RTP/SAVPF 111"}
    assert remote.tagged_mid == "1"


def test_a_kind_aiortc_does_not_know_is_rejected() -> None:
    other = ["m=text 9 UDP/TLS/RTP/SAVPF 98", "a=mid:2", "a=rtpmap:98 t140/1000", *TRANSPORT]
    remote = rewrite_offer(text(SESSION, VIDEO, TRANSPORT, AUDIO, TRANSPORT, other))
    assert remote.rejected == {"2": "m=text 9 UDP/TLS/RTP/SAVPF 98"}
    assert sections(remote.sdp)[3][0] == "m=audio 9 UDP/TLS/RTP/SAVPF 0"
    answer = restore_rejected(remote.sdp, remote.rejected)
    assert sections(answer)[3] == [
        "m=text 0 UDP/TLS/RTP/SAVPF 98",
        "c=IN IP4 0.0.0.0",
        "a=mid:2",
        "a=inactive",
    ]


def test_port_zero_with_bundle_only_is_no_rejection() -> None:
    audio = [line.replace("m=audio 9", "m=audio 0") for line in AUDIO]
    remote = rewrite_offer(text(SESSION, VIDEO, TRANSPORT, audio, ["a=bundle-only"]))
    assert remote.rejected == {}
    assert sections(remote.sdp)[2] == [*audio, "a=bundle-only", *TRANSPORT]


def test_restoring_puts_port_zero_back_and_leaves_the_group() -> None:
    rejected = {"0": "m=video 0 UDP/TLS/RTP/SAVPF 120 121"}
    restored = restore_rejected(PLAIN, rejected)
    assert sections(restored)[0] == [*SESSION[:-1], "a=group:BUNDLE 1"]
    assert sections(restored)[1] == [
        "m=video 0 UDP/TLS/RTP/SAVPF 120 121",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        "a=inactive",
    ]
    assert sections(restored)[2] == [*AUDIO, *TRANSPORT]
    assert restore_rejected(PLAIN, {}) == PLAIN


def test_an_answer_that_rejects_a_line_gets_our_codecs_there() -> None:
    active = [line.replace("actpass", "active") for line in TRANSPORT]
    dead = ["m=video 0 UDP/TLS/RTP/SAVPF 0", "a=inactive"]
    session = [line.replace("BUNDLE 0 1", "BUNDLE 1") for line in SESSION]
    remote = rewrite_answer(text(session, dead, AUDIO, active), local_offer=PLAIN)
    assert sections(remote.sdp)[1] == [
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        "a=rtpmap:96 VP8/90000",
        "a=rtpmap:97 rtx/90000",
        "a=fmtp:97 apt=96",
        "a=inactive",
        "a=rtcp-mux",
        *active,
    ]
    assert sections(remote.sdp)[2] == [*AUDIO, *active]
    # It is our m-line: the next offer of ours may bring it back.
    assert remote.rejected == {}


def test_an_answer_with_too_few_lines_is_refused() -> None:
    with pytest.raises(UnusableSdpError, match="1 m-lines, the offer 2"):
        rewrite_answer(text(SESSION, VIDEO, TRANSPORT), local_offer=PLAIN)


def test_local_names_are_taken_out_and_the_end_mark_with_them() -> None:
    name = "7 1 udp 2113937151 0e9f7b1c-dead-beef-8000-000000000000.local 9 typ host"
    remote = rewrite_offer(
        text(
            SESSION,
            VIDEO,
            TRANSPORT,
            [HOST, f"a=candidate:{name}", "a=end-of-candidates"],
            AUDIO,
            TRANSPORT,
        )
    )
    assert ".local" not in remote.sdp
    assert "end-of-candidates" not in remote.sdp
    assert remote.deferred == (DeferredCandidate(mid="0", candidate=name),)
    assert remote.deferred_end is True


def test_a_bundled_line_loses_the_candidates_of_a_transport_of_its_own() -> None:
    """As aiortc offers: a transport for each kind, of which bundling leaves the first."""
    other = "a=candidate:1 1 udp 2130706431 192.0.2.1 4713 typ host"
    remote = rewrite_offer(
        text(SESSION, VIDEO, TRANSPORT, [HOST], AUDIO, TRANSPORT, [HOST, other, other])
    )
    assert "4713" not in remote.sdp
    assert remote.sdp.count(HOST) == 2
    assert remote.ignored_candidates == {"bundled": 2}


def test_candidates_that_only_a_bundled_line_has_are_taken() -> None:
    remote = rewrite_offer(text(SESSION, VIDEO, TRANSPORT, AUDIO, TRANSPORT, [HOST]))
    assert remote.sdp.count(HOST) == 1
    assert remote.ignored_candidates == {}


def test_candidates_that_cannot_be_used_go_and_are_counted() -> None:
    candidates = [
        "a=candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active",
        "a=candidate:1 2 udp 2130706430 192.0.2.1 4712 typ host",
        "a=candidate:1 1 udp 2130706431 192.0.2.1",
        "a=candidate:1 1 udp high 192.0.2.1 4711 typ host",
        HOST,
    ]
    remote = rewrite_offer(text(SESSION, VIDEO, TRANSPORT, candidates, AUDIO, TRANSPORT))
    assert sections(remote.sdp)[1] == [*VIDEO, *TRANSPORT, HOST]
    assert remote.ignored_candidates == {"tcp": 1, "component": 1, "unreadable": 2}


def test_the_number_of_candidates_is_bounded() -> None:
    many = [HOST.replace(" 4711 ", f" {port} ") for port in range(1, 101)]
    remote = rewrite_offer(text(SESSION, VIDEO, TRANSPORT, many, AUDIO, TRANSPORT))
    assert remote.sdp.count("a=candidate:") == 2 * CANDIDATES_PER_DESCRIPTION == 128
    assert remote.ignored_candidates == {"surplus": 36}


def test_end_marks_are_dropped_from_our_own() -> None:
    sdp = text(SESSION, VIDEO, [HOST, "a=end-of-candidates"], AUDIO, ["a=end-of-candidates"])
    assert drop_end_of_candidates(sdp) == text(SESSION, VIDEO, [HOST], AUDIO)


def test_the_mids_of_our_own_m_lines_are_marked_with_the_ufrag() -> None:
    marked = mark_mids(PLAIN, ())
    assert marked == PLAIN.replace("BUNDLE 0 1", "BUNDLE 0.abcd 1.abcd").replace(
        "a=mid:0", "a=mid:0.abcd"
    ).replace("a=mid:1", "a=mid:1.abcd")


def test_mids_that_are_agreed_on_stay() -> None:
    # The far end offered the video first, and called it 0.
    marked = mark_mids(PLAIN, ["0"])
    assert "a=group:BUNDLE 0 1.abcd\r\n" in marked
    assert [line for line in marked.splitlines() if "mid" in line] == ["a=mid:0", "a=mid:1.abcd"]
