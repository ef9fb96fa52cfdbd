"""Reconnecting over real sockets, with real media, on every engine.

The emulator ends each session soon after it was ready (``time_limit``), as the service does.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import av
import pytest
from attrs import evolve

import navtalk_asyncio
import navtalk_asyncio.testing
import navtalk_trio
import navtalk_trio.testing
from navtalk_asyncio.testing import emulator_thread
from navtalk_proto import RECEIVE_MEDIA, ReconnectPolicy
from navtalk_proto.events import CloseCause, Closed, Negotiated, Reconnected, Reconnecting
from navtalk_proto.media import Direction, MediaKind, MediaLine
from navtalk_proto.wire.endpoint import Endpoint

PATIENCE = 40.0
"""Seconds until a wait is given up; only a failing test gets near it."""

LIMIT = 2.0
POLICY = ReconnectPolicy(first_delay=0.1, jitter=lambda: 0.0)
ENGINES = {
    "asyncio": (navtalk_asyncio, {}),
    "asyncio-thread": (navtalk_asyncio, {"engine": "thread"}),
    "trio": (navtalk_trio, {}),
}


async def until(session: Any, kind: type) -> Any:
    async for event in session.events():
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


def frames_in(path: Path) -> dict[str, int]:
    with av.open(str(path)) as file:
        return {
            stream.type: sum(1 for packet in file.demux(stream) if packet.size)
            for stream in [file.streams.video[0]]
        }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.replaces("receiving")
def test_pictures_go_on_and_recordings_are_whole(engine: str, tmp_path: Path) -> None:
    adapter, options = ENGINES[engine]
    before, after = tmp_path / "before.mkv", tmp_path / "after.mkv"
    sessions: list[tuple[str, int]] = []
    segments: list[Any] = []

    async def watch(session: Any) -> None:
        """One iterator over all connections."""
        async for frame in session.video:
            name = session.id
            if not sessions or sessions[-1][0] != name:
                sessions.append((name, 0))
            sessions[-1] = (name, sessions[-1][1] + 1)
            assert frame.width > 0

    async def main(human: Any) -> None:
        with anyio.fail_after(PATIENCE):
            async with adapter.connect(human.endpoint(), reconnect=POLICY, **options) as session:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(watch, session)
                    first = session.id
                    async with session.record(before) as recorder:
                        lost = await until(session, Reconnecting)
                        assert "the server ended the session" in lost.reason
                        back = await until(session, Reconnected)
                        assert back.session_id == session.id != first
                        written = recorder.counters.written
                        async for _ in session.packets():
                            if recorder.counters.written >= written + 50:
                                break
                    segments.extend(recorder.segments)
                    async with session.record(after):
                        await until(session, Reconnecting)
                    await until(session, Reconnected)
                    await session.close()
                closed = await until(session, Closed)
                assert closed.cause is CloseCause.LOCAL

    with emulator_thread(time_limit=LIMIT) as human:
        anyio.run(main, human, backend=engine.partition("-")[0])
    names = [name for name, _ in sessions]
    assert len(names) == len(set(names)) >= 2
    assert sessions[0][1] > 10
    assert sessions[1][1] > 10
    # Each file holds what of its connection was recorded, from a keyframe on.
    one, other = segments
    assert [one.path, other.path] == [str(before), str(tmp_path / "before-0002.mkv")]
    assert other.start - one.end == pytest.approx(other.gap)
    assert other.gap > 0.0
    for path in (before, Path(other.path), after):
        assert frames_in(path)["video"] > 10
    assert not [one for one in threading.enumerate() if one.name == "navtalk-media"]


VIDEO, AUDIO = RECEIVE_MEDIA
HOLD = MediaLine(kind=MediaKind.VIDEO, direction=Direction.INACTIVE)
H264 = MediaLine(kind=MediaKind.VIDEO, codecs=("H264",))


@pytest.mark.parametrize(
    "media", [(HOLD, AUDIO), (H264, AUDIO), (VIDEO, AUDIO, VIDEO)], ids=["hold", "codec", "more"]
)
@pytest.mark.parametrize("engine", ["asyncio", "trio"])
@pytest.mark.replaces("receiving")
def test_media_that_was_negotiated_is_so_again(
    engine: str, media: tuple[MediaLine, ...], tmp_path: Path
) -> None:
    adapter, options = ENGINES[engine]
    kit = navtalk_asyncio.testing if engine == "asyncio" else navtalk_trio.testing
    scissors: list[Any] = []

    def under_scissors(transport: Any) -> Any:
        scissors.append(kit.cutter())
        return scissors[-1].wrap(transport)

    async def check(session: Any) -> None:
        """On the new connection, and on nothing that was said about it before."""
        if len(media) == 3:
            # The server's own offer has two lines. Ours may be through before media flows.
            agreed = back = False
            async for event in session.events():
                agreed |= isinstance(event, Negotiated) and event.media == media
                back |= isinstance(event, Reconnected)
                if agreed and back:
                    return
            raise AssertionError("the session ended")
        await until(session, Reconnected)
        if media[0] is HOLD:
            heard = 0
            async for _ in session.audio:
                heard += 1
                if heard == 25:
                    break
            packets = {one.kind: one.packets for one in session.track_counters().values()}
            assert packets[MediaKind.AUDIO] >= 25
            assert packets[MediaKind.VIDEO] == 0
        else:
            assert media[0] is H264
            async with session.record(tmp_path / "again.mkv") as recorder:
                async for _ in session.video:
                    if recorder.counters.written > 10:
                        break
            with av.open(str(tmp_path / "again.mkv")) as file:
                assert file.streams.video[0].codec_context.name == "h264"

    async def main(human: Any) -> None:
        with anyio.fail_after(PATIENCE):
            async with (
                kit.through(under_scissors) as opener,
                adapter.connect(
                    human.endpoint(), reconnect=POLICY, transport=opener, **options
                ) as session,
            ):
                await session.negotiate(*media)
                await until(session, Negotiated)  # The server's offer, and then ours.
                assert (await until(session, Negotiated)).media == media
                scissors[0].cut()
                await check(session)

    with emulator_thread() as human:
        anyio.run(main, human, backend=engine)


WHERE = ("waiting", "handshake", "welcoming", "Connected", "Ready", "MediaStarted", "Reconnected")


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("engine", ENGINES)
def test_cancelled_while_it_is_lost(engine: str, where: str) -> None:
    """Cancelled at each milestone of an attempt: it ends at once, and nothing is left."""
    adapter, options = ENGINES[engine]
    loop = engine.partition("-")[0]
    kit = navtalk_asyncio.testing if loop == "asyncio" else navtalk_trio.testing
    threads = set(threading.enumerate())
    policy = evolve(POLICY, first_delay=60.0 if where == "waiting" else 0.05)

    async def main(human: Any) -> None:
        lost = anyio.Event()
        reached = anyio.Event()

        def observe(event: Any) -> None:
            if isinstance(event, Reconnecting):
                lost.set()
                if where == "waiting":
                    reached.set()
            elif lost.is_set() and type(event).__name__ == where:
                reached.set()

        async def talk() -> None:
            endpoint = Endpoint(
                base_url=proxy.url, license="sk_navtalk_EXAMPLE", name=human.endpoint().name
            )
            async with adapter.connect(endpoint, reconnect=policy, observe=observe, **options):
                if where == "handshake":
                    proxy.hold()
                proxy.cut()
                await anyio.sleep_forever()

        async with kit.tcp_proxy("127.0.0.1", human.server.port) as proxy:
            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(talk)
                    await lost.wait()
                    if where in ("handshake", "welcoming"):
                        while proxy.accepted < 2:  # noqa: ASYNC110 - a real socket
                            await anyio.sleep(0.001)
                    else:
                        await reached.wait()
                    started = anyio.current_time()
                    tasks.cancel_scope.cancel()
                # A held connection answers no close frame: config.close_timeout bounds it.
                assert anyio.current_time() - started < 4.0

    with emulator_thread() as human:
        anyio.run(main, human, backend=loop)
    assert not [one for one in threading.enumerate() if one.name == "navtalk-media"]
    left = {one for one in threading.enumerate() if not one.name.startswith("Trio thread")}
    for one in left - threads:
        one.join(PATIENCE)
        assert not one.is_alive(), one.name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.replaces("receiving")
def test_packets_and_frames_in_step_go_on(engine: str) -> None:
    """Each new connection's video begins with a keyframe; times go on, counters too."""
    adapter, options = ENGINES[engine]

    async def main(human: Any) -> None:
        with anyio.fail_after(PATIENCE):
            async with adapter.connect(human.endpoint(), reconnect=POLICY, **options) as session:
                packets, frames = session.packets(), session.av()
                before = (await anext(frames)).time
                taken, newest = 0, -1
                async for packet in packets:
                    taken += 1
                    if packet.kind is MediaKind.VIDEO:
                        if packet.timestamp < newest:
                            break  # The next connection's: its timestamps begin anew.
                        newest = packet.timestamp
                assert packet.keyframe
                assert packets.counters.taken == taken > 10
                async for item in frames:
                    if item.time - before > LIMIT:
                        break

    with emulator_thread(time_limit=LIMIT) as human:
        anyio.run(main, human, backend=engine.partition("-")[0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.replaces("receiving")
def test_who_did_not_read_gets_nothing_old(engine: str) -> None:
    """Readers that were full when the connection was lost go on with the next one's."""
    adapter, options = ENGINES[engine]
    kit = navtalk_asyncio.testing if engine.startswith("asyncio") else navtalk_trio.testing
    scissors: list[Any] = []
    newest = 0.0

    def under_scissors(transport: Any) -> Any:
        scissors.append(kit.cutter())
        return scissors[-1].wrap(transport)

    async def main(human: Any) -> None:
        nonlocal newest
        with anyio.fail_after(PATIENCE):
            async with (
                kit.through(under_scissors) as opener,
                adapter.connect(
                    human.endpoint(), reconnect=POLICY, transport=opener, **options
                ) as session,
                anyio.create_task_group() as tasks,
            ):
                first = session.id

                async def watch() -> None:
                    nonlocal newest
                    async for item in session.av():
                        if session.id != first:
                            return
                        newest = item.time

                tasks.start_soon(watch)
                packets, in_step = session.packets(), session.av()
                blocked = session.frames(MediaKind.VIDEO, policy="block")
                for reader in (packets, in_step, blocked):
                    await anext(reader)
                # A second of pictures waits for the decoder, which waits for us.
                while not any(  # noqa: ASYNC110 - it comes with media, and is told by no event
                    one.frames_dropped for one in session.track_counters().values()
                ):
                    await anyio.sleep(0.01)
                scissors[0].cut()
                await until(session, Reconnected)
                assert (await anext(packets)).track_id in session.track_counters()
                assert packets.counters.taken == 2
                assert packets.counters.dropped > 0
                assert (await anext(in_step)).time > newest
                await anext(blocked)
                assert (blocked.counters.taken, blocked.counters.dropped) == (2, blocked.size)
                await session.close()

    with emulator_thread() as human:
        anyio.run(main, human, backend=engine.partition("-")[0])
    assert newest
