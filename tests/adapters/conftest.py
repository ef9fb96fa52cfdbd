"""One session at a time, on virtual or real time, and what must be left of it: nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from navtalk_asyncio import ClientSession, Endpoint, connect, serve_session
from navtalk_asyncio.media.interface import EngineCallbacks
from navtalk_asyncio.testing import MemoryTransport, PaperEngine, VirtualClockLoop
from navtalk_asyncio.testing import memory_transports as new_pair
from navtalk_proto import ServerConfig
from navtalk_proto.testing import StrictEngine
from navtalk_proto.transport import TransportClosedError
from navtalk_proto.wire.endpoint import parse_request_target

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""

OFFER = "".join(
    f"{line}\r\n"
    for line in (
        "v=0",
        "o=- 1 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1",
        "m=video 9 UDP/TLS/RTP/SAVPF 96",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        "a=sendonly",
        "a=ice-ufrag:far1",
        "a=ice-pwd:pppppppppppppppppppppp",
        "a=fingerprint:sha-256 01:02",
        "a=setup:actpass",
        "a=rtcp-mux",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        "c=IN IP4 0.0.0.0",
        "a=mid:1",
        "a=sendonly",
        "a=ice-ufrag:far1",
        "a=ice-pwd:pppppppppppppppppppppp",
        "a=fingerprint:sha-256 01:02",
        "a=setup:actpass",
        "a=rtcp-mux",
    )
)
"""What a server offers: video before audio, both sent (protocol.md 5.4)."""

WELCOME = (
    "conversation.connected.success",
    {
        "sessionId": "session-abc123",
        "iceServers": [
            {"urls": ["stun:stun.example.org:3478"]},
            {"urls": ["turn:turn.example.org:3478"], "username": "u", "credential": "p"},
        ],
    },
)
CREATED: tuple[str, object] = ("realtime.session.created", {})
UPDATED: tuple[str, object] = ("realtime.session.updated", {})
OFFERED = ("webrtc.signaling.offer", {"sdp": {"type": "offer", "sdp": OFFER}})


class Far:
    """The far end of a client's WebSocket, played by hand, in the JSON of protocol.md 5."""

    def __init__(self, near: MemoryTransport, transport: MemoryTransport) -> None:
        self.near = near
        self.transport = transport

    async def say(self, type: str, data: object = None, **more: object) -> None:
        await self.transport.send_text(Kit.json(type, data, **more))

    async def script(self, *messages: tuple[str, object]) -> None:
        for type, data in messages:
            await self.say(type, data)

    async def hear(self) -> dict[str, Any]:
        text = await self.transport.receive()
        assert isinstance(text, str)
        message: dict[str, Any] = json.loads(text)
        return message

    async def hear_type(self, type: str) -> dict[str, Any]:
        """The next message of a type; those before it are skipped."""
        while (message := await self.hear())["type"] != type:
            pass
        return message

    async def end(self) -> tuple[int | None, str]:
        """Code and reason of the end, once everything said before it was received."""
        while True:
            try:
                await self.transport.receive()
            except TransportClosedError as closed:
                return closed.code, closed.reason

    def heard(self) -> list[str]:
        """The types of everything that the near end sent, in order."""
        return [json.loads(text)["type"] for text in self.near.sent]


class Cancelled:
    """Awaits a coroutine and cancels the task at the coroutine's n-th suspension point.

    With `times` above 1 also at the points after it, as an impatient user does.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], point: int, times: int = 1) -> None:
        self._work = work
        self._point = point
        self._times = times
        self.points = 0
        """Suspension points seen so far."""

    @property
    def hit(self) -> bool:
        return self.points >= self._point

    def __await__(self) -> Generator[Any, Any, Any]:
        give: Callable[[], Any] = partial(self._work.send, None)
        while True:
            try:
                awaited = give()
            except StopIteration as stop:
                return stop.value
            self.points += 1
            if self._point <= self.points < self._point + self._times:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # While it runs: takes effect on what it is about to wait for.
            try:
                give = partial(self._work.send, (yield awaited))
            except BaseException as thrown:  # noqa: BLE001 - handed on
                give = partial(self._work.throw, thrown)


class Tcp:
    """A TCP server on loopback: `serve` runs once per connection, and is cancelled at the end."""

    def __init__(
        self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._run, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # By __aexit__; streams complain about a cancelled task.
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


class Kit:
    """What tests of this folder use; importing a conftest is not possible."""

    offer = OFFER
    welcome, created, updated, offered = WELCOME, CREATED, UPDATED, OFFERED
    ready = (WELCOME, CREATED, UPDATED)
    usable = (WELCOME, OFFERED, CREATED, UPDATED)
    patience = PATIENCE
    cancelled = Cancelled
    tcp = Tcp

    def __init__(self) -> None:
        self.license = f"sk_navtalk_{secrets.token_hex(16)}"
        self.endpoint = Endpoint(license=self.license, name="navtalk.Leo")
        self.transports: list[MemoryTransport] = []
        self.engines: list[PaperEngine] = []

    # ---- the parts of a session

    @staticmethod
    def json(type: str, data: object = None, **more: object) -> str:
        return json.dumps({"type": type, "data": data or {}, **more})

    def far(self) -> Far:
        """A new connection; give `far.near` to the client."""
        near, far = new_pair()
        self.transports.append(near)
        return Far(near, far)

    def engine(self, callbacks: EngineCallbacks, **options: Any) -> PaperEngine:
        engine = PaperEngine(callbacks, StrictEngine("n", **options))
        self.engines.append(engine)
        return engine

    def deaf_engine(self, callbacks: EngineCallbacks) -> PaperEngine:
        """An engine whose transport never connects."""
        return self.engine(callbacks, connects=False)

    def connect(self, far: Far, **options: Any) -> AbstractAsyncContextManager[ClientSession]:
        async def opened(_: Endpoint) -> MemoryTransport:
            return far.near

        return connect(self.endpoint, **{"transport": opened, "engine": self.engine, **options})

    @asynccontextmanager
    async def session(
        self, *, media: bool = False, **options: Any
    ) -> Any:  # AsyncIterator[tuple[ClientSession, Far]]
        """A usable session and its far end."""
        far = self.far()
        await far.script(*(self.usable if media else self.ready))
        async with self.connect(far, media=media, **options) as session:
            yield session, far

    def serve(
        self,
        handler: Callable[[Any], Awaitable[None]],
        far: Far,
        *,
        media: bool = False,
        **more: Any,
    ) -> Coroutine[Any, Any, None]:
        """Run a handler as the server at the far end."""
        self.transports.append(far.transport)
        return serve_session(
            handler,
            far.transport,
            parse_request_target(f"/wss/v2/realtime-chat?license={self.license}&name=navtalk.Leo"),
            config=more.pop("config", None)
            or (ServerConfig() if media else ServerConfig(media=())),
            engine=more.pop("engine", self.engine),
            **more,
        )

    # ---- running

    def run(self, main: Coroutine[Any, Any, T], *, real: bool = False) -> T:
        """Run to the end, on virtual time unless `real`; then nothing may be left.

        Checked: every task, transport and engine, and that the loop had nothing to complain about.
        """
        complaints: list[dict[str, Any]] = []

        async def checked() -> T:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            try:
                if real:
                    async with asyncio.timeout(PATIENCE):
                        return await main
                return await main
            finally:
                if real:
                    await self._last_turns()
                self.check_nothing_left()

        factory = None if real else VirtualClockLoop
        with asyncio.Runner(loop_factory=factory) as runner:
            result = runner.run(checked())
            gc.collect()
        assert not complaints, complaints
        return result

    @staticmethod
    async def _last_turns() -> None:
        """websockets cancels its keep-alive task without waiting for it."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others and all(task.cancelling() for task in others):
            await asyncio.wait(others)

    def check_nothing_left(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks, tasks
        for transport in self.transports:
            assert transport.closed.is_set()
        for engine in self.engines:
            assert engine.closed
        self.transports.clear()
        self.engines.clear()

    @staticmethod
    async def elapsed(work: Awaitable[T]) -> tuple[float, T]:
        """How long it took on the loop's clock, rounded to a microsecond, and its result."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        result = await work
        return round(loop.time() - start, 6), result

    async def refused(self, far: Far, kind: type[Exception], **options: Any) -> tuple[float, Any]:
        """The exception of a connect() that fails, and after how many seconds."""

        async def attempt() -> Any:
            with pytest.raises(kind) as caught:
                async with self.connect(far, **options):
                    pytest.fail("it is usable")
            assert type(caught.value) is kind
            return caught.value

        return await self.elapsed(attempt())

    @staticmethod
    async def settle() -> None:
        """Return once every other task waits: a virtual clock does not move before."""
        assert isinstance(asyncio.get_running_loop(), VirtualClockLoop)
        await asyncio.sleep(0.001)


class Certificates:
    """A certificate for 127.0.0.1 that its own client context trusts, and no other."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "navtalk test")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        chain, private = folder / "cert.pem", folder / "key.pem"
        chain.write_bytes(certificate.public_bytes(Encoding.PEM))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(chain, private)
        self.client = ssl.create_default_context(cafile=chain)


@pytest.fixture(scope="session")
def _frozen() -> Iterator[None]:
    """What is imported by now is not looked at by the collections that each run ends with."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def kit(_frozen: None) -> Kit:
    return Kit()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy from the environment of whoever runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
