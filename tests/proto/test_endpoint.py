"""The session's URL (protocol.md 2.1, 2.2): every client's spelling in, one out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.errors import EndpointError
from navtalk_proto.secret import Secret
from navtalk_proto.wire.endpoint import Endpoint, Mode, RequestTarget, parse_request_target

LICENCE = "sk_navtalk_EXAMPLE"
SECRET = Secret(LICENCE)


def test_by_avatar_id_at_the_service() -> None:
    endpoint = Endpoint(license=SECRET, avatar_id="0123456789abcdef0123456789abcdef")
    assert endpoint.url() == (
        "wss://transfer.navtalk.ai/wss/v2/realtime-chat"
        "?license=sk_navtalk_EXAMPLE&avatarId=0123456789abcdef0123456789abcdef"
    )


def test_everything_in_its_order_percent_encoded() -> None:
    endpoint = Endpoint(
        base_url="ws://127.0.0.1:8080/ws",
        license="a/b+c d&é",
        name="my avatar",
        model="gpt-realtime",
        audio_back=True,
    )
    assert endpoint.license == Secret("a/b+c d&é")
    assert endpoint.url() == (
        "ws://127.0.0.1:8080/ws?license=a%2Fb%2Bc%20d%26%C3%A9&name=my%20avatar"
        "&model=gpt-realtime&audioBack=true"
    )


def test_the_avatar_id_wins() -> None:
    url = Endpoint(license=SECRET, avatar_id="1", name="navtalk.Leo").url()
    assert url.endswith("?license=sk_navtalk_EXAMPLE&avatarId=1")


@pytest.mark.parametrize(
    ("base", "full"),
    [
        ("wss://h", "wss://h/wss/v2/realtime-chat"),
        ("ws://h/", "ws://h/wss/v2/realtime-chat"),
        ("WS://h:1/x", "ws://h:1/x"),
        ("ws://[::1]:9", "ws://[::1]:9/wss/v2/realtime-chat"),
        ("wss://h/x/", "wss://h/x/"),
    ],
)
def test_a_base_url_without_a_path_gets_the_services(base: str, full: str) -> None:
    assert Endpoint(base_url=base, license=SECRET, name="x").base_url == full


@pytest.mark.parametrize(
    ("base", "loopback"),
    [
        ("ws://localhost:8080", True),
        ("ws://LOCALHOST", True),
        ("ws://127.0.0.1:8080/p", True),
        ("ws://127.1.2.3", True),
        ("ws://[::1]:8080", True),
        ("ws://127.example.org", False),
        ("ws://127.0.0.1.example.org", False),
        ("ws://localhost.example.org", False),
        ("ws://10.0.0.1", False),
        ("ws://[::2]", False),
        ("wss://transfer.navtalk.ai", False),
    ],
)
def test_this_machine_is_recognised(base: str, loopback: bool) -> None:
    assert Endpoint(base_url=base, license=SECRET, name="x").is_loopback is loopback


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("https://h/p", "write wss://"),
        ("http://h/p", "write ws://"),
        ("ftp://h", "wss:// or ws://"),
        ("h.example:80/p", "wss:// or ws://"),
        ("", "wss:// or ws://"),
        ("wss://", "no host"),
        ("wss:///p", "no host"),
        ("wss://:80", "no host"),
        ("wss://u:PASSWORD@h", "user name"),
        ("wss://h/p?x=PASSWORD", "no query"),
        ("wss://h/p#PASSWORD", "no query and no fragment"),
        ("wss://h:PASSWORD/", "host or port"),
        ("wss://h:99999/", "host or port"),
        ("wss://[h/", "host or port"),
        ("wss://h/a b", "white space"),
        ("wss://h/\n", "control characters"),
    ],
)
def test_other_base_urls_are_refused(base: str, says: str) -> None:
    with pytest.raises(EndpointError, match=says) as caught:
        Endpoint(base_url=base, license=SECRET, name="x")
    assert "PASSWORD" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"license": "", "name": "x"}, "no licence"),
        ({"license": LICENCE}, "neither an avatar id nor a name"),
        ({"license": LICENCE, "avatar_id": "", "name": ""}, "neither"),
        ({"license": LICENCE + "\ud800", "name": "x"}, "lone surrogate"),
        ({"license": LICENCE, "name": "\udfff"}, "lone surrogate"),
        ({"license": LICENCE, "name": "x", "model": "\udfff"}, "lone surrogate"),
    ],
)
def test_what_is_missing_is_named(arguments: dict[str, str], says: str) -> None:
    with pytest.raises(EndpointError, match=says) as caught:
        Endpoint(**arguments)  # type: ignore[arg-type]
    assert LICENCE not in str(caught.value)
    assert LICENCE not in repr(caught.value)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("license=L&name=navtalk.Leo", {"name": "navtalk.Leo"}),
        ("name=x&license=L", {"name": "x"}),
        ("license=L&characterName=x", {"name": "x"}),
        ("license=L&characterName=x&name=y", {"name": "y"}),
        ("license=L&avatarId=1&name=x", {"avatar_id": "1", "name": "x"}),
        ("license=L&name=x&model=transparency", {"name": "x", "model": "transparency"}),
        ("license=L&name=x&audioBack=true", {"name": "x", "audio_back": True}),
        ("license=L&name=x&audioBack=True", {"name": "x", "audio_back": True}),
        ("license=L&name=x&audioBack=false", {"name": "x"}),
        ("license=L&name=x&audioBack=", {"name": "x"}),
        ("license=L&name=x&unknown=1&&=&flag", {"name": "x"}),
        ("license=L&name=x&name=y&license=M", {"name": "x"}),
        ("license=L&name=my%20avatar", {"name": "my avatar"}),
        ("license=L&name=my+avatar", {"name": "my avatar"}),
        ("license=L&name=my avatar", {"name": "my avatar"}),
        ("license=L&name=caf%C3%A9", {"name": "café"}),
        ("license=L&name=café", {"name": "café"}),
        ("license=L&name=50%", {"name": "50%"}),
        ("license=L&name=a=b", {"name": "a=b"}),
    ],
)
def test_every_clients_query_is_read(query: str, expected: dict[str, object]) -> None:
    assert Endpoint.parse(f"ws://h/p?{query}") == Endpoint(
        base_url="ws://h/p",
        license="L",
        **expected,  # type: ignore[arg-type]
    )
    target = parse_request_target(f"/p?{query}")
    assert target == RequestTarget(path="/p", license=Secret("L"), **expected)  # type: ignore[arg-type]


def test_a_url_without_a_path_gets_the_services() -> None:
    assert Endpoint.parse("wss://h?license=L&name=x").base_url == "wss://h/wss/v2/realtime-chat"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("wss://h/p", "no licence"),
        (f"wss://h/p?license={LICENCE}", "neither"),
        ("wss://h/p?name=x&license=", "no licence"),
        (f"https://h/p?license={LICENCE}&name=x", "write wss://"),
        (f"wss://h/p?license={LICENCE}&name=a#b", "%23"),
        (f"wss://u@h/p?license={LICENCE}&name=a", "user name"),
        (f"wss://h/p?license={LICENCE}&name=" + "a" * 8192, "longer than 8192"),
    ],
)
def test_unusable_urls_are_refused_without_telling_the_licence(url: str, says: str) -> None:
    with pytest.raises(EndpointError, match=says) as caught:
        Endpoint.parse(url)
    assert LICENCE not in str(caught.value)
    assert LICENCE not in repr(caught.value)


def test_a_request_target_requires_nothing() -> None:
    assert parse_request_target("/") == RequestTarget(path="/")
    assert parse_request_target("/x?") == RequestTarget(path="/x")
    assert parse_request_target("/x?license=&name=") == RequestTarget(path="/x")


@pytest.mark.parametrize("target", ["", "*", "x?license=L", "ws://h/p?license=L", "/" * 8193])
def test_other_request_targets_are_refused(target: str) -> None:
    with pytest.raises(EndpointError):
        parse_request_target(target)


VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(
    license=VALUES,
    by=st.sampled_from(["avatar_id", "name"]),
    avatar=VALUES,
    model=st.none() | VALUES,
    audio_back=st.booleans(),
)
def test_what_is_written_is_read_back(
    license: str, by: str, avatar: str, model: str | None, audio_back: bool
) -> None:
    endpoint = Endpoint(
        base_url="ws://h:1/p",
        license=license,
        model=model,
        audio_back=audio_back,
        **{by: avatar},
    )
    url = endpoint.url()
    assert url.isascii()
    assert url.endswith("&audioBack=true") is audio_back
    assert ("&model=" in url) is (model is not None)
    assert not set(url) & set(" \t\r\n#")
    assert Endpoint.parse(url) == endpoint
    target = parse_request_target(url.removeprefix("ws://h:1"))
    assert (target.license, target.path) == (Secret(license), "/p")


@given(suffix=st.text("0123456789abcdef", min_size=8, max_size=32))
def test_the_licence_is_in_no_repr(suffix: str) -> None:
    licence = f"sk_navtalk_{suffix}"
    endpoint = Endpoint(license=licence, name="navtalk.Leo")
    target = parse_request_target(f"/p?license={licence}")
    for shown in (repr(endpoint), str(endpoint), f"{endpoint}", repr(target), str(target)):
        assert suffix not in shown
    assert licence in endpoint.url()
    assert endpoint.redacted_url() == (
        "wss://transfer.navtalk.ai/wss/v2/realtime-chat?license=***&name=navtalk.Leo"
    )


@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("", Mode.NORMAL),
        ("&model=gpt-realtime", Mode.NORMAL),
        ("&model=transparency", Mode.TRANSPARENCY),
        ("&model=transparency&audioBack=true", Mode.TRANSPARENCY),
        ("&audioBack=true", Mode.AUDIO_BACK),
    ],
)
def test_the_mode_is_in_the_query(query: str, mode: Mode) -> None:
    query = f"?license=sk_navtalk_EXAMPLE&name=n{query}"
    assert Endpoint.parse("ws://127.0.0.1/" + query).mode is mode
    assert parse_request_target("/" + query).mode is mode
