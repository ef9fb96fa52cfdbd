"""Which ICE servers are asked, in which order and where; and what is said of the others."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest
from aioice import stun

from navtalk_asyncio.media.ice_servers import (
    STUN_SERVERS,
    TURN_SERVERS,
    URLS,
    IceServers,
    Server,
    ServerError,
    failure_reason,
    resolve,
    tls_context,
)
from navtalk_proto.ice import IceUrl, any_ice_server, default_ice_rule, public_ice_servers
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer

pytestmark = pytest.mark.anyio


def plan(*urls: str) -> IceServers:
    return IceServers.of(
        [IceServer(urls=urls, username="EXAMPLE-user", credential=Secret("EXAMPLE-credential"))]
    )


def shown(servers: tuple[Server, ...]) -> list[str]:
    return [str(server.url) for server in servers]


def server(url: str) -> Server:
    return Server(url=IceUrl.parse(url))


class Names:
    """A resolver that knows a few names, in place of the loop's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **names: tuple[str, ...]) -> None:
        self.asked: list[str] = []
        self.names = names
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **_options: Any) -> list[Any]:
        self.asked.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, 0, 0, "", (address, port))
            for address in self.names[host]
        ]


def test_every_server_of_every_entry_is_asked() -> None:
    servers = IceServers.of(
        [
            IceServer(urls=("stun:a.example", "turn:a.example"), username="one"),
            IceServer(urls=("stun:b.example:1234", "turns:b.example"), username="two"),
        ]
    )
    assert shown(servers.stun) == ["stun:a.example:3478", "stun:b.example:1234"]
    assert shown(servers.turn) == [
        "turn:a.example:3478?transport=udp",
        "turns:b.example:5349?transport=tcp",
    ]
    assert [server.username for server in servers.turn] == ["one", "two"]
    assert servers.left_out == ()


def test_turn_over_udp_is_tried_before_tcp_and_tls() -> None:
    servers = plan(
        "turns:a.example", "turn:a.example?transport=tcp", "turn:a.example", "turn:b.example"
    )
    assert shown(servers.turn) == [
        "turn:a.example:3478?transport=udp",
        "turn:b.example:3478?transport=udp",
        "turn:a.example:3478?transport=tcp",
        "turns:a.example:5349?transport=tcp",
    ]


def test_the_same_server_is_asked_once() -> None:
    servers = plan("turn:a.example", "turn:a.example:3478?transport=udp", "TURN:a.example")
    assert shown(servers.turn) == ["turn:a.example:3478?transport=udp"]
    assert [failed.url for failed in servers.left_out] == ["TURN:a.example"]


def test_the_number_of_servers_is_bounded_and_the_rest_is_told() -> None:
    servers = plan(*(f"stun:s{n}.example" for n in range(STUN_SERVERS + 1)))
    assert len(servers.stun) == STUN_SERVERS
    [failed] = servers.left_out
    assert (failed.url, failed.reason) == (
        f"stun:s{STUN_SERVERS}.example:3478",
        f"only {STUN_SERVERS} of a kind are asked",
    )
    servers = plan(*(f"turn:t{n}.example" for n in range(1000)))
    assert len(servers.turn) == TURN_SERVERS
    assert len(servers.left_out) == URLS - TURN_SERVERS + 1
    assert f"{1000 - URLS} are left out" in " ".join(failed.reason for failed in servers.left_out)


def test_credentials_do_not_show() -> None:
    servers = plan("turn:a.example", "stun:a.example", "turn:EXAMPLE-user@a.example")
    assert "EXAMPLE-user" not in repr(servers)
    assert "EXAMPLE-credential" not in repr(servers)


def test_stock_aiortc_gets_one_of_a_kind_by_its_address() -> None:
    """It would look names up by itself, and nothing says that the answer is the one we allowed."""
    servers = plan(
        "stun:a.example", "stun:192.0.2.1", "stun:192.0.2.2",
        "turn:127.0.0.1", "turn:[2001:db8::1]", "turn:192.0.2.3", "turn:192.0.2.4",
    ).for_stock_aiortc(default_ice_rule)  # fmt: skip
    assert shown(servers.stun) == ["stun:192.0.2.1:3478"]
    assert shown(servers.turn) == ["turn:192.0.2.3:3478?transport=udp"]
    assert {failed.url for failed in servers.left_out} == {
        "stun:a.example:3478",
        "stun:192.0.2.2:3478",
        "turn:127.0.0.1:3478?transport=udp",
        "turn:[2001:db8::1]:3478?transport=udp",
        "turn:192.0.2.4:3478?transport=udp",
    }


# ---- where


async def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    assert list(map(str, await resolve(server("turn:192.0.2.1"), any_ice_server))) == ["192.0.2.1"]
    assert list(map(str, await resolve(server("turn:[2001:db8::1]"), any_ice_server))) == [
        "2001:db8::1"
    ]
    assert names.asked == []


async def test_ipv4_comes_first_and_a_few_addresses_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = ("2001:db8::1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
    Names(monkeypatch, host=found)
    assert list(map(str, await resolve(server("turn:host"), any_ice_server))) == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]


async def test_a_name_that_leads_inside_is_refused_by_what_it_leads_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch, inside=("127.0.0.1",), mixed=("169.254.169.254", "203.0.113.5"))
    with pytest.raises(ServerError, match=r"contacting 127\.0\.0\.1 port 3478 is not allowed"):
        await resolve(server("turn:inside"), default_ice_rule)
    assert list(map(str, await resolve(server("turn:mixed"), default_ice_rule))) == ["203.0.113.5"]


async def test_the_strict_rule_refuses_private_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, company=("10.1.2.3",))
    assert list(map(str, await resolve(server("turn:company"), default_ice_rule))) == ["10.1.2.3"]
    with pytest.raises(ServerError, match="is not allowed"):
        await resolve(server("turn:company"), public_ice_servers)


async def test_an_unknown_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch)
    with pytest.raises(ServerError, match="its name cannot be resolved"):
        await resolve(server("stun:nowhere.example"), any_ice_server)


async def test_stun_is_not_asked_over_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, six=("2001:db8::1",))
    with pytest.raises(ServerError, match="IPv4 only"):
        await resolve(server("stun:six"), any_ice_server)


# ---- why


def refusal(code: int) -> stun.TransactionFailed:
    response = stun.Message(message_method=stun.Method.ALLOCATE, message_class=stun.Class.ERROR)
    response.attributes["ERROR-CODE"] = (code, "EXAMPLE-user has not paid")
    return stun.TransactionFailed(response)


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (refusal(401), "wrong or expired credentials (401)"),
        (refusal(486), "the user has too many allocations (486)"),
        (refusal(499), "refused (499)"),
        (stun.TransactionTimeout(), "no answer within 5 s"),
        (TimeoutError(), "no answer within 5 s"),
        (ConnectionRefusedError(111, "Connect call failed"), "Connection refused"),
        (ConnectionError("TURN allocation response is missing"),
         "an answer that makes no sense (ConnectionError)"),
        (KeyError("XOR-MAPPED-ADDRESS"), "an answer that makes no sense (KeyError)"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
         "TLS failed: SSLError"),
        (ServerError("as it says"), "as it says"),
    ],
)  # fmt: skip
def test_the_reason_is_ours_and_not_the_servers(exc: BaseException, reason: str) -> None:
    assert failure_reason(exc) == reason
    assert "EXAMPLE-user" not in failure_reason(exc)


def test_the_certificate_is_verified_for_the_urls_host() -> None:
    context = tls_context("turn.example")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    tls = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="192.0.2.1")
    assert tls.server_hostname == "turn.example"
