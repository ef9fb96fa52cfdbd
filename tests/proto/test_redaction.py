from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.redaction import redact
from navtalk_proto.wire.endpoint import Endpoint


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("wss://h/p?license=sk_navtalk_EXAMPLE&name=x", "wss://h/p?license=***&name=x"),
        ("wss://h/p?name=x&license=sk_navtalk_EXAMPLE", "wss://h/p?name=x&license=***"),
        ("GET /p?license=sk_navtalk_EXAMPLE HTTP/1.1", "GET /p?license=*** HTTP/1.1"),
        ("/p?LICENSE=sk_navtalk_EXAMPLE", "/p?LICENSE=***"),
        ("/p?licence=sk_navtalk_EXAMPLE", "/p?licence=***"),
        ("license=a license=b", "license=*** license=***"),
        ("/p?license=sk%27navtalk%26_EXAMPLE&x=1", "/p?license=***&x=1"),
        ("/p?license=&name=x", "/p?license=&name=x"),
        ("no secret here: wss://h/p?name=x", "no secret here: wss://h/p?name=x"),
        ("", ""),
    ],
)
def test_a_licence_in_a_query_is_taken_out(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize("mark", ["'", '"', "\\", "+", "=", "/", "#", ";"])
def test_a_licence_that_was_not_encoded_goes_as_a_whole(mark: str) -> None:
    # Stock clients paste it into the URL as it is (protocol.md 2.2).
    assert redact(f"GET /p?license=sk{mark}navtalk_EXAMPLE HTTP/1.1") == (
        "GET /p?license=*** HTTP/1.1"
    )


LICENSES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(LICENSES)
def test_whatever_an_endpoint_opens_is_the_redacted_url_afterwards(license: str) -> None:
    endpoint = Endpoint(base_url="ws://localhost:1", license=license, name="anna")
    assert redact(endpoint.url()) == endpoint.redacted_url()
    assert redact(f"cannot open {endpoint.url()} at all") == (
        f"cannot open {endpoint.redacted_url()} at all"
    )
