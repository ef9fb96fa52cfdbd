"""Cancel at each milestone of a real session, on both loops: real sockets, engine and clock.

The digital human runs on a loop and a thread of its own. Afterwards no task, thread and socket is
left, and the server was told goodbye.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from navtalk_asyncio.emulator import Conversation, Reply
from navtalk_asyncio.testing import emulator_thread
from navtalk_proto.events import CloseCause, Closed

PATIENCE = 30.0
"""Seconds of real time until a wait is given up; only a failing test gets near it."""

BEFORE = (
    "Connected",
    "Ready",
    "TrackAdded",
    "Negotiated",
    "checking",
    "ice-connected",
    "connected",
    "MediaStarted",
    "Usable",
)
"""Events and media states on the way to a usable session."""

BODY = ("body", "text sent", "event read", "picture", "sound", "recording", "recorded")
"""What the application does then."""

AFTER = ("closing", "Closed")


class Hummer:
    """A brain that answers at once with half a second of silence: no synthesiser is started."""

    async def hear(self, conversation: Conversation) -> str:
        return "something"

    async def reply(self, conversation: Conversation) -> Reply:
        return Reply(text=f"Hm: {conversation.text}", pcm=bytes(24_000))


class AtMilestone:
    """A session that is cancelled when it reaches a milestone."""

    def __init__(self, loop: Any, human: Any, milestone: str, path: Path, options: Any) -> None:
        self.loop = loop
        self.human = human
        self.milestone = milestone
        self.path = path
        self.options = options
        self.hit = False
        self.cancel: Any = None
        self.server_sessions: frozenset[Any] = frozenset()

    def __await__(self) -> Generator[Any, Any, None]:
        return self.run().__await__()

    def reached(self, milestone: str) -> None:
        self.server_sessions |= self.human.server.sessions
        if milestone == self.milestone and not self.hit:
            self.hit = True
            self.cancel()

    def observe(self, event: Any) -> None:
        state = getattr(event, "state", None)
        self.reached(getattr(state, "value", type(event).__name__))

    async def run(self) -> None:
        endpoint = self.human.endpoint()
        async with self.loop.adapter.connect(
            endpoint, observe=self.observe, **self.options
        ) as session:
            self.reached("body")
            await session.send_text("Are you there?")
            self.reached("text sent")
            async for _ in session.events():
                self.reached("event read")
                break
            async for _ in session.video:
                self.reached("picture")
                break
            async for _ in session.audio:
                self.reached("sound")
                break
            async with session.record(self.path):
                self.reached("recording")
                await anyio.lowlevel.checkpoint()
            self.reached("recorded")
            await anyio.lowlevel.checkpoint()
            self.reached("closing")
            await session.close()


def sockets() -> set[str]:
    """The sockets of this process, as /proc names them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("milestone", [*BEFORE, *BODY, *AFTER])
@pytest.mark.parametrize(
    ("matrix", "engine"),
    # The engine is asyncio code: under trio it is always in a thread.
    [("asyncio", "on the loop"), ("asyncio", "in a thread"), ("trio", "in a thread")],
    indirect=["matrix"],
)
def test_cancelling_at_a_milestone(
    matrix: Any, milestone: str, engine: str, tmp_path: Path
) -> None:
    loop = matrix.loop
    options = {"engine": "thread"} if (loop.name, engine) == ("asyncio", "in a thread") else {}
    sockets_before, threads_before = sockets(), set(threading.enumerate())

    async def main(work: AtMilestone) -> None:
        with anyio.fail_after(PATIENCE):
            assert await loop.run_cancelled(work)
        loop.check_no_task_is_left()
        assert not [one for one in threading.enumerate() if one.name == "navtalk-media"]

    with emulator_thread(brain=Hummer()) as human:
        work = AtMilestone(loop, human, milestone, tmp_path / "call.mkv", options)
        anyio.run(main, work, backend=loop.name)
    assert work.hit
    (session,) = work.server_sessions
    assert session.end == Closed(cause=CloseCause.REMOTE, code=1000, reason="")
    assert sockets() == sockets_before
    # trio keeps its workers for a while.
    left = {one for one in threading.enumerate() if not one.name.startswith("Trio thread")}
    for one in left - threads_before:
        one.join(PATIENCE)  # Its work is done; the operating system may not have run its end yet.
        assert not one.is_alive(), one.name
    matrix.counts[f"{loop.name} milestones"] += 1
