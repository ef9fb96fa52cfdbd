"""Running an emulator: where it is, whom it takes, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from navtalk_asyncio import connect
from navtalk_asyncio.emulator import Avatar, Reply, emulate
from navtalk_proto.errors import ConnectFailedError
from navtalk_proto.events import MessageReceived
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import TranscriptDone

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Terse:
    """Answers "yes" without a sound."""

    async def hear(self, pcm: bytes) -> str:
        return ""

    async def reply(self, text: str, heard: bytes | None) -> Reply:
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
