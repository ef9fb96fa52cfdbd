"""Dead paths between two real aiortc peers: the packets of a call stop, and come again.

The call's packets take a wire of the test kit, which lets nothing pass when it is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from aioice import ice
from aiortc import RTCRtpSender

from navtalk_asyncio import ClientSession, connect
from navtalk_asyncio.emulator import emulate
from navtalk_asyncio.emulator.tracks import FaceTrack
from navtalk_asyncio.media.aiortc_internals import ice_connections
from navtalk_asyncio.media.interface import EncodedFrame
from navtalk_asyncio.testing.cutter import through
from navtalk_asyncio.testing.udp_wire import udp_wire
from navtalk_proto import ClientConfig
from navtalk_proto.events import (
    CloseCause,
    Closed,
    Event,
    MediaLost,
    MediaNotStarted,
    MediaResumed,
    MediaStalled,
    PictureFrozen,
    PictureResumed,
)
from navtalk_proto.media import Direction, MediaKind, MediaLine, MediaProgress, MediaStarted
from navtalk_proto.testing.udp_wire import UdpWire

PATIENCE = 20.0
"""Seconds until a wait is given up; only a failing test gets near it."""

VIDEO = MediaLine(kind=MediaKind.VIDEO)
AUDIO = MediaLine(kind=MediaKind.AUDIO)
NO_VIDEO = MediaLine(kind=MediaKind.VIDEO, direction=Direction.INACTIVE)

EventT = TypeVar("EventT")


class Call:
    """A client of the emulator, on a wire, with everything that it was told and when."""

    def __init__(self, wire: UdpWire) -> None:
        self.wire = wire
        self.session: ClientSession
        self.told: list[tuple[float, Event]] = []
        self._changed = asyncio.Event()

    def observe(self, event: Event) -> None:
        self.told.append((asyncio.get_running_loop().time(), event))
        self._changed.set()

    async def event(
        self, kind: type[EventT], accept: Callable[[EventT], bool] = lambda _event: True
    ) -> tuple[float, EventT]:
        """The first event of a class that is accepted, past or to come, and when it was told."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for at, event in self.told:
                    if isinstance(event, kind) and accept(event):
                        return at, event
                self._changed.clear()
                await self._changed.wait()

    def events(self, *kinds: type) -> list[Event]:
        return [event for _, event in self.told if isinstance(event, kinds)]

    async def pictures(self, wanted: int) -> None:
        """Decode new pictures."""
        taken = 0
        async with asyncio.timeout(PATIENCE):
            async for _ in self.session.video:
                taken += 1
                if taken == wanted:
                    return


def call(scenario: Callable[[Call], Coroutine[Any, Any, None]], **settings: Any) -> Call:
    """Run a scenario on an established call."""

    async def run() -> Call:
        async with udp_wire(1) as wire:
            call = Call(wire)
            async with (
                emulate() as human,
                through(wire.wrap) as opener,
                connect(
                    human.endpoint(),
                    config=ClientConfig(**settings),
                    observe=call.observe,
                    transport=opener,
                ) as call.session,
            ):
                for kind in MediaKind:  # A usable session has one of them; a cut is to meet both.
                    await call.event(MediaStarted, of(kind))
                await scenario(call)
        return call

    return asyncio.run(run())


def now() -> float:
    return asyncio.get_running_loop().time()


def of(kind: MediaKind) -> Callable[[Any], bool]:
    return lambda event: event.kind is kind


@pytest.mark.replaces("receiving")
def test_a_stall_is_told_and_its_end_and_pictures_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    send_keyframe = RTCRtpSender._send_keyframe

    def asked_for_a_keyframe(sender: RTCRtpSender) -> None:
        asked.append(now())
        send_keyframe(sender)

    monkeypatch.setattr(RTCRtpSender, "_send_keyframe", asked_for_a_keyframe)

    async def scenario(call: Call) -> None:
        await call.pictures(5)
        pictures = call.session.video
        await anext(pictures)
        call.wire.cut()
        cut = now()
        for kind in MediaKind:
            at, stalled = await call.event(MediaStalled, of(kind))
            assert 1.9 < at - cut < 3.0
            assert 2.0 <= stalled.silent_for < 2.5
            assert stalled.consent_age is not None
            assert stalled.consent_age >= 1.9
        call.wire.heal()
        healed = now()
        for kind in MediaKind:
            at, resumed = await call.event(MediaResumed, of(kind))
            assert at - healed < 1.0
            assert resumed.after == pytest.approx(at - cut, abs=0.6)
        await call.pictures(5)
        assert now() - healed < 5.0
        assert [at for at in asked if at > healed]

    told = call(scenario)
    assert not told.events(MediaLost, MediaNotStarted, PictureFrozen)
    assert len(told.events(MediaStalled)) == len(told.events(MediaResumed)) == 2


@pytest.mark.anyio
@pytest.mark.replaces("jitter")
async def test_what_was_lost_in_a_blackout_is_not_waited_for(media: Any) -> None:
    """aiortc's buffer would wait for 512 packets after it, five seconds of this picture."""
    server, client = await media.call()
    del server
    packets = [0]

    def count(_frame: EncodedFrame) -> None:
        packets[0] += 1

    client.engine.add_encoded_sink(MediaKind.VIDEO, count)
    (agent,) = ice_connections(client.engine._peer.pc)
    heard, agent.data_received = agent.data_received, lambda data, component: None
    await client.event(MediaProgress)
    client.events.clear()
    agent.data_received = lambda data, component: None
    await asyncio.sleep(3.0)
    before = packets[0]
    agent.data_received = heard
    healed = now()
    while packets[0] < before + 5:
        await client.event(MediaProgress)
        client.events.clear()
        assert now() - healed < 3.0


@pytest.mark.anyio
@pytest.mark.replaces("receiving")
async def test_a_picture_that_waits_for_its_reader_does_not_stand_still(media: Any) -> None:
    _, client = await media.call()
    room = True
    taken = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take(_frame: Any) -> None:
        loop.call_soon_threadsafe(taken.set)

    def told(event: MediaProgress) -> bool:
        # None: the picture is not looked at.
        return event.kind is MediaKind.VIDEO and (event.picture_age is not None) is room

    remove = client.engine.add_paced_sink(MediaKind.VIDEO, take, lambda: None, lambda: not room)
    async with asyncio.timeout(PATIENCE):
        await taken.wait()
    for has_room in (True, False):
        room = has_room
        client.engine.resume_decoding(MediaKind.VIDEO)
        client.events.clear()
        await client.event(MediaProgress, told)
    remove()


def test_what_stays_away_is_lost_and_the_session_lives() -> None:
    async def scenario(call: Call) -> None:
        call.wire.cut()
        _, lost = await call.event(MediaLost)
        assert 2.5 <= lost.silent_for < 3.5
        assert call.session.end is None
        call.wire.heal()
        await call.event(MediaResumed, of(lost.kind))

    call(scenario, stall_timeout=1.0, stall_give_up=2.5)


def test_what_stays_away_ends_the_session_where_that_is_asked_for() -> None:
    async def scenario(call: Call) -> None:
        call.wire.cut()
        _, closed = await call.event(Closed)
        assert closed.cause is CloseCause.MEDIA_LOST
        assert closed.reason in ("no video for 2 s", "no audio for 2 s")

    call(scenario, stall_timeout=1.0, stall_give_up=2.0, end_on_media_loss=True)


@pytest.mark.replaces("receiving")
def test_a_picture_on_hold_is_no_stall_and_has_to_start_when_it_is_taken_back() -> None:
    async def scenario(call: Call) -> None:
        await call.session.negotiate(NO_VIDEO, AUDIO)
        call.wire.cut()
        await call.event(MediaLost, of(MediaKind.AUDIO))
        assert not [e for e in call.events(MediaStalled) if of(MediaKind.VIDEO)(e)]
        await call.session.negotiate(VIDEO, AUDIO)
        await call.event(MediaNotStarted, of(MediaKind.VIDEO))
        call.wire.heal()
        await call.event(MediaResumed, of(MediaKind.VIDEO))

    call(scenario, stall_timeout=0.5, stall_give_up=1.0, media_start_timeout=0.5)


@pytest.mark.replaces("consent")
def test_the_age_of_consent_tells_a_sender_that_is_silent_from_a_dead_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.2)

    async def scenario(call: Call) -> None:
        await call.pictures(1)
        call.wire.cut("rtp")
        for kind in MediaKind:
            _, stalled = await call.event(MediaStalled, of(kind))
            assert stalled.consent_age is not None
            assert stalled.consent_age < 0.9
        call.wire.heal()
        for kind in MediaKind:
            await call.event(MediaResumed, of(kind))
        call.told.clear()
        call.wire.cut()
        for kind in MediaKind:
            _, stalled = await call.event(MediaStalled, of(kind))
            assert stalled.consent_age is not None
            assert stalled.consent_age >= 1.0

    call(scenario, stall_timeout=1.2)


def test_a_frozen_picture_is_told_and_a_moving_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    faces: list[FaceTrack] = []
    begin = FaceTrack.__init__

    def noted(face: FaceTrack, *arguments: Any, **options: Any) -> None:
        begin(face, *arguments, **options)
        faces.append(face)

    monkeypatch.setattr(FaceTrack, "__init__", noted)

    async def scenario(call: Call) -> None:
        async def look() -> None:
            async for _ in call.session.video:
                pass

        async with asyncio.TaskGroup() as group:
            looking = group.create_task(look())
            await call.pictures(40)
            assert not call.events(PictureFrozen)
            faces[0].frozen = True
            started = now()
            at, told = await call.event(PictureFrozen)
            assert 1.0 <= told.frozen_for < 2.0
            assert at - started < 4.0
            faces[0].frozen = False
            _, again = await call.event(PictureResumed)
            assert again.after >= told.frozen_for
            looking.cancel()

    told = call(scenario, freeze_timeout=1.0)
    assert not told.events(MediaStalled)


@pytest.mark.replaces("receiving")
def test_an_idle_face_is_never_frozen() -> None:
    """The shortest time that is allowed, through the coder and the decoder, for a whole sway."""

    async def scenario(call: Call) -> None:
        until = now() + 9.0
        async for _ in call.session.video:
            if now() > until:
                break

    assert not call(scenario, freeze_timeout=0.5).events(PictureFrozen)
