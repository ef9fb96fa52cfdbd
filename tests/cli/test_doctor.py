"""``navtalk doctor`` names each cause in one line with a hint, and skips what needs the step."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import websockets.asyncio.server
from coturn_server import Coturn, make_certificate, require_coturn, started

from navtalk_asyncio.cli.app import run
from navtalk_asyncio.cli.backend import AsyncioBackend
from navtalk_asyncio.cli.doctor import STEPS, examine
from navtalk_asyncio.cli.findings import Finding, Verdict
from navtalk_asyncio.emulator import Emulator, emulate
from navtalk_asyncio.emulator.face import Face
from navtalk_asyncio.emulator.mouthpiece import Mouthpiece
from navtalk_asyncio.emulator.tracks import FaceTrack, VoiceTrack
from navtalk_asyncio.media import peer
from navtalk_asyncio.media.aiortc_engine import AiortcEngine
from navtalk_asyncio.server import ServerSession, serve
from navtalk_asyncio.testing import udp_wire
from navtalk_proto.config import SEND_MEDIA
from navtalk_proto.errors import MediaError, SessionClosedError
from navtalk_proto.secret import Secret
from navtalk_proto.testing.impairment import PacketKind, packet_kind
from navtalk_proto.testing.udp_wire import Address, Side, UdpWire, WiredTransport
from navtalk_proto.transport import Transport
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    IceServer,
    SessionCreated,
    SessionUpdated,
)

pytestmark = pytest.mark.anyio

LICENCE = "sk_navtalk_EXAMPLE"
WRONG = "sk_navtalk_EXAMPLE_that_is_wrong"
LIMIT = 6.0
"""Seconds of each step; a step that works needs a small part of them on a busy machine too."""
SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "command-line.schema.json").read_text("utf-8")
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Examined:
    """What the doctor found."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        failed = [one for one in findings if one.verdict is Verdict.FAILED]
        assert len(failed) <= 1
        self.failed = failed[0] if failed else None
        for one in findings:
            assert LICENCE not in one.text + one.hint
            assert bool(one.hint) == (one.verdict in (Verdict.FAILED, Verdict.WARNING)), one
        steps = list(dict.fromkeys(one.step for one in findings))
        assert steps == [step for step in STEPS if step in steps]
        if self.failed is not None:
            rest = STEPS[STEPS.index(self.failed.step) + 1 :]
            skipped = [one.step for one in findings if one.verdict is Verdict.SKIPPED]
            seen = {one.step for one in findings if one.verdict is not Verdict.SKIPPED}
            assert skipped == [step for step in rest if step not in seen]

    def step(self, name: str) -> Finding:
        return next(one for one in self.findings if one.step == name)

    def fails(self, step: str, code: int, text: str, hint: str) -> None:
        assert self.failed is not None, self.findings
        assert (self.failed.step, int(self.failed.code)) == (step, code), self.failed
        assert re.search(text, self.failed.text), self.failed.text
        assert hint in self.failed.hint, self.failed.hint


async def examined(
    endpoint: Endpoint,
    *,
    limit: float = LIMIT,
    seconds: float = 1.0,
    backend: AsyncioBackend | None = None,
) -> Examined:
    findings: list[Finding] = []
    await examine(
        backend or AsyncioBackend(), endpoint, findings.append, timeout=limit, seconds=seconds
    )
    return Examined(findings)


async def examined_until(step: str, look: Callable[[float], Awaitable[Examined]]) -> Examined:
    """Looks until this step fails, with more time for each if another one had too little.

    The step takes all of its time: a short one will do, unless the machine is busy.
    """
    for limit in (2.0, 6.0, 18.0):
        found = await look(limit)
        if found.failed is not None and found.failed.step == step:
            break
    return found


def at(url: str, name: str = "x", licence: str = LICENCE) -> Endpoint:
    return Endpoint(base_url=url, license=licence, name=name)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


# ---- what works


async def test_a_healthy_server() -> None:
    async with emulate() as human:
        found = await examined(human.endpoint(), seconds=2.0)
    assert found.failed is None, found.failed
    assert [one.step for one in found.findings] == list(STEPS)
    assert all(one.verdict is Verdict.OK for one in found.findings), found.findings
    assert "video VP8" in found.step("offer").text
    assert "is seen as 127.0.0.1:" in found.step("ice server").text
    assert found.step("pictures").text.startswith("512x512, ")
    assert re.fullmatch(
        r"[\d.]+:\d+ -> [\d.]+:\d+ works: host to host, udp", found.step("ice").text
    )


# ---- the way there


async def test_a_dead_name() -> None:
    found = await examined(at("wss://navtalk.invalid"))
    found.fails("name", 4, r"navtalk\.invalid cannot be resolved", "spelling")


async def test_nobody_listens() -> None:
    found = await examined(at(f"ws://127.0.0.1:{closed_port()}"))
    found.fails("tcp", 4, "127.0.0.1 refuses connections", "nothing listens there")


async def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wss_proxy", "WSS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    port = closed_port()
    monkeypatch.setenv("https_proxy", f"http://user:EXAMPLE-password@127.0.0.1:{port}")
    found = await examined(at("wss://navtalk.invalid"))
    found.fails("tcp", 4, f"127.0.0.1 of the proxy refuses connections at port {port}", "listens")
    assert found.step("proxy").text == f"http://127.0.0.1:{port}, from the environment"


@asynccontextmanager
async def tls_server(folder: Path) -> AsyncIterator[int]:
    """A TLS server whose certificate is for 127.0.0.1."""
    certificate, key = make_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_certificate_of_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tls_server(tmp_path) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        found = await examined(at(f"wss://localhost:{port}"))
    found.fails("tls", 4, "not accepted: .*not valid for 'localhost'", "check the URL's host name")


async def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as port:
        found = await examined(at(f"wss://127.0.0.1:{port}"))
    found.fails("tls", 4, "not accepted", "SSL_CERT_FILE")


async def test_a_port_without_tls() -> None:
    async with emulate() as human:
        found = await examined(at(human.url.replace("ws:", "wss:")))
    found.fails("tls", 4, "TLS|dropped in the handshake", "does not speak TLS")


@asynccontextmanager
async def raw(*texts: str, status: int | None = None) -> AsyncIterator[str]:
    """A WebSocket server that says these texts and nothing else, or that answers with a status."""

    def refuse(connection: Any, request: Any) -> Any:
        return None if status is None else connection.respond(status, "no\n")

    async def talk(connection: Any) -> None:
        for text in texts:
            await connection.send(text)
        await connection.wait_closed()

    async with websockets.asyncio.server.serve(
        talk, "127.0.0.1", 0, process_request=refuse
    ) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def test_an_old_host() -> None:
    async with raw(status=404) as url:
        found = await examined(at(url))
    found.fails("websocket", 4, "HTTP 404", "version 2 is at /wss/v2/realtime-chat")


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, 5, "what the gateway in front of the server wants"),
        (502, 4, "the service behind it is not"),
        (503, 5, "full or in maintenance"),
    ],
)
async def test_a_gateway_that_refuses(status: int, code: int, hint: str) -> None:
    async with raw(status=status) as url:
        found = await examined(at(url))
    found.fails("websocket", code, f"HTTP {status}", hint)


# ---- the session


async def test_a_wrong_licence() -> None:
    async with emulate() as human:
        found = await examined(human.endpoint(license=WRONG))
    found.fails("session", 3, "Invalid license key", "check the licence in NAVTALK_LICENSE")


async def test_an_avatar_that_does_not_exist() -> None:
    async with emulate() as human:
        found = await examined(human.endpoint(name="navtalk.Nobody"))
    found.fails("session", 5, "Avatar not found", "case-sensitive")


async def test_an_old_path() -> None:
    async with emulate() as human:
        found = await examined(at(f"{human.url}/api/realtime-api"))
    found.fails("session", 7, "version 1", "give the URL with /wss/v2/realtime-chat")


async def test_a_server_of_version_1() -> None:
    async with raw('{"type": "session.session_id", "sessionId": "s-1"}') as url:
        found = await examined(at(url))
    found.fails("session", 7, "version 1", "find its version 2 endpoint")


async def test_a_silent_server() -> None:
    async with emulate(faults="mute") as human:
        found = await examined(human.endpoint(), limit=2.0)
    found.fails("session", 4, "says nothing for 2 s", "its backend hangs")


@pytest.mark.parametrize(
    ("refusal", "text", "hint"),
    [
        ("insufficient_balance", r"\(insufficient_balance\)", "add credit"),
        ("gpu_full", r"\(gpu_full\)", "try again later"),
        ("connection_limit_exceeded", "connection_limit", "close another session"),
    ],
)
async def test_a_refusal(refusal: str, text: str, hint: str) -> None:
    async with emulate(refuse=refusal) as human:
        found = await examined(human.endpoint())
    found.fails("session", 5, text, hint)


async def test_a_session_that_the_server_ends_while_it_is_watched() -> None:
    async with emulate(faults="refuse=gpu_full@1s") as human:
        # Longer than the session will be: it is over when the server ends it.
        found = await examined(human.endpoint(), seconds=60.0)
    found.fails("throughput", 5, r"received in .*\(gpu_full\): No GPU worker is free", "later")


async def test_a_backend_that_does_not_start() -> None:
    async with raw('{"type": "conversation.connected.success", "data": {"sessionId": "s"}}') as url:
        found = await examined(at(url), limit=2.0)
    found.fails("ready", 4, "session.created", "backend does not start")


# ---- media

FACE = Face(64, 64)


@asynccontextmanager
async def human_with(*servers: IceServer) -> AsyncIterator[Endpoint]:
    """A human that names these ICE servers."""

    async def talk(session: ServerSession) -> None:
        mouth = Mouthpiece()
        engine = session.engine
        assert isinstance(engine, AiortcEngine)
        engine.add_tracks(FaceTrack(FACE, mouth), VoiceTrack(mouth))
        await session.send(ConnectedSuccess(session_id="s-1", ice_servers=servers))
        await session.send(SessionCreated())
        await session.send(SessionUpdated())
        with suppress(MediaError, SessionClosedError):
            await session.negotiate(*SEND_MEDIA)
        async for _ in session.events():
            pass

    async with serve(
        talk, engine=lambda callbacks: AiortcEngine(callbacks, loopback=True)
    ) as server:
        yield at(server.url)


async def test_a_dead_stun_server() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"stun:127.0.0.1:{silent.getsockname()[1]}"
        async with human_with(IceServer(urls=(url,))) as endpoint:
            found = await examined(endpoint, limit=2.0)
    told = found.step("ice server")
    assert told.verdict is Verdict.WARNING
    assert told.text == f"{url}: no answer within 2 s"
    assert "it is dead, or UDP to it is blocked" in told.hint
    assert found.failed is None


@pytest.fixture(scope="module")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterable[Coturn]:
    require_coturn()
    folder = tmp_path_factory.mktemp("coturn")
    with started(folder, make_certificate(folder)) as running:
        yield running


async def test_turn_servers_one_by_one(
    coturn: Coturn, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (coturn.log.parent / "coturn.conf").read_text()
    certificate = re.search(r"^cert=(.*)$", config, re.MULTILINE)
    assert certificate is not None
    monkeypatch.setenv("SSL_CERT_FILE", certificate[1])
    good = [coturn.server(way) for way in ("udp", "tcp", "tls")]
    wrong = coturn.server("udp", secret=Secret("EXAMPLE-wrong"))
    async with human_with(*good, wrong) as endpoint:
        found = await examined(endpoint)
    told = [one for one in found.findings if one.step == "ice server"]
    assert [one.verdict for one in told] == [*[Verdict.OK] * 3, Verdict.WARNING]
    for one, server in zip(told, good, strict=False):
        assert re.fullmatch(rf"{re.escape(server.urls[0])}: relays at 127\.0\.0\.1:\d+", one.text)
    assert told[3].text.endswith("wrong or expired credentials (401)")
    assert "wrong or expired user name or password" in told[3].hint
    assert "EXAMPLE" not in "".join(one.text + one.hint for one in found.findings)
    assert found.failed is None


async def test_no_common_codec() -> None:
    sdp = "\r\n".join(
        (
            "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0",
            "m=video 9 UDP/TLS/RTP/SAVPF 45", "c=IN IP4 0.0.0.0", "a=rtcp-mux",
            "a=ice-ufrag:abcd", "a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa",
            "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
            "a=setup:actpass", "a=mid:0", "a=sendonly", "a=rtpmap:45 AV1/90000", "",
        )
    )  # fmt: skip
    texts = [
        {"type": "conversation.connected.success", "data": {"sessionId": "s"}},
        {"type": "realtime.session.created", "data": {}},
        {"type": "realtime.session.updated", "data": {}},
        {"type": "webrtc.signaling.offer", "data": {"sdp": {"type": "offer", "sdp": sdp}}},
    ]
    async with raw(*map(json.dumps, texts)) as url:
        found = await examined_until("offer", lambda limit: examined(at(url), limit=limit))
    found.fails("offer", 6, "^offered video AV1: ", "no codec in common")


async def test_blocked_udp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "STILL_CHECKING", 0.2)
    async with emulate(faults="loss=100%") as human:
        where = human.endpoint()
        found = await examined_until("ice", lambda limit: examined(where, limit=limit))
    found.fails("ice", 4, r"no pair works; tried .*127\.0\.0\.1:\d+ -> ", "UDP is blocked")


Wrap = Callable[[Transport], Transport]


class Under(AsyncioBackend):
    """An adapter whose WebSockets are put under something."""

    def __init__(self, wrap: Wrap) -> None:
        self._wrap = wrap

    @asynccontextmanager
    async def websocket(self, endpoint: Endpoint, **options: Any) -> AsyncIterator[Transport]:
        async with super().websocket(endpoint, **options) as transport:
            yield self._wrap(transport)


async def test_dtls_that_is_dropped_where_stun_passes() -> None:
    async with emulate() as human, udp_wire() as wire:
        wire.cut("dtls")
        where, backend = human.endpoint(), Under(wire.wrap)
        found = await examined_until(
            "dtls", lambda limit: examined(where, limit=limit, backend=backend)
        )
    assert found.step("ice").verdict is Verdict.OK
    found.fails("dtls", 4, "the handshake did not end", "lets STUN pass and nothing else")
    assert wire.counters("dtls", towards=Side.FAR).swallowed > 0


class OtherCertificate(WiredTransport):
    """Offers name another certificate than DTLS shows."""

    async def receive(self) -> str | bytes:
        message = await self._transport.receive()
        assert isinstance(message, str)
        return re.sub(r"(fingerprint:sha-\d+ )[^\\]+", r"\1" + ":".join(["AB"] * 32), message)


async def test_a_certificate_that_is_not_the_one_of_the_offer() -> None:
    async with emulate() as human, udp_wire() as wire:
        backend = Under(lambda transport: OtherCertificate(transport, wire))
        found = await examined(human.endpoint(), limit=LIMIT, backend=backend)
    assert found.step("ice").verdict is Verdict.OK
    found.fails("dtls", 4, "certificate is not the one", "something on the way answers for it")


class LatePictures(UdpWire):
    """Packets of pictures take so many seconds more: audio has the first payload type of aiortc."""

    def datagram(self, faces: Side, data: bytes, source: Address, *, now: float) -> None:
        late = packet_kind(data) is PacketKind.RTP and data[1] & 0x7F != AUDIO
        super().datagram(faces, data, source, now=now + 0.4 * late)


AUDIO = 96


async def test_pictures_that_come_later_than_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[udp_wire.__module__], "UdpWire", LatePictures)
    async with emulate() as human, udp_wire() as wire:
        backend = Under(wire.wrap)
        for seconds in (2.5, 5.0, 10.0):  # Until both reports have come.
            found = await examined(human.endpoint(), seconds=seconds, backend=backend)
            told = found.step("a/v offset")
            if "not known" not in told.text:
                break
    assert told.verdict is Verdict.WARNING, told
    assert re.fullmatch(r"the picture is [34]\d\d ms later than the sound", told.text), told
    assert "people notice" in told.hint
    assert found.failed is None


# ---- the command


@pytest.mark.parametrize("package", ["navtalk_asyncio", "navtalk_trio"])
@pytest.mark.parametrize(
    ("name", "code", "failed"), [(None, 0, None), ("navtalk.Nobody", 5, "session")]
)
async def test_the_command_on_both_loops(
    package: str, name: str | None, code: int, failed: str | None, tmp_path: Path
) -> None:
    def looked(human: Emulator) -> subprocess.CompletedProcess[str]:
        whom = human.endpoint(name=name).name or ""
        return subprocess.run(
            [
                sys.executable, "-m", package, "doctor", human.url,
                "--avatar", whom, "--json", "--seconds", "1",
                "--trace", "call.jsonl",
            ],
            cwd=tmp_path,
            env={"PATH": "", "NAVTALK_LICENSE": LICENCE},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )  # fmt: skip

    async with emulate() as human:
        done = await asyncio.to_thread(looked, human)
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert (document["failed"], document["exit_code"]) == (failed, code)
    assert LICENCE not in done.stdout + done.stderr
    assert run(AsyncioBackend(), ["replay", str(tmp_path / "call.jsonl")]) == 0


def test_the_lines_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAVTALK_LICENSE", LICENCE)
    arguments = ["doctor", f"ws://127.0.0.1:{closed_port()}", "--avatar", "x"]
    assert run(AsyncioBackend(), arguments) == 4
    captured = capsys.readouterr()
    assert captured.err == ""
    proxy, name, tcp, hint, skipped = captured.out.splitlines()
    assert proxy == "ok       proxy                none"
    assert re.fullmatch(r"ok       name        \d\.\d{3} s  127\.0\.0\.1 is 127\.0\.0\.1", name)
    assert re.fullmatch(r"FAILED   tcp         \d\.\d{3} s  127\.0\.0\.1 refuses .*", tcp)
    assert hint.strip() == ("hint: nothing listens there: check the port, and that the server runs")
    assert skipped.startswith("skipped  tls, websocket, ")
    assert skipped.endswith(", throughput: it needs: tcp")
