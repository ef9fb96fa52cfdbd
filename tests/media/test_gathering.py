"""Candidate gathering: all servers, none of them waited for long."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from aioice import stun

from navtalk_asyncio.emulator.stun import StunServer
from navtalk_asyncio.media import gathering, ice_servers
from navtalk_proto.actions import ClosePeer, CreateOffer, SetLocal, SetRemote
from navtalk_proto.ice import IceUrl, IpAddress
from navtalk_proto.media import IcePolicy, IceServerFailed, LocalCandidate, MediaState
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer

pytestmark = pytest.mark.anyio

SECRET = "sk_navtalk_EXAMPLE"


def stun_at(port: int) -> IceServer:
    return IceServer(urls=(f"stun:127.0.0.1:{port}",))


def binding_response(request: bytes) -> bytes:
    response = stun.Message(
        message_method=stun.Method.BINDING,
        message_class=stun.Class.RESPONSE,
        transaction_id=stun.parse_message(request).transaction_id,
    )
    response.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.7", 4711)
    return bytes(response)


@pytest.mark.parametrize("scheme", ["stun", "turn"])
@pytest.mark.replaces("gathering")
async def test_a_silent_server_does_not_delay_the_description(media: Any, scheme: str) -> None:
    async with media.silent_server() as silent:
        server = media.server()
        await server.open(
            media.send,
            servers=(
                IceServer(
                    urls=(f"{scheme}:127.0.0.1:{silent.port}",),
                    username="u",
                    credential=Secret("p"),
                ),
            ),
        )
        loop = asyncio.get_running_loop()
        started = loop.time()
        offer = await server.do(SetLocal)
        assert loop.time() - started < 2.0
        assert "a=candidate:" in offer.sdp
        # More may come, so the end of candidates must not be announced.
        assert "a=end-of-candidates" not in offer.sdp
        await server.do(ClosePeer)


@pytest.mark.replaces("gathering")
async def test_late_candidates_are_told_and_then_their_end(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A STUN server that answers only after the description has left, and one interface only."""
    monkeypatch.setattr(ice_servers, "ANSWER_SECONDS", 0.5)
    async with media.silent_server() as silent:
        server = media.server(gather_timeout=0.05)
        await server.open(media.send, servers=(IceServer(urls=(f"stun:127.0.0.1:{silent.port}",)),))
        offer = await server.do(SetLocal)
        assert "typ srflx" not in offer.sdp
        data, addr = await silent.asked.get()
        assert not [e for e in server.events if isinstance(e, LocalCandidate)]
        silent.transport.sendto(binding_response(data), addr)
        candidate = (await server.event(LocalCandidate)).candidate
    assert candidate.candidate.startswith("candidate:")
    assert "192.0.2.7 4711 typ srflx" in candidate.candidate
    assert (candidate.sdp_mid, candidate.sdp_m_line_index) == ("0", 0)
    assert f"a=ice-ufrag:{candidate.username_fragment}\r\n" in offer.sdp
    again = await server.do(CreateOffer, media=media.send)
    assert "192.0.2.7 4711 typ srflx" in again.sdp
    # The other interfaces get no answer; they are given up after ANSWER_SECONDS.
    end = await server.event(LocalCandidate, lambda event: event.candidate.is_end)
    assert end.candidate.sdp_mid == "0"
    assert "a=end-of-candidates" in (await server.do(CreateOffer, media=media.send)).sdp


async def test_candidates_that_come_in_time_are_in_the_description(media: Any) -> None:
    server = media.server()
    await server.open(media.send)
    offer = await server.do(SetLocal)
    assert "a=end-of-candidates" in offer.sdp
    assert not [e for e in server.events if isinstance(e, LocalCandidate)]


async def test_what_cannot_be_asked_is_told_and_left_out(media: Any) -> None:
    server = media.server()
    urls = ("stuns:127.0.0.1", "turn:127.0.0.1:70000", "nonsense", f"turn:{SECRET}@127.0.0.1")
    await server.open(
        media.send, servers=(IceServer(urls=urls, username=SECRET, credential=Secret(SECRET)),)
    )
    assert server.events == [
        IceServerFailed(url="stuns:127.0.0.1:5349", reason="STUN over TLS is not supported"),
        IceServerFailed(url="turn:127.0.0.1:70000", reason="there is no port 70000"),
        IceServerFailed(url="nonsense", reason="not a STUN or TURN URL (RFC 7064, RFC 7065)"),
        IceServerFailed(url="***@127.0.0.1", reason="not a STUN or TURN URL (RFC 7064, RFC 7065)"),
    ]
    assert SECRET not in repr(server.events)
    await server.do(SetLocal)


@pytest.mark.replaces("gathering")
async def test_one_stun_server_that_answers_is_enough(media: Any) -> None:
    """The description would wait 20 s for the dead one, which aiortc would have asked alone."""
    async with media.silent_server() as dead, StunServer() as alive:
        server = media.server(gather_timeout=20.0)
        await server.open(media.send, servers=(stun_at(dead.port), IceServer(urls=(alive.url,))))
        loop = asyncio.get_running_loop()
        started = loop.time()
        offer = await server.do(SetLocal)
        assert loop.time() - started < 5.0
        assert "typ srflx" in offer.sdp
        await dead.asked.get()
        await server.do(ClosePeer)


@pytest.mark.replaces("gathering")
async def test_what_two_stun_servers_say_alike_is_one_candidate(media: Any) -> None:
    async with StunServer() as one, StunServer() as other:
        server = media.server(gather_timeout=20.0)
        await server.open(media.send, servers=(IceServer(urls=(one.url, other.url)),))
        offer = await server.do(SetLocal)
        await server.event(LocalCandidate, lambda event: event.candidate.is_end)
        again = await server.do(CreateOffer, media=media.send)
        assert one.counters.answered
        assert other.counters.answered
    for sdp in (offer.sdp, again.sdp):
        _, video, _ = sdp.split("\r\nm=")  # each m-line repeats the candidates of the bundle
        found = re.findall(r" (\S+ \d+) typ srflx", video)
        assert found
        assert len(found) == len(set(found))


@pytest.mark.replaces("gathering")
async def test_a_stun_server_that_never_answers_is_told(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ice_servers, "ANSWER_SECONDS", 0.3)
    async with media.silent_server() as silent:
        server = media.server()
        await server.open(media.send, servers=(stun_at(silent.port),))
        await server.do(SetLocal)
        failed = await server.event(IceServerFailed)
    assert failed == IceServerFailed(
        url=f"stun:127.0.0.1:{silent.port}", reason="no answer within 0.3 s"
    )


async def test_without_a_path_the_failure_is_told_before_the_command_fails(media: Any) -> None:
    client = media.driver()
    await client.open(media.receive, policy=IcePolicy.RELAY)
    with pytest.raises(media.failed, match="no ICE candidate"):
        await client.do(SetLocal)
    assert client.states() == [MediaState.FAILED]


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.replaces("gathering")
async def test_the_default_rule_lets_loopback_through_where_the_engine_is_made_for_it(
    media: Any, loopback: bool
) -> None:
    async with StunServer() as stun_server:
        port = stun_server.address[1]
        client = media.driver(loopback=loopback)
        await client.open(media.receive, servers=(IceServer(urls=(stun_server.url,)),))
        if not loopback:
            client.engine._peer._loopback = True  # a socket to ask from, and the rule as it was
        offer = await client.do(SetLocal)
        assert ("typ srflx" in offer.sdp) is loopback
        assert (stun_server.counters.answered > 0) is loopback
    reasons = [event.reason for event in client.events if isinstance(event, IceServerFailed)]
    assert reasons == (
        [] if loopback else [f"contacting 127.0.0.1 port {port} is not allowed (allow_ice_server)"]
    )


async def test_the_applications_rule_decides(media: Any) -> None:
    seen: list[tuple[IceUrl, IpAddress]] = []

    def rule(url: IceUrl, address: IpAddress) -> bool:
        seen.append((url, address))
        return False

    async with StunServer() as stun_server:
        client = media.driver()
        servers = (IceServer(urls=(stun_server.url,)),)
        await client.open(media.receive, servers=servers, allow_ice_server=rule)
        assert "typ srflx" not in (await client.do(SetLocal)).sdp
        assert stun_server.counters.answered == 0
        [(url, address)] = seen
        assert (str(url), str(address)) == (stun_server.url, "127.0.0.1")


async def test_a_rule_that_raises_refuses_and_is_reported(media: Any) -> None:
    def rule(url: IceUrl, address: IpAddress) -> bool:
        raise LookupError("no such list")

    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    try:
        async with StunServer() as stun_server:
            client = media.driver()
            servers = (IceServer(urls=(stun_server.url,)),)
            await client.open(media.receive, servers=servers, allow_ice_server=rule)
            assert "typ srflx" not in (await client.do(SetLocal)).sdp
            assert stun_server.counters.answered == 0
    finally:
        loop.set_exception_handler(None)
    [context] = reported
    assert isinstance(context["exception"], LookupError)


@pytest.mark.replaces("gathering")
async def test_relays_are_asked_in_the_order_of_their_ways(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UDP first wherever it stands in the list; the next after a head start, failure or not."""
    monkeypatch.setattr(gathering, "HEAD_START", 0.05)
    udp_came_first = asyncio.get_running_loop().create_future()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        udp_came_first.set_result(not udp.asked.empty())
        await reader.read()
        writer.close()

    tcp = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    async with tcp, media.silent_server() as udp:
        client = media.driver()
        urls = (f"turn:127.0.0.1:{port}?transport=tcp", f"turn:127.0.0.1:{udp.port}")
        server = IceServer(urls=urls, username="EXAMPLE", credential=Secret(SECRET))
        await client.open(media.receive, servers=(server,))
        await client.do(SetLocal)
        assert await udp_came_first
        await client.do(ClosePeer)


@pytest.mark.replaces("gathering")
async def test_a_cancelled_description_still_ends_gathering(media: Any) -> None:
    """A gatherer that is cancelled never gathers again: test_aiortc_facts.py shows it."""
    server = media.server()
    await server.open(media.send)
    peer = server.engine._peer.pc
    before = set(server.engine._tasks)
    assert peer.iceGatheringState == "gathering"
    setting = server.start(SetLocal)
    [command] = server.engine._tasks - before
    await asyncio.sleep(0)  # It waits for the candidates now.
    command.cancel()
    with pytest.raises(media.failed, match="cancelled"):
        await setting
    async with asyncio.timeout(20):
        while rest := server.engine._tasks - before:
            await asyncio.wait(rest)
    assert peer.iceGatheringState == "complete"
    assert "a=candidate:" in peer.localDescription.sdp


@pytest.mark.replaces("gathering")
async def test_an_answer_waits_for_no_server(media: Any) -> None:
    """It leaves with the host candidates; what a server says comes after it."""
    async with media.silent_server() as silent:
        server, client = media.server(), media.driver(gather_timeout=20.0)
        await server.open(media.send)
        await client.open(media.receive, servers=(stun_at(silent.port),))
        offer = await server.do(SetLocal)
        await client.do(SetRemote, description=offer)
        answer = await client.do(SetLocal)
        assert "typ host" in answer.sdp
        assert "typ srflx" not in answer.sdp
        assert "a=end-of-candidates" not in answer.sdp
        data, addr = await silent.asked.get()
        silent.transport.sendto(binding_response(data), addr)
        found = await client.event(LocalCandidate)
        assert "192.0.2.7 4711 typ srflx" in found.candidate.candidate
        await client.do(ClosePeer)


@pytest.mark.replaces("opening")
async def test_what_servers_say_before_the_offer_comes_is_in_the_answer(media: Any) -> None:
    """They are asked as soon as there is a peer connection."""
    async with StunServer() as alive:
        server, client = media.server(), media.driver()
        await server.open(media.send)
        await client.open(media.receive, servers=(IceServer(urls=(alive.url,)),))
        early = client.engine._peer._early
        async with asyncio.timeout(20):
            await early.gathering.bound.wait()
            await asyncio.wait(early.gathering._tasks)
        await client.do(SetRemote, description=await server.do(SetLocal))
        answer = await client.do(SetLocal)
        assert "typ srflx" in answer.sdp
        assert "a=end-of-candidates" in answer.sdp
        assert not [event for event in client.events if isinstance(event, LocalCandidate)]


@pytest.mark.replaces("opening")
async def test_sockets_are_there_before_a_peer_connection_is_asked_for(media: Any) -> None:
    client = media.driver()
    early = client.engine._early
    async with asyncio.timeout(20):
        await early.gathering.bound.wait()
    ports = {protocol.local_candidate.port for protocol in early.agent._protocols}
    assert ports
    await client.open(media.receive)
    assert client.engine._early is None
    assert client.engine._peer.pc is early.pc
    offer = await client.do(SetLocal)
    assert ports == {
        int(port) for port in re.findall(r"a=candidate:\S+ 1 udp \d+ \S+ (\d+)", offer.sdp)
    }


@pytest.mark.replaces("opening")
async def test_more_lines_than_were_prepared_share_the_transport(media: Any) -> None:
    """One transceiver of each kind is made in advance; what an offer does not use is no m-line."""
    lines = (*media.send, *media.send[:1])
    server, client = media.driver(), media.driver()
    await server.open(lines)
    await client.open()
    await client.do(SetRemote, description=await server.do(SetLocal))
    await server.do(SetRemote, description=await client.do(SetLocal))
    for driver in (server, client):
        await driver.state(MediaState.CONNECTED)
        transceivers = driver.engine._peer.pc.getTransceivers()
        assert [t.kind for t in transceivers] == ["video", "audio", "video"]
        assert {t.receiver.transport.transport.iceGatherer._connection for t in transceivers} == {
            driver.engine._peer._early.agent
        }


async def test_a_kind_that_is_not_offered_is_no_line(media: Any) -> None:
    server, client = media.driver(), media.driver()
    await server.open(media.send[1:])
    await client.open()
    await client.do(SetRemote, description=await server.do(SetLocal))
    answer = await client.do(SetLocal)
    assert re.findall("m=([a-z]+) ", answer.sdp) == ["audio"]
    [transceiver] = client.engine._peer.pc.getTransceivers()
    assert transceiver.kind == "audio"


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.replaces("opening")
async def test_sockets_that_nobody_needed_are_closed(media: Any, opened: bool) -> None:
    client = media.driver()
    early = client.engine._early
    if opened:
        # What was made in advance is for another policy.
        await client.open(media.receive, policy=IcePolicy.RELAY)
        assert client.engine._peer.pc is not early.pc
    await client.engine.aclose()
    assert early.pc.connectionState == "closed"
    assert early.gathered.done()
    assert early.agent._protocols == []


@pytest.mark.replaces("opening")
async def test_sockets_that_are_still_being_bound_are_closed(media: Any) -> None:
    """The engine is given up before its loop has run once."""
    client = media.driver()
    early = client.engine._early
    assert not early.gathered.done()
    await client.engine.aclose()
    assert early.gathered.done()
    assert early.agent._protocols == []
