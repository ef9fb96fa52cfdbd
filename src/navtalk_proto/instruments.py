"""Sessions as OpenTelemetry's observable instruments, without OpenTelemetry.

What is told of a session, and in which unit, is a table here; an adapter's ``telemetry`` module
gives a meter of ``opentelemetry-api``. A meter asks when it exports: between two exports nothing
runs. Names and units follow OpenTelemetry's semantic conventions (UCUM units, no plural).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeAlias

from attrs import frozen

from navtalk_proto.stats import ReceivedTrackStats, SessionStats

__all__ = ["INSTRUMENTS", "Instrument", "ObservableMeter", "Point", "observe_sessions"]

Point: TypeAlias = tuple[float, Mapping[str, str]]
"""A value and its attributes."""


class ObservableMeter(Protocol):
    """What is used of ``opentelemetry.metrics.Meter``."""

    def create_observable_counter(
        self, name: str, callbacks: Any = ..., unit: str = ..., description: str = ...
    ) -> object:
        """An instrument of sums that only grow."""
        ...

    def create_observable_gauge(
        self, name: str, callbacks: Any = ..., unit: str = ..., description: str = ...
    ) -> object:
        """An instrument of what is now."""
        ...


@frozen(kw_only=True)
class Instrument:
    """One metric: what it is called, and what it takes of a snapshot."""

    name: str
    unit: str
    description: str
    points: Callable[[SessionStats], Iterable[Point]]
    grows: bool = False
    """A counter, and not a gauge."""


def _received(
    value: Callable[[ReceivedTrackStats], float | None],
) -> Callable[[SessionStats], Iterator[Point]]:
    def points(stats: SessionStats) -> Iterator[Point]:
        for track in stats.media.received:
            measured = value(track)
            if measured is not None:
                yield measured, {"media.kind": track.kind.value, "media.direction": "received"}

    return points


def _sent_bytes(stats: SessionStats) -> Iterator[Point]:
    for track in stats.media.sent:
        yield track.bytes, {"media.kind": track.kind.value, "media.direction": "sent"}


def _latency(stats: SessionStats) -> Iterator[Point]:
    """Of the newest turn of which it is known."""
    for what in ("to_first_text", "to_first_audio", "to_first_movement"):
        for turn in reversed(stats.latencies):
            seconds: float | None = getattr(turn, what)
            if seconds is not None:
                yield seconds, {"navtalk.answer": what.removeprefix("to_")}
                break


def _round_trip(stats: SessionStats) -> Iterator[Point]:
    if stats.round_trip_time is not None:
        yield stats.round_trip_time, {}


def _av_offset(stats: SessionStats) -> Iterator[Point]:
    if stats.media.av_sync.offset is not None:
        yield stats.media.av_sync.offset, {}


INSTRUMENTS: Final = (
    Instrument(
        name="navtalk.media.received",
        unit="By",
        description="RTP payload received",
        points=_received(lambda track: track.bytes),
        grows=True,
    ),
    Instrument(
        name="navtalk.media.sent",
        unit="By",
        description="RTP payload sent",
        points=_sent_bytes,
        grows=True,
    ),
    Instrument(
        name="navtalk.media.bitrate",
        unit="bit/s",
        description="RTP payload received per second",
        points=_received(lambda track: track.bitrate),
    ),
    Instrument(
        name="navtalk.media.frame_rate",
        unit="{frame}/s",
        description="Complete frames received per second",
        points=_received(lambda track: track.frames_per_second),
    ),
    Instrument(
        name="navtalk.media.packet.lost",
        unit="{packet}",
        description="RTP packets expected and not received",
        points=_received(lambda track: track.packets_lost),
    ),
    Instrument(
        name="navtalk.media.loss",
        unit="1",
        description="The share of packets lost lately",
        points=_received(lambda track: track.loss),
    ),
    Instrument(
        name="navtalk.media.jitter",
        unit="s",
        description="Interarrival jitter (RFC 3550)",
        points=_received(lambda track: track.jitter),
    ),
    Instrument(
        name="navtalk.media.decode.duration",
        unit="s",
        description="Decoding one frame, a mean of the newest",
        points=_received(lambda track: track.decode_seconds),
    ),
    Instrument(
        name="navtalk.media.freeze",
        unit="{freeze}",
        description="Times that the picture stood still",
        points=_received(lambda track: track.freezes),
        grows=True,
    ),
    Instrument(
        name="navtalk.media.freeze.duration",
        unit="s",
        description="How long the picture stood still in all",
        points=_received(lambda track: track.freeze_seconds),
        grows=True,
    ),
    Instrument(
        name="navtalk.round_trip.duration",
        unit="s",
        description="To the far end and back",
        points=_round_trip,
    ),
    Instrument(
        name="navtalk.media.av_offset",
        unit="s",
        description="How much later the picture arrives than the sound of the same instant",
        points=_av_offset,
    ),
    Instrument(
        name="navtalk.answer.latency",
        unit="s",
        description="From the end of the user's speech to the answer, of the newest turn",
        points=_latency,
    ),
)
"""Everything that is told."""


def observe_sessions(
    snapshots: Callable[[], Iterable[tuple[SessionStats, Mapping[str, str]]]],
    meter: ObservableMeter,
    observation: Callable[[float, Mapping[str, str]], object],
) -> None:
    """Make the instruments in `meter`, once; each export asks `snapshots` for what is known.

    Each comes with attributes of its session's own, so that its points can be told from another's.
    `observation` makes what the meter takes: ``opentelemetry.metrics.Observation``.
    """

    def callback(instrument: Instrument) -> Callable[[object], list[object]]:
        def ask(_: object) -> list[object]:
            return [
                observation(value, {**own, **attributes})
                for stats, own in snapshots()
                for value, attributes in instrument.points(stats)
            ]

        return ask

    for instrument in INSTRUMENTS:
        create = (
            meter.create_observable_counter if instrument.grows else meter.create_observable_gauge
        )
        create(
            instrument.name,
            callbacks=[callback(instrument)],
            unit=instrument.unit,
            description=instrument.description,
        )
