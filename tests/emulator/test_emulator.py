"""Running an emulator: where it is, whom it takes, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest

from navtalk_asyncio import connect
from navtalk_asyncio.emulator import Avatar, Conversation, Emulator, Reply, emulate
from navtalk_asyncio.emulator.emulator import _host_of
from navtalk_proto.config import ServerConfig
from navtalk_proto.errors import ConnectFailedError
from navtalk_proto.events import Connected, Event, MessageReceived, OfferIgnored
from navtalk_proto.secret import Secret
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import AudioDone, TranscriptDone
from navtalk_proto.wire.plain_http import HttpRequest

pytestmark = pytest.mark.anyio


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="needs ::1")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Terse:
    """Answers "yes" without a sound."""

    async def hear(self, conversation: Conversation) -> str:
        return ""

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text="yes", pcm=b"")


async def test_its_own_endpoint_is_let_in() -> None:
    async with emulate(brain=Terse()) as human:
        endpoint = human.endpoint()
        assert endpoint.base_url == f"{human.url}/wss/v2/realtime-chat"
        assert human.url == f"ws://127.0.0.1:{human.server.port}"
        assert endpoint.name == "navtalk.Lea"
        assert endpoint.license == Secret("sk_navtalk_EXAMPLE")
        async with connect(endpoint, proxy=None) as session:
            assert session.id is not None


@pytest.mark.parametrize(
    ("licenses", "given"),
    [
        (None, "anything"),
        (["one", Secret("other")], "other"),
        (["one", Secret("other")], None),
    ],
    ids=["any", "second", "first by default"],
)
async def test_licences_of_the_users_choice(
    licenses: list[str | Secret] | None, given: str | None
) -> None:
    async with emulate(brain=Terse(), licenses=licenses) as human:
        endpoint = human.endpoint(license=given)
        async with connect(endpoint, media=False, proxy=None):
            pass


async def test_avatars_of_the_users_choice_by_name_and_by_id() -> None:
    avatars = (Avatar(id="a" * 32, name="Ada"), Avatar(id="b" * 32, name="Bo"))
    async with emulate(brain=Terse(), avatars=avatars) as human:
        assert human.endpoint().name == "Ada"
        for endpoint in (human.endpoint(name="Bo"), human.endpoint(avatar_id="b" * 32)):
            async with connect(endpoint, media=False, proxy=None) as session:
                await session.send_text("Are you there?")
                async for event in session.events():
                    message = event.message if isinstance(event, MessageReceived) else None
                    if isinstance(message, TranscriptDone):
                        assert message.content == "yes"
                        break


async def test_two_emulators_run_beside_each_other() -> None:
    async with emulate(brain=Terse()) as one, emulate(brain=Terse()) as other:
        assert one.url != other.url
        assert one.stun.url != other.stun.url
        async with (
            connect(one.endpoint(), proxy=None) as left,
            connect(other.endpoint(), proxy=None) as right,
        ):
            assert left.id != right.id


def sockets() -> set[str]:
    """The sockets of this process, as /proc names them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
async def test_leaving_closes_every_session_socket_task_and_thread() -> None:
    tasks, threads, open_before = asyncio.all_tasks(), set(threading.enumerate()), sockets()
    sessions = []
    async with emulate(brain=Terse()) as human:
        async with connect(human.endpoint(), proxy=None) as session:
            sessions.append(session)
        address = human.endpoint()
    assert sessions[0].end is not None
    with pytest.raises(ConnectFailedError):
        async with connect(address, proxy=None):
            pass
    assert asyncio.all_tasks() == tasks
    assert sockets() == open_before
    # The loop's own executor painted the face; it ends with the loop.
    await asyncio.get_running_loop().shutdown_default_executor()
    assert set(threading.enumerate()) <= threads


async def test_clients_are_told_when_it_is_left() -> None:
    async with emulate(brain=Terse()) as human:
        connecting = connect(human.endpoint(), media=False, proxy=None)
        session = await connecting.__aenter__()
    try:
        async with asyncio.timeout(10):
            async for _ in session.events():
                pass
        assert session.end is not None
        assert session.end.code == 1001
    finally:
        await connecting.__aexit__(None, None, None)


def stun_of(events: list[Event]) -> tuple[str, ...]:
    """The URLs of the ICE servers that a client was told."""
    [connected] = [event for event in events if isinstance(event, Connected)]
    return tuple(url for server in connected.ice_servers for url in server.urls)


async def told_at(human: Emulator, base_url: str, *, media: bool = False) -> tuple[str, ...]:
    """Connect to an address of the emulator; returns what it says where its STUN server is."""
    endpoint = Endpoint(base_url=base_url, license="sk_navtalk_EXAMPLE", name="navtalk.Lea")
    events: list[Event] = []
    async with connect(endpoint, media=media, proxy=None, observe=events.append):
        pass
    return stun_of(events)


async def test_every_ipv4_address_and_each_client_is_told_the_one_it_reached() -> None:
    async with emulate("0.0.0.0", brain=Terse()) as human:
        port = human.server.port
        stun_port = human.stun.address[1]
        assert human.url == f"ws://127.0.0.1:{port}"
        assert human.endpoint().base_url == f"ws://127.0.0.1:{port}/wss/v2/realtime-chat"
        assert await told_at(human, human.url, media=True) == (f"stun:127.0.0.1:{stun_port}",)
        answered = human.stun.counters.answered
        assert answered >= 1
        told = await told_at(human, f"ws://127.0.0.2:{port}", media=True)
        assert told == (f"stun:127.0.0.2:{stun_port}",)
        assert human.stun.counters.answered > answered


@ipv6
async def test_every_ipv6_address() -> None:
    async with emulate("::", brain=Terse()) as human:
        assert human.url == f"ws://[::1]:{human.server.port}"
        told = await told_at(human, human.url, media=True)
        assert told == (f"stun:127.0.0.1:{human.stun.address[1]}",)
        assert human.stun.counters.answered >= 1


@ipv6
async def test_ipv6_loopback() -> None:
    """aiortc takes no IPv6 STUN server; who reaches ::1 reaches 127.0.0.1 too."""
    async with emulate("::1", brain=Terse()) as human:
        assert human.url == f"ws://[::1]:{human.server.port}"
        told = await told_at(human, human.url, media=True)
        assert told == (f"stun:127.0.0.1:{human.stun.address[1]}",)
        assert human.stun.counters.answered >= 1


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("192.0.2.7:8000", "192.0.2.7"),
        ("lea.example", "lea.example"),
        ("[2001:db8::1]:8000", "2001:db8::1"),
        ("a b", "127.0.0.1"),
        ('"', "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_the_host_that_a_look_up_names(header: str, host: str) -> None:
    assert _host_of(HttpRequest(method="POST", target="/", headers={"host": header})) == host


async def test_a_conversation_without_media() -> None:
    config = ServerConfig(media=())
    async with emulate(brain=Terse(), config=config) as human:
        events: list[Event] = []
        endpoint = human.endpoint()
        async with connect(endpoint, media=False, proxy=None, observe=events.append) as session:
            for _ in range(2):
                await session.send_text("Are you there?")
                async for event in session.events():
                    message = event.message if isinstance(event, MessageReceived) else None
                    if isinstance(message, AudioDone):
                        break
        texts = [
            event.message.content
            for event in events
            if isinstance(event, MessageReceived) and isinstance(event.message, TranscriptDone)
        ]
        assert texts == ["yes", "yes"]
        assert not any(isinstance(event, OfferIgnored) for event in events)
        assert stun_of(events) == (human.stun.url,)


async def test_no_avatar_is_refused_before_anything_is_bound() -> None:
    with pytest.raises(ValueError, match="an emulator needs an avatar"):
        async with emulate(brain=Terse(), avatars=()):
            pytest.fail("it runs")
