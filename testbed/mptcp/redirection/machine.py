"""One connection's redirection as a machine of events and commands: no sockets, no clock.

An on-path box gives a connection's client a further address, one of a next hop that leads to the
same server, as if the server itself had announced it.  The client joins there, and when the join
is complete the old subflow is torn down.  `messages` has the vocabulary, `retirement` the
tear-down; this decides what happens when, and what every failure means.

    preparing    rewriting is being installed at the next hop: a SYN must not get there earlier
    waiting      nothing has passed yet that forged segments could continue
    announcing   signed ADD_ADDR, again and again with fresh numbers, until the echo passes
    echoed       the client knows the address; its SYN should show at the next hop
    joining      SYN, SYN/ACK, third ACK; only the fourth shows that the server accepted
    retiring     the old subflow is being torn down
    undoing      what was installed is being removed (all of it, unless redirected)
    finished

What the machine keeps true, whatever happens in whatever order:

    A connection that is not redirected was neither blocked for good nor reset, what was installed
    for it is removed, and the machine ends.

Once the old subflow is blocked there is no way back, nor need for one: the join is complete, and
the connection goes on over the new subflow even if not a single RST arrives.
"""

from __future__ import annotations

import math
from enum import Enum

from testbed.errors import ExperimentError
from testbed.mptcp.redirection.announcing import Announcing
from testbed.mptcp.redirection.clearing import Clearing
from testbed.mptcp.redirection.messages import (
    Abort,
    Announcement,
    Block,
    Closed,
    Command,
    Done,
    Echoed,
    Event,
    Failed,
    Finished,
    Inject,
    Join,
    JoinSeen,
    Keys,
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
)
from testbed.mptcp.redirection.retirement import Phase, Retirement
from testbed.mptcp.redirection.segment import ending
from testbed.mptcp.redirection.tracking import Tracking

_SYN_S = 4.0  # from echo to SYN: two may be lost, sent again after 1 s and 3 s
_JOIN_S = 8.0  # from SYN to fourth ACK
_CLOSING_S = 1.0  # for a join that was under way when the old subflow closed


class State(Enum):
    """Where a redirection stands."""

    NEW = "new"
    PREPARING = "preparing"
    WAITING = "waiting"
    ANNOUNCING = "announcing"
    ECHOED = "echoed"
    JOINING = "joining"
    RETIRING = "retiring"
    UNDOING = "undoing"
    FINISHED = "finished"


# In the order in which they are removed.
_OPPOSITES: dict[Command, Command] = {
    Block(): Unblock(),
    Rewrite(): Unrewrite(),
    Sample(): Unsample(),
}
_BEFORE_SYN = (State.PREPARING, State.WAITING, State.ANNOUNCING, State.ECHOED)


class Redirection:
    """The machine of one connection.  `start` it, then `handle` events; both give commands.

    `timeout_s` is the longest that it may take until the client has joined; the tear-down has
    limits of its own.  Times are seconds of one clock of the caller's.

    `announced_s`, `echoed_s`, `syn_s`, `joined_s` and `ended_s` say when the first announcement,
    the echo, the join's SYN, its fourth ACK and the end were.
    """

    def __init__(
        self,
        keys: Keys,
        announcement: Announcement,
        *,
        tear_down: TearDown = TearDown.BOTH,
        timeout_s: float = 10.0,
    ) -> None:
        self.state = State.NEW
        self.announced_s: float | None = None
        self.echoed_s: float | None = None
        self.syn_s: float | None = None
        self.joined_s: float | None = None
        self.ended_s: float | None = None
        self._tear_down, self._timeout_s = tear_down, timeout_s
        self._tracking = Tracking()
        self._announcing = Announcing(keys, announcement, self._tracking)
        self._installed: set[Command] = set()
        self._retirement: Retirement | None = None
        self._clearing: Clearing | None = None
        self._closing = ""
        self._limit_s = self._next_s = math.inf

    @property
    def attempts(self) -> int:
        """Announcements made."""
        return self._announcing.attempts

    @property
    def deadline(self) -> float:
        """When a `Tick` is due; infinite when none ever is."""
        if self._clearing is not None:
            return math.inf if self.state is State.FINISHED else self._clearing.deadline
        if self._retirement is not None:
            return self._retirement.deadline
        return min(self._next_s, self._limit_s)

    def start(self, now_s: float) -> list[Command]:
        """The first commands; a machine starts once."""
        if self.state is not State.NEW:
            raise ExperimentError("a redirection starts once", remedy="make a new machine")
        self.state = State.PREPARING
        self._limit_s = now_s + self._timeout_s
        return self._install(Sample(), Rewrite())

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """What to do now that this has happened."""
        if self.state in (State.NEW, State.FINISHED):
            return []
        if self._clearing is not None:
            return self._clear(event, now_s)
        match event:
            case Sampled():
                return self._sampled(event, now_s)
            case Echoed():
                return self._echoed(now_s)
            case JoinSeen(stage):
                return self._join_seen(stage, now_s)
            case Refused():
                return self._refused(now_s)
            case Closed(reason):
                return self._closed(reason, now_s)
            case Abort(reason):
                return self._abort(reason, now_s)
            case Done(command):
                return self._done(command, now_s)
            case Failed(command, reason):
                return self._failed(command, reason, now_s)
            case Tick():
                return self._tick(now_s)

    def _install(self, *commands: Command) -> list[Command]:
        self._installed.update(commands)
        return list(commands)

    # -- until the client has heard of the address -----------------------------------------------

    def _sampled(self, event: Sampled, now_s: float) -> list[Command]:
        self._tracking.see(event.direction, event.segment, now_s)
        if self._retirement is not None:
            return self._retire(self._retirement.sampled(now_s), now_s)
        reason = ending(event.segment)
        if reason:
            return self._closed(reason, now_s)
        if self.state is State.WAITING:
            return self._announce(now_s)
        if self.state is State.ANNOUNCING and self._announcing.echoed_by(event):
            return self._echoed(now_s)
        return []

    def _announce(self, now_s: float) -> list[Command]:
        if not self._announcing.possible:
            self.state = State.WAITING
            return []
        if self.state is not State.ANNOUNCING:
            self.state = State.ANNOUNCING
            self.announced_s = now_s
        commands = self._announcing.announce(now_s)
        self._next_s = self._announcing.deadline
        return commands

    def _echoed(self, now_s: float) -> list[Command]:
        if self.state is State.ANNOUNCING:
            self.state = State.ECHOED
            self.echoed_s = now_s
            self._next_s = now_s + _SYN_S
        return []

    # -- until the server has accepted the join --------------------------------------------------

    def _join_seen(self, stage: Join, now_s: float) -> list[Command]:
        if self.state in (State.ANNOUNCING, State.ECHOED):
            self.state = State.JOINING
            self.syn_s = now_s
            self._next_s = now_s + _JOIN_S
        if self.state is State.JOINING and stage is Join.CONFIRMED:
            self.joined_s = now_s
            return self._joined(now_s)
        return []

    def _joined(self, now_s: float) -> list[Command]:
        if self._closing:
            return self._redirected(self._closing, now_s)
        self.state = State.RETIRING
        self._retirement = Retirement(self._tear_down, self._tracking, now_s)
        return self._retire(self._retirement.begin(), now_s)

    def _refused(self, now_s: float) -> list[Command]:
        if self.state in (State.ANNOUNCING, State.ECHOED, State.JOINING):
            outcome = Outcome.CLOSED if self._closing else Outcome.REFUSED
            return self._conclude(outcome, self._closing or outcome.value, now_s)
        return []

    def _closed(self, reason: str, now_s: float) -> list[Command]:
        if self.state in _BEFORE_SYN:
            return self._conclude(Outcome.CLOSED, reason, now_s)
        if self._retirement is not None:
            gone = not self._retirement.irrevocable
            return self._redirected(reason, now_s) if gone else []
        if not self._closing:  # data may be on the new subflow before its fourth ACK is seen
            self._closing = reason
            self._limit_s = min(self._limit_s, now_s + _CLOSING_S)
        return []

    # -- until the old subflow is out of use -----------------------------------------------------

    def _retire(self, commands: list[Command], now_s: float) -> list[Command]:
        assert self._retirement is not None
        if self._retirement.failure:
            return self._conclude(Outcome.FAILED, self._retirement.failure, now_s)
        if self._retirement.phase is Phase.OVER:
            return self._redirected("the old subflow was torn down", now_s)
        self._installed.update(each for each in commands if isinstance(each, Block))
        return commands

    def _redirected(self, reason: str, now_s: float) -> list[Command]:
        return self._conclude(Outcome.REDIRECTED, reason, now_s)

    # -- whatever the state ----------------------------------------------------------------------

    def _done(self, command: Command, now_s: float) -> list[Command]:
        if command == Rewrite() and self.state is State.PREPARING:
            return self._announce(now_s)
        if command == Block() and self._retirement is not None:
            self._retirement.blocked(now_s)
        return []

    def _failed(self, command: Command, reason: str, now_s: float) -> list[Command]:
        if isinstance(command, Inject):
            self._announcing.failed(reason)
            return []
        if command not in self._installed or self._irrevocable:
            return []
        self._installed.discard(command)
        return self._conclude(Outcome.FAILED, reason, now_s)

    def _abort(self, reason: str, now_s: float) -> list[Command]:
        return [] if self._irrevocable else self._conclude(Outcome.ABORTED, reason, now_s)

    @property
    def _irrevocable(self) -> bool:
        return self._retirement is not None and self._retirement.irrevocable

    def _tick(self, now_s: float) -> list[Command]:
        if now_s < self.deadline:
            return []
        if self._retirement is not None:
            return self._retire(self._retirement.tick(now_s), now_s)
        more = not self._announcing.exhausted and now_s < self._limit_s
        if self.state is State.ANNOUNCING and more:
            return self._announce(now_s)
        return self._conclude(*self._verdict(), now_s)

    def _verdict(self) -> tuple[Outcome, str]:
        """What a time-out means."""
        match self.state:
            case State.PREPARING:
                return Outcome.FAILED, "no answer to the request to rewrite at the next hop"
            case State.WAITING:
                outcome = Outcome.NO_TRAFFIC
            case State.ANNOUNCING:
                return self._announcing.verdict()
            case State.ECHOED:
                outcome = Outcome.LIMITS
            case _ if self._closing:
                return Outcome.CLOSED, self._closing
            case _:
                outcome = Outcome.TIMED_OUT
        return outcome, outcome.value

    # -- the end ---------------------------------------------------------------------------------

    def _conclude(self, outcome: Outcome, reason: str, now_s: float) -> list[Command]:
        commands: list[Command] = []
        if outcome is Outcome.REDIRECTED:
            self._installed &= {Sample()}
        elif self._retirement is not None:
            commands += self._retirement.restore()
        undo = [undo for command, undo in _OPPOSITES.items() if command in self._installed]
        self.state = State.UNDOING
        self._clearing = Clearing(outcome, reason, undo, now_s)
        return commands + self._end(undo, now_s)

    def _clear(self, event: Event, now_s: float) -> list[Command]:
        assert self._clearing is not None
        return self._end(self._clearing.handle(event, now_s), now_s)

    def _end(self, commands: list[Command], now_s: float) -> list[Command]:
        assert self._clearing is not None
        if not self._clearing.over:
            return commands
        self.state = State.FINISHED
        self.ended_s = now_s
        return [*commands, Finished(self._clearing.outcome, self._clearing.reason)]
