from __future__ import annotations

from typing import Any

import attrs
import pytest

from navtalk_proto.config import (
    DEFAULT_ICE_SERVERS,
    RECEIVE_MEDIA,
    SEND_MEDIA,
    ClientConfig,
    Mode,
    ServerConfig,
)
from navtalk_proto.errors import UnsupportedByProviderError
from navtalk_proto.media import MediaKind, MediaLine
from navtalk_proto.secret import Secret
from navtalk_proto.wire.avatar_lookup import ProviderCapabilities
from navtalk_proto.wire.messages import IceServer, InputConfig, InputFunctionCall, UserMessage

AUDIO = MediaLine(kind=MediaKind.AUDIO)


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
        "transport_timeout",
        "idle_timeout",
    ],
)
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_every_timeout_is_positive(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        ClientConfig(**timeout(name, seconds))


@pytest.mark.parametrize(
    "name", ["close_timeout", "answer_timeout", "transport_timeout", "idle_timeout"]
)
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


# ---- what connect() was given

TOOL = {"type": "function", "name": "close_talk"}
OTHER_TOOL = {"type": "function", "name": "look_up"}


def test_nothing_given_is_this_configuration() -> None:
    config = ClientConfig(
        media=(AUDIO,),
        input_config=InputConfig(voice="cedar", prompt="Be short."),
        input_function_call=InputFunctionCall(tools=(TOOL,)),
        history=(UserMessage(texts=("earlier",)),),
        strict=True,
    )
    assert config.configured() == config
    assert ClientConfig().configured() == ClientConfig()


@pytest.mark.parametrize(
    ("own", "given", "media"),
    [
        (RECEIVE_MEDIA, True, RECEIVE_MEDIA),
        (RECEIVE_MEDIA, False, ()),
        (RECEIVE_MEDIA, [], ()),
        (RECEIVE_MEDIA, [AUDIO], (AUDIO,)),
        ((AUDIO,), True, (AUDIO,)),
        ((AUDIO,), False, ()),
        ((), True, RECEIVE_MEDIA),
        ((), False, ()),
        ((), [AUDIO], (AUDIO,)),
    ],
)
def test_media_that_is_given_wins(own: Any, given: Any, media: Any) -> None:
    assert ClientConfig(media=own).configured(media=given).media == media


@pytest.mark.parametrize(
    ("own", "given", "configured"),
    [
        (None, {"voice": "cedar"}, InputConfig(voice="cedar")),
        (None, {"prompt": "Be short."}, InputConfig(prompt="Be short.")),
        (
            None,
            {"voice": "cedar", "prompt": "Be short."},
            InputConfig(voice="cedar", prompt="Be short."),
        ),
        # What is not given stays: a voice must not silence the prompt and the tools.
        (
            InputConfig(voice="alloy", prompt="Be kind.", tools=(TOOL,)),
            {"voice": "cedar"},
            InputConfig(voice="cedar", prompt="Be kind.", tools=(TOOL,)),
        ),
        (
            InputConfig(voice="alloy", prompt="Be kind."),
            {"prompt": "Be short."},
            InputConfig(voice="alloy", prompt="Be short."),
        ),
        (InputConfig(voice="alloy"), {"voice": ""}, InputConfig(voice="")),
    ],
)
def test_voice_and_prompt_that_are_given_win(
    own: InputConfig | None, given: dict[str, str], configured: InputConfig
) -> None:
    config = ClientConfig(input_config=own).configured(**given)  # type: ignore[arg-type]
    assert config.input_config == configured


def test_tools_and_history_that_are_given_replace_the_whole_list() -> None:
    config = ClientConfig(
        input_function_call=InputFunctionCall(tools=(TOOL,)),
        history=(UserMessage(texts=("earlier",)),),
    ).configured(tools=[OTHER_TOOL], history=[UserMessage(texts=("one",))])
    assert config.input_function_call == InputFunctionCall(tools=(OTHER_TOOL,))
    assert config.history == (UserMessage(texts=("one",)),)
    assert config.input_config is None


def test_configuring_changes_nothing_else() -> None:
    config = ClientConfig(strict=True, welcome_timeout=3.0, answer_timeout=4.0)
    assert config.configured(media=False, voice="cedar") == ClientConfig(
        strict=True,
        welcome_timeout=3.0,
        answer_timeout=4.0,
        media=(),
        input_config=InputConfig(voice="cedar"),
    )
    assert config == ClientConfig(strict=True, welcome_timeout=3.0, answer_timeout=4.0)


def test_a_mode_is_given_by_name() -> None:
    config = ClientConfig().configured(mode=Mode.TRANSPARENCY)
    assert config.mode is Mode.TRANSPARENCY
    assert config.configured().mode is Mode.TRANSPARENCY
    assert ClientConfig().configured().mode is Mode.NORMAL


def test_tools_that_the_avatars_provider_does_not_take_are_refused() -> None:
    cartesia = ProviderCapabilities.of("Cartesia")
    tools = ({"type": "function", "name": "clock"},)
    assert ClientConfig().provider is None
    config = ClientConfig(provider=cartesia, input_config=InputConfig(voice="cedar"))
    with pytest.raises(UnsupportedByProviderError, match="tools"):
        attrs.evolve(config, input_function_call=InputFunctionCall(tools=tools))
    with pytest.raises(UnsupportedByProviderError, match="tools"):
        attrs.evolve(config, input_config=InputConfig(tools=tools))
    unknown = ProviderCapabilities.of("something new")
    assert attrs.evolve(config, provider=unknown, input_config=InputConfig(tools=tools))
