"""Two engines on one loop, over loopback, driven by the core's commands.

The `media` fixture closes every engine and then fails the test if a task or a thread is left.
"""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from aioice.ice import get_host_addresses

from navtalk_asyncio.media import frame_decoder, private_names, receiver_tap
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_proto.actions import (
    ClosePeer,
    CreateOffer,
    SetLocal,
    SetRemote,
)
from navtalk_proto.media import (
    Capabilities,
    Direction,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    TrackAdded,
)
from navtalk_proto.wire.messages import Answer, IceServer, Offer

pytestmark = pytest.mark.anyio

VIDEO, AUDIO = MediaKind.VIDEO, MediaKind.AUDIO
HOST = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host"
TCP = "candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active"


async def read(frames: Any, number: int) -> list[Any]:
    found = []
    async with asyncio.timeout(20):
        async for frame in frames:
            found.append(frame)
            if len(found) == number:
                return found
    return found


async def counted(driver: Any, kind: MediaKind, reached: Callable[[Any], bool]) -> Any:
    """The counters of the first track of a kind once they satisfy `reached`.

    Woken by the encoded frames of that track, so it costs no polling.
    """
    changed = asyncio.Event()
    remove = driver.engine.add_encoded_sink(kind, lambda _frame: changed.set())
    try:
        async with asyncio.timeout(20):
            while True:
                counters = first(driver, kind)
                if reached(counters):
                    return counters
                changed.clear()
                await changed.wait()
    finally:
        remove()


def first(driver: Any, kind: MediaKind) -> Any:
    return next(c for c in driver.engine.counters().values() if c.kind is kind)


def m_lines(sdp: str) -> list[str]:
    return [line for line in sdp.split("\r\n") if line.startswith("m=")]


# ---- offer, answer, media


def mids(offer: Offer) -> list[str]:
    return re.findall(r"^a=mid:(.*)\r", offer.sdp, re.MULTILINE)


async def test_no_two_offers_of_later_peer_connections_have_the_same_mids(media: Any) -> None:
    """On neither end: an answer then says by its mids which of all of them it is to."""
    found: list[str] = []
    for driver in (media.driver(), media.driver()):
        await driver.open(media.receive)
        assert mids(await driver.do(SetLocal)) == ["0", "1"]
        for _ in range(2):
            await driver.reset(media.receive)
            found += mids(await driver.do(SetLocal))
    assert len(found) == len(set(found)) == 8
    assert not set(found) & {"0", "1"}


@pytest.mark.replaces("receiving")
async def test_both_kinds_of_media_flow_and_are_told_in_order(media: Any) -> None:
    server, client = media.server(), media.driver()
    assert server.engine.capabilities == Capabilities(rollback=False)
    await server.open(media.send)
    await client.open(media.receive)
    video, audio = client.engine.frames(VIDEO), client.engine.frames(AUDIO)
    offer, answer = await media.connect(server, client)
    assert isinstance(offer, Offer)
    assert isinstance(answer, Answer)
    assert [line.split()[0] for line in m_lines(offer.sdp)] == ["m=video", "m=audio"]
    assert offer.sdp.count("a=sendonly\r\n") == 2
    assert answer.sdp.count("a=recvonly\r\n") == 2
    assert "127.0.0.1" in offer.sdp

    pictures = await read(video, 5)
    sounds = await read(audio, 5)
    assert {(frame.width, frame.height) for frame in pictures} == {(176, 144)}
    assert {(frame.sample_rate, frame.samples) for frame in sounds} == {(48_000, 960)}
    for driver in (server, client):
        await driver.state(MediaState.CONNECTED)
        assert driver.states() == [
            MediaState.CHECKING,
            MediaState.ICE_CONNECTED,
            MediaState.CONNECTED,
        ]

    added = [event for event in client.events if isinstance(event, TrackAdded)]
    started = [event for event in client.events if isinstance(event, MediaStarted)]
    assert [event.kind for event in added] == [VIDEO, AUDIO]
    assert [event.mid for event in added] == ["0", "1"]
    # protocol.md 6.3 item 4: every client renders the first track's stream.
    assert len({event.stream_id for event in added}) == 1
    assert added[0].stream_id is not None
    assert sorted(event.track_id for event in started) == sorted(e.track_id for e in added)
    for event in started:
        assert client.events.index(event) > client.events.index(added[1])
    assert not [event for event in server.events if isinstance(event, TrackAdded | MediaStarted)]


async def test_tracks_are_added_before_the_remote_description_is_done(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    order: list[str] = []
    done = client.start(SetRemote, description=offer)
    done.add_done_callback(lambda _: order.append(f"done after {len(client.events)} events"))
    await done
    await asyncio.sleep(0)
    assert order == ["done after 2 events"]


@pytest.mark.replaces("receiving")
async def test_counters_count_packets_of_each_track(media: Any) -> None:
    _, client = await media.call()
    before = asyncio.get_running_loop().time()
    video = await counted(client, VIDEO, lambda c: c.packets >= 20)
    audio = await counted(client, AUDIO, lambda c: c.packets >= 20)
    assert video.bytes > video.packets * 10
    assert video.last_packet is not None
    assert audio.last_packet is not None
    assert audio.last_packet > before
    # Nobody reads frames, so none is decoded and none is dropped.
    assert (video.frames_decoded, video.frames_dropped) == (0, 0)
    assert (audio.frames_decoded, audio.frames_dropped) == (0, 0)


@pytest.mark.replaces("receiving")
async def test_decoding_starts_with_the_first_reader_and_stops_with_the_last(media: Any) -> None:
    _, client = await media.call()
    await counted(client, VIDEO, lambda c: c.packets >= 40)
    assert first(client, VIDEO).frames_decoded == 0
    reader = client.engine.frames(VIDEO)
    assert len(await read(reader, 3)) == 3
    await reader.aclose()
    del reader
    # One frame may be in the decoder thread, others in the loop's queue: read them out first.
    await counted(client, VIDEO, lambda c: c.packets >= first(client, VIDEO).packets)
    settled = await counted(client, VIDEO, _grown(client, VIDEO, 10))
    later = await counted(client, VIDEO, _grown(client, VIDEO, 20))
    assert later.frames_decoded == settled.frames_decoded > 0


@pytest.mark.replaces("receiving")
async def test_a_first_reader_gets_what_came_before_it_without_another_frame(media: Any) -> None:
    class Once(media.track):  # type: ignore[misc,name-defined]
        async def recv(self) -> Any:
            if self.sent:
                await asyncio.Event().wait()
            return await super().recv()

    server = media.driver(tracks=[Once(media.vp8), Once(media.opus)])
    client = media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    keyframe = asyncio.Event()
    client.engine.add_encoded_sink(VIDEO, lambda _frame: keyframe.set())
    await media.connect(server, client)
    async with asyncio.timeout(20):
        await keyframe.wait()
    assert len(await read(client.engine.frames(VIDEO), 1)) == 1


def _grown(driver: Any, kind: MediaKind, packets: int) -> Callable[[Any], bool]:
    start = first(driver, kind).packets
    return lambda counters: counters.packets >= start + packets


async def test_readers_of_one_kind_all_get_frames(media: Any) -> None:
    _, client = await media.call()
    one, two = client.engine.frames(AUDIO), client.engine.frames(AUDIO)
    ours, theirs = await asyncio.gather(read(one, 10), read(two, 10))
    assert {frame.pts for frame in ours} & {frame.pts for frame in theirs}


@pytest.mark.replaces("receiving")
async def test_encoded_frames_are_made_for_those_who_take_them(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Counter[MediaKind]()

    def make(**what: Any) -> EncodedFrame:
        made[what["kind"]] += 1
        return EncodedFrame(**what)

    monkeypatch.setattr(receiver_tap, "EncodedFrame", make)
    _, client = await media.call()
    await asyncio.gather(*(read(client.engine.frames(kind), 5) for kind in MediaKind))
    assert made[VIDEO] == 0
    assert client.engine.codec(VIDEO) == "VP8"
    await counted(client, VIDEO, lambda _counters: made[VIDEO] > 0)


@pytest.mark.replaces("receiving")
async def test_a_reader_that_is_too_slow_loses_the_oldest_and_it_is_counted(media: Any) -> None:
    _, client = await media.call()
    video, audio = client.engine.frames(VIDEO), client.engine.frames(AUDIO)
    await counted(client, VIDEO, lambda c: c.frames_dropped >= 5)
    await counted(client, AUDIO, lambda c: c.frames_dropped >= 5)
    assert len(video) == 2
    assert len(audio) == 20
    assert first(client, VIDEO).frames_dropped == video.dropped
    newest = [frame.pts for frame in await read(video, 2)]
    assert newest[1] - newest[0] == 3000


@pytest.mark.replaces("receiving")
async def test_frames_end_when_the_far_end_hangs_up(media: Any) -> None:
    server, client = await media.call()
    video = client.engine.frames(VIDEO)
    assert len(await read(video, 2)) == 2
    await server.do(ClosePeer)
    closed = await client.state(MediaState.CLOSED)
    assert closed.reason == "closed by the far end"
    assert len(await read(video, 1000)) < 1000
    assert server.states()[-1] is MediaState.CONNECTED
    # A new offer may come: the dead connection is not in the way.
    await client.open(media.receive)


@pytest.mark.replaces("receiving")
async def test_a_silent_far_end_is_told_apart_from_one_that_hung_up(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navtalk_asyncio.media.peer.SILENCE", -1.0)
    server, client = await media.call()
    await server.do(ClosePeer)
    closed = await client.state(MediaState.CLOSED)
    assert closed.reason.startswith("dead: nothing was received for 0.")


@pytest.mark.replaces("receiving")
async def test_encoded_frames_come_complete_and_in_order(media: Any) -> None:
    _, client = await media.call()
    seen: dict[MediaKind, list[Any]] = {VIDEO: [], AUDIO: []}
    enough = asyncio.Event()

    def sink(frame: Any) -> None:
        seen[frame.kind].append(frame)
        if min(len(frames) for frames in seen.values()) >= 25:
            enough.set()

    removers = [client.engine.add_encoded_sink(kind, sink) for kind in MediaKind]
    async with asyncio.timeout(20):
        await enough.wait()
    for remove in removers:
        remove()
    for kind, clip, codec in ((VIDEO, media.vp8, "VP8"), (AUDIO, media.opus, "opus")):
        frames = seen[kind]
        assert {frame.codec for frame in frames} == {codec}
        start = clip.frames.index(frames[0].data)
        expected = (clip.frames * 3)[start : start + len(frames)]
        assert [frame.data for frame in frames] == expected
        steps = {b.timestamp - a.timestamp for a, b in pairwise(frames)}
        assert steps == {clip.ticks}
        arrivals = [frame.arrival for frame in frames]
        assert arrivals == sorted(arrivals)
        keys = (clip.keyframes * 3)[start : start + len(frames)]
        assert [frame.keyframe for frame in frames] == keys


@pytest.mark.replaces("receiving")
async def test_a_sink_that_raises_is_removed_and_reported(media: Any) -> None:
    _, client = await media.call()
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: reported.append(what))
    calls = []

    def broken(frame: Any) -> None:
        calls.append(frame)
        raise ValueError("broken sink")

    client.engine.add_encoded_sink(AUDIO, broken)
    await counted(client, AUDIO, _grown(client, AUDIO, 5))
    asyncio.get_running_loop().set_exception_handler(None)
    assert len(calls) == 1
    assert [str(what["exception"]) for what in reported] == ["broken sink"]


@pytest.mark.replaces("receiving")
async def test_a_keyframe_is_asked_for(media: Any) -> None:
    server, client = media.server(), media.driver()
    assert client.engine.request_keyframe() is False
    await server.open(media.send)
    await client.open(media.receive)
    await media.connect(server, client)
    await client.event(MediaStarted, lambda event: event.kind is VIDEO)
    sender: Any = server.engine._peer.pc.getSenders()[0]
    asked = asyncio.Event()
    sender._send_keyframe = asked.set
    assert client.engine.request_keyframe() is True
    async with asyncio.timeout(20):
        await asked.wait()


async def test_h264_by_preference_of_the_answerer(media: Any) -> None:
    server = media.driver(tracks=[media.track(media.h264)])
    client = media.driver()
    await server.open((MediaLine(kind=VIDEO, direction=Direction.SENDONLY),))
    await client.open((MediaLine(kind=VIDEO, codecs=("H264",)),))
    frames = client.engine.frames(VIDEO)
    _, answer = await media.connect(server, client)
    assert "VP8" not in answer.sdp
    assert [(frame.width, frame.height) for frame in await read(frames, 3)] == [(176, 144)] * 3


async def test_a_kind_that_is_not_wanted_is_answered_inactive(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open((MediaLine(kind=AUDIO),))
    _, answer = await media.connect(server, client)
    video, audio = answer.sdp.split("m=audio")
    assert "a=inactive\r\n" in video
    assert "a=recvonly\r\n" in audio
    await client.event(MediaStarted, lambda event: event.kind is AUDIO)


async def test_the_server_answers_a_clients_offer_with_its_tracks(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer, answer = await media.connect(client, server)
    assert offer.sdp.count("a=recvonly\r\n") == 2
    assert answer.sdp.count("a=sendonly\r\n") == 2
    labels = {line.split()[0] for line in answer.sdp.split("\r\n") if line.startswith("a=msid:")}
    assert len(labels) == 1
    for kind in MediaKind:
        await client.event(MediaStarted, lambda event, kind=kind: event.kind is kind)


# ---- renegotiation


@pytest.mark.replaces("receiving")
async def test_the_client_drops_and_takes_back_a_line(media: Any) -> None:
    server, client = await media.call()
    video, audio = client.engine.frames(VIDEO), client.engine.frames(AUDIO)
    assert len(await read(video, 3)) == 3
    await media.renegotiate(client, server, (MediaLine(kind=AUDIO),))
    dropped = first(client, VIDEO).packets
    assert len(await read(audio, 10)) == 10
    await counted(client, AUDIO, _grown(client, AUDIO, 25))
    assert first(client, VIDEO).packets - dropped <= 5  # what was on its way
    await media.renegotiate(client, server, media.receive)
    await counted(client, VIDEO, _grown(client, VIDEO, 10))
    assert len(await read(video, 5)) == 5
    # Tracks are the same ones, so they are not told again.
    assert len([e for e in client.events if isinstance(e, TrackAdded)]) == 2
    assert client.states()[-1] is MediaState.CONNECTED


@pytest.mark.replaces("receiving")
async def test_the_client_adds_a_line(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open()  # without media a server answers with the tracks it has
    await client.open((MediaLine(kind=AUDIO),))
    audio, video = client.engine.frames(AUDIO), client.engine.frames(VIDEO)
    offer, answer = await media.connect(client, server)
    assert len(m_lines(offer.sdp)) == len(m_lines(answer.sdp)) == 1
    assert len(await read(audio, 5)) == 5
    before = first(client, AUDIO)
    await media.renegotiate(
        client, server, (MediaLine(kind=AUDIO), MediaLine(kind=VIDEO, codecs=("VP8",)))
    )
    assert [(frame.width, frame.height) for frame in await read(video, 5)] == [(176, 144)] * 5
    await counted(client, AUDIO, lambda c: c.packets >= before.packets + 10)
    assert first(client, AUDIO).frames_decoded > before.frames_decoded
    assert first(client, VIDEO).packets >= 5
    assert client.states() == [MediaState.CHECKING, MediaState.ICE_CONNECTED, MediaState.CONNECTED]


@pytest.mark.replaces("transceivers")
async def test_an_offer_that_is_not_used_leaves_nothing_behind(media: Any) -> None:
    """Glare: the client's offer is discarded and the server's second offer is answered."""
    server, client = await media.call()
    await client.do(CreateOffer, media=(MediaLine(kind=AUDIO), MediaLine(kind=AUDIO)))
    assert len(client.engine._peer.pc.getTransceivers()) == 3
    again = await server.do(CreateOffer, media=media.send)
    await client.do(SetRemote, description=again)
    answer = await client.do(SetLocal)
    assert len(m_lines(answer.sdp)) == 2
    assert answer.sdp.count("a=recvonly\r\n") == 2
    await server.do(SetLocal, description=again)
    await server.do(SetRemote, description=answer)
    await counted(client, VIDEO, _grown(client, VIDEO, 10))
    await counted(client, AUDIO, _grown(client, AUDIO, 10))
    assert len(client.engine._peer.pc.getTransceivers()) == 2


async def test_create_offer_sets_nothing_and_only_the_last_offer_can_be_set(media: Any) -> None:
    server = media.server()
    await server.open(media.send)
    old = await server.do(CreateOffer, media=media.send)
    new = await server.do(CreateOffer, media=(MediaLine(kind=AUDIO),))
    assert server.engine._peer.pc.signalingState == "stable"
    assert len(m_lines(new.sdp)) < len(m_lines(old.sdp)) + 1
    with pytest.raises(media.failed, match="not the offer that CreateOffer made last"):
        await server.do(SetLocal, description=Offer(sdp="v=0\r\n"))
    result = await server.do(SetLocal, description=new)
    assert m_lines(result.sdp)[-1].startswith("m=audio")


async def test_a_rejected_line_of_an_offer_is_answered_with_port_zero(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    lines = offer.sdp.replace(m_lines(offer.sdp)[0], "m=video 0 UDP/TLS/RTP/SAVPF 97")
    lines = lines.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 1")
    await client.do(SetRemote, description=Offer(sdp=lines))
    answer = await client.do(SetLocal)
    assert m_lines(answer.sdp)[0] == "m=video 0 UDP/TLS/RTP/SAVPF 97"
    assert m_lines(answer.sdp)[1].split()[1] != "0"
    assert "a=group:BUNDLE 1\r\n" in answer.sdp
    # And the server, whose video was rejected, still gets its audio through.
    await server.do(SetRemote, description=answer)
    await client.event(MediaStarted, lambda event: event.kind is AUDIO)
    assert [e.kind for e in client.events if isinstance(e, TrackAdded)] == [AUDIO]
    offer = await client.do(CreateOffer, media=(MediaLine(kind=AUDIO),))
    assert m_lines(offer.sdp)[0].startswith("m=video 0 ")


# ---- failures


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda sdp: "garbage", "v=0"),
        (lambda sdp: "v=0\r\n", "no m-line"),
        (lambda sdp: sdp.replace("a=rtcp-mux\r\n", ""), "no rtcp-mux"),
        (lambda sdp: sdp.replace("a=setup:actpass\r\n", ""), "no setup"),
        (lambda sdp: sdp.replace("VP8", "AV1").replace("H264", "VP9"), "has only av1, vp9"),
        (lambda sdp: sdp.replace("a=setup:actpass", "a=setup:holdconn"), "cannot parse it"),
    ],
)
async def test_an_offer_that_cannot_be_taken_fails(
    media: Any, spoil: Callable[[str], str], reason: str
) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    with pytest.raises(media.failed, match=reason):
        await client.do(SetRemote, description=Offer(sdp=spoil(offer.sdp)))
    # It was refused before aiortc saw it: the same peer connection takes a good one.
    await client.do(SetRemote, description=offer)
    answer = await client.do(SetLocal)
    await server.do(SetRemote, description=answer)
    await client.state(MediaState.CONNECTED)


async def test_commands_at_the_wrong_time_fail(media: Any) -> None:
    server = media.server()
    with pytest.raises(media.failed, match="no peer connection"):
        await server.do(SetLocal)
    await server.open(media.send)
    with pytest.raises(media.failed, match="already open"):
        await server.open(media.send)
    with pytest.raises(media.failed, match="no offer of ours"):
        await server.do(SetRemote, description=Answer(sdp="v=0\r\n"))
    offer = await server.do(SetLocal)
    with pytest.raises(media.failed, match="InvalidStateError"):
        await server.do(SetRemote, description=offer)  # glare
    await server.do(ClosePeer)
    await server.do(ClosePeer)
    with pytest.raises(media.failed, match="no peer connection"):
        await server.do(CreateOffer, media=media.send)
    await server.engine.aclose()
    with pytest.raises(media.failed, match="engine is closed"):
        await server.open(media.send)
    assert len(server.completions) == len(set(server.completions)) == 10


async def test_nothing_to_offer_and_unknown_codecs_fail(media: Any) -> None:
    client = media.driver()
    await client.open()
    with pytest.raises(media.failed, match="nothing to offer"):
        await client.do(SetLocal)
    with pytest.raises(media.failed, match="none of the codecs AV1"):
        await client.do(CreateOffer, media=(MediaLine(kind=VIDEO, codecs=("AV1",)),))
    offer = await client.do(CreateOffer, media=(MediaLine(kind=VIDEO, codecs=("AV1", "H264")),))
    assert len(m_lines(offer.sdp)) == 1
    assert "VP8" not in offer.sdp
    assert "H264" in offer.sdp


@pytest.mark.replaces("gathering")
async def test_a_failed_connection_names_the_pairs(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    await client.do(SetRemote, description=offer)
    await client.do(SetLocal)
    await client.state(MediaState.CHECKING)
    await server.do(ClosePeer)
    pairs = client.engine.candidate_pairs()
    assert pairs
    assert all(":" in pair.local and ":" in pair.remote for pair in pairs)
    # aiortc takes a minute to fail; the end of ICE is brought about here.
    connection = client.engine._peer.pc.getTransceivers()[
        0
    ].receiver.transport.transport._connection
    connection._check_list_state.put_nowait(2)
    connection._check_list_done = True
    failed = await client.state(MediaState.FAILED)
    assert failed.reason == "no candidate pair works"
    assert [pair.local for pair in failed.pairs] == [pair.local for pair in pairs]


# ---- the end


async def test_reset_rebuilds_media_and_readers_go_on(media: Any) -> None:
    server, client = await media.call()
    video = client.engine.frames(VIDEO)
    assert len(await read(video, 3)) == 3
    before = set(client.engine.counters())
    await client.reset(media.receive)
    await server.reset(media.send)
    await media.connect(server, client)
    assert len(await read(video, 10)) == 10
    assert set(client.engine.counters()) == before  # the same tracks of the same source
    assert len([e for e in client.events if isinstance(e, TrackAdded)]) == 4
    assert client.states().count(MediaState.CONNECTED) == 2


@pytest.mark.parametrize(
    "phase",
    [
        "new",
        "open",
        pytest.param("gathering", marks=pytest.mark.replaces("gathering")),
        *["offered", "answering", "checking", "dtls", "media"],
    ],
)
async def test_close_at_every_phase(media: Any, phase: str) -> None:
    """The `media` fixture checks that no task and no thread is left."""
    server, client = media.server(), media.driver()
    async with media.silent_server() as silent:
        pending = []
        if phase != "new":
            query = (
                IceServer(urls=(f"stun:127.0.0.1:{silent.port}",)) if phase == "gathering" else None
            )
            await server.open(media.send, servers=(query,) if query else ())
            await client.open(media.receive)
        if phase == "gathering":
            pending.append(server.start(SetLocal))
        elif phase not in ("new", "open"):
            offer = await server.do(SetLocal)
            if phase == "answering":
                pending.append(client.start(SetRemote, description=offer))
                pending.append(client.start(SetLocal))
            elif phase != "offered":
                await client.do(SetRemote, description=offer)
                answer = await client.do(SetLocal)
                await client.state(MediaState.CHECKING)
                if phase != "checking":
                    await server.do(SetRemote, description=answer)
                    await client.state(
                        MediaState.ICE_CONNECTED if phase == "dtls" else MediaState.CONNECTED
                    )
                if phase == "media":
                    video = client.engine.frames(VIDEO)
                    assert len(await read(video, 2)) == 2
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.timeout(20):
            await asyncio.gather(
                client.engine.aclose(), client.engine.aclose(), server.engine.aclose()
            )
        assert loop.time() - started < 2.0
        for future in pending:
            assert future.done()
            assert future.exception() is None or "closed" in str(future.exception())
        told = len(client.events), len(server.events)
        await asyncio.sleep(0)
        assert (len(client.events), len(server.events)) == told
        assert MediaState.CLOSED not in server.states()


async def test_close_peer_during_an_operation(media: Any) -> None:
    async with media.silent_server() as silent:
        server = media.server(gather_timeout=20.0)
        await server.open(media.send, servers=(IceServer(urls=(f"stun:127.0.0.1:{silent.port}",)),))
        describing = server.start(SetLocal)
        waiting = server.start(CreateOffer, media=media.send)
        await silent.asked.get()
        await server.do(ClosePeer)
        for future in (describing, waiting):
            with pytest.raises(media.failed, match="was closed"):
                await future
        await server.open(media.send)
        await server.do(SetLocal)


async def test_the_sent_tracks_outlive_a_peer_connection_and_end_with_the_engine(
    media: Any,
) -> None:
    track = media.track(media.opus)
    server, client = media.driver(tracks=[track]), media.driver()
    for _ in range(2):
        await server.open()
        await client.open((MediaLine(kind=AUDIO),))
        await media.connect(server, client)
        client.events.clear()
        await client.event(MediaStarted)
        await server.do(ClosePeer)
        await client.state(MediaState.CLOSED)
    assert track.readyState == "live"
    await server.engine.aclose()
    assert track.readyState == "ended"


async def test_frames_after_the_end_are_none(media: Any) -> None:
    client = media.driver()
    early = client.engine.frames(VIDEO)
    await client.engine.aclose()
    assert await read(early, 1) == []
    assert await read(client.engine.frames(AUDIO), 1) == []


@pytest.mark.replaces("receiving")
async def test_closing_waits_for_a_decoder_beside_the_loop(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding, go_on = threading.Event(), threading.Event()
    freed: list[bool] = []

    class Stuck:
        def decode(self, _frame: Any) -> list[Any]:
            decoding.set()
            freed.append(go_on.wait(20.0))
            return []

    monkeypatch.setattr(frame_decoder, "open_decoder", lambda _codec: Stuck())
    _, client = await media.call()
    reader = client.engine.frames(VIDEO)
    await asyncio.to_thread(decoding.wait)
    received = list(client.engine._received)
    closing = client.start(ClosePeer)
    # What close() does first; a decoder that is joined on the loop would stop the loop after it.
    await asyncio.wait([track.pump for track in received])
    for _ in range(100):
        await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    assert freed == [True]
    threads = [track.decoder_thread for track in received]
    assert not any(thread.is_alive() for thread in threads if thread is not None)
    assert [frame async for frame in reader] == []


# ---- without the private parts of aiortc


@pytest.mark.replaces("receiving")
async def test_stock_aiortc_still_makes_a_call(
    media: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Needs an interface besides loopback, which stock aioice leaves out."""
    if not get_host_addresses(use_ipv4=True, use_ipv6=True):
        pytest.skip("no network interface")

    def changed() -> None:
        raise AttributeError("renamed")

    monkeypatch.delenv(private_names.SWITCH, raising=False)
    monkeypatch.setattr(private_names, "_verdicts", {})
    monkeypatch.setattr(private_names, "_TESTS", dict.fromkeys(private_names._TESTS, changed))
    with caplog.at_level(logging.WARNING, "navtalk.media"):
        _, client = await media.call()
        assert len(await read(client.engine.frames(VIDEO), 3)) == 3
        with pytest.raises(RuntimeError, match="encoded frames"):
            client.engine.add_encoded_sink(VIDEO, lambda _frame: None)
    # One warning for each group, when the first engine is made.
    told = [r.getMessage() for r in caplog.records if r.name == "navtalk.media"]
    assert len(told) == len(set(told)) == len(private_names.GROUPS)


@pytest.mark.replaces("opening", "gathering", "checks", "receiving")
async def test_receivers_are_ready_before_the_far_end_has_the_answer(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    await client.do(SetRemote, description=await server.do(SetLocal))
    answer = await client.do(SetLocal)
    peer = client.engine._peer
    while rest := {task for task in client.engine._tasks if "begin_receiving" in repr(task)}:
        await asyncio.wait(rest)
    threads = [received.decoder_thread for received in peer.received]
    assert len(threads) == 2
    assert all(thread.is_alive() for thread in threads)
    opened = [received._tap._gate._decoder._opened[0] for received in peer.received]
    assert sorted(opened) == ["VP8", "opus"]
    # They are the ones that are used then, and end without a packet if there is none.
    await server.do(SetRemote, description=answer)
    await client.event(MediaStarted)
    assert [received.decoder_thread for received in peer.received] == threads
    assert [
        t.receiver._RTCRtpReceiver__decoder_thread.thread for t in peer.pc.getTransceivers()
    ] == threads


@pytest.mark.replaces("opening", "gathering", "checks")
async def test_an_answer_leaves_before_the_first_check(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    await client.do(SetRemote, description=await server.do(SetLocal))
    agent = client.engine._peer._early.agent
    stock, answered = agent.check_start_task, asyncio.Event()
    at_first_check: list[int] = []

    def check(pair: Any) -> None:
        at_first_check.append(len(client.completions))
        answered.set()
        stock(pair)

    agent.check_start_task = check
    await client.do(SetLocal)
    async with asyncio.timeout(20):
        await answered.wait()
    assert at_first_check[0] == len(client.completions) == 3


@pytest.mark.replaces("opening", "gathering", "checks", "receiving")
async def test_receivers_that_never_receive_end_with_the_engine(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    await client.do(SetRemote, description=await server.do(SetLocal))
    await client.do(SetLocal)
    while rest := {task for task in client.engine._tasks if "begin_receiving" in repr(task)}:
        await asyncio.wait(rest)
    threads = [received.decoder_thread for received in client.engine._peer.received]
    assert all(thread is not None for thread in threads)
    await client.engine.aclose()
    assert not any(thread.is_alive() for thread in threads)


# ---- imports


def test_the_package_imports_without_aiortc() -> None:
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("aiortc", "aioice", "av"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import navtalk_asyncio, navtalk_asyncio.media
for name in ("AiortcEngine", "Recorder"):
    try:
        getattr(navtalk_asyncio.media, name)
    except ImportError as exc:
        assert "pip install 'navtalk[asyncio]'" in str(exc), exc
    else:
        raise SystemExit(f"{name} was imported")
print("ok")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_importing_the_media_package_imports_no_aiortc() -> None:
    program = "import sys, navtalk_asyncio.media; print({'aiortc', 'av'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
