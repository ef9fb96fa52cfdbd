"""The lines of a trace: records as values, and as JSON.

A trace is a Header, then a ConnectionBegan for each connection of the session, its InputRecords,
each followed by the ActionRecords that it led to, and what only explains: Samples, Told. A Gap says
that lines are missing. Each line is a JSON object; docs/tracing.md describes it for readers of
other languages. A class of the vocabulary is written as its fields, and where it could be another
class with its name under ``is``.

Audio that was left out is zeros, which base64 writes as a run of ``A``: long runs in texts are
written as their length, so that silence costs nothing.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeAlias, get_args, get_origin

import attrs
from attrs import field, frozen

from navtalk_proto.actions import Action, OpenPeer, ResetPeer, SendText
from navtalk_proto.config import ClientConfig, ServerConfig
from navtalk_proto.errors import NavTalkError
from navtalk_proto.events import Event
from navtalk_proto.ice import IceServerRule, IceUrl, IpAddress, any_ice_server
from navtalk_proto.inputs import Input, MediaDone, TextReceived
from navtalk_proto.intents import Intent
from navtalk_proto.limits import MIB
from navtalk_proto.media import MediaEvent
from navtalk_proto.roles import Role
from navtalk_proto.secret import Secret
from navtalk_proto.stats import MediaStats
from navtalk_proto.wire.messages import Answer, ClientMessage, JsonValue, Offer, ServerMessage

__all__ = [
    "MAX_LINE",
    "VERSION",
    "ActionRecord",
    "ConnectionBegan",
    "Gap",
    "Header",
    "InputRecord",
    "Record",
    "Sample",
    "Told",
    "TraceError",
    "decode_line",
    "encode_action",
    "encode_line",
]

VERSION: Final = 1
"""Of the format. A trace of another version is refused."""

MAX_LINE: Final = 64 * MIB
"""Characters of a line: the largest message that a core takes, and room for JSON's escapes."""

_RUN: Final = re.compile("A{64,}")


class TraceError(NavTalkError, ValueError):
    """A trace that cannot be read, written or replayed; `line` is counted from 1, 0: no line."""

    code = "trace"
    hint = "a trace is written by --trace, NAVTALK_TRACE, connect(trace=) or session.trace()"

    def __init__(self, reason: str, *, line: int = 0) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.reason = reason
        self.line = line


@frozen(kw_only=True)
class Header:
    """The first line."""

    trace: int = VERSION
    versions: Mapping[str, str]
    """Of navtalk, of Python and of the libraries, by name."""
    started: str
    """When, by the wall clock, ISO 8601. The same in all parts of a trace."""
    omitted: tuple[str, ...] = ()
    """What was left out besides secrets: ``text``, ``audio``."""


@frozen(kw_only=True)
class ConnectionBegan:
    """A core was made; `connection` is its number in this trace, from 1.

    `complete`: nothing happened to it before. Otherwise its state is not known, and it cannot be
    replayed.
    """

    connection: int
    now: float
    role: Role
    complete: bool
    config: ClientConfig | ServerConfig


@frozen(kw_only=True)
class InputRecord:
    """An input of a connection; `raised` is the name of what the core raised."""

    connection: int
    now: float
    input: Input
    raised: str | None = None


@frozen(kw_only=True)
class ActionRecord:
    """An action that followed from the input before it."""

    connection: int
    action: Action


@frozen(kw_only=True)
class Sample:
    """What was counted, about once a second while anything happens. Sizes are characters."""

    connection: int
    now: float
    outgoing: int
    """Text that waits for the socket."""
    events: int
    """Events that wait for the application."""
    media: MediaStats = field(factory=MediaStats)
    """What the engine measured."""


@frozen(kw_only=True)
class Told:
    """An event of the session that no connection told: Reconnecting, Reconnected, its Closed."""

    now: float
    event: Event


@frozen(kw_only=True)
class Gap:
    """Lines are missing here: `lines` of them where that is known."""

    reason: str
    lines: int = 0


Record: TypeAlias = Header | ConnectionBegan | InputRecord | ActionRecord | Sample | Told | Gap

_KINDS: Final[dict[str, type[Any]]] = {
    "trace": Header,
    "began": ConnectionBegan,
    "in": InputRecord,
    "out": ActionRecord,
    "sample": Sample,
    "told": Told,
    "gap": Gap,
}
"""Records by what stands under ``line``."""
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def encode_line(record: Record) -> str:
    """A record as one line, with its line end."""
    raw = {"line": _NAMES[type(record)], **_converter().unstructure(record)}
    return json.dumps(raw, separators=(",", ":")) + "\n"


def encode_action(action: Action) -> JsonValue:
    """An action as JSON values: what is compared in a replay."""
    encoded: JsonValue = _converter().unstructure(action, Action)
    # As it would be read: tuples are lists, and floats have come through text.
    read: JsonValue = json.loads(json.dumps(encoded))
    return read


def decode_line(text: str, *, line: int = 0) -> Record:
    """The record of a line. Raises TraceError, which names `line` and quotes nothing."""
    if len(text) > MAX_LINE:
        raise TraceError(f"longer than {MAX_LINE} characters", line=line)
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        cut = "" if text.endswith("\n") else ", and ends early"
        reason = f"not JSON{cut}"
    else:
        kind = raw.pop("line", None) if type(raw) is dict else None
        if type(kind) is not str or kind not in _KINDS:
            reason = "not a line of a trace"
        elif kind == "trace" and raw.get("trace") != VERSION:
            reason = f"this trace is not of version {VERSION}, which is all that can be read here"
        else:
            reason = f"not a record of kind {kind!r}"
            try:
                record: Record = _converter().structure(raw, _KINDS[kind])
            except Exception:  # noqa: BLE001 - a hostile line makes cattrs raise anything
                pass
            else:
                return record
    # Not raised from there: the exception would hold the text.
    raise TraceError(reason, line=line)


# ---- values that JSON has not


def _other_rule(server: IceUrl, address: IpAddress) -> bool:
    """Stands for a rule of the application's, in a replay; no core calls it."""
    raise NotImplementedError


def _rule_name(rule: IceServerRule | None) -> str | None:
    return None if rule is None else "any" if rule is any_ice_server else "other"


def _named_rule(name: Any, _: Any) -> IceServerRule | None:
    rules: dict[Any, IceServerRule | None] = {
        None: None,
        "any": any_ice_server,
        "other": _other_rule,
    }
    return rules[name]


def _runs(text: str | bytes) -> Any:
    """A text whose long runs of A are their length; bytes as Latin-1 under a name."""
    if isinstance(text, bytes):
        return {"bytes": text.decode("latin-1")}
    if _RUN.search(text) is None:
        return text
    parts: list[str | int] = []
    at = 0
    for run in _RUN.finditer(text):
        parts += [text[at : run.start()], run.end() - run.start()]
        at = run.end()
    return [*parts, text[at:]]


def _text_of_runs(value: Any, _: Any) -> str | bytes:
    if isinstance(value, dict):
        raw: bytes = value["bytes"].encode("latin-1")
        return raw
    if isinstance(value, list):
        if sum(part for part in value if isinstance(part, int)) > MAX_LINE:
            raise ValueError("too long")
        return "".join(part if isinstance(part, str) else "A" * part for part in value)
    text: str = _exactly(value, str)
    return text


def _exactly(value: Any, kind: Any) -> Any:
    """A value of that JSON type; cattrs would turn others into it."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"not a {kind.__name__}")
    return value


def _is_json_object(kind: Any) -> bool:
    return get_origin(kind) is Mapping and get_args(kind)[1] is not str


def _unchanged(value: Any) -> Any:
    return value


def _json_object(value: Any, _: Any) -> Any:
    return _exactly(value, dict)


def _bytes(value: bytes) -> Any:
    return base64.b64encode(value).decode() if any(value) else {"silence": len(value)}


def _from_bytes(value: Any, _: Any) -> bytes:
    if isinstance(value, dict):
        length = _exactly(value["silence"], int)
        if not 0 <= length <= MAX_LINE:
            raise ValueError("too long")
        return bytes(length)
    return base64.b64decode(_exactly(value, str), validate=True)


@cache
def _converter() -> Any:  # a cattrs.Converter, whose types do not know unions
    """Made at the first use: most sessions are not traced."""
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
    from cattrs.strategies import configure_tagged_union

    converter: Any = Converter(forbid_extra_keys=True, detailed_validation=False)
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _exactly)
    # JSON inside of messages is what it is; its type refers to itself.
    converter.register_unstructure_hook_func(_is_json_object, _unchanged)
    converter.register_structure_hook_func(_is_json_object, _json_object)
    converter.register_unstructure_hook(Secret, Secret.reveal)
    converter.register_structure_hook(Secret, lambda value, _: Secret(_exactly(value, str)))
    converter.register_unstructure_hook(bytes, _bytes)
    converter.register_structure_hook(bytes, _from_bytes)
    result = override(
        unstruct_hook=lambda value: value and converter.unstructure(value, Offer | Answer),
        struct_hook=lambda value, _: value and converter.structure(value, Offer | Answer),
    )
    rule = override(unstruct_hook=_rule_name, struct_hook=_named_rule)
    text = override(unstruct_hook=_runs, struct_hook=_text_of_runs)
    special: tuple[tuple[Any, str, Any], ...] = (
        (MediaDone, "result", result),
        (SendText, "text", text),
        (TextReceived, "text", text),
        (OpenPeer, "allow_ice_server", rule),
        (ResetPeer, "allow_ice_server", rule),
        (ClientConfig, "allow_ice_server", rule),
    )
    for cls, name, how in special:
        attrs.resolve_types(cls)
        write: Any = make_dict_unstructure_fn
        read: Any = make_dict_structure_fn
        converter.register_unstructure_hook(cls, write(cls, converter, **{name: how}))
        strict = {"_cattrs_forbid_extra_keys": True, "_cattrs_detailed_validation": False}
        converter.register_structure_hook(cls, read(cls, converter, **strict, **{name: how}))
    unions: tuple[Any, ...] = (
        Offer | Answer,
        ServerMessage | ClientMessage,
        Event,
        MediaEvent,
        Intent,
        Action,
        Input,
        ClientConfig | ServerConfig,
    )
    for union in unions:
        configure_tagged_union(union, converter, tag_name="is")
    return converter
