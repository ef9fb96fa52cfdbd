"""Each fault on both loops: what the application sees, how soon, and what it keeps.

After every one: connect() returned or raised in its deadline, with the right class; what was said
before is in the history; no task, thread, socket, file or process is left (conftest.py).
"""

from __future__ import annotations

import math
import signal
import time
from typing import Any

import anyio
import pytest
from aioice import ice

from navtalk_proto import (
    RECEIVE_MEDIA,
    BackendRefusedError,
    ClientConfig,
    ConnectFailedError,
    ConnectionLimitExceededError,
    ConnectRefusedError,
    ConnectTimeoutError,
    GpuFullError,
    HumanTurn,
    InsufficientBalanceError,
    ReconnectPolicy,
    ServerConfig,
)
from navtalk_proto.events import CloseCause, Reconnected, UserTurn
from navtalk_proto.history import Ending, History
from navtalk_proto.machines.lifecycle import State
from navtalk_proto.media import MediaKind, MediaState
from navtalk_proto.testing import Flow, Side
from navtalk_proto.wire.messages import (
    BackendError,
    ConnectedFail,
    ConnectedSuccess,
    ConnectionLimitExceeded,
    GpuFull,
    InsufficientBalance,
    SessionCreated,
    SessionUpdated,
)

QUESTION = UserTurn(text="one", typed=True)
ANSWER = HumanTurn(text="Parrot: one", heard="Parrot: one")

START_UP = 30.0
"""connect()'s own default deadline, in seconds."""

PROMPT = 2.0
"""Seconds in which the end of a socket must have been told, on a machine that does much else."""

WHOLE = "the history"


def old_history() -> History:
    history = History()
    for entry in (QUESTION, ANSWER):
        history.add(entry)
    return history


# ---- the WebSocket is cut


@pytest.mark.parametrize(
    ("state", "stage_name"),
    [
        pytest.param(None, "welcoming", marks=pytest.mark.representative("trio")),
        pytest.param(State.OPENING, "opening", marks=pytest.mark.representative("asyncio")),
        pytest.param(State.CONFIGURING, "configuring", marks=pytest.mark.representative("trio")),
    ],
)
def test_the_websocket_is_cut_while_it_opens(
    stage: Any, state: State | None, stage_name: str
) -> None:
    async def scenario(stage: Any) -> None:
        cutter = stage.kit.cutter()
        if state is None:
            cutter.cut()
        else:
            cutter.at(state)
        history = old_history()
        error, took = await stage.fails(
            ConnectFailedError, cutter.wrap, within=PROMPT, history=history
        )
        assert error.stage == stage_name
        assert list(history) == [QUESTION, ANSWER]
        stage.tell(
            f"WebSocket cut, {stage_name}",
            sees=f'ConnectFailedError, stage "{stage_name}"',
            after=took,
            kept="the history given",
        )

    stage.play(scenario)


@pytest.mark.representative("asyncio")
def test_the_websocket_is_cut_when_ready_and_before_media(stage: Any) -> None:
    async def scenario(stage: Any) -> None:
        cutter = stage.kit.cutter()
        cutter.at(State.READY)
        error, took = await stage.fails(ConnectFailedError, cutter.wrap, within=PROMPT)
        assert error.stage == "ready"
        stage.tell(
            "WebSocket cut, ready, before media",
            sees='ConnectFailedError, stage "ready"',
            after=took,
            kept="the history given",
        )

    stage.play(scenario)


@pytest.mark.representative("trio")
def test_the_websocket_is_cut_in_the_middle_of_a_sentence(stage: Any) -> None:
    async def scenario(stage: Any) -> None:
        cutter = stage.kit.cutter()
        async with stage.connect(cutter.wrap, rate=15.0, history=old_history()) as session:
            await session.send_text("a long sentence, which is being said for seconds")
            await stage.seen.until("ResponseGenerated")
            start = time.monotonic()
            cutter.cut()
            closed = await stage.seen.until("Closed")
            took = time.monotonic() - start
        assert (closed.cause, closed.code) == (CloseCause.REMOTE, None)
        *before, asked, answer = session.history
        assert before == [QUESTION, ANSWER]
        assert asked.text == "a long sentence, which is being said for seconds"
        assert (answer.text, answer.ending) == (f"Parrot: {asked.text}", Ending.INTERRUPTED)
        assert took < PROMPT
        stage.tell(
            "WebSocket cut in mid-sentence",
            sees="Closed, cause REMOTE, no code",
            after=took,
            kept="the history; the sentence whole, and marked interrupted",
        )

    stage.play(scenario)


@pytest.mark.representative("asyncio")
def test_the_emulator_drops_the_websocket_by_name(stage: Any) -> None:
    stage.emulator.fail("drop_ws@1s")

    async def scenario(stage: Any) -> None:
        async with stage.connect(media=False) as session:
            await stage.talk(session, "one")
            closed = await stage.seen.until("Closed")
        assert (closed.cause, closed.code) == (CloseCause.REMOTE, None)
        assert list(session.history) == [QUESTION, ANSWER]
        took = stage.seen.at("Closed") - stage.seen.at("Ready")
        assert 0.9 < took < 1.0 + PROMPT
        stage.tell("drop_ws@1s", sees="Closed, cause REMOTE, no code", after=took - 1.0, kept=WHOLE)

    stage.play(scenario)


@pytest.mark.representative("trio")
def test_the_servers_process_is_killed(stage: Any, own_emulator: Any) -> None:
    stage.emulator = own_emulator

    async def scenario(stage: Any) -> None:
        async with stage.connect() as session:
            await stage.talk(session, "one")
            start = time.monotonic()
            own_emulator.process.send_signal(signal.SIGKILL)
            closed = await stage.seen.until("Closed")
            took = time.monotonic() - start
        assert (closed.cause, closed.code) == (CloseCause.REMOTE, None)
        assert list(session.history) == [QUESTION, ANSWER]
        assert took < PROMPT
        _, refused_after = await stage.fails(ConnectFailedError, within=PROMPT)
        stage.tell("server killed", sees="Closed, cause REMOTE, no code", after=took, kept=WHOLE)
        stage.tell(
            "server gone, connecting",
            sees='ConnectFailedError, stage "open"',
            after=refused_after,
            kept="the history given",
        )

    stage.play(scenario)


# ---- the WebSocket is silent


@pytest.mark.representative("asyncio")
def test_a_server_that_accepts_and_never_speaks(stage: Any) -> None:
    stage.emulator.fail("mute")

    async def scenario(stage: Any) -> None:
        config = ClientConfig(welcome_timeout=1.0)
        error, took = await stage.fails(
            ConnectTimeoutError, within=1.0 + PROMPT, config=config, history=old_history()
        )
        assert error.waiting_for == "connected.success"
        assert took >= 1.0
        stage.tell(
            "mute server (welcome_timeout 1 s)",
            sees="ConnectTimeoutError, waiting for connected.success",
            after=took,
            kept="the history given",
        )

    stage.play(scenario)


@pytest.mark.representative("trio")
def test_a_server_that_starts_slowly(stage: Any) -> None:
    stage.emulator.fail("slow_start=1s")

    async def scenario(stage: Any) -> None:
        start = time.monotonic()
        async with stage.connect(media=False) as session:
            took = time.monotonic() - start
            await stage.talk(session, "one")
        assert took > 1.0
        stage.tell("slow_start=1s", sees="a usable session", after=took, kept="everything")

    stage.play(scenario)


@pytest.mark.representative("asyncio")
def test_the_connection_is_half_open_from_the_first_byte(stage: Any) -> None:
    async def scenario(stage: Any) -> None:
        async with stage.kit.tcp_proxy("127.0.0.1", stage.emulator.port) as proxy:
            proxy.hold()
            error, took = await stage.fails(
                ConnectTimeoutError, within=1.0 + PROMPT, url=proxy.url, timeout=1.0
            )
        assert error.waiting_for == "the WebSocket handshake"
        stage.tell(
            "half-open TCP from the start (timeout 1 s)",
            sees="ConnectTimeoutError, waiting for the WebSocket handshake",
            after=took,
            kept="the history given",
        )

    stage.play(scenario)


@pytest.mark.parametrize(
    ("state", "waiting_for"),
    [
        pytest.param(State.OPENING, "session.created", marks=pytest.mark.representative("trio")),
        (State.CONFIGURING, "session.updated"),
    ],
)
def test_the_websocket_falls_silent_while_it_opens(
    stage: Any, state: State, waiting_for: str
) -> None:
    async def scenario(stage: Any) -> None:
        cutter = stage.kit.cutter()
        cutter.at(state, Flow.SILENT)
        config = ClientConfig(close_timeout=0.5)
        error, took = await stage.fails(
            ConnectTimeoutError,
            cutter.wrap,
            within=1.0 + 0.5 + PROMPT,
            timeout=1.0,
            config=config,
            history=old_history(),
        )
        assert error.waiting_for == waiting_for
        stage.tell(
            f"silent WebSocket, {state.value} (timeout 1 s, close_timeout 0.5 s)",
            sees=f"ConnectTimeoutError, waiting for {waiting_for}",
            after=took,
            kept="the history given",
        )

    stage.play(scenario)


@pytest.mark.representative("asyncio")
def test_the_connection_is_half_open_when_ready(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    interval = 0.5
    monkeypatch.setattr("navtalk_asyncio.websocket.KEEPALIVE_SECONDS", interval)
    monkeypatch.setattr("navtalk_trio.websocket.KEEPALIVE_SECONDS", interval)

    async def scenario(stage: Any) -> None:
        async with (
            stage.kit.tcp_proxy("127.0.0.1", stage.emulator.port) as proxy,
            stage.connect(url=proxy.url, media=False) as session,
        ):
            await stage.talk(session, "one")
            start = time.monotonic()
            proxy.hold()
            closed = await stage.seen.until("Closed")
            took = time.monotonic() - start
        assert closed.cause is CloseCause.REMOTE
        assert took < 2 * interval + PROMPT
        assert list(session.history) == [QUESTION, ANSWER]
        stage.tell(
            "half-open TCP (keep-alive 0.5 s; 20 s unless changed)",
            sees=f'Closed, cause REMOTE, "{closed.reason}"',
            after=took,
            kept=WHOLE,
        )

    stage.play(scenario)


@pytest.mark.representative("trio")
def test_a_server_that_goes_silent_by_name(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    interval = 0.5
    monkeypatch.setattr("navtalk_asyncio.websocket.KEEPALIVE_SECONDS", interval)
    monkeypatch.setattr("navtalk_trio.websocket.KEEPALIVE_SECONDS", interval)
    stage.emulator.fail("half_open@0.5s")

    async def scenario(stage: Any) -> None:
        async with stage.connect(media=False) as session:
            await stage.talk(session, "one")
            closed = await stage.seen.until("Closed")
        took = stage.seen.at("Closed") - stage.seen.at("Ready") - 0.5
        assert closed.cause is CloseCause.REMOTE
        assert 0.0 < took < 2 * interval + PROMPT
        assert list(session.history) == [QUESTION, ANSWER]
        stage.tell(
            "half_open@0.5s (keep-alive 0.5 s)",
            sees=f'Closed, cause REMOTE, "{closed.reason}"',
            after=took,
            kept=WHOLE,
        )

    stage.play(scenario)


# ---- it is closing already


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("silent", marks=pytest.mark.representative("asyncio")),
        pytest.param("cut", marks=pytest.mark.representative("trio")),
        "half-open",
        "killed",
    ],
)
def test_a_fault_while_it_closes(stage: Any, fault: str, own_emulator: Any) -> None:
    """Leaving returns, at the latest after close_timeout; the end is ours all the same."""
    stage.emulator = own_emulator
    limit = 0.5

    async def scenario(stage: Any) -> None:
        config = ClientConfig(speech_rate=1000.0, close_timeout=limit)
        cutter = stage.kit.cutter()
        async with (
            stage.kit.tcp_proxy("127.0.0.1", own_emulator.port) as proxy,
            stage.connect(cutter.wrap, url=proxy.url, media=False, config=config) as session,
        ):
            await stage.talk(session, "one")
            # The server's half of the closing handshake does not come: it stays in CLOSING.
            if fault in ("silent", "cut"):
                cutter.go_silent()
            else:
                proxy.hold()
            start = time.monotonic()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.close)
                while session.state is State.READY:
                    await anyio.lowlevel.checkpoint()
                assert session.state is State.CLOSING
                if fault == "cut":
                    cutter.cut()
                elif fault == "killed":
                    own_emulator.process.send_signal(signal.SIGKILL)
                    own_emulator.process.wait()
                    proxy.release()
            took = time.monotonic() - start
            closed = await stage.seen.until("Closed")
        assert closed.cause is CloseCause.LOCAL
        assert closed.forced is (fault in ("silent", "half-open"))
        assert took < limit + PROMPT
        assert list(session.history) == [QUESTION, ANSWER]
        stage.tell(
            f"{CLOSING_FAULTS[fault]}, closing (close_timeout {limit:g} s)",
            sees="Closed, cause LOCAL" + (", forced" if closed.forced else ""),
            after=took,
            kept=WHOLE,
        )

    stage.play(scenario)


CLOSING_FAULTS = {
    "silent": "silent WebSocket",
    "cut": "WebSocket cut",
    "half-open": "half-open TCP",
    "killed": "server killed",
}


# ---- refusals

REFUSALS = [
    (ConnectedFail(message="no"), ConnectRefusedError),
    (InsufficientBalance(message="no"), InsufficientBalanceError),
    (ConnectionLimitExceeded(message="no"), ConnectionLimitExceededError),
    (GpuFull(message="no"), GpuFullError),
    (BackendError(message="no"), BackendRefusedError),
]
STEPS = (ConnectedSuccess(session_id="s-1"), SessionCreated(), SessionUpdated())


@pytest.mark.representative("asyncio")
@pytest.mark.representative("trio")
@pytest.mark.parametrize("said", [0, 1, 2], ids=["welcoming", "opening", "configuring"])
def test_a_refusal_while_it_opens(stage: Any, said: int) -> None:
    async def scenario(stage: Any) -> None:
        slowest = 0.0
        for refusal, error in REFUSALS:

            async def handler(session: Any, refusal: Any = refusal) -> None:
                for message in (*STEPS[:said], refusal):
                    await session.send(message)

            async with stage.adapter.serve(handler, config=ServerConfig(media=())) as server:
                history = old_history()
                caught, took = await stage.fails(
                    error, within=PROMPT, url=server.url, media=False, history=history
                )
            assert caught.text == "no"
            assert list(history) == [QUESTION, ANSWER]
            slowest = max(slowest, took)
        stage.tell(
            "any of the five refusals, at any point of the opening",
            sees="its own subclass of RefusedError",
            after=slowest,
            kept="the history given",
        )

    stage.play(scenario)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("insufficient_balance", marks=pytest.mark.representative("trio")),
        "fail",
        "connection_limit_exceeded",
        "gpu_full",
        "backend_error",
        pytest.param("close", marks=pytest.mark.representative("asyncio")),
    ],
)
def test_a_refusal_of_a_session_that_runs(stage: Any, kind: str) -> None:
    stage.emulator.fail(f"refuse={kind}@0.5s")

    async def scenario(stage: Any) -> None:
        async with stage.connect(media=False) as session:
            await stage.talk(session, "one")
            told = await stage.seen.until("Notice", "PeerClosing")
            closed = await stage.seen.until("Closed")
        assert list(session.history) == [QUESTION, ANSWER]
        took = stage.seen.at("Closed") - stage.seen.at("Ready") - 0.5
        assert took < PROMPT
        if kind == "close":
            assert closed.cause is CloseCause.REMOTE
            fault, sees = "the server's own time is up", "PeerClosing, then Closed"
        else:
            assert (told.kind.value, closed.cause) == (kind, CloseCause.REFUSED)
            fault, sees = "a refusal of a running session", "Notice, then Closed, cause REFUSED"
        stage.tell(fault, sees=sees, after=took, kept=WHOLE)

    stage.play(scenario)


# ---- the media's packets


async def frames(session: Any, seconds: float) -> int:
    """How many pictures are decoded in so many seconds."""
    count = 0
    with anyio.move_on_after(seconds):
        async for _ in session.video:
            count += 1
    return count


async def picture(session: Any) -> None:
    """Wait for the next picture."""
    async for _ in session.video:
        return
    pytest.fail("the video is over")


@pytest.mark.representative("asyncio")
def test_media_is_killed_in_the_middle_of_a_sentence(stage: Any) -> None:
    async def scenario(stage: Any) -> None:
        async with stage.kit.udp_wire(1) as wire, stage.connect(wire.wrap) as session:
            await picture(session)
            await stage.talk(session, "one")
            start = time.monotonic()
            wire.cut()  # Two of the three seconds of its voice are still to come.
            stalled = await stage.seen.until("MediaStalled")
            took = time.monotonic() - start
            assert wire.counters("rtp", towards=Side.NEAR).swallowed > 0
            await stage.talk(session, "two")
            assert session.end is None
        assert stalled.kind in MediaKind
        assert 1.8 <= took < 2.0 + PROMPT  # since the last packet
        assert list(session.history)[:2] == [QUESTION, ANSWER]
        assert len(session.history) == 4
        stage.tell(
            "media killed in mid-sentence",
            sees="MediaStalled",
            after=took,
            kept="the history; the conversation goes on in writing",
        )

    stage.play(scenario)


@pytest.mark.representative("trio")
def test_media_is_killed_by_name(stage: Any) -> None:
    stage.emulator.fail("kill_media@1s")

    async def scenario(stage: Any) -> None:
        async with stage.connect() as session:
            await stage.talk(session, "one")
            await stage.seen.until("MediaStalled")
            assert session.end is None
        took = stage.seen.at("MediaStalled") - stage.seen.at("Ready") - 1.0
        assert 1.8 <= took < 2.0 + PROMPT  # since the last packet
        assert list(session.history) == [QUESTION, ANSWER]
        stage.tell(
            "kill_media@1s",
            sees="MediaStalled",
            after=took,
            kept="the history; the conversation goes on in writing",
        )

    stage.play(scenario)


@pytest.mark.parametrize(
    ("loss", "seed"),
    [
        pytest.param(0.1, 1, marks=pytest.mark.representative("trio")),
        pytest.param(0.3, 1, marks=pytest.mark.representative("asyncio")),
        *((0.3, seed) for seed in range(2, 6)),
    ],
)
def test_packets_of_all_kinds_are_lost_from_the_start(stage: Any, loss: float, seed: int) -> None:
    async def scenario(stage: Any) -> None:
        start = time.monotonic()
        async with stage.kit.udp_wire(seed) as wire:
            wire.set(loss=loss)
            async with stage.connect(wire.wrap) as session:
                took = time.monotonic() - start
                decoded = await frames(session, 2.0)
                await stage.talk(session, "one")
                assert session.end is None
        # The default deadline is long enough, and the picture moves.
        assert took < START_UP
        assert decoded > 0
        rtp = wire.counters("rtp", towards=Side.NEAR)
        assert rtp.lost > 0
        share = rtp.lost / (rtp.lost + rtp.passed)
        assert abs(share - loss) < 0.12
        assert list(session.history) == [QUESTION, ANSWER]
        stage.tell(
            f"{loss:.0%} of all packets lost",
            sees="a usable session, a picture that stumbles",
            after=took,
            kept="everything",
        )

    stage.play(scenario)


@pytest.mark.parametrize(
    "seed", [pytest.param(1, marks=pytest.mark.representative("trio")), 2, 3, 4, 5]
)
def test_a_third_of_the_dtls_handshake_is_lost(stage: Any, seed: int) -> None:
    async def scenario(stage: Any) -> None:
        start = time.monotonic()
        async with stage.kit.udp_wire(seed) as wire:
            wire.set("dtls", loss=0.3)
            async with stage.connect(wire.wrap) as session:
                took = time.monotonic() - start
                await stage.talk(session, "one")
        assert took < START_UP
        stage.tell("30% of DTLS lost", sees="a usable session", after=took, kept="everything")

    stage.play(scenario)


@pytest.mark.representative("asyncio")
def test_jitter_that_reorders(stage: Any) -> None:
    async def scenario(stage: Any) -> None:
        start = time.monotonic()
        async with stage.kit.udp_wire(1) as wire:
            wire.set(delay=0.1, jitter=0.06)
            async with stage.connect(wire.wrap) as session:
                took = time.monotonic() - start
                decoded = await frames(session, 2.0)
                await stage.talk(session, "one")
        assert decoded > 10
        assert "MediaStalled" not in stage.seen.names()
        stage.tell("jitter of 100 +- 60 ms", sees="a usable session", after=took, kept="everything")

    stage.play(scenario)


@pytest.mark.representative("trio")
def test_a_blackout_of_eight_seconds(stage: Any) -> None:
    async def scenario(stage: Any) -> None:
        async with stage.kit.udp_wire(1) as wire, stage.connect(wire.wrap) as session:
            await stage.talk(session, "one")
            await picture(session)
            start = time.monotonic()
            wire.cut()
            await stage.seen.until("MediaStalled")
            told = time.monotonic() - start
            await stage.talk(session, "two")
            await anyio.sleep(start + 8.0 - time.monotonic())
            wire.heal()
            healed = time.monotonic()
            await stage.seen.until("MediaResumed")
            resumed = time.monotonic() - healed
            await picture(session)
            assert session.end is None
        assert 1.8 <= told < 2.0 + PROMPT  # since the last packet
        assert resumed < PROMPT
        assert list(session.history)[:2] == [QUESTION, ANSWER]
        stage.tell("8 s blackout begins", sees="MediaStalled", after=told, kept="everything")
        stage.tell("8 s blackout ends", sees="MediaResumed", after=resumed, kept="everything")

    stage.play(scenario)


@pytest.mark.representative("asyncio")
def test_a_bad_network_by_name(stage: Any) -> None:
    stage.emulator.fail("loss=5%,dup=2%,reorder=5%,delay=40ms,jitter=20ms,rate=4000k")

    async def scenario(stage: Any) -> None:
        start = time.monotonic()
        async with stage.connect() as session:
            took = time.monotonic() - start
            assert await frames(session, 1.0) > 5
            await stage.talk(session, "one")
        stage.tell(
            "loss=5%,dup=2%,reorder=5%,delay=40ms,jitter=20ms,rate=4000k",
            sees="a usable session",
            after=took,
            kept="everything",
        )

    stage.play(scenario)


@pytest.mark.representative("trio")
def test_media_that_is_made_anew_does_not_come_up(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptions are exchanged, and no packet passes."""
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.1)

    async def scenario(stage: Any) -> None:
        config = ClientConfig(speech_rate=1000.0, transport_timeout=1.0)
        async with (
            stage.kit.udp_wire(1) as wire,
            stage.connect(wire.wrap, config=config) as session,
        ):
            await stage.talk(session, "one")
            with monkeypatch.context() as at_once:  # The end of a connection takes half a minute.
                at_once.setattr(ice, "CONSENT_FAILURES", 1)
                wire.cut()
                await stage.seen.media(MediaState.CLOSED)
            await session.negotiate(*RECEIVE_MEDIA)
            start = time.monotonic()
            failed = await stage.seen.media(MediaState.FAILED)
            took = time.monotonic() - start
            await stage.talk(session, "two")
            wire.heal()
            await session.negotiate(*RECEIVE_MEDIA)
            await picture(session)
            assert session.end is None
        assert failed.reason == "ICE took longer than 1 s"
        assert took < 1.0 + PROMPT
        assert list(session.history) == [QUESTION, ANSWER, TWO, SECOND_ANSWER]
        stage.tell(
            "no packet passes for media made anew (transport_timeout 1 s; 20 s unless changed)",
            sees="MediaStateChanged, FAILED: ICE took longer than 1 s",
            after=took,
            kept="the history; the conversation goes on in writing, and negotiate() makes another",
        )

    stage.play(scenario)


# ---- the tracks


@pytest.mark.representative("trio")
def test_the_picture_freezes_by_name(stage: Any) -> None:
    stage.emulator.fail("freeze@1s")

    async def scenario(stage: Any) -> None:
        config = ClientConfig(freeze_timeout=1.0)
        async with stage.connect(config=config) as session, anyio.create_task_group() as tasks:
            tasks.start_soon(frames, session, math.inf)
            await stage.seen.until("PictureFrozen")
            assert session.end is None
            tasks.cancel_scope.cancel()
        took = stage.seen.at("PictureFrozen") - stage.seen.at("Ready") - 1.0
        assert 0.8 < took < 1.0 + PROMPT
        assert "MediaStalled" not in stage.seen.names()
        stage.tell(
            "freeze@1s (freeze_timeout 1 s; 5 s unless changed)",
            sees="PictureFrozen, while the video is read",
            after=took,
            kept="everything; the packets flow",
        )

    stage.play(scenario)


@pytest.mark.representative("asyncio")
def test_the_voice_falls_silent_by_name(stage: Any) -> None:
    stage.emulator.fail("silence@0s")

    async def scenario(stage: Any) -> None:
        async with stage.connect() as session:
            await session.send_text("one")
            await stage.seen.until("ResponseGenerated")
            heard = 0
            async for frame in session.audio:
                # Opus leaves a trace of its own; the tone is four orders above it.
                assert abs(frame.to_ndarray()).max() < 100
                heard += 1
                if heard == 50:
                    break
            assert session.end is None
        stage.tell(
            "silence@0s",
            sees="nothing: silence is what a human who listens sends",
            after=None,
            kept="everything; the text is told",
        )

    stage.play(scenario)


# ---- it reconnects

AGAIN = ReconnectPolicy(first_delay=0.2, jitter=lambda: 0.0)
"""The first attempt begins 0.1 s after the loss."""

BACK = "Reconnecting, then Reconnected: a usable session"
TWO = UserTurn(text="two", typed=True)
SECOND_ANSWER = HumanTurn(text="Parrot: two", heard="Parrot: two")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("drop_ws@2s", marks=pytest.mark.representative("trio")),
        pytest.param("kill_media@2s", marks=pytest.mark.representative("asyncio")),
        "half_open@2s",
        "time_limit=2s",
        "refuse=gpu_full@2s",
        "refuse=connection_limit_exceeded@2s",
        "refuse=backend_error@2s",
    ],
)
def test_a_session_that_reconnects_is_lost(
    stage: Any, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is back with media, and knows all that was said."""
    interval = 0.5
    monkeypatch.setattr("navtalk_asyncio.websocket.KEEPALIVE_SECONDS", interval)
    monkeypatch.setattr("navtalk_trio.websocket.KEEPALIVE_SECONDS", interval)
    stage.emulator.fail(fault)

    async def scenario(stage: Any) -> None:
        config = ClientConfig(speech_rate=1000.0, stall_timeout=0.5, stall_give_up=1.0)
        async with stage.connect(config=config, reconnect=AGAIN) as session:
            first = session.id
            await stage.talk(session, "one")
            await stage.seen.until("Reconnecting")
            stage.emulator.fail("")
            back = await stage.seen.until("Reconnected")
            took = stage.seen.at("Reconnected") - stage.seen.at("Ready") - 2.0
            await picture(session)
            await stage.talk(session, "two")
            assert session.end is None
            assert session.id == back.session_id != first
        assert list(session.history) == [QUESTION, ANSWER, TWO, SECOND_ANSWER]
        assert stage.seen.names().count("Closed") == 1
        setting = {"half_open@2s": " (keep-alive 0.5 s)", "kill_media@2s": " (stall_give_up 1 s)"}
        stage.tell(
            f"reconnecting: {fault}{setting.get(fault, '')}", sees=BACK, after=took, kept=WHOLE
        )

    stage.play(scenario)


@pytest.mark.representative("trio")
def test_each_attempt_to_reconnect_meets_another_fault(stage: Any) -> None:
    stage.emulator.fail("drop_ws@1s")

    async def scenario(stage: Any) -> None:
        config = ClientConfig(speech_rate=1000.0, welcome_timeout=0.5)
        async with stage.connect(media=False, config=config, reconnect=AGAIN) as session:
            await stage.talk(session, "one")
            for attempt, fault in enumerate(("refuse=gpu_full", "mute", ""), start=1):
                again = await stage.seen.until("Reconnecting", count=attempt)
                assert again.attempt == attempt
                stage.emulator.fail(fault)
            back = await stage.seen.until("Reconnected")
            assert back == Reconnected(session_id=session.id, attempts=3)
            took = stage.seen.at("Reconnected") - stage.seen.at("Ready") - 1.0
            await stage.talk(session, "two")
        assert list(session.history) == [QUESTION, ANSWER, TWO, SECOND_ANSWER]
        stage.tell(
            "reconnecting: drop_ws@1s, then full, then mute (welcome_timeout 0.5 s)",
            sees=BACK,
            after=took,
            kept=WHOLE,
        )

    stage.play(scenario)


@pytest.mark.parametrize("state", [None, State.OPENING, State.CONFIGURING, State.READY])
def test_the_next_connection_is_cut_while_it_opens(stage: Any, state: State | None) -> None:
    async def scenario(stage: Any) -> None:
        cutters: list[Any] = []

        def wrap(transport: Any) -> Any:
            cutter = stage.kit.cutter()
            cutters.append(cutter)
            if len(cutters) == 2 and state is None:
                cutter.cut()
            elif len(cutters) == 2:
                cutter.at(state)
            return cutter.wrap(transport)

        async with stage.connect(wrap, reconnect=AGAIN) as session:
            await stage.talk(session, "one")
            start = time.monotonic()
            cutters[0].cut()
            back = await stage.seen.until("Reconnected")
            took = time.monotonic() - start
            assert back.attempts == 2
            await stage.talk(session, "two")
        assert list(session.history) == [QUESTION, ANSWER, TWO, SECOND_ANSWER]
        stage.tell(
            "reconnecting: WebSocket cut, and cut again before media",
            sees=BACK,
            after=took,
            kept=WHOLE,
        )

    stage.play(scenario)


def test_the_server_is_killed_and_stays_away(stage: Any, own_emulator: Any) -> None:
    stage.emulator = own_emulator

    async def scenario(stage: Any) -> None:
        policy = ReconnectPolicy(first_delay=0.2, give_up_after=1.0, jitter=lambda: 0.0)
        async with stage.connect(media=False, reconnect=policy) as session:
            await stage.talk(session, "one")
            start = time.monotonic()
            own_emulator.process.send_signal(signal.SIGKILL)
            closed = await stage.seen.until("Closed")
            took = time.monotonic() - start
        assert closed.cause is CloseCause.REMOTE
        assert closed.reason.startswith("gave up after 4 attempts (1.")
        assert 1.0 <= took < 1.0 + PROMPT
        assert list(session.history) == [QUESTION, ANSWER]
        stage.tell(
            "reconnecting: server killed (give_up_after 1 s)",
            sees='Closed, cause REMOTE, "gave up after 4 attempts"',
            after=took,
            kept=WHOLE,
        )

    stage.play(scenario)


@pytest.mark.parametrize("kind", ["fail", "insufficient_balance"])
def test_a_refusal_for_good_is_not_reconnected(stage: Any, kind: str) -> None:
    stage.emulator.fail(f"refuse={kind}@1s")

    async def scenario(stage: Any) -> None:
        async with stage.connect(media=False, reconnect=AGAIN) as session:
            await stage.talk(session, "one")
            closed = await stage.seen.until("Closed")
        took = stage.seen.at("Closed") - stage.seen.at("Ready") - 1.0
        assert closed.cause is CloseCause.REFUSED
        assert "Reconnecting" not in stage.seen.names()
        assert list(session.history) == [QUESTION, ANSWER]
        assert took < PROMPT
        stage.tell(
            "reconnecting: refused for good",
            sees="Notice, then Closed, cause REFUSED",
            after=took,
            kept=WHOLE,
        )

    stage.play(scenario)
