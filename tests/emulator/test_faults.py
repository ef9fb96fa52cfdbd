"""Faults by name: how they are written, what happens when, and what a session of theirs does."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from navtalk_asyncio import connect
from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend
from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.emulator import Conversation, FaultError, Reply, emulate
from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.emulator.faults import FAULT_NAMES, Faults, Step, parse_faults, timeline
from navtalk_asyncio.emulator.faulty_session import FaultySession
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.refusals import PlannedRefusal
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack
from navtalk_asyncio.testing import memory_transports, run_virtual
from navtalk_proto import ClientConfig, ConnectTimeoutError, GpuFullError, ServerConfig
from navtalk_proto.events import Closed, PeerClosing
from navtalk_proto.testing.impairment import Impairment
from navtalk_proto.transport import TransportClosedError
from navtalk_trio.__main__ import TrioBackend


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# ---- reading


@pytest.mark.parametrize("text", [None, "", "  "])
def test_no_faults(text: str | None) -> None:
    faults = parse_faults(text)
    assert faults == Faults()
    assert not faults.in_session


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drop_ws@3s", Faults(drop_ws=3.0)),
        ("half_open@500ms", Faults(half_open=0.5)),
        ("refuse=gpu_full", Faults(refusals=(PlannedRefusal(name="gpu_full"),))),
        ("refuse=close@20s", Faults(refusals=(PlannedRefusal(name="close", after=20.0),))),
        ("time_limit=60", Faults(time_limit=60.0)),
        ("mute", Faults(mute=True)),
        ("slow_start=2.5s", Faults(slow_start=2.5)),
        ("loss=5%", Faults(network=Impairment(loss=0.05))),
        ("dup=100%", Faults(network=Impairment(duplicate=1.0))),
        ("delay=80ms", Faults(network=Impairment(delay=0.08))),
        ("jitter=0.06s", Faults(network=Impairment(jitter=0.06))),
        ("reorder=2.5%", Faults(network=Impairment(reorder=0.025))),
        ("rate=300k", Faults(network=Impairment(rate=300_000.0))),
        ("blackout@10s+8s", Faults(blackouts=((10.0, 18.0),))),
        ("kill_media@5s", Faults(blackouts=((5.0, math.inf),))),
        ("freeze@10s", Faults(freezes=((10.0, math.inf),))),
        ("freeze@10s+3s", Faults(freezes=((10.0, 13.0),))),
        ("silence@0s+250ms", Faults(silences=((0.0, 0.25),))),
        (
            "drop_ws@3s, loss=5% ,freeze@10s,delay=80ms",
            Faults(
                drop_ws=3.0,
                network=Impairment(loss=0.05, delay=0.08),
                freezes=((10.0, math.inf),),
            ),
        ),
        (
            "blackout@1s+1s,kill_media@9s,blackout@4s+1s",
            Faults(blackouts=((1.0, 2.0), (9.0, math.inf), (4.0, 5.0))),
        ),
        (
            "refuse=gpu_full@1s,refuse=close@2s",
            Faults(
                refusals=(
                    PlannedRefusal(name="gpu_full", after=1.0),
                    PlannedRefusal(name="close", after=2.0),
                )
            ),
        ),
    ],
)
def test_each_fault_by_its_name(text: str, expected: Faults) -> None:
    assert parse_faults(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fun", "'fun' is no fault; there are drop_ws, half_open"),
        ("loss=5%,", "'' is no fault"),
        ("drop_ws@3s@4s", "'drop_ws@3s@4s': '3s@4s' is no time; write drop_ws@3s"),
        ("drop_ws=3s", "'drop_ws=3s' is not how it is written: write drop_ws@3s"),
        ("drop_ws", "'drop_ws' is not how it is written: write drop_ws@3s"),
        ("mute@3s", "'mute@3s' is not how it is written: write mute"),
        ("loss=5", "'loss=5': '5' is no share of at most 100%; write loss=5%"),
        ("loss=101%", "'101%' is no share"),
        ("dup=-1%", "'-1%' is no share"),
        ("delay=80", "'delay=80': 'delay' must be <= 60.0"),
        ("delay=soon", "'soon' is no time; write delay=80ms"),
        ("rate=300", "'300' is no rate above 0; write rate=300k"),
        ("rate=0k", "'0k' is no rate above 0"),
        ("blackout@10s", "'10s' has no end; write blackout@10s+8s"),
        ("blackout@10s+", "'' is no time"),
        ("time_limit=0s", "'time_limit=0s': 'time_limit' must be > 0.0"),
        ("refuse=nobody", "'nobody' is no refusal"),
        ("refuse=gpu_full,refuse=fail", "a session is refused once"),
        ("loss=5%,loss=6%", "'loss=6%' comes second: loss can be given once"),
        ("LOSS=5%", "'LOSS=5%' is no fault"),
    ],
)
def test_what_cannot_be_read_is_quoted_and_shown_right(text: str, says: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse_faults(text)
    assert says in str(caught.value)
    assert isinstance(caught.value, ValueError)


names = st.sampled_from([*FAULT_NAMES, "", "lose"])
values = st.from_regex(r"[=@]?[0-9a-z_.+@%-]{0,12}", fullmatch=True)


@given(st.lists(st.tuples(names, values), max_size=4))
def test_any_text_is_read_or_refused(parts: list[tuple[str, str]]) -> None:
    text = ",".join(name + value for name, value in parts)
    try:
        faults = parse_faults(text)
    except FaultError:
        return
    steps = timeline(faults)
    assert [at for at, _ in steps] == sorted(at for at, _ in steps)
    assert all(math.isfinite(at) for at, _ in steps)


# ---- in order of time


def test_everything_has_its_time() -> None:
    faults = parse_faults("freeze@2s+1s,drop_ws@9s,silence@1s,half_open@0s,blackout@2s+2s")
    assert timeline(faults) == (
        (0.0, Step.HALF_OPEN),
        (1.0, Step.FALL_SILENT),
        (2.0, Step.CUT_MEDIA),
        (2.0, Step.FREEZE),
        (3.0, Step.THAW),
        (4.0, Step.HEAL_MEDIA),
        (9.0, Step.DROP_WS),
    )


def test_spans_that_overlap_are_one_and_killed_media_stays_dead() -> None:
    overlapping = parse_faults("blackout@1s+3s,blackout@2s+1s,blackout@4s+1s")
    assert timeline(overlapping) == ((1.0, Step.CUT_MEDIA), (5.0, Step.HEAL_MEDIA))
    killed = parse_faults("blackout@1s+1s,kill_media@3s,blackout@4s+1s")
    assert timeline(killed) == (
        (1.0, Step.CUT_MEDIA),
        (2.0, Step.HEAL_MEDIA),
        (3.0, Step.CUT_MEDIA),
    )


@pytest.mark.parametrize(
    ("text", "in_session", "on_the_wire"),
    [
        ("mute,slow_start=3s,time_limit=9s,refuse=close@1s", False, False),
        ("drop_ws@1s", True, False),
        ("freeze@1s", True, False),
        ("loss=1%", True, True),
        ("kill_media@0s", True, True),
    ],
)
def test_only_what_needs_a_wire_has_one(text: str, in_session: bool, on_the_wire: bool) -> None:
    faults = parse_faults(text)
    assert (faults.in_session, faults.on_the_wire) == (in_session, on_the_wire)


# ---- one session, in virtual time


class Clock:
    """Time for tracks that is not waited for."""

    async def sleep(self, seconds: float) -> None:
        pass

    def now(self) -> float:
        return asyncio.get_running_loop().time()


def luma(frame: Any) -> bytes:
    return bytes(frame.to_ndarray()[: frame.height].tobytes())


def test_the_tracks_stand_still_and_go_on() -> None:
    async def scenario() -> None:
        clock, mouthpiece = Clock(), Mouthpiece()
        face = FaceTrack(Face(), mouthpiece, clock=clock.now, sleep=clock.sleep)
        voice = VoiceTrack(mouthpiece, clock=clock.now, sleep=clock.sleep)
        tone = np.full(24_000 * 4, 8_000, dtype="<i2").tobytes()
        mouthpiece.say(tone)
        faulty = FaultySession(parse_faults("freeze@750ms+1s,silence@750ms+1s"))
        faulty.add_tracks(face, voice)
        running = asyncio.create_task(faulty.run())
        loud, pictures = [], []
        for _ in range(5):
            await asyncio.sleep(0.5)
            # Two pictures and two pieces of voice, half a second apart from the next two.
            pictures.append((luma(await face.recv()), luma(await face.recv())))
            await voice.recv()
            loud.append(bool((await voice.recv()).to_ndarray().any()))
        await running
        assert loud == [True, False, False, True, True]
        frozen = {picture for pair in pictures[1:3] for picture in pair}
        assert frozen == {pictures[0][1]}
        assert pictures[3][0] not in frozen

    run_virtual(scenario())


def test_the_websocket_is_dropped_in_its_time() -> None:
    async def scenario() -> None:
        near, far = memory_transports()
        faulty = FaultySession(parse_faults("drop_ws@3s"))
        async with faulty.around(far) as transport:
            await transport.send_text("hello")
            running = asyncio.create_task(faulty.run())
            start = asyncio.get_running_loop().time()
            with pytest.raises(TransportClosedError):
                await transport.receive()
            assert asyncio.get_running_loop().time() == start + 3.0
            await running
        assert await near.receive() == "hello"
        with pytest.raises(TransportClosedError):
            await near.receive()

    run_virtual(scenario())


def test_a_half_open_websocket_says_nothing_more() -> None:
    async def scenario() -> None:
        near, far = memory_transports()
        faulty = FaultySession(parse_faults("half_open@1s,freeze@1s,silence@1s"))
        async with faulty.around(far) as transport:
            await faulty.run()  # Without tracks: a session in writing has none.
            await transport.send_text("hello")
            await near.send_text("is somebody there?")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(60.0):
                    await transport.receive()
            assert near.waiting == 0
            await transport.aclose()

    run_virtual(scenario())


def test_a_session_keeps_the_faults_it_began_with() -> None:
    async def scenario() -> None:
        faults = parse_faults("drop_ws@3s")
        faulty = FaultySession(faults)
        faults.become(parse_faults("mute"))
        assert faulty.faults == Faults(drop_ws=3.0)
        assert faults == Faults(mute=True)

    run_virtual(scenario())


# ---- the emulator


class Silent:
    """A brain that has nothing to say."""

    async def hear(self, conversation: Conversation) -> str:
        return ""

    async def reply(self, conversation: Conversation) -> Reply | None:
        return None


IN_WRITING = ServerConfig(media=())


@pytest.mark.anyio
async def test_an_emulator_with_faults_and_without() -> None:
    async with emulate(brain=Silent(), config=IN_WRITING, faults="drop_ws@0s") as human:
        async with connect(human.endpoint(), media=False) as session:
            (*_, closed) = [event async for event in session.events()]
        assert isinstance(closed, Closed)
        assert closed.code is None
        human.fail("refuse=gpu_full")
        with pytest.raises(GpuFullError):
            async with connect(human.endpoint(), media=False):
                pytest.fail("it is usable")
        with pytest.raises(FaultError):
            human.fail("loss")
        human.fail("mute")
        config = ClientConfig(welcome_timeout=0.05)
        with pytest.raises(ConnectTimeoutError):
            async with connect(human.endpoint(), media=False, config=config):
                pytest.fail("it is usable")
        human.fail(None)
        async with connect(human.endpoint(), media=False) as session:
            assert session.end is None


@pytest.mark.anyio
async def test_the_older_options_are_faults_too() -> None:
    async with (
        emulate(brain=Silent(), config=IN_WRITING, faults="time_limit=0.05s") as human,
        connect(human.endpoint(), media=False) as session,
    ):
        events = [type(event) async for event in session.events()]
    assert events[-2:] == [PeerClosing, Closed]
    async with emulate(
        brain=Silent(), config=IN_WRITING, faults="drop_ws@9s", refuse="gpu_full", time_limit=9.0
    ) as human:
        assert human._human.faults == evolve(
            parse_faults("drop_ws@9s,refuse=gpu_full"), time_limit=9.0
        )
    with pytest.raises(ValueError, match="refused once"):
        async with emulate(config=IN_WRITING, faults="refuse=fail", refuse="gpu_full"):
            pytest.fail("it runs")


@pytest.mark.parametrize("backend", [AsyncioBackend(), TrioBackend()], ids=["asyncio", "trio"])
def test_serve_refuses_what_is_no_fault(backend: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(backend, ["serve", "--port", "0", "--faults", "drop_ws=3s"]) == ExitCode.USAGE
    assert "write drop_ws@3s" in " ".join(capsys.readouterr().err.split())
