"""OpenTelemetry metrics of sessions, where ``opentelemetry-api`` is installed: navtalk[otel]."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from navtalk_proto.instruments import observe_sessions
from navtalk_proto.session import SessionCalls
from navtalk_proto.stats import SessionStats

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

__all__ = ["Telemetry"]

SCOPE: Final = "navtalk"
"""The instrumentation scope."""

PATIENCE: Final = 1.0
"""Seconds that an export waits for a session whose loop is busy; it is left out then."""


class Telemetry:
    """Tells a meter of the sessions that it observes; see docs/stats.md.

    One per process: ``telemetry = Telemetry()``, and ``with telemetry.observe(session):`` around
    what is done with each. The meter's reader asks when it exports, on a thread of its own; how
    often is its configuration. Without an SDK in the process nothing is asked and nothing costs.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        """`meter` is the global provider's by default. Raises ImportError without the extra."""
        try:
            from opentelemetry import metrics
        except ModuleNotFoundError as error:
            raise ImportError(
                "opentelemetry-api is not installed: pip install 'navtalk[otel]'", name=error.name
            ) from None
        self._observed: dict[_Observed, Mapping[str, str]] = {}
        observe_sessions(
            self._snapshots,
            metrics.get_meter(SCOPE) if meter is None else meter,
            metrics.Observation,
        )

    @contextmanager
    def observe(self, session: SessionCalls, **attributes: str) -> Generator[None]:
        """Tell of a session until the block ends. `attributes` go with each of its points.

        To be entered on the session's loop.
        """
        observed = _Observed(session, trio.lowlevel.current_trio_token().run_sync_soon)
        self._observed[observed] = attributes
        try:
            yield
        finally:
            del self._observed[observed]

    def _snapshots(self) -> Iterator[tuple[SessionStats, Mapping[str, str]]]:
        # A copy: sessions come and go on their loops.
        for observed, attributes in list(self._observed.items()):
            stats = observed.stats()
            if stats is not None:
                yield stats, attributes


class _Observed:
    """A session, asked on its own loop: what it counts is not made for two threads."""

    def __init__(self, session: SessionCalls, post: Callable[[Callable[[], None]], object]) -> None:
        self._session = session
        self._post = post
        self._thread = threading.get_ident()

    def stats(self) -> SessionStats | None:
        """From any thread. None where the loop is gone, or busy for too long."""
        if threading.get_ident() == self._thread:
            return self._session.stats()
        answer = concurrent.futures.Future[SessionStats]()
        with suppress(RuntimeError, TimeoutError):
            self._post(lambda: answer.set_result(self._session.stats()))
            return answer.result(PATIENCE)
        return None
