"""The far end's candidates: what is used, what is ignored and counted, and that none blocks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from navtalk_proto.actions import AddCandidate, SetLocal, SetRemote
from navtalk_proto.media import IcePolicy, MediaState
from navtalk_proto.wire.messages import Answer, IceCandidate, Offer

pytestmark = pytest.mark.anyio

HOST = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host"
TCP = "candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active"


async def test_a_call_by_trickled_candidates_only(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    found = [line[2:] for line in offer.sdp.split("\r\n") if line.startswith("a=candidate:")]
    bare = "\r\n".join(
        line
        for line in offer.sdp.split("\r\n")
        if not line.startswith(("a=candidate:", "a=end-of-candidates"))
    )
    await client.do(SetRemote, description=Offer(sdp=bare))
    answer = await client.do(SetLocal)
    no_candidates = "\r\n".join(
        line
        for line in answer.sdp.split("\r\n")
        if not line.startswith(("a=candidate:", "a=end-of-candidates"))
    )
    await server.do(SetRemote, description=Answer(sdp=no_candidates))
    for candidate in found:
        await client.do(AddCandidate, candidate=IceCandidate(candidate=candidate, sdp_mid=""))
    await client.do(AddCandidate, candidate=IceCandidate(candidate=""))
    await client.state(MediaState.CONNECTED)


@pytest.mark.replaces("checks")
async def test_odd_candidates(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    with pytest.raises(media.failed, match="no remote description yet"):
        await client.do(AddCandidate, candidate=IceCandidate(candidate=HOST, sdp_mid="0"))
    offer = await server.do(SetLocal)
    bare = offer.sdp.replace("a=end-of-candidates\r\n", "")
    await client.do(SetRemote, description=Offer(sdp=bare))

    async def add(text: str, mid: str | None = "0", index: int | None = None) -> None:
        await client.do(
            AddCandidate,
            candidate=IceCandidate(candidate=text, sdp_mid=mid, sdp_m_line_index=index),
        )

    await add(TCP)
    await add(HOST.replace(" 1 udp", " 2 udp"))
    await add(HOST, mid="1")
    await add(HOST, mid="", index=0)
    await add(HOST.replace("127.0.0.1", "127.0.0.9"), mid=None)
    assert client.engine.ignored_candidates == {"tcp": 1, "component": 1, "bundled": 1}
    for text, mid, index, reason in (
        ("candidate:nonsense", "0", None, "not a candidate line"),
        (HOST.replace(" 9 typ", " x typ"), "0", None, "not a candidate line"),
        (HOST.replace(" 9 typ", " 70000 typ"), "0", None, "port 70000"),
        (HOST.replace("127.0.0.1", "example.org"), "0", None, "neither an IP address"),
        (HOST, "video", None, "sdpMid is not in"),
        (HOST, None, 2, "sdpMLineIndex is not in"),
    ):
        with pytest.raises(media.failed, match=reason):
            await add(text, mid, index)
    remote = client.engine._peer.candidates.known()
    assert [(c.host, c.foundation) for c in remote if c.port == 9] == [
        ("127.0.0.1", "1"),
        ("127.0.0.9", "1"),
    ]
    answer = await client.do(SetLocal)
    await server.do(SetRemote, description=answer)
    await client.state(MediaState.CONNECTED)


async def test_local_names_block_nothing(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    name = "a=candidate:9 1 udp 2113937151 0e9f7b1c-dead-beef-8000-000000000000.local 9 typ host"
    named = offer.sdp.replace("a=mid:0\r\n", f"a=mid:0\r\n{name}\r\n")
    loop = asyncio.get_running_loop()
    started = loop.time()
    await client.do(SetRemote, description=Offer(sdp=named))
    for _ in range(10):
        await client.do(AddCandidate, candidate=IceCandidate(candidate=name[2:], sdp_mid="0"))
    await client.do(AddCandidate, candidate=IceCandidate(candidate="", sdp_mid="0"))
    assert loop.time() - started < 0.9  # one name takes aioice 1.0 s
    answer = await client.do(SetLocal)
    await server.do(SetRemote, description=answer)
    await client.state(MediaState.CONNECTED)


class HeldNames:
    """Multicast DNS that finds no name, and says so when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.found_nothing = asyncio.Event()

    async def __call__(self, subscriber: object) -> HeldNames:
        return self

    async def resolve(self, name: str) -> None:
        self.asked.append(name)
        await self.found_nothing.wait()


async def test_eight_names_are_looked_up_at_a_time(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = HeldNames()
    monkeypatch.setattr("aioice.ice.get_or_create_mdns_protocol", names)
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    bare = offer.sdp.replace("a=end-of-candidates\r\n", "")

    def line(number: int) -> str:
        return f"candidate:9 1 udp 2113937151 0e9f7b1c-0000-4000-8000-{number:012}.local 9 typ host"

    named = bare.replace("a=mid:0\r\n", f"a=mid:0\r\na={line(0)}\r\n")
    await client.do(SetRemote, description=Offer(sdp=named))
    for number in range(1, 11):
        text = line(number)
        await client.do(AddCandidate, candidate=IceCandidate(candidate=text, sdp_mid="0"))
    # One from the description and seven of the ten; the last three are given up at once.
    assert client.engine.ignored_candidates == {"unresolved": 3}
    looking = set(client.engine._peer.candidates.resolving)
    assert len(looking) == 8
    names.found_nothing.set()
    await asyncio.wait(looking)
    assert sorted(names.asked) == [line(number).split()[4] for number in range(8)]
    assert client.engine.ignored_candidates == {"unresolved": 11}
    # There is room again.
    await client.do(AddCandidate, candidate=IceCandidate(candidate=line(11), sdp_mid="0"))
    await asyncio.wait(set(client.engine._peer.candidates.resolving))
    assert names.asked[-1] == line(11).split()[4]
    assert client.engine.ignored_candidates == {"unresolved": 12}


async def test_the_number_of_candidates_is_bounded(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navtalk_asyncio.media.remote_candidates.CANDIDATES_PER_PEER", 3)
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    bare = offer.sdp.replace("a=end-of-candidates\r\n", "")
    await client.do(SetRemote, description=Offer(sdp=bare))
    for port in range(1, 6):
        text = HOST.replace(" 9 typ", f" {port} typ")
        await client.do(AddCandidate, candidate=IceCandidate(candidate=text, sdp_mid="0"))
    assert client.engine.ignored_candidates == {"surplus": 2}


@pytest.mark.replaces("checks")
async def test_end_marks_of_bundled_lines_and_candidates_after_the_end(media: Any) -> None:
    """Firefox marks the end of every m-line; only the bundle's transport has one."""
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    bare = offer.sdp.replace("a=end-of-candidates\r\n", "")
    await client.do(SetRemote, description=Offer(sdp=bare))

    async def add(text: str, mid: str) -> None:
        await client.do(AddCandidate, candidate=IceCandidate(candidate=text, sdp_mid=mid))

    await add("", "1")
    await add(HOST, "0")
    assert client.engine.ignored_candidates == {"empty": 1}
    await add("", "0")
    await add("", "0")
    await add(HOST.replace(" 9 typ", " 10 typ"), "0")
    assert client.engine.ignored_candidates == {"empty": 2, "after-end": 1}
    assert client.engine.stats().ignored_candidates == {"empty": 2, "after-end": 1}
    ports = {candidate.port for candidate in client.engine._peer.candidates.known()}
    assert 9 in ports
    assert 10 not in ports


async def test_candidates_after_a_description_that_said_the_end(media: Any) -> None:
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive)
    offer = await server.do(SetLocal)
    assert "a=end-of-candidates\r\n" in offer.sdp
    await client.do(SetRemote, description=offer)
    await client.do(AddCandidate, candidate=IceCandidate(candidate=HOST, sdp_mid="0"))
    assert client.engine.ignored_candidates == {"after-end": 1}


async def test_names_are_not_looked_up_when_only_relays_may_be_used(
    media: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay told a .local name's address would tell it to the TURN server."""
    names = HeldNames()
    monkeypatch.setattr("aioice.ice.get_or_create_mdns_protocol", names)
    server, client = media.server(), media.driver()
    await server.open(media.send)
    await client.open(media.receive, policy=IcePolicy.RELAY)
    offer = await server.do(SetLocal)
    bare = offer.sdp.replace("a=end-of-candidates\r\n", "")
    await client.do(SetRemote, description=Offer(sdp=bare))
    text = HOST.replace("127.0.0.1", "0e9f7b1c-0000-4000-8000-000000000000.local")
    await client.do(AddCandidate, candidate=IceCandidate(candidate=text, sdp_mid="0"))
    await asyncio.wait(set(client.engine._peer.candidates.resolving))
    assert names.asked == []
    assert client.engine.ignored_candidates == {"unresolved": 1}
