"""resolve_avatar() on asyncio: against the emulator's REST, and against servers that fail."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import secrets
import ssl
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from navtalk_asyncio import AvatarDetail, Endpoint, list_avatars, resolve_avatar
from navtalk_asyncio.emulator import emulate
from navtalk_asyncio.emulator.avatars import Avatar
from navtalk_proto import ServerConfig
from navtalk_proto.errors import (
    AvatarLookupError,
    AvatarLookupFailedError,
    AvatarLookupTimeoutError,
    AvatarNotFoundError,
    AvatarReplyError,
    EndpointError,
    LicenseRefusedError,
)
from navtalk_proto.wire.avatar_lookup import MAX_REPLY, LicensePlace

pytestmark = pytest.mark.usefixtures("direct")

LEO = Avatar(id="aaaabbbbccccddddeeeeffff00001111", name="navtalk.Leo", voice="cedar")
ZOE = Avatar(id="11112222333344445555666677778888", name="Zoë & Co+")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Spy(logging.Handler):
    """Everything that any logger says at DEBUG, and every exception that is shown to it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.license = f"sk_navtalk_{secrets.token_hex(16)}"
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += [self.format(record), repr(record.args), repr(record.__dict__)]

    def show(self, error: BaseException) -> None:
        self.lines += traceback.format_exception(error)
        self.lines += [repr(error), repr(vars(error)), repr(error.__context__)]
        assert error.__context__ is None
        assert error.__cause__ is None

    def check(self) -> None:
        text = "\n".join(self.lines)
        assert self.license not in text
        assert self.license[-16:] not in text


@pytest.fixture
def spy() -> Iterator[Spy]:
    spy = Spy()
    root = logging.getLogger()
    # httpx and httpcore keep levels of their own once somebody set them.
    loggers = [root, logging.getLogger("httpx"), logging.getLogger("httpcore")]
    levels = [logger.level for logger in loggers]
    root.addHandler(spy)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield spy
        spy.check()
    finally:
        root.removeHandler(spy)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@asynccontextmanager
async def emulator(spy: Spy) -> AsyncIterator[Any]:
    config = ServerConfig(media=())
    async with emulate(licenses=(spy.license,), avatars=(LEO, ZOE), config=config) as human:
        yield human


def reply(body: bytes | str, *, status: int = 200, headers: str = "") -> Serve:
    """A server that answers any request with this."""
    data = body.encode() if isinstance(body, str) else body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
        writer.write(head.encode() + data)
        await writer.drain()

    return serve


async def failing(kit: Any, spy: Spy, serve: Serve, **options: Any) -> AvatarLookupError:
    """The error of a look-up at this server."""
    async with kit.tcp(serve) as port:
        endpoint = Endpoint(
            base_url=f"ws://127.0.0.1:{port}", license=spy.license, name="navtalk.Leo"
        )
        with pytest.raises(AvatarLookupError) as caught:
            await resolve_avatar(endpoint, **options)
    spy.show(caught.value)
    return caught.value


# ---- the emulator


@pytest.mark.parametrize("place", LicensePlace)
def test_by_name_and_by_id_with_the_licence_in_each_place(
    kit: Any, spy: Spy, place: LicensePlace
) -> None:
    async def main() -> None:
        async with emulator(spy) as human:
            for where in (human.endpoint(name=ZOE.name), human.endpoint(avatar_id=ZOE.id)):
                found = await resolve_avatar(where, license_in=place)
                portrait = f"http://127.0.0.1:{human.server.port}/avatars/{ZOE.id}.png"
                assert found == AvatarDetail(
                    id=ZOE.id,
                    name=ZOE.name,
                    url=portrait,
                    thumbnail_url=portrait,
                    provider_id="1",
                    provider_name="openai",
                    model="gpt-realtime",
                    voice="marin",
                    status="Success",
                )
                assert found.capabilities.tools

    kit.run(main(), real=True)
    # The library did log the request; it is not the silence of a logger that makes this pass.
    assert any("send_request_headers" in line for line in spy.lines)


def test_what_the_emulator_refuses(kit: Any, spy: Spy) -> None:
    async def main() -> None:
        async with emulator(spy) as human:
            for endpoint, kind in (
                (human.endpoint(name="nobody"), AvatarNotFoundError),
                (human.endpoint(avatar_id="0" * 32), AvatarNotFoundError),
                (human.endpoint(license="sk_navtalk_WRONG"), LicenseRefusedError),
            ):
                for place in LicensePlace:
                    with pytest.raises(kind) as caught:
                        await resolve_avatar(endpoint, license_in=place)
                    spy.show(caught.value)
                    assert "WRONG" not in str(caught.value)

    kit.run(main(), real=True)


def test_all_of_a_licence(kit: Any, spy: Spy) -> None:
    async def main() -> None:
        async with emulator(spy) as human:
            for place in LicensePlace:
                found = await list_avatars(human.endpoint(), license_in=place)
                assert [(one.id, one.name, one.voice) for one in found] == [
                    (LEO.id, LEO.name, "cedar"),
                    (ZOE.id, ZOE.name, "marin"),
                ]
            with pytest.raises(LicenseRefusedError) as caught:
                await list_avatars(human.endpoint(license="sk_navtalk_WRONG"))
            spy.show(caught.value)

    kit.run(main(), real=True)


# ---- other servers


def test_a_licence_that_a_server_says_back_is_not_shown(kit: Any, spy: Spy) -> None:
    async def main() -> None:
        body = json.dumps({"code": 401, "message": f"no such key: {spy.license}"})
        # httpcore logs the headers of a reply.
        error = await failing(kit, spy, reply(body, headers=f"X-Echo: {spy.license}\r\n"))
        assert isinstance(error, LicenseRefusedError)
        assert error.text == "no such key: ***"

    kit.run(main(), real=True)
    assert any("X-Echo" in line and "***" in line for line in spy.lines)


def test_a_redirect_that_says_the_url_back_is_not_logged_with_the_licence(
    kit: Any, spy: Spy
) -> None:
    async def main() -> None:
        location = f"Location: https://127.0.0.1/?license={spy.license}\r\n"
        serve = reply("", status=301, headers=location)
        error = await failing(kit, spy, serve, license_in=LicensePlace.QUERY)
        assert "said 301" in str(error)

    kit.run(main(), real=True)
    assert any("Location" in line and "license=***" in line for line in spy.lines)
    assert logging.getLogger("httpcore.http11").filters == []


@pytest.mark.parametrize(
    ("serve", "kind", "says"),
    [
        (reply("<html>", status=502), AvatarLookupFailedError, "said 502"),
        (reply("", status=302, headers="Location: /x\r\n"), AvatarLookupFailedError, "said 302"),
        (reply("<html>"), AvatarReplyError, "not JSON"),
        (reply("{}"), AvatarReplyError, "envelope"),
        (reply(bytes(MAX_REPLY + 1)), AvatarReplyError, "larger than 1048576 bytes"),
        # It was asked for none: a small reply must not unpack to a large one.
        (
            reply(gzip.compress(b"{}"), headers="Content-Encoding: gzip\r\n"),
            AvatarReplyError,
            "not JSON",
        ),
        (reply(b"", headers="Bad\x00: header\r\n"), AvatarLookupFailedError, "ProtocolError"),
    ],
)
def test_a_reply_that_is_none(
    kit: Any, spy: Spy, serve: Serve, kind: type[AvatarLookupError], says: str
) -> None:
    async def main() -> None:
        error = await failing(kit, spy, serve)
        assert type(error) is kind
        assert says in str(error)

    kit.run(main(), real=True)


def test_a_server_that_hangs_up(kit: Any, spy: Spy) -> None:
    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()

    async def main() -> None:
        for serve in (at_once, in_the_middle):
            error = await failing(kit, spy, serve)
            assert isinstance(error, AvatarLookupFailedError)
            assert error.status is None

    kit.run(main(), real=True)


def test_nobody_listens(kit: Any, spy: Spy) -> None:
    async def main() -> None:
        async with kit.tcp(reply("")) as port:
            pass
        endpoint = Endpoint(base_url=f"ws://127.0.0.1:{port}", license=spy.license, name="x")
        with pytest.raises(AvatarLookupFailedError, match="ConnectError") as caught:
            await resolve_avatar(endpoint)
        spy.show(caught.value)

    kit.run(main(), real=True)


ENOUGH = 1.0
"""Seconds in which a question reaches its server, also on a busy machine."""


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_server_that_says_no_more(kit: Any, spy: Spy, sent: bytes) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await asyncio.Event().wait()

    async def main() -> None:
        error = await failing(kit, spy, mute, timeout=ENOUGH)
        assert isinstance(error, AvatarLookupTimeoutError)
        assert error.seconds == ENOUGH

    kit.run(main(), real=True)


def test_cancelling_leaves_nothing(kit: Any, spy: Spy) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await asyncio.Event().wait()

        async with kit.tcp(mute) as port:
            endpoint = Endpoint(base_url=f"ws://127.0.0.1:{port}", license=spy.license, name="x")
            looking = asyncio.create_task(resolve_avatar(endpoint))
            await asked.wait()
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking

    kit.run(main(), real=True)


def test_a_timeout_around_it_stays_the_callers(kit: Any, spy: Spy) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with kit.tcp(mute) as port:
            endpoint = Endpoint(base_url=f"ws://127.0.0.1:{port}", license=spy.license, name="x")
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(ENOUGH):
                    await resolve_avatar(endpoint)
            assert not isinstance(caught.value, AvatarLookupTimeoutError)

    kit.run(main(), real=True)


# ---- TLS, proxies, what is missing


# On 3.13 the standard library's stream server drops the writer of a handshake that failed.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function StreamWriter.__del__"
    ":pytest.PytestUnraisableExceptionWarning"
)
def test_over_tls_with_a_context_of_ones_own(kit: Any, spy: Spy, certificates: Any) -> None:
    body = json.dumps({"code": 200, "data": {"id": "7"}})

    async def main() -> None:
        server = await asyncio.start_server(reply(body), "127.0.0.1", 0, ssl=certificates.server)
        async with server:
            port = server.sockets[0].getsockname()[1]
            where = Endpoint(base_url=f"wss://127.0.0.1:{port}", license=spy.license, name="x")
            assert await resolve_avatar(where, ssl=certificates.client) == AvatarDetail(id="7")
            with pytest.raises(AvatarLookupFailedError, match="CERTIFICATE_VERIFY_FAILED"):
                await resolve_avatar(where, ssl=ssl.create_default_context())
        # asyncio's server still deals with the handshake that failed.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    kit.run(main(), real=True)


def test_through_the_proxy_of_the_environment_or_another_or_none(
    kit: Any, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"code": 200, "data": {"id": "proxied"}})
    direct = json.dumps({"code": 200, "data": {"id": "direct"}})

    async def main() -> None:
        async with kit.tcp(reply(body)) as proxy, kit.tcp(reply(direct)) as port:
            url = f"http://127.0.0.1:{proxy}"
            where = Endpoint(base_url=f"ws://127.0.0.1:{port}", license=spy.license, name="x")
            assert (await resolve_avatar(where)).id == "direct"
            assert (await resolve_avatar(where, proxy=url)).id == "proxied"
            for name in ("http_proxy", "all_proxy"):
                monkeypatch.setenv(name, url)
                assert (await resolve_avatar(where)).id == "proxied"
                assert (await resolve_avatar(where, proxy=None)).id == "direct"
                monkeypatch.setenv("no_proxy", "127.0.0.1")
                assert (await resolve_avatar(where)).id == "direct"
                monkeypatch.delenv("no_proxy")
                monkeypatch.delenv(name)
            with pytest.raises(ValueError, match="proxy"):
                await resolve_avatar(where, proxy="gopher://127.0.0.1")

    kit.run(main(), real=True)


def test_a_licence_that_no_header_carries_is_refused_before_anything_is_sent(
    kit: Any, spy: Spy
) -> None:
    async def main() -> None:
        where = Endpoint(base_url="ws://127.0.0.1:1", license=f"{spy.license}\r\nx: y", name="x")
        with pytest.raises(EndpointError) as caught:
            await resolve_avatar(where)
        spy.show(caught.value)

    kit.run(main(), real=True)


def test_without_httpx_it_says_what_to_install() -> None:
    code = """
import asyncio, sys
sys.modules["httpx"] = None
import navtalk_asyncio
endpoint = navtalk_asyncio.Endpoint(license="sk_navtalk_EXAMPLE", name="x")
try:
    asyncio.run(navtalk_asyncio.resolve_avatar(endpoint))
except ImportError as error:
    print(type(error).__name__, error.name, error)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == (
        "ImportError httpx httpx is not installed; pip install 'navtalk[rest]'\n"
    )
