"""Faults by name: ``"drop_ws@3s,loss=5%,freeze@10s"``, read and put in order of time.

Pure: what is to go wrong and when. The :mod:`faulty_session
<navtalk_asyncio.emulator.faulty_session>` does it. docs/reliability.md lists the names. Times after
``@`` count from the moment at which the session is ready.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, TypeAlias

from attrs import Attribute, define, evolve, field, fields, frozen
from attrs.validators import ge, gt, optional

from navtalk_asyncio.emulator.refusals import PlannedRefusal, plan
from navtalk_proto.errors import NavTalkError
from navtalk_proto.testing.impairment import Impairment

__all__ = ["FAULT_NAMES", "FaultError", "Faults", "Span", "Step", "parse_faults", "timeline"]

Span: TypeAlias = tuple[float, float]
"""From and until, in seconds since the session was ready; until may be infinity."""


class FaultError(NavTalkError, ValueError):
    """A text does not name faults. It quotes the part at fault, and shows how it is written."""

    code = "fault"
    hint = "docs/reliability.md lists the faults and how they are written"


def _one_at_connect(_: Faults, __: Attribute[Any], refusals: tuple[PlannedRefusal, ...]) -> None:
    if sum(one.after is None for one in refusals) > 1:
        raise ValueError("a session is refused once: two refusals are planned for the connect")


@define
class Faults:
    """What new sessions of an emulator meet; may be changed while it runs. Times are seconds."""

    refusals: tuple[PlannedRefusal, ...] = field(default=(), validator=_one_at_connect)
    time_limit: float | None = field(default=None, validator=optional(gt(0.0)))
    """Seconds that a session may take from being ready; None: as long as it likes."""
    slow_start: float = field(default=0.0, validator=ge(0.0))
    """How long nothing is said after the WebSocket was opened."""
    mute: bool = False
    """The WebSocket is opened, and nothing is ever said."""
    drop_ws: float | None = None
    """When the WebSocket is dropped without a close frame."""
    half_open: float | None = None
    """When the WebSocket goes silent for good: nothing is read, sent or closed."""
    network: Impairment = field(factory=Impairment)
    """What the media's packets suffer from the first on, both ways, whatever their kind."""
    blackouts: tuple[Span, ...] = ()
    """When no media packet passes."""
    freezes: tuple[Span, ...] = ()
    """When the picture stands still; its packets flow."""
    silences: tuple[Span, ...] = ()
    """When the voice is silent; its packets flow."""

    @property
    def on_the_wire(self) -> bool:
        """Whether media packets need a wire of their own."""
        return self.network != Impairment() or bool(self.blackouts)

    @property
    def in_session(self) -> bool:
        """Whether something happens to a session that runs, apart from its being ended."""
        return self.on_the_wire or bool(timeline(self))

    def become(self, other: Faults) -> None:
        """Take everything from another."""
        for one in fields(Faults):
            setattr(self, one.name, getattr(other, one.name))


class Step(Enum):
    """Something that a session does at a time of its own."""

    DROP_WS = "drop_ws"
    HALF_OPEN = "half_open"
    CUT_MEDIA = "cut_media"
    HEAL_MEDIA = "heal_media"
    FREEZE = "freeze"
    THAW = "thaw"
    FALL_SILENT = "fall_silent"
    SPEAK_AGAIN = "speak_again"


def timeline(faults: Faults) -> tuple[tuple[float, Step], ...]:
    """What happens at which second of a ready session, in order. Spans that overlap are one."""
    steps: list[tuple[float, Step]] = []
    if faults.drop_ws is not None:
        steps.append((faults.drop_ws, Step.DROP_WS))
    if faults.half_open is not None:
        steps.append((faults.half_open, Step.HALF_OPEN))
    for spans, begin, end in (
        (faults.blackouts, Step.CUT_MEDIA, Step.HEAL_MEDIA),
        (faults.freezes, Step.FREEZE, Step.THAW),
        (faults.silences, Step.FALL_SILENT, Step.SPEAK_AGAIN),
    ):
        for since, until in _merged(spans):
            steps.append((since, begin))
            if until != math.inf:
                steps.append((until, end))
    return tuple(sorted(steps, key=lambda step: step[0]))


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for since, until in sorted(spans):
        if merged and since <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(until, merged[-1][1]))
        else:
            merged.append((since, until))
    return merged


# ---- reading

_TIME: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(ms|s)?")
_SHARE: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")
_RATE: Final = re.compile(r"(\d{1,7}(?:\.\d{1,6})?)k")


def _time(text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time")
    return float(match[1]) / (1000.0 if match[2] == "ms" else 1.0)


def _span(text: str) -> Span:
    since, plus, lasting = text.partition("+")
    start = _time(since)
    return (start, start + _time(lasting) if plus else math.inf)


def _ending_span(text: str) -> Span:
    if "+" not in text:
        raise ValueError(f"{text!r} has no end")
    return _span(text)


def _share(text: str) -> float:
    match = _SHARE.fullmatch(text)
    if match is None or float(match[1]) > 100.0:
        raise ValueError(f"{text!r} is no share of at most 100%")
    return float(match[1]) / 100.0


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text)
    if match is None or float(match[1]) == 0.0:
        raise ValueError(f"{text!r} is no rate above 0")
    return float(match[1]) * 1000.0


def _refusals(text: str) -> PlannedRefusal:
    return plan(text)[0]


@frozen
class _Form:
    """How one fault is written. `sign` before its value, empty for none; `many` if repeatable."""

    example: str
    sign: str
    read: Callable[[str], Any]
    fault: str = ""
    """The field of Faults it is in; empty: of Impairment, by `network`."""
    network: str = ""
    many: bool = False


_FORMS: Final[dict[str, _Form]] = {
    "drop_ws": _Form("drop_ws@3s", "@", _time, "drop_ws"),
    "half_open": _Form("half_open@3s", "@", _time, "half_open"),
    "refuse": _Form("refuse=gpu_full@20s", "=", _refusals, "refusals", many=True),
    "time_limit": _Form("time_limit=60s", "=", _time, "time_limit"),
    "mute": _Form("mute", "", bool, "mute"),
    "slow_start": _Form("slow_start=5s", "=", _time, "slow_start"),
    "loss": _Form("loss=5%", "=", _share, network="loss"),
    "dup": _Form("dup=1%", "=", _share, network="duplicate"),
    "delay": _Form("delay=80ms", "=", _time, network="delay"),
    "jitter": _Form("jitter=30ms", "=", _time, network="jitter"),
    "reorder": _Form("reorder=2%", "=", _share, network="reorder"),
    "rate": _Form("rate=300k", "=", _rate, network="rate"),
    "blackout": _Form("blackout@10s+8s", "@", _ending_span, "blackouts", many=True),
    "kill_media": _Form("kill_media@5s", "@", lambda text: (_time(text), math.inf), "blackouts"),
    "freeze": _Form("freeze@10s+3s", "@", _span, "freezes", many=True),
    "silence": _Form("silence@10s+3s", "@", _span, "silences", many=True),
}

FAULT_NAMES: Final[tuple[str, ...]] = tuple(_FORMS)
"""Every name that :func:`parse_faults` knows."""


def parse_faults(text: str | None) -> Faults:
    """Read faults by name, separated by commas; None and blank text are none at all.

    Raises FaultError.
    """
    faults = Faults()
    if text is None or not text.strip():
        return faults
    seen: set[str] = set()
    for part in map(str.strip, text.split(",")):
        name, sign, value = _split(part)
        form = _FORMS.get(name)
        if form is None:
            raise FaultError(f"{part!r} is no fault; there are {', '.join(FAULT_NAMES)}")
        if name in seen and not form.many:
            raise FaultError(f"{part!r} comes second: {name} can be given once")
        if sign != form.sign:
            raise FaultError(f"{part!r} is not how it is written: write {form.example}")
        seen.add(name)
        try:
            _take(faults, form, form.read(value) if form.sign else True)
        except ValueError as error:
            raise FaultError(f"{part!r}: {error}; write {form.example}") from error
    return faults


def _split(part: str) -> tuple[str, str, str]:
    """Name, sign and value: the first sign counts, ``refuse=gpu_full@20s`` has a second."""
    match = re.fullmatch(r"([a-z_]*)([=@]?)(.*)", part)
    return (match[1], match[2], match[3].strip()) if match and match[2] else (part, "", "")


def _take(faults: Faults, form: _Form, value: Any) -> None:
    if form.network:
        faults.network = evolve(faults.network, **{form.network: value})
        return
    present = getattr(faults, form.fault)
    setattr(faults, form.fault, (*present, value) if isinstance(present, tuple) else value)
