"""The demo page in Chromium against the emulator: a client after the seed that is not our code.

What is asserted is what WebRTC received and what the video element shows, not its currentTime: that
runs on through a total blackout.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
from chromium_browser import READ_FRAME
from numpy.typing import NDArray
from playwright.async_api import Page, expect

from navtalk_asyncio.emulator import Conversation, EchoBrain, Emulator, Reply, emulate
from navtalk_asyncio.emulator.demo_page import page_reply
from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack
from navtalk_asyncio.emulator.voice import ToneSynthesiser
from navtalk_asyncio.emulator.voice_activity import measure
from navtalk_asyncio.media.aiortc_engine import AiortcEngine
from navtalk_asyncio.server import ServerSession, serve
from navtalk_proto.config import SEND_MEDIA, ServerConfig
from navtalk_proto.events import MessageReceived
from navtalk_proto.wire.messages import (
    ConnectedClose,
    ConnectedSuccess,
    FunctionCallDone,
    GpuFull,
    IceServer,
    ResponseCreate,
    SessionCreated,
    SessionUpdated,
    ToolResult,
)

pytestmark = pytest.mark.anyio

OpenPage = Callable[[str], Awaitable[Page]]

PATIENCE = 15.0
"""Seconds until a wait outside a page is given up; only a failing test gets near it."""

FRAME = (0, 0, 512, 512)
MOUTH = (200, 300, 112, 80)
"""Left, top, width and height of the mouth of the 512 x 512 face."""


class Whistle:
    """Tones for any text, on a machine with and without a synthesiser."""

    name = "whistle"

    async def synthesise(self, text: str) -> bytes:
        return await ToneSynthesiser().synthesise(text)


class Whistler(EchoBrain):
    """The echo brain with that voice; keeps what it heard."""

    def __init__(self) -> None:
        super().__init__(Whistle())
        self.heard: list[bytes] = []

    async def reply(self, conversation: Conversation) -> Reply:
        if conversation.heard is not None:
            self.heard.append(conversation.heard)
        return await super().reply(conversation)


@pytest.fixture
async def human(anyio_backend: str) -> AsyncIterator[Emulator]:
    async with emulate(brain=Whistler()) as running:
        yield running


def page_url(url: str) -> str:
    return f"http{url.removeprefix('ws')}/"


async def frames_decoded(page: Page) -> int:
    return int(await page.evaluate("async () => (await inbound('video')).framesDecoded"))


async def more_frames(page: Page, count: int) -> None:
    """Waits until as many more frames were decoded."""
    await page.wait_for_function(
        "async (most) => (await inbound('video')).framesDecoded >= most",
        arg=await frames_decoded(page) + count,
    )


async def more_sound(page: Page) -> None:
    """Waits for a tenth of a second of a tone at -20 dBFS, or as much as that."""
    heard = await page.evaluate("async () => (await inbound('audio')).totalAudioEnergy")
    await page.wait_for_function(
        "async (most) => (await inbound('audio')).totalAudioEnergy > most", arg=heard + 0.001
    )


async def pixels(page: Page, part: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """A part of the next frame that the page shows, as rows of RGB."""
    data = base64.b64decode(await page.evaluate(READ_FRAME, list(part)))
    rgba = np.frombuffer(data, np.uint8).reshape(part[3], part[2], 4)
    return rgba[..., :3].astype(int)


async def start(page: Page) -> None:
    """Calls the human, and waits until it is seen."""
    await page.get_by_role("button", name="Start talking").click()
    await more_frames(page, 5)
    await expect(page.get_by_role("status")).to_have_text("Connected")


async def write(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def lines(page: Page, speaker: str) -> list[str]:
    return await page.locator(f"#log .{speaker}").all_text_contents()


async def events(page: Page) -> list[str]:
    """What the page sent (``>``) and received (``<``), the oldest first."""
    return (await page.locator("#events li").all_text_contents())[::-1]


# ---- the face and the voice


async def test_it_plays_the_face_and_the_mouth_moves(human: Emulator, open_page: OpenPage) -> None:
    page = await open_page(page_url(human.url))
    await start(page)
    face = Face()
    still = np.asarray(face.still()).astype(int)
    async with asyncio.timeout(PATIENCE):  # The first pictures are coarse, and the head sways.
        while np.abs(await pixels(page, FRAME) - still).mean() > 12:
            pass
    left, top, width, height = MOUTH
    mouth = np.s_[top : top + height, left : left + width]
    shut, open_ = (np.asarray(face.still(mouth=each)).astype(int)[mouth] for each in (0.0, 0.8))

    async def until_the_mouth_is(like: NDArray[Any], unlike: NDArray[Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                seen = await pixels(page, MOUTH)
                if np.abs(seen - like).mean() < np.abs(seen - unlike).mean():
                    return

    await until_the_mouth_is(shut, open_)
    await write(page, "Open your mouth, please, and say something longer.")
    await until_the_mouth_is(open_, shut)
    await until_the_mouth_is(shut, open_)


async def test_its_voice_is_heard_when_it_speaks_and_only_then(
    human: Emulator, open_page: OpenPage
) -> None:
    page = await open_page(page_url(human.url))
    await start(page)
    await page.wait_for_function("async () => (await inbound('audio')).packetsReceived > 25")
    silent = await page.evaluate("async () => inbound('audio')")
    assert silent["totalAudioEnergy"] < 0.0001
    await write(page, "Is anybody there?")
    await more_sound(page)
    await expect(page.get_by_role("status")).to_have_text("Speaking")
    await expect(page.get_by_role("status")).to_have_text("Connected")
    assert await lines(page, "human") == ["You wrote: Is anybody there?"]
    await expect(page.locator("#caption-human")).to_have_text("You wrote: Is anybody there?")


# ---- the microphone


async def test_what_the_microphone_hears_is_answered(open_page: OpenPage) -> None:
    brain = Whistler()
    async with emulate(brain=brain) as human:
        page = await open_page(page_url(human.url))
        await start(page)
        await page.get_by_role("button", name="Microphone").click()
        await expect(page.get_by_role("status")).to_have_text("Listening")
        await expect(page.locator("#log .human")).to_have_text(re.compile(r"^You said: \["))
        await more_sound(page)
        [said] = brain.heard
        measured = measure(said)
        # question.wav has 3.04 s of speech; Chromium makes it louder.
        assert 2.8 < measured.seconds < 3.3
        assert -25 < measured.dbfs < -8
        [transcript] = await lines(page, "user")
        assert transcript == f"[{measured.seconds:.1f} s of speech, {measured.dbfs:.0f} dBFS]"
        await expect(page.locator("#caption-user")).to_have_text(transcript)
        told = [line[2:] for line in await events(page) if line.startswith("< realtime.")]
        order = [
            "realtime.input_audio_buffer.speech_started",
            "realtime.input_audio_buffer.speech_stopped",
            "realtime.conversation.item.input_audio_transcription.completed",
        ]
        assert [each for each in told if each in order] == order
        await page.get_by_role("button", name="Microphone").click()
        await expect(page.get_by_role("button", name="Microphone")).to_have_attribute(
            "aria-pressed", "false"
        )


async def test_without_a_microphone_writing_works(human: Emulator, open_page: OpenPage) -> None:
    page = await open_page(page_url(human.url))
    await page.evaluate(
        """() => {
          navigator.mediaDevices.getUserMedia =
            () => Promise.reject(new DOMException("no", "NotAllowedError"));
        }"""
    )
    await start(page)
    await page.get_by_role("button", name="Microphone").click()
    await expect(page.get_by_role("alert")).to_have_text(
        "No microphone (NotAllowedError). Writing works."
    )
    await write(page, "Hello")
    await expect(page.locator("#log .human")).to_have_text("You wrote: Hello")


# ---- a function of the page


async def test_the_human_asks_the_page_for_the_time(human: Emulator, open_page: OpenPage) -> None:
    page = await open_page(page_url(human.url))
    await start(page)
    await write(page, "What is the local time?")
    await expect(page.locator("#log .function")).to_have_text("local_time()")
    year = await page.evaluate("String(new Date().getFullYear())")
    await expect(page.locator("#log .human")).to_contain_text(year)
    await more_sound(page)


# ---- renegotiation: the page offers


async def test_the_page_offers_and_the_picture_stops_and_comes_back(
    human: Emulator, open_page: OpenPage
) -> None:
    page = await open_page(page_url(human.url))
    await start(page)
    direction = """(wanted) => peers[0].getTransceivers().some((each) =>
        each.receiver.track.kind === "video" && each.currentDirection === wanted)"""
    picture = page.get_by_role("button", name="Picture")
    await picture.click()
    await page.wait_for_function(direction, arg="inactive")
    await write(page, "Only your voice, please.")
    await more_sound(page)
    await picture.click()
    await page.wait_for_function(direction, arg="recvonly")
    await more_frames(page, 10)
    await more_sound(page)
    told = [line[2:] for line in await events(page) if "signaling" in line]
    exchanges = [each for each in told if "iceCandidate" not in each]
    assert exchanges == [
        "webrtc.signaling.offer", "webrtc.signaling.answer",
        "webrtc.signaling.offer", "webrtc.signaling.answer",
        "webrtc.signaling.offer", "webrtc.signaling.answer",
    ]  # fmt: skip
    assert await page.evaluate("peers.length") == 1


async def test_the_page_offers_an_ice_restart_and_media_goes_on(
    human: Emulator, open_page: OpenPage
) -> None:
    page = await open_page(page_url(human.url))
    await start(page)
    fragment = "() => /ice-ufrag:(\\S+)/.exec(peers[0].remoteDescription.sdp)[1]"
    before = await page.evaluate(fragment)
    await page.evaluate("() => peers[0].restartIce()")
    await page.wait_for_function(f"(before) => ({fragment})() !== before", arg=before)
    await more_frames(page, 10)
    await write(page, "Still there?")
    await more_sound(page)


# ---- reconnecting


class Wire:
    """A TCP relay that can be cut."""

    def __init__(self) -> None:
        self.port = 0
        self._ends: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Resets every connection."""
        for end in self._ends:
            end.transport.abort()


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    wire = Wire()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        ends = {writer, far_writer}
        wire._ends |= ends
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        wire._ends -= ends

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        wire.port = server.sockets[0].getsockname()[1]
        yield wire
    finally:
        wire.cut()
        server.close()
        await server.wait_closed()


async def test_a_cut_socket_is_opened_again_by_a_new_session(
    human: Emulator, open_page: OpenPage
) -> None:
    async with wire_to(human.server.port) as wire:
        page = await open_page(f"http://127.0.0.1:{wire.port}/")
        await start(page)
        await write(page, "Remember me.")
        await expect(page.locator("#log .human")).to_have_text("You wrote: Remember me.")
        wire.cut()
        await page.wait_for_function("() => peers.length === 2")
        await more_frames(page, 10)
        await expect(page.get_by_role("status")).to_have_text(re.compile("Connected|Speaking"))
        assert await page.evaluate("peers[0].connectionState") == "closed"
        await write(page, "Here I am again.")
        await expect(page.locator("#log .human").last).to_have_text("You wrote: Here I am again.")
        await more_sound(page)
        # A new session knows nothing: the page told it what was said before.
        told = await events(page)
        again = told[[line.startswith("x ") for line in told].index(True) :]
        created = again.index("< realtime.session.created")
        assert "> conversation.item.create" in again[created:]
        await page.get_by_role("button", name="Hang up").click()
        await expect(page.get_by_role("status")).to_have_text("Not connected")


# ---- licences


async def test_a_licence_is_asked_for_and_stays_out_of_sight(open_page: OpenPage) -> None:
    licence = "sk_navtalk_OTHER_EXAMPLE"
    async with (
        emulate(brain=Whistler(), licenses=[licence]) as human,
        emulate(brain=Whistler()) as elsewhere,
    ):
        for url in (
            page_url(human.url),
            f"{page_url(elsewhere.url)}#server={human.url}&name=navtalk.Lea",
        ):
            page = await open_page(url)
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            entry = page.get_by_label(f"A licence for {human.url.removeprefix('ws://')}")
            await entry.fill("sk_navtalk_WRONG_EXAMPLE")
            await page.get_by_role("button", name="Continue").click()
            if "#" in url:  # Without a look-up it is the socket that is refused.
                await page.get_by_role("button", name="Start talking").click()
                await expect(page.get_by_role("alert")).to_have_text("Invalid license key")
            await expect(entry).to_have_value("")
            await entry.fill(licence)
            await page.get_by_role("button", name="Continue").click()
            await start(page)
            assert licence not in await page.content()
            assert licence not in page.url
            assert not any(licence in each for each in asked)


@pytest.mark.parametrize(
    "fragment", ["server=nonsense&name=x", "server=https://127.0.0.1&name=x", "server=ws://a"]
)
async def test_an_address_that_names_no_server_or_nobody_there_is_told(
    fragment: str, human: Emulator, open_page: OpenPage
) -> None:
    page = await open_page(f"{page_url(human.url)}#{fragment}")
    await expect(page.get_by_role("alert")).to_contain_text("#server=wss://HOST&name=AVATAR")
    await expect(page.get_by_role("button", name="Start talking")).to_be_hidden()


# ---- what the emulator does not do, from a server that follows a script


@asynccontextmanager
async def scripted(
    play: Callable[[ServerSession], Awaitable[None]], *, media: bool = False
) -> AsyncIterator[str]:
    """The demo page, served beside a handler of the test's own; yields the page's URL."""

    async def visit(session: ServerSession) -> None:
        if media:
            mouthpiece = Mouthpiece()
            engine = session.engine
            assert isinstance(engine, AiortcEngine)
            engine.add_tracks(FaceTrack(Face(64, 64), mouthpiece), VoiceTrack(mouthpiece))
        await play(session)

    async with serve(
        visit,
        config=ServerConfig(media=SEND_MEDIA if media else ()),
        engine=(lambda callbacks: AiortcEngine(callbacks, loopback=True)) if media else None,
        http=page_reply,
    ) as server:
        yield f"{page_url(server.url)}#name=navtalk.Leo"


async def welcome(session: ServerSession) -> None:
    for message in (
        ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=("stun:127.0.0.1:9",)),)),
        SessionCreated(),
        SessionUpdated(),
    ):
        await session.send(message)


async def until_it_leaves(session: ServerSession) -> None:
    async for _ in session.events():
        pass


async def test_function_calls_are_answered(open_page: OpenPage) -> None:
    answers: list[ToolResult] = []
    wishes = 0

    async def play(session: ServerSession) -> None:
        nonlocal wishes
        await welcome(session)
        for call, name in (("call_1", "local_time"), ("call_2", "no_such_function")):
            await session.send(FunctionCallDone(call_id=call, name=name))
        async for event in session.events():
            match event:
                case MessageReceived(message=ToolResult() as answer):
                    answers.append(answer)
                case MessageReceived(message=ResponseCreate()):
                    wishes += 1
                    if wishes == 2:
                        await session.send(ConnectedClose(message="That was all."))

    async with scripted(play) as url:
        page = await open_page(url)
        await page.get_by_role("button", name="Start talking").click()
        await expect(page.get_by_role("alert")).to_have_text("That was all.")
        assert await lines(page, "function") == ["local_time()", "no_such_function(): unknown"]
    assert [each.call_id for each in answers] == ["call_1", "call_2"]
    known, unknown = (json.loads(each.output) for each in answers)
    assert set(known) == {"time"}
    assert unknown == {"error": "there is no function no_such_function"}


async def test_a_refusal_is_told_and_not_tried_again(open_page: OpenPage) -> None:
    visits = 0

    async def play(session: ServerSession) -> None:
        nonlocal visits
        visits += 1
        await session.send(GpuFull(message="Every worker is busy."))

    async with scripted(play) as url:
        page = await open_page(url)
        await page.get_by_role("button", name="Start talking").click()
        await expect(page.get_by_role("alert")).to_have_text("Every worker is busy.")
        await expect(page.get_by_role("status")).to_have_text("Not connected")
        await expect(page.get_by_role("button", name="Start talking")).to_be_visible()
    assert visits == 1


async def test_a_second_offer_of_the_server_keeps_the_peer_connection(open_page: OpenPage) -> None:
    again = asyncio.Event()
    done = asyncio.Event()

    async def play(session: ServerSession) -> None:
        await welcome(session)
        await session.negotiate(*SEND_MEDIA)
        await again.wait()
        await session.negotiate(*SEND_MEDIA)
        done.set()
        await until_it_leaves(session)

    async with scripted(play, media=True) as url:
        page = await open_page(url)
        await start(page)
        again.set()
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        await more_frames(page, 10)
        assert await page.evaluate("peers.length") == 1
        assert (await events(page)).count("> webrtc.signaling.answer") == 2
