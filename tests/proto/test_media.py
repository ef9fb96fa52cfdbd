from __future__ import annotations

from typing import Any

import pytest

from navtalk_proto.media import Capabilities, Direction, MediaKind, MediaLine, MediaState


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
