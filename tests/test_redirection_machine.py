"""A connection's redirection by playbook: events in, commands out, no sockets, no clock."""

from __future__ import annotations

import itertools
import math

import pytest
from redirection_play import (
    CLIENT,
    HOP,
    KEYS,
    SERVER,
    TO_CLIENT,
    TO_SERVER,
    Play,
    demotions,
    echo,
    from_client,
    from_server,
    injected,
    resets,
    segment,
)

from testbed.errors import ExperimentError
from testbed.mptcp import keys as derive
from testbed.mptcp.options import AddAddr, Dss, RemoveAddr
from testbed.mptcp.redirection.machine import State
from testbed.mptcp.redirection.messages import (
    Abort,
    Announcement,
    Block,
    Closed,
    Direction,
    Done,
    Echoed,
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
from testbed.mptcp.redirection.segment import Flags

TORN_DOWN = Finished(Outcome.REDIRECTED, "the old subflow was torn down")
STAGES = ("announced", "echoed", "joining")


def at(stage: str, tear_down: TearDown = TearDown.RST) -> Play:
    play = Play(tear_down)
    getattr(play, stage)()
    return play


def undone(play: Play) -> bool:
    """Was what had been installed removed, and the old subflow left alone?"""
    after = play.commands[play.commands.index(Rewrite()) + 1 :]
    return Unrewrite() in after and Unsample() in after and not resets(play.commands)


# -- the announcement -----------------------------------------------------------------------------


def test_rewriting_comes_first_then_an_announcement_that_continues_the_last_segment() -> None:
    play = Play()
    play.ignore.add(Rewrite)
    assert play.start() == [Sample(), Rewrite()]
    assert play.tell(from_server(stamps=(70, 7), length=10)) == []
    assert play.machine.state is State.PREPARING
    (command,) = play.tell(Done(Rewrite()))
    assert isinstance(command, Inject)
    assert command.direction is TO_CLIENT
    forged = command.segment
    assert (forged.source, forged.destination) == (SERVER, CLIENT)
    assert (forged.seq, forged.ack, forged.flags) == (9010, 100, Flags.ACK)
    assert (forged.timestamps, forged.window) == ((70, 7), 500)
    hmac = derive.add_addr_hmac(KEYS.server, KEYS.client, address_id=255, address=HOP.address)
    assert forged.mptcp == (AddAddr(address_id=255, address=HOP.address, hmac=hmac),)


def test_it_waits_for_a_segment_that_an_announcement_can_continue() -> None:
    play = Play()
    play.start()
    assert play.machine.state is State.WAITING
    assert play.tell(from_client()) == []  # of the other direction
    assert play.tell(Sampled(TO_CLIENT, segment(TO_CLIENT, 1, 0, flags=Flags.PSH))) == []
    assert injected(play.tell(from_server()), AddAddr)


def test_announcements_are_repeated_with_fresh_numbers_at_growing_intervals() -> None:
    play = at("announced")
    times, numbers = [play.now_s], []
    for number in range(1, 6):
        play.tell(from_server(9000 + number, 100 + number, stamps=(70 + number, 7)))
        (again,) = injected(play.wait(), AddAddr)
        numbers.append((again.segment.seq, again.segment.ack, again.segment.timestamps))
        times.append(play.now_s)
    stamps = [None, (72, 7), None, (74, 7), None]
    assert numbers == [(9000 + n, 100 + n, stamps[n - 1]) for n in range(1, 6)]
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1]
    assert play.machine.attempts == 6


def test_a_retransmission_does_not_take_the_numbers_back() -> None:
    play = at("announced")
    play.tell(from_server(9000, length=500, stamps=(90, 9)))
    play.tell(from_server(9000, length=100, stamps=(80, 8)))
    (unstamped,), (again,) = (injected(play.wait(), AddAddr) for _ in range(2))
    assert (again.segment.seq, again.segment.timestamps) == (9500, (90, 9))
    assert (unstamped.segment.seq, unstamped.segment.timestamps) == (9500, None)


def test_a_known_round_trip_time_sets_the_first_interval() -> None:
    waits = {}
    for round_trip_s in (0.001, 0.08):
        play = Play()
        play.ignore.add(Rewrite)
        play.start()
        play.tell(from_server(9000, length=1))
        play.tell(from_server(9001, length=1))
        play.now_s += round_trip_s
        play.tell(from_client(ack=9002))
        play.tell(Done(Rewrite()))
        waits[round_trip_s] = play.machine.deadline - play.now_s
    assert 0.001 < waits[0.001] < 0.08 < waits[0.08]


@pytest.mark.parametrize("event", [echo(), Echoed()])
def test_an_echo_ends_the_announcements(event: Event) -> None:
    play = at("announced")
    assert play.tell(event) == []
    assert play.machine.state is State.ECHOED
    assert not injected(play.wait(1.0))


@pytest.mark.parametrize(
    "event",
    [
        echo(address_id=254),
        echo(address="10.12.0.3"),
        echo(port=5000),
        from_client(mptcp=(HOP.option(KEYS),)),  # signed: no echo
        Sampled(TO_CLIENT, echo().segment),
        from_client(),
    ],
)
def test_other_options_are_no_echo(event: Event) -> None:
    play = at("announced")
    play.tell(event)
    assert play.machine.state is State.ANNOUNCING


def test_an_echo_that_got_lost_is_made_up_for_by_the_join() -> None:
    play = at("announced")
    play.tell(JoinSeen(Join.SYN))
    assert play.machine.state is State.JOINING
    assert Block() in play.tell(JoinSeen(Join.CONFIRMED))


def test_an_announcement_may_name_a_port_and_an_ipv6_address_however_written() -> None:
    hop = Announcement(address="2001:DB8:0::5", address_id=3, port=77)
    assert hop.echoed_by(AddAddr(address_id=3, address="2001:db8::5", port=77))
    hmac = derive.add_addr_hmac(2, 1, address_id=3, address="2001:db8::5", port=77)
    assert hop.option(KEYS._replace(client=1, server=2)).hmac == hmac


def test_address_ids_do_not_clash() -> None:
    assert free_address_id() == 255
    assert free_address_id({255, 253}) == 254
    assert free_address_id(range(2, 256)) == 1
    with pytest.raises(ExperimentError, match="255 address ids"):
        free_address_id(range(1, 256))


# -- tear-downs -----------------------------------------------------------------------------------


def test_only_the_fourth_ack_lets_it_tear_down() -> None:
    play = at("joining")
    assert play.tell(JoinSeen(Join.SYN_ACK), JoinSeen(Join.ACK)) == []
    assert play.tell(JoinSeen(Join.CONFIRMED)) == [Block()]


def test_by_reset() -> None:
    play = at("joining")
    play.tell(from_server(9000, length=400), from_client(100, 9000, length=30))
    play.tell(from_server(9400, 110, length=0))
    play.tell(JoinSeen(Join.CONFIRMED))
    assert not resets(play.commands)
    assert play.end() == TORN_DOWN
    expected = {(TO_CLIENT, 9400), (TO_CLIENT, 9000), (TO_SERVER, 130), (TO_SERVER, 110)}
    assert resets(play.commands) == expected
    assert all(i.segment.flags == Flags.RST | Flags.ACK for i in injected(play.commands[4:]))
    assert play.commands[-2:] == [Unsample(), TORN_DOWN]
    assert Unrewrite() not in play.commands
    assert Unblock() not in play.commands
    assert not demotions(play.commands)


def test_resets_are_repeated_because_one_may_be_lost() -> None:
    play = at("joined")
    assert play.end() == TORN_DOWN
    sent = [i.direction for i in injected(play.commands) if i.segment.flags & Flags.RST]
    assert sent.count(TO_CLIENT) == sent.count(TO_SERVER) == 3


def test_what_passed_until_the_block_counts_for_the_resets() -> None:
    play = at("joined")
    play.tell(from_server(9000, length=700), from_client(100, 9000, length=8))
    assert {(TO_CLIENT, 9700), (TO_SERVER, 108)} <= resets(play.wait())


def test_by_priority() -> None:
    play = at("joined", TearDown.MP_PRIO)
    assert sorted(demotions(play.commands), key=str) == [TO_CLIENT, TO_SERVER]
    assert play.end() == TORN_DOWN
    assert not resets(play.commands)
    assert Block() not in play.commands
    assert Unrewrite() not in play.commands


def test_both_demotes_waits_until_drained_then_blocks_and_resets() -> None:
    play = at("joined", TearDown.BOTH)
    assert len(demotions(play.commands)) == 2
    seq = 9000
    for _ in range(20):  # what was in flight still passes
        play.tell(from_server(seq, length=100))
        seq += 100
        play.wait(0.01)
    assert Block() not in play.commands
    assert len(demotions(play.commands)) > 2, "it asks again while payload passes"
    play.wait(0.4)
    assert Block() not in play.commands, "not all has been acknowledged"
    assert Block() in play.tell(from_client(100, seq))
    assert play.end() == TORN_DOWN
    assert resets(play.commands) == {(TO_CLIENT, seq), (TO_SERVER, 100)}


def test_both_resets_in_the_end_though_an_end_goes_on_sending() -> None:
    play = at("joined", TearDown.BOTH)
    for number in range(2000):
        play.tell(from_server(9000 + 100 * number, length=100))
        play.wait(0.002)
    assert play.end() == TORN_DOWN
    assert Block() in play.commands
    assert len(demotions(play.commands)) < 20


def test_priority_alone_is_taken_back_when_it_does_not_help() -> None:
    play = at("joined", TearDown.MP_PRIO)
    for number in range(2000):
        play.tell(from_server(9000 + 100 * number, length=100))
        play.wait(0.002)
    assert play.end() == Finished(Outcome.FAILED, "the ends went on using the old subflow")
    assert set(demotions(play.commands, backup=False)) == {TO_CLIENT, TO_SERVER}
    assert undone(play)


@pytest.mark.parametrize("tear_down", list(TearDown))
def test_no_address_is_ever_removed_by_forgery(tear_down: TearDown) -> None:
    play = at("joined", tear_down)
    play.end()
    assert not injected(play.commands, RemoveAddr)


# -- failures of the network and of its ends ------------------------------------------------------


def test_no_traffic() -> None:
    play = Play()
    play.start()
    assert play.end() == Finished(Outcome.NO_TRAFFIC, Outcome.NO_TRAFFIC.value)
    assert undone(play)


def test_no_echo() -> None:
    play = at("announced")
    assert play.end().outcome is Outcome.NO_ECHO
    assert play.machine.attempts > 5
    assert undone(play)


def test_an_echo_without_a_join() -> None:
    play = at("echoed")
    play.wait(3.5)
    assert play.machine.state is State.ECHOED, "a SYN may have been lost twice"
    assert play.end().outcome is Outcome.LIMITS
    assert undone(play)


@pytest.mark.parametrize("stage", STAGES)
def test_a_refused_join(stage: str) -> None:
    play = at(stage)
    play.tell(Refused())
    assert play.end().outcome is Outcome.REFUSED
    assert undone(play)


def test_a_server_that_refuses_the_third_ack() -> None:
    play = at("joining")
    play.tell(JoinSeen(Join.SYN_ACK), JoinSeen(Join.ACK), Refused())
    assert play.end().outcome is Outcome.REFUSED
    assert Block() not in play.commands
    assert undone(play)


def test_a_join_that_is_never_completed() -> None:
    play = at("joining")
    play.tell(JoinSeen(Join.SYN_ACK))
    assert play.end().outcome is Outcome.TIMED_OUT
    assert undone(play)


@pytest.mark.parametrize("stage", ["announced", "echoed"])
@pytest.mark.parametrize(
    "event",
    [
        Closed("it ended"),
        from_client(flags=Flags.ACK | Flags.FIN),
        from_server(flags=Flags.RST),
        from_client(mptcp=(Dss(data_ack=1, data_fin=True),)),
    ],
)
def test_closed_before_the_join(stage: str, event: Event) -> None:
    play = at(stage)
    play.tell(event)
    assert play.end().outcome is Outcome.CLOSED
    assert undone(play)


def test_closed_before_anything_was_announced() -> None:
    for ignored in (set(), {Rewrite}):
        play = Play()
        play.ignore |= ignored
        play.start()
        play.tell(from_client(flags=Flags.RST))
        assert play.end().outcome is Outcome.CLOSED
        assert undone(play)


def test_closed_during_the_join_leaves_it_a_moment() -> None:
    play = at("joining")
    assert play.tell(Closed("it ended")) == []
    assert Block() not in play.tell(JoinSeen(Join.CONFIRMED))
    assert play.end() == Finished(Outcome.REDIRECTED, "it ended")
    assert Unrewrite() not in play.commands
    for event in (Refused(), Tick()):
        play = at("joining")
        play.tell(Closed("it ended"), event)
        assert play.end() == Finished(Outcome.CLOSED, "it ended")
        assert undone(play)


@pytest.mark.parametrize("tear_down", list(TearDown))
def test_an_old_subflow_that_closes_by_itself_is_torn_down_already(tear_down: TearDown) -> None:
    play = at("joining", tear_down)
    play.ignore.add(Block)
    play.tell(JoinSeen(Join.CONFIRMED), Closed("it ended"))
    assert play.end() == Finished(Outcome.REDIRECTED, "it ended")
    assert not resets(play.commands)
    assert Unrewrite() not in play.commands


# -- failures of the driver, and aborts -----------------------------------------------------------


def test_a_refused_rewriting_leaves_nothing_to_remove() -> None:
    play = Play()
    play.refuse.add(Rewrite)
    play.start()
    assert play.end() == Finished(Outcome.FAILED, "the kernel said no")
    assert play.commands == [Sample(), Rewrite(), Unsample(), play.commands[-1]]


def test_refused_sampling() -> None:
    play = Play()
    play.refuse.add(Sample)
    play.start()
    assert play.end() == Finished(Outcome.FAILED, "the kernel said no")
    assert Unsample() not in play.commands
    assert play.commands.index(Unrewrite()) > play.commands.index(Rewrite())


@pytest.mark.parametrize("stage", [*STAGES, "joined"])
def test_sampling_that_ends_by_an_error(stage: str) -> None:
    play = Play()
    play.ignore.add(Block)
    getattr(play, stage)()
    play.tell(Failed(Sample(), "the socket died"))
    assert play.end() == Finished(Outcome.FAILED, "the socket died")
    assert Unrewrite() in play.commands


def test_announcements_that_cannot_be_sent() -> None:
    play = Play()
    play.refuse.add(Inject)
    play.announced()
    assert play.end() == Finished(Outcome.FAILED, "the kernel said no")
    assert undone(play)


def test_one_announcement_that_could_not_be_sent_is_as_good_as_lost() -> None:
    play = Play()
    play.refuse.add(Inject)
    play.announced()
    play.refuse.clear()
    assert play.end().outcome is Outcome.NO_ECHO


@pytest.mark.parametrize("tear_down", [TearDown.RST, TearDown.BOTH])
def test_a_refused_block_leaves_the_old_subflow_as_it_was(tear_down: TearDown) -> None:
    play = Play(tear_down)
    play.refuse.add(Block)
    play.joined()
    assert play.end() == Finished(Outcome.FAILED, "the kernel said no")
    assert undone(play)
    restored = set(demotions(play.commands, backup=False))
    assert restored == (set(Direction) if tear_down is TearDown.BOTH else set())


def test_resets_that_cannot_be_sent_do_not_undo_a_redirection() -> None:
    play = at("joining")
    play.refuse.add(Inject)
    play.tell(JoinSeen(Join.CONFIRMED))
    assert play.end() == TORN_DOWN


@pytest.mark.parametrize("command", [Rewrite, Block])
def test_a_driver_that_does_not_answer(command: type) -> None:
    play = Play()
    play.ignore.add(command)
    play.joined() if command is Block else play.announced()
    finished = play.end()
    assert finished.outcome is Outcome.FAILED
    assert "no answer" in finished.reason
    assert Unrewrite() in play.commands
    assert (Unblock() in play.commands) == (command is Block)


def test_a_removal_is_tried_again_and_its_failure_is_told() -> None:
    play = at("announced")
    play.refuse.add(Unrewrite)
    play.tell(Abort("enough"))
    finished = play.end()
    assert finished.outcome is Outcome.ABORTED
    assert finished.reason == "enough; Unrewrite failed (the kernel said no)"
    assert play.commands.count(Unrewrite()) == 3
    play = at("announced")
    play.refuse.add(Unrewrite)
    play.tell(Abort("enough"))
    play.refuse.clear()
    assert play.end() == Finished(Outcome.ABORTED, "enough")


def test_a_removal_without_an_answer_is_given_up() -> None:
    play = at("announced")
    play.ignore.add(Unsample)
    play.tell(Abort("enough"))
    assert play.end().reason == "enough; Unsample failed (no answer)"


@pytest.mark.parametrize("stage", STAGES)
def test_an_abort_undoes(stage: str) -> None:
    play = at(stage)
    play.tell(Abort("enough"), Abort("again"))
    assert play.end() == Finished(Outcome.ABORTED, "enough")
    assert undone(play)


def test_an_abort_while_draining_takes_the_demotion_back() -> None:
    play = at("joined", TearDown.BOTH)
    play.tell(Abort("enough"))
    assert play.end().outcome is Outcome.ABORTED
    assert set(demotions(play.commands, backup=False)) == set(Direction)
    assert undone(play)


def test_an_abort_while_the_block_is_being_installed_takes_it_out() -> None:
    play = at("joining")
    play.ignore.add(Block)
    play.tell(JoinSeen(Join.CONFIRMED), Abort("enough"))
    assert play.end().outcome is Outcome.ABORTED
    assert play.commands.index(Unblock()) > play.commands.index(Block())
    assert undone(play)


def test_an_abort_comes_too_late_once_the_old_subflow_is_blocked() -> None:
    play = at("joined")
    play.tell(Abort("enough"), Closed("gone"), Failed(Sample(), "the socket died"))
    assert play.end() == TORN_DOWN


# -- the machine itself ---------------------------------------------------------------------------


def test_it_starts_once_and_listens_only_while_it_runs() -> None:
    play = Play()
    assert play.tell(echo(), Tick(), Abort("too early")) == []
    assert play.machine.deadline == math.inf
    play.start()
    with pytest.raises(ExperimentError, match="starts once"):
        play.start()
    play.end()
    assert play.machine.deadline == math.inf
    assert play.tell(echo(), Tick(), Abort("too late"), Refused()) == []


def test_a_tick_before_the_deadline_changes_nothing() -> None:
    for stage in (*STAGES, "joined"):
        play = at(stage, TearDown.BOTH)
        deadline_s = play.machine.deadline
        assert deadline_s > play.now_s
        assert play.tell(Tick()) == []
        assert play.machine.deadline == deadline_s


def test_joins_before_the_announcement_are_of_something_else() -> None:
    play = Play()
    play.start()
    play.tell(JoinSeen(Join.SYN), JoinSeen(Join.CONFIRMED), Refused(), Echoed())
    assert play.machine.state is State.WAITING


def test_it_says_when_things_happened() -> None:
    play = Play()
    play.announced()
    for seconds, event in (
        (0.1, echo()),
        (0.2, JoinSeen(Join.SYN)),
        (0.3, JoinSeen(Join.CONFIRMED)),
    ):
        play.wait(seconds - play.now_s + 1000.0)
        play.tell(event)
    play.end()
    machine = play.machine
    times = (machine.announced_s, machine.echoed_s, machine.syn_s, machine.joined_s)
    assert times == pytest.approx((1000.0, 1000.1, 1000.2, 1000.3))
    assert machine.ended_s is not None
    assert machine.ended_s > 1000.3
