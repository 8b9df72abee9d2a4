"""Functions move with their state under live connections; and whatever fails, traffic goes on."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from traffic_lab import Program, serving

from testbed.errors import KernelError
from testbed.kernel import conntrack_entry
from testbed.kernel.conntrack import ConntrackTable, Entries, Entry, Flow
from testbed.vnf.migration import MigrationError, MigrationReport, migrate
from testbed.vnf.migration_plan import Limits
from testbed.vnf.migration_wire import Kind
from testbed.vnf.rig import CLIENT, OUTSIDE, SERVER, SERVER6, Firewall, Rig

live = pytest.mark.live


@contextlib.contextmanager
def connections(
    rig: Rig, count: int, server: str = SERVER, *, patience: str = "5"
) -> Iterator[Program]:
    """Live connections whose every byte is verified."""
    arguments = [server, "--connections", str(count), "--rate", "400", "--patience", patience]
    with (
        serving(rig.server, "many", "server", "--bind", server),
        Program(rig.client, "many", "client", *arguments) as client,
    ):
        client.ready()
        yield client


def roll(client: Program) -> dict[str, Any]:
    """Call the roll: who is alive?"""
    client.process.stdin.write('{"command": "finish"}\n')
    client.process.stdin.flush()
    return client.done()


class Move:
    """A rig with a function that carries traffic, and one move of it."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.source = rig, rig.firewall()
        self.target: Firewall | None = None
        rig.lead_through(self.source)
        self.agent = rig.agent()
        self.channel = self.agent.reached_from(rig.platforms[0])

    def spoil(self, target: Firewall) -> None:
        """What goes wrong with a target that is there."""

    def instantiate(self) -> Firewall:
        self.target = self.rig.firewall()
        self.spoil(self.target)
        return self.target

    def switch(self) -> None:
        assert self.target
        self.rig.lead_through(self.target)

    def run(self, **settings: Any) -> MigrationReport:
        return migrate(self.source, self.instantiate, self.channel, self.switch, **settings)


def check_moved(move: Move, client: Program, report: MigrationReport, count: int) -> None:
    done = roll(client)
    assert (done["connections"], done["lost"]) == (count, 0), done["why_lost"]
    assert report.entries >= count
    assert report.target is move.target
    assert list(move.agent.functions.values()) == [move.target]
    assert move.source.destroyed


@live
@pytest.mark.parametrize("server", [SERVER, SERVER6])
def test_no_connection_is_lost(server: str) -> None:
    with Rig() as rig:
        move = Move(rig)
        with connections(rig, 300, server) as client:
            before = move.source.counted()
            report = move.run()
            check_moved(move, client, report, 300)
        assert move.target
        assert move.target.counted() > before >= 300
        assert report.bytes > sum(each.bytes for each in report.rounds) > 0
        assert report.downtime_s < report.total_s


@live
def test_without_their_state_all_connections_are_lost() -> None:
    with Rig() as rig:
        move = Move(rig)
        with connections(rig, 100, patience="2") as client:
            move.instantiate()
            move.switch()
            done = roll(client)
        assert (done["connections"], done["lost"]) == (100, 100)


@live
@pytest.mark.parametrize("told", [True, False], ids=["told by the kernel", "looked for"])
def test_connections_that_come_and_go_meanwhile_are_right_at_the_target(told: bool) -> None:
    """What ended between two copies is gone at the target too, what began is there."""
    with Rig() as rig:
        move = Move(rig)
        if not told:
            move.source.namespace.sysctl("net.netfilter.nf_conntrack_events", 0)
        table = ConntrackTable(move.source.namespace)
        pause = move.source.pause

        def late() -> None:
            table.flush()
            table.insert([UDP_ENTRY])
            pause()

        move.source.pause = late  # type: ignore[method-assign]
        with connections(rig, 100):
            report = move.run()
        assert report.entries == 1
        (entry,) = ConntrackTable(report.target.namespace).read()
        assert entry.original == UDP_ENTRY.original
        table.close()


class Push:
    """A transfer as fast as it goes, from the client to the server, both ends hashing."""

    def __init__(self, rig: Rig, listener: socket.socket) -> None:
        with rig.client.namespace:
            self._sender = socket.socket()
        self._sender.settimeout(30)
        self._sender.connect((SERVER, 5000))
        self._receiver, _peer = listener.accept()
        self._receiver.settimeout(30)
        self._stop = threading.Event()
        self.received = 0
        self._hashes = [hashlib.blake2b(), hashlib.blake2b()]
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        block = bytes(range(256)) * 256
        with self._sender, contextlib.suppress(OSError):
            while not self._stop.is_set():
                self._sender.sendall(block)
                self._hashes[0].update(block)

    def _receive(self) -> None:
        with self._receiver, contextlib.suppress(OSError):
            while data := self._receiver.recv(1 << 16):
                self._hashes[1].update(data)
                self.received += len(data)

    def whole(self) -> bool:
        """End the transfer: did all of it arrive?"""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self._hashes[0].digest() == self._hashes[1].digest()


@live
def test_transfers_whose_windows_are_full_go_on() -> None:
    """Tracking of their windows begins anew at the target, with packets in flight."""
    with Rig() as rig:
        move = Move(rig)
        with rig.server.namespace:
            listener = socket.create_server((SERVER, 5000))
        with listener:
            pushes = [Push(rig, listener) for _each in range(4)]
        until(lambda: all(push.received > 1 << 22 for push in pushes))
        move.run()
        moved = [push.received for push in pushes]
        until(lambda: all(p.received > at + (1 << 22) for p, at in zip(pushes, moved, strict=True)))
        whole = [push.whole() for push in pushes]
        assert all(whole)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@live
def test_packets_that_come_while_it_is_paused_are_counted() -> None:
    with Rig() as rig:
        move = Move(rig)
        lead = move.switch

        def arrived() -> int:
            found = re.search(r"packets (\d+)", move.source.nft.run("list table inet arrivals"))
            assert found
            return int(found[1])

        def switch() -> None:
            before = arrived()
            with rig.client.namespace, socket.socket(type=socket.SOCK_DGRAM) as sender:
                for _datagram in range(10):
                    sender.sendto(b"in between", (SERVER, 9))
            until(lambda: arrived() >= before + 10)
            lead()

        move.switch = switch  # type: ignore[method-assign]
        assert move.run().lost >= 10


UDP_ENTRY = Entry(
    protocol=17,
    original=Flow(CLIENT, SERVER, 5000, 53),
    reply=Flow(SERVER, OUTSIDE, 53, 6000),
    timeout_s=100,
)


# -- failures ------------------------------------------------------------------------------------


def vanishing(move: Move) -> dict[str, Any]:
    """The other platform is cut off once the source is paused."""
    pause = move.source.pause

    def cut() -> None:
        move.rig.cut_platforms()
        pause()

    move.source.pause = cut  # type: ignore[method-assign]
    return {"limits": Limits(pause_s=0.3)}


def vanished(move: Move) -> dict[str, Any]:
    """The other platform is cut off before anything was said."""
    move.rig.cut_platforms()
    return {"limits": Limits(step_s=0.3)}


def refusing(move: Move) -> dict[str, Any]:
    """Another connection at the target has what one of ours is translated to."""

    def spoil(target: Firewall) -> None:
        taken = [entry for entry in ConntrackTable(move.source.namespace).read() if entry.tcp]
        other = replace(taken[0], original=replace(taken[0].original, source="10.1.0.77"))
        assert ConntrackTable(target.namespace).insert([other]) == []

    move.spoil = spoil
    return {}


def full(move: Move) -> dict[str, Any]:
    """The target's table is full of connections that must not be dropped for others."""

    def spoil(target: Firewall) -> None:
        most = int(target.namespace.sysctl("net.netfilter.nf_conntrack_max"))
        (alike,) = conntrack_entry.of([UDP_ENTRY]).blocks
        rows = np.repeat(alike.rows, most, axis=0)
        numbers = np.arange(most, dtype=">u4").view(np.uint8).reshape(most, 4)
        source = alike.columns((1, 1, 1))
        rows[:, source] = numbers | np.array([11, 0, 0, 0], dtype=np.uint8)
        rows[:, alike.columns((2, 1, 2))] = rows[:, source]
        rows[:, alike.columns((2, 2, 3))] = rows[:, alike.columns((1, 2, 2))]
        entries = Entries([replace(alike, rows=rows)])
        assert len(ConntrackTable(target.namespace).insert(entries)) <= 1

    move.spoil = spoil
    return {}


def without_program(move: Move) -> dict[str, Any]:
    """The program cannot be loaded at the target."""

    def spoil(target: Firewall) -> None:
        target.destroy()
        raise KernelError(12, "nftables: Could not process rule: Cannot allocate memory")

    move.spoil = spoil
    return {}


def cancelled(move: Move) -> dict[str, Any]:
    cancel = threading.Event()
    pause = move.source.pause

    def unwanted() -> None:
        cancel.set()
        pause()

    move.source.pause = unwanted  # type: ignore[method-assign]
    return {"cancel": cancel}


def not_switched(move: Move) -> dict[str, Any]:
    def switch() -> None:
        raise KernelError(101, "route: Network is unreachable")

    move.switch = switch  # type: ignore[method-assign]
    return {}


FAILURES = {
    vanishing: "the target did not run within 0.3 s of the pause",
    vanished: "the target did not answer within 0.3 s",
    refusing: "the target refused 1 entries: File exists",
    full: "the target refused .* entries: Cannot allocate memory",
    without_program: "nftables: Could not process rule: Cannot allocate memory",
    cancelled: "it was cancelled",
    not_switched: "route: Network is unreachable",
}


@live
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_what_fails_leaves_the_source_forwarding(failure: Callable[[Move], Any]) -> None:
    with Rig() as rig:
        move = Move(rig)
        with connections(rig, 40) as client:
            settings = failure(move)
            message = f"^not moved, the source forwards on: {FAILURES[failure]}$"
            with pytest.raises(MigrationError, match=message):
                move.run(**settings)
            done = roll(client)
        assert (done["connections"], done["lost"]) == (40, 0), done["why_lost"]
        assert move.agent.functions == {}
        assert not move.source.destroyed
        assert move.target is None or move.target.destroyed


@live
def test_a_mistake_in_what_the_caller_gave_comes_out_and_is_undone() -> None:
    with Rig() as rig:
        move = Move(rig)

        def switch() -> None:
            raise ValueError("a mistake")

        move.switch = switch  # type: ignore[method-assign]
        with connections(rig, 40) as client:
            with pytest.raises(ValueError, match="a mistake"):
                move.run()
            assert roll(client)["lost"] == 0
        assert move.target
        assert move.target.destroyed


@live
def test_a_failed_move_may_be_tried_again() -> None:
    with Rig() as rig:
        move = Move(rig)
        settings = not_switched(move)
        with connections(rig, 40) as client:
            with pytest.raises(MigrationError):
                move.run(**settings)
            del move.switch
            report = move.run()
            check_moved(move, client, report, 40)


@live
def test_an_agent_removes_what_did_not_come_whole() -> None:
    with Rig() as rig:
        move = Move(rig)
        move.agent.offer("lost on the way", move.instantiate)
        move.channel.ask(Kind.PREPARE, b"lost on the way", deadline=None, stop=None)
        assert move.target
        assert not move.target.destroyed
        move.channel.close()
        target = move.target
        until(lambda: target.destroyed)
