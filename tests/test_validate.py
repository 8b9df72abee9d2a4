"""Topologies that cannot be meant are refused before anything is built, with the line."""

from __future__ import annotations

import inspect
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mininet.node import Node as MininetNode
from mininet.topo import LinearTopo, SingleSwitchReversedTopo, SingleSwitchTopo, Topo
from mininet.topolib import TorusTopo, TreeTopo

from testbed.errors import FeatureError, ParameterError, TestbedError, TopologyError
from testbed.network import Bridge, Host, Network, OVSSwitch, Router
from testbed.network.addressing import AddressPlan, Port, plan_addresses, plan_routes, segments
from testbed.network.sketch import Settings, of_topo
from testbed.network.validate import refuse_bad
from topologies.fat_tree import FatTree
from topologies.mobile import Mobile
from topologies.two_isps import TwoIsps

live = pytest.mark.live


class LinuxRouter(MininetNode):
    """A router of the user's, in Mininet's style."""

    def config(self, **params: Any) -> Any:
        return super().config(**params)


def pair(topo: Topo, *names: str, **options: Any) -> None:
    for name in names or ("h1", "h2"):
        topo.addHost(name, **options)


BAD: dict[str, tuple[str, Callable[[Topo], Any]]] = {}


def bad(message: str) -> Callable[[Callable[[Topo], Any]], Callable[[Topo], Any]]:
    """Register a way to build a bad topology; the line marked HERE is the one to be named."""

    def register(build: Callable[[Topo], Any]) -> Callable[[Topo], Any]:
        BAD[build.__name__] = message, build
        return build

    return register


@bad(r"there are two nodes named 'h1' \(the first: .*test_validate\.py:\d+\)")
def duplicate(topo: Topo) -> None:
    topo.addHost("h1")
    topo.addSwitch("h1")  # HERE


@bad(r"a link to 'h22', and there is no such node; do you mean 'h2'\?")
def dangling(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h22", port1=0, port2=0)  # HERE


@bad(r"two interfaces named 'eth0'.*h1's end 1 of the link h1 - h2.*rename one")
def same_name(topo: Topo) -> None:
    pair(topo, "h1", "h2", "h3")
    topo.addLink("h1", "h2", intfName1="eth0")
    topo.addLink("h1", "h3", intfName1="eth0")  # HERE


@bad(r"two interfaces named 'wan': of s2's end")
def same_name_on_two_switches(topo: Topo) -> None:
    topo.addSwitch("s1")
    topo.addSwitch("s2")
    pair(topo)
    topo.addLink("h1", "s1", intfName2="wan")
    topo.addLink("h2", "s2", intfName2="wan")  # HERE


@bad(r"two interfaces named 's1': of h1's end .*the switch s1 itself")
def name_of_a_switch(topo: Topo) -> None:
    topo.addSwitch("s1")
    topo.addHost("h1", inNamespace=False)
    topo.addLink("h1", "s1", intfName1="s1")  # HERE


@bad(r"two interfaces named 's1-eth1'.*give port1= / port2= once each")
def same_port(topo: Topo) -> None:
    topo.addSwitch("s1")
    pair(topo)
    topo.addLink("h1", "s1", port2=1)
    topo.addLink("h2", "s1", port2=1)  # HERE


@bad(r"port 0 of h1 is given to h1:a and h1:b")
def same_port_other_name(topo: Topo) -> None:
    pair(topo, "h1", "h2", "h3")
    topo.addLink("h1", "h2", port1=0, intfName1="a")
    topo.addLink("h1", "h3", port1=0, intfName1="b")  # HERE


@bad(r"interface name 'a-very-long-name-eth0' is longer than 15 characters; shorten")
def long_generated_name(topo: Topo) -> None:
    pair(topo, "h1", "a-very-long-name")
    topo.addLink("h1", "a-very-long-name")  # HERE


@bad(r"interface name 'a-very-long-switch' is longer .*it is an interface too")
def long_switch_name(topo: Topo) -> None:
    topo.addSwitch("a-very-long-switch")  # HERE


@bad(r"the kernel takes no interface named 'eth/0'")
def slash_in_a_name(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", intfName2="eth/0")  # HERE


@bad(r"a node named 'h 1'")
def blank_in_a_name(topo: Topo) -> None:
    topo.addHost("h 1")  # HERE


@bad(r"h2-eth0 has the address 10\.0\.0\.1 that h1-eth0 .* has, in one segment")
def same_address(topo: Topo) -> None:
    topo.addSwitch("s1")
    topo.addHost("h1", ip="10.0.0.1/8")
    topo.addHost("h2", ip="10.0.0.1/8")  # HERE
    for name in ("h1", "h2"):
        topo.addLink(name, "s1")


@bad(r"h1-eth0 has the address 10\.0\.0\.2 that h2-eth0|h2-eth0 has the address 10\.0\.0\.2 that")
def address_that_mininet_hands_out(topo: Topo) -> None:
    topo.addHost("h1", ip="10.0.0.2/8")
    topo.addHost("h2")  # HERE
    topo.addLink("h1", "h2")


@bad(r"h2:wan has the address fd00::1 that h1:wan")
def same_ipv6_address(topo: Topo) -> None:
    pair(topo)
    six = {"ip6": "fd00::1/64"}
    topo.addLink("h1", "h2", intfName1="wan", intfName2="wan", params1=six, params2=six)  # HERE


@bad(r"h1-eth0: '10\.0\.0\.300/8' is not an address; write one like")
def bad_address(topo: Topo) -> None:
    topo.addHost("h1", ip="10.0.0.300/8")  # HERE
    topo.addHost("h2")
    topo.addLink("h1", "h2")


@bad(r"h1-eth0: 10\.0\.0\.1/8 is an IPv4 address; give IPv4 as ip=")
def wrong_family(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", params1={"ip6": "10.0.0.1/8"})  # HERE


@bad(r"h1-eth1: address 10\.1\.0\.1 has no prefix length")
def no_prefix(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2")
    topo.addLink("h1", "h2", params1={"ip": "10.1.0.1"})  # HERE


@bad(r"h1-eth0 is given 10\.1\.0\.0/24, which is the address of the network itself")
def network_address(topo: Topo) -> None:
    topo.addHost("h1", ip="10.1.0.0/24")  # HERE
    topo.addHost("h2", ip="10.1.0.2/24")
    topo.addLink("h1", "h2")


@bad(r"h1-eth0 is given 10\.1\.0\.255/24, which is the broadcast address")
def broadcast_address(topo: Topo) -> None:
    topo.addHost("h1", ip="10.1.0.255/24")  # HERE
    topo.addHost("h2", ip="10.1.0.2/24")
    topo.addLink("h1", "h2")


@bad(r"h1-eth0 is given fd00::/64, which is every router's too")
def anycast_address(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", params1={"ip6": "fd00::/64"})  # HERE


@bad(r"in a segment where .*give the interfaces of a segment addresses of one subnet")
def contradicting_prefixes(topo: Topo) -> None:
    topo.addHost("h1", ip="10.0.0.1/8")
    topo.addHost("h2", ip="10.5.0.1/24")  # HERE
    topo.addLink("h1", "h2")


@bad(r"r1-eth0 has 10\.1\.1\.1/24 in a segment where h1-eth0 has 10\.1\.0\.2/24")
def two_subnets_on_a_routed_segment(topo: Topo) -> None:
    topo.addHost("r1", cls=Router)
    topo.addHost("h1")
    topo.addLink("h1", "r1", params1={"ip": "10.1.0.2/24"}, params2={"ip": "10.1.1.1/24"})  # HERE


@bad(r"h1 has 10\.1\.0\.1/24 on h1-eth0 and 10\.1\.0\.9/16 on h1-eth1: overlapping subnets")
def overlap_at_a_node(topo: Topo) -> None:
    topo.addHost("h1", ip="10.1.0.1/24")
    topo.addHost("h2", ip="10.1.0.2/24")
    topo.addHost("h3", ip="10.1.3.2/16")
    topo.addLink("h1", "h2")
    topo.addLink("h1", "h3", params1={"ip": "10.1.0.9/16"})  # HERE


@bad(r"h2-eth0 has 10\.1\.0\.2/24 and h1-eth0 has 10\.1\.0\.1/24: overlapping subnets")
def overlap_in_a_routed_network(topo: Topo) -> None:
    topo.addHost("r1", cls=Router)
    pair(topo)
    topo.addLink("h1", "r1", params1={"ip": "10.1.0.1/24"})
    topo.addLink("h2", "r1", params1={"ip": "10.1.0.2/24"})  # HERE


@bad(r"have one MAC address, 02:00:00:00:00:01, in one segment")
def same_mac(topo: Topo) -> None:
    topo.addHost("h1", mac="02:00:00:00:00:01")
    topo.addHost("h2", mac="02:00:00:00:00:01")  # HERE
    topo.addLink("h1", "h2")


@bad(r"h1-eth0: '02:00:00' is not a MAC address")
def bad_mac(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", addr1="02:00:00")  # HERE


@bad(r"01:00:5e:00:00:01 is the MAC address of no single interface")
def multicast_mac(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", addr1="01:00:5e:00:00:01")  # HERE


@bad(r"link h1 - h2: bw is 0; give a rate in Mb/s")
def no_rate(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", bw=0)  # HERE


@bad(r"link h1 - h2: delay is 'soon'; give a time")
def no_delay(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", params2={"delay": "soon"})  # HERE


@bad(r"link h1 - h2: loss is 101; give a percentage")
def impossible_loss(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", loss=101)  # HERE


@bad(r"link h1 - h2: jitter is '5ms' with a delay of '1ms'")
def jitter_above_one_side_s_delay(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", delay="10ms", jitter="5ms", params1={"delay": "1ms"})  # HERE


@bad(r"link h1 - h2: params1 is 'fast'")
def params_that_are_none(topo: Topo) -> None:
    pair(topo)
    topo.addLink("h1", "h2", params1="fast")  # HERE


@bad(r"h1: default route via 10\.0\.0\.9, which nobody on its segment has")
def gateway_that_is_nobody(topo: Topo) -> None:
    topo.addSwitch("s1")
    topo.addHost("h1", defaultRoute="via 10.0.0.9")  # HERE
    topo.addHost("h2")
    for name in ("h1", "h2"):
        topo.addLink(name, "s1")


@bad(r"h1: default route via 172\.16\.0\.1, which is on no segment of it")
def gateway_elsewhere(topo: Topo) -> None:
    topo.addHost("h1", ip="10.1.0.1/24", defaultRoute="via 172.16.0.1")  # HERE
    topo.addHost("h2", ip="10.1.0.2/24")
    topo.addLink("h1", "h2")


@bad(r"h1: default route through 'eth7', which it does not have")
def route_through_nothing(topo: Topo) -> None:
    topo.addHost("h1", defaultRoute="dev eth7")  # HERE
    topo.addHost("h2")
    topo.addLink("h1", "h2")


@bad(r"h1: default route 'by 10\.0\.0\.1'")
def route_that_is_none(topo: Topo) -> None:
    topo.addHost("h1", defaultRoute="by 10.0.0.1")  # HERE
    topo.addHost("h2")
    topo.addLink("h1", "h2")


@bad(r"bridge s1 has 1030 ports, and a Linux bridge takes 1023")
def too_many_ports(topo: Topo) -> None:
    topo.addSwitch("s1")  # HERE
    for number in range(1030):
        topo.addLink(topo.addHost(f"h{number}"), "s1")


@bad(r"link s3 - s1 closes a loop of bridges without spanning tree.*stp=True")
def loop(topo: Topo) -> None:
    for name in ("s1", "s2", "s3"):
        topo.addSwitch(name)
    topo.addLink("s1", "s2")
    topo.addLink("s2", "s3")
    topo.addLink("s3", "s1")  # HERE


@bad(r"link s1 - s2 closes a loop")
def two_links_between_two_bridges(topo: Topo) -> None:
    topo.addSwitch("s1")
    topo.addSwitch("s2")
    topo.addLink("s1", "s2")
    topo.addLink("s1", "s2")  # HERE


def expected_line(build: Callable[[Topo], Any]) -> int:
    lines, first = inspect.getsourcelines(build)
    return first + next(n for n, text in enumerate(lines) if "# HERE" in text)


def check(build: Callable[[Topo], Any], **options: Any) -> None:
    topo = Topo()
    build(topo)
    refuse_bad(topo, Settings(**options))


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_meant_is_refused_with_its_line(name: str) -> None:
    message, build = BAD[name]
    with pytest.raises((TopologyError, ParameterError)) as caught:
        check(build)
    said = str(caught.value)
    first = said.splitlines()[0]
    assert re.search(message, first), said
    assert re.match(rf"\S*test_validate\.py:{expected_line(build)}: ", first), said


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_file() -> None:
    def several(topo: Topo) -> None:
        pair(topo, "h1", "h1", "h2")
        topo.addLink("h1", "h2", bw=-1)
        topo.addLink("h1", "h2", intfName1="much-too-long-a-name")

    with pytest.raises(TopologyError) as caught:
        check(several)
    lines = str(caught.value).splitlines()
    assert [re.sub(r"^\S+: ", "", line).split()[0] for line in lines] == [
        "there", "link", "interface",
    ]  # fmt: skip


def test_a_small_ip_base_is_refused() -> None:
    topo = SingleSwitchTopo(9)
    with pytest.raises(TopologyError, match=r"10\.0\.0\.7/29, which is the broadcast"):
        refuse_bad(topo, Settings(ip_base="10.0.0.0/29"))
    with pytest.raises(TopologyError, match="ipBase has no address left for h9"):
        refuse_bad(topo, Settings(ip_base="10.0.0.0/29"))


def test_what_this_machine_lacks_stays_the_machine_s_error() -> None:
    def refuse(_specs: Any) -> None:
        raise FeatureError("this kernel has no netem", remedy="use another")

    topo = Topo()
    pair(topo)
    topo.addLink("h1", "h2", delay="1ms")
    with pytest.raises(FeatureError, match=r"test_validate.py:\d+: link h1 - h2: this kernel"):
        refuse_bad(topo, choose=refuse)


# -- what can be meant ---------------------------------------------------------------------------


class LinuxRouterTopo(Topo):
    """After examples/linuxrouter.py."""

    def build(self) -> None:
        router = self.addNode("r0", cls=LinuxRouter, ip="192.168.1.1/24")
        switches = [self.addSwitch(name) for name in ("s1", "s2")]
        self.addLink(switches[0], router, intfName2="r0-eth1", params2={"ip": "192.168.1.1/24"})
        self.addLink(switches[1], router, intfName2="r0-eth2", params2={"ip": "172.16.0.1/12"})
        self.addHost("h1", ip="192.168.1.100/24", defaultRoute="via 192.168.1.1")
        self.addHost("h2", ip="172.16.0.100/12", defaultRoute="via 172.16.0.1")
        for host, switch in zip(("h1", "h2"), switches, strict=True):
            self.addLink(host, switch)


class TwoSubnetsOnOneSwitch(Topo):
    """As in OpenFlow tutorials, where the controller plays the gateway."""

    def build(self) -> None:
        self.addSwitch("s1")
        for n in (1, 2):
            self.addHost(f"h{n}", ip=f"10.0.{n}.100/24", defaultRoute=f"via 10.0.{n}.1")
            self.addLink(f"h{n}", "s1")


GOOD: dict[str, tuple[Callable[[], Topo], dict[str, Any]]] = {
    "single": (lambda: SingleSwitchTopo(5), {}),
    "reversed ports": (lambda: SingleSwitchReversedTopo(5), {}),
    "linear": (lambda: LinearTopo(4, 2), {}),
    "tree": (lambda: TreeTopo(3, 3), {}),
    "torus with spanning tree": (lambda: TorusTopo(3, 3), {"switch": partial(Bridge, stp=True)}),
    "torus of Open vSwitch": (lambda: TorusTopo(3, 3), {"switch": OVSSwitch}),
    "a router of the user's": (LinuxRouterTopo, {}),
    "two subnets on a programmable switch": (TwoSubnetsOnOneSwitch, {"switch": OVSSwitch}),
    "fat tree": (FatTree, {}),
    "mobile": (Mobile, {}),
    "two providers": (TwoIsps, {}),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_meant_is_not_refused(name: str) -> None:
    make, options = GOOD[name]
    refuse_bad(make(), Settings(**options))


def test_two_subnets_on_a_plain_bridge_need_their_gateway() -> None:
    with pytest.raises(TopologyError, match=r"via 10\.0\.1\.1, which nobody"):
        refuse_bad(TwoSubnetsOnOneSwitch())


def test_what_is_odd_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    topo = SingleSwitchTopo(2)
    topo.addHost("alone")
    with caplog.at_level(logging.WARNING):
        refuse_bad(topo)
        refuse_bad(TorusTopo(3, 3), Settings(switch=OVSSwitch))
    said = [record.getMessage() for record in caplog.records]
    assert "alone reaches no other node" in said[0]
    assert "loop of bridges without spanning tree" in said[1]


@st.composite
def topologies(draw: st.DrawFn) -> Topo:
    """Random trees of bridges and routers with hosts, and further links between routers."""
    topo = Topo()
    nodes: list[str] = []
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["host", "bridge", "router"]))
        name = f"{kind[0]}{number}"
        if kind == "bridge":
            topo.addSwitch(name)
        else:
            topo.addHost(name, cls=Router if kind == "router" else Host)
        if nodes:
            topo.addLink(draw(st.sampled_from(nodes)), name, **draw(link_options))
        nodes.append(name)
    routers = [name for name in nodes if name.startswith("r")]
    if len(routers) > 1:
        for _ in range(draw(st.integers(0, 3))):
            topo.addLink(*draw(st.permutations(routers))[:2])
    return topo


link_options = st.fixed_dictionaries(
    {}, optional={"bw": st.floats(0.1, 1000), "delay": st.sampled_from(["1ms", 5]),
                  "loss": st.floats(0, 50)}
)  # fmt: skip


@given(topologies())
@settings(max_examples=60, deadline=None)
def test_random_good_topologies_pass_and_can_be_planned(topo: Topo) -> None:
    refuse_bad(topo)
    sketch = of_topo(topo, Settings())
    ends = [[Port(e.node.name, e.name, e.node.router, e.node.switch) for e in link.ends]
            for link in sketch.links]  # fmt: skip
    parts = segments((one, two) for one, two in ends)
    drawn = {frozenset((e.node.name, e.name) for e in part) for part in sketch.segments}
    assert drawn == {frozenset((p.node, p.interface) for p in part) for part in parts}
    if sketch.routed:
        plan_routes(parts, plan_addresses(parts, {}, AddressPlan()))


# -- where it is noticed -------------------------------------------------------------------------


BAD_FILE = """
from mininet.topo import Topo

class Wrong(Topo):
    def build(self):
        self.addHost("h1")
        self.addHost("h1")
        self.addHost("h2")
        self.addLink("h1", "h2", bw=-5)
"""

BAD_SCRIPT = """
from mininet.topo import Topo
from testbed.network import Network
from testbed.sandbox import ensure

ensure()
net = Network()
net.addHost("h1")
net.addHost("h2")
try:
    net.addLink("h1", "h2", loss=200)
finally:
    print(net["h1"].intfList(), net.links)
"""


def run(*command: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip


def test_the_command_says_each_problem_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(BAD_FILE)
    done = run("-m", "testbed.cli.main", "topo", file)
    assert done.returncode == 2
    first, second = done.stderr.strip().splitlines()
    assert "net.py:7: there are two nodes named 'h1'" in first
    assert "net.py:9: link h1 - h2: bw is -5" in second


def test_a_script_s_own_call_is_named_and_nothing_was_built(tmp_path: Path) -> None:
    script = tmp_path / "net.py"
    script.write_text(BAD_SCRIPT)
    done = run("-W", "ignore", script)
    assert done.returncode != 0
    assert "net.py:11: loss is 200" in done.stderr
    assert done.stdout.strip() == "[] []"


@live
def test_nothing_is_built_of_a_bad_topology() -> None:
    import os

    topo = Topo()
    topo.addSwitch("s1")
    pair(topo, "h1", "h2", ip="10.0.0.1/8")
    for name in ("h1", "h2"):
        topo.addLink(name, "s1")
    with pytest.raises(TopologyError, match="in one segment"):
        Network(topo)
    assert set(os.listdir("/sys/class/net")) == {"lo"}


def refused(message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(TestbedError, match=message) as caught:
        call()
    assert re.match(r"\S*test_validate\.py:\d+: ", str(caught.value))


@live
def test_each_call_is_checked_in_a_network_made_step_by_step() -> None:
    net = Network()
    for name in ("s1", "s2"):
        net.addSwitch(name)
    for name in ("h1", "h2"):
        net.addHost(name)
    refused("two nodes named 'h1'", lambda: net.addHost("h1"))
    refused(r"'10\.0\.0\.300/8' is not an address", lambda: net.addHost("h9", ip="10.0.0.300/8"))
    refused("do you mean 'h2'", lambda: net.addLink("h1", "h22"))
    refused("takes no interface named 'a b'", lambda: net.addLink("h1", "s1", intfName1="a b"))
    net.addLink("h1", "s1")
    refused("h1 has an interface 'h1-eth0'", lambda: net.addLink("h1", "s1", intfName1="h1-eth0"))
    net.addLink("s1", "s2")
    refused("closes a loop of bridges", lambda: net.addLink("s2", "s1"))
    net.addLink("h2", "s2")
    with net:
        assert net.pingAll() == 0
        refused("closes a loop of bridges", lambda: net.addLink("s2", "s1"))


@live
def test_the_whole_of_a_network_made_step_by_step_is_checked_when_it_is_built() -> None:
    net = Network()
    for name in ("h1", "h2"):
        net.addHost(name, ip="10.0.0.7/8")
    net.addLink("h1", "h2")
    refused("h2-eth0 has the address 10.0.0.7 that h1-eth0", net.start)
    net.stop()
