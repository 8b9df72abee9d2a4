"""The topologies: their shapes, and that everybody reaches everybody."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import Any

import pytest

from testbed.errors import TopologyError
from testbed.network import Host, Network
from testbed.network.expect import check, stated
from testbed.verdict import HOLDS
from topologies.dumbbell import Dumbbell
from topologies.fat_tree import FatTree
from topologies.mobile import Mobile
from topologies.operators import Operators
from topologies.random_graph import RandomGraph
from topologies.star import Star
from topologies.tree import Tree
from topologies.two_isps import TwoIsps

NAMES = (
    "devices", "dumbbell", "fat_tree", "mobile", "operators", "random_graph", "star", "tree",
    "two_isps",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_module_has_its_topology_and_a_picture(name: str) -> None:
    module = import_module(f"topologies.{name}")
    assert list(module.topos) == [name]
    topo = module.topos[name]()
    assert topo.hosts()
    assert any("-- " in row or "\\" in row for row in (module.__doc__ or "").splitlines())
    assert topo.__doc__


def ends(topo: Any, one: str, other: str) -> dict[str, Any]:
    return topo.linkInfo(one, other)  # type: ignore[no-any-return]


def test_mobile_takes_rates_both_ways() -> None:
    topo = Mobile(wifi_bw=20, wifi_bw_up=5, lte_bw=10, lte_loss=1, lte={"jitter": "2ms"}, servers=2)
    wifi, lte = ends(topo, "phone", "ap"), ends(topo, "phone", "enodeb")
    assert (wifi["bw"], wifi["params1"], wifi["intfName1"]) == (20, {"bw": 5}, "wifi")
    assert (lte["bw"], lte["loss"], lte["jitter"], lte["intfName1"]) == (10, 1, "2ms", "lte")
    assert "params1" not in lte
    assert {"server1", "server2"} < set(topo.nodes())


def test_a_fat_tree_has_the_paper_s_counts() -> None:
    for k in (2, 4, 6):
        topo = FatTree(k)
        hosts = [name for name in topo.nodes() if "h" in name]
        assert len(hosts) == k**3 // 4
        assert len(topo.nodes()) - len(hosts) == 5 * k**2 // 4
        assert len(topo.links()) == 3 * k**3 // 4


def test_a_tree_has_its_hosts_at_the_leaves() -> None:
    topo = Tree(3, 4)
    hosts = [name for name in topo.nodes() if name.startswith("h")]
    assert (len(hosts), len(topo.nodes()), len(topo.links())) == (64, 64 + 21, 84)
    assert all(len([link for link in topo.links() if name in link]) == 1 for name in hosts)


@pytest.mark.parametrize(("routers", "degree"), [(1, 0), (2, 1), (20, 1.9), (20, 3), (8, 7)])
def test_a_random_graph_is_connected_and_has_its_degree(routers: int, degree: float) -> None:
    topo = RandomGraph(routers, degree, hosts=2)
    between = [set(link) for link in topo.links() if not any("h" in name for name in link)]
    assert len(between) == round(routers * degree / 2) == len({frozenset(link) for link in between})
    reached = {"r1"}
    while more := [link for link in between if len(link & reached) == 1]:
        reached.update(*more)
    assert len(reached) == routers
    assert len(topo.links()) - len(between) == 2 * routers


def test_a_seed_fixes_a_random_graph() -> None:
    one, same, other = (RandomGraph(30, 4, seed=seed).links(sort=True) for seed in (5, 5, 6))
    assert one == same != other


def test_a_star_with_more_hosts_than_a_bridge_has_ports_has_several_bridges() -> None:
    assert Star(1023).switches() == ["s1"]
    topo = Star(4000)
    ports = Counter(end for link in topo.links() for end in link)
    assert max(ports[bridge] for bridge in topo.switches()) <= 1023
    assert [ports[bridge] for bridge in topo.switches()] == [4, 1001, 1001, 1001, 1001]
    assert len(topo.hosts()) == 4000


def test_dumbbell_pairs_may_differ_in_delay() -> None:
    topo = Dumbbell(3, access_delay=["1ms", "20ms"])
    assert [ends(topo, f"left{n}", "west")["delay"] for n in (1, 2, 3)] == ["1ms", "20ms", "1ms"]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Star(0),
        lambda: Star("many"),
        lambda: Dumbbell(-1),
        lambda: Mobile(servers=0),
        lambda: Operators(clients=0),
        lambda: Operators(middleboxes=-1),
        lambda: FatTree(3),
        lambda: FatTree(0),
        lambda: Tree(0),
        lambda: Tree(2, 0),
        lambda: RandomGraph(0),
        lambda: RandomGraph(10, 1),
        lambda: RandomGraph(10, 10),
        lambda: RandomGraph(10, "three"),
        lambda: RandomGraph(10, hosts=-1),
    ],
)
def test_impossible_counts_are_refused_with_a_remedy(build: Any) -> None:
    with pytest.raises(TopologyError) as caught:
        build()
    assert caught.value.remedy


@pytest.mark.live
@pytest.mark.parametrize("name", NAMES)
def test_everybody_reaches_everybody(name: str) -> None:
    module = import_module(f"topologies.{name}")
    with Network(module.topos[name]()) as net:
        ends_only = [node for node in net.hosts if isinstance(node, Host)]
        assert net.ping(ends_only, timeout="5") == 0


@pytest.mark.live
def test_operators_keep_to_the_ways_the_topology_states() -> None:
    topo = Operators(clients=1, middleboxes=1)
    with Network(topo) as net:
        outcomes = check(net, stated(topo))
    assert outcomes
    assert [each.verdict.outcome for each in outcomes] == [HOLDS] * len(outcomes)


@pytest.mark.live
def test_addresses_of_a_multihomed_node_leave_by_their_own_interface() -> None:
    for topo, host, server, names in (
        (Mobile(), "phone", "server1", ("wifi", "lte")),
        (TwoIsps(), "client", "site", ("isp_a", "isp_b")),
    ):
        with Network(topo) as net:
            node, target = net[host], net[server]
            assert set(node.nameToIntf) == set(names)
            for name in names:
                before = _sent(node, name)
                out = node.cmd(f"ping -c1 -W5 -I {node.nameToIntf[name].ip} {target.IP()}")
                assert "1 received" in out
                assert _sent(node, name) > before


def _sent(node: Any, name: str) -> int:
    return int(node.cmd(f"cat /sys/class/net/{name}/statistics/tx_packets"))
