"""An enum that is hashed by identity is looked up as any other."""

from __future__ import annotations

import copy
import pickle
from enum import Enum

from navtalk_proto.identity_hash import identity_hash


@identity_hash
class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def test_members_are_keys() -> None:
    table = {Colour.RED: 1, (Colour.BLUE, "deep"): 2}
    assert table[Colour("red")] == 1
    assert table[Colour["BLUE"], "deep"] == 2
    assert hash(Colour.RED) == object.__hash__(Colour.RED)


def test_copies_are_the_member() -> None:
    assert copy.deepcopy(Colour.RED) is Colour.RED
    assert pickle.loads(pickle.dumps(Colour.BLUE)) is Colour.BLUE


def test_the_class_is_the_same() -> None:
    class Plain(Enum):
        ONE = 1

    assert identity_hash(Plain) is Plain
    assert {Plain.ONE: "one"}[Plain(1)] == "one"
