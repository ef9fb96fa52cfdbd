"""A voice that never stops, without a loop: each turn of the crank is what one due piece brings."""

from __future__ import annotations

from typing import Any

import pytest

from navtalk_proto.errors import LocalProtocolError, SessionClosedError, SessionLostError
from navtalk_proto.voice_line import LINE_SECONDS, TAIL_SECONDS, VoiceLine

SILENCE = bytes(960)
"""20 ms."""


class Rig:
    """A line, what it sent, and the session that it belongs to."""

    def __init__(self, crank: Any, flag: Any) -> None:
        self.sent: list[bytes] = []
        self.interrupts = 0
        self.over = False
        self.lost = False
        self.flag = flag
        self.tick = flag()
        self.line = VoiceLine(
            due=self.due, speak=self.sent.append, interrupt=self.interrupt, flag=flag
        )
        self.running = crank(self.line.run())

    async def due(self) -> None:
        self.tick.clear()
        await self.tick.wait()
        if self.over:
            raise SessionClosedError("the session is over")
        if self.lost:
            self.lost = False
            raise SessionLostError("the connection was lost")

    async def interrupt(self) -> None:
        if self.over:
            raise SessionClosedError("the session is over")
        self.interrupts += 1

    def turn(self, times: int = 1) -> list[bytes]:
        """So many pieces become due; what was sent."""
        before = len(self.sent)
        for _ in range(times):
            self.tick.set()
            self.running.turn()
        return self.sent[before:]

    def lose(self) -> None:
        """The connection is lost."""
        self.lost = True
        self.tick.set()
        assert not self.running.turn()

    def end(self) -> None:
        """The session ends."""
        self.over = True
        self.tick.set()
        assert self.running.turn()


@pytest.fixture
def rig(crank: Any, flag: Any) -> Rig:
    return Rig(crank, flag)


def voice(size: int) -> bytes:
    return bytes(1 + n % 250 for n in range(size))


def test_silence_is_sent_while_nobody_writes(rig: Rig) -> None:
    assert rig.turn(3) == [SILENCE] * 3
    assert (rig.line.queued, rig.line.dropped) == (0.0, 0.0)


def test_what_is_written_is_sent_in_pieces_and_silence_goes_on(rig: Rig, crank: Any) -> None:
    pcm = voice(3072 + 480)
    crank(rig.line.write(pcm)).result()
    assert rig.line.queued == pytest.approx(0.074)
    assert rig.turn(4) == [pcm[:3072], pcm[3072:], SILENCE, SILENCE]
    assert rig.line.queued == 0.0


def test_writing_waits_for_more_than_a_second_of_real_time(rig: Rig, crank: Any) -> None:
    pcm = voice(2 * 48_000)
    writing = crank(rig.line.write(pcm))
    assert not writing.done
    assert rig.line.queued == LINE_SECONDS == 1.0
    while not writing.turn():
        rig.turn()
        assert rig.line.queued <= LINE_SECONDS
    writing.result()
    while rig.line.queued:
        rig.turn()
    assert b"".join(rig.sent) == pcm


def test_draining_waits_for_the_silence_after_an_utterance(rig: Rig, crank: Any) -> None:
    crank(rig.line.drain()).result()
    crank(rig.line.write(voice(960))).result()
    draining = crank(rig.line.drain())
    sent = []
    while not draining.turn():
        sent += rig.turn()
    assert sent[0] == voice(960)
    # The first whole piece of silence beyond 250 ms.
    assert (len(sent) - 1) * 0.02 == pytest.approx(0.26)
    assert TAIL_SECONDS == 0.25
    draining.result()


def test_an_utterance_starts_the_silence_anew(rig: Rig, crank: Any) -> None:
    crank(rig.line.write(voice(960))).result()
    rig.turn(10)
    crank(rig.line.write(voice(960))).result()
    draining = crank(rig.line.drain())
    rig.turn(13)
    assert not draining.turn()
    rig.turn()
    draining.result()


def test_clearing_drops_what_waits_and_what_is_being_written(rig: Rig, crank: Any) -> None:
    writing = crank(rig.line.write(voice(48_000 + 4800)))
    (spoken,) = rig.turn()
    crank(rig.line.clear()).result()
    writing.result()
    assert rig.interrupts == 1
    assert rig.line.queued == 0.0
    assert rig.line.dropped == pytest.approx(1.1 - len(spoken) / 48_000)
    assert rig.turn(2) == [SILENCE] * 2
    crank(rig.line.write(voice(960))).result()
    assert rig.turn() == [voice(960)]


def test_after_clearing_the_line_drains(rig: Rig, crank: Any) -> None:
    crank(rig.line.write(voice(960))).result()
    crank(rig.line.clear()).result()
    draining = crank(rig.line.drain())
    rig.turn(13)
    draining.result()


def test_half_a_sample_is_refused_and_nothing_of_it_kept(rig: Rig, crank: Any) -> None:
    with pytest.raises(LocalProtocolError, match="even number"):
        crank(rig.line.write(b"odd")).result()
    assert rig.line.queued == 0.0


def test_writing_nothing_is_nothing(rig: Rig, crank: Any) -> None:
    crank(rig.line.write(b"")).result()
    crank(rig.line.drain()).result()


def test_the_sessions_end_wakes_everybody(rig: Rig, crank: Any) -> None:
    writing = crank(rig.line.write(voice(2 * 48_000)))
    draining = crank(rig.line.drain())
    rig.end()
    for waiting in (writing, draining):
        with pytest.raises(SessionClosedError):
            waiting.result()
    for late in (rig.line.write(b"\0\0"), rig.line.drain(), rig.line.clear()):
        with pytest.raises(SessionClosedError):
            crank(late).result()
    assert rig.line.dropped == 1.0
    crank(rig.line.leave()).result()
    rig.running.result()


def test_a_line_that_had_nothing_to_say_ends_quietly(rig: Rig, crank: Any) -> None:
    rig.turn()
    rig.end()
    crank(rig.line.drain()).result()
    crank(rig.line.leave()).result()


def test_a_cancelled_line_counts_what_it_did_not_send(rig: Rig, crank: Any) -> None:
    crank(rig.line.write(voice(4800))).result()
    rig.running.cancel()
    assert rig.line.dropped == pytest.approx(0.1)
    with pytest.raises(SessionClosedError):
        crank(rig.line.write(b"\0\0")).result()


def test_leaving_waits_until_all_is_said(rig: Rig, crank: Any) -> None:
    crank(rig.line.write(voice(960))).result()
    leaving = crank(rig.line.leave())
    rig.turn(13)
    assert not leaving.turn()
    rig.turn()
    leaving.result()


# ---- the connection is lost, and the session goes on


def test_what_is_on_the_line_is_lost_with_the_connection(rig: Rig, crank: Any) -> None:
    writing = crank(rig.line.write(voice(2 * 48_000)))
    draining = crank(rig.line.drain())
    rig.lose()
    for waiting in (writing, draining):
        with pytest.raises(SessionLostError, match="dropped"):
            waiting.result()
    assert (rig.line.queued, rig.line.dropped) == (0.0, 2.0)
    # Silence goes on, and what is written from now on is said.
    assert rig.turn(2) == [SILENCE, SILENCE]
    crank(rig.line.drain()).result()
    crank(rig.line.write(voice(960))).result()
    assert rig.turn() == [voice(960)]


def test_a_line_with_nothing_on_it_loses_nothing(rig: Rig, crank: Any) -> None:
    rig.lose()
    crank(rig.line.drain()).result()
    crank(rig.line.write(voice(960))).result()
    assert rig.line.dropped == 0.0
