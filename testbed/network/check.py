"""Does a network do what its topology says?  Who reaches whom, asked with real pings."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

from testbed.network.net import Network

_AT_ONCE = 64
_DEADLINE_S = 3
_ALL_PAIRS_UP_TO = 24  # nodes; beyond it every node is asked about its neighbours in a ring


class Reach(NamedTuple):
    """Whether one node's ping to one address of another was answered."""

    source: str
    target: str
    address: str
    ok: bool


def reachability(net: Network) -> list[Reach]:
    """Ping from nodes to nodes, in each address family both have.

    All pairs of hosts and routers where there are at most 24 of them, a ring otherwise.
    """
    found: list[Reach] = []
    questions = list(_questions(net))
    for start in range(0, len(questions), _AT_ONCE):
        found += _ask(questions[start : start + _AT_ONCE])
    return found


def _questions(net: Network) -> Iterator[tuple[Any, Any, str]]:
    nodes = [node for node in net.hosts if node.intfList()]
    if len(nodes) <= _ALL_PAIRS_UP_TO:
        pairs: Iterator[tuple[Any, Any]] = itertools.permutations(nodes, 2)
    else:
        pairs = itertools.pairwise([*nodes, nodes[0]])
    for source, target in pairs:
        for family in ("ip", "ip6"):
            address = getattr(target.defaultIntf(), family)
            if address and getattr(source.defaultIntf(), family):
                yield source, target, address


def _ask(questions: list[tuple[Any, Any, str]]) -> list[Reach]:
    running = [
        source.popen(
            ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-w", str(_DEADLINE_S), address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for source, _target, address in questions
    ]
    return [
        Reach(source.name, target.name, address, child.wait() == 0)
        for (source, target, address), child in zip(questions, running, strict=True)
    ]
