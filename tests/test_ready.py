"""Conditions instead of sleeps, and networks that are usable when `start` returns."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mininet.topo import SingleSwitchTopo, Topo
from mininet.topolib import TorusTopo, TreeTopo

from testbed.network import Bridge, Network, Router, ready
from testbed.network.echo import _checksum, round_trip
from testbed.network.ready import Condition, NotReady

live = pytest.mark.live


def after(count: int) -> Condition:
    """A condition that is so when it has been asked `count` times."""
    asked = iter(range(count))
    return Condition(f"asked {count} times", lambda: "too few" if next(asked, None) is not None
                     else "")  # fmt: skip


def test_a_condition_is_asked_until_it_holds() -> None:
    ready.wait_until(after(5), after(0), timeout_s=5)
    asyncio.run(ready.until(after(5), lambda: True, timeout_s=5))


def test_what_did_not_come_true_is_said() -> None:
    def door_is_open() -> bool:
        return False

    with pytest.raises(NotReady, match=r"after 0.05 s still not so: door_is_open: not yet"):
        ready.wait_until(after(1), door_is_open, timeout_s=0.05)


def test_pauses_grow_and_keep_below_a_share_of_the_time() -> None:
    def slow() -> str:
        time.sleep(0.002)
        return "no"

    pauses = []

    def wait() -> None:
        for pause in ready._polls([Condition("slow", slow)], 0.1):
            pauses.append(pause)
            time.sleep(pause)

    with pytest.raises(NotReady):
        wait()
    assert pauses[0] >= 0.005
    assert len(pauses) < 15


@given(st.binary(min_size=2, max_size=60).filter(lambda data: len(data) % 2 == 0))
def test_a_packet_with_its_checksum_sums_to_nothing(data: bytes) -> None:
    assert _checksum(data + _checksum(data).to_bytes(2, "big")) == 0


SERVER = """
import socket, sys, time
time.sleep(0.1)
kind = socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM
server = socket.socket(socket.AF_INET, kind)
server.bind(("", 8080))
if sys.argv[1] == "tcp":
    server.listen()
sys.stdin.read()
"""


@live
def test_conditions_on_nodes() -> None:
    with Network(SingleSwitchTopo(2)) as net:
        h1, h2 = net.hosts
        for protocol in ("tcp", "udp"):
            command = [sys.executable, "-c", SERVER, protocol]
            server = h2.popen(command, stdin=-1)
            net.wait_until(ready.alive(server), ready.listening(h2, 8080, protocol))
            server.communicate()
        net.wait_until(ready.reachable(h1, h2), ready.carrier(h1, "h1-eth0"),
                       ready.route(h1, "10.9.9.9"))  # fmt: skip
        failing = {
            "is open: nothing listens there": ready.listening(h2, 8080),
            "it is down": _down(h1),
            "there is no such interface": ready.carrier(h1, "eth9"),
            "Network is unreachable": ready.route(h1, "172.16.0.1"),
            "no echo was answered": ready.reachable(h1, "10.0.0.99"),
        }
        for message, condition in failing.items():
            with pytest.raises(NotReady, match=message):
                asyncio.run(net.until(condition, timeout_s=0.3))


def _down(node: Any) -> Condition:
    node.cmd("ip link add spare type veth peer name spare2")
    return ready.carrier(node, "spare")


@live
def test_waiting_for_a_dead_program_ends_at_once() -> None:
    with Network(SingleSwitchTopo(2)) as net:
        server = net["h1"].popen(["false"])
        server.wait()
        began = time.monotonic()
        with pytest.raises(NotReady, match=r"false.* ended with status 1"):
            net.wait_until(ready.alive(server), ready.listening(net["h1"], 80), timeout_s=60)
        assert time.monotonic() - began < 30


class Six(Topo):
    """IPv6 over a bridge and over a link of its own."""

    def build(self) -> None:
        self.addSwitch("s1")
        for n in (1, 2):
            self.addHost(f"h{n}", ip6=f"fd00::{n}/64")
            self.addLink(f"h{n}", "s1")


class SixByLink(Topo):
    """Addresses given with the link; the nodes do not know of them."""

    def build(self) -> None:
        for n in (1, 2):
            self.addHost(f"h{n}")
        self.addLink("h1", "h2", params1={"ip6": "fd00::1/64"}, params2={"ip6": "fd00::2/64"})


class Routed(Topo):
    def build(self) -> None:
        self.addHost("h1")
        self.addHost("h2")
        self.addHost("r", cls=Router)
        self.addLink("h1", "r")
        self.addLink("r", "h2", delay="1ms")


STARTS = 12


@live
@pytest.mark.parametrize(
    "make", [partial(SingleSwitchTopo, 2), partial(TreeTopo, 2, 2), Six, SixByLink, Routed]
)
def test_the_first_packet_after_start_is_not_lost(make: Any) -> None:
    """One echo each, as soon as the network says it is up, over many starts."""
    lost = []
    for start in range(STARTS):
        with Network(make()) as net:
            first, last = net["h1"], net[f"h{max(int(h.name[1:] or 0) for h in _hosts(net))}"]
            for family in ("ip", "ip6"):
                address = getattr(last.defaultIntf(), family)
                if address:
                    rtt, why = asyncio.run(round_trip(first, address, tries=1, wait_s=10))
                    lost += [(start, address, why)] if rtt is None else []
    assert not lost


def _hosts(net: Network) -> list[Any]:
    return [node for node in net.hosts if node.name.startswith("h")]


@live
def test_start_waits_for_the_spanning_tree() -> None:
    tree = partial(Bridge, stp=True, forward_delay=2)
    with Network(TorusTopo(3, 3), switch=tree) as net:
        assert all(switch.connected() for switch in net.switches)
        assert net.ping(net.hosts[:4], timeout="10") == 0
        net.wait_until(ready.connected(*net.switches), timeout_s=10)


def test_ports_are_read_in_the_node_s_own_namespace() -> None:
    class Here:
        name = "here"

        class netns:  # noqa: N801
            def __enter__(self) -> None: ...
            def __exit__(self, *_error: object) -> None: ...

        netns = netns()  # type: ignore[assignment, misc]

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert ready.listening(Here(), port).missing()
        server.listen()
        assert not ready.listening(Here(), port).missing()
