"""The two sides of a connection."""

from __future__ import annotations

from navtalk_proto.roles import Role


def test_there_are_two_sides() -> None:
    assert {role.value for role in Role} == {"client", "server"}


def test_each_is_the_others_peer() -> None:
    assert Role.CLIENT.peer is Role.SERVER
    assert Role.SERVER.peer is Role.CLIENT
