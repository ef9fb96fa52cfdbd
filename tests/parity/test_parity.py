"""What asyncio does, trio does: every scenario gives the same trace on both loops.

A trace holds each action that a driver carried out, with its virtual time, the events that the
application read, the exception that left connect(), and how the far end saw it end. Each scenario
also says by hand what must be in it: two traces that are empty do not agree by accident.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from navtalk_proto import ClientConfig, Limits, LocalProtocolError, MediaError, SessionClosedError
from navtalk_proto.events import MessageReceived
from navtalk_proto.media import (
    Direction,
    LocalCandidate,
    MediaKind,
    MediaLine,
    MediaStarted,
    MediaState,
    MediaStateChanged,
    NegotiationNeeded,
)
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.messages import (
    Answer,
    BackendError,
    ConnectedClose,
    ConnectedFail,
    ConnectedSuccess,
    ConnectedWarning,
    ConnectionLimitExceeded,
    GpuFull,
    IceCandidate,
    InsufficientBalance,
    Offer,
    ServerStatus,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
    TranscriptDelta,
    UserMessage,
)

VIDEO = MediaLine(kind=MediaKind.VIDEO)
AUDIO = MediaLine(kind=MediaKind.AUDIO)
CAMERA = MediaLine(kind=MediaKind.VIDEO, direction=Direction.SENDONLY)
MICROPHONE = MediaLine(kind=MediaKind.AUDIO, direction=Direction.SENDONLY)

SUCCESS = ConnectedSuccess(session_id="s-1")
CREATED = SessionCreated()
UPDATED = SessionUpdated()
READY = (SUCCESS, CREATED, UPDATED)

STAGES: dict[str, tuple[Any, ...]] = {
    "welcoming": (),
    "opening": (SUCCESS,),
    "configuring": (SUCCESS, CREATED),
}
"""What has been said when a session is in this state."""

UNTIL_READY = {
    "welcoming": "",
    "opening": "Connected ",
    "configuring": "Connected ",
}
"""The events that have been told then."""

MEDIA_EVENTS = (
    "TrackAdded TrackAdded Negotiated MediaStateChanged MediaStateChanged MediaStateChanged "
    "MediaStarted"
)
"""Of an offer of video and voice that is answered, on an engine that connects at once."""

USABLE = f"Connected {MEDIA_EVENTS} MediaStarted Ready Usable"
"""Where the offer comes before the session events: both tracks started before it was usable."""

Far = Callable[[Any], Awaitable[None]]


def saying(*messages: Any) -> Far:
    """A far end that says this and nothing else."""

    async def far(stage: Any) -> None:
        await stage.say(*messages)

    return far


async def usable(stage: Any) -> None:
    """The far end of a session with media, up to where it can be used."""
    await stage.say(SUCCESS, stage.peer.offer(), CREATED, UPDATED)
    stage.peer.take(await stage.peer.hear(Answer))


async def nothing(session: Any, stage: Any) -> None:
    """Leave at once."""


async def wait(session: Any, stage: Any) -> None:
    """Stay until the session is over or somebody cancels."""
    await anyio.sleep_forever()


def candidate(ufrag: str | None, port: int = 5000) -> IceCandidate:
    text = f"candidate:1 1 udp 2130706431 192.0.2.1 {port} typ host"
    return IceCandidate(candidate=text, sdp_mid="0", username_fragment=ufrag)


# ---- normal sessions


def test_without_media(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        await stage.idle(2)
        await stage.say(TranscriptDelta(response_id="r", content="Seven."))

    async def body(session: Any, stage: Any) -> None:
        assert session.id == "s-1"
        await session.send_text("When is breakfast?")
        async for event in session.events():
            stage.read(event)
            if isinstance(event, MessageReceived):
                break

    trace = parity(
        far,
        body,
        media=False,
        voice="cedar",
        prompt="Be brief.",
        tools=({"type": "function", "name": "clock"},),
        history=(UserMessage(texts=("Hello.",)),),
    )
    assert trace.said == [
        "realtime.input_config",
        "realtime.input_function_call",
        "conversation.item.create",
        "conversation.item.create",
        "response.create",
    ]
    assert trace.events == (
        "Connected Ready Usable UserTurn MessageReceived ResponseStarted ResponseText "
        "ResponseFailed Closed"
    )
    assert trace.read == "Connected Ready Usable UserTurn MessageReceived"
    assert trace.commands == ""
    assert trace.end == ("1000", "")
    # Four messages of a millisecond each, and two seconds between.
    assert trace.at("event", "MessageReceived") == [2.003]


@pytest.mark.parametrize("offer_at", [0, 1, 2, 3])
def test_an_offer_before_between_and_after_the_session_events(parity: Any, offer_at: int) -> None:
    async def far(stage: Any) -> None:
        said = [*READY]
        said.insert(offer_at, stage.peer.offer())
        await stage.say(*said)

    trace = parity(far, nothing)
    assert trace.said == ["webrtc.signaling.answer"]
    told = ["Connected", "Ready Usable"]
    if offer_at == 0:
        told.insert(0, f"OutOfOrder {MEDIA_EVENTS} MediaStarted")
    elif offer_at < 3:
        told.insert(1, f"{MEDIA_EVENTS} MediaStarted")
    else:
        told = ["Connected", "Ready", MEDIA_EVENTS, "Usable", "MediaStarted"]
    assert trace.events == " ".join([*told, "Closed"])
    assert trace.commands == "OpenPeer SetRemote SetLocal ClosePeer"
    assert trace.end == ("1000", "")


def test_candidates_before_with_and_after_the_offer(parity: Any) -> None:
    async def far(stage: Any) -> None:
        offer = stage.peer.offer()
        await stage.say(SUCCESS, candidate("s1", 1), candidate(None, 2), candidate("gone", 3))
        (engine,) = stage.engines
        engine.held = True
        # These come while the offer is being applied.
        await stage.say(offer, candidate("s1", 4), candidate("s1", 5))
        engine.release()
        await stage.idle()
        await stage.say(candidate("s1", 6), IceCandidate(candidate=""), CREATED, UPDATED)

    trace = parity(far, nothing)
    ports = [
        step.text.partition("192.0.2.1 ")[2].partition(" ")[0]
        for step in trace.steps
        if step.name == "AddCandidate"
    ]
    assert ports == ["1", "2", "4", "5", "6", ""]
    assert trace.names("event").count("CandidateIgnored") == 1
    assert trace.events.endswith("Ready Usable Closed")


def test_candidates_of_ours_follow_the_answer(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(SUCCESS, stage.peer.offer())
        (engine,) = stage.engines
        for port in (7, 8):
            engine.event(LocalCandidate(candidate=candidate("n01", port)))
        await stage.say(CREATED, UPDATED)

    trace = parity(far, nothing)
    assert trace.said == [
        "webrtc.signaling.answer",
        "webrtc.signaling.iceCandidate",
        "webrtc.signaling.iceCandidate",
    ]


def test_media_turned_off(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, stage.peer.offer(), candidate("s1"))

    trace = parity(far, media=False, config=ClientConfig(idle_timeout=5.0))
    assert trace.events == "Connected Ready Usable OfferIgnored CandidateIgnored TimedOut Closed"
    assert trace.commands == ""
    # Five seconds after the last message.
    assert trace.at("event", "TimedOut") == [5.004]


def test_warnings_and_late_announcements(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(
            ConnectedWarning(message="two of that name", avatar_id="a1"),
            UPDATED,
            SUCCESS,
            CREATED,
            UPDATED,
        )
        await stage.close(1000, "enough")

    trace = parity(far, media=False)
    assert trace.events == (
        "OutOfOrder ServerWarning OutOfOrder Ready Usable OutOfOrder Connected OutOfOrder "
        "ConfigUpdated Closed"
    )
    assert trace.end == ("1000", "enough")


def test_a_body_that_sends_everything_at_once(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        for number in range(20):
            await session.send_text(str(number), respond=False)
        await session.send_audio(bytes(48_000))
        with pytest.raises(LocalProtocolError):
            await session.send_audio(b"\0")
        await session.close(3001, "done")
        with pytest.raises(SessionClosedError):
            await session.send_text("too late")

    trace = parity(saying(*READY), body, media=False)
    assert trace.said[:20] == ["conversation.item.create"] * 20
    assert set(trace.said[20:]) == {"realtime.input_audio_buffer.append"}
    assert trace.end == ("3001", "done")


# ---- negotiation in a running session


def test_the_server_offers_again(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await usable(stage)
        await stage.say(stage.peer.offer_again(CAMERA, MICROPHONE, CAMERA))
        stage.peer.take(await stage.peer.hear(Answer))
        await stage.close()

    trace = parity(far)
    assert trace.events == f"{USABLE} TrackAdded Negotiated Closed"
    assert trace.read == trace.events
    assert trace.commands == "OpenPeer SetRemote SetLocal SetRemote SetLocal ClosePeer"


def test_the_server_rebuilds_its_peer(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await usable(stage)
        await stage.say(stage.peer.offer())
        await stage.close()

    trace = parity(far)
    assert trace.commands == ("OpenPeer SetRemote SetLocal ResetPeer SetRemote SetLocal ClosePeer")
    assert trace.events == f"{USABLE} {MEDIA_EVENTS} MediaStarted Closed"


def test_the_client_offers(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await usable(stage)
        offer = await stage.peer.hear(Offer)
        await stage.idle(1)
        await stage.say(stage.peer.answer(offer))

    async def body(session: Any, stage: Any) -> None:
        await session.negotiate(VIDEO, AUDIO)
        stage.note("negotiated")

    trace = parity(far, body)
    assert trace.notes == ["usable", "negotiated", "left"]
    assert trace.events == f"{USABLE} Negotiated Closed"
    assert trace.commands == (
        "OpenPeer SetRemote SetLocal CreateOffer SetLocal SetRemote ClosePeer"
    )


def test_the_engine_wants_to_negotiate(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await usable(stage)
        stage.engines[0].event(NegotiationNeeded(media=(VIDEO, AUDIO)))
        await stage.say(stage.peer.answer(await stage.peer.hear(Offer)))
        await stage.close()

    trace = parity(far)
    assert trace.events == f"{USABLE} Negotiated Closed"


def test_an_offer_that_nobody_answers(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        with pytest.raises(MediaError) as caught:
            await session.negotiate(VIDEO, AUDIO)
        stage.note(str(caught.value))

    trace = parity(usable, body)
    assert trace.events == f"{USABLE} NegotiationFailed Closed"
    assert trace.notes[1].startswith("negotiation failed: ")
    # ClientConfig.answer_timeout after the offer left.
    (offered,) = trace.at("send", "webrtc.signaling.offer")
    assert trace.at("event", "NegotiationFailed") == [round(offered + 10.0, 6)]


def test_glare(parity: Any) -> None:
    """The client is polite: its own offer gives way, and is made again after the server's."""

    async def far(stage: Any) -> None:
        await usable(stage)
        await stage.peer.hear(Offer)
        again = stage.peer.offer_again()
        await stage.say(again)
        stage.peer.take(await stage.peer.hear(Answer))
        await stage.say(stage.peer.answer(await stage.peer.hear(Offer)))

    async def body(session: Any, stage: Any) -> None:
        await session.negotiate(VIDEO, AUDIO)
        stage.note("negotiated")

    trace = parity(far, body)
    assert trace.said == [
        "webrtc.signaling.answer",
        "webrtc.signaling.offer",
        "webrtc.signaling.answer",
        "webrtc.signaling.offer",
    ]
    assert trace.events == f"{USABLE} Negotiated Negotiated Closed"
    assert trace.notes == ["usable", "negotiated", "left"]


def test_two_wishes_beside_each_other(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await usable(stage)
        for _ in range(2):
            offer = await stage.peer.hear(Offer)
            await stage.idle(1)
            await stage.say(stage.peer.answer(offer))

    async def body(session: Any, stage: Any) -> None:
        async def wish(after: float, *media: MediaLine) -> None:
            await stage.idle(after)
            await session.negotiate(*media)
            stage.note(f"granted {len(media)}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wish, 0.1, VIDEO, AUDIO)
            tasks.start_soon(wish, 0.2, VIDEO, AUDIO, VIDEO)

    trace = parity(far, body)
    assert trace.notes == ["usable", "granted 2", "granted 3", "left"]
    assert trace.said.count("webrtc.signaling.offer") == 2


def test_a_command_that_fails(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(SUCCESS)
        (engine,) = stage.engines
        engine.held = True
        await stage.say(stage.peer.offer())
        engine.fail("no sockets")
        await stage.idle()
        engine.release()
        await stage.say(stage.peer.offer(), CREATED, UPDATED)

    trace = parity(far, nothing)
    assert trace.commands == "OpenPeer OpenPeer SetRemote SetLocal ClosePeer"
    assert trace.names("event")[:2] == ["Connected", "NegotiationFailed"]
    assert trace.events.endswith("Ready Usable Closed")


def test_an_answer_to_nothing_and_one_offer_after_another(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await usable(stage)
        await stage.say(Answer(sdp=stage.peer.offer_again().sdp))
        # The second comes while the first is being applied.
        (engine,) = stage.engines
        engine.held = True
        first, second = stage.peer.offer(), stage.peer.offer()
        await stage.say(first, second)
        engine.release()
        await stage.idle()
        stage.peer.take(await stage.peer.hear(Answer))
        await stage.close()

    trace = parity(far)
    assert "AnswerIgnored" in trace.events
    assert trace.said == ["webrtc.signaling.answer"] * 2


# ---- refusals


REFUSALS: list[tuple[Any, str]] = [
    (ConnectedFail(message="who?"), "ConnectRefusedError"),
    (InsufficientBalance(message="empty"), "InsufficientBalanceError"),
    (ConnectionLimitExceeded(message="one too many"), "ConnectionLimitExceededError"),
    (GpuFull(message="none is free"), "GpuFullError"),
    (BackendError(message="it broke"), "BackendRefusedError"),
]


@pytest.mark.parametrize(("refusal", "error"), REFUSALS)
@pytest.mark.parametrize("state", STAGES)
def test_a_refusal(parity: Any, refusal: Any, error: str, state: str) -> None:
    trace = parity(saying(*STAGES[state], refusal), media=False)
    assert trace.error.name == error
    assert trace.error.text.endswith(f": {refusal.message}")
    assert trace.events == f"{UNTIL_READY[state]}Refused Closed"
    assert trace.names("transport") == ["CloseTransport"]
    assert trace.notes == []
    assert trace.end == ("1000", "")


@pytest.mark.parametrize(("refusal", "error"), REFUSALS)
@pytest.mark.parametrize("who", ["the server closes", "the client does"])
def test_a_refusal_of_a_running_session(parity: Any, refusal: Any, error: str, who: str) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, refusal)
        if who == "the server closes":
            await stage.close(1008, "as I said")

    trace = parity(far, media=False)
    assert trace.read == "Connected Ready Usable Notice Closed"
    assert trace.notes == ["usable", "left"]
    if who == "the server closes":
        assert trace.end == ("1008", "as I said")
        assert trace.names("transport") == []
    else:
        assert trace.end == ("1000", "")
        # ClientConfig.farewell_timeout after the notice.
        assert trace.at("transport", "CloseTransport") == [2.003]


def test_a_refusal_while_media_is_waited_for(parity: Any) -> None:
    trace = parity(saying(*READY, GpuFull(message="gone")))
    assert trace.error.name == "GpuFullError"
    assert trace.events == "Connected Ready Notice Closed"


@pytest.mark.parametrize("state", [*STAGES, "ready"])
def test_a_refusal_in_the_close_reason(parity: Any, state: str) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*STAGES.get(state, READY))
        await stage.close(1008, "Insufficient points")

    trace = parity(far, media=False)
    if state == "ready":
        assert trace.events == "Connected Ready Usable Notice Closed"
    else:
        assert trace.error.name == "InsufficientBalanceError"
        assert trace.events == f"{UNTIL_READY[state]}Refused Closed"


# ---- the server closes, or is gone


@pytest.mark.parametrize("how", ["close", "lose"])
@pytest.mark.parametrize("state", STAGES)
def test_the_end_before_it_is_ready(parity: Any, state: str, how: str) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*STAGES[state])
        if how == "lose":
            await stage.lose()
        else:
            await stage.close(1011, "oh")

    trace = parity(far)
    assert trace.error.name == "ConnectFailedError"
    why = "connection lost" if how == "lose" else "1011 oh"
    assert trace.error.text == (
        f"ConnectFailedError: the session ended before it was ready, in {state}: {why}"
    )
    assert trace.events == f"{UNTIL_READY[state]}ConnectFailed Closed"


@pytest.mark.parametrize("how", ["close", "lose"])
def test_the_end_before_media(parity: Any, how: str) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        await (stage.lose() if how == "lose" else stage.close(1011, "oh"))

    trace = parity(far)
    assert trace.error.name == "ConnectFailedError"
    assert "before it was usable" in trace.error.text
    assert trace.events == "Connected Ready Closed"


@pytest.mark.parametrize("how", ["close", "lose"])
@pytest.mark.parametrize("media", [False, True])
def test_the_end_of_a_running_session(parity: Any, how: str, media: bool) -> None:
    async def far(stage: Any) -> None:
        await (usable(stage) if media else stage.say(*READY))
        await stage.idle(60)
        await (stage.lose() if how == "lose" else stage.close(1001, "bye"))

    trace = parity(far, media=media)
    assert trace.read == f"{USABLE if media else 'Connected Ready Usable'} Closed"
    assert trace.end == (("None", "") if how == "lose" else ("1001", "bye"))
    assert trace.notes == ["usable", "left"]
    assert 60 < trace.at("event", "Closed")[0] < 60.1


@pytest.mark.parametrize("how", ["close", "lose"])
def test_the_end_while_we_are_closing(parity: Any, how: str) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        stage.mute()
        await stage.idle(2)
        await (stage.lose() if how == "lose" else stage.close(1000, "me too"))

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(1)

    trace = parity(far, body, media=False)
    assert trace.names("transport") == ["CloseTransport"]
    (closed,) = trace.at("event", "Closed")
    assert 2 < closed < 2.01
    assert trace.end == (("None", "") if how == "lose" else ("1000", "me too"))


@pytest.mark.parametrize("state", [*STAGES, "ready"])
def test_the_end_is_announced(parity: Any, state: str) -> None:
    trace = parity(
        saying(*STAGES.get(state, READY), ConnectedClose(message="closing time")), media=False
    )
    if state == "ready":
        assert trace.events == "Connected Ready Usable PeerClosing Closed"
    else:
        assert trace.error.name == "ConnectFailedError"
        assert "closing time" in trace.error.text
        assert trace.events == f"{UNTIL_READY[state]}PeerClosing Closed"
    assert trace.end == ("1000", "")


# ---- somebody is slow


def test_an_application_that_reads_slowly(parity: Any) -> None:
    """Above the mark of 1024 the driver receives no more, and goes on after half of them."""

    async def far(stage: Any) -> None:
        await stage.say(*READY)
        for _ in range(1200):
            await stage.peer.say(ServerStatus())
        await stage.idle()
        stage.note(f"{stage.near.waiting} wait")
        await stage.idle(2)
        stage.note(f"{stage.near.waiting} wait")
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        events = session.events()
        stage.read(await anext(events))
        await stage.idle(1)
        async for event in events:
            stage.read(event)

    trace = parity(far, body, media=False)
    # 1203 events in all; one was read, 1025 are held: one more than the mark.
    assert trace.notes == ["usable", "177 wait", "0 wait", "left"]
    assert trace.names("read").count("MessageReceived") == 1200


def test_an_application_that_never_reads(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        for _ in range(1200):
            await stage.peer.say(ServerStatus())
        await stage.idle()
        stage.note(f"{stage.near.waiting} wait")

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(1)
        stage.note(f"{session.events_dropped} dropped")

    trace = parity(far, body, media=False)
    assert trace.notes == ["usable", "0 wait", f"{1203 - 1024} dropped", "left"]


def test_a_socket_that_takes_nothing_for_a_while(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        stage.near.stalled = True
        await stage.idle(5)
        stage.near.stalled = False

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(0.1)
        for number in range(6):
            await session.send_audio(bytes(48_000))
            stage.note(f"sent {number} at {round(stage.loop.time() - stage.start, 1)}")

    trace = parity(far, body, media=False)
    # A second of sound is 64,000 characters of base64 and its JSON: the fourth passes 256 Ki only
    # with the frames around it, so the fifth still goes and the sixth waits.
    assert trace.notes[1:-1] == [
        f"sent {number} at {0.1 if number < 5 else 5.0}" for number in range(6)
    ]


def test_a_socket_that_never_takes_anything_again(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        stage.near.stalled = True

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(0.1)
        async with stage.limit(4) as hit:
            for _ in range(100):
                await session.send_audio(bytes(48_000))
        stage.note(f"cancelled {bool(hit)}")

    trace = parity(far, body, media=False)
    assert trace.notes == ["usable", "cancelled True", "left"]
    # The close waits behind what was sent: it is given up after ClientConfig.close_timeout.
    assert trace.names("transport") == ["CloseTransport", "AbortTransport"]
    assert trace.at("transport", "AbortTransport") == [7.102]
    assert trace.end == ("None", "")


# ---- cancelling


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.5, ""),  # before the welcome
        (1.5, "Connected "),
        (2.5, f"Connected {MEDIA_EVENTS} MediaStarted "),
        (4.5, f"Connected {MEDIA_EVENTS} MediaStarted Ready Usable "),  # in the body
    ],
)
def test_cancelling(parity: Any, seconds: float, told: str) -> None:
    async def far(stage: Any) -> None:
        for message in (SUCCESS, stage.peer.offer(), CREATED, UPDATED):
            await stage.idle(0.999)
            await stage.say(message)

    trace = parity.cancelled(seconds, far, wait)
    assert trace.events == f"{told}Closed"
    assert trace.at("event", "Closed") == [seconds]
    assert trace.end == ("1000", "")


def test_cancelling_a_handshake(parity: Any) -> None:
    async def opening(stage: Any, endpoint: Any) -> Any:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await stage.near.aclose()

    trace = parity.cancelled(3.0, saying(), wait, transport=opening)
    assert trace.events == ""
    assert trace.at("note", "cancelled") == [3.0]


def test_cancelling_an_application_that_reads(parity: Any) -> None:
    trace = parity.cancelled(2.0, saying(*READY), None, media=False)
    assert trace.read == "Connected Ready Usable"
    assert trace.end == ("1000", "")


def test_cancelling_one_read_loses_no_event(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        for _ in range(5):
            await stage.idle(1)
            await stage.say(ServerStatus())
        await stage.close()

    async def body(session: Any, stage: Any) -> None:
        events = session.events()
        reading = True
        while reading:
            async with stage.limit(0.3):
                try:
                    stage.read(await anext(events))
                except StopAsyncIteration:
                    reading = False

    trace = parity(far, body, media=False)
    assert trace.read == "Connected Ready Usable " + "MessageReceived " * 5 + "Closed"


def test_cancelling_a_negotiation(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await usable(stage)
        offer = await stage.peer.hear(Offer)
        await stage.idle(2)
        await stage.say(stage.peer.answer(offer))

    async def body(session: Any, stage: Any) -> None:
        async with stage.limit(1) as hit:
            await session.negotiate(VIDEO, AUDIO)
        stage.note(f"cancelled {bool(hit)}")
        await stage.idle(2)

    trace = parity(far, body)
    assert trace.notes == ["usable", "cancelled True", "left"]
    assert trace.events == f"{USABLE} Negotiated Closed"


# ---- deadlines


@pytest.mark.parametrize(
    ("said", "waiting_for", "after"),
    [
        ((), "connected.success", 10.0),
        ((SUCCESS,), "session.created", 15.0),
        ((SUCCESS, CREATED), "session.updated", 15.001),
    ],
)
def test_a_step_that_does_not_come(
    parity: Any, said: tuple[Any, ...], waiting_for: str, after: float
) -> None:
    trace = parity(saying(*said))
    assert trace.error.name == "ConnectTimeoutError"
    assert trace.error.text.endswith(f"still waiting for {waiting_for}")
    assert trace.error.time == after
    assert trace.end == ("1000", f"timed out waiting for {waiting_for}")


@pytest.mark.parametrize(
    ("progress", "waiting_for"),
    [
        (None, "the offer"),
        ((), "ICE"),
        ((MediaState.CHECKING,), "ICE"),
        ((MediaState.ICE_CONNECTED,), "DTLS"),
        ((MediaState.ICE_CONNECTED, MediaState.CONNECTED), "the first media packet"),
    ],
)
def test_media_that_does_not_come(
    parity: Any, progress: tuple[MediaState, ...] | None, waiting_for: str
) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        if progress is not None:
            await stage.say(stage.peer.offer())
            for state in progress:
                stage.engines[0].event(MediaStateChanged(state=state))

    trace = parity(far, timeout=4.0, strict={"connects": False})
    assert trace.error.name == "ConnectTimeoutError"
    assert trace.error.text == (
        f"ConnectTimeoutError: no usable session within 4 s: still waiting for {waiting_for}"
    )
    assert trace.error.time == 4.0
    assert trace.names("transport") == ["CloseTransport"]


def test_a_handshake_that_does_not_end(parity: Any) -> None:
    async def opening(stage: Any, endpoint: Any) -> Any:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await stage.near.aclose()

    trace = parity(saying(), transport=opening, timeout=7.0)
    assert trace.error.text.endswith("still waiting for the WebSocket handshake")
    assert trace.error.time == 7.0


def test_a_slow_handshake_takes_from_the_same_deadline(parity: Any) -> None:
    async def opening(stage: Any, endpoint: Any) -> Any:
        await anyio.sleep(5)
        return stage.near

    trace = parity(saying(*READY), transport=opening, timeout=7.0)
    assert trace.error.text.endswith("still waiting for the offer")
    assert trace.error.time == 7.0


@pytest.mark.parametrize("seconds", [3.0, 0.5])
def test_a_close_that_is_not_answered(parity: Any, seconds: float) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        stage.mute()

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(1)

    config = ClientConfig(close_timeout=seconds)
    trace = parity(far, body, media=False, config=config)
    assert trace.names("transport") == ["CloseTransport", "AbortTransport"]
    (began,) = trace.at("transport", "CloseTransport")
    assert trace.at("event", "Closed") == [round(began + seconds, 6)]
    assert trace.end == ("None", "")


def test_a_refused_session_that_is_not_closed_in_time(parity: Any) -> None:
    async def far(stage: Any) -> None:
        stage.mute()
        await stage.say(GpuFull(message="none"))

    trace = parity(far)
    assert trace.error.name == "GpuFullError"
    assert trace.at("event", "Refused") == [0.0]
    assert trace.error.time == 3.0


# ---- what a far end may do wrong


def test_texts_that_are_no_messages(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(
            "{", "[]", '{"type": 5}', '{"type": "realtime.input_text"}', '{"type": "x"}', *READY
        )

    trace = parity(far, nothing, media=False)
    assert trace.events == (
        "ProtocolViolation ProtocolViolation ProtocolViolation ProtocolViolation UnknownMessage "
        "Connected Ready Usable Closed"
    )


def test_one_violation_too_many(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY)
        for _ in range(33):
            await stage.say("{")

    trace = parity(far, media=False)
    assert trace.names("event").count("ProtocolViolation") == 33
    assert trace.end == ("1002", "protocol violation")


@pytest.mark.parametrize("state", [*STAGES, "ready"])
def test_a_strict_client(parity: Any, state: str) -> None:
    config = ClientConfig(strict=True)
    trace = parity(saying(*STAGES.get(state, READY), "{"), media=False, config=config)
    assert trace.end == ("1002", "protocol violation")
    assert trace.events.endswith("ProtocolViolation Closed")
    if state != "ready":
        assert trace.error.name == "ProtocolViolatedError"
        assert "broke the protocol" in trace.error.text


def test_a_message_over_the_limit(parity: Any) -> None:
    config = ClientConfig(limits=Limits(server_message=1000))
    trace = parity(saying(*READY, "x" * 1001), media=False, config=config)
    assert trace.end == ("1009", "message too big")


def test_unknown_and_binary_messages(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, '{"type": "realtime.strange", "data": 1}')
        stage.far.send_binary(b"12345")
        await stage.idle()
        await stage.close()

    trace = parity(far, media=False)
    assert trace.read == "Connected Ready Usable UnknownMessage BinaryIgnored Closed"


def test_a_description_that_is_none(parity: Any) -> None:
    trace = parity(saying(*READY, Offer(sdp="v=0\r\n"), Offer(sdp="garbage")), timeout=2.0)
    assert trace.names("event").count("ProtocolViolation") == 2
    assert trace.commands == ""
    assert trace.error.text.endswith("still waiting for the offer")


# ---- media that fails


def test_media_that_cannot_connect(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(*READY, stage.peer.offer())
        stage.engines[0].event(MediaStateChanged(state=MediaState.FAILED, reason="no pair worked"))

    trace = parity(far, strict={"connects": False})
    assert trace.error.name == "MediaError"
    assert "no pair worked" in trace.error.text
    assert trace.end == ("1000", "")


@pytest.mark.parametrize("state", [MediaState.FAILED, MediaState.CLOSED, MediaState.DISCONNECTED])
def test_media_that_ends_in_a_running_session(parity: Any, state: MediaState) -> None:
    async def far(stage: Any) -> None:
        await usable(stage)
        if state is MediaState.CLOSED:
            stage.engines[0].strict.close_by_itself()
            stage.engines[0].strict.events.clear()
        stage.engines[0].event(MediaStateChanged(state=state, reason="gone"))
        await stage.idle(1)
        # A server that is ours rebuilds its peer then.
        await stage.say(stage.peer.offer())
        await stage.close()

    trace = parity(far)
    assert trace.events.startswith(f"{USABLE} MediaStateChanged")
    assert trace.events.endswith(f"{MEDIA_EVENTS} MediaStarted Closed")


def test_packets_before_everything_else(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(SUCCESS, stage.peer.offer())
        stage.engines[0].event(MediaStarted(track_id="t", kind=MediaKind.VIDEO))
        await stage.say(CREATED, UPDATED)

    trace = parity(far, nothing, strict={"connects": False})
    assert trace.events == (
        "Connected TrackAdded TrackAdded Negotiated MediaStarted Ready Usable Closed"
    )


# ---- what of ours fails


def test_a_body_that_fails(parity: Any) -> None:
    async def body(session: Any, stage: Any) -> None:
        raise KeyError("body")

    trace = parity(usable, body)
    assert trace.error.text == "KeyError: 'body'"
    assert trace.end == ("1000", "")


@pytest.mark.parametrize("where", ["Connected", "Usable", "MessageReceived", "Closed"])
def test_an_observer_that_fails(parity: Any, where: str) -> None:
    def observe(event: Any) -> None:
        if type(event).__name__ == where:
            raise KeyError(where)

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(1)

    async def far(stage: Any) -> None:
        with suppress(TransportClosedError):
            await stage.say(*READY, SpeechStarted())

    trace = parity(far, body, media=False, observe=observe)
    assert trace.error.text == f"KeyError: '{where}'"
    assert trace.events.endswith("Closed")


def test_a_body_and_an_observer_that_fail(parity: Any) -> None:
    def observe(event: Any) -> None:
        if type(event).__name__ == "Closed":
            raise KeyError("observer")

    async def body(session: Any, stage: Any) -> None:
        raise ValueError("body")

    trace = parity(saying(*READY), body, media=False, observe=observe)
    assert trace.error.name == "ExceptionGroup"
    assert sorted(trace.error.text.split("; ")) == ["KeyError: 'observer'", "ValueError: body"]


@pytest.mark.parametrize("how", ["receive", "send", "close"])
def test_a_transport_that_fails(parity: Any, how: str) -> None:
    async def broken(*_: Any) -> None:
        raise KeyError(how)

    async def far(stage: Any) -> None:
        await stage.say(*READY)
        await stage.idle(0.5)
        setattr(stage.near, {"send": "send_text"}.get(how, how), broken)
        await stage.peer.say(SpeechStarted())

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(1)
        await session.send_text("x", respond=False)
        await stage.idle(1)

    trace = parity(far, body, media=False)
    assert trace.error.text == f"KeyError: '{how}'"
    assert trace.events.endswith("Closed")
    assert trace.end == ("None", "")


def test_an_engine_that_finishes_with_something_that_is_no_result(parity: Any) -> None:
    async def far(stage: Any) -> None:
        await stage.say(SUCCESS)
        (engine,) = stage.engines
        engine.held = True
        await stage.say(stage.peer.offer())
        (opening,) = engine.strict.history
        engine._callbacks.done(opening.op, "a text")

    trace = parity(far)
    assert trace.error.name == "LocalProtocolError"
    assert trace.events == "Connected ConnectFailed NegotiationFailed Closed"
    assert trace.end == ("None", "")


@pytest.mark.parametrize("when", ["made", "closed"])
def test_an_engine_that_fails(parity: Any, when: str) -> None:
    def broken(callbacks: Any) -> Any:
        raise KeyError(when)

    async def far(stage: Any) -> None:
        if when == "closed":
            await usable(stage)
            stage.engines[0].aclose = stage.break_engine(KeyError(when))

    async def body(session: Any, stage: Any) -> None:
        await stage.idle(1)

    options = {"engine": broken} if when == "made" else {}
    trace = parity(far, body, **options)
    assert trace.error.text == f"KeyError: '{when}'"
    if when == "made":
        assert trace.events == ""


# ---- our server


async def visit(stage: Any) -> None:
    """A visitor who listens to the welcome, asks once and leaves."""
    near = stage.near
    for _ in range(3):
        await near.receive()
    await stage.idle()
    await near.send_text('{"type": "response.create"}')
    await stage.idle(1)
    await near.close(1000, "bye")


async def welcome(session: Any) -> None:
    for message in READY:
        await session.send(message)


def test_a_visit(parity: Any) -> None:
    async def handler(session: Any, stage: Any) -> None:
        await welcome(session)
        async for event in session.events():
            stage.read(event, "server")
            if isinstance(event, MessageReceived):
                await session.send(TranscriptDelta(response_id="r", content="Seven."))

    trace = parity.serve(visit, handler)
    assert trace.names("send", "server") == [
        "conversation.connected.success",
        "realtime.session.created",
        "realtime.session.updated",
        "realtime.response.audio_transcript.delta",
    ]
    assert trace.names("read", "server") == ["Ready", "Usable", "MessageReceived", "Closed"]
    assert trace.at("event", "Closed", "server") == [1.001]


@pytest.mark.parametrize("how", ["returns", "fails", "refuses", "closes"])
def test_a_handler(parity: Any, how: str) -> None:
    seen: list[tuple[int | None, str]] = []

    async def visitor(stage: Any) -> None:
        try:
            while True:
                await stage.near.receive()
        except TransportClosedError as closed:
            seen.append((closed.code, closed.reason))

    async def handler(session: Any, stage: Any) -> None:
        if how == "refuses":
            await session.send(GpuFull(message="none is free"))
            return
        await welcome(session)
        await stage.idle(1)
        if how == "fails":
            raise KeyError("handler")
        if how == "closes":
            await session.close(3000, "enough")

    trace = parity.serve(visitor, handler)
    assert (
        seen
        == [
            {
                "returns": (1000, ""),
                "fails": (1011, "internal error"),
                "refuses": (1013, "no worker is free"),
                "closes": (3000, "enough"),
            }[how]
        ]
        * 2
    )
    assert trace.names("error", "server") == (["KeyError"] if how == "fails" else [])
    assert trace.names("transport", "server") == ["CloseTransport"]


def test_a_server_with_media_and_our_client(parity: Any) -> None:
    """Two drivers on one loop: the server offers, the client answers, then asks for more."""

    async def visitor(stage: Any) -> None:
        async with stage.connect() as session:
            await stage.idle(1)
            await session.negotiate(VIDEO, AUDIO)
            stage.note("negotiated")
            await stage.idle(1)

    async def handler(session: Any, stage: Any) -> None:
        await welcome(session)
        await session.negotiate(CAMERA, MICROPHONE)
        async for event in session.events():
            stage.read(event, "server")

    trace = parity.serve(visitor, handler, media=True)
    assert trace.notes == ["negotiated"]
    assert trace.names("event", "server").count("Negotiated") == 2
    assert trace.names("event").count("Negotiated") == 2
    assert trace.names("event")[-1] == trace.names("event", "server")[-1] == "Closed"
    assert trace.names("command")[-1] == trace.names("command", "server")[-1] == "ClosePeer"


def test_a_server_that_shuts_down(parity: Any) -> None:
    async def visitor(stage: Any) -> None:
        try:
            while True:
                await stage.near.receive()
        except TransportClosedError as closed:
            stage.note(f"{closed.code} {closed.reason}")

    async def handler(session: Any, stage: Any) -> None:
        await welcome(session)
        await anyio.sleep_forever()

    trace = parity.serve(visitor, handler, cancel_after=2.0)
    assert trace.notes == ["1001 server is shutting down"]
    assert trace.names("note", "server") == ["cancelled", "served"]
    assert trace.at("event", "Closed", "server") == [2.0]
