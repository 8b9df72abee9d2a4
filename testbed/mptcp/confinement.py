"""When may a connection use which path?  The trust gate as a machine of events and commands.

No input or output here: snapshots of a connection go in, commands come out, and `gate` carries
them out on a real socket.  What the machine keeps true, and why nothing leaks:

    A subflow that data can be given to exists on an untrusted path only while every sensitive
    byte has been acknowledged at the data level.

An acknowledged byte is never sent again, by retransmission or by reinjection, and a byte that
was never given to a subflow cannot be in its queue.  Flags (backup, MP_PRIO) keep no such
promise: the kernel sends on a backup subflow when the others are slow.

    open        every path may be used
    closing     untrusted subflows are being destroyed; nothing sensitive may be written yet
    confined    only trusted paths are left; sensitive bytes may be written
    draining    the sensitive period is over, but not all its bytes are acknowledged

While not open, a dead trusted path is tried again and again with a fresh subflow, which resumes
much sooner than the old one's retransmission timer: the connection waits, it does not leak.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from testbed.errors import ExperimentError
from testbed.mptcp.counters import Address, Subflow, TcpState

_STALLED_AT = 2  # retransmission time-outs in a row: one may be bad luck
_ROUND_TRIPS = 3  # a join that has not been answered after as many is lost


class State(Enum):
    """Where the gate stands."""

    OPEN = "open"
    CLOSING = "closing"
    CONFINED = "confined"
    DRAINING = "draining"


@dataclass(frozen=True, order=True)
class Path:
    """What a subflow is made from: a local address, and an address and port of the peer."""

    local: str
    remote: Address

    @classmethod
    def of(cls, subflow: Subflow) -> Path:
        """The path a subflow runs on."""
        return cls(subflow.local.ip, subflow.remote)


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The addresses that sensitive bytes may use; None puts no condition on that end.

    An address that is not named is not trusted: an interface that comes up later must be named
    before it carries anything sensitive.
    """

    local: frozenset[str] | None = None
    remote: frozenset[str] | None = None

    def allows(self, local: str, remote: str) -> bool:
        """May sensitive bytes go from `local` to `remote`?"""
        local_ok = self.local is None or local in self.local
        return local_ok and (self.remote is None or remote in self.remote)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A connection at one moment; sequence numbers are the data level's."""

    time_s: float
    write_seq: int
    snd_una: int
    subflows: tuple[Subflow, ...]


@dataclass(frozen=True)
class Destroy:
    """Close this subflow."""

    subflow: Subflow


@dataclass(frozen=True)
class Create:
    """Try a fresh subflow on this trusted path."""

    path: Path


@dataclass(frozen=True)
class Restore:
    """This untrusted path may be used again."""

    path: Path


@dataclass(frozen=True)
class Guard:
    """Raise or lower the second line of defence (packets of the connection are marked)."""

    raised: bool


Command = Destroy | Create | Restore | Guard


@dataclass
class Confinement:
    """The machine of one connection.

    `paths` are the trusted paths to try when none works, beside those in use when a period
    begins.  With `repair=False` none is tried: the peer makes the subflows (a server cannot
    reach a client that does not listen).
    """

    trust: Trust
    paths: tuple[Path, ...] = ()
    repair: bool = True
    retry_s: float = 0.5
    state: State = State.OPEN
    intruders: int = 0  # untrusted subflows that turned up while the gate was not open
    _mark: int = 0  # data sequence number after the last sensitive byte
    _expelled: dict[Path, None] = field(default_factory=dict)
    _trusted: dict[Path, float] = field(default_factory=dict)  # round trip time, s
    _next_try_s: dict[Path, float] = field(default_factory=dict)

    def begin(self, now: Snapshot) -> list[Command]:
        """A sensitive period is wanted; it has begun once `state` is CONFINED.

        Also from DRAINING: a period may begin while the last one's bytes are still under way.
        """
        if self.state is State.CONFINED:
            raise ExperimentError("a sensitive period has begun already", remedy="end it first")
        if self.state is not State.DRAINING:
            self._next_try_s.clear()
            self._trusted = dict.fromkeys(self.paths, 0.0)
        self.state = State.CLOSING
        self._learn(now)
        return [*self._expel(now), Guard(True)]

    def end(self, now: Snapshot) -> list[Command]:
        """The last sensitive byte has been written; `now` must have been taken after that."""
        if self.state in (State.OPEN, State.DRAINING):
            raise ExperimentError("no sensitive period to end", remedy="begin one first")
        self._mark = now.write_seq
        self.state = State.DRAINING
        return self.observe(now)

    def observe(self, now: Snapshot) -> list[Command]:
        """What to do about the connection as it is now."""
        if self.state is State.OPEN:
            return []
        self._learn(now)
        commands = self._expel(now)
        if self.state is not State.CLOSING:
            self.intruders += len(commands)
        if not commands and self.state is State.CLOSING:
            self.state = State.CONFINED
        if not commands and self.state is State.DRAINING and self._delivered(now):
            return self._open()
        return [*commands, *self._mend(now)]

    def _delivered(self, now: Snapshot) -> bool:
        return (now.snd_una - self._mark) % (1 << 64) < 1 << 63

    def _open(self) -> list[Command]:
        self.state = State.OPEN
        restored = [Restore(path) for path in self._expelled]
        self._expelled.clear()
        return [Guard(False), *restored]

    def _trusts(self, subflow: Subflow) -> bool:
        return self.trust.allows(subflow.local.ip, subflow.remote.ip)

    def _learn(self, now: Snapshot) -> None:
        for subflow in now.subflows:
            if subflow.state is TcpState.ESTABLISHED and self._trusts(subflow):
                self._trusted[Path.of(subflow)] = subflow.rtt_s

    def _expel(self, now: Snapshot) -> list[Command]:
        unwanted = [s for s in now.subflows if s.may_send and not self._trusts(s)]
        self._expelled.update(dict.fromkeys(map(Path.of, unwanted)))
        return [Destroy(subflow) for subflow in unwanted]

    def _mend(self, now: Snapshot) -> Iterable[Command]:
        for path, rtt_s in self._trusted.items() if self.repair else ():
            subflows = [s for s in now.subflows if s.may_send and Path.of(s) == path]
            sick = [s for s in subflows if not _healthy(s)]
            if len(sick) < len(subflows):
                yield from map(Destroy, sick)  # their bytes go over the healthy one at once
            elif now.time_s >= self._next_try_s.get(path, now.time_s):
                self._next_try_s[path] = now.time_s + max(self.retry_s, _ROUND_TRIPS * rtt_s)
                yield from (Destroy(s) for s in sick if s.state is TcpState.SYN_SENT)
                yield Create(path)


def _healthy(subflow: Subflow) -> bool:
    return subflow.state is TcpState.ESTABLISHED and subflow.timeouts < _STALLED_AT
