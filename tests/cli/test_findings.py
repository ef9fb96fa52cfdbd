"""What the doctor says of pictures and sound that were watched for a while."""

from __future__ import annotations

import pytest

from navtalk_asyncio.cli.exit_codes import ExitCode
from navtalk_asyncio.cli.findings import Finding, Observed, Verdict, of_pictures, of_throughput
from navtalk_proto.errors import RefusalKind
from navtalk_proto.events import CloseCause, Closed, Event, Notice, PeerClosing, PictureFrozen

STEADY = [10.0 + number / 25 for number in range(25 * 6)]


def pictures(times: list[float], *events: Event) -> Finding:
    seen = Observed(began=9.0, events=[(12.0, event) for event in events])
    return of_pictures(seen, times, "512x512", began=9.8, took=6.2)


def test_pictures_to_the_end_are_well() -> None:
    found = pictures(STEADY)
    assert (found.verdict, found.text) == (Verdict.OK, "512x512, 25 a second")
    assert (found.seconds, found.hint) == (1.0, "")


def test_no_picture_at_all_is_a_failure() -> None:
    found = pictures([])
    assert (found.verdict, found.code) == (Verdict.FAILED, ExitCode.MEDIA)


@pytest.mark.parametrize(
    ("times", "events", "text"),
    [
        (STEADY[::5], (), "512x512, 5 a second"),
        (STEADY[:1], (), "512x512, 0 a second, and none in the last 6.0 s"),
        (STEADY[:50], (), "512x512, 25 a second, and none in the last 4.0 s"),
        (
            STEADY,
            (PictureFrozen(track_id="v", frozen_for=5.25),),
            "512x512, 25 a second, which showed the same for 5.2 s",
        ),
    ],
)
def test_few_pictures_and_those_that_stop_or_stand_still_are_a_warning(
    times: list[float], events: tuple[Event, ...], text: str
) -> None:
    found = pictures(times, *events)
    assert (found.verdict, found.text) == (Verdict.WARNING, text)
    assert found.hint


@pytest.mark.parametrize(
    ("received", "events", "code", "text"),
    [
        (75_000, (), ExitCode.OK, "100 kbit/s of media received in 6.0 s"),
        (0, (), ExitCode.MEDIA, "0 kbit/s of media received in 6.0 s"),
        (
            75_000,
            (
                Notice(kind=RefusalKind.GPU_FULL, text="No worker."),
                Closed(cause=CloseCause.REFUSED, code=1013, reason="no worker is free"),
            ),
            ExitCode.REFUSED,
            "received in 6.0 s, when the server refused the session (gpu_full): No worker.",
        ),
        (
            75_000,
            (
                PeerClosing(text="Session timeout"),
                Closed(cause=CloseCause.REMOTE, code=1000, reason=""),
            ),
            ExitCode.NETWORK,
            "received in 6.0 s, when the server ended the session: Session timeout",
        ),
        (
            75_000,
            (Closed(cause=CloseCause.REMOTE, code=None, reason=""),),
            ExitCode.NETWORK,
            "received in 6.0 s, when the session ended: remote",
        ),
        (
            75_000,
            (Closed(cause=CloseCause.MEDIA_LOST, code=1000, reason="no video for 30 s"),),
            ExitCode.MEDIA,
            "received in 6.0 s, when the session ended: no video for 30 s",
        ),
    ],
)
def test_a_session_that_ends_meanwhile_says_why(
    received: int, events: tuple[Event, ...], code: ExitCode, text: str
) -> None:
    found = of_throughput(Observed(events=[(3.0, event) for event in events]), received, 6.0)
    assert found.text.endswith(text)
    assert (found.verdict is Verdict.FAILED, found.code) == (code is not ExitCode.OK, code)
    assert bool(found.hint) is (code is not ExitCode.OK)
