"""Receiving never raises; a violation is an event; counters add up; Closed once and last; what is
held stays within Limits; decode(encode(m)) == m. The checks are in targets.py."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from grammar import CLIENT_SAMPLES, SAMPLES, SDP, SERVER_SAMPLES, damaged, descriptions, texts
from hypothesis import given
from hypothesis import strategies as st
from replay_everything import left_out
from seed_corpus import seeds
from targets import SEPARATOR, STATES, TARGETS, Session, begun, connection

from navtalk_proto.actions import AbortTransport
from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.wire import codec
from navtalk_proto.wire.messages import Offer, Unknown
from navtalk_proto.wire.sdp import check_description

needs_orjson = pytest.mark.skipif(
    importlib.util.find_spec("orjson") is None, reason="orjson is not installed"
)

CONTROLS = st.builds(
    lambda kind, number: bytes([kind, number]), st.integers(1, 7), st.integers(0, 15)
)
"""Records that are not texts: the engine, time, the transport, the application."""


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").replace(SEPARATOR, b"")


@st.composite
def sessions(draw: st.DrawFn) -> bytes:
    """A session as bytes: mostly what its far end may say, some of what it may not."""
    state = draw(st.integers(0, len(STATES) - 1))
    flags = draw(st.integers(0, 7))
    own, other = (CLIENT_SAMPLES, SERVER_SAMPLES) if flags & 1 else (SERVER_SAMPLES, CLIENT_SAMPLES)
    signaling = [sample for sample in SAMPLES if sample not in (*own, *other)]
    record = (
        texts(own).map(encoded)
        | texts(signaling).map(encoded)
        | texts(other).map(encoded)
        | CONTROLS
        | st.binary(max_size=12).map(lambda data: data.replace(SEPARATOR, b""))
    )
    records = draw(st.lists(record, max_size=24))
    return bytes([state << 3 | flags]) + SEPARATOR.join(records)


@given(session=sessions())
def test_sessions_of_both_roles_in_every_state(session: bytes) -> None:
    connection(session)


@given(text=texts(), flags=st.sampled_from((b"\x00", b"\x41", b"\x80", b"\xff")))
def test_one_message(text: str, flags: bytes) -> None:
    TARGETS["codec"](flags + encoded(text))


@given(text=descriptions())
def test_descriptions(text: str) -> None:
    TARGETS["sdp"](encoded(text))


@given(text=descriptions(), role=st.sampled_from(Role), answer=st.booleans())
def test_descriptions_in_a_session(text: str, role: Role, answer: bool) -> None:
    """What the check lets through, the machines and a strict engine take."""
    kind = "answer" if answer else "offer"
    record = codec.dumps(
        {"type": f"webrtc.signaling.{kind}", "data": {"sdp": {"sdp": text.replace("\ud800", "?")}}}
    )
    for state in range(len(STATES)):
        flags = 2 | (role is Role.SERVER)
        connection(bytes([state << 3 | flags]) + encoded(record) + b"\x1e\x01" * 4)


@given(fields=st.lists(st.binary(max_size=80) | st.sampled_from((b"0", b"65536", b"")), max_size=4))
def test_candidates(fields: list[bytes]) -> None:
    TARGETS["candidate"](SEPARATOR.join(fields))


@given(
    text=damaged(st.sampled_from([seed.decode("latin-1") for seed in seeds()["endpoint"]]))
    | st.text(max_size=60)
)
def test_urls(text: str) -> None:
    TARGETS["endpoint"](encoded(text))


@needs_orjson
@given(text=texts())
def test_both_parsers_on_messages(text: str) -> None:
    TARGETS["jsontext"](encoded(text))


# ---- that the above can fail, and reaches what it is for


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("media", [False, True])
def test_a_session_begins_in_the_state_that_was_asked_for(
    state: str, role: Role, media: bool
) -> None:
    session = begun(role, state, media=media)
    expected = {"new": "idle", "talking": "ready"}.get(state, state)
    assert session.core.state.value == expected
    if state == "talking":
        assert session.core.usable
        assert session.core.negotiation_state.value == ("stable" if media else "off")
    session.end()


def test_samples_are_whole_messages() -> None:
    """All but the one of an unknown type; so that what is broken is broken by the mutation."""
    for sample in SAMPLES:
        sender = Role.CLIENT if sample in CLIENT_SAMPLES else Role.SERVER
        message: Any = codec.decode(codec.dumps(sample), sender=sender, limits=Limits())
        assert isinstance(message, Unknown) == (sample["type"] == "never.seen")


def test_every_type_has_a_sample() -> None:
    types = {sample["type"] for sample in SAMPLES}
    known = {cls.TYPE for cls in (*codec._SERVER_CLASSES, *codec._CLIENT_CLASSES)}
    assert known <= types


def test_the_description_of_the_grammar_is_one() -> None:
    sdp = check_description(Offer(sdp=SDP), Limits())
    assert [media.kind for media in sdp.medias] == ["video", "audio"]


def test_a_core_that_goes_on_after_its_end_is_found_out() -> None:
    with left_out("they are broken on purpose"):
        session = Session(Role.CLIENT, media=False)
        session.lose()
        session.core._push(AbortTransport())
        with pytest.raises(AssertionError, match="after Closed"):
            session.check()


def test_a_core_that_miscounts_is_found_out() -> None:
    session = begun(Role.SERVER, "ready", media=False)
    session.core._counters.violations += 1
    with pytest.raises(AssertionError):
        session.check()
