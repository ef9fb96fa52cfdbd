"""Looking an avatar up: what is asked, what every reply means, and what is never shown."""

from __future__ import annotations

import json
import traceback
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.config import ClientConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import (
    AvatarLookupError,
    AvatarLookupFailedError,
    AvatarNotFoundError,
    AvatarReplyError,
    EndpointError,
    LicenseRefusedError,
    LocalProtocolError,
    UnsupportedByProviderError,
)
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.wire.avatar_lookup import (
    DEFAULT_API_URL,
    MAX_REPLY,
    SHOWN_CHARACTERS,
    AvatarDetail,
    LicensePlace,
    LookupReply,
    LookupRequest,
    ProviderCapabilities,
    list_request,
    lookup_request,
)
from navtalk_proto.wire.endpoint import Endpoint
from navtalk_proto.wire.messages import (
    InputConfig,
    InputFunctionCall,
    InputImage,
    Message,
    SessionUpdate,
    UserMessage,
)

LICENSE = "sk_navtalk_EXAMPLE"
ID = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
DETAIL = {
    "id": ID,
    "name": "navtalk.Leo",
    "url": "https://example.org/leo.png",
    "thumbnailUrl": "https://example.org/small.png",
    "providerId": "1",
    "providerName": "openai",
    "model": "gpt-realtime",
    "voice": "cedar",
    "firstMessage": "Hello!",
    "prompt": "Be brief.",
    "videoFile": True,
    "status": "Success",
}


def endpoint(**more: Any) -> Endpoint:
    return Endpoint(**{"license": LICENSE, "name": "navtalk.Leo", **more})


def asked(request: LookupRequest) -> tuple[str, dict[str, str]]:
    return request.url.reveal(), {name: value.reveal() for name, value in request.headers}


# ---- the request


@pytest.mark.parametrize(
    ("place", "query", "header"),
    [
        (LicensePlace.HEADER, "", LICENSE),
        (LicensePlace.QUERY, f"license={LICENSE}&", None),
        (LicensePlace.BOTH, f"license={LICENSE}&", LICENSE),
    ],
)
def test_by_name_or_id_with_the_licence_where_it_is_wanted(
    place: LicensePlace, query: str, header: str | None
) -> None:
    base = "https://api.navtalk.ai/api/open/v1/avatar"
    url, headers = asked(lookup_request(endpoint(), license_in=place))
    assert url == f"{base}/getByName?{query}name=navtalk.Leo"
    assert headers.get("license") == header
    assert headers["accept"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    # The id wins, as on the socket (2.2).
    url, headers = asked(lookup_request(endpoint(avatar_id=ID), license_in=place))
    assert url == f"{base}/detail?{query}avatarId={ID}"
    assert headers.get("license") == header


def test_values_are_percent_encoded() -> None:
    url, _ = asked(
        lookup_request(endpoint(name="Zoë & Co+", license="a b&c"), license_in=LicensePlace.QUERY)
    )
    assert url.partition("?")[2] == "license=a%20b%26c&name=Zo%C3%AB%20%26%20Co%2B"


@pytest.mark.parametrize(
    ("base_url", "origin"),
    [
        ("wss://transfer.navtalk.ai", DEFAULT_API_URL),
        ("wss://TRANSFER.navtalk.ai/wss/v2/realtime-chat", DEFAULT_API_URL),
        ("ws://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("wss://human.example.org/own/path", "https://human.example.org"),
        ("ws://[::1]:9", "http://[::1]:9"),
    ],
)
def test_the_service_is_beside_the_endpoint(base_url: str, origin: str) -> None:
    url, _ = asked(lookup_request(endpoint(base_url=base_url)))
    assert url == f"{origin}/api/open/v1/avatar/getByName?name=navtalk.Leo"


def test_the_service_can_be_named() -> None:
    url, _ = asked(lookup_request(endpoint(), api_url="http://localhost:8000/proxied/"))
    assert url.startswith("http://localhost:8000/proxied/api/open/v1/avatar/getByName?")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "wss://api.navtalk.ai",
        "https://",
        "https://a b",
        "https://a\n",
        "https://é",
        "https://user:secret@host",
        "https://host?license=secret",
        "https://host#secret",
        "https://host:port",
        "https://[::1",
    ],
)
def test_a_service_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(EndpointError) as caught:
        lookup_request(endpoint(), api_url=url)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("license", ["a b", "a\r\nb", "é", "\x7f"])
def test_a_licence_that_no_header_carries_travels_in_the_query_only(license: str) -> None:
    for place in (LicensePlace.HEADER, LicensePlace.BOTH):
        with pytest.raises(EndpointError) as caught:
            lookup_request(endpoint(license=license), license_in=place)
        assert license not in str(caught.value)
    url, _ = asked(lookup_request(endpoint(license=license), license_in=LicensePlace.QUERY))
    assert f"license={quote(license)}&" in url


def test_a_request_does_not_show_the_licence() -> None:
    for place in LicensePlace:
        assert LICENSE not in repr(lookup_request(endpoint(), license_in=place))


@pytest.mark.parametrize(
    ("place", "query", "header"),
    [
        (LicensePlace.HEADER, "", LICENSE),
        (LicensePlace.QUERY, f"?license={LICENSE}", None),
        (LicensePlace.BOTH, f"?license={LICENSE}", LICENSE),
    ],
)
def test_a_list_is_asked_for_with_the_licence_alone(
    place: LicensePlace, query: str, header: str | None
) -> None:
    url, headers = asked(list_request(endpoint(), license_in=place))
    assert url == f"https://api.navtalk.ai/api/open/v1/avatar/list{query}"
    assert headers.get("license") == header
    url, _ = asked(list_request(endpoint(), api_url="http://127.0.0.1:8000/"))
    assert url == "http://127.0.0.1:8000/api/open/v1/avatar/list"


# ---- the reply


def read(body: bytes | str, *, status: int = 200, license: str = LICENSE) -> AvatarDetail:
    request = lookup_request(endpoint(license=license), license_in=LicensePlace.QUERY)
    reply = LookupReply(request, status=status)
    data = body.encode() if isinstance(body, str) else body
    reply.feed(data[:7])
    reply.feed(data[7:])
    return reply.detail()


def envelope(data: object = None, *, code: object = 200, message: object = "SUCCESS") -> str:
    return json.dumps({"code": code, "message": message, "data": data})


def test_a_whole_detail() -> None:
    assert read(envelope(DETAIL)) == AvatarDetail(
        id=ID,
        name="navtalk.Leo",
        url="https://example.org/leo.png",
        thumbnail_url="https://example.org/small.png",
        provider_id="1",
        provider_name="openai",
        model="gpt-realtime",
        voice="cedar",
        first_message="Hello!",
        prompt="Be brief.",
        video_file=True,
        status="Success",
    )


def listed(body: str, *, status: int = 200) -> tuple[AvatarDetail, ...]:
    reply = LookupReply(list_request(endpoint()), status=status)
    reply.feed(body.encode())
    return reply.details()


def test_a_list() -> None:
    found = listed(envelope([DETAIL, {"id": "2"}]))
    assert found == (read(envelope(DETAIL)), AvatarDetail(id="2"))
    assert listed(envelope([])) == listed(envelope(None)) == ()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"id": "1"}, "data: is not a list"),
        ("navtalk.Leo", "data: is not a list"),
        ([DETAIL, 3], r"data\[1\]: is not an object"),
        ([DETAIL, {"id": "2", "name": []}], r"data\[1\]\.name: is not a string"),
        ([{}], r"data\[0\]\.id: is missing"),
    ],
)
def test_a_list_that_is_none(data: object, text: str) -> None:
    with pytest.raises(AvatarReplyError, match=text):
        listed(envelope(data))


def test_a_list_is_refused_like_one_avatar() -> None:
    with pytest.raises(LicenseRefusedError):
        listed(envelope(code=401, message="Invalid license key"))
    with pytest.raises(AvatarLookupFailedError):
        listed("<html>", status=502)


def test_what_is_left_out_is_empty_and_a_number_may_be_an_identifier() -> None:
    assert read(envelope({"id": 7, "providerId": 2, "voice": None, "more": {}})) == AvatarDetail(
        id="7", provider_id="2"
    )
    assert read(envelope({"id": "7"}, code="200")) == AvatarDetail(id="7")


def test_the_prompt_is_not_printed() -> None:
    shown = repr(read(envelope(DETAIL)))
    assert "Be brief." not in shown
    assert "prompt=<9 characters>" in shown


@pytest.mark.parametrize(
    ("body", "status", "error", "says"),
    [
        (envelope(code=404, message="Avatar not found"), 200, AvatarNotFoundError, "not found"),
        (envelope(code="404", message=None), 200, AvatarNotFoundError, "no text"),
        (envelope(code=404, message="none"), 404, AvatarNotFoundError, "none"),
        (envelope(None), 200, AvatarNotFoundError, "empty"),
        (envelope(code=401, message="Invalid key"), 200, LicenseRefusedError, "Invalid key"),
        (envelope(code=403, message=""), 200, LicenseRefusedError, "no text"),
        ("Unauthorized", 401, LicenseRefusedError, "no text"),
        (envelope(code=400, message="name?"), 200, AvatarLookupFailedError, "said 400: name?"),
        (envelope(code=500, message=7), 200, AvatarLookupFailedError, "said 500$"),
        (envelope(DETAIL), 502, AvatarLookupFailedError, "said 502: SUCCESS"),
        ("<html>", 502, AvatarLookupFailedError, "said 502$"),
        ("<html>", 404, AvatarLookupFailedError, "said 404$"),
        ("", 302, AvatarLookupFailedError, "said 302$"),
        ("", 200, AvatarReplyError, "not JSON"),
        (b"\xff\xfe", 200, AvatarReplyError, "not JSON"),
        ("[]", 200, AvatarReplyError, "envelope"),
        ("{}", 200, AvatarReplyError, "envelope"),
        (envelope(DETAIL, code=None), 200, AvatarReplyError, "code: is not a number"),
        (envelope(DETAIL, code=True), 200, AvatarReplyError, "code: is not a number"),
        (envelope(DETAIL, code="1234567"), 200, AvatarReplyError, "code: is not a number"),
        (envelope(DETAIL, code="٢٠٠"), 200, AvatarReplyError, "code: is not a number"),
        (envelope([DETAIL]), 200, AvatarReplyError, "data: is not an object"),
        (envelope({}), 200, AvatarReplyError, "data.id: is missing"),
        (envelope({"id": True}), 200, AvatarReplyError, "data.id: is not a string"),
        (envelope({**DETAIL, "name": []}), 200, AvatarReplyError, "data.name: is not a string"),
        (envelope({**DETAIL, "videoFile": 1}), 200, AvatarReplyError, "data.videoFile"),
    ],
)
def test_every_other_reply_is_an_error_of_its_kind(
    body: str | bytes, status: int, error: type[AvatarLookupError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        read(body, status=status)
    assert type(caught.value) is error
    assert caught.value.__context__ is None


def test_a_failure_has_its_status() -> None:
    with pytest.raises(AvatarLookupFailedError) as caught:
        read(envelope(code=503), status=200)
    assert caught.value.status == 503
    assert caught.value.retryable


def test_a_reply_is_read_up_to_its_bound() -> None:
    body = envelope(DETAIL).encode()
    request = lookup_request(endpoint())
    reply = LookupReply(request, status=200, max_size=len(body))
    assert reply.feed(body)
    assert reply.detail().id == ID
    assert not reply.feed(b" ")
    assert not reply.feed(b"")
    with pytest.raises(AvatarReplyError, match=f"larger than {len(body)} bytes"):
        reply.detail()
    assert LookupReply(request, status=200).feed(bytes(MAX_REPLY))
    assert not LookupReply(request, status=200).feed(bytes(MAX_REPLY + 1))


@pytest.mark.parametrize("license", [LICENSE, "a b/c", 'quo"te\\é'])
@pytest.mark.parametrize("code", [401, 404, 500])
def test_the_licence_is_not_in_what_the_service_says(license: str, code: int) -> None:
    message = " | ".join(
        (license, quote(license, safe=""), json.dumps(license), f"?license={quote(license)}x")
    )
    with pytest.raises(AvatarLookupError) as caught:
        read(envelope(code=code, message=message), license=license)
    shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert "***" in shown
    for spelling in (license, quote(license, safe=""), json.dumps(license)[1:-1]):
        assert spelling not in shown


def test_a_long_text_is_cut() -> None:
    with pytest.raises(LicenseRefusedError) as caught:
        read(envelope(code=401, message="x" * 10_000))
    assert caught.value.text == "x" * SHOWN_CHARACTERS


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers(0, 600) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*DETAIL, "x"]), inner),
    ).map(lambda data: envelope(data).encode()),
    st.integers(100, 599),
)
def test_no_reply_raises_anything_else(body: bytes, status: int) -> None:
    try:
        detail = read(body, status=status)
    except AvatarLookupError:
        return
    assert detail.id


# ---- the endpoint of what was found


def test_a_session_is_opened_to_the_very_avatar() -> None:
    avatar = AvatarDetail(id=ID)
    exact = avatar.at(endpoint(model="gpt-realtime"))
    assert f"&avatarId={ID}&model=gpt-realtime" in exact.url()
    assert avatar.at(exact) == exact
    with pytest.raises(EndpointError, match="another avatar"):
        avatar.at(endpoint(avatar_id="other"))


# ---- what a provider takes


@pytest.mark.parametrize("name", ["openai", "OpenAI", "", "something new"])
def test_a_provider_that_takes_all_or_is_unknown(name: str) -> None:
    assert AvatarDetail(id=ID, provider_name=name).capabilities == ProviderCapabilities(
        provider=name, tools=True, images=True
    )


@pytest.mark.parametrize("name", ["11labs", "11Labs", "ElevenLabs", "eleven_labs", "Cartesia "])
def test_a_provider_that_is_known_to_take_neither(name: str) -> None:
    capabilities = ProviderCapabilities.of(name)
    assert (capabilities.tools, capabilities.images) == (False, False)
    assert capabilities.provider == name


TOOL = {"type": "function", "name": "clock"}
IMAGE = InputImage(content="data:image/jpeg;base64,/9j/")


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (IMAGE, "images"),
        (InputFunctionCall(tools=(TOOL,)), "tools"),
        (InputConfig(tools=(TOOL,)), "tools"),
        (SessionUpdate(session={"tools": [TOOL]}), "tools"),
        (InputFunctionCall(tools=()), None),
        (InputConfig(voice="cedar"), None),
        (InputConfig(tools=()), None),
        (SessionUpdate(session={"tools": []}), None),
        (SessionUpdate(session={"voice": "cedar"}), None),
        (UserMessage(texts=("tools",)), None),
    ],
)
def test_what_a_provider_does_not_take_is_a_typed_error(message: Message, what: str | None) -> None:
    ProviderCapabilities.of("openai").check(message)
    cartesia = ProviderCapabilities.of("Cartesia")
    if what is None:
        cartesia.check(message)
        return
    with pytest.raises(UnsupportedByProviderError, match=f"Cartesia, takes no {what}") as caught:
        cartesia.check(message)
    assert (caught.value.what, caught.value.provider) == (what, "Cartesia")
    assert isinstance(caught.value, LocalProtocolError)
    attrs.evolve(cartesia, tools=True, images=True).check(message)


def test_a_connection_refuses_what_the_provider_does_not_take() -> None:
    provider = ProviderCapabilities.of("11Labs")
    for options in (
        {"input_config": InputConfig(tools=(TOOL,))},
        {"input_function_call": InputFunctionCall(tools=(TOOL,))},
    ):
        with pytest.raises(UnsupportedByProviderError):
            ClientConfig(provider=provider, **options)  # type: ignore[arg-type]
    config = ClientConfig(media=(), provider=provider, input_config=InputConfig(voice="cedar"))
    core = Connection(Role.CLIENT, config, now=0.0)
    core.transport_opened(now=0.0)
    core.receive_text(
        '{"type": "conversation.connected.success", "data": {"sessionId": "s"}}', now=0.0
    )
    core.receive_text('{"type": "realtime.session.updated", "data": {}}', now=0.0)
    core.actions()
    for message in (InputFunctionCall(tools=(TOOL,)), IMAGE):
        with pytest.raises(UnsupportedByProviderError):
            core.send(message, now=0.0)
    assert core.actions() == []
    core.send(UserMessage(texts=("hello",)), now=0.0)
    assert len(core.actions()) == 2, "the message, and that the user said it"


def test_with_an_unknown_provider_everything_is_sent() -> None:
    core = Connection(
        Role.CLIENT,
        ClientConfig(media=(), input_function_call=InputFunctionCall(tools=(TOOL,))),
        now=0.0,
    )
    core.transport_opened(now=0.0)
    assert len(core.actions()) == 1
    assert Secret(LICENSE) == endpoint().license
