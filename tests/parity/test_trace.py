"""Traces on both loops: the same lines, which replay; what is not in them; what goes wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import navtalk_asyncio
import navtalk_asyncio.testing
import navtalk_trio
import navtalk_trio.testing
from navtalk_proto import ConnectError, ServerConfig
from navtalk_proto.reconnect import ReconnectPolicy
from navtalk_proto.secret import Secret
from navtalk_proto.testing import MemoryTransport, ScriptedPeer
from navtalk_proto.tracing.output import TraceOptions
from navtalk_proto.tracing.records import TraceError
from navtalk_proto.tracing.replayer import replay
from navtalk_proto.tracing.rotation import LEAST_SIZE, SUFFIXES, joined
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import (
    AudioDone,
    ConnectedSuccess,
    IceServer,
    InputTranscript,
    SessionCreated,
    SessionUpdated,
    TranscriptDone,
)

LICENCE = "sk_navtalk_EXAMPLE_of_a_secret"
USER, CREDENTIAL = "1764240000:leo-the-user", "t0p-s3cret/credential+"
SAID = "When is breakfast, asked the peer."

READY = (
    ConnectedSuccess(
        session_id="s-1",
        ice_servers=(
            IceServer(
                urls=("turn:turn.example.org",), username=USER, credential=Secret(CREDENTIAL)
            ),
        ),
    ),
    SessionCreated(),
    SessionUpdated(),
)

KITS = {
    "asyncio": (navtalk_asyncio, navtalk_asyncio.testing),
    "trio": (navtalk_trio, navtalk_trio.testing),
}


class Player:
    """A session against a far end in memory, on a real loop and clock."""

    def __init__(self, loop: str) -> None:
        self.loop = loop
        self.adapter, self.kit = KITS[loop]
        self.fars: list[MemoryTransport] = []

    async def open(self, endpoint: Any) -> MemoryTransport:
        near, far = self.kit.memory_transports()
        self.fars.append(far)
        peer = ScriptedPeer(far)
        for message in READY:
            await peer.say(message)
        return near

    def connect(self, **options: Any) -> Any:
        endpoint = Endpoint(license=LICENCE, name="navtalk.Leo")
        return self.adapter.connect(endpoint, media=False, transport=self.open, **options)

    async def say(self, *messages: Any) -> None:
        for message in messages:
            await ScriptedPeer(self.fars[-1]).say(message)

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async def limited() -> None:
            with anyio.fail_after(60):
                await main()

        anyio.run(limited, backend=self.loop)


@pytest.fixture(params=sorted(KITS))
def player(request: pytest.FixtureRequest) -> Player:
    return Player(request.param)


@pytest.fixture(autouse=True)
def no_other_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAVTALK_TRACE", raising=False)


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines(keepends=True)


def kinds(path: Path) -> list[str]:
    return [json.loads(line)["line"] for line in lines(path)]


async def talk(player: Player, session: Any) -> None:
    await session.send_text("My own secret question")
    await session.send_audio(b"\1\2" * 4800)
    await player.say(
        InputTranscript(content=SAID),
        TranscriptDone(response_id="r1", content=f"You said {LICENCE} and {CREDENTIAL}."),
        AudioDone(),
    )
    async for event in session.events():
        if type(event).__name__ == "ResponseGenerated":
            break


def test_a_session_is_traced_and_replays(player: Player, tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"

    async def main() -> None:
        async with player.connect(trace=path) as session:
            await talk(player, session)

    player.run(main)
    result = replay(lines(path))
    assert result.divergence is None
    assert (result.connections, result.incomplete, result.gap) == (1, 0, "")
    assert result.inputs > 6
    assert result.actions > 8
    text = path.read_text("utf-8")
    for hidden in (LICENCE, USER, CREDENTIAL):
        assert hidden not in text
    assert SAID in text
    assert '"raised":null' in text


def test_the_words_may_be_left_out(player: Player, tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"

    async def main() -> None:
        options = TraceOptions(path=path, text=False, audio=True)
        async with player.connect(trace=options) as session:
            await talk(player, session)

    player.run(main)
    assert replay(lines(path)).divergence is None
    text = path.read_text("utf-8")
    assert "secret question" not in text
    assert "breakfast" not in text
    assert "AQIBAgEC" in text, "the voice is kept as it was said"


def test_both_loops_trace_the_same(tmp_path: Path) -> None:
    found = []
    for loop in KITS:
        player, path = Player(loop), tmp_path / f"{loop}.jsonl"

        async def main(player: Player = player, path: Path = path) -> None:
            async with player.connect(trace=path) as session:
                await player.say(InputTranscript(content=SAID))
                async for event in session.events():
                    if type(event).__name__ == "UserTurn":
                        break

        player.run(main)
        records = [json.loads(line) for line in lines(path)][1:]
        for record in records:
            record.pop("now", None)
            record.get("config", {}).pop("connect_timeout", None)
        found.append(records)
    assert found[0] == found[1]


def test_an_edited_line_diverges_there(player: Player, tmp_path: Path) -> None:
    path = tmp_path / "call.jsonl"

    async def main() -> None:
        async with player.connect(trace=path) as session:
            await talk(player, session)

    player.run(main)
    told = lines(path)
    (at,) = (at for at, line in enumerate(told) if '"is":"UserTurn"' in line and SAID in line)
    told[at] = told[at].replace("breakfast", "supper")
    found = replay(told).divergence
    assert found is not None
    assert found.line == at + 1
    assert "supper" in json.dumps(found.recorded)
    assert "breakfast" in json.dumps(found.replayed)


def test_what_begins_in_mid_session_can_be_read_but_not_replayed(
    player: Player, tmp_path: Path
) -> None:
    path = tmp_path / "part.jsonl"

    async def main() -> None:
        async with player.connect() as session:
            async with session.trace(path):
                await talk(player, session)
            before = len(lines(path))
            await session.send_text("untraced")
            assert len(lines(path)) == before

    player.run(main)
    assert "untraced" not in path.read_text("utf-8")
    assert LICENCE not in path.read_text("utf-8")
    with pytest.raises(TraceError, match="from its beginning"):
        replay(lines(path))


def test_a_session_that_reconnects_has_all_its_connections_in_one_trace(
    player: Player, tmp_path: Path
) -> None:
    path = tmp_path / "call.jsonl"
    part = tmp_path / "part.jsonl"

    async def main() -> None:
        policy = ReconnectPolicy(first_delay=0.01, jitter=lambda: 0.0)
        async with (
            player.connect(trace=path, reconnect=policy) as session,
            session.trace(part),
        ):
            player.fars[0].lose()
            async for event in session.events():
                if type(event).__name__ == "Reconnected":
                    break
            await session.send_text("still there?")

    player.run(main)
    result = replay(lines(path))
    assert result.divergence is None
    assert result.connections == 2
    assert kinds(path).count("told") == 3, "Reconnecting, Reconnected, Closed"
    result = replay(lines(part))
    assert (result.connections, result.incomplete, result.divergence) == (1, 1, None)


def test_a_path_that_cannot_be_written_is_said_before_anything_is_opened(
    player: Player, tmp_path: Path
) -> None:
    path = tmp_path / "nowhere" / "call.jsonl"

    async def main() -> None:
        with pytest.raises(TraceError, match=r"nowhere.* cannot be written: No such file"):
            async with player.connect(trace=path):
                pass
        assert not player.fars
        async with player.connect() as session:
            with pytest.raises(TraceError, match="cannot be written"):
                async with session.trace(path):
                    pass

    player.run(main)


def test_a_disk_that_fails_ends_the_trace_and_not_the_call(
    player: Player, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "folder" / "call.jsonl"
    path.parent.mkdir()

    async def main() -> None:
        async with player.connect(trace=path) as session:
            with anyio.fail_after(30):
                while not path.exists() or not path.stat().st_size:
                    await session.send_text("is it there?")
            path.parent.rename(tmp_path / "gone")
            await talk(player, session)

    with caplog.at_level(logging.WARNING, "navtalk.trace"):
        player.run(main)
    assert "! the trace" in caplog.text
    assert "is incomplete" in caplog.text


def test_sessions_that_begin_at_once_do_not_share_a_file(
    player: Player, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async def call() -> None:
            async with player.connect():
                pass

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(call)

    monkeypatch.setenv("NAVTALK_TRACE", str(tmp_path / "call.jsonl"))
    player.run(main)
    assert len(list(tmp_path.iterdir())) == 8
    for path in tmp_path.iterdir():
        assert kinds(path).count("trace") == 1
        assert replay(lines(path)).divergence is None


def test_the_environment_names_a_file_for_each_session(
    player: Player, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        for _ in range(2):
            async with player.connect():
                pass

    monkeypatch.setenv("NAVTALK_TRACE", str(tmp_path / "call.jsonl"))
    player.run(main)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["call-2.jsonl", "call.jsonl"]
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setenv("NAVTALK_TRACE", str(folder))
    player.run(main)
    assert len(list(folder.glob("navtalk-*.jsonl"))) == 2
    for path in (*tmp_path.glob("*.jsonl"), *folder.iterdir()):
        assert replay(lines(path)).divergence is None


def test_each_session_of_a_server_has_a_file_of_its_own(player: Player, tmp_path: Path) -> None:
    async def handle(session: Any) -> None:
        for message in READY:
            await session.send(message)
        async for _ in session.events():
            pass

    async def main() -> None:
        async with (
            player.adapter.serve(
                handle, config=ServerConfig(media=()), trace=tmp_path / "call.jsonl"
            ) as server,
            anyio.create_task_group() as tasks,
        ):

            async def visit() -> None:
                endpoint = Endpoint(base_url=server.url, license=LICENCE, name="navtalk.Leo")
                async with player.adapter.connect(endpoint, media=False, proxy=None) as session:
                    await session.send_text("Good morning")

            for _ in range(3):
                tasks.start_soon(visit)

    player.run(main)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["call-2.jsonl", "call-3.jsonl", "call.jsonl"]
    for path in tmp_path.iterdir():
        assert LICENCE not in path.read_text("utf-8")
        result = replay(lines(path))
        assert (result.divergence, result.gap) == (None, "")
        assert "Good morning" in path.read_text("utf-8")


def test_a_server_goes_on_where_no_trace_can_be_written(
    player: Player, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(session: Any) -> None:
        for message in READY:
            await session.send(message)
        async for _ in session.events():
            pass

    async def main() -> None:
        nowhere = tmp_path / "nowhere" / "call.jsonl"
        async with player.adapter.serve(
            handle, config=ServerConfig(media=()), trace=nowhere
        ) as server:
            endpoint = Endpoint(base_url=server.url, license=LICENCE, name="navtalk.Leo")
            async with player.adapter.connect(endpoint, media=False, proxy=None):
                pass

    with caplog.at_level(logging.WARNING, "navtalk.trace"):
        player.run(main)
    assert "! a session goes on without a trace: " in caplog.text


def test_a_long_session_stays_within_its_size_and_its_beginning_replays(
    player: Player, tmp_path: Path
) -> None:
    path = tmp_path / "call.jsonl"

    async def main() -> None:
        options = TraceOptions(path=path, size=LEAST_SIZE)
        async with player.connect(trace=options) as session:
            for number in range(300):
                await session.send_text(f"{number} {'so long a question ' * 20}")

    player.run(main)
    parts = sorted(part.name for part in tmp_path.iterdir())
    assert parts == ["call.jsonl", "call.jsonl.1", "call.jsonl.2"]
    assert sum(part.stat().st_size for part in tmp_path.iterdir()) <= LEAST_SIZE
    result = replay(joined(lines(path), {name: lines(Path(f"{path}{name}")) for name in SUFFIXES}))
    assert result.divergence is None
    assert "gave way" in result.gap
    assert result.inputs > 10


def test_an_exception_of_the_block_leaves_as_it_is(player: Player, tmp_path: Path) -> None:
    async def main() -> None:
        async def broken() -> None:
            async with (
                player.connect(trace=tmp_path / "1.jsonl") as session,
                session.trace(tmp_path / "2.jsonl"),
            ):
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await broken()

    player.run(main)
    assert replay(lines(tmp_path / "1.jsonl")).divergence is None


def test_a_server_session_can_be_traced(player: Player, tmp_path: Path) -> None:
    path = tmp_path / "server.jsonl"

    async def main() -> None:
        async def handler(session: Any) -> None:
            async with session.trace(path):
                await session.send(ConnectedSuccess(session_id="s-2"))
                async for _ in session.events():
                    pass

        config = ServerConfig(media=())
        async with player.adapter.serve(handler, config=config) as server:
            endpoint = Endpoint(license=LICENCE, name="navtalk.Leo", base_url=server.url)
            with pytest.raises(ConnectError):
                async with player.adapter.connect(endpoint, media=False, timeout=0.5, proxy=None):
                    pass

    player.run(main)
    assert '"role":"server"' in path.read_text("utf-8")
