"""Receiving costs memory and time in proportion to the text, never more; what is kept of a session
does not grow with what was received."""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import time
import tracemalloc
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from grammar import SDP
from replay_everything import left_out
from targets import Session, begun

from navtalk_proto.config import ClientConfig, ServerConfig
from navtalk_proto.connection import Connection
from navtalk_proto.errors import MalformedMessageError
from navtalk_proto.events import MessageReceived, OutOfOrder, ProtocolViolation
from navtalk_proto.limits import KIB, MIB, Limits
from navtalk_proto.roles import Role
from navtalk_proto.wire import codec, jsontext, realtime_messages
from navtalk_proto.wire.messages import FunctionCallDone, Offer
from navtalk_proto.wire.sdp import check_description


@pytest.fixture(autouse=True)
def every_session_is_replayed() -> Iterator[None]:
    """Replays none."""
    with left_out("what they keep in memory is measured"):
        yield


BOMBS: dict[str, Callable[[int], str]] = {
    "empty arrays": lambda size: "[" + "[]," * (size // 3) + "[]]",
    "empty objects": lambda size: "[" + "{}," * (size // 3) + "{}]",
    "empty strings": lambda size: "[" + '"",' * (size // 3) + '""]',
    "numbers": lambda size: "[" + "0," * (size // 2) + "0]",
    "small objects": lambda size: "[" + '{"a":0},' * (size // 8) + "0]",
    "equal keys": lambda size: "{" + '"a":0,' * (size // 6) + '"a":0}',
    "different keys": lambda size: (
        "{" + "".join(f'"{n:07}":0,' for n in range(size // 12)) + '"a":0}'
    ),
    "deep arrays": lambda size: "[" * (size // 2) + "]" * (size // 2),
    "deep objects": lambda size: '{"a":' * (size // 6) + "0" + "}" * (size // 6),
    "only opened": lambda size: "[" * size,
    "only closed": lambda size: "[" * 70 + "]" * size,
    "a long integer": lambda size: "[" + "9" * size + "]",
    "a long fraction": lambda size: "[0." + "9" * size + "]",
    "a long exponent": lambda size: "[1e" + "9" * size + "]",
    "escaped surrogates": lambda size: '["' + "\\ud800" * (size // 6) + '"]',
    "surrogates": lambda size: '["' + "\ud800" * (size // 3) + '"]',
    "quotes": lambda size: '"' * size,
    "escaped quotes": lambda size: "[]" * 70 + '"' + '\\"' * (size // 2),
    "brackets in a string": lambda size: '["' + "[{,:" * (size // 4) + '"]',
    "white space": lambda size: "[" + " " * size + "]",
    "a wide character": lambda size: '["' + "a" * size + '\U0001f600"]',
}


def nested(text: str) -> str:
    """The bomb as the JSON text inside a message, where it is parsed once more."""
    return json.dumps({"type": "realtime.input_config", "data": {"content": text}})


def as_message(text: str) -> str:
    """The bomb as the data of a message."""
    return '{"type": "session.update", "session": {"a": ' + text + "}}"


WRAPPED: dict[str, Callable[[str], str]] = {"bare": str, "data": as_message, "content": nested}


def listening() -> Connection:
    """A server that waits for its client's next message."""
    core = Connection(Role.SERVER, ServerConfig(media=()), now=0.0)
    core.transport_opened(now=0.0)
    return core


def outcome(core: Connection, text: str) -> list[Any]:
    core.receive_text(text, now=0.0)
    return [getattr(action, "event", action) for action in core.actions()]


def peak(work: Callable[[], object]) -> tuple[int, int]:
    """The most memory that Python had above what it had before, in bytes; and what is left."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        most = tracemalloc.get_traced_memory()[1]
        gc.collect()
        return most - before, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


LARGEST = Limits().client_message
TEXT = MIB
PARSERS = {
    # Copies of a text: without strings, without escapes, as UTF-8, as four bytes a character.
    "json": (jsontext._loads_reference, jsontext._loads_reference, jsontext._prove_reference, 9),
    # orjson reserves twelve bytes a character before it looks at the text, and gives them back.
    "orjson": (jsontext._loads_orjson, jsontext._parse_orjson, jsontext._prove_orjson, 14),
}
VALUES = 24 * MIB
"""100,000 values of some 100 bytes, twice."""


FILLED = [("json", "content"), ("orjson", "bare"), ("json", "bare"), ("orjson", "content")]
"""Each parser, and each place for a bomb; all four pairs of them at night only."""
if os.environ.get("NAVTALK_PROFILE") != "nightly":
    FILLED = FILLED[:2]


@pytest.mark.parametrize(("parser", "place"), FILLED, ids="-".join)
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_memory(
    bomb: Callable[[int], str],
    parser: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrap = WRAPPED[place]
    if parser == "orjson":
        pytest.importorskip("orjson")
    loads, parse, prove, copies = PARSERS[parser]
    monkeypatch.setattr(realtime_messages, "loads", loads)
    monkeypatch.setattr(codec, "parse", parse)
    monkeypatch.setattr(codec, "prove", prove)
    core = listening()
    texts = [wrap(bomb(TEXT))]
    size = len(texts[0].encode("utf-8", "surrogatepass"))
    assert TEXT // 2 < size <= LARGEST
    told: list[type] = []

    def receive() -> None:
        # The text goes, too: a string may keep its UTF-8 form.
        told.extend(type(event) for event in outcome(core, texts.pop()))

    most, left = peak(receive)
    assert most < copies * size + VALUES
    assert left < MIB, "something of it is kept"
    assert told[:1] in ([ProtocolViolation], [OutOfOrder], [MessageReceived])


SMALL, LARGE = 128 * KIB, MIB
FACTOR = 3 * LARGE // SMALL
"""Three times what is linear; a quadratic cost would be eight times it."""
NOTHING = 0.02
"""Seconds that say nothing: too little to compare."""


def cost(text: str) -> float:
    """Processor seconds of receiving this; the least of several times, for there are others."""
    least = 1e9
    for _ in range(3):
        core = listening()
        start = time.process_time()
        core.receive_text(text, now=0.0)
        least = min(least, time.process_time() - start)
    return least


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_time_grows_as_the_text_does(
    bomb: Callable[[int], str], wrap: Callable[[str], str]
) -> None:
    small, large = cost(wrap(bomb(SMALL))), cost(wrap(bomb(LARGE)))
    assert large < NOTHING or large < FACTOR * max(small, NOTHING / FACTOR)


def test_what_is_too_large_is_not_looked_at() -> None:
    core = listening()
    text = "[" * (LARGEST + 1)
    (violation, *_) = outcome(core, text)
    assert violation.reason == f"is larger than {LARGEST} bytes"
    assert violation.fatal


def test_16_mib_of_empty_arrays_are_refused_before_they_are_made() -> None:
    (violation,) = outcome(listening(), BOMBS["empty arrays"](LARGEST - 200))
    assert violation.reason == "holds more than 100000 values"


def test_a_picture_of_16_mib_is_taken() -> None:
    picture = "data:image/jpeg;base64," + "A" * (LARGEST - 200)
    core = listening()
    text = json.dumps({"type": "realtime.input_image", "data": {"content": picture}})
    assert not any(isinstance(event, ProtocolViolation) for event in outcome(core, text))


# ---- descriptions


SDP_BOMBS: dict[str, Callable[[int], str]] = {
    "lines": lambda lines: SDP + "a=rtpmap:96 VP8/90000\r\n" * lines,
    "m-lines": lambda lines: SDP + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * lines,
    "candidates": lambda lines: SDP + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * lines,
    "groups": lambda lines: "v=0\r\n" + "a=group:BUNDLE 0 1 2\r\n" * lines + SDP[5:],
    "a long group": lambda lines: SDP.replace("BUNDLE 0 1", "BUNDLE" + " 1" * lines * 10),
    "fingerprints": lambda lines: (
        SDP + "".join(f"a=fingerprint:sha-256 {n % 100:02}:{n // 100 % 100:02}\r\n"
                      for n in range(lines))
    ),
    "a long fingerprint": lambda lines: SDP + "a=fingerprint:x 00" + ":00" * lines * 10 + "\r\n",
    "a long m-line": lambda lines: SDP + "m=" + "x" * lines * 30 + "\r\n",
    "spaces": lambda lines: SDP + "m=audio 9 x" + " " * lines * 30 + "\r\n",
    "empty lines": lambda lines: SDP + "\r\n" * lines * 10,
}  # fmt: skip


@pytest.mark.parametrize("bomb", SDP_BOMBS.values(), ids=SDP_BOMBS)
def test_descriptions_of_ten_thousand_lines(bomb: Callable[[int], str]) -> None:
    limits = Limits(sdp=16 * MIB)

    def check(offer: Offer) -> None:
        with suppress(MalformedMessageError):
            check_description(offer, limits)

    def cost(lines: int) -> float:
        offer = Offer(sdp=bomb(lines))
        least = 1e9
        for _ in range(3):
            start = time.process_time()
            check(offer)
            least = min(least, time.process_time() - start)
        return least

    small, large = cost(1250), cost(10_000)
    assert large < NOTHING or large < FACTOR * max(small, NOTHING / FACTOR)
    offer = Offer(sdp=bomb(10_000))
    assert peak(lambda: check(offer))[0] < 12 * len(offer.sdp) + MIB


# ---- many messages; a hundred thousand in the nightly profile


def held(thing: object) -> int:
    """The bytes of everything that can be reached from an object, but for code."""
    seen: set[int] = set()
    waiting = [thing]
    size = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(one))
        size += sys.getsizeof(one)
        waiting.extend(gc.get_referents(one))
    return size


def message(type: str, data: dict[str, Any]) -> str:
    return json.dumps({"type": type, "data": data})


FLOODS: dict[str, tuple[Role, str, Callable[[int], str]]] = {
    "candidates": (
        Role.CLIENT,
        "ready",
        lambda n: message(
            "webrtc.signaling.iceCandidate",
            {"candidate": {"candidate": f"candidate:{n} 1 udp 1 192.0.2.1 9 typ host"}},
        ),
    ),
    "candidates of a description": (
        Role.SERVER,
        "talking",
        lambda n: message(
            "webrtc.signaling.iceCandidate",
            {"candidate": {"candidate": f"candidate:{n} 1 udp 1 192.0.2.1 9 typ host"}},
        ),
    ),
    "responses": (
        Role.CLIENT,
        "ready",
        lambda n: message(
            "realtime.response.audio_transcript.delta", {"id": f"r{n}", "content": "x"}
        ),
    ),
    "a response without end": (
        Role.CLIENT,
        "ready",
        lambda n: message(
            "realtime.response.audio_transcript.delta", {"id": "r", "content": "x" * 40}
        ),
    ),
    "calls": (
        Role.CLIENT,
        "ready",
        lambda n: message(
            "realtime.response.function_call_arguments.done",
            {"function_name": "f", "call_id": f"c{n}", "arguments": "not json"},
        ),
    ),
    "pieces of calls": (
        Role.CLIENT,
        "ready",
        lambda n: message(
            "realtime.response.function_call_arguments.delta",
            {"call_id": f"c{n}", "delta": "x" * 40},
        ),
    ),
    "types": (Role.SERVER, "ready", lambda n: message(f"unknown.{n}", {})),
    "answers": (
        Role.SERVER,
        "ready",
        lambda n: message("webrtc.signaling.answer", {"sdp": SDP.replace("far1", f"far{n}")}),
    ),
    "results": (
        Role.SERVER,
        "ready",
        lambda n: message("realtime.function_call_output", {"call_id": f"c{n}", "output": "x"}),
    ),
}

MANY = 100_000 if os.environ.get("NAVTALK_PROFILE") == "nightly" else 20_000
KEPT = 256 * KIB
"""By how much a session may grow between its thousandth and its last message."""


@pytest.mark.parametrize(("role", "state", "make"), FLOODS.values(), ids=FLOODS)
def test_a_flood(role: Role, state: str, make: Callable[[int], str]) -> None:
    session = begun(role, state, media=True)
    core = session.core
    core._limits = Limits()

    def take(numbers: Iterator[int], count: int) -> int:
        for number in itertools.islice(numbers, count):
            core.receive_text(make(number), now=session.now)
            core.actions()
        return held(core)

    numbers = itertools.count()
    early = take(numbers, 1000)
    late = take(numbers, MANY - 1000)
    assert late - early < KEPT


@pytest.mark.parametrize(
    "arguments",
    ["", "not json", '{"a":', "[" * 100_000, "null", "[1]", '"x"', "\x00", '{"a":' * 70 + "}" * 70],
)
def test_arguments_that_are_no_json_arrive_as_they_are(arguments: str) -> None:
    """Whoever runs the tool says what is wrong with them; the session goes on."""
    call = FunctionCallDone(call_id="c", name="f", arguments=arguments)
    again = codec.decode(codec.encode(call), sender=Role.SERVER, limits=Limits())
    assert isinstance(again, FunctionCallDone)
    assert again.arguments == arguments
    session = Session(Role.CLIENT, media=False)
    session.core = Connection(Role.CLIENT, ClientConfig(media=()), now=0.0)
    session.open()
    for text in (
        message("conversation.connected.success", {"sessionId": "s"}),
        message("realtime.session.created", {}),
        message("realtime.session.updated", {}),
        codec.encode(call),
    ):
        session.receive(text)
    assert session.core.counters.violations <= 1  # Longer ones may be refused.
    assert session.core.usable
