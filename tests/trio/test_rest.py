"""resolve_avatar() on trio: against the emulator's REST, and against servers that fail."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio

from navtalk_asyncio.emulator.avatars import Avatar
from navtalk_proto import Endpoint, ServerConfig
from navtalk_proto.errors import (
    AvatarLookupError,
    AvatarLookupFailedError,
    AvatarLookupTimeoutError,
    AvatarNotFoundError,
    AvatarReplyError,
    LicenseRefusedError,
)
from navtalk_proto.wire.avatar_lookup import MAX_REPLY, AvatarDetail, LicensePlace
from navtalk_trio import connect, list_avatars, resolve_avatar
from navtalk_trio.testing import emulate

LEO = Avatar(id="aaaabbbbccccddddeeeeffff00001111", name="navtalk.Leo", voice="cedar")
OTHER_LEO = Avatar(id="11112222333344445555666677778888", name="navtalk.Leo", voice="coral")

Serve = Callable[[Any], Awaitable[None]]


@pytest.fixture
def lines(net: Any) -> Iterator[list[str]]:
    """Everything that any logger says at DEBUG; the licence must not be in it."""
    lines: list[str] = []

    class Spy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend((self.format(record), repr(record.__dict__)))

    spy = Spy(logging.DEBUG)
    loggers = [logging.getLogger(name) for name in (None, "httpx", "httpcore")]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(spy)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield lines
        assert net.license not in "\n".join(lines)
    finally:
        loggers[0].removeHandler(spy)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def reply(body: bytes, *, status: int = 200, headers: str = "") -> Serve:
    """A server that answers any request with this."""

    async def serve(stream: Any) -> None:
        await hear_request(stream)
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        await stream.send_all(head.encode() + body)

    return serve


async def hear_request(stream: Any) -> bytes:
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += await stream.receive_some(65_536)
    return heard


async def failing(net: Any, serve: Serve, lines: list[str], **options: Any) -> AvatarLookupError:
    """The error of a look-up at this server."""
    async with net.tcp(serve) as port:
        with pytest.raises(AvatarLookupError) as caught:
            await resolve_avatar(net.endpoint(port), **options)
    assert caught.value.__context__ is None
    lines.extend(traceback.format_exception(caught.value))
    return caught.value


def test_by_name_and_by_id_with_the_licence_in_each_place(net: Any, lines: list[str]) -> None:
    async def main() -> None:
        async with emulate(
            licenses=(net.license,), avatars=(OTHER_LEO, LEO), config=ServerConfig(media=())
        ) as human:
            for place in LicensePlace:
                # Of two with one name the last one counts, as on the socket (2.2).
                found = await resolve_avatar(human.endpoint(), license_in=place)
                assert found in await list_avatars(human.endpoint(), license_in=place)
                assert (found.id, found.voice) == (LEO.id, "cedar")
                by_id = human.endpoint(avatar_id=OTHER_LEO.id)
                assert (await resolve_avatar(by_id, license_in=place)).voice == "coral"
            async with connect(human.endpoint(), avatar=found, media=False) as session:
                assert session.id
            with pytest.raises(AvatarNotFoundError):
                await resolve_avatar(human.endpoint(name="nobody"))
            with pytest.raises(LicenseRefusedError):
                await resolve_avatar(human.endpoint(license="sk_navtalk_WRONG"))

    net.run(main)
    assert any("send_request_headers" in line for line in lines)


@pytest.mark.parametrize(
    ("serve", "kind", "says"),
    [
        (reply(b"<html>", status=502), AvatarLookupFailedError, "said 502"),
        (reply(b"<html>"), AvatarReplyError, "not JSON"),
        (reply(bytes(MAX_REPLY + 1)), AvatarReplyError, "larger than 1048576 bytes"),
        (reply(b"", headers="Bad\x00: header\r\n"), AvatarLookupFailedError, "ProtocolError"),
    ],
)
def test_a_reply_that_is_none(
    net: Any, lines: list[str], serve: Serve, kind: type[AvatarLookupError], says: str
) -> None:
    async def main() -> None:
        error = await failing(net, serve, lines)
        assert type(error) is kind
        assert says in str(error)

    net.run(main)


def test_a_server_that_says_the_licence_back(net: Any, lines: list[str]) -> None:
    async def main() -> None:
        body = json.dumps({"code": 401, "message": f"no such key: {net.license}"}).encode()
        location = f"Location: https://127.0.0.1/?license={net.license}\r\n"
        error = await failing(
            net, reply(body, headers=location), lines, license_in=LicensePlace.QUERY
        )
        assert isinstance(error, LicenseRefusedError)
        assert error.text == "no such key: ***"

    net.run(main)
    assert any("Location" in line and "license=***" in line for line in lines)
    assert logging.getLogger("httpcore.http11").filters == []


def test_nobody_listens(net: Any, lines: list[str]) -> None:
    async def main() -> None:
        async with net.tcp(reply(b"")) as port:
            pass
        with pytest.raises(AvatarLookupFailedError, match="ConnectError"):
            await resolve_avatar(net.endpoint(port))

    net.run(main)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_server_that_says_no_more(net: Any, lines: list[str], sent: bytes) -> None:
    async def mute(stream: Any) -> None:
        await hear_request(stream)
        if sent:
            await stream.send_all(sent)
        await trio.sleep_forever()

    async def main() -> None:
        error = await failing(net, mute, lines, timeout=0.1)
        assert isinstance(error, AvatarLookupTimeoutError)
        assert error.seconds == 0.1

    net.run(main)


def test_cancelling_stays_the_callers(net: Any, lines: list[str]) -> None:
    async def main() -> None:
        asked = trio.Event()

        async def mute(stream: Any) -> None:
            await hear_request(stream)
            asked.set()
            await trio.sleep_forever()

        async with net.tcp(mute) as port, trio.open_nursery() as nursery:
            nursery.start_soon(resolve_avatar, net.endpoint(port))
            await asked.wait()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught

    net.run(main)


def test_over_tls_and_through_a_proxy(
    net: Any, lines: list[str], certificates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detail(id: str) -> Serve:
        return reply(json.dumps({"code": 200, "data": {"id": id}}).encode())

    async def over_tls(stream: Any) -> None:
        encrypted = trio.SSLStream(
            stream, certificates.server, server_side=True, https_compatible=True
        )
        await detail("secure")(encrypted)

    async def main() -> None:
        async with (
            net.tcp(over_tls) as secure,
            net.tcp(detail("proxied")) as proxy,
            net.tcp(detail("direct")) as direct,
        ):
            where = net.endpoint(secure, scheme="wss")
            assert await resolve_avatar(where, ssl=certificates.client) == AvatarDetail(id="secure")
            where = net.endpoint(direct)
            assert (await resolve_avatar(where)).id == "direct"
            monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{proxy}")
            assert (await resolve_avatar(where)).id == "proxied"
            assert (await resolve_avatar(where, proxy=None)).id == "direct"
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert (await resolve_avatar(where)).id == "direct"
            assert (await resolve_avatar(where, proxy=f"http://127.0.0.1:{proxy}")).id == "proxied"

    net.run(main)


def test_without_httpx_it_says_what_to_install() -> None:
    code = """
import sys, trio
sys.modules["httpx"] = None
import navtalk_trio
endpoint = navtalk_trio.Endpoint(license="sk_navtalk_EXAMPLE", name="x")
try:
    trio.run(navtalk_trio.resolve_avatar, endpoint)
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
    assert done.stdout == "ImportError httpx httpx is not installed; pip install 'navtalk[rest]'\n"


def test_an_endpoint_of_the_service_is_not_asked_by_mistake(net: Any, lines: list[str]) -> None:
    """The service's look-ups are at another host; a test must name its own."""

    async def main() -> None:
        async with net.tcp(reply(b'{"code": 200, "data": {"id": "7"}}')) as port:
            found = await resolve_avatar(
                Endpoint(license=net.license, name="navtalk.Leo"),
                api_url=f"http://127.0.0.1:{port}",
            )
        assert found.id == "7"

    net.run(main)
