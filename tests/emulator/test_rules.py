"""The emulator seen by a client that knows nothing but JSON: protocol.md 6.5, 6.3, 6.4, 5.3, 2.

The client is a plain ``websockets`` connection over real sockets, and aiortc where it has media.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import os
import re
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote

import av
import numpy as np
import pytest
import websockets.asyncio.client
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from PIL import Image
from websockets.exceptions import ConnectionClosed

from navtalk_asyncio.emulator import Avatar, Conversation, EchoBrain, Emulator, Reply, emulate
from navtalk_asyncio.server import ServerSession, serve
from navtalk_proto.config import ServerConfig
from navtalk_proto.wire.messages import ConnectedSuccess, FunctionCallDone, IceServer

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
"""Seconds until a wait is given up; only a failing test gets near it."""

LICENCE = "sk_navtalk_EXAMPLE"
PATH = "/wss/v2/realtime-chat"
LEA = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"

SUCCESS = "conversation.connected.success"
WARNING = "conversation.connected.warning"
FAIL = "conversation.connected.fail"
OFFER = "webrtc.signaling.offer"
ANSWER = "webrtc.signaling.answer"
CANDIDATE = "webrtc.signaling.iceCandidate"
CREATED = "realtime.session.created"
UPDATED = "realtime.session.updated"
STARTED = "realtime.input_audio_buffer.speech_started"
STOPPED = "realtime.input_audio_buffer.speech_stopped"
HEARD = "realtime.conversation.item.input_audio_transcription.completed"
DELTA = "realtime.response.audio_transcript.delta"
DONE = "realtime.response.audio_transcript.done"
AUDIO_DONE = "realtime.response.audio.done"

V1 = "this is version 1 of the protocol, with two sockets; only version 2 is spoken here"

GREETING = "Good day."


class Parrot:
    """A brain that says what it is told, with half a second of a tone, and never waits."""

    async def hear(self, conversation: Conversation) -> str:
        return f"{len(conversation.heard or b'') // 2} samples"

    async def reply(self, conversation: Conversation) -> Reply:
        picture = conversation.picture
        if picture is not None:
            text = f"{picture.format} {picture.width} x {picture.height}"
            return Reply(text=f"Parrot: {text}")
        said = f"Parrot: {conversation.text}" if conversation.text else GREETING
        return Reply(text=said, pcm=tone(0.5))


def tone(seconds: float) -> bytes:
    """300 Hz at -13 dBFS, PCM16 at 24 kHz."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    return bytes(np.round(10_000 * np.sin(2 * np.pi * 300 * t)).astype("<i2"))


class Raw:
    """A WebSocket and every frame that came over it. Frames of a wrong shape fail at once (E1)."""

    def __init__(self, socket: websockets.asyncio.client.ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self._unread: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(PATIENCE):
            text = await self.socket.recv()
        assert isinstance(text, str), "a binary frame"
        frame = json.loads(text)
        assert isinstance(frame, dict)
        assert isinstance(frame["type"], str)
        assert isinstance(frame["data"], dict), frame["type"]
        self.frames.append(frame)
        return frame

    async def next(self, kind: str) -> dict[str, Any]:
        """The next frame of a type; others before it are kept in `frames` only."""
        while True:
            frame = await self.receive()
            if frame["type"] == kind:
                return frame

    async def until_end(self) -> ConnectionClosed:
        """Read everything that comes before the server's close."""
        while True:
            try:
                await self.receive()
            except ConnectionClosed as closed:
                return closed

    async def ready(self) -> Self:
        """Read until session.updated and the offer are both there, in whichever order."""
        while not {UPDATED, OFFER} <= set(self.types()):
            await self.receive()
        return self

    async def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            await self.socket.send(json.dumps(message))

    async def say(self, pcm: bytes) -> None:
        """As the JS SDK does: 3072 bytes in a message (5.12)."""
        for at in range(0, len(pcm), 3072):
            audio = base64.b64encode(pcm[at : at + 3072]).decode()
            await self.send(
                {"type": "realtime.input_audio_buffer.append", "data": {"audio": audio}}
            )

    async def echo(self, text: str) -> dict[str, Any]:
        """Type a text; its transcript.done, which also says that all before it was processed."""
        await self.send(
            {"type": "realtime.input_text", "data": {"content": text}},
        )
        while True:
            frame = await self.next(DONE)
            if frame["data"]["content"] == f"Parrot: {text}":
                await self.next(AUDIO_DONE)
                return frame

    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    def count(self, kind: str) -> int:
        return self.types().count(kind)

    def one(self, kind: str) -> dict[str, Any]:
        (frame,) = (frame for frame in self.frames if frame["type"] == kind)
        return frame


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def human() -> AsyncIterator[Emulator]:
    avatars = (
        Avatar(id=LEA, name="navtalk.Lea"),
        Avatar(id="1" * 32, name="twin"),
        Avatar(id="2" * 32, name="twin"),
        Avatar(id="3" * 32, name="Ana Maria"),
        Avatar(id="4" * 32, name="Dr./ESL:tutor@home?(a,b)"),
    )
    async with emulate(brain=Parrot(), avatars=avatars) as human:
        yield human


@asynccontextmanager
async def dial(
    human: Emulator, query: str | None = None, *, path: str = PATH, **options: Any
) -> AsyncIterator[Raw]:
    if query is None:
        query = f"license={LICENCE}&name=navtalk.Lea"
    url = f"{human.url}{path}?{query}"
    async with websockets.asyncio.client.connect(
        url, proxy=None, compression=None, max_size=None, **options
    ) as socket:
        yield Raw(socket)


# ---- E1 to E12


async def test_e1_every_frame_is_an_object_with_a_type_and_a_data_object(human: Emulator) -> None:
    async with dial(human, f"license={LICENCE}&name=twin") as client:
        await client.ready()
        await client.say(tone(0.5) + bytes(48_000))
        await client.next(AUDIO_DONE)
        await client.send({"type": "session.update", "session": {"voice": "cedar"}})
        await client.next(UPDATED)
        # What E1 says is asserted for each frame in Raw.receive.
        assert set(client.types()) == {
            SUCCESS, WARNING, CREATED, UPDATED, OFFER,
            STARTED, STOPPED, HEARD, DELTA, DONE, AUDIO_DONE,
        }  # fmt: skip
    async with dial(human, "license=wrong&name=twin") as refused:
        await refused.until_end()
        assert refused.types() == [FAIL]


async def test_e2_success_is_first_and_once(human: Emulator) -> None:
    ids = []
    for _ in range(2):
        async with dial(human) as client:
            first = await client.receive()
            assert set(first) == {"type", "message", "data"}
            assert first["type"] == SUCCESS
            assert first["message"] == ""
            assert set(first["data"]) == {"sessionId", "iceServers"}
            ids.append(first["data"]["sessionId"])
            assert isinstance(ids[-1], str)
            assert len(ids[-1]) == 36
            (server,) = first["data"]["iceServers"]
            assert set(server) == {"urls"}
            (url,) = server["urls"]
            assert re.fullmatch(r"stun:127\.0\.0\.1:\d+", url)
            await client.ready()
            await client.echo("on")
            assert client.count(SUCCESS) == 1
    assert ids[0] != ids[1]


async def test_e3_one_complete_offer_after_success(human: Emulator) -> None:
    async with dial(human) as client:
        await client.ready()
        assert client.types()[0] == SUCCESS
        offer = client.one(OFFER)
        assert offer["data"].keys() == {"sdp"}
        assert offer["data"]["sdp"].keys() == {"type", "sdp"}
        assert offer["data"]["sdp"]["type"] == "offer"
        assert offer["data"]["sdp"]["sdp"].startswith("v=0\r\n")
        await client.echo("still one")
        assert client.count(OFFER) == 1


async def test_e4_created_then_updated_once(human: Emulator) -> None:
    async with dial(human) as client:
        content = json.dumps({"voice": "cedar", "prompt": "", "tools": []})
        await client.send(
            {"type": "realtime.input_config", "data": {"content": content}},
            {"type": "realtime.input_function_call", "data": {"content": "[]"}},
        )
        await client.ready()
        await client.send(
            {"type": "realtime.input_config", "data": {"content": content}},
            {"type": "realtime.input_function_call", "data": {"content": "[]"}},
        )
        await client.echo("configured late")
        assert client.one(CREATED) == {"type": CREATED, "message": "", "data": {}}
        assert client.one(UPDATED) == {"type": UPDATED, "message": "", "data": {}}
        assert client.types().index(CREATED) < client.types().index(UPDATED)


async def test_6_4_updated_again_as_the_reply_to_session_update_only(human: Emulator) -> None:
    async with dial(human) as client:
        await client.ready()
        await client.send({"type": "session.update", "session": {"instructions": "Be brief."}})
        assert await client.next(UPDATED) == {"type": UPDATED, "message": "", "data": {}}
        await client.echo("done")
        assert client.count(UPDATED) == 2
        assert client.count(CREATED) == 1


async def test_e5_texts_are_strings_and_deltas_make_the_whole(human: Emulator) -> None:
    async with dial(human) as client:
        await client.ready()
        await client.say(tone(0.5) + bytes(48_000))
        await client.next(AUDIO_DONE)
        heard = client.one(HEARD)["data"]
        assert heard["content"] == heard["transcript"]
        # 0.5 s of speech, 0.2 s kept after it; the stream had nothing before it.
        assert heard["content"] == f"{round(0.7 * 24_000)} samples"
        done = client.one(DONE)["data"]
        assert done["content"] == done["transcript"] == f"Parrot: {heard['content']}"
        deltas = [frame["data"] for frame in client.frames if frame["type"] == DELTA]
        assert len(deltas) == 3
        assert "".join(delta["content"] for delta in deltas) == done["content"]
        assert {delta["id"] for delta in deltas} == {done["id"]}
        assert client.types()[-8:] == [
            STARTED,
            STOPPED,
            HEARD,
            DELTA,
            DELTA,
            DELTA,
            DONE,
            AUDIO_DONE,
        ]
        again = await client.echo("once more")
        assert again["data"]["id"] != done["id"]
        # E5 with a brain that has nothing to say about it.
        assert isinstance((await client.echo(" "))["data"]["content"], str)


async def test_e6_function_calls_carry_raw_data_name() -> None:
    async def call(session: ServerSession) -> None:
        await session.send(
            ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=("stun:127.0.0.1:9",)),))
        )
        await session.send(
            FunctionCallDone(call_id="call_1", name="close_talk", arguments='{"why": "bye"}')
        )

    async with serve(call, config=ServerConfig(media=())) as server:
        url = f"{server.url}{PATH}?license=x"
        async with websockets.asyncio.client.connect(url, proxy=None) as socket:
            client = Raw(socket)
            frame = await client.next("realtime.response.function_call_arguments.done")
    assert frame["raw_data"]["name"] == "close_talk"
    assert json.loads(frame["raw_data"]["arguments"]) == {"why": "bye"}
    assert frame["data"] == {
        "function_name": "close_talk",
        "name": "close_talk",
        "call_id": "call_1",
        "arguments": {"why": "bye"},
    }


SPOKEN = base64.b64encode(tone(0.5)).decode()


@pytest.mark.parametrize(
    "append",
    [
        {"type": "realtime.input_audio_buffer.append", "data": {"audio": SPOKEN}},
        {
            "type": "realtime.input_audio_buffer.append",
            "data": {"audio": SPOKEN, "sequenceNumber": 17},
        },
        {"type": "input_audio_buffer.append", "audio": SPOKEN},
        {"type": "realtime.input_audio_buffer.append", "data": {"delta": SPOKEN}},
        {
            "type": "realtime.input_audio_buffer.append",
            "messageId": "s1_0",
            "traceId": "t1",
            "data": {
                "audio": SPOKEN,
                "sampleRate": 24000,
                "mimeType": "audio/pcm;rate=24000",
                "streamId": "s1",
                "traceId": "t1",
                "sequence": 0,
                "messageId": "s1_0",
                "source": "user",
            },
        },
    ],
    ids=["NavTalk", "Android", "transparency", "IMTalker", "audioBack"],
)
@pytest.mark.parametrize(
    "commit",
    [
        {"type": "realtime.input_audio_buffer.commit", "data": {}},
        {"type": "input_audio_buffer.commit"},
    ],
    ids=["prefixed", "bare"],
)
async def test_e7_every_spelling_of_append_and_commit(
    human: Emulator, append: dict[str, Any], commit: dict[str, Any]
) -> None:
    async with dial(human) as client:
        await client.ready()
        await client.send(append, commit)
        await client.next(AUDIO_DONE)
        # Committed with no silence after it: exactly what was appended.
        assert client.one(HEARD)["data"]["content"] == "12000 samples"


@pytest.mark.parametrize(
    "clear",
    [
        {"type": "realtime.input_audio_buffer.clear", "data": {}},
        {"type": "input_audio_buffer.clear"},
    ],
    ids=["prefixed", "bare"],
)
async def test_e7_every_spelling_of_clear(human: Emulator, clear: dict[str, Any]) -> None:
    async with dial(human) as client:
        await client.ready()
        await client.say(tone(0.5))
        await client.next(STARTED)
        await client.send(clear)
        await client.next(STOPPED)
        await client.say(bytes(48_000))
        await client.echo("forgotten")
        assert client.count(HEARD) == 0


@pytest.mark.parametrize(
    "message",
    [
        {"type": "realtime.input_text", "data": {"content": "Hello"}},
        {"type": "realtime.input_text", "data": {"text": "Hello"}},
        {"type": "realtime.input.text", "data": {"content": "Hello"}},
        {"type": "realtime.input.text", "data": {"text": "Hello"}},
    ],
)
async def test_5_10_every_spelling_of_input_text(human: Emulator, message: dict[str, Any]) -> None:
    async with dial(human) as client:
        await client.ready()
        await client.send(message)
        assert (await client.next(DONE))["data"]["content"] == "Parrot: Hello"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "input_text", "text": "Hello"}],
        "[{type=input_text, text=Hello}]",
        "Hello",
    ],
    ids=["array", "Android", "string"],
)
async def test_5_9_typed_text_then_response_create(human: Emulator, content: object) -> None:
    async with dial(human) as client:
        await client.ready()
        item = {"type": "message", "role": "user", "content": content}
        await client.send(
            {"type": "conversation.item.create", "item": item}, {"type": "response.create"}
        )
        assert (await client.next(DONE))["data"]["content"] == "Parrot: Hello"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "realtime.something_new", "data": {"a": 1}},
        {"type": "response.cancel"},
        {"type": "webrtc.signaling.iceRestartRequest", "data": {}},
        {"type": SUCCESS, "data": {"provider": {"url": "wss://x", "api_key": "k", "model": "m"}}},
        {"type": "realtime.input_image", "data": {"content": "data:image/png;base64,", "reply": 0}},
        {"type": CANDIDATE, "data": {"candidate": None}},
        {"type": CANDIDATE, "data": {"candidate": {"candidate": "", "sdpMid": "0"}}},
        {"type": "realtime.input_text"},
        {"no": "type"},
        [1, 2],
    ],
)
async def test_e7_what_means_nothing_is_ignored(human: Emulator, message: Any) -> None:
    async with dial(human) as client:
        await client.ready()
        before = len(client.frames)
        await client.send(message)
        await client.echo("alive")
        # Nothing was said in reply: "Parrot: " and "alive", whole, end of audio.
        assert client.types()[before:] == [DELTA, DELTA, DONE, AUDIO_DONE]


async def test_e7_binary_frames_and_broken_json_are_ignored(human: Emulator) -> None:
    async with dial(human) as client:
        await client.ready()
        await client.socket.send(b"\x00\x01\x02")
        await client.socket.send("{not json")
        await client.echo("alive")


@pytest.mark.parametrize(
    ("query", "path", "text"),
    [
        ("license=sk_navtalk_WRONG&name=navtalk.Lea", PATH, "Invalid license key"),
        ("name=navtalk.Lea", PATH, "Invalid license key"),
        (f"license={LICENCE}&name=nobody", PATH, "Avatar not found"),
        (f"license={LICENCE}&avatarId={'f' * 32}", PATH, "Avatar not found"),
        (f"license={LICENCE}&avatarId={'f' * 32}&name=navtalk.Lea", PATH, "Avatar not found"),
        (f"license={LICENCE}", PATH, "Avatar not found"),
        (
            f"license={LICENCE}&name=navtalk.Lea",
            "/elsewhere",
            "There is no such path; sessions are at /wss/v2/realtime-chat",
        ),
        (
            f"license={LICENCE}&characterName=navtalk.Lea",
            "/api/realtime-api",
            f"{V1}, at /wss/v2/realtime-chat",
        ),
        (
            "userId=7",
            "/api/webrtc",
            f"{V1}, at /wss/v2/realtime-chat",
        ),
    ],
)
async def test_e8_a_refusal_is_told_after_the_upgrade_in_both_places_then_closed(
    human: Emulator, query: str, path: str, text: str
) -> None:
    async with dial(human, query, path=path) as client:
        closed = await client.until_end()
        assert client.frames == [{"type": FAIL, "message": text, "data": {"message": text}}]
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1008
        assert "WRONG" not in closed.rcvd.reason


async def test_e8_the_end_of_the_server_closes_with_1001() -> None:
    async with emulate(brain=Parrot()) as human:
        url = f"{human.url}{PATH}?license={LICENCE}&name=navtalk.Lea"
        socket = await websockets.asyncio.client.connect(url, proxy=None)
        client = await Raw(socket).ready()
    closed = await client.until_end()
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1001


@pytest.mark.usefixtures("on_loopback")
async def test_e9_nothing_internal_is_ever_sent(human: Emulator) -> None:
    async with dial(human) as client, joined(client):
        await client.say(tone(0.5) + bytes(48_000))
        await client.next(AUDIO_DONE)
        await client.say(tone(0.5))  # Barge-in: where the internal break message would be sent.
        await client.next(STARTED)
        await client.echo("and on")
        forbidden = {"webrtc.streaming.break", "webrtc.signaling.iceRestartRequest"}
        assert not forbidden & set(client.types())
        # 6.3 item 1: no trickle at all, so no null candidate either.
        assert CANDIDATE not in client.types()


async def test_e11_nothing_is_required_of_a_client(human: Emulator) -> None:
    before = asyncio.all_tasks()
    async with dial(human) as client:
        await client.ready()
        await client.echo("no answer, no candidates")
        theirs = asyncio.all_tasks() - before
        client.socket.transport.abort()  # no goodbye, not even a close frame
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(theirs)
    assert human.server.sessions == frozenset()
    async with dial(human) as client:
        await client.ready()


async def test_e12_a_text_frame_of_15_mib_is_taken(human: Emulator) -> None:
    async with dial(human) as client:
        await client.ready()
        noise = np.random.default_rng(1).integers(0, 256, (1960, 2000, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "PNG", compress_level=0)
        picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        assert len(picture) > 14.9 * 1024 * 1024
        await client.send(
            {"type": "realtime.input_image", "data": {"content": picture, "reply": 1}}
        )
        frame = await client.next(DONE)
        assert frame["data"]["content"] == "Parrot: PNG 2000 x 1960"


async def test_e12_more_than_16_mib_ends_the_session(human: Emulator) -> None:
    async with dial(human) as client:
        await client.ready()
        picture = "A" * (16 * 1024 * 1024)
        await client.send(
            {"type": "realtime.input_image", "data": {"content": picture, "reply": 1}}
        )
        closed = await client.until_end()
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1009


# ---- E10: the look-ups, as browsers and SDKs make them


async def http(
    human: Emulator, method: str, target: str, *headers: str
) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection(human.server.host, human.server.port)
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{human.server.port}", *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(PATIENCE):
        response = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = response.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    named = dict(field.split(": ", 1) for field in fields)
    return int(status.split(" ")[1]), {name.lower(): v for name, v in named.items()}, body


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (f"/api/open/v1/avatar/detail?license={LICENCE}&avatarId={LEA}", ()),
        (f"/api/open/v1/avatar/detail?avatarId={LEA}", (f"license: {LICENCE}",)),
        (f"/api/open/v1/avatar/getByName?license={LICENCE}&name=navtalk.Lea", ()),
        ("/api/open/v1/avatar/getByName?name=navtalk.Lea", (f"license: {LICENCE}",)),
    ],
    ids=["JS by id", "iOS by id", "JS by name", "iOS by name"],
)
async def test_e10_avatar_look_ups(human: Emulator, target: str, headers: tuple[str, ...]) -> None:
    origin = "Origin: https://shop.example"
    status, fields, body = await http(human, "GET", target, origin, *headers)
    assert status == 200
    assert fields["access-control-allow-origin"] == "*"
    reply = json.loads(body)
    assert (reply["code"], reply["message"]) == (200, "SUCCESS")
    assert reply["data"]["id"] == LEA
    assert reply["data"]["providerName"] == "openai"
    for name in ("url", "thumbnailUrl"):
        portrait = reply["data"][name]
        assert portrait.startswith(human.url.replace("ws://", "http://"))
    target = reply["data"]["url"].removeprefix(human.url.replace("ws://", "http://"))
    status, fields, body = await http(human, "GET", target)
    assert (status, fields["content-type"]) == (200, "image/png")
    assert body.startswith(b"\x89PNG")


async def test_e10_a_preflight_allows_the_license_header(human: Emulator) -> None:
    status, fields, body = await http(
        human,
        "OPTIONS",
        f"/api/open/v1/avatar/detail?avatarId={LEA}",
        "Origin: https://shop.example",
        "Access-Control-Request-Method: GET",
        "Access-Control-Request-Headers: license",
    )
    assert status == 204
    assert body == b""
    assert fields["access-control-allow-origin"] == "*"
    assert "license" in fields["access-control-allow-headers"].split(", ")
    assert "GET" in fields["access-control-allow-methods"].split(", ")


async def test_e10_generate_ice_servers_gives_what_success_gives(human: Emulator) -> None:
    status, fields, body = await http(
        human, "POST", "/api/webrtc/generate-ice-servers", "Content-Length: 0"
    )
    assert status == 200
    assert fields["access-control-allow-origin"] == "*"
    reply = json.loads(body)
    assert reply["code"] == 200
    async with dial(human) as client:
        success = await client.next(SUCCESS)
        assert reply["data"]["iceServers"] == success["data"]["iceServers"]


@pytest.mark.parametrize(
    ("fields", "pieces"),
    [
        ("Content-Length: 2\r\n\r\n", [b"{}"]),
        ("content-length: 6\r\n\r\nabc", [b"def"]),
        ("Transfer-Encoding: chunked\r\n\r\n", [b"2\r\n{}\r\n", b"0\r\n\r\n"]),
        ("Content-", [b"Length", b": 3\r\n\r", b"\n", b"abc"]),
        ("X: " + "y" * 8000 + "\r\n\r\n", []),
    ],
    ids=["JSON", "in two", "chunked", "in many", "long head"],
)
async def test_e10_a_post_with_a_body_is_answered_too(
    human: Emulator, fields: str, pieces: list[bytes]
) -> None:
    reader, writer = await asyncio.open_connection(human.server.host, human.server.port)
    head = f"POST /api/webrtc/generate-ice-servers HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}"
    for piece in (head[:3].encode(), head[3:].encode(), *pieces):
        writer.write(piece)
        await writer.drain()
        # The server reads it before the next one is written: what crosses is another test.
        for _ in range(10):
            await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        response = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert response.startswith(b"HTTP/1.1 200 ")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["data"]["iceServers"]


async def test_e10_a_post_whose_head_does_not_end_is_dropped(human: Emulator) -> None:
    reader, writer = await asyncio.open_connection(human.server.host, human.server.port)
    writer.write(b"POST / HTTP/1.1\r\nX: " + b"y" * 20_000)
    async with asyncio.timeout(PATIENCE):
        response = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b" 200 " not in response


async def test_e10_other_paths_are_not_found(human: Emulator) -> None:
    status, _, _ = await http(human, "GET", "/favicon.ico")
    assert status == 404


async def test_the_advertised_stun_server_answers(human: Emulator) -> None:
    async with dial(human) as client:
        success = await client.next(SUCCESS)
    url = success["data"]["iceServers"][0]["urls"][0]
    host, port = url.removeprefix("stun:").rsplit(":", 1)
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            answered.set_result(data)

    transport, _ = await loop.create_datagram_endpoint(Receiver, remote_addr=(host, int(port)))
    ours = transport.get_extra_info("sockname")
    cookie, transaction = 0x2112A442, os.urandom(12)
    transport.sendto(struct.pack("!HHI", 0x0001, 0, cookie) + transaction)
    async with asyncio.timeout(PATIENCE):
        data = await answered
    transport.close()
    kind, _, theirs = struct.unpack_from("!HHI", data)
    assert (kind, theirs, data[8:20]) == (0x0101, cookie, transaction)
    # XOR-MAPPED-ADDRESS, RFC 8489 section 14.2.
    at = data.index(struct.pack("!HH", 0x0020, 8), 20)
    family, xport, xaddress = struct.unpack_from("!xBHI", data, at + 4)
    assert family == 1
    assert xport ^ (cookie >> 16) == ours[1]
    assert (xaddress ^ cookie).to_bytes(4, "big") == bytes(map(int, ours[0].split(".")))


# ---- 2.2: the query, as clients write it


@pytest.mark.parametrize(
    "query",
    [
        f"license={LICENCE}&avatarId={LEA}",
        f"license={LICENCE}&name=navtalk.Lea&model=gpt-realtime-mini",
        f"name=navtalk.Lea&license={LICENCE}",
        f"model=gpt-realtime&avatarId={LEA}&name=ignored&license={LICENCE}",
        f"license={LICENCE}&userId=7&name=navtalk.Lea&utm=&x",
        f"license={LICENCE}&characterName=navtalk.Lea",
        f"license={LICENCE}&name=navtalk%2ELea",
        f"license={LICENCE}&name=Ana+Maria",
        f"license={LICENCE}&name=Ana%20Maria",
        f"license={LICENCE}&name=Dr./ESL:tutor@home?(a,b)",
        f"license={LICENCE}&name={quote('Dr./ESL:tutor@home?(a,b)', safe='')}",
        f"license={LICENCE}&name=navtalk.Lea&audioBack=true",
        f"license={LICENCE}&name=navtalk.Lea&model=transparency",
    ],
)
async def test_2_2_queries_as_clients_write_them(human: Emulator, query: str) -> None:
    async with dial(human, query) as client:
        await client.ready()
        assert client.types()[0] == SUCCESS
        assert WARNING not in client.types()


async def test_2_2_an_ambiguous_name_is_warned_of_directly_after_success(human: Emulator) -> None:
    async with dial(human, f"license={LICENCE}&name=twin") as client:
        await client.ready()
        assert client.types()[:2] == [SUCCESS, WARNING]
        text = "Multiple avatars share the name 'twin'; using the most recently updated one."
        assert client.frames[1] == {
            "type": WARNING,
            "message": text,
            "data": {"message": text, "avatarId": "2" * 32},
        }


@pytest.mark.parametrize("origin", [None, "null", "https://anywhere.example", "file://"])
async def test_2_2_no_origin_is_rejected(human: Emulator, origin: str | None) -> None:
    async with dial(human, origin=origin) as client:
        await client.ready()


# ---- 6.3: signaling


def sections(sdp: str) -> list[list[str]]:
    """The lines of each m-line's section."""
    found: list[list[str]] = []
    for line in sdp.split("\r\n"):
        if line.startswith("m="):
            found.append([])
        if found:
            found[-1].append(line)
    return found


def sdp_of(frame: dict[str, Any]) -> str:
    sdp = frame["data"]["sdp"]["sdp"]
    assert isinstance(sdp, str)
    return sdp


async def offered(human: Emulator) -> str:
    async with dial(human) as client:
        await client.ready()
        return sdp_of(client.one(OFFER))


async def test_6_3_1_all_candidates_are_in_the_offer(human: Emulator) -> None:
    sdp = await offered(human)
    first = sections(sdp)[0]
    candidates = [line for line in first if line.startswith("a=candidate:")]
    hosts = {line.split(" ")[4] for line in candidates}
    assert "127.0.0.1" in hosts
    assert all(" typ host" in line and " udp " in line.lower() for line in candidates)
    assert "\na=ice-options:trickle" not in sdp


async def test_6_3_4_video_before_audio_in_one_stream_and_one_bundle(human: Emulator) -> None:
    sdp = await offered(human)
    kinds = [section[0].split(" ")[0] for section in sections(sdp)]
    assert kinds == ["m=video", "m=audio"]
    streams = re.findall(r"a=msid:(\S+) (\S+)", sdp)
    assert len(streams) == 2
    assert streams[0][0] == streams[1][0] != "-"
    assert streams[0][1] != streams[1][1]
    mids = re.findall(r"a=mid:(\S+)", sdp)
    assert re.findall(r"a=group:BUNDLE (.+)\r", sdp) == [" ".join(mids)]
    for section in sections(sdp):
        assert {"a=sendonly", "a=setup:actpass", "a=rtcp-mux"} <= set(section)


async def test_6_3_6_full_ice(human: Emulator) -> None:
    assert "a=ice-lite" not in await offered(human)


async def test_6_3_12_vp8_h264_and_opus(human: Emulator) -> None:
    video, audio = sections(await offered(human))
    codecs = Counter(re.findall(r"a=rtpmap:\d+ ([^/]+)/(\d+)", "\n".join(video)))
    assert {("VP8", "90000"), ("H264", "90000")} <= set(codecs)
    assert re.search(r"a=rtpmap:\d+ opus/48000/2", "\n".join(audio))


@asynccontextmanager
async def joined(client: Raw) -> AsyncIterator[RTCPeerConnection]:
    """The offer answered by an aiortc peer, which is then connected."""
    await client.ready()
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connected = asyncio.Event()

    @peer.on("connectionstatechange")
    def changed() -> None:
        if peer.connectionState == "connected":
            connected.set()

    try:
        await peer.setRemoteDescription(
            RTCSessionDescription(sdp=sdp_of(client.one(OFFER)), type="offer")
        )
        await peer.setLocalDescription(await peer.createAnswer())
        local = peer.localDescription
        await client.send({"type": ANSWER, "data": {"sdp": {"type": "answer", "sdp": local.sdp}}})
        async with asyncio.timeout(PATIENCE):
            await connected.wait()
        yield peer
    finally:
        await peer.close()


@pytest.fixture
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock aiortc, which the raw client has, gathers nothing where only loopback exists."""
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


def track(peer: RTCPeerConnection, kind: str) -> Any:
    (found,) = (
        one.receiver.track for one in peer.getTransceivers() if one.receiver.track.kind == kind
    )
    return found


@pytest.mark.usefixtures("on_loopback")
async def test_6_3_11_idle_tracks_flow_with_pictures_and_silence(human: Emulator) -> None:
    async with dial(human) as client, joined(client) as peer:
        async with asyncio.timeout(PATIENCE):
            pictures = [await track(peer, "video").recv() for _ in range(25)]
            sounds = [await track(peer, "audio").recv() for _ in range(50)]
        assert all(isinstance(one, av.VideoFrame) for one in pictures)
        assert {(one.width, one.height) for one in pictures} == {(512, 512)}
        # 25 pictures a second: 3600 steps of the 90 kHz clock between two of them.
        steps = np.diff([one.pts for one in pictures])
        assert set(steps % 3600) == {0}
        assert float(np.median(steps)) == 3600
        loudest = max(int(np.abs(one.to_ndarray().astype(int)).max()) for one in sounds)
        assert loudest <= 2
        assert client.count(OFFER) == 1


@pytest.mark.usefixtures("on_loopback")
async def test_6_3_9_a_client_offer_is_answered_and_media_goes_on(human: Emulator) -> None:
    async with dial(human) as client, joined(client) as peer:
        await track(peer, "video").recv()
        await peer.setLocalDescription(await peer.createOffer())
        local = peer.localDescription
        await client.send({"type": OFFER, "data": {"sdp": {"type": "offer", "sdp": local.sdp}}})
        answer = await client.next(ANSWER)
        # iOS and Android read an answer at the top level only (5.4).
        assert answer["sdp"] == answer["data"]["sdp"]
        assert answer["sdp"]["type"] == "answer"
        await peer.setRemoteDescription(
            RTCSessionDescription(sdp=answer["sdp"]["sdp"], type="answer")
        )
        assert peer.signalingState == "stable"
        last = await track(peer, "video").recv()
        async with asyncio.timeout(PATIENCE):
            while (await track(peer, "video").recv()).pts < last.pts + 90_000:
                pass
        await client.echo("still talking")


@pytest.mark.usefixtures("on_loopback")
async def test_3_candidates_may_come_before_the_answer(human: Emulator) -> None:
    async with dial(human) as client:
        await client.ready()
        for text in (
            "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host",
            "candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active",
            "candidate:3 1 udp 2122260223 1f4712db-ea17-4bcf-a596.local 54596 typ host",
        ):
            candidate = {"candidate": text, "sdpMid": "0", "sdpMLineIndex": 0}
            await client.send({"type": CANDIDATE, "data": {"candidate": candidate}})
        async with joined(client) as peer:
            await track(peer, "video").recv()


@pytest.mark.usefixtures("on_loopback")
async def test_the_voice_is_heard_over_webrtc_and_not_over_the_socket(human: Emulator) -> None:
    async with dial(human) as client, joined(client) as peer:
        await client.send({"type": "response.create"})
        assert (await client.next(DONE))["data"]["content"] == GREETING
        level = -math.inf
        async with asyncio.timeout(PATIENCE):
            while level < -20.0:
                samples = (await track(peer, "audio").recv()).to_ndarray().astype(float)
                power = float(np.mean(samples**2))
                level = 10 * math.log10(power / 32768.0**2) if power else -math.inf
        assert "realtime.response.audio.delta" not in client.types()


# ---- section 7: what each stock client does, in its own words


class Mute:
    """Synthesises nothing, quickly."""

    name = "mute"

    async def synthesise(self, text: str) -> bytes:
        return b""


@pytest.fixture
async def echo() -> AsyncIterator[Emulator]:
    avatars = (Avatar(id=LEA, name="navtalk.Lea", voice="marin", first_message="Welcome!"),)
    async with emulate(brain=EchoBrain(Mute()), avatars=avatars, tool_timeout=0.2) as human:
        yield human


CALL = "realtime.response.function_call_arguments.done"
RESPOND = {"type": "response.create"}


def tool(name: str, *required: str) -> dict[str, Any]:
    properties: Any = {one: {"type": "string", "description": "..."} for one in required}
    parameters = {"type": "object", "properties": properties or [], "required": list(required)}
    return {"type": "function", "name": name, "description": "...", "parameters": parameters}


def function_call(*tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "realtime.input_function_call", "data": {"content": json.dumps(tools)}}


def item(content: Any) -> dict[str, Any]:
    return {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": content},
    }


def text_item(text: str) -> dict[str, Any]:
    return item([{"type": "input_text", "text": text}])


def camera(reply: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (320, 240), "teal").save(file, "JPEG", quality=70)
    content = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "realtime.input_image", "data": {"content": content, "reply": reply}}


async def said(client: Raw) -> str:
    text: str = (await client.next(DONE))["data"]["content"]
    await client.next(AUDIO_DONE)
    return text


async def test_7_1_js_sdk_announces_tools_at_once_and_never_answers_a_call(echo: Emulator) -> None:
    async with dial(echo, f"license={LICENCE}&avatarId={LEA}") as client:
        # In onopen, before anything was received; a tool without properties has a list of them.
        await client.send(
            function_call(tool("function_call_close_talk", "userInput"), tool("noop"))
        )
        await client.next(CREATED)
        await client.send(text_item("I am Ana."), text_item("I like tea."))
        await client.ready()
        await client.send(text_item("What did I say?"), RESPOND)
        assert await said(client) == "You said 2 things: I am Ana.; I like tea."
        await client.send(text_item("please close the talk"), RESPOND)
        call = await client.next(CALL)
        assert call["raw_data"]["name"] == "function_call_close_talk"
        assert call["data"]["arguments"] == {"userInput": "please close the talk"}
        await client.next(AUDIO_DONE)
        assert await said(client) == "function_call_close_talk gave no result."


@pytest.mark.usefixtures("on_loopback")
async def test_7_2_ios_sends_candidates_all_along_and_frames_of_its_camera(echo: Emulator) -> None:
    async with dial(echo) as client:
        await client.send(function_call(tool("get_weather", "city")))
        await client.ready()
        candidates = (
            {"candidate": "", "sdpMid": "", "sdpMLineIndex": 0},
            {
                "candidate": "candidate:9 1 tcp 1518149375 127.0.0.1 9 typ host tcptype active",
                "sdpMid": "",
                "sdpMLineIndex": 1,
            },
            {
                "candidate": "candidate:7 1 udp 1686052607 192.0.2.9 4 typ srflx raddr ::1 rport 9",
                "sdpMid": "no such m-line",
                "sdpMLineIndex": 7,
            },
        )
        async with joined(client) as peer:
            for candidate in candidates:
                await client.send({"type": CANDIDATE, "data": {"candidate": candidate}})
            await client.send(camera(reply=0), camera(reply=0))
            await client.say(bytes(48_000))
            await client.send(text_item("Hello"), RESPOND)
            assert await said(client) == "You wrote: Hello I see a picture of 320 x 240 pixels."
            await track(peer, "video").recv()


async def test_7_3_android_replays_its_history_in_one_message(echo: Emulator) -> None:
    async with dial(echo) as client:
        await client.next(CREATED)
        await client.send(item("[{type=input_text, text=I am Ana.}, {type=input_text, text=Tea.}]"))
        await client.ready()
        spoken = tone(0.5) + bytes(48_000)
        for number, at in enumerate(range(0, len(spoken), 1920)):
            audio = base64.b64encode(spoken[at : at + 1920]).decode()
            await client.send(
                {
                    "type": "realtime.input_audio_buffer.append",
                    "data": {"audio": audio, "sequenceNumber": number},
                },
            )
        assert await said(client) == "You said: [0.5 s of speech, -13 dBFS]"
        await client.send(text_item("What did I say?"), RESPOND)
        assert (await said(client)).startswith("You said 3 things: I am Ana.; Tea.; [0.5 s")
        await client.socket.close(1000, "Normal Closure")
        assert client.socket.close_code == 1000


async def test_7_4_clinic_configures_at_once_and_lets_the_avatar_speak_first(
    echo: Emulator,
) -> None:
    async with dial(echo) as client:
        content = json.dumps({"voice": "cedar", "prompt": "You are a nurse."})
        await client.send({"type": "realtime.input_config", "data": {"content": content}})
        await client.next(UPDATED)
        await client.send(RESPOND)
        assert await said(client) == "Welcome!"
        # As some do after a late input_config, too.
        await client.send(
            {"type": "realtime.input_config", "data": {"content": content}}, RESPOND, camera(1)
        )
        while await said(client) != "I see a picture of 320 x 240 pixels.":
            pass
        assert client.count(UPDATED) == 1


async def test_7_4_recruitment_ends_by_a_tool_of_its_input_config(echo: Emulator) -> None:
    async with dial(echo) as client:
        content = json.dumps({"prompt": "Interview.", "tools": [tool("end_conversation")]})
        await client.send({"type": "realtime.input_config", "data": {"content": content}})
        await client.ready()
        await client.send(RESPOND)
        assert await said(client) == "Welcome!"
        await client.send(text_item("end conversation"), RESPOND)
        assert (await client.next(CALL))["data"]["name"] == "end_conversation"
        await client.next(AUDIO_DONE)


@pytest.mark.parametrize("model", ["gpt-realtime", "gpt-realtime-mini"])
async def test_7_4_hotel_and_esl_update_the_session_and_answer_calls(
    echo: Emulator, model: str
) -> None:
    async with dial(echo, f"license={LICENCE}&name=navtalk.Lea&model={model}") as client:
        await client.next(CREATED)
        session = {
            "instructions": "You are a receptionist.",
            "voice": "ash",
            "turn_detection": {"type": "server_vad", "threshold": 0.5},
            "modalities": ["text", "audio"],
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1"},
            "tools": [tool("end_conversation", "reason"), tool("find_room", "guest")],
        }
        await client.send({"type": "session.update", "session": session})
        await client.send(*(text_item(text) for text in ("one", "two", "three")))
        while client.count(UPDATED) < 2:
            await client.receive()
        await client.send(text_item('find a room for "Ana"'), RESPOND)
        call = (await client.next(CALL))["data"]
        assert (call["name"], call["arguments"]) == ("find_room", {"guest": "Ana"})
        output = {
            "type": "function_call_output",
            "call_id": call["call_id"],
            "output": json.dumps({"room": 12}),
        }
        await client.send({"type": "conversation.item.create", "item": output}, RESPOND)
        # Their automatic hang-up waits for audio.done, also of this response (6.4).
        assert await said(client) == "find_room says: room 12."
        await client.send(text_item("What did I say?"), RESPOND)
        assert await said(client) == 'You said 4 things: one; two; three; find a room for "Ana"'


async def test_7_4_wordpress_sends_empty_settings_and_hangs_up_by_a_call(echo: Emulator) -> None:
    async with dial(echo, f"license={LICENCE}&avatarId={LEA}&name=navtalk.Lea") as client:
        content = json.dumps({"voice": "", "prompt": "", "tools": [tool("end_call")]})
        await client.send({"type": "realtime.input_config", "data": {"content": content}})
        await client.ready()
        await client.send(text_item("end call"), RESPOND)
        assert (await client.next(CALL))["data"]["function_name"] == "end_call"
        await client.next(AUDIO_DONE)


async def test_7_4_html_sample_closes_without_a_code(echo: Emulator) -> None:
    before = asyncio.all_tasks()
    async with dial(echo, f"license={LICENCE}&name=navtalk.Lea&x=ü") as client:
        await client.ready()
        theirs = asyncio.all_tasks() - before
        # A browser's close() sends a close frame without a body.
        client.socket.protocol.send_close()
        client.socket.transport.write(b"".join(client.socket.protocol.data_to_send()))
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(theirs)
    assert echo.server.sessions == frozenset()
    assert echo.visits == frozenset()


async def test_7_5_flutter_finds_an_object_in_every_message_of_a_call(echo: Emulator) -> None:
    async with dial(echo) as client:
        await client.ready()
        await client.send(function_call(tool("f_weather")), text_item("weather"), RESPOND)
        await client.next(CALL)
        # Errors too: a result for nothing. Raw.receive looks at each frame.
        data = {"call_id": "none", "output": "1", "reply": 1}
        await client.send({"type": "realtime.function_call_output", "data": data})
        error = await client.next("realtime.response.error")
        assert isinstance(error["data"]["message"], str)


@pytest.mark.usefixtures("on_loopback")
@pytest.mark.parametrize("mode", ["model=transparency", "audioBack=true"])
async def test_7_6_what_is_sent_in_transparency_is_heard_over_webrtc(
    human: Emulator, mode: str
) -> None:
    query = f"license={LICENCE}&name=navtalk.Lea&{mode}"
    async with dial(human, query) as client, joined(client) as peer:
        audio = base64.b64encode(tone(2.0)).decode()
        await client.send({"type": "input_audio_buffer.append", "audio": audio})
        level = -math.inf
        async with asyncio.timeout(PATIENCE):
            while level < -20.0:
                samples = (await track(peer, "audio").recv()).to_ndarray().astype(float)
                power = float(np.mean(samples**2))
                level = 10 * math.log10(power / 32768.0**2) if power else -math.inf
        assert set(client.types()) == {SUCCESS, CREATED, UPDATED, OFFER}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "create", "targetSessionId": "s-1"},
        {"type": "offer", "sdp": {"type": "offer", "sdp": "v=0"}},
        {"type": "answer", "sdp": {"type": "answer", "sdp": "v=0"}},
        {"type": "iceCandidate", "candidate": {"candidate": ""}},
    ],
    ids=lambda message: message["type"],
)
async def test_6_1_a_message_of_v1_is_refused_by_name(
    human: Emulator, message: dict[str, Any]
) -> None:
    async with dial(human) as client:
        await client.ready()
        await client.send(message)
        closed = await client.until_end()
        assert client.frames[-1] == {"type": FAIL, "message": V1, "data": {"message": V1}}
        assert closed.rcvd is not None
        assert (closed.rcvd.code, closed.rcvd.reason) == (1002, "protocol version 1")
