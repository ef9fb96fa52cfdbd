"""The media thread's beginning and end, and recordings of an engine on it, on both loops."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from navtalk_asyncio.client import _aiortc_factory
from navtalk_asyncio.media import engine_thread
from navtalk_asyncio.media.engine_thread import HEAD_START, EngineThread
from navtalk_asyncio.media.recorder import RecordingError
from navtalk_asyncio.media.recording import Recording
from navtalk_asyncio.thread_engine import ThreadEngine as OnAsyncio
from navtalk_proto import Endpoint
from navtalk_proto.actions import MediaCommand
from navtalk_proto.engine import EngineCallbacks, TrackCounters
from navtalk_proto.media import Capabilities, MediaKind
from navtalk_proto.stats import MediaStats
from navtalk_trio.engine_thread import ThreadEngine as OnTrio
from navtalk_trio.engine_thread import aiortc_engine

PATIENCE = 20.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""

CALLBACKS = EngineCallbacks(done=lambda *_: None, failed=lambda *_: None, event=lambda _: None)


def media_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "navtalk-media"]


# ---- the thread


def no_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    def make() -> asyncio.AbstractEventLoop:
        raise OSError("no file descriptors left")

    return make


def test_a_loop_that_cannot_be_made_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(engine_thread, "_loop_factory", no_loop)
        for _ in range(2):
            with pytest.raises(OSError, match="no file descriptors left"):
                EngineThread.acquire()
            assert media_threads() == []
    thread = EngineThread.acquire()
    try:
        assert len(media_threads()) == 1
    finally:
        thread.release()
    assert media_threads() == []


def test_asyncio_and_trio_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_thread, "_loop_factory", no_loop)

    async def on_asyncio() -> None:
        await asyncio.wait_for(OnAsyncio.factory(StillEngine), PATIENCE)

    async def on_trio() -> None:
        with trio.fail_after(PATIENCE):
            await OnTrio(CALLBACKS, StillEngine).start()

    with pytest.raises(OSError, match="no file descriptors left"):
        asyncio.run(on_asyncio())
    with pytest.raises(OSError, match="no file descriptors left"):
        trio.run(on_trio)
    assert media_threads() == []


@pytest.mark.parametrize("times", [1, 2, 3])
def test_cancelling_asyncio_while_the_thread_starts_leaves_none(times: int) -> None:
    async def main() -> None:
        starting = asyncio.create_task(OnAsyncio.factory(StillEngine))
        for _ in range(times):
            await asyncio.sleep(0)
            starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()
        assert media_threads() == []

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_thread_that_does_not_end_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_thread, "CLOSE_SECONDS", 0.05)
    thread = EngineThread.acquire()
    held = threading.Event()
    thread.loop.call_soon_threadsafe(held.wait)
    with caplog.at_level(logging.WARNING, "navtalk.media"):
        thread.release()
    try:
        assert "! the media thread has not ended within 0.05 s" in caplog.messages
    finally:
        held.set()
        for left in media_threads():
            left.join(PATIENCE)
    assert media_threads() == []


def test_a_thread_that_ends_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "navtalk.media"):
        EngineThread.acquire().release()
    assert caplog.messages == []


# ---- recording


class StillEngine:
    """An engine of which nothing comes."""

    capabilities = Capabilities()

    def __init__(self, callbacks: EngineCallbacks) -> None:
        pass

    def execute(self, command: MediaCommand) -> None:
        raise NotImplementedError

    def frames(self, kind: MediaKind) -> AsyncIterator[Any]:
        raise NotImplementedError

    def counters(self) -> Mapping[str, TrackCounters]:
        return {}

    def add_encoded_sink(
        self, kind: MediaKind, sink: Any, on_end: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        return lambda: None

    def add_decoded_sink(
        self, kind: MediaKind, sink: Any, on_end: Callable[[], None]
    ) -> Callable[[], None]:
        return lambda: None

    def codec(self, kind: MediaKind) -> str | None:
        return None

    def timing(self, kind: MediaKind) -> None:
        return None

    def request_keyframe(self) -> bool:
        return True

    def stats(self) -> MediaStats:
        return MediaStats()

    def await_answer(self, told: Callable[[MediaKind, float], None] | None) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Body:
    """The block of a recording, and what left it."""

    def __init__(self, path: Path, raised: BaseException | None) -> None:
        self.path = path
        self.raised = raised
        self.caught: BaseException | None = None

    async def __call__(self, engine: Any) -> None:
        try:
            async with engine.record(self.path):
                if self.raised is not None:
                    raise self.raised  # noqa: TRY301 - what is tested
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.caught = error

    async def on_asyncio(self) -> None:
        make = await OnAsyncio.factory(StillEngine)
        engine: Any = make(CALLBACKS)
        try:
            await self(engine)
        finally:
            await engine.aclose()

    async def on_trio(self) -> None:
        engine = OnTrio(CALLBACKS, StillEngine)
        await engine.start()
        try:
            with trio.fail_after(PATIENCE):
                await self(engine)
        finally:
            await engine.aclose()

    def run(self, loop: str) -> BaseException | None:
        if loop == "asyncio":
            asyncio.run(asyncio.wait_for(self.on_asyncio(), PATIENCE))
        else:
            trio.run(self.on_trio)
        assert media_threads() == []
        return self.caught


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    close = Recording.close

    def closed(recording: Recording) -> None:
        close(recording)
        raise OSError("the disk is full")

    monkeypatch.setattr(Recording, "close", closed)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_recording_that_fails_raises(loop: str, tmp_path: Path) -> None:
    caught = Body(tmp_path / "a.mkv", None).run(loop)
    assert isinstance(caught, RecordingError)
    assert str(caught).endswith("a.mkv is incomplete: the disk is full")


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_beside_an_exception_of_the_block_it_is_a_note(loop: str, tmp_path: Path) -> None:
    mine = KeyError("mine")
    assert Body(tmp_path / "a.mkv", mine).run(loop) is mine
    (note,) = mine.__notes__
    assert note.endswith("a.mkv is incomplete: the disk is full")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_exception_of_the_block_leaves_as_it_is(loop: str, tmp_path: Path) -> None:
    mine = KeyError("mine")
    assert Body(tmp_path / "a.mkv", mine).run(loop) is mine
    assert not hasattr(mine, "__notes__")
    assert mine.__context__ is None


@pytest.mark.parametrize("times", [1, 2])
def test_cancelling_asyncio_completes_the_file(times: int, tmp_path: Path) -> None:
    """Cancelled in the block, and again while the file is being completed."""

    async def main() -> None:
        make = await OnAsyncio.factory(StillEngine)
        engine: Any = make(CALLBACKS)
        inside = asyncio.Event()

        async def record() -> None:
            async with engine.record(tmp_path / "a.mkv"):
                inside.set()
                await asyncio.get_running_loop().create_future()

        recording = asyncio.create_task(record())
        await inside.wait()
        for _ in range(times):
            recording.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([recording])
        assert recording.cancelled()
        recorders = [one for one in threading.enumerate() if one.name == "navtalk-recorder"]
        assert recorders == []
        await engine.aclose()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert media_threads() == []


@pytest.mark.anyio
async def test_ice_waits_for_an_answer_on_its_way_between_threads_only() -> None:
    endpoint = Endpoint(base_url="ws://127.0.0.1:1", license="sk_navtalk_EXAMPLE", name="x")
    engines: list[Any] = [
        _aiortc_factory(endpoint, on_thread=False)(CALLBACKS),
        _aiortc_factory(endpoint, on_thread=True)(CALLBACKS),
        aiortc_engine(loopback=True)(CALLBACKS),
    ]
    try:
        assert [engine._head_start for engine in engines] == [0.0, HEAD_START, HEAD_START]
        waits = [engine._early.checks._head_start for engine in engines if engine._early]
        assert waits in ([], [0.0, HEAD_START, HEAD_START])
    finally:
        for engine in engines:
            await engine.aclose()
