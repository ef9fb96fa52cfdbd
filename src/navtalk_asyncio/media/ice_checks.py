"""ICE connectivity checks that notice their own end.

aioice starts a check every 20 ms, and looks for the outcome of all of them at the same pace: a path
that was found after one millisecond is used after twenty, and a candidate that comes late waits as
long for its first check. Here the outcome is waited for, and a late candidate is checked at once.

Checks are :data:`PACE` apart. That is also quicker for a far end that has aioice as it is: what was
checked from here before it begins, it need not begin by itself.

Uses private names of aioice: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aioice
from aioice import ice

__all__ = ["PromptChecks"]

PACE: Final = 0.005
"""Seconds between two checks (Ta): the least that RFC 8445 section 14.2 allows."""

TURNS: Final = 3
"""Turns of the loop that others have before the first check. aiortc begins ICE when it has set a
local description; with these, whoever waits for an answer sends it first, half a millisecond
earlier."""

_NOT_BEGUN: Final = (ice.CandidatePair.State.WAITING, ice.CandidatePair.State.FROZEN)


class PromptChecks:
    """Stands in for one ICE agent's ``connect()``."""

    def __init__(self, connection: aioice.Connection, *, head_start: float = 0.0) -> None:
        """`head_start`: seconds besides, where an answer is handed on to another thread."""
        self._connection = connection
        self._head_start = head_start
        self._add_remote_candidate = connection.add_remote_candidate
        self._candidates = asyncio.Event()
        connection.connect = self._connect  # type: ignore[method-assign]
        connection.add_remote_candidate = self._added  # type: ignore[method-assign]

    async def _added(self, remote_candidate: aioice.Candidate | None) -> None:
        await self._add_remote_candidate(remote_candidate)
        self._candidates.set()

    async def _connect(self) -> None:
        """As aioice has it, but for the waiting. Raises ConnectionError when no pair works."""
        connection = self._connection
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if self._head_start and not connection.ice_controlling:  # Who answers is controlled.
            await asyncio.sleep(self._head_start)
        if not connection._local_candidates_end:
            raise ConnectionError("Local candidates gathering was not performed")
        if connection.remote_username is None or connection.remote_password is None:
            raise ConnectionError("Remote username or password is missing")
        for candidate in connection._remote_candidates:
            connection._pair_remote_candidate(candidate)
        connection.sort_check_list()
        connection._unfreeze_initial()
        for early in connection._early_checks:
            connection.check_incoming(*early)
        connection._early_checks.clear()
        connection._early_checks_done = True

        outcome = await self._outcome()
        for pair in connection._check_list:
            if pair.task is not None:
                pair.task.cancel()
        if outcome != ice.ICE_COMPLETED:
            raise ConnectionError("ICE negotiation failed")
        connection._query_consent_task = asyncio.create_task(connection.query_consent())

    async def _outcome(self) -> int:
        connection = self._connection
        outcome = asyncio.create_task(connection._check_list_state.get())
        candidates: asyncio.Task[bool] | None = None
        try:
            while not outcome.done() and connection._check_periodic():
                if any(pair.state in _NOT_BEGUN for pair in connection._check_list):
                    await asyncio.wait([outcome], timeout=PACE)
                    continue
                self._candidates.clear()
                candidates = asyncio.create_task(self._candidates.wait())
                await asyncio.wait([outcome, candidates], return_when=asyncio.FIRST_COMPLETED)
                candidates.cancel()
            if connection._check_list or outcome.done():
                return await outcome
            return ice.ICE_FAILED
        finally:
            outcome.cancel()
            if candidates is not None:
                candidates.cancel()
