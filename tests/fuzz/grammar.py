"""Invariant of what is made here: nearly a message; whatever becomes of it, receiving never raises.

Every type of protocol.md section 4 in the spellings of section 5, with what may go wrong on the
way: another key, another value, another place, another nesting; then damage to the text itself.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

__all__ = ["CLIENT_SAMPLES", "SAMPLES", "SDP", "SERVER_SAMPLES", "damaged", "descriptions", "texts"]

_SDP_LINES: Final = (
    "v=0",
    "o=- 3900000000 1 IN IP4 0.0.0.0",
    "s=-",
    "t=0 0",
    "a=group:BUNDLE 0 1",
    "a=msid-semantic: WMS *",
    "m=video 9 UDP/TLS/RTP/SAVPF 97",
    "c=IN IP4 0.0.0.0",
    "a=mid:0",
    "a=sendonly",
    "a=ice-ufrag:far1",
    "a=ice-pwd:pppppppppppppppppppppp",
    "a=fingerprint:sha-256 01:02:0A",
    "a=setup:actpass",
    "a=rtcp-mux",
    "m=audio 9 UDP/TLS/RTP/SAVPF 96",
    "a=mid:1",
    "a=recvonly",
    "a=bundle-only",
)
SDP: Final = "\r\n".join(_SDP_LINES) + "\r\n"
_CANDIDATE: Final = (
    "candidate:1666409998 1 udp 2122129151 192.0.2.1 64301 typ host generation 0 ufrag far1"
)
_PCM: Final = "AAABAAIAAwA="
_TOOL: Final = {"type": "function", "name": "close_talk", "parameters": {"properties": []}}
_ICE: Final = [
    {"urls": ["stun:stun.example.org:3478"]},
    {"urls": "turn:turn.example.org", "username": "u", "credential": "EXAMPLE"},
]


def _message(type: str, data: object = None, **more: object) -> dict[str, Any]:
    return {"type": type, "data": {} if data is None else data, **more}


_SIGNALING: Final = (
    _message("webrtc.signaling.offer", {"sdp": {"type": "offer", "sdp": SDP}}),
    _message("webrtc.signaling.offer", {"sdp": SDP}),
    _message("webrtc.signaling.answer", {"sdp": {"type": "answer", "sdp": SDP}}, sdp=SDP),
    _message(
        "webrtc.signaling.iceCandidate",
        {
            "candidate": {
                "candidate": _CANDIDATE,
                "sdpMid": "0",
                "sdpMLineIndex": 0,
                "usernameFragment": "far1",
            }
        },
    ),
    _message("webrtc.signaling.iceCandidate", {"candidate": None}),
    _message("webrtc.signaling.iceCandidate", {"candidate": _CANDIDATE, "sdpMLineIndex": "1"}),
)

SERVER_SAMPLES: Final = (
    _message("conversation.connected.success", {"sessionId": "session-abc123", "iceServers": _ICE}),
    _message("conversation.connected.success", None, session_id="s", ice_servers=_ICE),
    _message("conversation.connected.warning", {"avatarId": "0123"}, message="ambiguous"),
    *(
        _message(f"conversation.connected.{kind}", {"message": "no"}, message="no")
        for kind in (
            "fail",
            "close",
            "insufficient_balance",
            "connection_limit_exceeded",
            "gpu_full",
            "backend_error",
        )
    ),
    _message("session.gpu_full"),
    _message("session.backend.error"),
    _message("realtime.session.insufficient_balance"),
    _message("realtime.session.created", None, message=""),
    _message("realtime.session.updated", {"session": {}}, message=""),
    _message("realtime.input_audio_buffer.speech_started"),
    _message("realtime.input_audio_buffer.speech_stopped"),
    _message(
        "realtime.conversation.item.input_audio_transcription.completed",
        {"content": "What time?", "transcript": "What time?"},
    ),
    _message("realtime.response.audio_transcript.delta", {"id": "resp_01", "content": "At "}),
    _message("realtime.response.audio_transcript.done", {"response_id": "resp_01"}, delta="At 7."),
    _message("realtime.response.audio.delta", {"delta": _PCM}),
    _message("realtime.response.audio.done", None, message=""),
    _message("realtime.response.function_call_arguments.delta", {"call_id": "c", "delta": '{"a'}),
    _message(
        "realtime.response.function_call_arguments.done",
        {"function_name": "close_talk", "call_id": "call_1", "arguments": {"a": 1.5}},
        raw_data={"name": "close_talk", "call_id": "call_1", "arguments": '{"a": 1.5}'},
    ),
    _message(
        "realtime.response.function_call_arguments.done",
        {"function_name": "close_talk", "call_id": "call_2", "arguments": "{not json"},
    ),
    _message("realtime.response.completed", {"id": "resp_01"}),
    _message("response.done", None, response_id="resp_01"),
    _message("realtime.response.error", {"error": {"message": "no", "code": 7}}),
    _message("error", None, error="no"),
    _message("realtime.status", {"state": "ok"}),
    _message("realtime.response.video.delta", {"delta": "AAAA"}),
    _message("realtime_synthesis.tts.error", {"message": "no"}),
    _message("realtime_synthesis.stt.error"),
    _message("webrtc.streaming.break"),
    _message("unknow", None, raw_data={"type": "rate_limits.updated"}),
    _message("unknown", [1]),
    _message("never.seen", {"a": [1, {"b": None}]}),
)

CLIENT_SAMPLES: Final = (
    _message(
        "realtime.input_config",
        {"content": json.dumps({"voice": "cedar", "prompt": "Be short.", "tools": [_TOOL]})},
    ),
    _message("realtime.input_config", {"content": {"voice": "", "prompt": None}}),
    _message("realtime.input_function_call", {"content": json.dumps([_TOOL])}),
    {
        "type": "conversation.item.create",
        "item": {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "My name is Ana."}],
        },
    },
    {
        "type": "conversation.item.create",
        "item": {"content": "[{type=input_text, text=a}, {type=input_text, text=b}]"},
    },
    {
        "type": "conversation.item.create",
        "item": {"type": "function_call_output", "call_id": "call_1", "output": '{"ok":true}'},
    },
    _message("realtime.function_call_output", {"call_id": "c", "output": {"a": 1}, "reply": 1}),
    _message("realtime.input_function_call_output", {"call_id": "c", "result": "x"}),
    {"type": "response.create"},
    {"type": "session.update", "session": {"voice": "alloy", "tools": []}},
    _message("realtime.input_audio_buffer.append", {"audio": _PCM, "sequenceNumber": 17}),
    _message("realtime.input_audio_buffer.append", {"delta": _PCM, "sequence": 0}),
    {"type": "input_audio_buffer.append", "audio": _PCM},
    _message("realtime.input_audio_buffer.clear"),
    _message("realtime.input_audio_buffer.commit"),
    _message("input_audio_buffer.clear"),
    _message(
        "realtime.input_image", {"content": "data:image/jpeg;base64,/9j/4AAQ", "reply": False}
    ),
    _message("realtime.input_text", {"content": "Hello"}),
    _message("realtime.input.text", {"text": "Hello"}),
    _message("webrtc.signaling.iceRestartRequest"),
    _message("conversation.connected.success", {"provider": {"url": "u", "api_key": "EXAMPLE"}}),
)

SAMPLES: Final = (*SERVER_SAMPLES, *CLIENT_SAMPLES, *_SIGNALING)
"""One message per type and spelling; a session may get them from either side."""

_KEYS: Final = sorted(
    {
        key
        for sample in SAMPLES
        for place in (sample, sample.get("data"))
        if type(place) is dict
        for key in place
    }
    | {"candidate", "sdp", "text", "error", "item", "session", "", "__proto__", "\x00"}
)
_ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2, 2**31, 2**53, 2**53 + 1, 10**30, 0.5, -0.0, 1e308,
    "", " ", "0", "x", "\x00", "\ud800", "\U0001f600", "=", "AAA", "null", "{}", "[]", '{"a":', SDP,
    [], [[]], [None], {}, {"": {}}, {"type": "x"}, [{"urls": []}],
)  # fmt: skip
# Copied: a message that is made of one may be changed further.
_odd: Final = (
    st.sampled_from(_ODD_VALUES).map(copy.deepcopy)
    | st.text(max_size=8)
    | st.integers()
    | st.floats()
)


def _places(value: Any) -> list[Any]:
    """Every object and array inside, itself included."""
    found = [value]
    for item in found:
        inside = item.values() if type(item) is dict else item if type(item) is list else ()
        found.extend(one for one in inside if type(one) in (dict, list))
    return [one for one in found if type(one) in (dict, list)]


@st.composite
def _messages(draw: st.DrawFn, samples: Sequence[dict[str, Any]]) -> Any:
    """A sample with some of its members changed, moved, dropped or added."""
    message = json.loads(json.dumps(draw(st.sampled_from(samples))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(_places(message)))
        what = draw(st.sampled_from(("set", "drop", "move", "wrap", "add")))
        if type(place) is list:
            place.append(draw(_odd))
        elif what == "add" or not place:
            place[draw(st.sampled_from(_KEYS))] = draw(_odd)
        else:
            key = draw(st.sampled_from(sorted(place)))
            if what == "set":
                place[key] = draw(_odd)
            elif what == "drop":
                del place[key]
            elif what == "move":
                target = draw(
                    st.sampled_from([one for one in _places(message) if type(one) is dict])
                )
                target[draw(st.sampled_from(_KEYS))] = place.pop(key)
                if _is_cyclic(message):
                    return {}
            else:
                place[key] = [place[key]]
    return message


def _is_cyclic(value: Any) -> bool:
    try:
        json.dumps(value)
    except ValueError:
        return True
    return False


_PIECES: Final = (
    *'[]{}",:\\ \t\n\x00', "\ufeff", "\ud800", "\\ud83d", "\\u0000", '"type":', '"data":', "null",
    "1e999", "-", "9" * 20, "NaN", "\u2028", "\x1e", "[" * 70, '{"a":' * 70, "\r\n", "a=mid:", "m=",
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[str]) -> str:
    """A text with pieces cut out, doubled or put in."""
    text = draw(whole)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 40)))
        put = draw(st.sampled_from(("", text[at:end] * 2)) | st.sampled_from(_PIECES))
        text = text[:at] + put + text[end:]
    return text


def _write(message: Any) -> str:
    return json.dumps(message, ensure_ascii=True)


def texts(samples: Sequence[dict[str, Any]] = SAMPLES) -> st.SearchStrategy[str]:
    """Texts that one side may send: half of them whole messages, half of them damaged."""
    whole = _messages(samples).map(_write)
    return whole | damaged(whole)


@st.composite
def descriptions(draw: st.DrawFn) -> str:
    """Session descriptions with lines dropped, doubled, moved and changed, then damaged."""
    lines = list(_SDP_LINES)
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(lines) - 1))
        what = draw(st.sampled_from(("drop", "double", "move", "change")))
        if what == "drop" and len(lines) > 1:
            del lines[at]
        elif what == "double":
            lines.insert(at, lines[at])
        elif what == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        else:
            lines[at] = draw(
                st.sampled_from(("m=audio 0 x 0", "a=group:BUNDLE 1", "a=inactive", "a=", ""))
                | st.text(max_size=12)
            )
    end = draw(st.sampled_from(("\r\n", "\n", "\r")))
    return draw(damaged(st.just("".join(line + end for line in lines))))
