"""One call at a time: is this node, this link possible in a network as it stands?

For networks that are put together by `net.addHost`, `net.addLink`, also while they run.  What
can be seen only in the whole, such as addresses, is checked when the network is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from testbed.errors import TopologyError
from testbed.network import rules
from testbed.network.node import Node
from testbed.network.switch import Bridge
from testbed.network.validate import loop, too_many_ports
from testbed.network.where import unknown_node

if TYPE_CHECKING:
    from testbed.network.net import Network


def check_node(net: Network, name: Any, cls: Any, params: Mapping[str, Any]) -> None:
    """Raise `UserError` where `net` cannot have one more node like this, of class `cls`."""
    rules.node_name(name)
    if isinstance(cls, type) and issubclass(cls, Node):
        cls.check(name, params)
    if name in net.nameToNode:
        raise TopologyError(f"there are two nodes named {name!r}", remedy="rename one of them")
    for key, version in (("ip", 4), ("ip6", 6)):
        if isinstance(params.get(key), str):
            found = rules.address(params[key], version, owner=name, prefix="8" * (version == 4))
            rules.host_address(found, owner=name)
    if params.get("mac"):
        rules.mac_address(params["mac"], owner=name)
    if params.get("defaultRoute"):
        rules.default_route(params["defaultRoute"], owner=name)


def check_link(net: Network, node1: Any, node2: Any) -> None:
    """Raise `TopologyError` where `net` cannot have one more link between these two."""
    one, two = (_node(net, each) for each in (node1, node2))
    for node in (one, two):
        if isinstance(node, Bridge) and len(node.intfs) >= rules.BRIDGE_PORTS + len(_own(node)):
            problem = too_many_ports(node.name, rules.BRIDGE_PORTS + 1, None)
            raise TopologyError(problem.text, remedy=problem.remedy)
    if _floods(one) and _floods(two) and _joined(one, two):
        problem = loop(f"{one.name} - {two.name}", None)
        raise TopologyError(problem.text, remedy=problem.remedy)


def _node(net: Network, node: Any) -> Any:
    if not isinstance(node, str):
        return node
    if node not in net.nameToNode:
        raise unknown_node(node, net.nameToNode)
    return net.nameToNode[node]


def _own(bridge: Bridge) -> list[Any]:
    """Interfaces of a bridge that are not its ports: its loopback."""
    return [intf for intf in bridge.intfs.values() if intf.name == "lo"]


def _floods(node: Any) -> bool:
    return isinstance(node, Bridge) and not node.stp


def _joined(one: Any, two: Any) -> bool:
    """Is there a way between two bridges over bridges without spanning tree?"""
    seen, waiting = {one}, [one]
    while waiting:
        for other in _neighbours(waiting.pop()):
            if other not in seen and _floods(other):
                seen.add(other)
                waiting.append(other)
    return two in seen


def _neighbours(node: Any) -> Iterator[Any]:
    for intf in node.intfs.values():
        if intf.link is not None and intf.link.intf1 is not None:
            first, second = intf.link.intf1.node, intf.link.intf2.node
            yield second if first is node else first
