"""Redirections carried out: many connections at once, on one event loop.

A `Redirector` belongs to one box and its `Watcher`.  For each connection it runs a machine
(`machine`), which decides; what the machine asks for is done here, by the `Sampler`, the
`Blocker` and the `NextHop`, and what happens is told to it.  A step that fails is told too, and
the machine undoes what stands; the connection is then where it was.

D3.1 3.1: connection redirection.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from testbed.errors import TestbedError
from testbed.mptcp.redirection.blocker import Blocker
from testbed.mptcp.redirection.machine import Redirection
from testbed.mptcp.redirection.messages import (
    Abort,
    Announcement,
    Block,
    Closed,
    Command,
    Direction,
    Done,
    Event,
    Failed,
    Finished,
    Inject,
    Join,
    JoinSeen,
    Outcome,
    Refused,
    Rewrite,
    Sample,
    Sampled,
    TearDown,
    Tick,
    Unblock,
    Unrewrite,
    Unsample,
    free_address_id,
)
from testbed.mptcp.redirection.nexthop import NextHop
from testbed.mptcp.redirection.sampler import Sampler
from testbed.mptcp.redirection.segment import Segment
from testbed.mptcp.redirection.watcher import (
    Connection,
    Ending,
    Flow,
    Session,
    Sighting,
    Watcher,
)

_AT_ONCE = 32
_UNDO: dict[Command, Command] = {Block(): Unblock(), Rewrite(): Unrewrite(), Sample(): Unsample()}


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a redirection ended.

    `flow` is the connection's flow at the next hop, by which it can be redirected again, None
    unless it joined there.  Times are in seconds since the address was first announced: until
    the client echoed it, until the server confirmed the join, until the old subflow was out of
    use.
    """

    outcome: Outcome
    reason: str
    flow: Flow | None = None
    attempts: int = 0
    echo_s: float | None = None
    join_s: float | None = None
    total_s: float | None = None


class Redirector:
    """Redirects connections that pass the watcher's box; use it in one event loop only.

    `at_once` redirections run at a time, others wait for their turn.  Close it when the box has
    no more to redirect: that takes out the blocks of old subflows.
    """

    def __init__(self, watcher: Watcher, *, at_once: int = _AT_ONCE) -> None:
        self.watcher = watcher
        self.sampler = Sampler(watcher.namespace)
        self.blocker = Blocker(watcher.namespace)
        self._turns = asyncio.Semaphore(at_once)
        self._runs: set[_Run] = set()

    async def redirect(
        self,
        flow: Flow,
        via: NextHop,
        *,
        tear_down: TearDown | str = TearDown.BOTH,
        timeout_s: float = 10.0,
    ) -> Report:
        """Move the connection with this flow (its client's side) to a next hop.

        Never breaks the connection: any other outcome than REDIRECTED leaves it where it was, and
        nothing installed.  Raises `ParameterError` where it is being redirected already, or where
        the next hop has no address of its family.
        """
        connection = self.watcher.connections.get(flow)
        if connection is None or connection.session is None:
            why = "was not seen" if connection is None else "showed no keys of both ends"
            return Report(outcome=Outcome.NOT_MPTCP, reason=f"the handshake {why}")
        async with self._turns:
            run = _Run(self, connection, connection.session, via, TearDown(tear_down), timeout_s)
            self._runs.add(run)
            try:
                return await run.result()
            finally:
                self._runs.discard(run)

    async def redirect_many(
        self,
        flows: Iterable[Flow],
        via: NextHop,
        *,
        tear_down: TearDown | str = TearDown.BOTH,
        timeout_s: float = 10.0,
    ) -> list[Report]:
        """Redirect several connections at once; reports in the order of `flows`."""
        each = [
            self.redirect(flow, via, tear_down=tear_down, timeout_s=timeout_s) for flow in flows
        ]
        return await asyncio.gather(*each)

    async def close(self) -> None:
        """End what runs, and take out what is installed in the box."""
        for run in tuple(self._runs):
            run.tell(Abort("the redirector was closed"))
        while self._runs:
            await asyncio.sleep(0)
        self.sampler.close()
        self.blocker.close()

    async def __aenter__(self) -> Redirector:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()


class _Run:
    """One redirection under way: its machine, and what it has installed."""

    def __init__(
        self,
        owner: Redirector,
        connection: Connection,
        session: Session,
        via: NextHop,
        tear_down: TearDown,
        timeout_s: float,
    ) -> None:
        self._owner, self._connection, self._via = owner, connection, via
        self._server = connection.outside.server
        self._dialled = via.listen(self._server)
        own_port = self._dialled.port == session.port
        announcement = Announcement(
            address=self._dialled.ip,
            address_id=free_address_id(session.address_ids),
            port=None if own_port else self._dialled.port,
        )
        ids = session.address_ids | {announcement.address_id}
        self._session = session._replace(address_ids=ids)
        self._machine = Redirection(
            session.keys, announcement, tear_down=tear_down, timeout_s=timeout_s
        )
        self._flow: Flow | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._finished: asyncio.Future[Finished] = self._loop.create_future()
        self._events: deque[Event] = deque()
        self._telling = False
        self._standing: set[Command] = set()

    async def result(self) -> Report:
        """Run to the end; a cancellation has it undone first."""
        watcher = self._owner.watcher
        with ExitStack() as stack:
            stack.callback(self._withdraw)
            stack.enter_context(watcher.told(self._connection.inside, self._passed, self._blind))
            stack.enter_context(
                self._via.watcher.told(self._session.keys, self._joins, self._blind)
            )
            for each in (watcher, self._via.watcher):
                stack.enter_context(each.attended())
            self._via.watcher.expect(self._session)
            self._do(self._machine.start(self._loop.time()))
            self._tell_all()
            try:
                finished = await asyncio.shield(self._finished)
            except asyncio.CancelledError:
                self.tell(Abort("cancelled"))
                await self._finished
                raise
            return self._report(finished)

    def _report(self, finished: Finished) -> Report:
        machine, joined = self._machine, self._machine.joined_s is not None
        began_s = machine.announced_s

        def since(then_s: float | None) -> float | None:
            return None if then_s is None or began_s is None else then_s - began_s

        return Report(
            outcome=finished.outcome,
            reason=finished.reason,
            flow=self._flow if joined else None,
            attempts=machine.attempts,
            echo_s=since(machine.echoed_s),
            join_s=since(machine.joined_s),
            total_s=since(machine.ended_s),
        )

    # -- what happens ----------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tell the machine, and do what it asks for."""
        self._events.append(event)
        if not self._telling:
            self._tell_all()

    def _tell_all(self) -> None:
        self._telling = True
        try:
            while self._events and not self._finished.done():
                self._do(self._machine.handle(self._events.popleft(), self._loop.time()))
        except Exception as error:
            if not self._finished.done():
                self._finished.set_exception(error)
        finally:
            self._telling = False
            self._arm()

    def _arm(self) -> None:
        """Have a timer that is due no later than the machine's deadline."""
        deadline_s = math.inf if self._finished.done() else self._machine.deadline
        if self._timer is not None and deadline_s < self._timer.when():
            self._timer.cancel()
            self._timer = None
        if self._timer is None and deadline_s < math.inf:
            self._timer = self._loop.call_at(deadline_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._owner.sampler.refresh(self._connection)  # what is forged must be newest
        self.tell(Tick())

    def _sampled(self, direction: Direction, segment: Segment) -> None:
        self.tell(Sampled(direction, segment))

    def _passed(self, sighting: Sighting) -> None:
        """The box's watcher saw something of the old subflow."""
        if isinstance(sighting.what, Ending):
            self.tell(Closed(f"the old subflow ended by {sighting.what.value}"))

    def _joins(self, sighting: Sighting) -> None:
        """The next hop's watcher saw something of a join to this connection."""
        flow = sighting.connection.inside
        if sighting.what is Join.SYN and flow.server == self._dialled:
            self._flow = flow
        if flow != self._flow:
            return
        if isinstance(sighting.what, Join):
            self.tell(JoinSeen(sighting.what))
        else:
            self.tell(Refused())

    def _blind(self, reason: str) -> None:
        """A watcher sees nothing any more, so what is not yet sure never will be."""
        self.tell(Abort(reason))

    # -- what the machine asks for ---------------------------------------------------------------

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Finished):
                self._finished.set_result(command)
                return
            try:
                self._carry_out(command)
            except (TestbedError, OSError) as error:
                self._events.append(Failed(command, str(error)))
            else:
                self._note(command)

    def _carry_out(self, command: Command) -> None:
        owner, connection = self._owner, self._connection
        match command:
            case Sample():
                owner.sampler.add(connection, self._sampled, self._unsampled)
            case Unsample():
                owner.sampler.remove(connection)
            case Rewrite():
                self._via.open(self._server)
            case Unrewrite():
                self._via.release(self._server)
            case Block():
                owner.blocker.block(connection)
            case Unblock():
                owner.blocker.unblock(connection)
            case Inject(direction, segment):
                owner.sampler.inject(connection, direction, segment)

    def _note(self, command: Command) -> None:
        """A command was carried out."""
        if command in _UNDO:
            self._standing.add(command)
        self._standing -= {done for done, undo in _UNDO.items() if undo == command}
        if not isinstance(command, (Sample, Inject)):
            self._events.append(Done(command))

    def _withdraw(self) -> None:
        """Whatever happened, leave no timer; what the machine could not undo, undo here."""
        if self._timer is not None:
            self._timer.cancel()
        if self._finished.done() and self._finished.exception() is None:
            return
        for command in tuple(self._standing):
            self._carry_out(_UNDO[command])

    def _unsampled(self, reason: str) -> None:
        self.tell(Failed(Sample(), reason))
