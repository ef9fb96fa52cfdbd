"""Receiving never raises: what atheris found worth keeping is replayed, without atheris.

A file of corpus/connection says in its first byte which role it is for; here each is replayed in
both. A finding of atheris is added to its corpus together with the fix.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 300_000
"""Of all corpora together; atheris_targets.py's -merge=1 keeps them small."""


def replayed(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_replay(target: str) -> None:
    if target == "jsontext" and importlib.util.find_spec("orjson") is None:
        pytest.skip("orjson is not installed")
    inputs = replayed(target)
    assert inputs
    for data in inputs:
        TARGETS[target](data)


@pytest.mark.parametrize("flags", range(1, 8))
def test_sessions_in_the_other_role_and_form(flags: int) -> None:
    for data in replayed("connection"):
        TARGETS["connection"](bytes([data[0] ^ flags]) + data[1:])


def test_the_corpus_is_small_and_no_secret_is_in_it() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    for path in files:
        assert b"sk_navtalk_" not in path.read_bytes().replace(b"sk_navtalk_EXAMPLE", b"")
