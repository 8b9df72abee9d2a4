"""Partitions: after one is made, no frame gets from one group of nodes to another.

Between nodes of two groups every link is cut silently.  A switch that is in no group belongs to
nobody and stays usable: each node behind such switches still hears its own group and those in
none, but no longer the frames that come from the other groups' interfaces, told by their MAC
addresses, whatever the number and kind of the switches between.  A host in no group talks to
everyone as before.  A router in no group must not lie between groups, since it would carry
packets from one to the other.

What has to be cut is computed here from the network's links; cutting is `cuts`' business.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from testbed.errors import TopologyError
from testbed.network.cuts import Cut
from testbed.network.node import Router
from testbed.network.switch import Switch

if TYPE_CHECKING:
    from testbed.network.live_network import LiveNetwork

Group = Iterable[Any]
"""Nodes of one group, as names or as nodes."""


class Partition:
    """A partition in force; `heal` ends it.  Its text is "h1 r1 | h2"."""

    def __init__(self, network: LiveNetwork, groups: list[list[Any]]) -> None:
        self._network = network
        self._text = " | ".join(" ".join(node.name for node in group) for group in groups)

    def heal(self) -> None:
        """End this partition; others stay in force."""
        self._network.heal(self)

    def __str__(self) -> str:
        return self._text


def resolve(network: Any, groups: tuple[Group, ...]) -> list[list[Any]]:
    """The groups as nodes; one group alone is parted from all other hosts and routers."""
    found = [sorted({_node(network, each) for each in group}, key=str) for group in groups]
    if len(found) == 1:
        named = set(found[0])
        found.append([host for host in network.hosts if host not in named])
    seen: dict[Any, int] = {}
    for number, group in enumerate(found):
        if not group:
            raise TopologyError(
                "a partition has a group without nodes", remedy="name at least one in each group"
            )
        for node in group:
            if node in seen:
                raise TopologyError(
                    f"{node} is in two groups of one partition", remedy="name it in one of them"
                )
            seen[node] = number
    if len(found) < 2:
        raise TopologyError("a partition has no groups", remedy='write net.partition({"h1"})')
    return found


def _node(network: Any, node: Any) -> Any:
    name = str(node)
    if name not in network:
        known = ", ".join(itertools.islice(sorted(network.nameToNode), 12))
        raise TopologyError(f"there is no node {name!r}", remedy=f"choose of {known}")
    return network[name]


class _End(NamedTuple):
    """Where a node that is no shared switch touches shared switches."""

    inner: Any  # the node's own interface
    outer: Any  # the switch's


def plan(network: Any, groups: list[list[Any]]) -> list[Cut]:
    """What must be cut.  Raises `TopologyError` for a node that would carry frames across."""
    group_of = {node: number for number, group in enumerate(groups) for node in group}
    cuts: list[Cut] = []
    pairs = [(link.intf1, link.intf2) for link in network.links if link.intf1 is not None]
    for first, second in pairs:
        numbers = [group_of.get(intf.node) for intf in (first, second)]
        if None not in numbers and numbers[0] != numbers[1]:
            cuts += [Cut(first), Cut(second)]
    _refuse_carriers(pairs, group_of, groups)
    for _nodes, ends in _components(pairs, lambda node: _is_shared(node, group_of)):
        cuts += _sort_out(ends, group_of)
    return cuts


def _is_shared(node: Any, group_of: dict[Any, int]) -> bool:
    return isinstance(node, Switch) and node not in group_of


def _refuse_carriers(
    pairs: list[tuple[Any, Any]], group_of: dict[Any, int], groups: list[list[Any]]
) -> None:
    """A node in no group that hands frames on must not lie between groups.

    Switches may, unless a switch that is in a group is behind them: whose frames come through
    that one cannot be told by the addresses of its own interfaces.
    """

    def carries(node: Any) -> bool:
        return node not in group_of and (isinstance(node, Switch) or _routes(node))

    for nodes, ends in _components(pairs, carries):
        members = [end.inner.node for end in ends if end.inner.node in group_of]
        touched = sorted({group_of[node] for node in members})
        at_fault = [node for node in nodes if _routes(node)]
        if any(isinstance(node, Switch) for node in members):
            at_fault = at_fault or sorted(nodes, key=str)
        if len(touched) > 1 and at_fault:
            between = " | ".join(" ".join(map(str, groups[number])) for number in touched)
            raise TopologyError(
                f"{at_fault[0]} is in no group and carries frames between the groups {between}",
                remedy=f"name {at_fault[0]} in one of them",
            )


def _sort_out(ends: list[_End], group_of: dict[Any, int]) -> Iterator[Cut]:
    """Every end of a group stops hearing the MAC addresses of the other groups' ends."""
    members = [end for end in ends if end.inner.node in group_of]
    for hearer in members:
        for speaker in members:
            if group_of[hearer.inner.node] != group_of[speaker.inner.node]:
                yield Cut(hearer.outer, source=speaker.inner.updateMAC())


def _components(
    pairs: list[tuple[Any, Any]], inside: Callable[[Any], bool]
) -> Iterator[tuple[list[Any], list[_End]]]:
    """Connected sets of nodes for which `inside` holds, each with the ends that touch it."""
    beside: dict[Any, set[Any]] = {}
    for first, second in pairs:
        for here, there in ((first.node, second.node), (second.node, first.node)):
            if inside(here):
                beside.setdefault(here, set()).update([there] if inside(there) else [])
    while beside:
        nodes, unseen = set(), {next(iter(beside))}
        while unseen:
            node = unseen.pop()
            nodes.add(node)
            unseen |= beside.pop(node) - nodes
        ends = [
            _End(inner, outer)
            for pair in pairs
            for inner, outer in (pair, pair[::-1])
            if outer.node in nodes and inner.node not in nodes
        ]
        yield list(nodes), ends


def _routes(node: Any) -> bool:
    """Does a node hand packets on from one interface to another?"""
    if isinstance(node, Switch):
        return False
    if isinstance(node, Router):
        return True
    names = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    return len(node.intfs) > 1 and any(node.sysctl(name) == "1" for name in names)
