"""No licence and no TURN credential, whatever characters they have, in anything that can be read:
reprs, tracebacks, logs of every library at every level, events, counters, history, the commands."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import navtalk_asyncio
import navtalk_trio
from navtalk_asyncio.cli.timeline import timeline, timeline_page
from navtalk_asyncio.cli.trace_rows import rows
from navtalk_asyncio.emulator import emulate
from navtalk_asyncio.media.aiortc_engine import AiortcEngine
from navtalk_proto import (
    ClientConfig,
    ConnectRefusedError,
    Endpoint,
    NavTalkError,
    ReconnectPolicy,
    Secret,
    ServerConfig,
)
from navtalk_proto.actions import OpenPeer, SetLocal
from navtalk_proto.config import RECEIVE_MEDIA
from navtalk_proto.connection import Connection
from navtalk_proto.engine import EngineCallbacks
from navtalk_proto.events import MessageReceived, Reconnected
from navtalk_proto.inputs import (
    Input,
    IntentGiven,
    MediaFailed,
    TextReceived,
    TransportClosed,
    TransportOpened,
)
from navtalk_proto.intents import SayText
from navtalk_proto.limits import Limits
from navtalk_proto.media import IcePolicy, OpId
from navtalk_proto.redaction import redact
from navtalk_proto.roles import Role
from navtalk_proto.tracing.recorder import Recorder
from navtalk_proto.tracing.replayer import read, replay
from navtalk_proto.tracing.scrubber import Scrubber
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import (
    ConnectedFail,
    ConnectedSuccess,
    ConnectionLimitExceeded,
    IceServer,
    ResponseCreate,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    TranscriptDone,
)

PATIENCE = 60.0
NO_MEDIA = ServerConfig(media=())
PACKAGES = {"asyncio": navtalk_asyncio, "trio": navtalk_trio}


class Hidden:
    """A secret in two halves that nothing else contains, with any characters around them."""

    def __init__(self, before: str, between: str, after: str) -> None:
        self.halves = (secrets.token_hex(8), secrets.token_hex(8))
        first, second = self.halves
        self.text = f"{before}{first}{between}{second}{after}"

    def __repr__(self) -> str:
        return "a hidden secret"

    def found_in(self, text: str) -> bool:
        """Whether so much as half of it is there; encoding leaves the halves as they are."""
        return any(half in text for half in self.halves)


characters = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from(" &=+%?#'\"\\/;,:@<>\n\t\0{}"),
    max_size=6,
)
hidden = st.builds(Hidden, characters, characters, characters)


class Everything(logging.Handler):
    """All that was logged, by anybody, at any level, and all that was shown to it."""

    def __init__(self) -> None:
        super().__init__(0)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.read: list[str] = []
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.names.add(record.name.partition(".")[0])
        self.read += [self.format(record), repr(record.args), repr(record.exc_info)]

    def show(self, *values: object) -> None:
        for value in values:
            self.read += [repr(value), str(value), f"{value}"]
            if isinstance(value, BaseException):
                self.read += traceback.format_exception(value)
            if attrs.has(type(value)):
                self.read.append(repr(attrs.asdict(value, recurse=False)))  # type: ignore[arg-type]

    def check(self, *wanted: Hidden) -> None:
        text = "\n".join(self.read)
        assert text
        for one in wanted:
            assert not one.found_in(text), next(
                line for line in self.read if one.found_in(line)
            ).replace(one.text, "<secret>")

    def __enter__(self) -> Everything:
        root = logging.getLogger()
        self._level = root.level
        self._levels = {
            name: logging.getLogger(name).level for name in logging.root.manager.loggerDict
        }
        for name in self._levels:
            logging.getLogger(name).setLevel(0)
        root.addHandler(self)
        root.setLevel(1)
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


@pytest.fixture(autouse=True, scope="module")
def direct() -> Iterator[None]:
    """No proxy from the environment of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.lower().endswith("_proxy"):
                patch.delenv(name)
        yield


def run(loop: str, main: Callable[[], Awaitable[None]]) -> None:
    async def on_asyncio() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    async def on_trio() -> None:
        with trio.fail_after(PATIENCE):
            await main()

    if loop == "asyncio":
        asyncio.run(on_asyncio())
    else:
        trio.run(on_trio)


# Each example opens sockets; a few say as much as fifty do.
few = settings(
    max_examples=300 if os.environ.get("NAVTALK_PROFILE") == "nightly" else 8,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("loop", PACKAGES)
@few
@given(licence=hidden, credential=hidden)
def test_a_session(loop: str, licence: Hidden, credential: Hidden) -> None:
    package: Any = PACKAGES[loop]
    arrived: list[str] = []

    with Everything() as everything:

        async def handler(session: Any) -> None:
            everything.show(session, session.request)
            arrived.append(session.request.license.reveal())
            turn = IceServer(
                urls=("turn:turn.example.org",), username="u", credential=Secret(credential.text)
            )
            everything.show(turn)
            await session.send(ConnectedSuccess(session_id="s", ice_servers=(turn,)))
            for message in (SessionCreated(), SessionUpdated()):
                await session.send(message)
            async for event in session.events():
                everything.show(event)
                if isinstance(event, MessageReceived) and isinstance(event.message, ResponseCreate):
                    await session.send(TranscriptDone(response_id="r", content="Seven."))

        async def main() -> None:
            async with package.serve(handler, config=NO_MEDIA) as server:
                where = Endpoint(base_url=server.url, license=licence.text, name="navtalk.Leo")
                everything.show(where, where.redacted_url(), server, server.counters)
                async with package.connect(where, media=False, observe=everything.show) as session:
                    await session.send_text("hello")
                    async for event in session.events():
                        everything.show(event)
                        if isinstance(event, MessageReceived):
                            break
                    everything.show(session, session.counters, session._media_driver.core)
                    arrived.append(
                        session._media_driver.core._negotiation.ice_servers[0].credential.reveal()
                    )
                    everything.show(session.history.to_json(), session.history, *session.history)
                with pytest.raises(NavTalkError) as caught:
                    await session.send_text("too late")
                everything.show(caught.value, session.end)

        run(loop, main)
        everything.check(licence, credential)
    # They were there to be leaked, and the libraries did log.
    assert arrived == [licence.text, credential.text]
    assert ("navtalk" if loop == "asyncio" else "trio-websocket") in everything.names


@pytest.mark.parametrize("loop", PACKAGES)
@pytest.mark.parametrize("kind", ["refused", "hung up", "no port", "rejected", "silent"])
@few
@given(licence=hidden, credential=hidden)
def test_connections_that_fail(loop: str, kind: str, licence: Hidden, credential: Hidden) -> None:
    package: Any = PACKAGES[loop]

    with Everything() as everything:
        logging.getLogger("navtalk").debug("listened to")

        async def handler(session: Any) -> None:
            if kind == "refused":
                await session.send(ConnectedFail(message="Invalid license key"))
            elif kind == "hung up":
                await session.close(1011, "broken")
            else:
                async for event in session.events():
                    everything.show(event)

        async def main() -> None:
            options = {"max_sessions": 0} if kind == "rejected" else {}
            async with package.serve(handler, config=NO_MEDIA, **options) as server:
                url = "ws://127.0.0.1:1" if kind == "no port" else server.url
                where = Endpoint(base_url=url, license=licence.text, name="x")
                # The credential is one of the client's own servers here.
                turn = IceServer(urls=("turn:t",), username="u", credential=Secret(credential.text))
                config = ClientConfig(default_ice_servers=(turn,))
                everything.show(config)
                with pytest.raises(NavTalkError) as caught:
                    async with package.connect(
                        where,
                        media=False,
                        observe=everything.show,
                        config=config,
                        timeout=0.2 if kind == "silent" else 20.0,
                    ):
                        pytest.fail("it is usable")
                everything.show(caught.value, server)

        run(loop, main)
        everything.check(licence, credential)


@pytest.mark.parametrize("loop", PACKAGES)
@pytest.mark.parametrize("kind", ["comes back", "refused for good"])
@few
@given(licence=hidden, credential=hidden)
def test_a_session_that_reconnects(
    loop: str, kind: str, licence: Hidden, credential: Hidden
) -> None:
    """What is told between two connections, by the next one, and by the end of it all."""
    package: Any = PACKAGES[loop]
    visits: list[str] = []

    with Everything() as everything:

        async def handler(session: Any) -> None:
            visits.append(session.request.license.reveal())
            everything.show(session, session.request)
            if len(visits) == 2:
                full, bad = ConnectionLimitExceeded(message="full"), ConnectedFail(message="bad")
                await session.send(full if kind == "comes back" else bad)
                return
            turn = IceServer(
                urls=("turn:turn.example.org",), username="u", credential=Secret(credential.text)
            )
            success = ConnectedSuccess(session_id=f"s-{len(visits)}", ice_servers=(turn,))
            for message in (success, SessionCreated(), SessionUpdated()):
                await session.send(message)
            async for event in session.events():
                everything.show(event)
                updated = isinstance(event, MessageReceived) and isinstance(
                    event.message, SessionUpdate
                )
                if updated and len(visits) == 1:
                    await session.close(1001, "going away")

        async def main() -> None:
            policy = ReconnectPolicy(first_delay=0.001, give_up_after=20.0)
            everything.show(policy)
            async with package.serve(handler, config=NO_MEDIA) as server:
                where = Endpoint(base_url=server.url, license=licence.text, name="navtalk.Leo")
                async with package.connect(
                    where, media=False, reconnect=policy, observe=everything.show
                ) as session:
                    await session.update(instructions="Be brief.")
                    async for event in session.events():
                        everything.show(event)
                        if isinstance(event, Reconnected):
                            break
                    everything.show(session, session.counters, session.history, session._pump)
                    if kind == "comes back":
                        assert session.id == "s-3"
                    else:
                        with pytest.raises(NavTalkError) as caught:
                            await session.send_text("too late")
                        everything.show(caught.value)
                everything.show(session.end)

        run(loop, main)
        everything.check(licence, credential)
    assert set(visits) == {licence.text}
    assert len(visits) == (3 if kind == "comes back" else 2)


@few
@given(credential=hidden)
def test_what_the_media_libraries_log(credential: Hidden) -> None:
    """aiortc and aioice against a TURN server that asks who is there, and believes nobody."""
    from aioice import stun

    asked: list[Any] = []

    class Turn(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            request = stun.parse_message(data)
            asked.append(request)
            refusal = stun.Message(request.message_method, stun.Class.ERROR, request.transaction_id)
            refusal.attributes["ERROR-CODE"] = (401, "Unauthorized")
            refusal.attributes["NONCE"] = b"nonce"
            refusal.attributes["REALM"] = "example.org"
            self.transport.sendto(bytes(refusal), address)

    with Everything() as everything:

        async def main() -> None:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(Turn, local_addr=("127.0.0.1", 0))
            port = transport.get_extra_info("sockname")[1]
            ended = asyncio.Queue[Any]()
            callbacks = EngineCallbacks(
                done=lambda op, result: ended.put_nowait(result),
                failed=lambda op, reason: ended.put_nowait(reason),
                event=everything.show,
            )
            engine = AiortcEngine(callbacks, loopback=True)
            turn = IceServer(
                urls=(f"turn:127.0.0.1:{port}",),
                username="u",
                credential=Secret(credential.text),
            )
            command = OpenPeer(
                op=OpId(1),
                ice_servers=(turn,),
                policy=IcePolicy.ALL,
                media=RECEIVE_MEDIA,
                allow_ice_server=lambda url, address: True,
            )
            everything.show(command)
            engine.execute(command)
            everything.show(await ended.get())
            engine.execute(SetLocal(op=OpId(2), media=RECEIVE_MEDIA))
            everything.show(await ended.get(), engine)
            await engine.aclose()
            transport.close()

        asyncio.run(main())
        everything.check(credential)
    assert any("MESSAGE-INTEGRITY" in request.attributes for request in asked), "never used"
    assert {"aioice", "aiortc"} & everything.names


# ---- the texts of other people


@given(
    secret=hidden,
    before=st.sampled_from(("GET /x?", "wss://h/p?a=b&", "")),
    name=st.sampled_from(("license", "licence", "LICENSE")),
)
def test_urls_in_texts(secret: Hidden, before: str, name: str) -> None:
    for encoded in (quote(secret.text, safe=""), quote_plus(secret.text)):
        assert not secret.found_in(redact(f"{before}{name}={encoded}&name=x HTTP/1.1"))


@given(secret=hidden)
def test_messages_that_hold_them(secret: Hidden) -> None:
    server = IceServer(urls=("turn:t",), username="u", credential=Secret(secret.text))
    written = codec.encode(ConnectedSuccess(session_id="s", ice_servers=(server,)))
    assert secret.found_in(written), "it has to get to the client"
    success = codec.decode(written, sender=Role.SERVER, limits=Limits())
    assert isinstance(success, ConnectedSuccess)
    assert success.ice_servers == (server,)
    assert not secret.found_in(f"{success!r} {server!r} {attrs.asdict(success)!r}")


@given(secret=hidden, at=st.integers(0, 200), put=st.sampled_from(('"', "{", "1", "\x00", "")))
def test_broken_messages_that_hold_them(secret: Hidden, at: int, put: str) -> None:
    """What is wrong with a message is said without a word of it."""
    server = IceServer(urls=("turn:t",), username="u", credential=Secret(secret.text))
    written = codec.encode(ConnectedSuccess(session_id="s", ice_servers=(server,)))
    broken = written[:at] + put + written[at + 1 :]
    core = Connection(Role.CLIENT, ClientConfig(media=()), now=0.0)
    core.transport_opened(now=0.0)
    core.receive_text(broken, now=0.0)
    assert not secret.found_in(f"{core.actions()!r} {core!r} {core.counters!r}")


# ---- the commands


COMMANDS = {
    "help": ("--help",),
    "talk help": ("talk", "--help"),
    "usage": ("talk",),
    "no such option": ("talk", "--licence", "x"),
    "no avatar": ("talk", "-o", "a.mkv", "--text", "hi", "--url", "ws://127.0.0.1:1"),
    "no port": (
        "talk", "-o", "a.mkv", "--text", "hi", "--avatar", "x", "--url", "ws://127.0.0.1:1",
    ),
    "bad url": ("talk", "-o", "a.mkv", "--text", "hi", "--avatar", "x", "--url", "http://h"),
}  # fmt: skip


@pytest.mark.parametrize("module", ["navtalk_asyncio", "navtalk_trio"])
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_commands(module: str, arguments: tuple[str, ...], tmp_path: Any) -> None:
    secret = Hidden("-'\"% ", "&=", " \u00e9+#")
    assert not secret.found_in(output_of(module, arguments, secret, tmp_path)[1])


@pytest.mark.parametrize("module", ["navtalk_asyncio", "navtalk_trio"])
@pytest.mark.parametrize("accepted", [True, False])
def test_commands_against_the_emulator(module: str, accepted: bool, tmp_path: Any) -> None:
    secret = Hidden("-'\"% ", "&=", " \u00e9+#")
    ready, stop = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        known = (secret.text,) if accepted else ("sk_navtalk_EXAMPLE",)
        async with emulate(licenses=known) as human:
            urls.append(human.url)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        arguments = ("talk", "-o", "a.mkv", "--text", "hi", "--avatar", "navtalk.Lea")
        code, text = output_of(module, (*arguments, "--url", urls[0]), secret, tmp_path)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert code == (0 if accepted else 3), text
    assert not secret.found_in(text)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert not any(half.encode() in content for half in secret.halves)


@pytest.mark.parametrize("module", ["navtalk_asyncio", "navtalk_trio"])
def test_serving(module: str, tmp_path: Any) -> None:
    """The licences that it lets in, and those that it does not: all are in URLs that it is sent."""
    known, unknown = (Hidden(" '\"% ", "&=", " \u00e9+#") for _ in range(2))
    with subprocess.Popen(
        (
            sys.executable,
            "-X",
            "dev",
            "-m",
            module,
            "serve",
            "--port",
            "0",
            "--license",
            known.text,
        ),
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            head = ""
            while "avatar:    " not in head:
                line = process.stdout.readline()
                assert line, head
                head += line
            url = head.partition("programs:  ")[2].split()[0]
            avatar = head.partition("avatar:    ")[2].split()[0]

            async def visit(licence: Hidden) -> bool:
                where = Endpoint(base_url=url, license=licence.text, name=avatar)
                try:
                    async with navtalk_asyncio.connect(where, media=False) as session:
                        await session.send_text("hello", respond=False)
                except ConnectRefusedError:
                    return False
                return True

            async def visits() -> list[bool]:
                async with asyncio.timeout(PATIENCE):
                    return [await visit(known), await visit(unknown)]

            assert asyncio.run(visits()) == [True, False]
            process.send_signal(signal.SIGINT)
            text = head + process.communicate(timeout=PATIENCE)[0]
        finally:
            process.kill()
    assert process.returncode == 0, text
    assert "session 1" in text
    assert not known.found_in(text)
    assert not unknown.found_in(text)


def output_of(
    module: str, arguments: tuple[str, ...], secret: Hidden, folder: Any
) -> tuple[int, str]:
    done = subprocess.run(
        (sys.executable, "-X", "dev", "-m", module, *arguments),
        env={**os.environ, "NAVTALK_LICENSE": secret.text, "PYTHONIOENCODING": "utf-8"},
        cwd=folder,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


@settings(max_examples=50, deadline=None)
@given(licence=hidden, user=hidden, credential=hidden)
def test_a_trace_and_what_it_is_shown_as(licence: Hidden, user: Hidden, credential: Hidden) -> None:
    lines: list[str] = []
    recorder = Recorder(lines.append, Scrubber([licence.text]), started="", versions={})
    core = Connection(Role.CLIENT, ClientConfig(), now=0.0)
    recording = recorder.connection(core, now=0.0, complete=True)
    server = IceServer(
        urls=("turn:turn.example.org",), username=user.text, credential=Secret(credential.text)
    )
    success = ConnectedSuccess(session_id="s-1", ice_servers=(server,))
    quoting = f"{licence.text} {user.text} {quote(credential.text, safe='')} {credential.text}"
    given_in_order: tuple[Input, ...] = (
        TransportOpened(),
        TextReceived(text=codec.encode(success)),
        TextReceived(text=codec.encode(SessionCreated(data={"credential": credential.text}))),
        TextReceived(text=codec.encode(SessionUpdated())),
        TextReceived(text=codec.encode(TranscriptDone(response_id="r", content=quoting))),
        TextReceived(text=json.dumps({"type": "what", "told": quoting})),
        TextReceived(text=f"{{ {json.dumps(quoting)} is no JSON, {quoting}"),
        IntentGiven(intent=SayText(text=quoting)),
        MediaFailed(op=OpId(1), reason=quoting),
        TransportClosed(code=1008, reason=quoting),
    )
    for number, given_now in enumerate(given_in_order):
        now = float(number)
        given_now.give(core, now=now)
        recording.happened(given_now, core.actions(), now=now, raised=None)
    records = list(read(lines))
    shown = [*lines, *map(repr, rows(records)), timeline_page(timeline(records), title="call")]
    for one in (licence, user, credential):
        assert not any(one.found_in(text) for text in shown)
    assert replay(lines).divergence is None
