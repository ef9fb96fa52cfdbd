from __future__ import annotations

from typing import Any

import pytest

from navtalk_proto.media import (
    Capabilities,
    Direction,
    MediaKind,
    MediaLine,
    MediaState,
    recording_media,
)


def test_a_line_receives_by_default() -> None:
    line = MediaLine(kind=MediaKind.VIDEO)
    assert line.direction is Direction.RECVONLY
    assert line.codecs == ()


@pytest.mark.parametrize(
    "fields",
    [{"kind": "video"}, {"kind": MediaKind.VIDEO, "direction": "recvonly"}, {"kind": None}],
)
def test_a_line_takes_no_strings_for_its_enums(fields: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        MediaLine(**fields)


def test_no_engine_rolls_back_unless_it_says_so() -> None:
    assert Capabilities().rollback is False


def test_directions_are_those_of_rfc_8866() -> None:
    assert [direction.value for direction in Direction] == [
        "sendrecv",
        "sendonly",
        "recvonly",
        "inactive",
    ]


def test_media_states_in_the_order_of_a_call() -> None:
    assert [state.value for state in MediaState] == [
        "new",
        "checking",
        "ice-connected",
        "connected",
        "disconnected",
        "failed",
        "closed",
    ]


@pytest.mark.parametrize(
    ("path", "codecs"),
    [
        ("call.mp4", ("H264", "VP8")),
        ("/tmp/a.b/call.MP4", ("H264", "VP8")),
        ("call.webm", ("VP8", "H264")),
        ("call.mkv", ()),
    ],
)
def test_what_a_recording_wants_is_asked_for(path: str, codecs: tuple[str, ...]) -> None:
    video, audio = recording_media(path)
    assert video == MediaLine(kind=MediaKind.VIDEO, codecs=codecs)
    assert audio == MediaLine(kind=MediaKind.AUDIO)


@pytest.mark.parametrize("path", ["call.avi", "call", "call.mp4/call"])
def test_a_file_that_nothing_is_recorded_into_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"\.mp4, \.mkv, \.webm"):
        recording_media(path)
