"""A usable session, from both ends: what it tells, sends and counts, and how it ends."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from navtalk_asyncio.media.interface import EngineCallbacks
from navtalk_proto import (
    ClientConfig,
    Limits,
    LocalProtocolError,
    MediaError,
    ServerConfig,
    SessionClosedError,
    State,
)
from navtalk_proto.events import (
    BinaryIgnored,
    CloseCause,
    Closed,
    Connected,
    MessageReceived,
    Negotiated,
    PeerClosing,
    ProtocolViolation,
    Ready,
    UnknownMessage,
    Usable,
)
from navtalk_proto.intents import SayText
from navtalk_proto.media import (
    Direction,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    TrackAdded,
)
from navtalk_proto.pump import OUTGOING_HIGH_WATER
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    TranscriptDelta,
    UserMessage,
)

CAMERA = MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY)
VIDEO = MediaLine(kind=MediaKind.VIDEO)
AUDIO = MediaLine(kind=MediaKind.AUDIO)


def names(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


# ---- normal sessions


def test_client_without_media(kit: Any) -> None:
    async def main() -> None:
        far = kit.far()
        await far.script(*kit.ready)
        seen: list[Any] = []
        async with kit.connect(far, media=False, voice="cedar", observe=seen.append) as session:
            assert session.id == "session-abc123"
            assert session.state.value == "ready"
            meanwhile = session.end
            assert meanwhile is None
            await session.send_text("What time is breakfast?")
            assert await far.hear_type("response.create") == {"type": "response.create"}
            await far.say("realtime.response.audio_transcript.delta", {"id": "r", "content": "At "})
            await far.say("realtime.input_audio_buffer.speech_started")
            await far.say("unknow", raw_data={"type": "response.content_part.added"})
            far.transport.send_binary(b"12345")
            await far.say("realtime.strange", {})
            await far.transport.send_text("{")
            await kit.settle()
        assert far.heard() == [
            "realtime.input_config",
            "conversation.item.create",
            "response.create",
        ]
        assert await far.end() == (1000, "")
        events = [event async for event in session.events()]
        assert events == seen
        assert names(events) == [
            "Connected",
            "Ready",
            "Usable",
            "UserTurn",
            "MessageReceived",
            "ResponseStarted",
            "ResponseText",
            "MessageReceived",
            "UserSpeaking",
            "ResponseInterrupted",
            "MessageReceived",
            "BinaryIgnored",
            "UnknownMessage",
            "ProtocolViolation",
            "Closed",
        ]
        connected = events[0]
        assert isinstance(connected, Connected)
        assert [server.urls for server in connected.ice_servers] == [
            ("stun:stun.example.org:3478",),
            ("turn:turn.example.org:3478",),
        ]
        assert events[4] == MessageReceived(message=TranscriptDelta(response_id="r", content="At "))
        assert events[7] == MessageReceived(message=SpeechStarted())
        assert events[11] == BinaryIgnored(size=5)
        assert isinstance(events[12], UnknownMessage)
        assert events[12].type == "realtime.strange"
        assert isinstance(events[13], ProtocolViolation)
        assert not events[13].fatal
        closed = Closed(cause=CloseCause.LOCAL, code=1000, reason="")
        assert events[14] == session.end == closed
        assert session.state.value == "closed"
        counters = session.counters
        assert (counters.received, counters.sent, counters.binary) == (8, 3, 1)
        assert (counters.unknown, counters.violations, counters.ignored) == (1, 1, 0)
        assert session.events_dropped == 0

    kit.run(main())


def test_client_with_media(kit: Any) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (session, far):
            assert far.heard() == ["webrtc.signaling.answer"]
            assert session.engine is kit.engines[0]
            answer = await far.hear()
            assert answer["data"]["sdp"]["type"] == "answer"
            assert answer["data"]["sdp"]["sdp"].count("a=recvonly\r\n") == 2
            assert session.track_counters() == {}
        servers = session.engine.strict.ice_servers
        assert [server.urls for server in servers] == [
            ("stun:stun.example.org:3478",),
            ("turn:turn.example.org:3478",),
        ]
        events = [event async for event in session.events()]
        assert names(events) == [
            "Connected",
            "Ready",
            "TrackAdded",
            "TrackAdded",
            "Negotiated",
            "MediaStateChanged",
            "MediaStateChanged",
            "MediaStateChanged",
            "MediaStarted",
            "Usable",
            "MediaStarted",
            "Closed",
        ]
        assert [event.kind for event in events if isinstance(event, TrackAdded)] == [
            MediaKind.VIDEO,
            MediaKind.AUDIO,
        ]
        assert [event.state for event in events if isinstance(event, MediaStateChanged)] == [
            MediaState.CHECKING,
            MediaState.ICE_CONNECTED,
            MediaState.CONNECTED,
        ]
        assert [event for event in events if isinstance(event, Negotiated)] == [
            Negotiated(offered_by_us=False)
        ]

    kit.run(main())


@pytest.mark.parametrize("media", [False, True])
def test_server(kit: Any, media: bool) -> None:
    async def main() -> None:
        seen: list[Any] = []
        server_sessions: list[Any] = []

        async def be_human(session: Any) -> None:
            server_sessions.append(session)
            assert session.request.license.reveal() == kit.license
            assert session.request.name == "navtalk.Leo"
            assert session.state is State.WELCOMING
            await session.send(ConnectedSuccess(session_id="s-1"))
            await session.send(SessionCreated())
            await session.send(SessionUpdated())
            if media:
                await session.negotiate(
                    CAMERA, MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDONLY)
                )
                assert session.engine.strict.ufrag == "n1"
            async for event in session.events():
                seen.append(event)
                if isinstance(event, MessageReceived) and isinstance(event.message, ResponseCreate):
                    await session.send(TranscriptDelta(response_id="r1", content="Seven."))

        far = kit.far()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kit.serve(be_human, far, media=media))
            async with kit.connect(far, media=media) as client:
                assert client.id == "s-1"
                await client.send_text("When?")
                async for event in client.events():
                    if isinstance(event, MessageReceived):
                        assert event.message == TranscriptDelta(response_id="r1", content="Seven.")
                        break
        expected: list[Any] = [Ready(), Usable()]
        if media:
            expected[1:] = [
                Negotiated(
                    offered_by_us=True,
                    media=(
                        CAMERA,
                        MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDONLY),
                    ),
                ),
                MediaStateChanged(state=MediaState.CHECKING),
                MediaStateChanged(state=MediaState.ICE_CONNECTED),
                MediaStateChanged(state=MediaState.CONNECTED),
                Usable(),
            ]
        expected += [
            MessageReceived(message=UserMessage(texts=("When?",))),
            MessageReceived(message=ResponseCreate()),
            Closed(cause=CloseCause.REMOTE, code=1000, reason=""),
        ]
        assert seen == expected
        assert server_sessions[0].end == expected[-1]
        sent = 5 if media else 4
        assert server_sessions[0].counters.sent == sent
        assert client.counters.received == sent
        assert client.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="")

    kit.run(main())


def test_server_closes_when_its_handler_returns(kit: Any) -> None:
    async def main() -> None:
        async def brief(session: Any) -> None:
            for message in (ConnectedSuccess(session_id="s"), SessionCreated(), SessionUpdated()):
                await session.send(message)

        far = kit.far()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kit.serve(brief, far))
            async with kit.connect(far, media=False) as client:
                events = [event async for event in client.events()]
        assert events[-1] == Closed(cause=CloseCause.REMOTE, code=1000, reason="")

    kit.run(main())


def test_goodbye_of_the_server(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            await far.say("conversation.connected.close", message="Session timeout")
            events = [event async for event in session.events()]
            assert events[-2:] == [
                PeerClosing(text="Session timeout"),
                Closed(cause=CloseCause.REMOTE, code=1000, reason=""),
            ]

    kit.run(main())


# ---- sending


def test_audio_is_cut_as_stock_clients_cut_it(kit: Any) -> None:
    pcm = bytes(range(256)) * 16  # 4096 bytes: one message of 3072 bytes, one of 1024 (5.12)

    async def main() -> None:
        async with kit.session() as (session, far):
            await session.send_audio(pcm)
            pieces = []
            for _ in range(2):
                message = await far.hear()
                assert message["type"] == "realtime.input_audio_buffer.append"
                pieces.append(base64.b64decode(message["data"]["audio"], validate=True))
            assert [len(piece) for piece in pieces] == [3072, 1024]
            assert b"".join(pieces) == pcm
            with pytest.raises(LocalProtocolError, match="even number"):
                await session.send_audio(b"odd")
            await session.send_text("no answer wanted", respond=False)
            assert (await far.hear())["item"]["content"] == [
                {"type": "input_text", "text": "no answer wanted"}
            ]
        assert far.heard()[2:] == ["conversation.item.create"]

    kit.run(main())


def test_a_refused_intent_changes_nothing(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            with pytest.raises(LocalProtocolError, match="client does not send"):
                await session.send(SessionUpdated())
            with pytest.raises(LocalProtocolError, match="without media"):
                await session.negotiate(VIDEO)
            for property_name in ("engine", "video", "audio"):
                with pytest.raises(LocalProtocolError, match="without media"):
                    getattr(session, property_name)
            with pytest.raises(LocalProtocolError, match="close code"):
                await session.close(code=1006)
            assert session.state is State.READY
            assert session.counters.sent == 0
            await session.send_text("still here", respond=False)
        assert far.heard() == ["conversation.item.create"]

    kit.run(main())


def test_a_stalled_socket_makes_senders_wait(kit: Any) -> None:
    second = bytes(48_000)  # One second of audio: 64,000 characters of base64, and its JSON.

    async def main() -> None:
        async with kit.session() as (session, far):
            far.near.stalled = True
            sent = 0

            async def speak() -> None:
                nonlocal sent
                for _ in range(20):
                    await session.send_audio(second)
                    sent += 1

            speaking = asyncio.create_task(speak())
            await kit.settle()
            assert sent == 5  # Four are below 256 KiB; the fifth is above, and the sixth waits.
            assert not far.near.sent
            far.near.stalled = False
            await speaking
        texts = far.near.sent
        assert sum(map(len, texts)) > 20 * 64_000
        assert OUTGOING_HIGH_WATER == 256 * 1024

    kit.run(main())


def test_a_waiting_sender_learns_of_the_end(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            far.near.stalled = True
            for _ in range(5):
                await session.send_audio(bytes(48_000))
            waiting = [
                asyncio.create_task(session.send_audio(bytes(2))),
                asyncio.create_task(session.send_text("and then?")),
                asyncio.create_task(session.send(SayText(text="hm"))),
            ]
            await kit.settle()
            assert not any(task.done() for task in waiting)
            far.near.lose()
            for task in waiting:
                with pytest.raises(SessionClosedError):
                    await task
            assert session.end == Closed(cause=CloseCause.REMOTE, code=None, reason="")

    kit.run(main())


@pytest.mark.parametrize("media", [False, True])
def test_nothing_hangs_after_the_end(kit: Any, media: bool) -> None:
    methods: list[Callable[[Any], Coroutine[Any, Any, Any]]] = [
        lambda session: session.send(SayText(text="x")),
        lambda session: session.send_text("x"),
        lambda session: session.send_audio(b"\0\0"),
        lambda session: session.negotiate(VIDEO),
    ]

    async def main() -> None:
        async with kit.session(media=media) as (session, far):
            await far.transport.close(1001, "bye")
            events = [event async for event in session.events()]
            assert events[-1] == Closed(cause=CloseCause.REMOTE, code=1001, reason="bye")
            for method in methods:
                with pytest.raises(SessionClosedError):
                    await method(session)
            await session.close()
            assert [event async for event in session.events()] == []
            if media:
                assert [frame async for frame in session.video] == []
                assert [frame async for frame in session.audio] == []
        for method in methods:
            with pytest.raises(SessionClosedError):
                await method(session)
        await session.close()
        assert session.id == "session-abc123"

    assert kit.run(kit.elapsed(main()))[0] == 0.0


# ---- the end


def test_leaving_with_unread_events_and_frames(kit: Any) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (_session, far):
            for number in range(500):
                await far.say(
                    "realtime.response.audio_transcript.delta", {"id": "r", "content": str(number)}
                )
            await kit.settle()
        assert await far.end() == (1000, "")

    elapsed, _ = kit.run(kit.elapsed(main()))
    assert elapsed == 0.001  # The settling.


def test_leaving_while_a_slow_reader_holds_up_receiving(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            reader = session.events()
            await anext(reader)
            for number in range(3000):
                await far.say(
                    "realtime.response.audio_transcript.delta", {"id": "r", "content": str(number)}
                )
            await kit.settle()
            assert session.counters.received < 3000
        assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="")
        rest = [event async for event in reader]
        assert rest[-1] == session.end
        assert len([e for e in rest if isinstance(e, MessageReceived)]) < 1100
        counters = session.counters
        assert counters.ignored > 1900
        assert counters.received == 3003

    assert kit.run(kit.elapsed(main()))[0] == 0.001


def mute(far: Any) -> None:
    """Make the near end's close frame go unanswered."""

    async def close(code: int, reason: str) -> None:
        await asyncio.Event().wait()

    far.near.close = close


@pytest.mark.parametrize("close_timeout", [3.0, 0.5])
def test_a_server_that_never_answers_the_close(kit: Any, close_timeout: float) -> None:
    async def main() -> Any:
        config = ClientConfig(close_timeout=close_timeout)
        async with kit.session(config=config) as (session, far):
            mute(far)
        assert session.end == Closed(cause=CloseCause.LOCAL, code=1000, reason="", forced=True)
        assert await far.end() == (None, "")

    assert kit.run(kit.elapsed(main()))[0] == close_timeout


def test_a_socket_that_is_stuck_does_not_hold_up_the_end(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            far.near.stalled = True
            await session.send_text("this never leaves")
        assert session.end is not None
        assert session.end.forced
        assert far.heard() == []

    assert kit.run(kit.elapsed(main()))[0] == 3.0


def test_a_close_of_our_own_with_code_and_reason(kit: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            await session.close(4000, "enough")
            assert session.end == Closed(cause=CloseCause.LOCAL, code=4000, reason="enough")
            await session.close()
            assert await far.end() == (4000, "enough")

    assert kit.run(kit.elapsed(main()))[0] == 0.0


def test_too_many_mistakes_of_the_server_end_the_session(kit: Any) -> None:
    async def main() -> None:
        config = ClientConfig(limits=Limits(violations=3))
        async with kit.session(config=config) as (session, far):
            for _ in range(4):
                await far.transport.send_text("[]")
            events = [event async for event in session.events()]
            assert [e.fatal for e in events if isinstance(e, ProtocolViolation)] == [
                False,
                False,
                False,
                True,
            ]
            assert events[-1].cause is CloseCause.VIOLATION
            assert await far.end() == (1002, "protocol violation")

    kit.run(main())


def test_an_idle_server_session_ends(kit: Any) -> None:
    async def main() -> None:
        async def listen(session: Any) -> None:
            async for event in session.events():
                last = event
            assert isinstance(last, Closed)
            assert last.cause is CloseCause.TIMEOUT

        far = kit.far()
        kit.transports.remove(far.near)  # Nobody plays the client.
        config = ServerConfig(media=(), idle_timeout=60.0)
        await kit.serve(listen, far, config=config)

    assert kit.run(kit.elapsed(main()))[0] == 60.0


# ---- renegotiation (seed step 5)


async def answer_to(far: Any, kit: Any) -> dict[str, Any]:
    """Wait for an offer of the client; the answer to it."""
    await far.hear_type("webrtc.signaling.offer")
    sdp = kit.offer.replace("a=setup:actpass", "a=setup:active")
    return {"sdp": {"type": "answer", "sdp": sdp}}


def test_negotiate_completes(kit: Any) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (session, far):
            wish = asyncio.create_task(session.negotiate(VIDEO, AUDIO))
            answer = await answer_to(far, kit)
            assert not wish.done()
            await far.say("webrtc.signaling.answer", answer)
            await wish
        negotiated = [e async for e in session.events() if isinstance(e, Negotiated)]
        assert negotiated[1:] == [Negotiated(offered_by_us=True, media=(VIDEO, AUDIO))]

    assert kit.run(kit.elapsed(main()))[0] == 0.0


def test_negotiate_without_an_answer(kit: Any) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (session, _far):
            elapsed, _ = await kit.elapsed(fail(session))
            assert elapsed == 10.0
            assert session.state is State.READY

    async def fail(session: Any) -> None:
        with pytest.raises(MediaError, match="negotiation failed: no answer within 10 s"):
            await session.negotiate(VIDEO)

    kit.run(main())


def test_wishes_coalesce_and_all_end(kit: Any) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (session, far):
            first = asyncio.create_task(session.negotiate(VIDEO))
            await kit.settle()
            second = asyncio.create_task(session.negotiate(AUDIO))
            third = asyncio.create_task(session.negotiate(VIDEO, AUDIO))
            await kit.settle()
            await far.say("webrtc.signaling.answer", await answer_to(far, kit))
            await kit.settle()
            assert first.done()
            assert not second.done()
            assert not third.done()
            await far.say("webrtc.signaling.answer", await answer_to(far, kit))
            await asyncio.gather(first, second, third)
        assert far.heard().count("webrtc.signaling.offer") == 2

    kit.run(main())


@pytest.mark.parametrize("how", ["close", "lost", "closed by the server"])
def test_the_session_ends_while_negotiating(kit: Any, how: str) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (session, far):
            wish = asyncio.create_task(session.negotiate(VIDEO))
            await kit.settle()
            if how == "close":
                await session.close()
            elif how == "lost":
                far.near.lose()
            else:
                await far.transport.close(1000, "")
            with pytest.raises(SessionClosedError, match="the session ended"):
                await wish

    kit.run(main())


def test_a_wish_may_be_cancelled(kit: Any) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (session, far):
            wish = asyncio.create_task(session.negotiate(VIDEO))
            await kit.settle()
            wish.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wish
            # The offer is out already: its end is told as an event, and nobody is left waiting.
            await far.say("webrtc.signaling.answer", await answer_to(far, kit))
            async for event in session.events():
                if event == Negotiated(offered_by_us=True, media=(VIDEO,)):
                    break
            assert not session._wishes

    kit.run(main())


def test_an_engine_that_fails_a_description(kit: Any) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (session, _far):
            engine = kit.engines[0]
            engine.held = True
            wish = asyncio.create_task(session.negotiate(VIDEO))
            await kit.settle()
            engine.fail("no encoder")
            engine.release()
            with pytest.raises(MediaError, match="negotiation failed: no encoder"):
                await wish
            assert session.state is State.READY

    kit.run(main())


def test_say_file_paces_in_real_time(kit: Any, tmp_path: Any) -> None:
    import wave

    path = tmp_path / "question.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(b"\x01\x00" * 4800)  # 0.2 s

    async def main() -> None:
        async with kit.session() as (session, far):
            elapsed, length = await kit.elapsed(session.say_file(path, trailing_silence=0.128))
            assert length == 0.2
            # Four pieces of 64 ms (the last one of 8 ms), then two of silence; each leaves on time.
            assert 0.2 + 0.064 <= elapsed < 5.0
        pcm = b"".join(
            base64.b64decode(message["data"]["audio"]) for message in await messages(far)
        )
        assert pcm == b"\x01\x00" * 4800 + bytes(2 * 3072)

    async def messages(far: Any) -> list[dict[str, Any]]:
        return [await far.hear() for _ in far.near.sent]

    kit.run(main(), real=True)


@pytest.mark.parametrize("silence", [-0.001, float("nan"), float("inf"), float("-inf")])
def test_say_file_with_a_silence_that_is_no_time(kit: Any, tmp_path: Any, silence: float) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            # A file that is not there: the silence is looked at first.
            with pytest.raises(ValueError, match="trailing_silence is a number of seconds"):
                await session.say_file(tmp_path / "missing.wav", trailing_silence=silence)
            assert far.near.sent == []

    kit.run(main())


def test_say_file_without_silence_and_without_a_file(kit: Any, tmp_path: Any) -> None:
    async def main() -> None:
        async with kit.session() as (session, far):
            with pytest.raises(FileNotFoundError):
                await session.say_file(tmp_path / "missing.wav", trailing_silence=0)
            assert far.near.sent == []

    kit.run(main(), real=True)


def test_recording_after_the_end(kit: Any, tmp_path: Any) -> None:
    async def main() -> None:
        async with kit.session(media=True) as (session, _far):
            await session.close()
            with pytest.raises(SessionClosedError, match="the session is over"):
                session.record(tmp_path / "call.mkv")
        with pytest.raises(SessionClosedError, match="the session is over"):
            session.record(tmp_path / "call.mkv")
        assert list(tmp_path.iterdir()) == []

    kit.run(main())


def test_the_engine_is_told_what_the_core_asks(kit: Any) -> None:
    made: list[Any] = []

    def factory(callbacks: EngineCallbacks) -> Any:
        made.append(kit.engine(callbacks))
        return made[-1]

    async def main() -> None:
        async with kit.session(media=True, engine=factory) as (session, _far):
            assert names(made[0].strict.history) == ["OpenPeer", "SetRemote", "SetLocal"]
            assert session.engine is made[0]
        assert names(made[0].strict.history) == ["OpenPeer", "SetRemote", "SetLocal", "ClosePeer"]
        assert [e.kind async for e in session.events() if isinstance(e, MediaStarted)] == [
            MediaKind.VIDEO,
            MediaKind.AUDIO,
        ]

    kit.run(main())
    assert len(made) == 1
