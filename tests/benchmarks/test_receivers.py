"""The receivers of the benchmarks: each sees the same session, and is measured in the same way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import chirp
import pytest
import receivers
from sender import running_sender

SMALL = ("--width", "320", "--height", "256", "--clip", "2")


@pytest.fixture(scope="module")
def stock_sender() -> Iterator[Any]:
    with running_sender("--stock", *SMALL) as sender:
        yield sender


def need(peer: str) -> None:
    """Skip where a receiver is not there, or fail where it must be."""
    reason = receivers.obstacle(peer)
    # `wrtc` is in an extra of its own, which .ci/run installs when the other tests are done.
    demanded = "NAVTALK_REQUIRE_BENCH" if peer == "libwebrtc" else "NAVTALK_REQUIRE_PEERS"
    if reason and os.environ.get(demanded) == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("peer", receivers.NAMES)
def test_a_receiver_sees_the_first_picture_and_sound(peer: str, stock_sender: Any) -> None:
    need(peer)
    (seen,) = receivers.receive(peer, stock_sender.url, loop="asyncio", consume="first")
    assert seen.offer < seen.answer
    assert seen.answer < min(seen.pictures[0][1], seen.sounds[0][1])
    sent = stock_sender.sent(seen.session)
    # Nothing is seen before it was sent: both clocks are one.
    assert sent.times[0] < seen.pictures[0][1]
    assert sent.sounds[0] < seen.sounds[0][1]


def test_latencies_are_those_of_the_receivers_own_session(stock_sender: Any) -> None:
    seen, sent = receivers.receive_one(
        "ours", stock_sender.url, loop="asyncio", consume="read", seconds=0.5, warm_up=0.3
    )
    video, audio = seen.video_latencies(sent), seen.audio_latencies(sent)
    assert len(video) > 5
    assert len(audio) > 10
    assert all(0 < ms < 1000 for ms in video)
    assert all(-1000 * chirp.SLACK <= ms < 1000 for ms in audio)
    assert seen.cpu > 0
    assert seen.memory[-1][1] > 10


def test_the_stock_sender_loses_what_it_is_told_to() -> None:
    plan = ("--live", "--drop-sound", "0.2", "--cut", "0.3+0.3", "--loss", "0.02")
    with running_sender("--stock", *SMALL, *plan) as sender:
        seen, sent = receivers.receive_one(
            "stock", sender.url, loop="asyncio", consume="read", seconds=0.5, warm_up=0.3
        )
    assert [what for what, _ in sent.happened] == ["drop", "cut", "heal"]
    drop, cut, heal = (at for _, at in sent.happened)
    assert seen.answer < drop < cut < heal
    assert not [at for _, at in seen.pictures if cut + 0.2 < at < heal]


def test_a_receiver_that_fails_says_why() -> None:
    with pytest.raises(receivers.ReceiverError, match="ended with 1"):
        receivers.receive("stock", "ws://127.0.0.1:9", loop="asyncio", consume="first")
