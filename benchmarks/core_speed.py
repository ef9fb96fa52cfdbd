"""What does the core cost for each message, in units of its JSON parser?

Run: ``python benchmarks/core_speed.py``, about a minute and a half; ``--quick`` takes a few seconds
and is rough. Needs ``navtalk[speed]``. Nothing but the core runs: no socket, no event loop.

Two interpreters are started, one with orjson and pybase64, one in which they cannot be imported. In
each, for every kind of message, blocks of ``receive_text(text)`` and ``actions()`` (or of
``send(message)`` and ``actions()``) alternate with blocks of the parser's bare ``loads`` of the
same texts: ``orjson.loads`` with ``[speed]``, ``json.loads`` without.

How to read it: the parser's column and *core* are microseconds of processor time for a message,
medians over the rounds; *ratio* is the median of the rounds' own ratios, and the figure that can be
compared between machines. The core's part of it is everything that an adapter gets: limits, JSON
rules, base64, checks of SDP, state machines, events or text. Received messages that change a state
have it put back between the blocks, untimed. Then, with ``[speed]``:

messages  one session is given a conversation, again and again: the cost of a message among the last
          ones, over that among the first ones. Windows of the same conversation are compared.
sessions  the same, given to many sessions in turn: the cost for each message with all of them, over
          that with one, both in units of the parser's time for the same texts.
memory    what Python has allocated for a connection in READY, with media negotiated, that is idle.
floor     what the least that an offer's text needs takes by itself: to tell its lines apart, by
          ``str.split`` and by one regular expression that finds its m-lines and its transport, and
          to see that they all end with CRLF. Nothing is decided by that.

Exit code 1: a bar is not met. ``--json`` prints the same as one JSON object in the last line.
"""

from __future__ import annotations

import argparse
import base64
import gc
import itertools
import json
import re
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import asdict, field, frozen

from navtalk_proto import ClientConfig, Connection, Role, ServerConfig, intents
from navtalk_proto.actions import (
    Action,
    AddCandidate,
    OpenPeer,
    ResetPeer,
    SendText,
    SetLocal,
    SetRemote,
)
from navtalk_proto.media import MediaKind, MediaStarted, MediaState, MediaStateChanged
from navtalk_proto.wire import messages
from navtalk_proto.wire.messages import (
    Answer,
    ConnectedSuccess,
    SessionCreated,
    SessionUpdated,
)

PARSERS: Final = ("orjson", "json")
"""With ``[speed]``, and without."""

FLAT: Final = 1.25
"""By how much a message may cost more among a million, or with a thousand sessions."""

MEMORY_KIB: Final = 64.0


# ---- what is said

UFRAG: Final = "EsAw"
CANDIDATE: Final = (
    '{"type":"webrtc.signaling.iceCandidate","data":{"candidate":{"candidate":"candidate:2842163049'
    " 1 udp 1677729535 203.0.113.7 51542 typ srflx raddr 192.168.178.20 rport 51542 generation 0 "
    f'ufrag {UFRAG} network-id 1 network-cost 10","sdpMid":"0","sdpMLineIndex":0,'
    f'"usernameFragment":"{UFRAG}"}}}}}}'
)
"""As Chromium writes one."""

HOSTS: Final = (
    ("f957a2332b1715da3b0ef8ba684454eb", "192.0.2.17"),
    ("d0bcf3d9c29a2bc887", "fd00::2"),
)


def sdp(number: int, *, answer: bool = False, size: int = 3930) -> str:
    """A description of audio and video as aiortc writes it, with some candidates to fill `size`.

    `number` tells descriptions apart; the transport is the same in all of them.
    """
    fingerprints = [
        f"a=fingerprint:sha-{bits} " + ":".join(f"{at % 256:02X}" for at in range(7, 7 + bits // 8))
        for bits in (256, 384, 512)
    ]
    transport = [
        "a=end-of-candidates",
        f"a=ice-ufrag:{UFRAG}",
        "a=ice-pwd:EXAMPLEofApwdThatIs22c",
        *fingerprints,
        f"a=setup:{'active' if answer else 'actpass'}",
    ]
    codecs = {
        "audio": ["96 opus/48000/2", "9 G722/8000", "0 PCMU/8000", "8 PCMA/8000"],
        "video": ["97 VP8/90000", "98 rtx/90000", "99 H264/90000", "100 rtx/90000"],
    }
    lines = [
        "v=0",
        f"o=- {3900000000 + number} {3900000000 + number} IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1",
        "a=msid-semantic:WMS *",
    ]
    sections = []
    for mid, (kind, maps) in enumerate(codecs.items()):
        types = " ".join(each.partition(" ")[0] for each in maps)
        sections.append(
            [
                f"m={kind} 54951 UDP/TLS/RTP/SAVPF {types}",
                "c=IN IP4 192.0.2.17",
                "a=recvonly" if answer else "a=sendonly",
                "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid",
                f"a=mid:{mid}",
                "a=msid:1e8f1b5a-d2c2-4a5a-8aae-4c077b05a515 21157996-8395-483b-9cd5-d473baf77294",
                "a=rtcp:9 IN IP4 0.0.0.0",
                "a=rtcp-mux",
                f"a=ssrc:270225045{mid} cname:668a206d-0cf1-4dcf-a9ee-c44388299963",
                *(f"a=rtpmap:{each}" for each in maps),
                *(
                    f"a=rtcp-fb:{each.partition(' ')[0]} {feedback}"
                    for each in maps
                    if kind == "video"
                    for feedback in ("nack", "nack pli", "goog-remb")
                ),
            ]
        )
    fixed = sum(
        len(line) + 4 for line in [*lines, *transport, *transport, *itertools.chain(*sections)]
    )
    port = itertools.count(40_000)
    for section in itertools.cycle(sections):
        foundation, address = HOSTS[next(port) % 2]
        line = f"a=candidate:{foundation} 1 udp 2130706431 {address} {next(port)} typ host"
        if fixed + len(line) + 4 > size:
            break
        fixed += len(line) + 4
        section.append(line)
    for section in sections:
        lines += [*section, *transport]
    return "\r\n".join(lines) + "\r\n"


ANSWER: Final = Answer(sdp=sdp(0, answer=True))


def text_of(kind: str, **data: Any) -> str:
    """A message as a server writes it."""
    return json.dumps({"type": kind, "data": data}, separators=(",", ":"), ensure_ascii=False)


def offer(number: int) -> str:
    return text_of("webrtc.signaling.offer", sdp={"type": "offer", "sdp": sdp(number)})


PCM_10_KB: Final = bytes(range(250)) * 30
"""7,500 bytes: 10,000 characters of base64."""

CONVERSATION: Final[tuple[str, ...]] = (
    text_of("realtime.input_audio_buffer.speech_started"),
    text_of("realtime.input_audio_buffer.speech_stopped"),
    text_of(
        "realtime.conversation.item.input_audio_transcription.completed",
        content="What can you tell me about the weather?",
    ),
    *(
        text_of("realtime.response.audio_transcript.delta", id="{id}", content=f" word {n}")
        for n in range(24)
    ),
    text_of(
        "realtime.response.audio_transcript.done",
        id="{id}",
        content="".join(f" word {n}" for n in range(24)),
    ),
    text_of("realtime.response.audio.done", id="{id}"),
    CANDIDATE,
    text_of("realtime.response.audio.delta", delta=base64.b64encode(PCM_10_KB).decode()),
)
"""A question and its answer; ``{id}`` is the response's."""


def conversation(number: int) -> list[str]:
    return [text.replace("{id}", f"resp_{number:08}") for text in CONVERSATION]


# ---- who hears it


class Session:
    """A connection without an adapter, in READY, with its media negotiated by a paper engine."""

    def __init__(self, role: str) -> None:
        self.client: Final = role == "client"
        self.now = 1000.0
        config = ClientConfig() if self.client else ServerConfig()
        self.core: Final = Connection(Role(role), config, now=self.now)
        self.core.transport_opened(now=self.now)
        if self.client:
            for text in (
                text_of("conversation.connected.success", sessionId="3f1c0a52"),
                text_of("realtime.session.created"),
                text_of("realtime.session.updated"),
                offer(0),
            ):
                self.core.receive_text(text, now=self.now)
                self.settle(self.core.actions())
        else:
            for message in (
                ConnectedSuccess(session_id="3f1c0a52"),
                SessionCreated(),
                SessionUpdated(),
            ):
                self.core.send(message, now=self.now)
                self.settle(self.core.actions())
        self.core.media_event(MediaStateChanged(state=MediaState.CONNECTED), now=self.now)
        if self.client:
            started = MediaStarted(track_id="audio", kind=MediaKind.AUDIO)
            self.core.media_event(started, now=self.now)
        self.settle(self.core.actions())

    def settle(self, actions: Iterable[Action]) -> None:
        """Carry out what an engine would, until it has nothing to do."""
        waiting = list(actions)
        for action in waiting:
            match action:
                case AddCandidate(op=op) | OpenPeer(op=op) | ResetPeer(op=op) | SetRemote(op=op):
                    self.core.media_done(op, now=self.now)
                case SetLocal(op=op):
                    self.core.media_done(op, ANSWER, now=self.now)
                case _:
                    continue
            waiting += self.core.actions()

    def hear(self, *texts: str) -> None:
        """Receive, untimed."""
        for text in texts:
            self.core.receive_text(text, now=self.now)
        self.settle(self.core.actions())

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.core.handle_timeout(now=self.now)
        self.core.actions()


# ---- what is measured

Loads: TypeAlias = Callable[[str], Any]
Keep: TypeAlias = Callable[[Any], None]
drop: Keep = deque(maxlen=0).append
"""Keeps nothing, at the price of a call that keeps."""
Step: TypeAlias = tuple[Session, Any]
"""A session, and the text that it receives, or the message that it sends."""


@frozen(kw_only=True)
class Kind:
    """How a kind of message is measured.

    `prepare` gives the steps of a block; it is called before each, untimed, with the number of the
    block. `bars` are by parser.
    """

    name: str
    prepare: Callable[[int], list[Step]]
    sends: bool = False
    settles: bool = False
    """Whether an engine has something to do for each."""
    bars: dict[str, float] = field(factory=dict)


SMALL_BARS: Final = {"orjson": 8.0, "json": 4.0}
OFFER_BARS: Final = {"orjson": 4.0}
AUDIO_BARS: Final = {"orjson": 3.5, "json": 6.0}
BLOCK: Final = 50
WARM_UP: Final = 5
PAUSE: Final = 600.0
"""Seconds between two exchanges, in the session's own time: what was said is over by then."""


@frozen(kw_only=True)
class Row:
    """A figure beside what it is compared with."""

    question: str
    ours: float
    reference: float
    ratio: float
    unit: str
    bar: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None: there is none."""
        return None if self.bar is None else self.ratio <= self.bar


def kinds() -> list[Kind]:
    """Every kind that is measured, with a session of its own."""
    client, server, speaking = Session("client"), Session("server"), Session("client")
    listening = [Session("client") for _ in range(10)]
    numbers = itertools.count(1)

    def again(session: Session, *said: Any) -> Callable[[int], list[Step]]:
        return lambda _: [(session, each) for each in said] * (BLOCK // len(said))

    def offers(_: int) -> list[Step]:
        return [(session, offer(next(numbers))) for session in listening]

    def deltas(block: int) -> list[Step]:
        client.hear(*conversation(block)[-4:-2])
        client.pass_time(3600.0)
        texts = conversation(block + 1)[3 : 3 + 24]
        return [(client, text) for text in texts * 2]

    def calls(block: int) -> list[Step]:
        for call_id in client.core.pending_calls:
            answer = messages.FunctionCallOutput(call_id=call_id, output="{}", reply=False)
            client.core.send(answer, now=client.now)
        client.core.actions()
        data = {"function_name": "get_weather", "arguments": {"city": "Lisbon", "days": 3}}
        kind = "realtime.response.function_call_arguments.done"
        return [
            (client, text_of(kind, call_id=f"call_{block}_{number}", **data))
            for number in range(20)
        ]

    audio = base64.b64encode(PCM_10_KB).decode()
    heard = [
        Kind(name="ICE candidate", prepare=again(client, CANDIDATE), settles=True, bars=SMALL_BARS),
        Kind(name="offer, 4 kB", prepare=offers, settles=True, bars=OFFER_BARS),
        Kind(
            name="audio of the human, 10 kB",
            prepare=again(client, text_of("realtime.response.audio.delta", delta=audio)),
            bars=AUDIO_BARS,
        ),
        Kind(
            name="audio of the user, 10 kB",
            prepare=again(server, text_of("realtime.input_audio_buffer.append", audio=audio)),
            bars=AUDIO_BARS,
        ),
        Kind(
            name="speech started, stopped",
            prepare=again(client, *CONVERSATION[:2]),
        ),
        Kind(name="user's turn", prepare=again(client, CONVERSATION[2])),
        Kind(name="piece of an answer", prepare=deltas),
        Kind(name="function call", prepare=calls),
        Kind(
            name="status",
            prepare=again(client, text_of("realtime.status", state="listening", queue=0)),
        ),
        Kind(
            name="unknown",
            prepare=again(client, text_of("realtime.something.new", value=[1, 2, 3])),
        ),
        Kind(
            name="user message",
            prepare=again(
                server,
                json.dumps(
                    {
                        "type": "conversation.item.create",
                        "item": {
                            "type": "message",
                            "role": "user",
                            "content": [{"type": "input_text", "text": "Tell me about Lisbon."}],
                        },
                    }
                ),
            ),
        ),
        Kind(
            name="picture, 100 kB",
            prepare=again(
                server,
                text_of("realtime.input_image", content="data:image/jpeg;base64," + "A" * 100_000),
            ),
        ),
    ]
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
    said = [
        Kind(
            name="voice of the user, 3 kB of PCM",
            prepare=again(speaking, intents.SendAudio(pcm=PCM_10_KB[:3072])),
            sends=True,
        ),
        Kind(
            name="audio of the human, 10 kB",
            prepare=again(server, messages.AudioDelta(audio=PCM_10_KB)),
            sends=True,
        ),
        Kind(
            name="user message",
            prepare=again(speaking, messages.UserMessage(texts=("Tell me about Lisbon.",))),
            sends=True,
        ),
        Kind(
            name="configuration",
            prepare=again(
                speaking, messages.InputConfig(voice="nova", prompt="Be brief.", tools=(tool,))
            ),
            sends=True,
        ),
        Kind(
            name="piece of an answer",
            prepare=again(server, messages.TranscriptDelta(response_id="resp_1", content=" word")),
            sends=True,
        ),
        Kind(
            name="function call",
            prepare=again(
                server,
                messages.FunctionCallDone(
                    call_id="call_1", name="get_weather", arguments='{"city":"Lisbon","days":3}'
                ),
            ),
            sends=True,
        ),
        Kind(
            name="picture, 100 kB",
            prepare=again(
                speaking, messages.InputImage(content="data:image/jpeg;base64," + "A" * 100_000)
            ),
            sends=True,
        ),
    ]
    return heard + said


# ---- measuring


def time_core(steps: Sequence[Step], *, sends: bool = False, settles: bool = False) -> float:
    """Seconds that the core takes for all steps.

    `settles`: the actions are kept, and what they leave to an engine is done afterwards.
    """
    taken: list[list[Action]] = []
    keep: Keep = taken.append if settles else drop
    if sends:
        begin = time.process_time()
        for session, message in steps:
            session.core.send(message, now=session.now)
            keep(session.core.actions())
        seconds = time.process_time() - begin
    else:
        begin = time.process_time()
        for session, text in steps:
            session.core.receive_text(text, now=session.now)
            keep(session.core.actions())
        seconds = time.process_time() - begin
    for (session, _), actions in zip(steps, taken, strict=False):
        session.settle(actions)
    return seconds


def time_loads(loads: Loads, texts: Sequence[Step], *, settles: bool = False) -> float:
    """Seconds that the parser takes for the same texts; `settles`: its values are kept as well."""
    taken: list[Any] = []
    keep: Keep = taken.append if settles else drop
    begin = time.process_time()
    for _, text in texts:
        keep(loads(text))
    return time.process_time() - begin


def texts_sent(steps: Sequence[Step]) -> list[tuple[Session, str]]:
    """The texts that messages become: what the parser is given for comparison."""
    texts = []
    for session, message in steps:
        session.core.send(message, now=session.now)
        sent = [each.text for each in session.core.actions() if isinstance(each, SendText)]
        texts += [(session, text) for text in sent]
    return texts


def measure_kind(kind: Kind, loads: Loads, rounds: int) -> Row:
    """One kind of message against the parser, block by block."""
    core, reference = [], []
    for number in range(-WARM_UP, rounds):
        gc.collect()
        steps = kind.prepare(number + WARM_UP)
        texts = texts_sent(steps) if kind.sends else steps
        ours = time_core(steps, sends=kind.sends, settles=kind.settles) / len(steps)
        theirs = time_loads(loads, texts, settles=kind.settles) / len(texts)
        if number >= 0:
            core.append(ours * 1e6)
            reference.append(theirs * 1e6)
    return Row(
        question=f"{'send' if kind.sends else 'receive'} {kind.name}",
        ours=statistics.median(core),
        reference=statistics.median(reference),
        ratio=statistics.median(a / b for a, b in zip(core, reference, strict=True)),
        unit="us",
        bar=kind.bars.get(parser()),
    )


def cost(session: Session, number: int, loads: Loads) -> float:
    """What one exchange costs a session, in units of the parser."""
    steps = [(session, text) for text in conversation(number)]
    ratio = time_core(steps, settles=True) / time_loads(loads, steps)
    session.pass_time(PAUSE)
    return ratio


def measure_messages(loads: Loads, total: int) -> Row:
    """The last exchanges of a long session against its first ones."""
    session = Session("client")
    exchanges = total // len(CONVERSATION)
    window = min(500, exchanges // 4)
    costs = {}
    for number in range(exchanges):
        if WARM_UP <= number < WARM_UP + window or number >= exchanges - window:
            costs[number] = cost(session, number, loads)
        else:
            time_core([(session, text) for text in conversation(number)], settles=True)
            session.pass_time(PAUSE)
    first = statistics.median(each for number, each in costs.items() if number < exchanges // 2)
    last = statistics.median(each for number, each in costs.items() if number >= exchanges // 2)
    return Row(
        question=f"a message among the last of {exchanges * len(CONVERSATION):,}",
        ours=last,
        reference=first,
        ratio=last / first,
        unit="x loads",
        bar=FLAT,
    )


def measure_sessions(loads: Loads, many: int, rounds: int) -> Row:
    """A message for each of many sessions in turn, against as many for one."""
    alone = Session("client")
    sessions = [Session("client") for _ in range(many)]
    one, each_of_many = [], []
    for number in range(rounds):
        one.append(statistics.median(cost(alone, number * 40 + each, loads) for each in range(40)))
        gc.collect()
        core = reference = 0.0
        for text in conversation(number):
            steps = [(session, text) for session in sessions]
            # A thousand messages kept would be a measurement of malloc.
            core += time_core(steps, settles=text == CANDIDATE)
            reference += time_loads(loads, steps)
        each_of_many.append(core / reference)
        for session in sessions:
            session.pass_time(PAUSE)
    return Row(
        question=f"a message with {many:,} sessions in turn",
        ours=statistics.median(each_of_many),
        reference=statistics.median(one),
        ratio=statistics.median(a / b for a, b in zip(each_of_many, one, strict=True)),
        unit="x loads",
        bar=FLAT,
    )


def measure_memory(sessions: int = 200) -> Row:
    """What Python allocates for one connection more. The ratio's other side is a KiB."""
    first = Session("client")
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [Session("client") for _ in range(sessions)]
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    each = (after - before) / sessions / 1024
    assert first is not None
    assert len(kept) == sessions
    return Row(
        question="memory of an idle connection",
        ours=each,
        reference=1.0,
        ratio=each,
        unit="KiB",
        bar=MEMORY_KIB,
    )


LINES_THAT_MATTER: Final = re.compile(r"\n(?:m=|a=ice-|a=fin).*")
NO_LINE_END: Final = bytes(byte for byte in range(256) if byte not in b"\r\n")


def measure_floor(loads: Loads, rounds: int) -> list[Row]:
    """The parts of an offer's price that no reader of SDP in Python can do without."""

    def ends(text: str) -> bool:
        found = text.encode().translate(None, NO_LINE_END)
        return found == b"\r\n" * (len(found) // 2)

    parts: dict[str, Callable[[str], object]] = {
        "str.split": lambda text: text.split("\r\n"),
        "one regular expression": LINES_THAT_MATTER.findall,
        "to see that CRLF ends its lines": ends,
    }
    rows = []
    for name, part in parts.items():
        ours, reference = [], []
        for number in range(rounds):
            texts = [offer(number * BLOCK + each) for each in range(BLOCK)]
            sdps = [sdp(number * BLOCK + each) for each in range(BLOCK)]
            begin = time.process_time()
            for text in sdps:
                part(text)
            middle = time.process_time()
            for text in texts:
                loads(text)
            ours.append((middle - begin) / BLOCK * 1e6)
            reference.append((time.process_time() - middle) / BLOCK * 1e6)
        rows.append(
            Row(
                question=f"floor of an offer: {name}",
                ours=statistics.median(ours),
                reference=statistics.median(reference),
                ratio=statistics.median(a / b for a, b in zip(ours, reference, strict=True)),
                unit="us",
            )
        )
    return rows


# ---- the two interpreters


def parser() -> str:
    """The parser that this interpreter's core uses."""
    return "orjson" if "orjson" in sys.modules and sys.modules["orjson"] is not None else "json"


def measure(*, quick: bool) -> list[Row]:
    """All rows, with the parser that this interpreter has."""
    loads: Loads = json.loads
    if parser() == "orjson":
        loads = sys.modules["orjson"].loads
    rounds = 3 if quick else 151
    rows = [measure_kind(kind, loads, rounds) for kind in kinds()]
    if parser() == "orjson":
        rows += measure_floor(loads, rounds)
        rows.append(measure_messages(loads, 2_000 if quick else 1_000_000))
        rows.append(measure_sessions(loads, 10 if quick else 1000, 1 if quick else 5))
        rows.append(measure_memory(5 if quick else 200))
    return rows


def measure_in_subprocess(name: str, *, quick: bool) -> list[Row]:
    """All rows with this parser, from an interpreter of its own."""
    argv = [str(Path(__file__)), "--in-this-process", *(["--quick"] if quick else [])]
    code = f"import runpy, sys; sys.argv = {argv!r}; "
    if name == "json":
        # As if they were not installed: importing them raises ImportError.
        code += "sys.modules.update(orjson=None, pybase64=None); "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [Row(**each) for each in json.loads(done.stdout)]


def report(*, quick: bool = False) -> dict[str, list[Row]]:
    """What run_all asks: the rows of both interpreters, by parser."""
    return {name: measure_in_subprocess(name, quick=quick) for name in PARSERS}


def show(name: str, rows: Sequence[Row]) -> None:
    print(
        f"{'with [speed]' if name == 'orjson' else 'without [speed]':54}{name:>9}"
        f"{'core':>10}{'':9}{'ratio':>7}{'bar':>7}"
    )
    for row in rows:
        told = "" if row.bar is None else f"{row.bar:7.2f}  {'met' if row.met else 'NOT MET'}"
        print(
            f"  {row.question:52}{row.reference:9.2f}{row.ours:10.2f} {row.unit:8}"
            f"{row.ratio:7.2f}{told}"
        )


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="a few seconds, rough")
    options.add_argument("--json", action="store_true", help="one JSON object in the last line")
    options.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.in_this_process:
        print(json.dumps([asdict(row) for row in measure(quick=chosen.quick)]))
        return 0
    tables = report(quick=chosen.quick)
    for name, rows in tables.items():
        show(name, rows)
    missed = [row for rows in tables.values() for row in rows if row.met is False]
    print(f"{len(missed)} bars are not met" if missed else "every bar is met")
    if chosen.json:
        print(
            json.dumps(
                {
                    name: [asdict(row) | {"met": row.met} for row in rows]
                    for name, rows in tables.items()
                }
            )
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
