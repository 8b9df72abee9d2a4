"""Nodes that hang and nodes that lose power: live, with real connections."""

from __future__ import annotations

import functools
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from dynamics_lab import carrier, configuration, reaches, until
from mininet.topo import SingleSwitchTopo, Topo

from testbed.errors import ExperimentError, TopologyError
from testbed.network import Bridge, Network, OVSSwitch, Router

live = pytest.mark.live

SERVER = """
import socket
listener = socket.create_server(("", 7000))
held = []
while True:
    held.append(listener.accept()[0])
"""
PROGRAM = [sys.executable, "-c", SERVER]


class Home(Topo):
    """A phone on two routers, and a server behind them that runs a program."""

    def build(self) -> None:
        self.addHost("phone")
        self.addHost("server", on_start=[PROGRAM], sysctls={"net/ipv4/tcp_fin_timeout": 7})
        for name in ("r1", "r2"):
            self.addHost(name, cls=Router)
            self.addLink("phone", name, bw=50)
            self.addLink(name, "server")


def connected(source: Any, address: str, seconds: float = 1.0) -> socket.socket | None:
    """A TCP connection from a node, or None when nobody answers in time."""
    with source.netns:
        client = socket.socket()
    client.settimeout(seconds)
    try:
        client.connect((address, 7000))
    except OSError:
        client.close()
        return None
    return client


def dial(source: Any, address: str) -> socket.socket:
    """A TCP connection from a node to a program that may still be starting."""
    found: list[socket.socket | None] = []
    assert until(lambda: found.append(connected(source, address)) or found[-1] is not None)
    client = found[-1]
    assert client is not None
    return client


def facts(node: Any) -> str:
    rules = node.cmd("ip rule; ip -6 rule")
    links = node.cmd("ip -br link")
    return configuration(node) + rules + links.replace("LOWER_UP", "")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@live
def test_a_frozen_node_neither_runs_nor_answers() -> None:
    with Network(Home()) as net:
        phone, server = net.get("phone", "server")
        program = phone.popen(["sleep", "60"])
        client = dial(phone, server.IP())
        server.freeze()
        assert carrier(phone, "phone-eth0")
        assert not reaches(phone, server.IP())
        assert not reaches(phone, net["server"].IP6())
        client.send(b"is anybody there?")
        with pytest.raises(ExperimentError, match=r"server is frozen.*thaw"):
            server.cmd("true")
        unacknowledged = phone.cmd("ss -tn state established dport = :7000").split("\n")[1]
        assert unacknowledged.split()[1] == "17"
        server.thaw()
        assert until(lambda: " 0 " in phone.cmd("ss -Htn state established dport = :7000"))
        assert until(lambda: reaches(phone, server.IP()))
        phone.freeze()
        assert until(lambda: state(program.pid) == "T")
        phone.thaw()
        assert until(lambda: state(program.pid) == "S")
        client.close()
        phone.freeze()  # a network ends with frozen programs too


@live
def test_a_killed_node_says_nothing_and_comes_back_as_it_was_made() -> None:
    with Network(Home()) as net:
        phone, server = net.get("phone", "server")
        server.add_route("10.77.0.0/16", dev="server-eth0")
        server.cmd("ip link set server-eth0 mtu 1400")
        server.cmd("ip addr add 192.0.2.1/32 dev lo; sleep 60 &")
        client = dial(phone, server.IP())
        server.cmd("ip addr del 192.0.2.1/32 dev lo")
        before = {node: facts(node) for node in (phone, server)}
        server.kill()
        assert until(lambda: not carrier(net["r1"], "r1-eth1"))
        assert not reaches(phone, server.IP())
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):  # no FIN, no RST
            client.recv(1)
        with pytest.raises(ExperimentError, match=r"server is killed.*restart"):
            server.popen("true")
        server.restart()
        assert until(lambda: {node: facts(node) for node in (phone, server)} == before)
        assert server.sysctl("net/ipv4/tcp_fin_timeout") == "7"
        for router, intf in zip(("r1", "r2"), server.intfList(), strict=True):
            assert until(functools.partial(reaches, net[router], intf.ip))
        assert until(lambda: reaches(phone, server.IP6()))
        client.settimeout(30)
        client.send(b"hello?")
        with pytest.raises(ConnectionResetError):  # the new stack knows no such connection
            client.recv(1)
        dial(phone, server.IP()).close()
        client.close()


@live
def test_a_router_restarts_with_its_links_as_they_were() -> None:
    with Network(Home()) as net:
        phone, server, r1 = net.get("phone", "server", "r1")
        (link,) = net.linksBetween(r1, server)
        target = link.intf2.ip
        assert until(lambda: reaches(phone, target))
        link.cut()
        r1.restart()
        assert not reaches(r1, target)
        link.mend()
        assert until(lambda: reaches(phone, target))
        link.down()
        r1.restart()
        assert until(lambda: not carrier(server, link.intf2.name))
        assert not reaches(phone, target)
        server.kill()
        link.up()
        assert not carrier(r1, link.intf1.name)
        server.restart()
        assert until(lambda: reaches(phone, target))


@live
@pytest.mark.parametrize("switch", [Bridge, OVSSwitch])
def test_switches_hang_and_die(switch: type) -> None:
    with Network(SingleSwitchTopo(2), switch=switch) as net:
        (h1, h2), s1 = net.hosts, net["s1"]
        assert until(lambda: reaches(h1, h2.IP()))
        s1.freeze()
        assert not reaches(h1, h2.IP())
        assert carrier(h1, "h1-eth0")
        s1.thaw()
        assert until(lambda: reaches(h1, h2.IP()))
        s1.kill()
        assert until(lambda: not carrier(h1, "h1-eth0"))
        assert not reaches(h1, h2.IP())
        s1.restart()
        assert until(lambda: reaches(h1, h2.IP()))


@live
def test_failures_that_cannot_be_are_named() -> None:
    net = Network(SingleSwitchTopo(1))
    net.addHost("outside", inNamespace=False)
    with net:
        h1 = net["h1"]
        with pytest.raises(ExperimentError, match="h1 is not frozen"):
            h1.thaw()
        h1.kill()
        with pytest.raises(ExperimentError, match="killed already"):
            h1.kill()
        with pytest.raises(ExperimentError, match="cannot be frozen"):
            h1.freeze()
        with pytest.raises(TopologyError, match="shares the network's namespace"):
            net["outside"].kill()
