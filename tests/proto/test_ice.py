"""ICE servers' URLs, and the rules for which of them may be contacted."""

from __future__ import annotations

import ipaddress

import pytest

from navtalk_proto.ice import (
    IceServerRule,
    IceTransport,
    IceUrl,
    any_ice_server,
    default_ice_rule,
    public_ice_servers,
    shown_ice_url,
)


@pytest.mark.parametrize(
    ("text", "relay", "host", "port", "transport", "shown"),
    [
        ("stun:a.example", False, "a.example", 3478, "udp", "stun:a.example:3478"),
        ("stun:192.0.2.1:19302", False, "192.0.2.1", 19302, "udp", "stun:192.0.2.1:19302"),
        ("stuns:a.example", False, "a.example", 5349, "tls", "stuns:a.example:5349"),
        ("turn:a-b_c.example", True, "a-b_c.example", 3478, "udp",
         "turn:a-b_c.example:3478?transport=udp"),
        ("turn:a.example:80?transport=TCP", True, "a.example", 80, "tcp",
         "turn:a.example:80?transport=tcp"),
        ("turns:a.example:443?transport=tcp", True, "a.example", 443, "tls",
         "turns:a.example:443?transport=tcp"),
        ("turns:a.example", True, "a.example", 5349, "tls", "turns:a.example:5349?transport=tcp"),
        ("turn:[2001:db8::1]:1234", True, "2001:db8::1", 1234, "udp",
         "turn:[2001:db8::1]:1234?transport=udp"),
    ],
)  # fmt: skip
def test_urls(text: str, relay: bool, host: str, port: int, transport: str, shown: str) -> None:
    url = IceUrl.parse(text)
    assert url == IceUrl(relay=relay, host=host, port=port, transport=IceTransport(transport))
    assert str(url) == shown
    assert IceUrl.parse(shown) == url
    assert shown_ice_url(text) == shown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a STUN or TURN URL"),
        ("http://a.example", "not a STUN or TURN URL"),
        ("turn://a.example", "not a STUN or TURN URL"),
        ("turn:user@a.example", "not a STUN or TURN URL"),
        ("turn:a.example:1:2", "not a STUN or TURN URL"),
        ("turn:a.example\n", "not a STUN or TURN URL"),
        ("turn:2001:db8::1", "not a STUN or TURN URL"),
        ("turn:" + "a" * 300, "not a STUN or TURN URL"),
        ("turn:a.example:0", "there is no port 0"),
        ("turn:a.example:65536", "there is no port 65536"),
        ("turn:[1:2]", "not an IPv6 address"),
        ("stun:a.example?transport=udp", "a STUN URL has no transport"),
        ("turn:a.example?transport=sctp", "neither udp nor tcp"),
        ("turns:a.example?transport=udp", "TURN over DTLS"),
    ],
)
def test_what_is_no_url_is_refused_and_not_quoted(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        IceUrl.parse(text)
    assert "example" not in str(raised.value)


def test_what_is_shown_of_a_url_that_is_none() -> None:
    assert shown_ice_url("turn:EXAMPLE-user:EXAMPLE-secret@a.example") == "***@a.example"
    assert shown_ice_url("turn:a@b@c.example") == "***@c.example"
    assert len(shown_ice_url("x" * 5000)) == 100


def allowed(rule: IceServerRule, address: str, port: int = 3478) -> bool:
    url = IceUrl(relay=True, host="turn.example", port=port, transport=IceTransport.UDP)
    return rule(url, ipaddress.ip_address(address))


INSIDE = [
    "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1",
    "169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254",
    "0.0.0.0", "0.1.2.3", "::", "224.0.0.251", "ff02::fb", "255.255.255.255", "240.0.0.1",
]  # fmt: skip
PRIVATE = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "fd00::1", "::ffff:10.0.0.1"]
PUBLIC = ["74.125.250.129", "2001:4860:4864:5:8000::1", "::ffff:74.125.250.129", "64:ff9b::4a7d:1"]


@pytest.mark.parametrize("address", INSIDE)
def test_this_machine_and_its_link_are_refused(address: str) -> None:
    assert not allowed(default_ice_rule, address)
    assert not allowed(public_ice_servers, address)
    assert allowed(any_ice_server, address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_let_through_unless_the_rule_is_strict(address: str) -> None:
    assert allowed(default_ice_rule, address)
    assert not allowed(public_ice_servers, address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_let_through(address: str) -> None:
    assert allowed(default_ice_rule, address)
    assert allowed(public_ice_servers, address)


def test_low_ports_are_those_of_firewalls_only() -> None:
    ports = [port for port in range(1, 1025) if allowed(default_ice_rule, PUBLIC[0], port)]
    assert ports == [53, 80, 443, 1024]
