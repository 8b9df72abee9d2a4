"""Links that go down, come up, are cut, and networks that fall apart: live."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dynamics_lab import carrier, configuration, reaches, until
from mininet.topo import Topo

from testbed.errors import ParameterError, TopologyError
from testbed.network import Bridge, Network, OVSSwitch, Router

live = pytest.mark.live
ENGINES: dict[str, dict[str, Any]] = {
    "plain": {},
    "htb": {"bw": 50},
    "fabric": {"bw": 50, "delay": "5ms"},
}
each_engine = pytest.mark.parametrize("engine", ENGINES)


class Routed(Topo):
    """h1 - r1 - r2 - h2, the link in the middle of a kind."""

    def build(self, **middle: Any) -> None:
        for name in ("h1", "h2"):
            self.addHost(name)
        for name in ("r1", "r2"):
            self.addHost(name, cls=Router)
        self.addLink("h1", "r1")
        self.addLink("r1", "r2", **middle)
        self.addLink("r2", "h2")


@live
@each_engine
def test_an_unplugged_cable_takes_the_carrier_and_nothing_else(engine: str) -> None:
    with Network(Routed(**ENGINES[engine])) as net:
        h1, h2, r1, r2 = net.get("h1", "h2", "r1", "r2")
        (link,) = net.linksBetween(r1, r2)
        r2.setHostRoute("10.99.0.1", "r2-eth0")
        r2.setARP("10.0.2.77", "00:00:00:00:00:77")
        before = [configuration(node) for node in (r1, r2)]
        link.down()
        assert not link.is_up
        assert until(lambda: not carrier(r1, "r1-eth1") and not carrier(r2, "r2-eth0"))
        assert not reaches(h1, h2.IP())
        if engine != "plain":
            assert [configuration(node) for node in (r1, r2)] == before
        link.up()
        assert until(lambda: carrier(r1, "r1-eth1") and carrier(r2, "r2-eth0"))
        assert until(lambda: reaches(h1, h2.IP()))
        assert until(lambda: reaches(h1, h2.IP6()))
        assert [configuration(node) for node in (r1, r2)] == before
        assert "00:00:00:00:00:77" in r2.cmd("ip neigh show 10.0.2.77")


@live
@pytest.mark.parametrize(
    ("engine", "switch"),
    [("plain", Bridge), ("fabric", Bridge), ("plain", OVSSwitch), ("htb", OVSSwitch)],
)
def test_a_cable_to_a_switch(engine: str, switch: type) -> None:
    net = Network(switch=switch)
    for name in ("h1", "h2"):
        net.addHost(name)
    net.addSwitch("s1")
    link = net.addLink("h1", "s1", **ENGINES[engine])
    net.addLink("s1", "h2")
    with net:
        h1, h2 = net.hosts
        assert until(lambda: reaches(h1, h2.IP()))
        net.configLinkStatus("h1", "s1", "down")
        assert until(lambda: not carrier(h1, "h1-eth0"))
        assert not reaches(h1, h2.IP())
        net.configLinkStatus("s1", "h1", "up")
        assert until(lambda: reaches(h1, h2.IP()))
        link.cut()
        assert not reaches(h1, h2.IP())
        assert not reaches(h2, h1.IP())
        assert carrier(h1, "h1-eth0")
        link.mend()
        assert until(lambda: reaches(h1, h2.IP()))


@live
@each_engine
def test_a_sender_is_not_told_of_a_cut(engine: str) -> None:
    net = Network()
    for name in ("h1", "h2"):
        net.addHost(name)
    link = net.addLink("h1", "h2", **ENGINES[engine])
    with net:
        h1, h2 = net.hosts
        assert until(lambda: reaches(h1, h2.IP()))
        link.cut()
        received = Path("/sys/class/net/h2-eth0/statistics/rx_packets")
        before = h2.cmd(f"cat {received}")
        said = h1.cmd(f"ping -c 5 -i 0.05 -W 0.2 {h2.IP()}")
        assert "5 packets transmitted, 0 received" in said
        assert "rror" not in said
        assert h2.cmd(f"cat {received}") == before
        link.mend()
        assert until(lambda: reaches(h1, h2.IP()))
        assert "sink" not in h1.cmd("tc filter show dev h1-eth0 egress")


FLOOD = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        sender.sendto(bytes(1200), (sys.argv[1], 9))
    except OSError:
        pass
    time.sleep(0.002)
"""


@live
@pytest.mark.parametrize("engine", ["htb", "fabric"])
def test_what_is_in_flight_is_lost_and_every_packet_accounted_for(engine: str) -> None:
    """A sender that goes on through outages of a busy link; every packet has one fate."""
    net = Network()
    for name in ("h1", "h2"):
        net.addHost(name)
    shape = {"htb": {"bw": 3}, "fabric": {"bw": 3, "delay": "100ms"}}[engine]
    link = net.addLink("h1", "h2", queue="200ms", **shape)
    with net:
        net.staticArp()
        flood = net["h1"].popen([sys.executable, "-c", FLOOD, net["h2"].IP()])
        for _ in range(3):
            time.sleep(0.3)
            link.down()
            time.sleep(0.1)
            link.up()
        net.partition({"h1"}, {"h2"})
        time.sleep(0.1)
        net.heal()
        flood.kill()
        flood.communicate()
        assert until(lambda: not any(each.inside_packets for each in net.engines.reports()))
        reports = net.engines.reports()
    there = reports[0]
    for each in reports:
        fates = (each.delivered_packets, each.lost_packets, each.queue_drops, each.down_drops)
        assert each.offered_packets == sum(fates) + each.outside_drops + each.inside_packets
        assert each.outside_drops == 0
        assert each.lost_packets == 0
    assert there.down_drops >= 3
    assert there.delivered_packets > 100


# -- partitions ------------------------------------------------------------------------------------


def relations(net: Any) -> set[str]:
    """Who reaches whom, by a few pings each, all at once."""
    pings = {
        f"{a}{b}": a.popen(["ping", "-c", "3", "-i", "0.15", "-W", "0.4", b.IP()], text=True)
        for a in net.hosts
        for b in net.hosts
        if a is not b
    }
    said = {pair: child.communicate()[0] for pair, child in pings.items()}
    return {pair for pair, text in said.items() if " 0 received" not in text}


def becomes(net: Any, expected: set[str]) -> bool:
    """Nobody else is reached from now on, and these are (a ping or two may come too late)."""

    def they_are() -> bool:
        found = relations(net)
        assert found <= expected, found - expected
        return found == expected

    return until(they_are)


def both_ways(*pairs: str) -> set[str]:
    return {each for pair in pairs for each in (pair, pair[2:] + pair[:2])}


class Office(Topo):
    """Two switches, two hosts on each."""

    def build(self, cls: type = Bridge) -> None:
        for number in (1, 2):
            self.addSwitch(f"s{number}", cls=cls)
        for number in (1, 2, 3, 4):
            self.addHost(f"h{number}")
            self.addLink(f"h{number}", f"s{(number + 1) // 2}")
        self.addLink("s1", "s2", bw=50)


@live
@pytest.mark.parametrize("cls", [Bridge, OVSSwitch])
def test_groups_on_shared_switches_are_parted_and_partitions_overlap(cls: type) -> None:
    everyone = both_ways("h1h2", "h1h3", "h1h4", "h2h3", "h2h4", "h3h4")
    with Network(Office(cls=cls)) as net:
        assert becomes(net, everyone)
        first = net.partition({"h1", "h3"}, {"h2"})
        assert becomes(net, everyone - both_ways("h1h2", "h2h3"))
        second = net.partition({"h1"}, {"h2", "h4"})
        assert becomes(net, everyone - both_ways("h1h2", "h2h3", "h1h4"))
        first.heal()
        assert becomes(net, everyone - both_ways("h1h2", "h1h4"))
        second.heal()
        assert becomes(net, everyone)
        net.partition({"h4"})
        assert becomes(net, both_ways("h1h2", "h1h3", "h2h3"))
        net.heal()
        assert becomes(net, everyone)


@live
def test_a_partition_of_routers_and_named_switches() -> None:
    with Network(Routed(bw=20)) as net:
        h1, h2 = net.get("h1", "h2")
        net.partition({"h1", "r1"}, {"r2", "h2"})
        assert not reaches(h1, h2.IP())
        assert until(lambda: reaches(h1, net["r1"].IP()))
        net.heal()
        assert until(lambda: reaches(h1, h2.IP()))
        assert until(lambda: reaches(h2, h1.IP6()))
    with Network(Office()) as net:
        net.partition({"s1"}, {"s2"})
        assert becomes(net, both_ways("h1h2", "h3h4"))


@live
def test_what_a_partition_cannot_mean_is_refused() -> None:
    with Network(Routed()) as net:
        with pytest.raises(TopologyError, match=r"r[12] is in no group and carries.*h1 \| h2"):
            net.partition({"h1"}, {"h2"})
        with pytest.raises(TopologyError, match="no node 'h9'"):
            net.partition({"h9"}, {"h2"})
        with pytest.raises(TopologyError, match="h1 is in two groups"):
            net.partition({"h1"}, {"h1", "h2"})
        with pytest.raises(TopologyError, match="without nodes"):
            net.partition({"h1"}, set())
        with pytest.raises(ParameterError, match="'sideways'"):
            net.configLinkStatus("h1", "r1", "sideways")
        with pytest.raises(TopologyError, match="not linked"):
            net.configLinkStatus("h1", "h2", "up")
    with (
        Network(Office()) as net,
        pytest.raises(TopologyError, match="s2 is in no group and carries"),
    ):
        net.partition({"s1"}, {"h3"})
