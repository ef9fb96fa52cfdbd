"""Descriptions, candidates, connected.success: every spelling (protocol.md 5.1, 5.4, 5.5, 6.6)."""

from __future__ import annotations

from typing import Any

import pytest
from wire_json import (
    ANSWER,
    ANSWER_SDP,
    CANDIDATE,
    ICE,
    OFFER,
    OFFER_SDP,
    SUCCESS,
    C,
    S,
    candidate,
    check_malformed,
    check_mistake,
    check_written,
    msg,
    read,
    refusal,
    success,
)

from navtalk_proto.limits import Limits
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.wire.codec import encode
from navtalk_proto.wire.messages import (
    Answer,
    ConnectedSuccess,
    GatewayHello,
    IceCandidate,
    IceServer,
    Message,
    Offer,
)

WRITTEN: list[tuple[Message, dict[str, Any]]] = [
    (
        ConnectedSuccess(
            session_id="s1",
            ice_servers=(
                IceServer(urls=("stun:a",)),
                IceServer(urls=("turn:b", "turns:c"), username="u", credential=Secret("p")),
            ),
        ),
        {
            "type": "conversation.connected.success",
            "message": "",
            "data": {
                "sessionId": "s1",
                "iceServers": [
                    {"urls": ["stun:a"]},
                    {"urls": ["turn:b", "turns:c"], "username": "u", "credential": "p"},
                ],
            },
        },
    ),
    (
        Offer(sdp=OFFER_SDP),
        {"type": "webrtc.signaling.offer", "data": {"sdp": {"type": "offer", "sdp": OFFER_SDP}}},
    ),
    (
        Answer(sdp=ANSWER_SDP),
        {
            "type": "webrtc.signaling.answer",
            "data": {"sdp": {"type": "answer", "sdp": ANSWER_SDP}},
            "sdp": {"type": "answer", "sdp": ANSWER_SDP},
        },
    ),
    (
        IceCandidate(
            candidate=CANDIDATE, sdp_mid="0", sdp_m_line_index=0, username_fragment="lwyK"
        ),
        {
            "type": "webrtc.signaling.iceCandidate",
            "data": {
                "candidate": {
                    "candidate": CANDIDATE,
                    "sdpMid": "0",
                    "sdpMLineIndex": 0,
                    "usernameFragment": "lwyK",
                }
            },
        },
    ),
    (
        IceCandidate(candidate=""),
        {
            "type": "webrtc.signaling.iceCandidate",
            "data": {"candidate": {"candidate": "", "sdpMid": None, "sdpMLineIndex": None}},
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
        (
            ConnectedSuccess(
                session_id="s", ice_servers=(IceServer(urls=("turn:b",), username="u"),)
            ),
            "username and a credential, or neither",
        ),
        (
            ConnectedSuccess(
                session_id="s",
                ice_servers=(IceServer(urls=("turn:b",), credential=Secret("TOP")),),
            ),
            "username and a credential, or neither",
        ),
        (
            ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=()),)),
            "without urls",
        ),
    ],
)
def test_what_has_no_json_form_is_a_local_mistake(message: Any, says: str) -> None:
    check_mistake(message, says)


SPELLINGS: list[tuple[Role, dict[str, object], object]] = [
    # connected.success: 5.1, 6.6
    (S, msg(SUCCESS, data={"session_id": "s"}), ConnectedSuccess(session_id="s")),
    (S, msg(SUCCESS, data={}, session_id="s"), ConnectedSuccess(session_id="s")),
    (S, msg(SUCCESS, data={}, sessionId="s"), ConnectedSuccess(session_id="s")),
    (S, msg(SUCCESS, sessionId="s"), ConnectedSuccess(session_id="s")),
    (S, msg(SUCCESS, data=None, sessionId="s"), ConnectedSuccess(session_id="s")),
    (
        S,
        msg(SUCCESS, data={"sessionId": "", "session_id": "s"}),
        ConnectedSuccess(session_id="s"),
    ),
    (
        S,
        msg(SUCCESS, data={"sessionId": "s", "iceServers": None}),
        ConnectedSuccess(session_id="s"),
    ),
    *(
        (
            S,
            message,
            ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=("stun:a",)),)),
        )
        for message in (
            msg(SUCCESS, data={"sessionId": "s", "iceServers": [{"urls": "stun:a"}]}),
            msg(SUCCESS, data={"sessionId": "s", "ice_servers": [{"urls": ["stun:a"]}]}),
            msg(SUCCESS, data={"sessionId": "s"}, iceServers=[{"urls": "stun:a"}]),
            msg(SUCCESS, sessionId="s", ice_servers=[{"urls": "stun:a"}]),
            msg(
                SUCCESS,
                data={
                    "sessionId": "s",
                    "iceServers": [
                        {},
                        {"urls": None},
                        {"urls": []},
                        {"urls": ""},
                        {"urls": ["", "stun:a"], "username": None, "credential": None},
                    ],
                },
            ),
        )
    ),
    (
        S,
        msg(SUCCESS, data={"sessionId": "s", "iceServers": [{"urls": "turn:b", "username": "u"}]}),
        ConnectedSuccess(session_id="s", ice_servers=(IceServer(urls=("turn:b",), username="u"),)),
    ),
    # descriptions: 5.4
    (S, msg(OFFER, data={"sdp": "v=0\r\n"}), Offer(sdp="v=0\r\n")),
    (S, msg(OFFER, data={"sdp": {"sdp": "v=0\ns=-\n"}}), Offer(sdp="v=0\r\ns=-\r\n")),
    (S, msg(OFFER, data={"sdp": {"sdp": "v=0\r\ns=-\nt=0"}}), Offer(sdp="v=0\r\ns=-\r\nt=0")),
    (S, msg(OFFER, data={"sdp": {"sdp": "v=0\rs=-\r\n"}}), Offer(sdp="v=0\r\ns=-\r\n")),
    (S, msg(OFFER, sdp={"type": "offer", "sdp": "v=0\n"}), Offer(sdp="v=0\r\n")),
    (C, msg(OFFER, data={"sdp": {"type": "answer", "sdp": "v=0"}}), Offer(sdp="v=0")),
    (C, msg(ANSWER, data={}, sdp={"type": "answer", "sdp": "v=0\n"}), Answer(sdp="v=0\r\n")),
    (S, msg(ANSWER, sdp="v=0\n"), Answer(sdp="v=0\r\n")),
    (S, msg(ANSWER, data={"sdp": None}, sdp="v=0"), Answer(sdp="v=0")),
    (
        S,
        msg(ANSWER, data={"sdp": {"type": "answer", "sdp": "v=0"}}, sdp={"sdp": "other"}),
        Answer(sdp="v=0"),
    ),
    # candidates: 5.5
    (C, msg(ICE, data={"candidate": None}), IceCandidate(candidate="")),
    (C, msg(ICE, data={}), IceCandidate(candidate="")),
    (C, msg(ICE), IceCandidate(candidate="")),
    (C, msg(ICE, data={"candidate": ""}), IceCandidate(candidate="")),
    (C, msg(ICE, data={"candidate": "candidate:1"}), IceCandidate(candidate="candidate:1")),
    (
        C,
        msg(ICE, data={"candidate": "candidate:1", "sdpMid": "1", "sdpMLineIndex": 1}),
        IceCandidate(candidate="candidate:1", sdp_mid="1", sdp_m_line_index=1),
    ),
    (
        S,
        msg(ICE, candidate={"candidate": "candidate:1", "sdpMid": "0"}),
        IceCandidate(candidate="candidate:1", sdp_mid="0"),
    ),
    (
        C,
        msg(ICE, data={"candidate": {"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0}}),
        IceCandidate(candidate="", sdp_mid="0", sdp_m_line_index=0),
    ),
    (
        C,
        msg(ICE, data={"candidate": {"candidate": None, "sdpMLineIndex": 3}}),
        IceCandidate(candidate="", sdp_m_line_index=3),
    ),
    (
        C,
        msg(ICE, data={"candidate": {"candidate": "c", "sdpMid": "", "usernameFragment": ""}}),
        IceCandidate(candidate="c"),
    ),
    (
        C,
        msg(
            ICE,
            data={
                "candidate": {
                    "candidate": "c",
                    "sdpMid": None,
                    "sdpMLineIndex": None,
                    "usernameFragment": None,
                }
            },
        ),
        IceCandidate(candidate="c"),
    ),
    *(
        (
            C,
            msg(ICE, data={"candidate": {"candidate": "c", "sdpMLineIndex": index}}),
            IceCandidate(candidate="c", sdp_m_line_index=number),
        )
        for index, number in ((0, 0), (65535, 65535), ("2", 2), ("65535", 65535), ("", None))
    ),
    (C, msg(SUCCESS, data={"provider": {}}), GatewayHello(data={"provider": {}})),
    (C, msg(SUCCESS), GatewayHello()),
]


@pytest.mark.parametrize(("sender", "message", "expected"), SPELLINGS)
def test_every_spelling_is_read(sender: Role, message: dict[str, object], expected: object) -> None:
    assert read(sender, message) == expected


NO_INDICES: list[object] = [True, False, -1, 65536, 1.0, "x", "-1", "65536", " 1", "¹", "000001"]
NO_INDICES += [[], {}]
MALFORMED: list[tuple[Role, dict[str, object], str, str]] = [
    (S, msg(SUCCESS, data=[]), "data", "is not an object"),
    (S, msg(SUCCESS, data="x"), "data", "is not an object"),
    (S, msg(SUCCESS, data={}), "data.sessionId", "is missing"),
    (S, msg(SUCCESS), "data.sessionId", "is missing"),
    (S, msg(SUCCESS, data={"sessionId": ""}), "data.sessionId", "is missing"),
    (S, msg(SUCCESS, data={"sessionId": 5}), "data.sessionId", "is not a string"),
    (S, msg(SUCCESS, data={"session_id": 5}), "data.session_id", "is not a string"),
    (S, msg(SUCCESS, data={}, session_id=True), "session_id", "is not a string"),
    (
        S,
        msg(SUCCESS, data={"sessionId": "s", "iceServers": {}}),
        "data.iceServers",
        "is not an array",
    ),
    (S, msg(SUCCESS, sessionId="s", ice_servers="x"), "ice_servers", "is not an array"),
    (
        S,
        msg(SUCCESS, data={"sessionId": "s", "ice_servers": ["stun:a"]}),
        "data.ice_servers[0]",
        "is not an object",
    ),
    (S, success(urls=5), "data.iceServers[1].urls", "is not a string or an array"),
    (S, success(urls=["a", 5]), "data.iceServers[1].urls[1]", "is not a string"),
    (S, success(urls="a", username=5), "data.iceServers[1].username", "is not a string"),
    (S, success(urls="a", credential={}), "data.iceServers[1].credential", "is not a string"),
    (C, msg(SUCCESS, data=[]), "data", "is not an object"),
    (S, msg(OFFER, data={}), "data.sdp", "is missing"),
    (S, msg(OFFER), "data.sdp", "is missing"),
    (S, msg(OFFER, data={"sdp": {}}), "data.sdp.sdp", "is missing"),
    (S, msg(OFFER, data={"sdp": {"sdp": 5}}), "data.sdp.sdp", "is not a string"),
    (S, msg(OFFER, data={"sdp": 5}), "data.sdp", "is not a string"),
    (C, msg(ANSWER, sdp={}), "sdp.sdp", "is missing"),
    (C, msg(ANSWER, data={}, sdp=[]), "sdp", "is not a string"),
    (C, msg(ICE, data={"candidate": 5}), "data.candidate", "is not an object"),
    (C, msg(ICE, data={"candidate": []}), "data.candidate", "is not an object"),
    (C, msg(ICE, candidate=True), "candidate", "is not an object"),
    (C, msg(ICE, data=5), "data", "is not an object"),
    (C, candidate(candidate=5), "data.candidate.candidate", "is not a string"),
    (C, candidate(sdpMid=0), "data.candidate.sdpMid", "is not a string"),
    (C, candidate(usernameFragment=0), "data.candidate.usernameFragment", "is not a string"),
    *(
        (
            C,
            candidate(sdpMLineIndex=index),
            "data.candidate.sdpMLineIndex",
            "is not an m-line index",
        )
        for index in NO_INDICES
    ),
    (
        C,
        msg(ICE, data={"candidate": "c", "sdpMLineIndex": "x"}),
        "data.sdpMLineIndex",
        "is not an m-line index",
    ),
]


@pytest.mark.parametrize(("sender", "message", "field", "reason"), MALFORMED)
def test_a_malformed_field_is_named(
    sender: Role, message: dict[str, object], field: str, reason: str
) -> None:
    check_malformed(sender, message, field, reason)


@pytest.mark.parametrize("type", [OFFER, ANSWER])
def test_an_oversized_description_is_malformed(type: str) -> None:
    limits = Limits(sdp=20)
    fits = read(S, msg(type, data={"sdp": "v=0\n" + "x" * 15}), limits)
    assert isinstance(fits, Offer | Answer)
    assert len(fits.sdp) == 20
    for sdp in ("v=0\n" + "x" * 16, "v=0\n" + "x" * 14 + "é"):
        error = refusal(S, msg(type, data={"sdp": sdp}), limits)
        assert (error.type, error.field) == (type, "data.sdp.sdp")
        assert error.reason == "is larger than 20 bytes"
    assert read(S, msg(type, data={"sdp": "v=0\n" + "x" * 13 + "é"}), limits)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("candidate", "candidate"),
        ("sdpMid", "sdp_mid"),
        ("usernameFragment", "username_fragment"),
    ],
)
def test_an_oversized_candidate_is_malformed(name: str, attribute: str) -> None:
    limits = Limits(candidate=20)
    fits = read(C, candidate(**{name: "x" * 20}), limits)
    assert getattr(fits, attribute) == "x" * 20
    error = refusal(C, candidate(**{name: "x" * 21}), limits)
    assert (error.type, error.field) == (ICE, f"data.candidate.{name}")
    assert error.reason == "is longer than 20 characters"


def test_of_many_ice_servers_the_first_are_kept() -> None:
    entries = [{"urls": f"stun:{n}"} for n in range(5)]
    message = msg(SUCCESS, data={"sessionId": "s", "iceServers": [{}, *entries]})
    three = ConnectedSuccess(
        session_id="s", ice_servers=tuple(IceServer(urls=(f"stun:{n}",)) for n in range(3))
    )
    assert read(S, message, Limits(ice_servers=3)) == three
    all_of_them = read(S, message, Limits(ice_servers=5))
    assert isinstance(all_of_them, ConnectedSuccess)
    assert len(all_of_them.ice_servers) == 5


def test_a_decoded_credential_is_a_secret() -> None:
    message = read(S, success(urls="turn:a", username="user-name", credential="turn-password"))
    assert "turn-password" not in repr(message)
    assert "user-name" not in repr(message)
    assert isinstance(message, ConnectedSuccess)
    assert message.ice_servers[1].credential == Secret("turn-password")
    assert "turn-password" in encode(message)
