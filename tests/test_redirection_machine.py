"""A connection's redirection by playbook: events in, commands out, no sockets, no clock."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.mptcp.counters import Address
from testbed.mptcp.options import AddAddr, Option
from testbed.mptcp.redirection.machine import Redirection, State
from testbed.mptcp.redirection.messages import (
    Announcement,
    Block,
    Command,
    Direction,
    Done,
    Finished,
    Inject,
    Join,
    JoinSeen,
    Keys,
    Outcome,
    Rewrite,
    Sample,
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


def segment(
    direction: Direction,
    *,
    seq: int,
    ack: int,
    length: int = 0,
    flags: Flags = Flags.ACK,
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


def from_server(**fields: object) -> Sampled:
    return Sampled(TO_CLIENT, segment(TO_CLIENT, **{"seq": 9000, "ack": 100} | fields))


def from_client(**fields: object) -> Sampled:
    return Sampled(TO_SERVER, segment(TO_SERVER, **{"seq": 100, "ack": 9000} | fields))


def echo() -> Sampled:
    return from_client(mptcp=(AddAddr(address_id=255, address="10.12.0.2"),))


def prepared(tear_down: TearDown = TearDown.RST) -> Redirection:
    """Rewriting installed, both directions sampled: the first announcement has been made."""
    machine = Redirection(KEYS, HOP, tear_down=tear_down)
    machine.start(0.0)
    machine.handle(from_client(), 0.0)
    machine.handle(from_server(stamps=(70, 7)), 0.0)
    machine.handle(Done(Rewrite()), 0.0)
    return machine


def joining(tear_down: TearDown = TearDown.RST) -> Redirection:
    machine = prepared(tear_down)
    machine.handle(echo(), 0.01)
    machine.handle(JoinSeen(Join.SYN), 0.02)
    return machine


def test_rewriting_comes_first_then_the_announcement_from_the_last_segment() -> None:
    machine = Redirection(KEYS, HOP)
    assert machine.start(0.0) == [Sample(), Rewrite()]
    assert machine.handle(from_server(stamps=(70, 7), length=10), 0.0) == []
    (command,) = machine.handle(Done(Rewrite()), 0.0)
    assert isinstance(command, Inject)
    assert command.direction is TO_CLIENT
    forged = command.segment
    assert (forged.source, forged.destination) == (SERVER, CLIENT)
    assert (forged.seq, forged.ack, forged.flags) == (9010, 100, Flags.ACK)
    assert forged.timestamps == (70, 7)
    assert forged.mptcp == (HOP.option(KEYS),)


def test_a_redirection_by_reset() -> None:
    machine = joining()
    for stage in (Join.SYN_ACK, Join.ACK):
        assert machine.handle(JoinSeen(stage), 0.03) == []
    assert machine.handle(JoinSeen(Join.CONFIRMED), 0.04) == [Block()]
    assert machine.handle(Done(Block()), 0.05) == []
    resets = machine.handle(Tick(), machine.deadline)
    assert {r.segment.flags for r in resets} == {Flags.RST | Flags.ACK}
    assert {(r.direction, r.segment.seq) for r in resets} == {(TO_CLIENT, 9000), (TO_SERVER, 100)}
    commands = list(play(machine))
    assert commands[-2:] == [
        Unsample(),
        Finished(Outcome.REDIRECTED, "the old subflow was torn down"),
    ]
    assert Unrewrite() not in commands


def play(machine: Redirection) -> Iterator[Command]:
    """Let time pass, and carry out what is asked for, until the machine has finished."""
    while machine.state is not State.FINISHED:
        now_s = machine.deadline
        commands = machine.handle(Tick(), now_s)
        while commands:
            command = commands.pop(0)
            yield command
            if isinstance(command, (Rewrite, Unrewrite, Block, Unblock, Unsample)):
                commands += machine.handle(Done(command), now_s)
