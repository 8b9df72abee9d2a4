"""A light network function moves to another platform while its connections live.

    with Agent(dc2.netns, "10.9.0.2") as agent, agent.reached_from(dc1.netns) as channel:
        report = migrate(source, lambda: Function.instantiate(...), channel, switch)

The plan is `migration_plan`'s; here is who carries it out.  State crosses the emulated network
between the platforms, through `channel`.  `switch()` lets traffic go to the target: within one
operator a route, a neighbour or an address moves; towards another provider connections are
redirected (`scope=CLIENTS`: their own entries stay behind).

From an event loop: `await asyncio.to_thread(migrate, ...)`.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from testbed.errors import ExperimentError, TestbedError
from testbed.vnf import migration_plan as plan
from testbed.vnf.agent import Channel, Instantiate, Movable
from testbed.vnf.arrivals import Arrivals
from testbed.vnf.migration_plan import Command, Event, Limits, PreCopy
from testbed.vnf.migration_wire import ConnectionLost, Kind, NotWanted
from testbed.vnf.state import EVERYTHING, Access, FunctionState, Scope

_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One copy: what it told, and how long taking, carrying and putting took together."""

    entries: int
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class MigrationReport:
    """What a migration took.  Times in seconds, bytes as the agents' connection carried them."""

    downtime_s: float  # from the pause of the source until traffic was switched
    pause_s: float  # of it: until the source had stopped
    copy_s: float  # of it: the last difference, until the target ran
    switch_s: float  # of it: `switch()`
    total_s: float
    bytes: int
    entries: int  # connections that the target took over
    lost: int  # packets that came to the source while it was paused, and were dropped
    rounds: tuple[Round, ...]  # the last one while the source was paused
    target: Movable
    leftover: str = ""  # what could not be tidied after the switch, if anything


class MigrationError(ExperimentError):
    """A migration that did not come about: the source forwards on, the target is gone."""


def migrate(
    source: Movable,
    instantiate: Instantiate,
    channel: Channel,
    switch: Callable[[], None],
    *,
    scope: Scope = EVERYTHING,
    limits: Limits | None = None,
    cancel: threading.Event | None = None,
) -> MigrationReport:
    """Move `source` to the platform at the other end of `channel`.

    `instantiate` makes the target there, of the same program; `switch` is called once it runs, and
    if it raises, must have left traffic where it was.  Setting `cancel` ends a migration that has
    not got to the switch.  Raises `MigrationError`; the source is then as it was.
    """
    mover = _Mover(source, instantiate, channel, switch, scope, limits or Limits(), cancel)
    try:
        return mover.run()
    finally:
        mover.close()


@dataclass
class _Times:
    """When what happened (CLOCK_MONOTONIC)."""

    began: float = field(default_factory=time.monotonic)
    pausing: float = 0.0
    paused: float = 0.0
    running: float = 0.0
    switched: float = 0.0


class _Mover:
    """Carries out a plan's commands, one at a time."""

    def __init__(
        self,
        source: Movable,
        instantiate: Instantiate,
        channel: Channel,
        switch: Callable[[], None],
        scope: Scope,
        limits: Limits,
        cancel: threading.Event | None,
    ) -> None:
        self._source, self._channel, self._switch = source, channel, switch
        self._scope, self._cancel = scope, cancel
        self._name = f"function-{next(_numbers)}"
        channel.agent.offer(self._name, instantiate)
        self._plan = PreCopy(limits)
        self._access = Access(source)
        self._arrivals = Arrivals(source.namespace)
        self._arrived = self._lost = 0
        self._access.follow()
        self._state = FunctionState.empty()
        self._connections = 0  # at the target
        self._rounds: list[Round] = []
        self._times = _Times()
        self._forwards = True
        self._carried = channel.carried

    def close(self) -> None:
        self._access.close()
        if self._plan.phase is not plan.Phase.MOVED:
            self._arrivals.close()

    def run(self) -> MigrationReport:
        try:
            self._follow(plan.Begin())
        except BaseException as error:  # an interrupt, a mistake in `switch`: nothing of ours
            self._follow(plan.Failed(repr(error)))
            raise
        if self._plan.phase is plan.Phase.MOVED:
            return self._report()
        source = "the source forwards on" if self._forwards else "the source does not forward"
        raise MigrationError(f"not moved, {source}: {self._plan.failure}")

    def _follow(self, event: Event) -> None:
        """Do what the plan says after `event`, and after what comes of it."""
        commands = deque(self._plan.handle(event, time.monotonic()))
        while commands:
            event = self._carry_out(commands.popleft())
            commands.extend(self._plan.handle(event, time.monotonic()))

    def _carry_out(self, command: Command) -> Event:
        """Do what a command says; what came of it."""
        try:
            return self._done(command)
        except NotWanted:
            return plan.Cancelled()
        except ConnectionLost as error:
            late = self._plan.deadline is not None and time.monotonic() >= self._plan.deadline
            return plan.Tick() if late else plan.Failed(str(error))
        except (TestbedError, OSError) as error:
            return plan.Failed(str(error))

    def _done(self, command: Command) -> Event:
        match command:
            case plan.Prepare():
                self._ask(Kind.PREPARE, self._name.encode())
                return plan.Ready()
            case plan.Copy(last=last):
                return self._copy(last=last)
            case plan.Pause():
                self._forwards = False
                self._times.pausing = time.monotonic()
                self._source.pause()
                self._times.paused = time.monotonic()
                self._arrived = self._arrivals.count()
                return plan.Paused()
            case plan.Switch():
                self._times.running = time.monotonic()
                if self._cancel is not None and self._cancel.is_set():
                    return plan.Cancelled()
                self._switch()
                self._times.switched = time.monotonic()
                return plan.Switched()
            case plan.End():
                self._end()
            case plan.Undo(resume=resume):
                self._undo(resume=resume)
        return plan.Ended()

    def _ask(self, kind: Kind, body: bytes) -> bytes:
        deadline = self._plan.deadline
        return self._channel.ask(kind, body, deadline=deadline, stop=self._cancel)

    def _copy(self, *, last: bool) -> Event:
        began = time.monotonic()
        if last:
            change = self._access.latest(self._state, self._scope)
        else:
            before, self._state = self._state, self._access.take(self._scope)
            change = self._state.since(before, values=False)
        data = change.encode()
        told = json.loads(self._ask(Kind.COPY, bytes((last,)) + data))
        self._connections = told["connections"]
        spent = time.monotonic() - began
        self._rounds.append(Round(entries=len(change), bytes=len(data), seconds=spent))
        return plan.Stored(len(change), told["refused"], told["reason"])

    def _end(self) -> None:
        self._cancel = None  # it is too late for that
        with ExitStack() as stack:
            # last of all: what runs must not depend on a lost answer
            stack.callback(self._channel.agent.keep, self._name)
            stack.callback(self._ask, Kind.KEEP, b"")
            stack.callback(self._source.destroy)
            stack.callback(self._arrivals.close)
            self._lost = self._arrivals.count() - self._arrived

    def _undo(self, *, resume: bool) -> None:
        """The source first: every millisecond of its pause is one that connections wait."""
        try:
            if resume:
                self._source.resume()
            self._forwards = True
        finally:
            self._channel.close()  # a late answer must not be taken for another one's
            self._channel.agent.give_up(self._name)

    def _report(self) -> MigrationReport:
        times = self._times
        return MigrationReport(
            downtime_s=times.switched - times.pausing,
            pause_s=times.paused - times.pausing,
            copy_s=times.running - times.paused,
            switch_s=times.switched - times.running,
            total_s=time.monotonic() - times.began,
            bytes=self._channel.carried - self._carried,
            entries=self._connections,
            lost=self._lost,
            rounds=tuple(self._rounds),
            target=self._channel.agent.functions[self._name],
            leftover=self._plan.failure,
        )
