"""What is not in a trace, and that what is left makes a core do the same.

That every session of the tests replays scrubbed is tests/tracing/replay_everything.py's work; here
are the single rules, and inputs that no session has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navtalk_proto.actions import Emit, OpenPeer, SendText
from navtalk_proto.config import ClientConfig, ServerConfig
from navtalk_proto.connection import Connection
from navtalk_proto.events import (
    FunctionCall,
    MessageReceived,
    ResponseInterrupted,
    UnknownMessage,
    UserTurn,
)
from navtalk_proto.inputs import IntentGiven, MediaFailed, TextReceived, TransportOpened
from navtalk_proto.intents import SayText, SendAudio
from navtalk_proto.limits import Limits
from navtalk_proto.media import IcePolicy, OpId
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.tracing.recorder import Recorder
from navtalk_proto.tracing.replayer import replay
from navtalk_proto.tracing.scrubber import Scrubber, mask
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import (
    AudioAppend,
    ConnectedSuccess,
    FunctionCallDone,
    IceServer,
    InputConfig,
    InputImage,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    TranscriptDone,
    UserMessage,
)

LICENCE = "sk_navtalk_EXAMPLE/of+a secret"
LIMITS = Limits()
BARE = {"text": False, "audio": False}


def received(scrubber: Scrubber, text: str | bytes, role: Role = Role.CLIENT) -> Any:
    """A text that this role received, as it is recorded; None: it is not."""
    clean = scrubber.input(TextReceived(text=text), role=role, limits=LIMITS)
    return clean and clean.text  # type: ignore[union-attr]


def said(scrubber: Scrubber, message: Any, role: Role = Role.CLIENT) -> Any:
    """What is recorded of a message that this role sends, as its receiver reads it."""
    text = codec.encode(message)
    action = scrubber.action(SendText(text=text, kind=message.TYPE), role=role, limits=LIMITS)
    assert isinstance(action, SendText)
    return codec.decode(action.text, sender=role, limits=LIMITS)


def success(*, username: str = "leo-the-user", credential: str = "t0p-s3cret") -> str:
    server = IceServer(
        urls=("turn:turn.example.org",), username=username, credential=Secret(credential)
    )
    return codec.encode(ConnectedSuccess(session_id="s-1", ice_servers=(server,)))


# ---- secrets


def test_a_call_that_we_make_without_arguments_replays_without_words() -> None:
    lines: list[str] = []
    recorder = Recorder(lines.append, Scrubber(**BARE), started="", versions={})
    core = Connection(Role.SERVER, ServerConfig(media=()), now=0.0)
    recording = recorder.connection(core, now=0.0, complete=True)
    for given_now in (
        TransportOpened(),
        IntentGiven(intent=ConnectedSuccess(session_id="s-1")),
        IntentGiven(intent=SessionCreated()),
        IntentGiven(intent=SessionUpdated()),
        IntentGiven(intent=FunctionCallDone(name="f", call_id="c")),
    ):
        given_now.give(core, now=0.0)
        recording.happened(given_now, core.actions(), now=0.0, raised=None)
    assert "raw_data" in lines[-1]
    assert replay(lines).divergence is None


def test_a_call_without_arguments_replays_without_words() -> None:
    lines: list[str] = []
    recorder = Recorder(lines.append, Scrubber(**BARE), started="", versions={})
    core = Connection(Role.CLIENT, ClientConfig(), now=0.0)
    recording = recorder.connection(core, now=0.0, complete=True)
    for given_now in (
        TransportOpened(),
        TextReceived(text=success()),
        TextReceived(text=codec.encode(SessionCreated())),
        TextReceived(text=codec.encode(SessionUpdated())),
        TextReceived(text=codec.encode(FunctionCallDone(name="f", call_id="c", arguments=""))),
    ):
        given_now.give(core, now=0.0)
        recording.happened(given_now, core.actions(), now=0.0, raised=None)
    assert any('"arguments":"{}"' in line for line in lines)
    assert replay(lines).divergence is None


@pytest.mark.parametrize(
    "spelt",
    [str, lambda text: quote(text, safe=""), lambda text: json.dumps(text)[1:-1]],
    ids=["as it is", "quoted", "escaped"],
)
def test_words_about_a_wide_secret_are_masked_alike_in_a_message_and_in_its_event(
    spelt: Callable[[str], str],
) -> None:
    credential = "t0p-s\u00f8cret-\U0001d569"
    scrubber = Scrubber(**BARE)
    received(scrubber, success(credential=credential))
    message = TranscriptDone(response_id="r", content=f"it is {spelt(credential)}!")
    recorded = codec.decode(
        received(scrubber, codec.encode(message)), sender=Role.SERVER, limits=LIMITS
    )
    action = scrubber.action(
        Emit(event=MessageReceived(message=message)), role=Role.CLIENT, limits=LIMITS
    )
    assert isinstance(action, Emit)
    assert isinstance(action.event, MessageReceived)
    assert action.event.message == recorded
    assert "cret" not in str(recorded)


@pytest.mark.parametrize(
    "spelling",
    [LICENCE, quote(LICENCE, safe=""), json.dumps(LICENCE)[1:-1]],
)
def test_a_licence_is_found_however_it_is_spelt(spelling: str) -> None:
    scrubber = Scrubber([LICENCE])
    text = json.dumps({"type": "realtime.response.error", "data": {"message": f"<{spelling}>"}})
    clean = received(scrubber, text)
    assert spelling not in clean
    assert len(clean) == len(text)
    assert "scrubbed-1-" in clean
    broken = received(scrubber, text[:-1])
    assert spelling not in broken
    assert scrubber.value(MediaFailed(op=OpId(1), reason=f"no {spelling}")).reason != spelling


def test_a_licence_beyond_ascii_has_a_token_as_wide() -> None:
    licence = 'pässwörd-"€"-\U0001f511'
    scrubber = Scrubber([licence])
    (token,) = scrubber.value((licence,))
    assert len(token) == len(licence)
    assert len(token.encode()) == len(licence.encode())
    text = json.dumps({"type": "what", "data": licence})
    clean = received(scrubber, text)
    assert "\\u20ac" not in clean
    assert len(clean.encode()) == len(text)
    assert json.loads(clean)["data"] == token


def test_credentials_are_found_where_they_stand_and_then_everywhere() -> None:
    scrubber = Scrubber()
    clean = received(scrubber, success())
    assert "leo-the-user" not in clean
    assert "t0p-s3cret" not in clean
    message = codec.decode(clean, sender=Role.SERVER, limits=LIMITS)
    peer = OpenPeer(
        op=OpId(1),
        ice_servers=codec.decode(success(), sender=Role.SERVER, limits=LIMITS).ice_servers,  # type: ignore[union-attr]
        policy=IcePolicy.ALL,
        media=(),
    )
    action = scrubber.action(peer, role=Role.CLIENT, limits=LIMITS)
    assert isinstance(action, OpenPeer)
    assert isinstance(message, ConnectedSuccess)
    assert action.ice_servers == message.ice_servers
    failed = MediaFailed(op=OpId(1), reason="401 for leo-the-user with t0p-s3cret")
    clean_reason = scrubber.value(failed).reason
    assert "leo" not in clean_reason
    assert "s3cret" not in clean_reason


def test_a_short_credential_is_no_word_of_other_texts() -> None:
    scrubber = Scrubber()
    clean = received(scrubber, success(username="user", credential="item"))
    assert '"username":"user"' not in clean
    assert '"credential":"item"' not in clean
    text = json.dumps({"type": "conversation.item.create", "item": {"role": "user"}})
    assert received(scrubber, text, Role.SERVER) == text


def test_a_credential_that_is_part_of_a_type_does_not_break_messages() -> None:
    scrubber = Scrubber()
    received(scrubber, success(username="response", credential="realtime.response"))
    text = '{"type": "realtime.response.audio.done", "message": "", "data": {}}'
    assert received(scrubber, text) == text


def test_credentials_in_a_broken_message_and_in_a_url() -> None:
    scrubber = Scrubber()
    broken = received(scrubber, '{"x": {"username": "leo-\\"the\\"-user", "credential": "t0p')
    assert "leo" not in broken
    assert "t0p" not in broken
    server = IceServer(urls=("turn:leo:pass@turn.example.org", "stun:stun.example.org"))
    clean = scrubber.value(server)
    assert "leo:pass" not in clean.urls[0]
    assert clean.urls[0].endswith("@turn.example.org")
    assert clean.urls[1] == "stun:stun.example.org"
    url = {"type": "what", "urls": ["turn:leo:pass@turn.example.org"]}
    assert json.loads(received(scrubber, json.dumps(url)))["urls"] == [clean.urls[0]]


def test_half_a_secret_at_the_end_of_what_is_kept_of_an_unknown_message() -> None:
    limits = Limits(unknown_raw=40)
    scrubber = Scrubber([LICENCE])
    text = json.dumps({"type": f"what-{LICENCE}", "x": f"1234{LICENCE}"})
    scrubber.input(TextReceived(text=text), role=Role.CLIENT, limits=limits)
    event = UnknownMessage(type=f"what-{LICENCE}", raw=text[:40])
    action = scrubber.action(Emit(event=event), role=Role.CLIENT, limits=limits)
    assert isinstance(action, Emit)
    assert isinstance(action.event, UnknownMessage)
    assert len(action.event.raw) == 40
    assert "sk_navtalk" not in action.event.raw + action.event.type


def test_a_secret_that_was_heard_in_half() -> None:
    scrubber = Scrubber([LICENCE])
    text = f"It is {LICENCE}, I hear."
    heard = text[: text.index(" secret")]
    event = ResponseInterrupted(response_id="r", text=text, heard=heard)
    action = scrubber.action(Emit(event=event), role=Role.CLIENT, limits=LIMITS)
    assert isinstance(action, Emit)
    assert isinstance(action.event, ResponseInterrupted)
    assert "sk_navtalk" not in action.event.heard
    assert action.event.text.startswith(action.event.heard)
    assert len(action.event.heard) == len(heard)


def test_a_broken_message_that_breaks_elsewhere_without_its_secret_is_left_out() -> None:
    scrubber = Scrubber(['"secret"-licence'])
    assert received(scrubber, '{"secret"-licence') is None
    assert "secret" not in received(scrubber, 'no "secret"-licence')


def test_a_message_without_secrets_is_recorded_to_the_letter() -> None:
    scrubber = Scrubber([LICENCE])
    text = ' {"type" : "realtime.session.created", "type":"realtime.session.updated"} '
    assert received(scrubber, text) == text
    assert received(scrubber, text.encode()) == text.encode()
    assert received(scrubber, b"\xff\xfe") == b"\xff\xff"
    assert received(Scrubber(), b"\xff\xfe") == b"\xff\xfe"


def test_json_inside_of_messages_is_looked_into() -> None:
    clean = Scrubber().value(SessionUpdate(session={"password": "hunter22", "n": 1}))
    assert clean.session["n"] == 1
    assert clean.session["password"] != "hunter22"


def test_tokens_are_stable_and_their_own_tokens() -> None:
    scrubber = Scrubber([LICENCE])
    clean = received(scrubber, success())
    assert received(scrubber, success()) == clean
    assert received(scrubber, clean) == clean


def test_without_credentials_nothing_is_taken_out() -> None:
    scrubber = Scrubber(credentials=False)
    assert received(scrubber, success()) == success()
    assert received(scrubber, success()[:-1]) == success()[:-1]


# ---- words and voices


@settings(max_examples=30)
@given(text=st.text())
def test_a_mask_keeps_shape_and_white_space_and_can_be_cut(text: str) -> None:
    masked = mask(text)
    assert len(masked) == len(text)
    assert masked.split() == [mask(word) for word in text.split()]
    assert len(masked.encode(errors="surrogatepass")) == len(text.encode(errors="surrogatepass"))
    for at in range(len(text)):
        assert mask(text[:at]) + mask(text[at:]) == masked


def test_words_are_left_out_of_intents_events_and_configurations() -> None:
    scrubber = Scrubber(**BARE)
    assert scrubber.omits == ("text", "audio")
    assert scrubber.value(IntentGiven(intent=SayText(text="at 7 é"))).intent.text == "xx x ø"
    event = ResponseInterrupted(response_id="r1", text="a bc", heard="a")
    assert scrubber.value(Emit(event=event)).event == ResponseInterrupted(
        response_id="r1", text="x xx", heard="x"
    )
    call = FunctionCall(call_id="c", name="tell", arguments='{"n": 12}')
    assert scrubber.value(call).arguments == "xxxxx xxx"
    tools = ({"name": "tell", "description": "tells", "parameters": {"n": [1, "two"]}},)
    config = ClientConfig(
        input_config=InputConfig(voice="cedar", prompt="Be kind", tools=tools),
        history=(UserMessage(texts=("hello", "you")),),
    )
    clean = scrubber.value(config)
    assert clean.input_config == InputConfig(
        voice="cedar",
        prompt="xx xxxx",
        tools=({"name": "tell", "description": "xxxxx", "parameters": {"n": [1, "xxx"]}},),
    )
    assert clean.history == (UserMessage(texts=("xxxxx", "xxx")),)
    assert scrubber.value(UserTurn(text="")) == UserTurn(text="")
    assert scrubber.value(InputConfig()) == InputConfig()


def test_voices_are_silence_and_pictures_are_blank() -> None:
    scrubber = Scrubber(**BARE)
    assert said(scrubber, AudioAppend(audio=b"\1\2\3\4")) == AudioAppend(audio=bytes(4))
    assert scrubber.value(SendAudio(pcm=b"\1\2")) == SendAudio(pcm=bytes(2))
    picture = InputImage(content="data:image/jpeg;base64,/9j/4AAQ")
    assert said(scrubber, picture) == InputImage(content="data:image/jpeg;base64,AAAAAAAA")
    kept = Scrubber(text=False)
    assert said(kept, AudioAppend(audio=b"\1\2")) == AudioAppend(audio=b"\1\2")
    assert kept.omits == ("text",)


@pytest.mark.parametrize("raw_data", [None, {"type": "x", "arguments": '{"city": "Rome"}'}])
def test_function_calls_are_read_as_they_were(raw_data: Any) -> None:
    call = FunctionCallDone(
        call_id="c1", name="weather", arguments='{"city": "Rome"}', raw_data=raw_data
    )
    data = {"name": "weather", "call_id": "c1", "arguments": {"city": "Rome"}}
    text = json.dumps({"type": call.TYPE, "data": data, "raw_data": raw_data})
    scrubber = Scrubber(**BARE)
    clean = received(scrubber, text)
    assert "Rome" not in clean
    message = codec.decode(text, sender=Role.SERVER, limits=LIMITS)
    event = scrubber.value(MessageReceived(message=message))  # type: ignore[arg-type]
    assert codec.decode(clean, sender=Role.SERVER, limits=LIMITS) == event.message


def test_json_of_messages_keeps_its_keys() -> None:
    scrubber = Scrubber(**BARE)
    message = SessionUpdate(session={"instructions": "Be kind", "n": 5, "list": ["a"]})
    assert said(scrubber, message) == SessionUpdate(
        session={"instructions": "xx xxxx", "n": 5, "list": ["x"]}
    )


def test_an_unknown_message_is_masked_as_a_whole() -> None:
    clean = received(Scrubber(**BARE), '{"type": "what", "words": ["mine", {"a": "b c"}], "n": 1}')
    assert json.loads(clean) == {"type": "what", "words": ["xxxx", {"a": "x x"}], "n": 1}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("hello, you", "xxxxx, xxx"),
        ('{"type": "realtime.input_text", "data": {"content": 5, "x": "words"}}', "{...}"),
        ("x" * (LIMITS.client_message + 1), None),
    ],
)
def test_a_broken_message_is_as_broken_without_its_words(text: str, clean: str | None) -> None:
    found = received(Scrubber(**BARE), text, Role.SERVER)
    assert "words" not in found
    if clean == "{...}":
        assert json.loads(found)["data"] == {"content": 5, "x": "xxxxx"}
    else:
        assert found == (clean or text)


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "realtime.input_audio_buffer.append", "data": {"audio": "AQI*"}}',
        '{"type": true',
    ],
)
def test_what_is_broken_in_another_way_without_its_words_is_left_out(text: str) -> None:
    assert received(Scrubber(**BARE), text, Role.SERVER) is None


def test_a_broken_message_that_would_be_whole_without_its_words_is_left_out() -> None:
    text = '{"type": "realtime.input_audio_buffer.append", "data": {"audio": "........"}}'
    assert received(Scrubber(**BARE), text, Role.SERVER) is None
