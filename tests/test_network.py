"""The network room: Mininet's API on namespaces and netlink, live."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mininet.link import TCLink as MininetTCLink
from mininet.log import setLogLevel
from mininet.node import Host as MininetHost
from mininet.node import Node as MininetNode
from mininet.node import OVSBridge as MininetOVSBridge
from mininet.nodelib import LinuxBridge as MininetLinuxBridge
from mininet.topo import LinearTopo, SingleSwitchTopo, Topo
from mininet.topolib import TreeTopo
from mininet.util import pmonitor

from testbed.errors import PrivilegeError, TopologyError
from testbed.network import Bridge, Host, Link, Network, OVSSwitch, Router

setLogLevel("error")
live = pytest.mark.live


def home_interfaces() -> set[str]:
    return set(os.listdir("/sys/class/net"))


def wait_until(condition: Any, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_outside_a_sandbox_a_network_says_what_to_do() -> None:
    with pytest.raises(PrivilegeError, match="ensure"):
        Network()


@live
def test_a_tree_comes_up_without_a_shell_and_everyone_reaches_everyone() -> None:
    with Network(TreeTopo(depth=2, fanout=3), autoSetMacs=True) as net:
        assert not any(node.shell_started for node in (*net.hosts, *net.switches))
        assert net.pingAll() == 0
        assert net["h1"].MAC() == "00:00:00:00:00:01" == net["h1"].intf().updateMAC()
    assert home_interfaces() == {"lo"}


@live
def test_commands_and_programs() -> None:
    with Network(SingleSwitchTopo(3)) as net:
        h1, h2, h3 = net.get("h1", "h2", "h3")
        assert h1.cmd("echo hi").strip() == "hi"
        h1.cmd("cd /tmp; X=5")
        assert h1.cmd("echo $X $PWD").strip() == "5 /tmp"
        assert os.readlink(f"/proc/{h1.pid}/ns/net") != os.readlink("/proc/self/ns/net")
        assert sorted(h1.cmd("ls /sys/class/net").split()) == ["h1-eth0", "lo"]
        h2.sendCmd("sleep 0.1; echo done")
        assert h2.waitOutput().strip() == "done"
        h2.sendCmd("sleep 50", printPid=True)
        assert wait_until(lambda: h2.monitor(timeoutms=50) == "" and h2.lastPid)
        h2.sendInt()
        h2.waitOutput()
        out, err, status = h3.pexec(["sh", "-c", "ip -br addr; echo oops >&2; exit 3"])
        assert "10.0.0.3/8" in out
        assert (err, status) == ("oops\n", 3)
        assert h3.popen("echo 9-x | cat", shell=True).communicate()[0] == b"9-x\n"
        pings = {host: host.popen(f"ping -c2 -i0.2 {h1.IP()}") for host in (h2, h3)}
        lines = [line for host, line in pmonitor(pings) if host]
        assert sum("bytes from" in line for line in lines) == 4


@live
def test_configuration_by_mininets_methods() -> None:
    with Network(SingleSwitchTopo(3)) as net:
        h1, _h2, h3 = net.get("h1", "h2", "h3")
        h3.setIP("10.0.0.99/8")
        assert " 0% packet" in h1.cmd("ping -c1 -W5 10.0.0.99")
        h1.setARP("10.0.0.77", "00:00:00:00:00:77")
        assert "00:00:00:00:00:77" in h1.cmd("ip neigh show 10.0.0.77")
        h1.setDefaultRoute("via 10.0.0.2")
        assert "default via 10.0.0.2" in h1.cmd("ip route")
        h1.setDefaultRoute(h1.intf())
        assert "default dev h1-eth0" in h1.cmd("ip route")
        net.configLinkStatus("s1", "h1", "down")
        assert net.ping([h1, h3], timeout="0.5") == 100
        net.configLinkStatus("s1", "h1", "up")
        assert net.ping([h1, h3]) == 0
        net.staticArp()


@live
def test_nodes_and_links_come_and_go_while_it_runs() -> None:
    with Network(SingleSwitchTopo(2)) as net:
        late = net.addHost("late", ip="10.0.0.50/8")
        link = net.addLink(late, "s1")
        late.configDefault()
        assert net.ping([late, net["h1"]]) == 0
        net.delLink(link)
        net.delHost(late)
        assert "late" not in net
        assert home_interfaces() == {"lo", "s1", "s1-eth1", "s1-eth2"}


@live
def test_names_of_nodes_resolve_inside_them() -> None:
    with Network(SingleSwitchTopo(2)) as net:
        assert " 0% packet" in net["h1"].cmd("ping -c1 -W5 h2")


@live
def test_private_directories(tmp_path: Path) -> None:
    shared = str(tmp_path / "%(name)s")
    directories = ["/var/tmp/private", ("/var/tmp/own", shared)]
    with Network(SingleSwitchTopo(2), host=partial(Host, privateDirs=directories)) as net:
        h1, h2 = net.hosts
        h1.cmd("touch /var/tmp/private/a /var/tmp/own/b")
        assert h1.cmd("ls /var/tmp/private").strip() == "a"
        assert h2.cmd("ls /var/tmp/private /var/tmp/own").replace("\r", "").split() == [
            "/var/tmp/own:",
            "/var/tmp/private:",
        ]
        assert (tmp_path / "h1" / "b").exists()


SCRIPT = """
import sys
from mininet.cli import CLI
from mininet.log import setLogLevel
from mininet.topo import SingleSwitchTopo
from testbed.network import Network
from testbed.sandbox import ensure

ensure()
setLogLevel("output")
with Network(SingleSwitchTopo(2)) as net:
    CLI(net, script=sys.argv[1])
"""


def test_a_cli_script(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.write_text("nodes\nnet\nh1 echo cli-$((1+1))\npy h1.IP()\npingpair\nlinks\n")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, commands],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for expected in ("cli-2", "10.0.0.1", "0% dropped", "(OK OK)"):
        assert expected in done.stdout + done.stderr


@live
def test_iperf_reports_both_ends() -> None:
    with Network(SingleSwitchTopo(2)) as net:
        result = net.iperf(seconds=1)
    assert len(result) == 2
    assert all(float(rate.split()[0]) > 1 for rate in result)


# -- classes written for Mininet -------------------------------------------------------------------


class OldRouter(MininetNode):
    """After examples/linuxrouter.py."""

    def config(self, **params: Any) -> Any:
        result = super().config(**params)
        self.cmd("sysctl -w net.ipv4.ip_forward=1")
        return result


class OldHost(MininetHost):
    def config(self, colour: str = "", **params: Any) -> Any:
        self.colour = colour
        return super().config(**params)


class OldBridge(MininetLinuxBridge):
    started = False

    def start(self, controllers: Any) -> None:
        self.started = True
        super().start(controllers)


class OldLink(MininetTCLink):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, bw=20, **kwargs)


class OldTopo(Topo):
    def build(self) -> None:
        router = self.addNode("r0", cls=OldRouter, ip="10.1.0.1/24")
        for i in (1, 2):
            switch = self.addSwitch(f"s{i}", cls=OldBridge)
            self.addLink(switch, router, intfName2=f"r0-eth{i}", params2={"ip": f"10.{i}.0.1/24"})
            host = self.addHost(
                f"h{i}",
                cls=OldHost,
                colour="red",
                ip=f"10.{i}.0.100/24",
                defaultRoute=f"via 10.{i}.0.1",
            )
            self.addLink(host, switch, cls=OldLink)


@live
def test_custom_classes_of_mininet_keep_working() -> None:
    with Network(OldTopo()) as net:
        assert net.pingAll() == 0
        assert net["h1"].colour == "red"
        assert net["s1"].started
        shaped = net.linksBetween(net["h1"], net["s1"])[0]
        assert isinstance(shaped, Link)
        assert shaped.specs is not None
        assert shaped.specs[0].bw == 20


# -- Open vSwitch ----------------------------------------------------------------------------------


@live
@pytest.mark.parametrize("cls", [OVSSwitch, MininetOVSBridge])
def test_open_vswitch_in_userspace(cls: type) -> None:
    def carries_tcp(net: Network) -> bool:
        return float(net.iperf(seconds=1)[0].split()[0]) > 1

    with Network(LinearTopo(3), switch=cls) as net:
        assert wait_until(lambda: net.ping([net["h1"], net["h3"]], timeout="5") == 0)
        assert net.pingAll(timeout="5") == 0
        assert carries_tcp(net)
        assert "actions=NORMAL" in net["s1"].dpctl("dump-flows")
    assert home_interfaces() == {"lo"}
    assert not [name for name in os.listdir("/run") if name.startswith("openvswitch")]


@live
@pytest.mark.parametrize("cls", [Bridge, OVSSwitch])
def test_a_host_moves_between_switches_with_its_link(cls: type) -> None:
    told: list[dict[str, Any]] = []
    with Network(LinearTopo(3, lopts={"delay": "5ms"}), switch=cls) as net:
        net.observers.append(lambda kind, **data: told.append({"kind": kind, **data}))
        h1, h3, s1, s3 = net.get("h1", "h3", "s1", "s3")
        assert wait_until(lambda: net.ping([h1, h3], timeout="5") == 0)
        net.moveHost("h1", s3, port=9)
        assert h1.connectionsTo(s1) == []
        assert h1.connectionsTo(s3)[0][1].name == "s3-eth9"
        assert net.pingAll(timeout="5") == 0
        said = h1.cmd(f"ping -c2 -i0.2 {h3.IP()}")
        assert float(said.split("min/avg/max/mdev = ")[1].split("/")[0]) >= 20
        with pytest.raises(TopologyError, match="has 0 links to s1"):
            net.moveHost(h1, s3, old=s1)
    assert told[0]["kind"] == "host moved"
    assert told[0]["mark"] == "h1 to s3"


@live
@pytest.mark.parametrize("cls", [Bridge, OVSSwitch])
def test_a_plain_link_is_impaired_as_it_runs(cls: type) -> None:
    with Network(SingleSwitchTopo(2), switch=cls) as net:
        h1, h2, s1 = net.get("h1", "h2", "s1")
        assert wait_until(lambda: net.ping([h1, h2], timeout="5") == 0)
        h1.cmd("ip route add 192.0.2.0/24 via 10.0.0.2; ip addr add 10.7.0.1/24 dev h1-eth0")
        mac, (_mine, port) = h1.MAC(), h1.connectionsTo(s1)[0]

        def rtt_ms() -> float:
            said = h1.cmd(f"ping -c3 -i0.1 {h2.IP()}")
            return float(said.split("min/avg/max/mdev = ")[1].split("/")[0])

        before = rtt_ms()
        h1.intf().config(delay="20ms")
        one_way = rtt_ms()
        port.link.update(params2={"delay": "30ms"})
        assert before < 20 <= one_way < 50 <= rtt_ms()
        assert h1.intf().updateMAC() == mac
        assert "192.0.2.0/24 via 10.0.0.2" in h1.cmd("ip route")
        assert "10.7.0.1/24" in h1.cmd("ip -4 addr")
        assert port.name == "s1-eth1"
        assert port.isUp()


# -- addresses and routes by plan ------------------------------------------------------------------


class TwoPaths(Topo):
    """A host with two interfaces, each behind a router of its own."""

    def build(self) -> None:
        self.addHost("phone")
        self.addHost("server")
        for name in ("r1", "r2", "core"):
            self.addHost(name, cls=Router)
        self.addLink("phone", "r1", intfName1="wifi")
        self.addLink("phone", "r2", intfName1="lte")
        self.addLink("r1", "core")
        self.addLink("r2", "core")
        self.addLink("core", "server")


@live
def test_a_routed_network_is_reachable_in_both_families_over_both_interfaces() -> None:
    with Network(TwoPaths()) as net:
        assert net.pingAll() == 0
        phone, server = net["phone"], net["server"]
        for name in ("wifi", "lte"):
            intf = phone.nameToIntf[name]
            for source, target in ((intf.ip, server.IP()), (intf.ip6, server.IP6())):
                assert " 0% packet" in phone.cmd(f"ping -c1 -W5 -I {source} {target}")
            went = phone.cmd(f"ip route get {server.IP()} from {intf.ip}")
            assert f"dev {name}" in went


@live
def test_addresses_given_by_hand_are_kept() -> None:
    class ByHand(TwoPaths):
        def build(self) -> None:
            super().build()
            self.addHost("pc")
            self.addLink("pc", "core", params1={"ip": "192.168.7.2/24", "ip6": "fd99::2/64"})

    with Network(ByHand()) as net:
        assert net["pc"].IP() == "192.168.7.2"
        assert net["pc"].IP6() == "fd99::2"
        assert net.pingAll() == 0


# -- mistakes --------------------------------------------------------------------------------------


@live
def test_mistakes_are_named() -> None:
    net = Network()
    net.addHost("h1")
    with pytest.raises(TopologyError, match="two nodes named 'h1'"):
        net.addHost("h1")
    net.addHost("a-very-long-name")
    with pytest.raises(TopologyError, match="longer than 15 characters"):
        net.addLink("h1", "a-very-long-name")
    net.addHost("h2")
    link = net.addLink("h1", "h2")
    with pytest.raises(TopologyError, match="without impairments"):
        link.update(bw=5)
    with pytest.raises(TopologyError, match=r"10\.0\.0\.300"):
        net["h1"].setIP("10.0.0.300/8")
    net.stop()


@live
def test_a_live_link_is_updated() -> None:
    net = Network()
    for name in ("h1", "h2"):
        net.addHost(name)
    link = net.addLink("h1", "h2", delay="1ms")
    with net:

        def rtt_ms() -> float:
            said = net["h1"].cmd(f"ping -c3 -i0.1 {net['h2'].IP()}")
            return float(said.split("min/avg/max/mdev = ")[1].split("/")[0])

        before = rtt_ms()
        link.update(delay="40ms", params2={"delay": "10ms"})
        after = rtt_ms()
    assert before < 40 < 50 <= after
