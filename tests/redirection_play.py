"""A stage for redirection machines: segments of one connection, and a driver of make-believe time.

The driver carries out what a machine asks for, as far as the test lets it, and notes everything.
"""

from __future__ import annotations

from collections import deque

from testbed.mptcp.counters import Address
from testbed.mptcp.options import AddAddr, MpPrio, Option
from testbed.mptcp.redirection.machine import Redirection, State
from testbed.mptcp.redirection.messages import (
    Announcement,
    Block,
    Command,
    Direction,
    Done,
    Event,
    Failed,
    Finished,
    Inject,
    Join,
    JoinSeen,
    Keys,
    Rewrite,
    Sampled,
    TearDown,
    Tick,
    Unblock,
    Unrewrite,
    Unsample,
)
from testbed.mptcp.redirection.segment import Flags, Segment, header_options

CLIENT, SERVER = Address("10.1.0.2", 40000), Address("10.9.0.2", 5000)
KEYS = Keys(0x1111, 0x2222)
HOP = Announcement(address="10.12.0.2", address_id=255)
TO_CLIENT, TO_SERVER = Direction.TO_CLIENT, Direction.TO_SERVER
ANSWERED = (Rewrite, Unrewrite, Block, Unblock, Unsample)


def segment(
    direction: Direction,
    seq: int,
    ack: int,
    *,
    length: int = 0,
    flags: int = Flags.ACK,
    stamps: tuple[int, int] | None = None,
    mptcp: tuple[Option, ...] = (),
) -> Segment:
    ends = (CLIENT, SERVER) if direction is TO_SERVER else (SERVER, CLIENT)
    return Segment(
        source=ends[0],
        destination=ends[1],
        seq=seq,
        ack=ack,
        flags=flags,
        window=500,
        options=header_options(stamps, mptcp),
        length=length,
    )


def from_server(seq: int = 9000, ack: int = 100, **more: object) -> Event:
    return Sampled(TO_CLIENT, segment(TO_CLIENT, seq, ack, **more))


def from_client(seq: int = 100, ack: int = 9000, **more: object) -> Event:
    return Sampled(TO_SERVER, segment(TO_SERVER, seq, ack, **more))


def echo(**more: object) -> Event:
    fields = {"address_id": HOP.address_id, "address": HOP.address} | more
    return from_client(mptcp=(AddAddr(**fields),))


class Play:
    """A machine with its driver: `tell` and `wait` say what it asked for.

    Commands of the classes in `refuse` fail, those in `ignore` are never answered.
    """

    def __init__(self, tear_down: TearDown = TearDown.RST, *, timeout_s: float = 10.0) -> None:
        self.machine = Redirection(KEYS, HOP, tear_down=tear_down, timeout_s=timeout_s)
        self.now_s = 1000.0
        self.events: deque[Event] = deque()
        self.commands: list[Command] = []
        self.refuse: set[type] = set()
        self.ignore: set[type] = set()

    def start(self) -> list[Command]:
        return [*self._carry_out(self.machine.start(self.now_s)), *self.tell()]

    def tell(self, *events: Event) -> list[Command]:
        self.events.extend(events)
        told: list[Command] = []
        while self.events:
            told += self._carry_out(self.machine.handle(self.events.popleft(), self.now_s))
        return told

    def _carry_out(self, commands: list[Command]) -> list[Command]:
        self.commands += commands
        for command in commands:
            if type(command) in self.refuse:
                self.events.append(Failed(command, "the kernel said no"))
            elif isinstance(command, ANSWERED) and type(command) not in self.ignore:
                self.events.append(Done(command))
        return commands

    def wait(self, seconds: float = 0.0) -> list[Command]:
        """Let time pass, every deadline met in its turn; by default until the next."""
        until_s = self.now_s + seconds if seconds else self.machine.deadline
        commands: list[Command] = []
        while self.machine.deadline <= until_s:
            self.now_s = max(self.now_s, self.machine.deadline)
            commands += self.tell(Tick())
        self.now_s = until_s
        return commands

    def end(self) -> Finished:
        """Let time pass until it has finished."""
        while self.machine.state is not State.FINISHED:
            self.wait()
        assert sum(isinstance(command, Finished) for command in self.commands) == 1
        finished = self.commands[-1]
        assert isinstance(finished, Finished)
        return finished

    # -- how far it has come ---------------------------------------------------------------------

    def announced(self) -> Play:
        self.start()
        self.tell(from_client(stamps=(7, 70)), from_server(stamps=(70, 7)))
        return self

    def echoed(self) -> Play:
        self.announced().tell(echo())
        return self

    def joining(self) -> Play:
        self.echoed().tell(JoinSeen(Join.SYN))
        return self

    def joined(self) -> Play:
        self.joining().tell(*map(JoinSeen, (Join.SYN_ACK, Join.ACK, Join.CONFIRMED)))
        return self


def injected(commands: list[Command], kind: type[Option] | None = None) -> list[Inject]:
    """What was injected, or that of it which carries an option of a kind."""
    found = [command for command in commands if isinstance(command, Inject)]
    return [i for i in found if kind is None or i.segment.option(kind) is not None]


def resets(commands: list[Command]) -> set[tuple[Direction, int]]:
    """Where RSTs were sent, with which sequence numbers."""
    found = (i for i in injected(commands) if i.segment.flags & Flags.RST)
    return {(i.direction, i.segment.seq) for i in found}


def demotions(commands: list[Command], *, backup: bool = True) -> list[Direction]:
    """Where MP_PRIO was sent, asking for backup or taking that back."""
    return [i.direction for i in injected(commands, MpPrio) if MpPrio(backup) in i.segment.mptcp]
