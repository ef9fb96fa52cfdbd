"""A session's metrics, read by the OpenTelemetry SDK."""

from __future__ import annotations

import sys
import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest

import navtalk_asyncio.telemetry
import navtalk_trio.telemetry
from navtalk_proto.connection import Counters
from navtalk_proto.media import MediaKind
from navtalk_proto.stats import MediaStats, ReceivedTrackStats, SessionStats

metrics = pytest.importorskip("opentelemetry.sdk.metrics")


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def telemetry(backend: str, *meter: Any) -> Any:
    module = navtalk_asyncio.telemetry if backend == "asyncio" else navtalk_trio.telemetry
    return module.Telemetry(*meter)


class Session:
    """Asked on the thread that it lives on."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def stats(self) -> SessionStats:
        assert threading.get_ident() == self.thread
        track = ReceivedTrackStats(track_id="v", kind=MediaKind.VIDEO, bytes=1234, jitter=0.002)
        return SessionStats(at=0.0, media=MediaStats(received=(track,)), counters=Counters())


def read(reader: Any) -> dict[str, Any]:
    data = reader.get_metrics_data()
    return {
        metric.name: metric
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_the_sdk_reads_a_session_while_it_is_observed(backend: str) -> None:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = metrics.MeterProvider(metric_readers=[reader])
    told = telemetry(backend, provider.get_meter("navtalk"))

    async def main() -> tuple[Any, Any]:
        with told.observe(Session(), room="7"):
            # From its own loop, and from another thread as a periodic reader does.
            return read(reader), await anyio.to_thread.run_sync(read, reader)

    try:
        assert read(reader) == {}
        for seen in anyio.run(main, backend=backend):
            received, jitter = seen["navtalk.media.received"], seen["navtalk.media.jitter"]
            assert (received.unit, jitter.unit) == ("By", "s")
            (point,) = received.data.data_points
            assert point.value == 1234
            assert received.data.is_monotonic
            attributes = {"room": "7", "media.kind": "video", "media.direction": "received"}
            assert dict(point.attributes) == attributes
            (point,) = jitter.data.data_points
            assert point.value == 0.002
            assert "navtalk.answer.latency" not in seen
    finally:
        provider.shutdown()


def test_a_session_whose_loop_is_gone_is_left_out(backend: str) -> None:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = metrics.MeterProvider(metric_readers=[reader])
    told = telemetry(backend, provider.get_meter("navtalk"))

    async def main() -> Any:
        observing = told.observe(Session())
        observing.__enter__()
        return observing

    observing: list[Any] = []
    thread = threading.Thread(target=lambda: observing.append(anyio.run(main, backend=backend)))
    thread.start()
    thread.join()
    try:
        assert read(reader) == {}
        observing[0].__exit__(None, None, None)
    finally:
        provider.shutdown()


def test_the_global_meter_is_the_default(backend: str) -> None:
    telemetry(backend)  # Without an SDK nobody asks.


def test_a_missing_extra_says_what_to_install(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"navtalk\[otel\]"):
        telemetry(backend)
