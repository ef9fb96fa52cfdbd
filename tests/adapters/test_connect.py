"""connect(): usable, or one exception that says why not, in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import navtalk_proto
from navtalk_asyncio import Endpoint, connect
from navtalk_proto import (
    ClientConfig,
    ConnectFailedError,
    ConnectTimeoutError,
    Limits,
    LocalProtocolError,
    MediaError,
    ProtocolViolatedError,
)
from navtalk_proto.events import Closed, ConnectFailed
from navtalk_proto.media import (
    CandidatePair,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    MediaStateChanged,
)
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import UserMessage

REFUSALS = [
    # type, exception, retryable (protocol.md 5.3)
    ("conversation.connected.fail", "ConnectRefusedError", False),
    ("conversation.connected.insufficient_balance", "InsufficientBalanceError", False),
    ("conversation.connected.connection_limit_exceeded", "ConnectionLimitExceededError", True),
    ("conversation.connected.gpu_full", "GpuFullError", True),
    ("conversation.connected.backend_error", "BackendRefusedError", True),
]


# ---- what is sent on the way


def test_arguments_become_messages(kit: Any) -> None:
    tools = [{"type": "function", "name": "end_call"}]

    async def main() -> None:
        far = kit.far()
        async with asyncio.TaskGroup() as tasks:

            async def serve() -> None:
                # protocol.md 3.1: configuration leaves in onopen, before any server message.
                config = await far.hear()
                assert config["type"] == "realtime.input_config"
                assert config["data"] == {"content": '{"voice":"cedar","prompt":"Be brief."}'}
                functions = await far.hear()
                assert functions["type"] == "realtime.input_function_call"
                await far.script(kit.welcome, kit.created)
                history = [await far.hear(), await far.hear()]
                assert [item["item"]["content"][0]["text"] for item in history] == ["one", "two"]
                await far.script(kit.updated)

            tasks.create_task(serve())
            async with kit.connect(
                far,
                media=False,
                voice="cedar",
                prompt="Be brief.",
                tools=tools,
                history=[UserMessage(texts=("one",)), UserMessage(texts=("two",))],
            ):
                pass

    kit.run(main())


def test_named_arguments_win_over_the_config(kit: Any) -> None:
    line = MediaLine(kind=MediaKind.AUDIO)

    async def main() -> None:
        config = ClientConfig(media=())
        async with kit.session(media=True, config=config) as (session, _):
            assert len(session.engine.strict.history[0].media) == 2  # media=True is the default two
        async with kit.session(media=[line], config=config) as (session, _):
            assert session.engine.strict.history[0].media == (line,)
        async with kit.session(media=False) as (session, _):
            assert len(kit.engines) == 2
        kit.check_nothing_left()

    kit.run(main())


def test_the_opener_gets_the_endpoint(kit: Any) -> None:
    asked: list[Endpoint] = []

    async def main() -> None:
        far = kit.far()
        await far.script(*kit.ready)

        async def opened(endpoint: Endpoint) -> Any:
            asked.append(endpoint)
            return far.near

        async with connect(kit.endpoint, media=False, transport=opened):
            pass

    kit.run(main())
    assert asked == [kit.endpoint]


# ---- refusals


@pytest.mark.parametrize(("type", "error", "retryable"), REFUSALS)
@pytest.mark.parametrize("stage", ["welcoming", "opening", "configuring", "ready"])
def test_refusals(kit: Any, type: str, error: str, retryable: bool, stage: str) -> None:
    async def main() -> None:
        far = kit.far()
        before = {
            "welcoming": (),
            "opening": (kit.welcome,),
            "configuring": (kit.welcome, kit.created),
            "ready": kit.ready,  # and no offer: not usable yet
        }[stage]
        await far.script(*before)
        await far.say(type, message="Not today.")
        elapsed, caught = await kit.refused(far, getattr(navtalk_proto, error))
        assert elapsed == 0.0
        assert caught.text == "Not today."
        assert caught.retryable is retryable
        assert "Not today." in str(caught)
        assert isinstance(caught, navtalk_proto.RefusedError)
        assert await far.end() == (1000, "")

    kit.run(main())


@pytest.mark.parametrize("stage", ["welcoming", "opening", "ready"])
@pytest.mark.parametrize("code", [1000, 1008])
def test_the_close_reason_alone_refuses(kit: Any, stage: str, code: int) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*{"welcoming": (), "opening": (kit.welcome,), "ready": kit.ready}[stage])
        await far.transport.close(code, "Insufficient points")
        _, caught = await kit.refused(far, navtalk_proto.InsufficientBalanceError)
        assert caught.text == "Insufficient points"
        assert caught.retryable is False

    kit.run(main())


def test_the_server_says_goodbye_before_it_is_usable(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(kit.welcome)
        await far.say("conversation.connected.close", message="Session timeout")
        _, caught = await kit.refused(far, ConnectFailedError)
        assert "Session timeout" in str(caught)
        assert caught.stage == "closing"

    kit.run(main())


# ---- the deadline


def test_a_handshake_that_never_finishes(kit: Any) -> None:
    async def main() -> None:
        async def never(endpoint: Endpoint) -> Any:
            await asyncio.Event().wait()

        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(ConnectTimeoutError) as caught:
            async with connect(kit.endpoint, media=False, transport=never, timeout=7.0):
                pass
        assert loop.time() - start == pytest.approx(7.0)
        assert caught.value.waiting_for == "the WebSocket handshake"
        assert caught.value.seconds == 7.0

    kit.run(main())


def test_an_openers_own_timeout_is_not_ours(kit: Any) -> None:
    async def main() -> None:
        async def gives_up(endpoint: Endpoint) -> Any:
            raise TimeoutError("mine")

        with pytest.raises(TimeoutError, match="mine") as caught:
            async with connect(kit.endpoint, media=False, transport=gives_up):
                pass
        assert type(caught.value) is TimeoutError

    kit.run(main())


@pytest.mark.parametrize(
    ("said", "options", "waiting_for", "seconds"),
    [
        # The steps have deadlines of their own: 10 s for the welcome, 15 s for each further one.
        (0, {}, "connected.success", 10.0),
        (1, {}, "session.created", 15.0),
        (2, {}, "session.updated", 15.0),
        # The whole has one: here it is the shorter.
        (0, {"timeout": 4.0}, "connected.success", 4.0),
        (1, {"timeout": 4.0}, "session.created", 4.0),
        (2, {"timeout": 4.0}, "session.updated", 4.0),
        (3, {}, "the offer", 30.0),
        (3, {"timeout": 4.0}, "the offer", 4.0),
    ],
)
def test_the_server_falls_silent(
    kit: Any, said: int, options: dict[str, float], waiting_for: str, seconds: float
) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.ready[:said])
        elapsed, caught = await kit.refused(far, ConnectTimeoutError, **options)
        assert elapsed == seconds
        assert caught.waiting_for == waiting_for
        assert caught.seconds == seconds
        assert waiting_for in str(caught)
        assert isinstance(caught, TimeoutError)
        code, reason = await far.end()
        assert code == 1000
        assert waiting_for in reason

    kit.run(main())


@pytest.mark.parametrize(
    ("states", "waiting_for"),
    [
        ([], "ICE"),
        ([MediaState.CHECKING], "ICE"),
        ([MediaState.CHECKING, MediaState.ICE_CONNECTED], "DTLS"),
        ([MediaState.ICE_CONNECTED, MediaState.CONNECTED], "the first media packet"),
    ],
)
def test_media_does_not_come_up(kit: Any, states: list[MediaState], waiting_for: str) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.usable)

        async def report() -> None:
            await kit.settle()
            for state in states:
                kit.engines[0].event(MediaStateChanged(state=state))

        reporting = asyncio.create_task(report())
        elapsed, caught = await kit.refused(far, ConnectTimeoutError, engine=kit.deaf_engine)
        await reporting
        assert elapsed == 30.0
        assert caught.waiting_for == waiting_for
        assert caught.seconds == 30.0

    kit.run(main())


def test_the_handshake_counts_against_the_deadline(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.ready)

        async def slow(endpoint: Endpoint) -> Any:
            await asyncio.sleep(3.0)
            return far.near

        elapsed, caught = await kit.refused(far, ConnectTimeoutError, transport=slow, timeout=5.0)
        assert elapsed == 5.0
        assert caught.waiting_for == "the offer"

    kit.run(main())


def test_a_silent_server_may_delay_the_end_by_the_closing_handshake_only(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()

        async def close(code: int, reason: str) -> None:
            await asyncio.Event().wait()

        far.near.close = close
        elapsed, caught = await kit.refused(far, ConnectTimeoutError, timeout=4.0)
        assert elapsed == 4.0 + 3.0
        assert caught.waiting_for == "connected.success"
        assert await far.end() == (None, "")

    kit.run(main())


def test_the_deadline_ends_with_usable(kit: Any) -> None:
    async def main() -> None:
        async with kit.session(timeout=5.0) as (session, _):
            await asyncio.sleep(3600.0)
            assert session.end is None

    kit.run(main())


# ---- the transport ends early


@pytest.mark.parametrize("said", [0, 1, 2])
@pytest.mark.parametrize("how", ["closed", "lost"])
def test_the_server_goes_before_ready(kit: Any, said: int, how: str) -> None:
    stage = ("welcoming", "opening", "configuring")[said]

    async def main() -> None:
        far = kit.far()
        await far.script(*kit.ready[:said])
        if how == "closed":
            await far.transport.close(1011, "internal error")
        else:
            far.near.lose()
        seen: list[Any] = []
        elapsed, caught = await kit.refused(far, ConnectFailedError, observe=seen.append)
        assert elapsed == 0.0
        assert caught.stage == stage
        assert caught.close_code == (1011 if how == "closed" else None)
        assert ("internal error" in str(caught)) is (how == "closed")
        assert ("connection lost" in str(caught)) is (how == "lost")
        assert seen[-2] == ConnectFailed(
            code=caught.close_code,
            reason="internal error" if how == "closed" else "",
            stage=stage,
        )
        assert isinstance(seen[-1], Closed)

    kit.run(main())


@pytest.mark.parametrize("how", ["closed", "lost"])
def test_the_server_goes_between_ready_and_usable(kit: Any, how: str) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.ready)
        if how == "closed":
            await far.transport.close(1001, "restart")
        else:
            far.near.lose()
        _, caught = await kit.refused(far, ConnectFailedError)
        assert caught.stage == "ready"
        assert caught.close_code == (1001 if how == "closed" else None)

    kit.run(main())


def test_an_oversized_message_while_opening(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        await far.transport.send_text(" " * 2000)
        config = ClientConfig(limits=Limits(server_message=1999))
        _, caught = await kit.refused(far, ProtocolViolatedError, config=config)
        assert isinstance(caught, ConnectFailedError)
        assert "larger than 1999 bytes" in str(caught)
        assert await far.end() == (1009, "message too big")

    kit.run(main())


# ---- media fails


def test_ice_fails(kit: Any) -> None:
    pairs = (
        CandidatePair(local="192.0.2.1:5000", remote="198.51.100.7:6000", state="failed"),
        CandidatePair(local="192.0.2.1:5001", remote="[2001:db8::7]:6000", state="waiting"),
    )

    async def main() -> None:
        far = kit.far()
        await far.script(*kit.usable)

        async def report() -> None:
            await kit.settle()
            kit.engines[0].event(
                MediaStateChanged(state=MediaState.FAILED, reason="ICE failed", pairs=pairs)
            )

        reporting = asyncio.create_task(report())
        elapsed, caught = await kit.refused(far, MediaError, engine=kit.deaf_engine)
        await reporting
        assert elapsed == 0.001
        text = str(caught)
        assert "ICE failed" in text
        assert "192.0.2.1:5000 -> 198.51.100.7:6000 failed" in text
        assert "192.0.2.1:5001 -> [2001:db8::7]:6000 waiting" in text
        assert await far.end() == (1000, "")

    kit.run(main())


def test_ice_fails_without_a_pair(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.usable)

        async def report() -> None:
            await kit.settle()
            kit.engines[0].event(MediaStateChanged(state=MediaState.FAILED, reason="no route"))

        reporting = asyncio.create_task(report())
        _, caught = await kit.refused(far, MediaError, engine=kit.deaf_engine)
        await reporting
        assert "candidate pairs tried: none" in str(caught)

    kit.run(main())


def test_media_before_the_session(kit: Any) -> None:
    """protocol.md 3.1 rule 3: the offer comes at any time after success."""

    async def main() -> None:
        far = kit.far()
        await far.script(kit.welcome, kit.offered)

        async def later() -> None:
            await kit.settle()
            assert kit.engines[0].strict.remote is not None
            await far.script(kit.created, kit.updated)

        task = asyncio.create_task(later())
        async with kit.connect(far) as session:
            started = [e async for e in some(session) if isinstance(e, MediaStarted)]
            assert [e.kind for e in started] == [MediaKind.VIDEO, MediaKind.AUDIO]
        await task

    async def some(session: Any) -> Any:
        async for event in session.events():
            yield event
            if type(event).__name__ == "Usable":
                return

    kit.run(main())


# ---- what cannot be opened at all


def test_what_the_opener_raises_leaves_bare(kit: Any) -> None:
    error = ConnectFailedError("no route", stage="open")

    async def main() -> None:
        async def opener(endpoint: Endpoint) -> Any:
            raise error

        with pytest.raises(ConnectFailedError) as caught:
            async with connect(kit.endpoint, media=False, transport=opener):
                pass
        assert caught.value is error
        assert caught.value.retryable is True

    kit.run(main())


def test_a_configuration_that_cannot_be_sent(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        limits = Limits(client_message=100)
        await kit.refused(
            far, LocalProtocolError, prompt="x" * 200, config=ClientConfig(limits=limits)
        )
        assert await far.end() == (None, "")

    kit.run(main())


def test_an_engine_that_cannot_be_made(kit: Any) -> None:
    def broken(callbacks: Any) -> Any:
        raise RuntimeError("no codec")

    async def main() -> None:
        far = kit.far()
        await kit.refused(far, RuntimeError, engine=broken)
        with pytest.raises(TransportClosedError):
            await far.near.receive()

    kit.run(main())
