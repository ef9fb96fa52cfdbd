"""The avatar look-ups as stock clients make them (protocol.md 2.3)."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from navtalk_asyncio.emulator.avatars import Avatar, AvatarDirectory, answer
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer
from navtalk_proto.wire.plain_http import HttpReply

LICENCE = "sk_navtalk_EXAMPLE"
LEO = Avatar(id="aaaabbbbccccddddeeeeffff00001111", name="navtalk.Leo")
MIA = Avatar(id="11112222333344445555666677778888", name="navtalk.Mia", voice="coral")
NEWER_MIA = Avatar(id="99990000aaaabbbbccccddddeeeeffff", name="navtalk.Mia", prompt="Be brief.")
DIRECTORY = AvatarDirectory(avatars=(LEO, MIA, NEWER_MIA), licences=[LICENCE, "other"])
HOST = {"Host": "127.0.0.1:8080"}
TURN = IceServer(
    urls=("turn:turn.example:3478?transport=udp", "turns:turn.example:5349"),
    username="u",
    credential=Secret("hidden"),
)


def ask(
    target: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    directory: AvatarDirectory = DIRECTORY,
    **more: Any,
) -> HttpReply:
    reply = answer(
        method, target, HOST if headers is None else headers, directory=directory, **more
    )
    assert reply is not None
    assert dict(reply.headers)["Access-Control-Allow-Origin"] == "*"
    assert dict(reply.headers)["Content-Length"] == str(len(reply.body))
    return reply


def body(reply: HttpReply) -> dict[str, Any]:
    assert dict(reply.headers)["Content-Type"] == "application/json; charset=utf-8"
    value = json.loads(reply.body.decode("utf-8"))
    assert set(value) == {"code", "message", "data"}
    assert isinstance(value, dict)
    return value


PORTRAIT = f"http://127.0.0.1:8080/avatars/{LEO.id}.png"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        # JavaScript: the licence in the query.
        (f"/api/open/v1/avatar/detail?license={LICENCE}&avatarId={LEO.id}", HOST),
        # Android: both.
        (
            f"/api/open/v1/avatar/detail?license={LICENCE}&avatarId={LEO.id}",
            {**HOST, "license": LICENCE},
        ),
        # iOS, React Native: the header; its case does not matter.
        (f"/api/open/v1/avatar/detail?avatarId={LEO.id}", {**HOST, "License": LICENCE}),
        (f"/api/open/v1/avatar/getByName?license={LICENCE}&name=navtalk.Leo", HOST),
        ("/api/open/v1/avatar/getByName?name=navtalk.Leo", {**HOST, "license": LICENCE}),
    ],
)
def test_a_look_up_gives_what_the_clients_need(target: str, headers: dict[str, str]) -> None:
    reply = ask(target, headers)
    assert reply.status == 200
    assert body(reply) == {
        "code": 200,
        "message": "SUCCESS",
        "data": {
            "id": LEO.id,
            "name": "navtalk.Leo",
            "url": PORTRAIT,
            "thumbnailUrl": PORTRAIT,
            "providerId": "1",
            "providerName": "openai",
            "model": "gpt-realtime",
            "voice": "marin",
            "firstMessage": "",
            "prompt": "",
            "videoFile": False,
            "status": "Success",
        },
    }


def test_of_several_with_one_name_the_newest_is_taken() -> None:
    value = body(ask(f"/api/open/v1/avatar/getByName?license={LICENCE}&name=navtalk.Mia"))
    assert (value["data"]["id"], value["data"]["prompt"]) == (NEWER_MIA.id, "Be brief.")
    found = DIRECTORY.find(name="navtalk.Mia")
    assert found is not None
    assert (found.avatar, found.ambiguous) == (NEWER_MIA, True)
    found = DIRECTORY.find(name="navtalk.Leo")
    assert found is not None
    assert (found.avatar, found.ambiguous) == (LEO, False)


def test_an_id_wins_over_a_name_and_is_never_ambiguous() -> None:
    found = DIRECTORY.find(avatar_id=MIA.id, name="navtalk.Leo")
    assert found is not None
    assert (found.avatar, found.ambiguous) == (MIA, False)
    assert DIRECTORY.find(avatar_id="unknown", name="navtalk.Leo") is None
    assert DIRECTORY.find(name="nobody") is None
    assert DIRECTORY.find() is None


def test_a_name_is_decoded_in_the_ways_clients_encode_it() -> None:
    directory = AvatarDirectory(avatars=(Avatar(id="1", name="Zoë Müller"),))
    for query in ("Zo%C3%AB%20M%C3%BCller", "Zo%C3%AB+M%C3%BCller"):
        value = body(
            ask(f"/api/open/v1/avatar/getByName?license=x&name={query}", directory=directory)
        )
        assert value["data"]["name"] == "Zoë Müller"


def test_the_list_has_all() -> None:
    value = body(ask("/api/open/v1/avatar/list", {**HOST, "license": LICENCE}))
    assert [entry["id"] for entry in value["data"]] == [LEO.id, MIA.id, NEWER_MIA.id]
    assert all(entry["thumbnailUrl"] and entry["providerName"] for entry in value["data"])


@pytest.mark.parametrize("path", ["detail", "getByName", "list"])
@pytest.mark.parametrize("licence", ["", "license=", "license=sk_navtalk_WRONG", "license=other2"])
def test_a_wrong_licence_is_refused_in_the_envelope(path: str, licence: str) -> None:
    reply = ask(f"/api/open/v1/avatar/{path}?avatarId={LEO.id}&name=navtalk.Leo&{licence}")
    assert reply.status == 200
    assert body(reply) == {"code": 401, "message": "Invalid license key", "data": None}
    assert b"WRONG" not in reply.body


def test_a_licence_in_the_query_wins_over_the_header() -> None:
    target = f"/api/open/v1/avatar/detail?license=wrong&avatarId={LEO.id}"
    assert body(ask(target, {**HOST, "license": LICENCE}))["code"] == 401


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("detail?avatarId=unknown", 404),
        ("getByName?name=nobody", 404),
        ("detail", 400),
        ("getByName", 400),
        # The id is not looked up by name, nor the name by id.
        ("detail?name=navtalk.Leo", 400),
        (f"getByName?avatarId={LEO.id}", 400),
    ],
)
def test_an_unknown_avatar_is_told_in_the_envelope(target: str, code: int) -> None:
    reply = ask(f"/api/open/v1/avatar/{target}", {**HOST, "license": LICENCE})
    assert reply.status == 200
    value = body(reply)
    assert value["code"] == code
    assert value["data"] is None
    assert value["message"]


def test_any_licence_but_none_is_accepted_by_default() -> None:
    directory = AvatarDirectory()
    assert directory.accepts(Secret("anything"))
    assert not directory.accepts(Secret(""))
    assert not directory.accepts(None)
    assert directory.avatars[0].name == "navtalk.Lea"
    assert len(directory.avatars[0].id) == 32


def test_licences_are_compared_whole() -> None:
    assert DIRECTORY.accepts(Secret(LICENCE))
    assert DIRECTORY.accepts(Secret("other"))
    for wrong in (LICENCE[:-1], LICENCE + "x", LICENCE.lower(), "é", "\udc80"):
        assert not DIRECTORY.accepts(Secret(wrong))
    assert not AvatarDirectory(licences=()).accepts(Secret(LICENCE))


def test_licences_are_not_shown() -> None:
    assert "sk_navtalk" not in repr(DIRECTORY)
    reply = ask(f"/api/open/v1/avatar/detail?license={LICENCE}&avatarId={LEO.id}")
    assert "sk_navtalk" not in repr(reply)
    assert LICENCE.encode() not in reply.body


@pytest.mark.parametrize(
    ("headers", "secure", "origin"),
    [
        ({"host": "localhost:8000"}, False, "http://localhost:8000"),
        ({"HOST": "emulator.example"}, True, "https://emulator.example"),
        ({"Host": "[::1]:8000"}, False, "http://[::1]:8000"),
        ({}, False, ""),
        ({"Host": "a/b"}, False, ""),
        ({"Host": "a@b"}, False, ""),
        ({"Host": 'a"><script>'}, False, ""),
    ],
)
def test_urls_are_built_from_the_host(headers: dict[str, str], secure: bool, origin: str) -> None:
    value = body(
        ask(
            f"/api/open/v1/avatar/detail?avatarId={LEO.id}",
            {**headers, "license": LICENCE},
            secure=secure,
        )
    )
    assert value["data"]["url"] == f"{origin}/avatars/{LEO.id}.png"


def test_the_portrait_is_a_picture() -> None:
    reply = ask(f"/avatars/{LEO.id}.png")
    assert reply.status == 200
    assert dict(reply.headers)["Content-Type"] == "image/png"
    picture = Image.open(io.BytesIO(reply.body))
    assert (picture.format, picture.size) == ("PNG", (256, 256))
    pixel = picture.convert("RGB").getpixel((128, 80))
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    assert red > green > blue  # skin


def test_nobodys_portrait_is_not_found() -> None:
    assert ask("/avatars/unknown.png").status == 404


def test_ice_servers_are_given_as_clients_read_them() -> None:
    stun = IceServer(urls=("stun:127.0.0.1:3478",))
    reply = ask(
        "/api/webrtc/generate-ice-servers", method="POST", ice_servers=(stun, TURN), headers={}
    )
    assert body(reply) == {
        "code": 200,
        "message": "SUCCESS",
        "data": {
            "iceServers": [
                {"urls": ["stun:127.0.0.1:3478"]},
                {
                    "urls": ["turn:turn.example:3478?transport=udp", "turns:turn.example:5349"],
                    "username": "u",
                    "credential": "hidden",
                },
            ]
        },
    }
    assert "hidden" not in repr(reply)


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("/api/open/v1/avatar/detail?avatarId=1", "GET"),
        ("/api/open/v1/avatar/getByName?name=1", "GET"),
        ("/api/open/v1/avatar/list", "GET"),
        ("/api/webrtc/generate-ice-servers", "POST"),
        ("/avatars/1.png", "GET"),
    ],
)
def test_a_browser_may_ask_first(target: str, method: str) -> None:
    reply = ask(target, {"Origin": "null"}, method="OPTIONS")
    assert reply.status == 204
    assert reply.body == b""
    headers = dict(reply.headers)
    assert headers["Access-Control-Allow-Methods"] == f"{method}, OPTIONS"
    assert "license" in headers["Access-Control-Allow-Headers"].split(", ")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/api/open/v1/avatar/list"),
        ("GET", "/api/webrtc/generate-ice-servers"),
        ("DELETE", f"/avatars/{LEO.id}.png"),
    ],
)
def test_another_method_is_refused(method: str, target: str) -> None:
    reply = ask(target, method=method)
    assert reply.status == 405
    assert "OPTIONS" in dict(reply.headers)["Allow"]
    assert body(reply)["code"] == 405


@pytest.mark.parametrize(
    "target",
    [
        "/wss/v2/realtime-chat?license=x&name=navtalk.Leo",
        "/",
        "",
        "*",
        "http://host/api/open/v1/avatar/list",
        "/api/open/v1/avatar/",
        "/api/open/v1/avatar/list/",
        "/avatars/../secret.png",
        "/avatars/a.jpg",
        "/avatars/" + "a" * 65 + ".png",
        "/" + "a" * 9000,
    ],
)
def test_other_paths_are_not_ours(target: str) -> None:
    assert answer("GET", target, HOST, directory=DIRECTORY) is None
    assert answer("OPTIONS", target, HOST, directory=DIRECTORY) is None


@pytest.mark.parametrize("id", ["", "a/b", "a b", "a" * 65, "é"])
def test_an_id_that_makes_no_path_is_refused(id: str) -> None:
    with pytest.raises(ValueError):
        Avatar(id=id, name="x")
