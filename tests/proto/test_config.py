from __future__ import annotations

from typing import Any

import attrs
import pytest

from navtalk_proto.config import (
    DEFAULT_ICE_SERVERS,
    RECEIVE_MEDIA,
    SEND_MEDIA,
    ClientConfig,
    ServerConfig,
)
from navtalk_proto.secret import Secret
from navtalk_proto.wire.messages import IceServer


def timeout(name: str, seconds: float) -> dict[str, Any]:
    return {name: seconds}


def test_the_default_ice_server_is_the_one_of_seed_step_2() -> None:
    (server,) = DEFAULT_ICE_SERVERS
    assert server.urls == ("stun:stun.l.google.com:19302",)
    assert (server.username, server.credential) == (None, None)
    assert ClientConfig().default_ice_servers == DEFAULT_ICE_SERVERS


def test_video_stands_before_audio_and_only_the_human_sends() -> None:
    assert [(line.kind.value, line.direction.value) for line in RECEIVE_MEDIA] == [
        ("video", "recvonly"),
        ("audio", "recvonly"),
    ]
    assert [(line.kind.value, line.direction.value) for line in SEND_MEDIA] == [
        ("video", "sendonly"),
        ("audio", "sendonly"),
    ]
    assert ClientConfig().media == RECEIVE_MEDIA
    assert ServerConfig().media == SEND_MEDIA


def test_nothing_runs_out_of_idleness_unless_asked() -> None:
    assert ClientConfig().idle_timeout is None
    assert ClientConfig().strict is False


@pytest.mark.parametrize(
    "name",
    [
        "welcome_timeout",
        "setup_timeout",
        "connect_timeout",
        "farewell_timeout",
        "close_timeout",
        "answer_timeout",
        "idle_timeout",
    ],
)
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_every_timeout_is_positive(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        ClientConfig(**timeout(name, seconds))


@pytest.mark.parametrize("name", ["close_timeout", "answer_timeout", "idle_timeout"])
def test_the_server_checks_its_own(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ServerConfig(**timeout(name, 0.0))


def test_a_config_is_frozen_and_hides_credentials() -> None:
    server = IceServer(urls=("turn:t:1",), username="someone", credential=Secret("p4ssw0rd"))
    config = ServerConfig(ice_servers=(server,))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.strict = True  # type: ignore[misc]
    assert "p4ssw0rd" not in repr(config)
    assert "someone" not in repr(config)
