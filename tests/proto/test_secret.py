"""A secret shows itself to reveal() and to nothing else."""

from __future__ import annotations

import copy
import pickle
import string
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navtalk_proto.secret import Secret

LICENCE = "sk_navtalk_EXAMPLE"


def test_reveal_gives_the_text() -> None:
    assert Secret(LICENCE).reveal() == LICENCE


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(LICENCE)),
        str(Secret(LICENCE)),
        f"{Secret(LICENCE)}",
        f"{Secret(LICENCE)!r:>40}",
        f"{Secret(LICENCE):>40}",
        "%s %r" % (Secret(LICENCE), Secret(LICENCE)),  # noqa: UP031
        repr([Secret(LICENCE)]),
        repr({Secret(LICENCE): (Secret(LICENCE),)}),
        repr(OrderedDict(a=Secret(LICENCE))),
        string.Template("$a").substitute(a=Secret(LICENCE)),
    ],
)
def test_no_rendering_shows_it(shown: str) -> None:
    assert "***" in shown
    assert "EXAMPLE" not in shown
    assert "navtalk" not in shown


def test_a_format_width_is_kept() -> None:
    assert f"{Secret(LICENCE):>6}" == "   ***"


@given(st.text(), st.text())
def test_it_compares_by_text(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert Secret(one) == Secret(one)
    assert hash(Secret(one)) == hash(Secret(one))
    assert bool(Secret(one)) is (one != "")


def test_it_is_not_equal_to_its_text() -> None:
    assert Secret(LICENCE) != LICENCE
    assert LICENCE not in {Secret(LICENCE)}


def test_it_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(Secret(LICENCE))
    assert LICENCE not in str(caught.value)


def test_a_copy_is_the_same_secret() -> None:
    secret = Secret(LICENCE)
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"licence": secret})["licence"] is secret


def test_it_has_no_dict_to_look_into() -> None:
    assert not hasattr(Secret(LICENCE), "__dict__")
