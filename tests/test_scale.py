"""What large networks need: requests in the right order, neighbours kept, LANs that stay quiet."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, cast

import pytest
from mininet.topo import SingleSwitchTopo

from testbed.errors import KernelError, TopologyError
from testbed.kernel import RtNetlink, rtnetlink
from testbed.network import Network, limits
from testbed.network.draw import draw
from testbed.network.neighbours import NeighbourKeeper
from testbed.network.pipeline import PIPELINE, Pipeline
from topologies.star import Star

live = pytest.mark.live
ARP = 0x0806


class Spy:
    """In place of a node's socket: notes what it is to send, and may refuse."""

    def __init__(self, log: list[str], refuse: str = "") -> None:
        self.log, self.refuse = log, refuse

    def batch(self, messages: list[rtnetlink.Message]) -> None:
        words = [str(message.purpose) for message in messages]
        self.log.append(" ".join(words))
        if self.refuse in words:
            raise KernelError(17, f"{self.refuse} refused")


def spy(log: list[str], refuse: str = "") -> RtNetlink:
    return cast(RtNetlink, Spy(log, refuse))


def message(purpose: str) -> rtnetlink.Message:
    return rtnetlink.Message(rtnetlink.RTM_NEWADDR, 0, b"", purpose)


def test_requests_of_one_node_go_together_and_not_before_the_end() -> None:
    log: list[str] = []
    one, two = spy(log), spy(log)
    with Pipeline() as pipeline:
        for netlink, word in ((one, "a"), (two, "b"), (one, "c")):
            pipeline.put(netlink, [message(word)])
        assert log == []
        pipeline.flush()
        assert log == ["a c", "b"]
        pipeline.put(two, [message("d")])
    assert log[2:] == ["d"]


def test_outside_a_construction_requests_are_sent_at_once() -> None:
    log: list[str] = []
    Pipeline().put(spy(log), [message("a")])
    assert log == ["a"]


def test_the_first_refusal_is_raised_and_the_rest_is_done() -> None:
    log: list[str] = []

    def build() -> None:
        with Pipeline() as pipeline:
            for word in "abcd":
                pipeline.put(spy(log, "b"), [message(word)])

    with pytest.raises(KernelError, match="b refused"):
        build()
    assert log == ["a", "b", "c", "d"]


def test_an_error_of_the_construction_is_not_hidden_by_a_refusal() -> None:
    def build() -> None:
        with Pipeline() as pipeline:
            pipeline.put(spy([], "a"), [message("a")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build()


@live
def test_interfaces_are_there_before_what_configures_them() -> None:
    netlink = RtNetlink()
    with PIPELINE:
        PIPELINE.put(netlink, [rtnetlink.set_link(77, up=True)])
        PIPELINE.make(netlink, [rtnetlink.new_link("bridge", "late", 77, up=False)])
    assert netlink.link("late").up
    with pytest.raises(KernelError, match="bridge late"), PIPELINE:
        PIPELINE.make(netlink, [rtnetlink.new_link("bridge", "late")])


@live
def test_looking_at_a_node_waits_for_what_was_asked_for() -> None:
    with Network(build=False) as net, PIPELINE:
        h1, h2 = (net.addHost(name, ip=f"10.0.0.{n}/8") for n, name in ((1, "h1"), (2, "h2")))
        net.addLink(h1, h2)
        h2.setIP("10.0.0.9/8")
        assert "10.0.0.9/8" in h2.cmd("ip addr show h2-eth0")
        assert h1.netlink.link("h1-eth0").up


def eventually(condition: Any, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@live
def test_neighbours_are_kept_where_they_could_become_too_many() -> None:
    with Network(SingleSwitchTopo(3)) as net:
        h1, h2, _h3 = net.hosts
        assert net.ping([h1, h2]) == 0
        assert "extern_learn" not in h1.cmd("ip neigh")
        keeper = NeighbourKeeper(host.netns for host in net.hosts)
        h1.cmd(f"ip neigh flush to {h2.IP()}; ping -c1 -W5 {h2.IP()}")
        assert eventually(lambda: "extern_learn" in h1.cmd(f"ip neigh show {h2.IP()}"))
        keeper.close()
    with Network(SingleSwitchTopo(24)) as net:
        h1, h2 = net.hosts[:2]
        assert net.ping([h1, h2]) == 0
        assert eventually(lambda: "extern_learn" in h1.cmd(f"ip neigh show {h2.IP()}"))


@live
def test_a_crowded_lan_is_quiet_and_its_hosts_reach_each_other() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "_CROWD", 2)
        with Network(Star(3)) as net:
            h1, h2, h3 = net.hosts
            assert "fe80" not in h1.cmd("ip -6 addr show dev h1-eth0")
            with h3.netns, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as listener:
                listener.bind(("h3-eth0", ARP))
                listener.settimeout(0.2)
                assert net.ping([h1, h2]) == 0
                with pytest.raises(TimeoutError):
                    listener.recv(2048)
                assert net.ping([h1, h3]) == 0
    with Network(Star(3)) as net:
        h1, h2, h3 = net.hosts
        assert eventually(lambda: "fe80" in h1.cmd("ip -6 addr show dev h1-eth0"))
        with h3.netns, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as listener:
            listener.bind(("h3-eth0", ARP))
            listener.settimeout(5)
            assert net.ping([h1, h2]) == 0
            listener.recv(2048)  # any question reaches everybody on an ordinary LAN


def test_a_picture_of_thousands_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="1101 nodes") as caught:
        draw(SingleSwitchTopo(1100), tmp_path / "star.svg")
    assert caught.value.remedy
