"""No licence and no TURN credential in a log, repr, exception, traceback or event.

Both are random for each test, every logger speaks at DEBUG, and everything that the scenario made
is printed; then both are looked for in all of that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection

from navtalk_asyncio import Endpoint, HttpReply, HttpRequest, ServerSession, connect, serve
from navtalk_asyncio.websocket import websocket_logger
from navtalk_proto import ClientConfig, NavTalkError, Secret, ServerConfig
from navtalk_proto.events import Connected
from navtalk_proto.media import MediaKind, MediaLine, MediaState, MediaStateChanged
from navtalk_proto.redaction import redact
from navtalk_proto.wire.messages import (
    ConnectedSuccess,
    IceServer,
    SessionCreated,
    SessionUpdated,
)

pytestmark = pytest.mark.usefixtures("direct")

NO_MEDIA = ServerConfig(media=())


class Spy(logging.Handler):
    """Everything that was logged, as a root handler would write it; and everything shown to it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.credential = f"turn-{secrets.token_hex(16)}"
        self.lines: list[str] = []
        self.shown: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.lines.append(repr(record.args))

    def show(self, *values: object) -> None:
        for value in values:
            self.shown += [repr(value), str(value)]
            if isinstance(value, BaseException):
                self.shown += traceback.format_exception(value)

    def check(self, kit: Any) -> None:
        assert self.lines
        text = "\n".join(self.lines + self.shown)
        assert kit.license not in text
        assert kit.license[-16:] not in text
        assert self.credential not in text


@pytest.fixture
def spy() -> Iterator[Spy]:
    spy = Spy()
    root = logging.getLogger()
    level = root.level
    root.addHandler(spy)
    root.setLevel(logging.DEBUG)
    try:
        yield spy
    finally:
        root.setLevel(level)
        root.removeHandler(spy)


def turn(spy: Spy) -> IceServer:
    return IceServer(
        urls=("turn:turn.example.org",), username="u", credential=Secret(spy.credential)
    )


async def attempt(spy: Spy, where: Endpoint, **options: Any) -> Exception:
    """A connect() that fails; the exception, which was shown to the spy."""
    try:
        async with connect(where, observe=spy.show, **{"media": False, **options}) as session:
            spy.show(session)
            async for event in session.events():
                spy.show(event)
    except Exception as error:  # noqa: BLE001 - returned
        spy.show(error)
        return error
    pytest.fail("nothing failed")


def at(kit: Any, url: str) -> Endpoint:
    return Endpoint(base_url=url, license=kit.license, name="navtalk.Leo")


def test_a_session(kit: Any, spy: Spy) -> None:
    seen: list[Any] = []

    async def main() -> None:
        async def handler(session: ServerSession) -> None:
            seen.append(session.request.license)
            spy.show(session, session.request)
            await session.send(ConnectedSuccess(session_id="s", ice_servers=(turn(spy),)))
            await session.send(SessionCreated())
            await session.send(SessionUpdated())
            async for event in session.events():
                spy.show(event)

        async with serve(handler, config=NO_MEDIA) as server:
            where = at(kit, server.url)
            async with connect(where, media=False, observe=spy.show) as session:
                await session.send_text("hello")
            events = [event async for event in session.events()]
            spy.show(where, where.redacted_url(), session, session.counters, server, *events)
            connected = events[0]
            assert isinstance(connected, Connected)
            seen.append(connected.ice_servers[0].credential)

    kit.run(main(), real=True)
    # The secrets were there to be leaked, and the request line was logged without its licence.
    assert [secret.reveal() for secret in seen] == [kit.license, spy.credential]
    request_lines = [line for line in spy.lines if "GET /wss/v2/realtime-chat" in line]
    assert len(request_lines) == 2  # Client's and server's.
    assert all("license=***&name=navtalk.Leo" in line for line in request_lines)
    spy.check(kit)


@pytest.mark.parametrize("fragments", [1, 2, 3])
def test_frames_in_the_log(kit: Any, spy: Spy, fragments: int) -> None:
    """websockets logs the ends of every payload; a credential may be there."""

    async def main() -> None:
        async def handler(connection: ServerConnection) -> None:
            text = kit.json(
                "conversation.connected.success",
                {
                    "sessionId": "s",
                    "iceServers": [
                        {"urls": ["turn:t"], "username": "u", "credential": spy.credential}
                    ],
                },
            )
            size = len(text) // fragments + 1
            await connection.send([text[n : n + size] for n in range(0, len(text), size)])
            await connection.send(spy.credential.encode())
            await connection.send(spy.credential)
            for type, data in (kit.created, kit.updated):
                await connection.send(kit.json(type, data))
            await connection.wait_closed()

        logger = logging.getLogger("elsewhere")
        logger.propagate = False  # The far end's own log is not ours.
        async with websockets.asyncio.server.serve(
            handler, "127.0.0.1", 0, logger=logger
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            where = at(kit, f"ws://127.0.0.1:{port}")
            async with connect(where, media=False, observe=spy.show) as session:
                spy.show(session)

    kit.run(main(), real=True)
    frames = [line for line in spy.lines if line.startswith("navtalk.websocket DEBUG <")]
    assert sum("< TEXT [" in line for line in frames) == 4
    assert sum("< CONT [" in line for line in frames) == fragments  # The last one is empty.
    assert sum("< BINARY [" in line for line in frames) == 1
    spy.check(kit)


RESPONSES = {
    "401 that quotes it": "HTTP/1.1 401 No\r\nX-Key: license=LICENSE\r\n\r\nLICENSE",
    "redirect without end": "HTTP/1.1 302 Found\r\nLocation: ?license=LICENSE\r\n\r\n",
    "redirect to nowhere": "HTTP/1.1 302 Found\r\nLocation: ftp://x/?license=LICENSE\r\n\r\n",
    "no answer": "",
    "no http": "license=LICENSE\r\n\r\n",
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_servers_that_do_not_upgrade(kit: Any, spy: Spy, response: str) -> None:
    async def quote(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        assert kit.license.encode() in request
        writer.write(response.replace("LICENSE", kit.license).encode())
        await writer.drain()

    async def main() -> None:
        async with kit.tcp(quote) as port:
            await attempt(spy, at(kit, f"ws://127.0.0.1:{port}"))

    kit.run(main(), real=True)
    spy.check(kit)


@pytest.mark.parametrize("kind", ["refused port", "no such host", "proxy", "tls", "timeout"])
def test_connections_that_fail(kit: Any, spy: Spy, kind: str, certificates: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        if kind == "tls":
            async with serve(never, config=NO_MEDIA, ssl=certificates.server) as server:
                await attempt(spy, at(kit, server.url))
        elif kind == "timeout":
            async with kit.tcp(silent) as port:
                await attempt(spy, at(kit, f"ws://127.0.0.1:{port}"), timeout=0.1)
        elif kind == "proxy":
            await attempt(
                spy, at(kit, "ws://h.invalid"), proxy=f"http://user:{spy.credential}@127.0.0.1:1"
            )
        else:
            host = {"refused port": "127.0.0.1:1", "no such host": "h.invalid"}[kind]
            await attempt(spy, at(kit, f"ws://{host}"))

    async def never(session: ServerSession) -> None:
        pytest.fail("no session")

    kit.run(main(), real=True)
    spy.check(kit)


def test_a_handler_and_an_http_handler_that_fail(kit: Any, spy: Spy) -> None:
    async def main() -> None:
        async def handler(session: ServerSession) -> None:
            raise KeyError(session.request, turn(spy))

        def http(request: HttpRequest) -> HttpReply | None:
            raise ValueError(request)

        async with serve(handler, config=NO_MEDIA, http=http) as server:
            await attempt(spy, at(kit, server.url))
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                f"GET /api?license={kit.license} HTTP/1.1\r\nHost: h\r\n"
                f"license: {kit.license}\r\n\r\n".encode()
            )
            assert b" 500 " in await reader.readline()
            writer.close()

    kit.run(main(), real=True)
    assert any("session failed" in line for line in spy.lines)
    spy.check(kit)


@pytest.mark.parametrize("kind", ["refused", "closed", "ice", "silence", "driver", "oversize"])
def test_sessions_that_fail(kit: Any, spy: Spy, kind: str) -> None:
    """In memory: what the core and the adapter print of a session that holds both secrets."""
    log = logging.getLogger("test")

    async def main() -> None:
        log.debug("the spy listens")
        far = kit.far()
        success = ConnectedSuccess(session_id="s", ice_servers=(turn(spy),))
        spy.show(success)
        await far.say(
            "conversation.connected.success",
            {
                "sessionId": "s",
                "iceServers": [{"urls": ["turn:t"], "username": "u", "credential": spy.credential}],
            },
        )
        await far.script(kit.offered)
        if kind == "refused":
            await far.say("conversation.connected.gpu_full", message="none")
        elif kind == "closed":
            await far.transport.close(1011, "broken")
        elif kind == "oversize":
            await far.transport.send_text(f"{spy.credential}" * 50_000)
        elif kind == "driver":

            async def broken(text: str) -> None:
                raise KeyError("socket")

            far.near.send_text = broken
        failing = asyncio.create_task(
            attempt(
                spy,
                kit.endpoint,
                media=True,
                transport=lambda endpoint: give(far.near),
                engine=kit.deaf_engine,
                config=ClientConfig(),
            )
        )
        if kind == "ice":
            await kit.settle()
            kit.engines[0].event(MediaStateChanged(state=MediaState.FAILED, reason="no route"))
        error = await failing
        assert isinstance(error, NavTalkError | KeyError)
        if kit.engines:
            spy.show(*kit.engines[0].strict.history, kit.engines[0].strict.ice_servers)

    async def give(transport: Any) -> Any:
        return transport

    kit.run(main())
    spy.check(kit)


def test_calls_that_fail(kit: Any, spy: Spy) -> None:
    logging.getLogger("test").debug("the spy listens")

    async def main() -> None:
        async with kit.session(media=True) as (session, far):
            spy.show(session, session.engine, session._media_driver, session._media_driver.core)
            wish = asyncio.create_task(session.negotiate(MediaLine(kind=MediaKind.VIDEO)))
            await kit.settle()
            far.near.lose()
            await asyncio.wait([wish])
            spy.show(wish.exception())
            for call in (session.send_text("x"), session.send_audio(b"\0\0")):
                with pytest.raises(NavTalkError) as caught:
                    await call
                spy.show(caught.value)

    kit.run(main())
    spy.check(kit)


# ---- the filter itself


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("> GET /x?license=sk_1 HTTP/1.1", "> GET /x?license=*** HTTP/1.1"),
        ("?license=sk_1&name=a b", "?license=***&name=a b"),
        ("?name=a&LICENCE=sk%20_1", "?name=a&LICENCE=***"),
        ("'ws://h/?license=sk_1' isn't", "'ws://h/?license=*** isn't"),
        ("GET /x?license='sk_1\"SECRET&name=a HTTP/1.1", "GET /x?license=***&name=a HTTP/1.1"),
        ("license=a license=b", "license=*** license=***"),
        ("no licence here", "no licence here"),
    ],
)
def test_licences_in_texts(text: str, safe: str) -> None:
    assert redact(text) == safe


@pytest.mark.parametrize(
    ("message", "args", "safe"),
    [
        ("< %s", ("TEXT 'abc ... xyz' [512 bytes]",), "< TEXT [512 bytes]"),
        ("> %s", ("TEXT 'abc' [3 bytes, continued]",), "> TEXT [3 bytes, continued]"),
        ("< %s", ("CONT 'x\ny' [3 bytes]",), "< CONT [3 bytes]"),
        ("< %s", ("BINARY 61 62 [2 bytes]",), "< BINARY [2 bytes]"),
        ("< %s", ("CLOSE 1000 (OK) [2 bytes]",), "< CLOSE 1000 (OK) [2 bytes]"),
        ("< %s: %s", ("License", "sk_1"), "< License: ***"),
        ("< %s: %s", ("Authorization", "Bearer x"), "< Authorization: ***"),
        ("> %s: %s", ("Proxy-Authorization", "Basic x"), "> Proxy-Authorization: ***"),
        ("< %s: %s", ("Host", "h"), "< Host: h"),
        ("< %s", ("CONT 'x' [text, 61 bytes, continued]",), "< CONT [text, 61 bytes, continued]"),
        ("< %s", ("TEXT '[1 bytes]' [11 bytes]",), "< TEXT [11 bytes]"),
        ("% sent keepalive ping", (), "% sent keepalive ping"),
    ],
)
def test_frames_in_records(spy: Spy, message: str, args: tuple[Any, ...], safe: str) -> None:
    websocket_logger().debug(message, *args)
    assert spy.lines[0] == f"navtalk.websocket DEBUG {safe}"


def test_exceptions_in_records(spy: Spy) -> None:
    try:
        int("license=sk_1")
    except ValueError:
        websocket_logger().error("it failed", exc_info=True)
    assert spy.lines[0] == "navtalk.websocket ERROR it failed (ValueError)"


def test_one_filter_however_often_it_is_asked_for() -> None:
    before = len(websocket_logger().filters)
    assert before == 1
    assert len(websocket_logger().filters) == 1
