"""One golden message for every type string of protocol.md section 4: its class, and its direction.

``golden/server.jsonl`` and ``client.jsonl`` say who sends what. The type strings are listed again
here, as the document lists them, so that neither the files nor the codec's tables can lose one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.wire import codec, messages

LIMITS = Limits()
BOTH = """
webrtc.signaling.offer webrtc.signaling.answer webrtc.signaling.iceCandidate
conversation.connected.success
"""
SERVER = """
conversation.connected.warning conversation.connected.fail conversation.connected.close
conversation.connected.insufficient_balance conversation.connected.connection_limit_exceeded
conversation.connected.gpu_full conversation.connected.backend_error
realtime.session.created realtime.session.updated
realtime.input_audio_buffer.speech_started realtime.input_audio_buffer.speech_stopped
realtime.conversation.item.input_audio_transcription.completed
realtime.response.audio_transcript.delta realtime.response.audio_transcript.done
realtime.response.audio.delta realtime.response.audio.done
realtime.response.function_call_arguments.delta realtime.response.function_call_arguments.done
unknow unknown realtime.response.completed realtime.response.error error response.done
realtime.session.gpu_full realtime.session.insufficient_balance
session.gpu_full session.insufficient_balance session.backend.error
realtime.status realtime.response.video.delta
realtime_synthesis.tts.error realtime_synthesis.stt.error webrtc.streaming.break
"""
CLIENT = """
realtime.input_config realtime.input_function_call conversation.item.create
realtime.function_call_output realtime.input_function_call_output response.create session.update
realtime.input_audio_buffer.append input_audio_buffer.append
realtime.input_audio_buffer.clear realtime.input_audio_buffer.commit
input_audio_buffer.clear input_audio_buffer.commit
realtime.input_image realtime.input_text realtime.input.text webrtc.signaling.iceRestartRequest
"""


def golden(name: str) -> list[tuple[str, dict[str, Any]]]:
    lines = Path(__file__).with_name("golden").joinpath(f"{name}.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    return [(row["class"], row["message"]) for row in rows]


GOLDEN = [
    *((Role.SERVER, *row) for row in golden("server")),
    *((Role.CLIENT, *row) for row in golden("client")),
]


@pytest.mark.parametrize(
    ("sender", "listed"), [(Role.SERVER, SERVER + BOTH), (Role.CLIENT, CLIENT + BOTH)]
)
def test_every_type_string_has_a_golden_message(sender: Role, listed: str) -> None:
    assert {row[2]["type"] for row in GOLDEN if row[0] is sender} == set(listed.split())


@pytest.mark.parametrize(
    ("sender", "name", "message"),
    GOLDEN,
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_a_golden_message_has_its_class_and_comes_back(
    sender: Role, name: str, message: dict[str, Any]
) -> None:
    read = codec.decode(json.dumps(message), sender=sender, limits=LIMITS)
    assert type(read) is getattr(messages, name)
    assert not isinstance(read, messages.Unknown)
    assert codec.decode(codec.encode(read), sender=sender, limits=LIMITS) == read


@pytest.mark.parametrize(
    ("sender", "message"),
    [(row[0], row[2]) for row in GOLDEN if row[2]["type"] not in BOTH.split()],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_a_golden_message_has_one_direction(sender: Role, message: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError, match=f"a {sender.value} message sent by a"):
        codec.decode(json.dumps(message), sender=sender.peer, limits=LIMITS)


def test_every_class_of_a_message_has_a_golden_one() -> None:
    classes = {name for name in messages.__all__ if hasattr(getattr(messages, name), "TYPE")}
    assert {name for _, name, _ in GOLDEN} == classes
