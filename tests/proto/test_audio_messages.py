"""PCM in base64 (protocol.md 5.12, 5.15)."""

from __future__ import annotations

from typing import Any

import pytest
from wire_json import (
    APPEND,
    AUDIO,
    PCM,
    PCM64,
    C,
    S,
    check_malformed,
    check_mistake,
    check_written,
    msg,
    read,
)

from navtalk_proto.roles import Role
from navtalk_proto.wire.messages import AudioAppend, AudioDelta, Message

WRITTEN: list[tuple[Message, dict[str, Any]]] = [
    (
        AudioDelta(audio=PCM),
        {"type": "realtime.response.audio.delta", "data": {"delta": PCM64}},
    ),
    (
        AudioAppend(audio=PCM),
        {"type": "realtime.input_audio_buffer.append", "data": {"audio": PCM64}},
    ),
    (
        AudioAppend(audio=b"", sequence_number=0),
        {
            "type": "realtime.input_audio_buffer.append",
            "data": {"audio": "", "sequenceNumber": 0},
        },
    ),
]


@pytest.mark.parametrize(("message", "expected"), WRITTEN)
def test_they_are_written_in_their_canonical_form(
    message: Message, expected: dict[str, Any]
) -> None:
    check_written(message, expected)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (AudioAppend(audio=b"abc"), "odd number"),
        (AudioDelta(audio=b"a"), "odd number"),
    ],
)
def test_what_has_no_json_form_is_a_local_mistake(message: Any, says: str) -> None:
    check_mistake(message, says)


SPELLINGS: list[tuple[Role, dict[str, object], object]] = [
    # audio: 5.12, 5.15
    (S, msg(AUDIO, delta=PCM64), AudioDelta(audio=PCM)),
    (S, msg(AUDIO, data={"audio": PCM64}), AudioDelta(audio=PCM)),
    (S, msg(AUDIO, data={}, delta=PCM64), AudioDelta(audio=PCM)),
    (C, msg(APPEND, data={"delta": PCM64}), AudioAppend(audio=PCM)),
    (C, msg(APPEND, audio=PCM64), AudioAppend(audio=PCM)),
    (C, msg(APPEND, data={}, audio=PCM64), AudioAppend(audio=PCM)),
    (C, msg("input_audio_buffer.append", data={"audio": PCM64}), AudioAppend(audio=PCM)),
    (C, msg(APPEND, data={"audio": "", "sequenceNumber": None}), AudioAppend(audio=b"")),
]


@pytest.mark.parametrize(("sender", "message", "expected"), SPELLINGS)
def test_every_spelling_is_read(sender: Role, message: dict[str, object], expected: object) -> None:
    assert read(sender, message) == expected


NO_SEQUENCE_NUMBERS: list[object] = [True, -1, "1", 1.5, []]
MALFORMED: list[tuple[Role, dict[str, object], str, str]] = [
    (S, msg(AUDIO, data={}), "data.delta", "is missing"),
    (S, msg(AUDIO, data={"delta": 5}), "data.delta", "is not a string"),
    (S, msg(AUDIO, data={"delta": "AAA"}), "data.delta", "is not standard base64 with padding"),
    (S, msg(AUDIO, data={"delta": "AA=="}), "data.delta", "holds half a sample"),
    (S, msg(AUDIO, delta="AA=="), "delta", "holds half a sample"),
    (C, msg(APPEND, data={}), "data.audio", "is missing"),
    (C, msg(APPEND), "data.audio", "is missing"),
    (C, msg(APPEND, data={"audio": [0, 0]}), "data.audio", "is not a string"),
    (C, msg(APPEND, data={"audio": "AAAA\n"}), "data.audio", "is not standard base64 with padding"),
    (C, msg(APPEND, data={"audio": "AAAA"}), "data.audio", "holds half a sample"),
    (C, msg("input_audio_buffer.append", audio="AAAA"), "audio", "holds half a sample"),
    *(
        (
            C,
            msg(APPEND, data={"audio": "", name: number}),
            "data.sequenceNumber",
            "is not a sequence number",
        )
        for name in ("sequenceNumber", "sequence")
        for number in NO_SEQUENCE_NUMBERS
    ),
]


@pytest.mark.parametrize(("sender", "message", "field", "reason"), MALFORMED)
def test_a_malformed_field_is_named(
    sender: Role, message: dict[str, object], field: str, reason: str
) -> None:
    check_malformed(sender, message, field, reason)
