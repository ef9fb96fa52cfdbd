from __future__ import annotations

import attrs
import pytest

from navtalk_proto.wire.plain_http import HttpHandler, HttpReply, HttpRequest


def test_a_request_shows_neither_target_nor_headers() -> None:
    request = HttpRequest(
        method="GET",
        target="/api/avatars?license=sk_navtalk_EXAMPLE",
        headers={"authorization": "Bearer sk_navtalk_EXAMPLE"},
    )
    assert repr(request) == "HttpRequest(method='GET')"
    assert request.target == "/api/avatars?license=sk_navtalk_EXAMPLE"
    assert request.headers["authorization"] == "Bearer sk_navtalk_EXAMPLE"


def test_a_reply_shows_how_long_its_body_is() -> None:
    reply = HttpReply(status=200, headers=(("Content-Length", "3"),), body=b"abc")
    assert repr(reply) == (
        "HttpReply(status=200, headers=(('Content-Length', '3'),), body=<3 bytes>)"
    )
    assert HttpReply(status=404) == HttpReply(status=404, headers=(), body=b"")


def test_both_are_values() -> None:
    reply = HttpReply(status=200)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        reply.status = 500  # type: ignore[misc]
    with pytest.raises(TypeError):
        HttpReply(200)  # type: ignore[call-arg]


def test_a_handler_answers_what_it_knows() -> None:
    def only_avatars(request: HttpRequest) -> HttpReply | None:
        return HttpReply(status=204) if request.target == "/api/avatars" else None

    handler: HttpHandler = only_avatars
    assert handler(HttpRequest(method="GET", target="/api/avatars", headers={})) == HttpReply(
        status=204
    )
    assert handler(HttpRequest(method="GET", target="/", headers={})) is None
