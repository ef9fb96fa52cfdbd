"""The numbers of codecs and header extensions: none changes its meaning."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.codecs import is_rtx
from aiortc.sdp import MediaDescription, SessionDescription
from hypothesis import given
from hypothesis import strategies as st

from navtalk_asyncio.media.payload_types import UNREAD, PayloadTypes

pytestmark = pytest.mark.anyio

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
H264 = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def own_offer(*kinds: str) -> str:
    """What aiortc offers by itself: VP8 97, H264 99 and 101, Opus 96; extensions 1 to 3."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind in kinds:
        peer.addTransceiver(kind, direction="recvonly")
    offer = await peer.createOffer()
    await peer.close()
    return offer.sdp


def foreign(numbers: Sequence[int], ids: Sequence[int]) -> str:
    """Two m-lines of a far end, with its own numbers, without what only a transport needs."""
    vp8, rtx, vp9, h264, h264_rtx, opus = numbers
    mid, level, send_time = ids
    lines = [
        "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE v a",
        f"m=video 9 UDP/TLS/RTP/SAVPF {vp8} {rtx} {vp9} {h264} {h264_rtx}",
        "c=IN IP4 0.0.0.0", "a=mid:v", "a=sendonly", "a=rtcp-mux",
        f"a=extmap:{mid} {MID}", f"a=extmap:{send_time} {SEND_TIME}",
        f"a=rtpmap:{vp8} VP8/90000", f"a=rtpmap:{rtx} rtx/90000", f"a=fmtp:{rtx} apt={vp8}",
        f"a=rtpmap:{vp9} VP9/90000",
        f"a=rtpmap:{h264} H264/90000", f"a=fmtp:{h264} {H264}",
        f"a=rtpmap:{h264_rtx} rtx/90000", f"a=fmtp:{h264_rtx} apt={h264}",
        f"m=audio 9 UDP/TLS/RTP/SAVPF {opus} 0",
        "c=IN IP4 0.0.0.0", "a=mid:a", "a=sendonly", "a=rtcp-mux",
        f"a=extmap:{mid} {MID}", f"a=extmap:{level} {LEVEL}",
        f"a=rtpmap:{opus} opus/48000/2", "a=rtpmap:0 PCMU/8000",
    ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n"


def names(section: MediaDescription) -> dict[int, str]:
    """The codecs of an m-line by payload type; a retransmission is named after what it repeats."""
    plain = {
        codec.payloadType: f"{codec.name} {codec.parameters.get('profile-level-id', '')}".strip()
        for codec in section.rtp.codecs
        if not is_rtx(codec)
    }
    repeated = {
        codec.payloadType: f"rtx of {plain[codec.parameters['apt']]}"
        for codec in section.rtp.codecs
        if is_rtx(codec)
    }
    assert [codec.payloadType for codec in section.rtp.codecs] == section.fmt
    return plain | repeated


def extensions(section: MediaDescription) -> dict[int, str]:
    return {extension.id: extension.uri for extension in section.rtp.headerExtensions}


async def test_the_first_offer_is_aiortcs_own() -> None:
    offer = await own_offer("video", "audio")
    assert PayloadTypes().keep(offer) == offer


async def test_an_offer_after_an_answer_keeps_the_far_ends_numbers() -> None:
    kept = PayloadTypes()
    kept.saw(foreign((96, 97, 98, 103, 104, 111), (4, 14, 2)))
    video, audio = SessionDescription.parse(kept.keep(await own_offer("video", "audio"))).media
    # The other profile of H264 was not known: 99 is free, and 100 for its retransmissions.
    assert names(video) == {
        96: "VP8", 97: "rtx of VP8",
        99: "H264 42001f", 100: "rtx of H264 42001f",
        103: "H264 42e01f", 104: "rtx of H264 42e01f",
    }  # fmt: skip
    assert names(audio) == {111: "opus", 9: "G722", 0: "PCMU", 8: "PCMA"}
    assert extensions(video) == {4: MID, 2: SEND_TIME}
    assert extensions(audio) == {4: MID, 14: LEVEL}


async def test_a_new_m_line_uses_the_numbers_of_its_bundle() -> None:
    kept = PayloadTypes()
    kept.saw(foreign((96, 97, 98, 103, 104, 111), (4, 14, 2)))
    offer = SessionDescription.parse(kept.keep(await own_offer("audio", "audio")))
    assert [names(section)[111] for section in offer.media] == ["opus", "opus"]


async def test_what_is_offered_once_keeps_its_new_number() -> None:
    kept = PayloadTypes()
    kept.saw(foreign((99, 97, 98, 103, 104, 111), (4, 14, 2)))
    first = kept.keep(await own_offer("video"))
    kept.saw(first)
    again = kept.keep(await own_offer("video"))
    [before], [after] = (SessionDescription.parse(text).media for text in (first, again))
    assert names(after) == names(before)
    assert names(before)[96] == "H264 42001f"


async def test_numbers_of_codecs_that_were_taken_out_are_not_free() -> None:
    original = foreign((96, 97, 99, 103, 104, 111), (4, 14, 2))
    kept = PayloadTypes()
    kept.saw(
        original.replace("a=rtpmap:99 VP9/90000\r\n", "").replace(" 99 ", " "), original=original
    )
    [video] = SessionDescription.parse(kept.keep(await own_offer("video"))).media
    assert names(video)[98] == "H264 42001f"
    assert 99 not in names(video)


async def test_what_finds_no_number_is_not_offered() -> None:
    everything = "".join(f"a=rtpmap:{number} red/48000\r\n" for number in range(96, 128))
    kept = PayloadTypes()
    usual = foreign((96, 97, 98, 103, 104, 111), range(1, 4))
    all_ids = "".join(f"a=extmap:{number} urn:x:{number}\r\n" for number in range(4, 15))
    without_level = usual.replace(f"a=extmap:2 {LEVEL}\r\n", "a=extmap:2 urn:x:2\r\n")
    kept.saw(usual, original=without_level + everything + all_ids)
    video, _ = SessionDescription.parse(kept.keep(await own_offer("video", "audio"))).media
    assert sorted(names(video)) == [96, 97, 103, 104]

    nothing_free = PayloadTypes()
    nothing_free.saw(without_level, original=without_level + all_ids)
    [audio] = SessionDescription.parse(nothing_free.keep(await own_offer("audio"))).media
    assert extensions(audio) == {1: MID}


@given(
    numbers=st.permutations(range(96, 128)).map(lambda all_: all_[:6]),
    ids=st.permutations(range(1, 15)).map(lambda all_: all_[:3]),
)
async def test_no_number_ever_changes_its_meaning(numbers: list[int], ids: list[int]) -> None:
    theirs = foreign(numbers, ids)
    kept = PayloadTypes()
    kept.saw(theirs)
    meaning: dict[int, str] = {}
    extension: dict[int, str] = {}
    for text in (theirs, kept.keep(await own_offer("video", "audio", "video"))):
        for section in SessionDescription.parse(text).media:
            for number, name in names(section).items():
                assert meaning.setdefault(number, name) == name
            for number, uri in extensions(section).items():
                assert extension.setdefault(number, uri) == uri


async def test_descriptions_that_nobody_asks_for_do_not_pile_up() -> None:
    sdp = await own_offer("video", "audio")
    types = PayloadTypes()
    for _ in range(3 * UNREAD):
        types.saw(sdp)
        assert len(types._unread) <= UNREAD
    assert types.keep(sdp) == sdp
