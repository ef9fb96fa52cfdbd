"""Candidate gathering that waits for nobody for long, and asks every server.

aioice waits up to five seconds for the first STUN and the first TURN server before it hands out the
first candidate (docs/media-engine.md). Here the host candidates are gathered as stock does, before
anything is known of servers where there is time, and the servers are asked beside, all of them:

- STUN servers at once, from every IPv4 socket. One answer per socket is enough to go on.
- TURN servers in the order of :class:`~navtalk_asyncio.media.ice_servers.IceServers`, the next one
  as soon as one fails, or after :data:`HEAD_START` without an answer. The first relay is taken;
  what a slower server grants later is given back.

The description leaves as soon as there is nothing more to hope for, and after the deadline in any
case, at once where that is 0; what comes later is trickled. An agent that has no candidate at all
by then waits until every server has failed: a description without one connects to nothing.

Uses private names of aioice: :func:`navtalk_asyncio.media.private_names.works` tests them.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import aioice
from aioice import ice, stun

from navtalk_asyncio.media import ice_servers
from navtalk_asyncio.media.ice_servers import (
    IceServers,
    Server,
    ServerError,
    failure_reason,
    resolve,
    tls_context,
)
from navtalk_proto.ice import IceServerRule, IceTransport, default_ice_rule

__all__ = ["Gathering"]

logger: Final = logging.getLogger("navtalk.media")

HEAD_START: Final = 0.2
"""Seconds until the next TURN server is tried beside one that has not answered. An allocation takes
two round trips; with a tenth of a second each, a healthy server still wins alone."""

RELEASE_SECONDS: Final = 1.0
"""How long giving a relay back may take. aioice asks a dead server for 63 s, and closing a peer
connection waits for it; the server forgets an allocation by itself after ten minutes."""


class Gathering:
    """Candidate gathering of one ICE agent; takes the place of the agent's own.

    Sockets are bound when aioice gathers, servers are asked from them once :meth:`ask` has told
    which, and the gathering is over some time after :meth:`describe`. `loopback` adds host
    candidates on 127.0.0.1.
    """

    def __init__(self, connection: aioice.Connection, *, loopback: bool) -> None:
        self._connection = connection
        self._loopback = loopback
        self._servers = IceServers()
        self._allow: IceServerRule = default_ice_rule
        self._on_candidate: Callable[[aioice.Candidate | None], None] = lambda _candidate: None
        self._on_failure: Callable[[str, str], None] = lambda _url, _reason: None
        self._stock = connection.get_component_candidates
        self.bound: asyncio.Event = asyncio.Event()
        """Set when the sockets are bound, and the servers that are known are being asked."""
        self._component = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._hoping: set[asyncio.Task[None]] = set()
        """Tasks that may still bring a candidate; the others only give back what is not needed."""
        self._asked: dict[Server, set[ice.StunProtocol]] = {}
        """The STUN servers that may still answer, and the sockets they are asked from."""
        self._told: set[ice.StunProtocol] = set()
        """The sockets whose address a STUN server has told."""
        self._relaying = False
        """Whether a relay may still come."""
        self._deadline: float | None = None
        """How many seconds the description waits for servers, once there is to be one."""
        self._gathered: list[aioice.Candidate] | None = []
        """What goes into the description; None once it has left."""
        self._reflexive: set[tuple[Any, ...]] = set()
        self._failed: set[str] = set()
        self._news = asyncio.Event()
        self._aborted = False
        connection.get_component_candidates = self._gather  # type: ignore[method-assign]

    @property
    def pending(self) -> bool:
        """Whether candidates may still come."""
        return bool(self._hoping)

    def ask(
        self,
        servers: IceServers,
        *,
        allow: IceServerRule,
        on_candidate: Callable[[aioice.Candidate | None], None],
        on_failure: Callable[[str, str], None],
    ) -> None:
        """Ask these servers, as soon as there are sockets. Once.

        `on_candidate` gets what comes after the description, and None after the last
        (end-of-candidates). `on_failure` gets the URL and the reason of each server that was of no
        use, once.
        """
        self._servers = servers
        self._allow = allow
        self._on_candidate = on_candidate
        self._on_failure = on_failure
        if self.bound.is_set():
            self._ask_all()

    def describe(self, deadline: float) -> None:
        """A description is made now; it waits this many seconds for servers. After :meth:`ask`."""
        if self._deadline is None:
            self._deadline = deadline
            self._news.set()

    def abort(self) -> None:
        """Ask no server any longer; a gathering in progress returns at once."""
        self._aborted = True
        self._news.set()
        for task in self._tasks:
            task.cancel()

    async def join(self) -> None:
        """Wait until nothing runs; call :meth:`abort` first. At most :data:`RELEASE_SECONDS`."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # ---- what aioice calls

    async def _gather(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109 - the signature is aioice's
    ) -> list[aioice.Candidate]:
        connection = self._connection
        everything = connection._transport_policy is ice.TransportPolicy.ALL
        if self._loopback and everything and "127.0.0.1" not in addresses:
            addresses = [*addresses, "127.0.0.1"]
        hosts = await self._stock(component=component, addresses=addresses, timeout=timeout)
        if self._aborted:
            return hosts
        self._component = component
        self._ask_all()
        self.bound.set()
        while self._deadline is None and not self._aborted:
            self._news.clear()
            await self._news.wait()
        deadline = self._deadline or 0.0
        settled = deadline > 0 and await self._settled(deadline)
        if not settled and not hosts and not self._gathered:
            # Nothing to describe yet: until every server has failed.
            await self._settled(None)
        gathered, self._gathered = self._gathered, None
        return hosts + (gathered or [])

    def _ask_all(self) -> None:
        connection = self._connection
        sockets = [
            protocol
            for protocol in connection._protocols
            if ":" not in protocol.local_candidate.host
        ]
        for server in self._servers.stun if sockets and not self._aborted else ():
            self._asked[server] = set(sockets)
            self._start(self._ask_stun(server, sockets))
        if self._servers.turn and not self._aborted:
            everything = connection._transport_policy is ice.TransportPolicy.ALL
            self._relaying = True
            self._start(self._find_relay(self._component, hide_related_address=not everything))

    async def _settled(self, timeout: float | None) -> bool:  # noqa: ASYNC109 - None: no limit
        """Wait until the description need not wait; False when the time is up first."""
        try:
            async with asyncio.timeout(timeout):
                while not self._aborted and (
                    self._relaying or any(asked - self._told for asked in self._asked.values())
                ):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    # ---- tasks

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._hoping.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._no_hope)

    def _no_hope(self, task: asyncio.Task[None]) -> None:
        """A task will bring no candidate (any more)."""
        if task in self._hoping:
            self._hoping.discard(task)
            self._news.set()
            if not self._hoping and not self._aborted and self._gathered is None:
                self._on_candidate(None)

    def _fail(self, server: Server, exc: BaseException) -> None:
        url, reason = str(server.url), failure_reason(exc)
        if not self._aborted and url not in self._failed:
            self._failed.add(url)
            logger.info("! ICE server %s: %s", url, reason)
            self._on_failure(url, reason)

    def _found(self, candidate: aioice.Candidate) -> None:
        self._news.set()
        if self._gathered is not None:
            self._gathered.append(candidate)
        elif not self._aborted and not self._connection._closing:
            self._connection._local_candidates.append(candidate)
            self._on_candidate(candidate)

    # ---- STUN

    async def _ask_stun(self, server: Server, sockets: Iterable[ice.StunProtocol]) -> None:
        asked: set[asyncio.Task[None]] = set()
        error: ServerError | TimeoutError | None = None
        try:
            async with asyncio.timeout(ice_servers.ANSWER_SECONDS):
                address = (await resolve(server, self._allow))[0]
                at = (str(address), server.url.port)
                self._asked[server] = {
                    socket
                    for socket in sockets
                    if _can_reach(socket.local_candidate.host, address.is_loopback)
                }
                asked = {
                    asyncio.create_task(self._ask_from(socket, at))
                    for socket in self._asked[server]
                }
                if asked:
                    await asyncio.wait(asked)
        except (ServerError, TimeoutError) as exc:
            error = exc
        finally:
            del self._asked[server]
            for task in asked:
                task.cancel()
            if asked:
                await asyncio.wait(asked)
        outcomes = [task.exception() for task in asked if not task.cancelled()]
        if None not in outcomes:
            refusals = [outcome for outcome in outcomes if outcome is not None]
            self._fail(server, error or (refusals[0] if refusals else _UNREACHABLE))

    async def _ask_from(self, socket: ice.StunProtocol, server: tuple[str, int]) -> None:
        candidate, _ = await ice.server_reflexive_candidate(socket, server)
        self._told.add(socket)
        self._news.set()
        key = (candidate.host, candidate.port, candidate.related_address, candidate.related_port)
        if key not in self._reflexive:  # RFC 8445 section 5.1.3: another server saw the same.
            self._reflexive.add(key)
            self._found(candidate)

    # ---- TURN

    async def _find_relay(self, component: int, *, hide_related_address: bool) -> None:
        """Ask one server after the other until one relays; see the module's own text."""
        waiting = deque(self._servers.turn)
        asked: dict[asyncio.Task[_Relay], Server] = {}
        relay: _Relay | None = None
        try:
            while relay is None and (waiting or asked):
                if waiting:
                    server = waiting.popleft()
                    allocation = self._allocate(
                        server, component, hide_related_address=hide_related_address
                    )
                    asked[asyncio.create_task(allocation)] = server
                head_start = HEAD_START if waiting else None
                done, _ = await asyncio.wait(
                    asked, timeout=head_start, return_when=asyncio.FIRST_COMPLETED
                )
                for task in sorted(done, key=list(asked).index):
                    if relay is None and task.exception() is None:
                        relay = task.result()
                        del asked[task]
                    elif (exc := task.exception()) is not None:
                        self._fail(asked.pop(task), exc)
            self._relaying = False
            if relay is not None:
                self._use(relay)
            current = asyncio.current_task()
            assert current is not None
            self._no_hope(current)
            # A request that is cancelled leaves an allocation behind at the server. Those who are
            # late may answer; what they grant is given back, what they refuse is told.
            if asked:
                await asyncio.wait(asked)
        finally:
            self._relaying = False
            for task in asked:
                task.cancel()
            if asked:
                await asyncio.wait(asked)
            unused = []
            for task, server in asked.items():
                if task.cancelled():
                    continue
                if (exc := task.exception()) is not None:
                    self._fail(server, exc)
                else:
                    unused.append(task.result())
            for late in unused:
                late.close()
            for late in unused:
                await late.closed()

    async def _allocate(
        self, server: Server, component: int, *, hide_related_address: bool
    ) -> _Relay:
        url = server.url
        async with asyncio.timeout(ice_servers.ANSWER_SECONDS):
            found = await resolve(server, self._allow)
            credential = None if server.credential is None else server.credential.reveal()
            context = None
            if url.transport is IceTransport.TLS:
                context = await asyncio.to_thread(tls_context, url.host)
            transport = "udp" if url.transport is IceTransport.UDP else "tcp"
            error: OSError | None = None
            for address in found:
                try:
                    candidate, protocol = await ice.relayed_candidate(
                        component=component,
                        hide_related_address=hide_related_address,
                        protocol_factory=functools.partial(ice.StunProtocol, self._connection),
                        turn_server=(str(address), url.port),
                        turn_username=server.username,
                        turn_password=credential,
                        # aioice hands it to asyncio, which takes a context where it takes a flag.
                        turn_ssl=context or False,  # type: ignore[arg-type]
                        turn_transport=transport,
                    )
                except TimeoutError:
                    raise
                except OSError as exc:
                    error = exc
                else:
                    return _Relay(candidate, protocol, lambda exc: self._fail(server, exc))
        assert error is not None
        raise error

    def _use(self, relay: _Relay) -> None:
        connection = self._connection
        if self._aborted or connection._closing:
            relay.close()
            return
        connection._protocols.append(relay.protocol)
        late = self._gathered is None
        self._found(relay.candidate)
        if late and not connection._check_list_done:
            self._join_checks(relay.protocol)

    def _join_checks(self, relay: ice.StunProtocol) -> None:
        """Let a relay that came late take part in the checks, whatever state they are in."""
        connection = self._connection
        for remote in connection._remote_candidates:
            connection._pair_remote_candidate(remote)
        connection.sort_check_list()
        if connection._early_checks_done:
            # connect() may have no further check to pace and only wait for the running ones.
            for pair in connection._check_list:
                if pair.protocol is relay:
                    connection.check_start_task(pair)


_UNREACHABLE: Final = ServerError("no interface can reach it")


def _can_reach(local: str, loopback: bool) -> bool:
    # A socket bound to loopback reaches nothing else, and would always wait for the deadline.
    return loopback or not ipaddress.ip_address(local).is_loopback


class _Relay:
    """An allocation at a TURN server: closed in bounded time, and its loss is told."""

    def __init__(
        self,
        candidate: aioice.Candidate,
        protocol: ice.StunProtocol,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.candidate = candidate
        self.protocol = protocol
        self._on_failure = on_failure
        self._transport: Any = protocol.transport
        self._stock_close = self._transport.close
        self._stock_lost = protocol.connection_lost
        self._closed = asyncio.Event()
        self._limit: asyncio.TimerHandle | None = None
        # aioice closes its relays one by one, and calls these on the objects.
        for owner, name, instead in (
            (self._transport, "close", self.close),
            (protocol, "connection_lost", self._lost),
            (protocol, "error_received", self._error),
        ):
            setattr(owner, name, instead)

    def close(self) -> None:
        """Give the allocation back, in :data:`RELEASE_SECONDS` at most."""
        if self._limit is None and not self._closed.is_set():
            loop = asyncio.get_running_loop()
            self._limit = loop.call_later(RELEASE_SECONDS, self._give_up)
            self._stock_close()

    async def closed(self) -> None:
        """Wait for the end of :meth:`close`."""
        await self._closed.wait()

    def _give_up(self) -> None:
        # Dropped, not closed: TCP and TLS would wait for a dead server. It ends in _lost().
        for task in (
            self._transport._TurnTransport__close_task,
            *self._transport._TurnTransport__send_tasks,
        ):
            task.cancel()
        self._transport._TurnTransport__inner_protocol.transport.abort()

    def _lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        elif not self._closed.is_set():
            # aioice closes the socket when a refresh is refused: the credentials have expired.
            why = "it was not prolonged" if exc is None else failure_reason(exc)
            self._on_failure(ServerError(f"the relay was lost: {why}"))
            # aioice goes on refreshing what is gone; closing ends that, and asks nobody.
            self._stock_close()
        self._closed.set()
        self._stock_lost(exc)

    def _error(self, exc: Exception) -> None:
        """A packet could not be sent to a peer: no permission for its address, mostly."""
        if isinstance(exc, stun.TransactionFailed):
            self._on_failure(exc)
