"""What is served at ``/``: the demo page's files, and nothing else."""

from __future__ import annotations

import re

import pytest

from navtalk_asyncio.emulator.demo_page import PAGE_PATHS, page_reply
from navtalk_proto.wire.plain_http import HttpReply, HttpRequest


def ask(target: str, method: str = "GET") -> HttpReply | None:
    return page_reply(HttpRequest(method=method, target=target, headers={}))


def served(target: str, method: str = "GET") -> tuple[HttpReply, dict[str, str]]:
    reply = ask(target, method)
    assert reply is not None
    return reply, dict(reply.headers)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/microphone.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_each_file_has_its_type_and_its_policy(path: str, content_type: str) -> None:
    reply, headers = served(path)
    assert reply.status == 200
    assert reply.body
    assert headers["Content-Length"] == str(len(reply.body))
    assert headers["Content-Type"] == content_type
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    policy = headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_there_are_no_other_files() -> None:
    assert set(PAGE_PATHS) == {"/", "/app.js", "/microphone.js", "/style.css", "/icon.svg"}


@pytest.mark.parametrize(
    "target",
    [
        "", "//", "/index.html", "/page/app.js", "/app.js/", "/APP.JS", "/../demo_page.py",
        "/%2e%2e/demo_page.py", "/./app.js", "/app.js%00", "/app.js#x", "\\app.js", "app.js",
        "http://127.0.0.1/app.js", "/../../../../../../etc/passwd",
    ],
)  # fmt: skip
def test_every_other_path_is_not_the_pages(target: str) -> None:
    assert ask(target) is None


def test_a_query_changes_nothing() -> None:
    assert ask("/?license=sk_navtalk_EXAMPLE&/../x") == ask("/")


def test_head_is_answered_without_the_body() -> None:
    reply, headers = served("/", "HEAD")
    assert reply.body == b""
    assert headers == served("/")[1]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(method: str) -> None:
    reply, headers = served("/", method)
    assert reply.status == 405
    assert headers["Allow"] == "GET, HEAD"
    assert reply.body == b""


def test_the_page_names_only_what_is_served_and_nothing_elsewhere() -> None:
    texts = {path: served(path)[0].body.decode() for path in PAGE_PATHS}
    for reference in re.findall(r'(?:src|href)="([^"]+)"', texts["/"]):
        assert f"/{reference}" in PAGE_PATHS
    assert "/microphone.js" in PAGE_PATHS
    assert 'addModule("microphone.js")' in texts["/app.js"]
    for path, text in texts.items():
        elsewhere = set(re.findall(r"https?://[^\s\"']+", text))
        assert elsewhere <= ({"http://www.w3.org/2000/svg"} if path == "/icon.svg" else set())


def test_the_page_knows_the_example_licence_only() -> None:
    for path in PAGE_PATHS:
        found = re.findall(r"sk_\w+", served(path)[0].body.decode())
        assert set(found) <= {"sk_navtalk_EXAMPLE"}
