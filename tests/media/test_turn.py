"""Media through a real TURN server: coturn, on loopback, ended by its handle.

Every test but one is relay-only at the client: without the relay there is no path. coturn's own
log says how many bytes went through it.

Skipped by name where coturn is not installed; with NAVTALK_REQUIRE_PEERS=1 that is a failure. The
NAVTALK_PROFILE nightly runs every case over UDP, TCP and TLS, the others over UDP and TLS.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from coturn_server import USER, Coturn, credentials, make_certificate, require_coturn, started

from navtalk_asyncio import Endpoint, connect, serve
from navtalk_asyncio.media import (
    AiortcEngine,
    EngineCallbacks,
    aiortc_internals,
    gathering,
    ice_servers,
)
from navtalk_proto.actions import ClosePeer, SetLocal
from navtalk_proto.config import ClientConfig
from navtalk_proto.errors import MediaError, SessionClosedError
from navtalk_proto.ice import any_ice_server
from navtalk_proto.media import (
    IcePolicy,
    IceServerFailed,
    MediaKind,
    MediaStarted,
    MediaState,
)
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    IceServer,
    SessionCreated,
    SessionUpdated,
)

pytestmark = [pytest.mark.anyio, pytest.mark.replaces("gathering")]

NIGHTLY = os.environ.get("NAVTALK_PROFILE") == "nightly"
WAYS = ("udp", "tcp", "tls") if NIGHTLY else ("udp", "tls")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    require_coturn()
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def coturn(
    tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> Iterator[Coturn]:
    with started(tmp_path_factory.mktemp("coturn"), certificate) as running:
        yield running


@pytest.fixture(autouse=True)
def trust(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))


@asynccontextmanager
async def silent_port() -> AsyncIterator[int]:
    """A UDP port that takes everything and answers nothing."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def relayed_call(
    media: Any, *servers: IceServer, policy: IcePolicy = IcePolicy.RELAY
) -> tuple[Any, Any, float]:
    """A call whose client has `servers`; how long its answer took, in seconds."""
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive, servers=servers, policy=policy)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await media.connect(server, client)
    took = loop.time() - started
    for kind in MediaKind:
        await client.event(MediaStarted, lambda event, kind=kind: event.kind is kind)
    return server, client, took


def failures(driver: Any) -> dict[str, str]:
    return {
        event.url: event.reason for event in driver.events if isinstance(event, IceServerFailed)
    }


# ---- what works


@pytest.mark.parametrize("way", WAYS)
async def test_media_flows_through_the_relay(media: Any, coturn: Coturn, way: str) -> None:
    before = len(coturn.ended_sessions())
    server, client, took = await relayed_call(media, coturn.server(way))
    frames = client.engine.frames(MediaKind.VIDEO)
    async with asyncio.timeout(20):
        for _ in range(10):
            assert (await anext(frames)).width == 176
    counted = sum(counters.bytes for counters in client.engine.counters().values())
    ports = {int(pair.local.rpartition(":")[2]) for pair in client.engine.candidate_pairs()}
    assert ports <= set(coturn.relay_ports)
    await client.do(ClosePeer)
    # What the client was sent it got through coturn, and nothing came by another way.
    ended = await asyncio.to_thread(
        coturn.wait_for, lambda: coturn.ended_sessions()[before:] or None
    )
    assert sum(sent for _, sent in ended) > counted > 1000
    assert failures(client) == {}
    assert took < 2.0
    await server.engine.aclose()


async def test_the_description_names_the_relay_and_nothing_else(media: Any, coturn: Coturn) -> None:
    client = media.driver()
    await client.open(media.receive, servers=(coturn.server("udp"),), policy=IcePolicy.RELAY)
    offer = await client.do(SetLocal)
    found = [line for line in offer.sdp.split("\r\n") if line.startswith("a=candidate:")]
    assert found
    for line in found:
        assert re.search(r" 127\.0\.0\.1 \d+ typ relay raddr 0\.0\.0\.0 rport 9$", line), line


async def test_with_the_policy_all_the_relay_is_one_more_candidate(
    media: Any, coturn: Coturn
) -> None:
    client = media.driver()
    await client.open(media.receive, servers=(coturn.server("udp"),))
    offer = await client.do(SetLocal)
    types = set(re.findall(r"a=candidate:.* typ (\w+)", offer.sdp))
    assert types == {"host", "relay"}


async def test_coturn_is_a_stun_server_too(media: Any, coturn: Coturn) -> None:
    client = media.driver()
    await client.open(media.receive, servers=(IceServer(urls=(f"stun:127.0.0.1:{coturn.port}",)),))
    offer = await client.do(SetLocal)
    assert set(re.findall(r"a=candidate:.* typ (\w+)", offer.sdp)) == {"host", "srflx"}
    assert failures(client) == {}


# ---- what does not


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["wrong", "expired", "absent"])
async def test_refused_credentials_name_the_server_and_not_the_user(
    media: Any, coturn: Coturn, way: str, what: str
) -> None:
    good = coturn.server(way)
    server = {
        "wrong": coturn.server(way, secret=Secret("EXAMPLE-wrong")),
        "expired": coturn.server(way, valid_for=-60.0),
        "absent": IceServer(urls=good.urls),
    }[what]
    client = media.driver()
    await client.open(media.receive, servers=(server,), policy=IcePolicy.RELAY)
    with pytest.raises(media.failed, match="no ICE candidate") as failed:
        await client.do(SetLocal)
    assert failures(client) == {good.urls[0]: "wrong or expired credentials (401)"}
    # Told at once, so that connect() ends; and after the server that is the reason.
    assert client.states() == [MediaState.FAILED]
    assert isinstance(client.events[0], IceServerFailed)
    shown = f"{client.events!r} {failed.value}"
    for hidden in (USER, "EXAMPLE-wrong", good.credential.reveal()):
        assert hidden not in shown


async def test_a_refusing_server_does_not_hide_a_good_one(media: Any, coturn: Coturn) -> None:
    bad = coturn.server("udp", secret=Secret("EXAMPLE-wrong"))
    server, client, took = await relayed_call(media, bad, coturn.server("tcp"))
    assert failures(client) == {bad.urls[0]: "wrong or expired credentials (401)"}
    assert took < 2.0
    assert server.states()[-1] is MediaState.CONNECTED


@pytest.mark.parametrize("way", WAYS)
async def test_the_first_server_dead_and_the_second_good(
    media: Any, coturn: Coturn, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead server costs its head start; stock aiortc loses five seconds by it, and the call."""
    monkeypatch.setattr(ice_servers, "ANSWER_SECONDS", 2.0)
    async with silent_port() as dead:
        username, credential = credentials(600)
        first = IceServer(
            urls=(f"turn:127.0.0.1:{dead}",), username=username, credential=credential
        )
        _, client, took = await relayed_call(media, first, coturn.server(way))
        assert took < gathering.HEAD_START + 2.0
        failed = await client.event(IceServerFailed)
    assert failed.url == f"turn:127.0.0.1:{dead}?transport=udp"
    assert failed.reason == "no answer within 2 s"


async def test_a_dead_stun_server_delays_nothing(media: Any, coturn: Coturn) -> None:
    """Three dead STUN servers beside a relay: the answer waits for the cap of 0.25 s."""
    async with silent_port() as one, silent_port() as two, silent_port() as three:
        dead = IceServer(urls=tuple(f"stun:127.0.0.1:{port}" for port in (one, two, three)))
        _, client, took = await relayed_call(
            media, dead, coturn.server("udp"), policy=IcePolicy.ALL
        )
        assert took < 2.0
        await client.engine.aclose()


async def test_a_certificate_that_is_not_trusted_is_said(
    media: Any, coturn: Coturn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, _ = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    client = media.driver()
    server = coturn.server("tls")
    await client.open(media.receive, servers=(server,), policy=IcePolicy.RELAY)
    with pytest.raises(media.failed, match="no ICE candidate"):
        await client.do(SetLocal)
    [reason] = failures(client).values()
    assert reason.startswith("its certificate is not trusted: ")


async def test_a_name_that_is_not_in_the_certificate_is_said(media: Any, coturn: Coturn) -> None:
    """The connection is made to an address that was allowed; the name is what is verified."""
    client = media.driver()
    username, credential = credentials(600)
    url = f"turns:localhost:{coturn.tls_port}?transport=tcp"
    server = IceServer(urls=(url,), username=username, credential=credential)
    await client.open(media.receive, servers=(server,), policy=IcePolicy.RELAY)
    with pytest.raises(media.failed, match="no ICE candidate"):
        await client.do(SetLocal)
    [reason] = failures(client).values()
    assert "not valid for 'localhost'" in reason


# ---- the end


@pytest.mark.parametrize("way", WAYS)
async def test_closing_does_not_wait_for_a_dead_relay(
    media: Any, tmp_path: Path, certificate: tuple[Path, Path], way: str
) -> None:
    """aioice asks a silent server for 63 s to take its allocation back."""
    with started(tmp_path, certificate) as coturn:
        _, client, _ = await relayed_call(media, coturn.server(way))
        coturn.process.send_signal(signal.SIGSTOP)
        loop = asyncio.get_running_loop()
        closing = loop.time()
        await client.do(ClosePeer)
        assert loop.time() - closing < gathering.RELEASE_SECONDS + 2.0


async def test_a_relay_that_goes_away_is_told(
    media: Any, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    with started(tmp_path, certificate) as coturn:
        _, client, _ = await relayed_call(media, coturn.server("tcp"))
        coturn.end()
        failed = await client.event(IceServerFailed)
        assert failed.url == f"turn:127.0.0.1:{coturn.port}?transport=tcp"
        assert failed.reason == "the relay was lost: Connection reset by peer"
        await client.state(MediaState.CLOSED)


async def test_a_relay_that_is_not_prolonged_is_told(media: Any, coturn: Coturn) -> None:
    """aioice refreshes after 500 s, and closes the socket when refused, as is done here."""
    _, client, _ = await relayed_call(media, coturn.server("udp"))
    [agent] = aiortc_internals.ice_connections(client.engine._peer.pc)
    [relay] = [p for p in agent._protocols if p.local_candidate.type == "relay"]
    relay.transport._TurnTransport__inner_protocol.transport.close()
    failed = await client.event(IceServerFailed)
    assert failed.reason == "the relay was lost: it was not prolonged"
    assert (await client.state(MediaState.CLOSED)).reason


async def test_only_one_relay_is_kept(
    media: Any, coturn: Coturn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a head start all three are granted; the two that are not needed are given back."""
    monkeypatch.setattr(gathering, "HEAD_START", 0.0)
    before = coturn.text().count("closed (2nd stage)")
    client = media.driver()
    servers = tuple(coturn.server(way) for way in ("udp", "tcp", "tls"))
    await client.open(media.receive, servers=servers, policy=IcePolicy.RELAY)
    offer = await client.do(SetLocal)
    assert len(set(re.findall(r"127\.0\.0\.1 \d+ typ relay", offer.sdp))) == 1
    granted = await asyncio.to_thread(
        coturn.wait_for,
        lambda: coturn.text().count("closed (2nd stage)") >= before + 2 or None,
    )
    assert granted
    assert failures(client) == {}
    await client.do(ClosePeer)


# ---- a whole session


async def session_with(media: Any, *servers: IceServer, **options: Any) -> Any:
    """A client's session with a server that names `servers` in connected.success."""

    async def human(session: Any) -> None:
        session.engine.add_tracks(media.track(media.vp8), media.track(media.opus))
        await session.send(ConnectedSuccess(session_id="s-1", ice_servers=servers))
        await session.send(SessionCreated())
        await session.send(SessionUpdated())
        with suppress(MediaError, SessionClosedError):
            await session.negotiate(*media.send)
        async for _ in session.events():
            pass

    def make(callbacks: EngineCallbacks) -> AiortcEngine:
        return AiortcEngine(callbacks, loopback=True)

    config = ClientConfig(ice_policy=IcePolicy.RELAY)
    async with serve(human, engine=make) as server:
        endpoint = Endpoint(base_url=server.url, license="sk_navtalk_EXAMPLE", name="navtalk.Leo")
        async with connect(endpoint, config=config, **options) as session:
            return await anext(session.video)


async def test_a_session_through_the_relay(media: Any, coturn: Coturn) -> None:
    frame = await session_with(media, coturn.server("udp"))
    assert (frame.width, frame.height) == (176, 144)


async def test_media_error_names_the_server_and_why(media: Any, coturn: Coturn) -> None:
    server = coturn.server("udp", secret=Secret("EXAMPLE-wrong"))
    told: list[Any] = []
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(MediaError) as raised:
        await session_with(media, server, observe=told.append)
    assert loop.time() - started < 5.0
    assert str(raised.value) == (
        "no media connection: no ICE candidate was gathered: no network, or no relay answered; "
        "candidate pairs tried: none; ICE servers of no use: "
        f"turn:127.0.0.1:{coturn.port}?transport=udp: wrong or expired credentials (401)"
    )
    assert [event for event in told if isinstance(event, IceServerFailed)] == [
        IceServerFailed(
            url=f"turn:127.0.0.1:{coturn.port}?transport=udp",
            reason="wrong or expired credentials (401)",
        )
    ]


# ---- who may be contacted


async def test_a_server_that_is_not_allowed_is_not_contacted(media: Any, coturn: Coturn) -> None:
    """`loopback` off, as with an endpoint that is not on this machine: SSRF would end here."""
    sessions = coturn.text().count("session ")
    client = media.driver(loopback=False)
    server = coturn.server("tcp")
    await client.open(media.receive, servers=(server,), policy=IcePolicy.RELAY)
    with pytest.raises(media.failed, match="no ICE candidate"):
        await client.do(SetLocal)
    assert failures(client) == {
        server.urls[0]: f"contacting 127.0.0.1 port {coturn.port} is not allowed (allow_ice_server)"
    }
    allowed = media.driver(loopback=False)
    await allowed.open(
        media.receive, servers=(server,), policy=IcePolicy.RELAY, allow_ice_server=any_ice_server
    )
    assert "typ relay" in (await allowed.do(SetLocal)).sdp
    assert coturn.text().count("session ") > sessions
