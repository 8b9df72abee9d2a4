"""Functions compiled from Click graphs move: within one operator, and to another one."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from vnf_lab import Lab

from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.conntrack import ConntrackTable
from testbed.vnf.agent import Agent
from testbed.vnf.function import Device, Function
from testbed.vnf.labels import of_clients
from testbed.vnf.migration import MigrationReport, migrate
from testbed.vnf.state import CLIENTS

live = pytest.mark.live

NAT = """
fw :: IPFilter(allow established or related,
               allow new and tcp dst port 80,
               deny all);
nat :: IPRewriter(pattern 10.2.0.100 1024-65535 - - 0 1, drop);
FromDevice(eth0) -> CheckIPHeader(14) -> in :: Counter -> fw -> nat -> ToDevice(eth1);
FromDevice(eth1) -> [1] nat [1] -> back :: Counter -> ToDevice(eth0);
"""
DPI = """
dpi :: StringMatcher("GET /video");
FromDevice(eth0) -> dpi;
dpi [0] -> video :: Counter -> out :: ToDevice(eth1);
dpi [1] -> other :: Counter -> out;
FromDevice(eth1) -> ToDevice(eth0);
"""
PUBLIC = "10.2.0.100"


class Places:
    """The first function is x.x.x.254, the second x.x.x.253, both in the lab's platform."""

    def __init__(self, lab: Lab, text: str) -> None:
        self.lab, self.text = lab, text
        self.client, self.server = lab.client(), lab.server(gateway="")
        self.lead_through(first := self.instantiate(254))
        self.source = first

    def instantiate(self, number: int) -> Function:
        devices = {
            name: Device(
                platform=self.lab.platform, addresses=[f"10.{net}.0.{number}/24"], bridge=bridge
            )
            for name, net, bridge in (("eth0", 1, "inside"), ("eth1", 2, "outside"))
        }
        return Function.instantiate(self.text, devices=devices, name=f"f{number}")

    def lead_through(self, function: Function) -> None:
        """The client's packets take a function, and those of its server to it or PUBLIC too."""
        (inside, outside) = (function.devices[name].addresses[0][:-3] for name in ("eth0", "eth1"))
        everywhere = ipaddress.ip_network("0.0.0.0/0")
        inner = ipaddress.ip_network("10.1.0.0/24")
        mac = function.netlink.link("eth1").mac
        self._tell(self.client, rtnetlink.add_route(everywhere, via=inside, index=2))
        self._tell(
            self.server,
            rtnetlink.add_route(inner, via=outside, index=2),
            rtnetlink.add_neighbour(2, PUBLIC, mac),
        )

    @staticmethod
    def _tell(host: NetworkNamespace, *messages: rtnetlink.Message) -> None:
        with host:
            netlink = RtNetlink()
        netlink.batch(messages)
        netlink.close()

    def move(self, **settings: Any) -> MigrationReport:
        """Move the function over the loopback of the lab's platform."""
        self._tell(self.lab.platform, rtnetlink.set_link(1, up=True))
        targets: list[Function] = []

        def instantiate() -> Function:
            targets.append(self.instantiate(253))
            return targets[0]

        with (
            Agent(self.lab.platform, "127.0.0.1") as agent,
            agent.reached_from(self.lab.platform) as channel,
        ):
            return migrate(
                self.source,
                instantiate,
                channel,
                lambda: self.lead_through(targets[0]),
                **settings,
            )


@live
def test_a_translating_firewall_moves_within_an_operator() -> None:
    with Lab() as lab:
        places = Places(lab, NAT)
        listener = lab.listen(places.server, 80)
        connection = lab.connect(places.client, "10.2.0.1", 80)
        accepted, peer = listener.accept()
        assert peer[0] == PUBLIC
        connection.sendall(b"before")
        assert accepted.recv(100) == b"before"
        before = int(places.source.read("in.count"))
        report = places.move()
        target = report.target
        assert isinstance(target, Function)
        assert int(target.read("in.count")) >= before
        assert target.read("nat.nmappings") == "1"
        connection.sendall(b"after")
        assert accepted.recv(100) == b"after"
        accepted.sendall(b"and back")
        assert connection.recv(100) == b"and back"
        assert int(target.read("in.count")) > before
        assert report.entries == 1
        target.destroy()
        accepted.close()


@live
def test_what_was_found_in_a_connection_is_known_of_its_clients_next_one_elsewhere() -> None:
    """As when it was redirected: another connection, without the bytes that were looked at."""
    with Lab() as lab:
        places = Places(lab, DPI)
        listener = lab.listen(places.server, 80)
        connection = lab.connect(places.client, "10.2.0.1", 80)
        accepted, _peer = listener.accept()
        connection.sendall(b"GET /video/1 HTTP/1.1\r\n\r\n")
        assert accepted.recv(100).startswith(b"GET")
        assert places.source.read("dpi.matches") == "1"
        report = places.move(scope=CLIENTS)
        target = report.target
        assert isinstance(target, Function)
        assert report.entries == 0
        seen = int(target.read("video.count"))
        joined = lab.connect(places.client, "10.2.0.1", 80)
        joined.sendall(b"more of it")
        received, _peer = listener.accept()
        assert received.recv(100) == b"more of it"
        assert int(target.read("video.count")) >= seen + 2
        with ConntrackTable(target.namespace) as table:
            assert set(of_clients(table.dump())) == {"10.1.0.1"}
        target.destroy()
        for each in (accepted, received):
            each.close()


@live
def test_a_stranger_is_not_taken_for_a_client() -> None:
    with Lab() as lab:
        places = Places(lab, DPI)
        listener = lab.listen(places.server, 80)
        report = places.move(scope=CLIENTS)
        lab.connect(places.client, "10.2.0.1", 80).sendall(b"something")
        accepted, _peer = listener.accept()
        assert accepted.recv(100) == b"something"
        accepted.close()
        target = report.target
        assert isinstance(target, Function)
        assert target.read("video.count") == "0"
        assert int(target.read("other.count")) >= 2
        target.destroy()
