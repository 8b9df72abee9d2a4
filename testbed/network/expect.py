"""What must hold in a topology: stated beside it, checked when the network is up.

    class Office(Topo):
        def build(self): ...

        def expect(self):
            return [
                Reachable("pc", "server"),
                Isolated("guest", "server"),
                Path("pc", "server", via=["r1", "r3"]),
                Rate("pc", "server", at_least="9Mb/s"),
                Delay("pc", "server", at_most="25ms"),
            ]

`expect` is a list, or a method that returns one.  An end is a node ("pc") or one of its
interfaces ("pc:wifi").  Every family both ends have is checked unless `family` names one.

How it is measured is for `echo` and `measure`; how it is shown, for the command line and the
report.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from testbed.errors import TopologyError
from testbed.network import echo
from testbed.network.expect_bounds import Delay, Loss, Rate
from testbed.network.expectation import (
    Between,
    Expectation,
    Outcome,
    check,
    check_now,
    family_of,
    patience_s,
    stated,
)
from testbed.network.measure import Way
from testbed.network.where import at
from testbed.verdict import FAILS, HOLDS, Verdict

if TYPE_CHECKING:
    from testbed.network.net import Network

__all__ = [
    "AllReachable",
    "Check",
    "Delay",
    "Expectation",
    "Isolated",
    "Loss",
    "Outcome",
    "Path",
    "Rate",
    "Reachable",
    "check",
    "check_now",
    "stated",
]

_ALL_PAIRS_UP_TO = 24  # nodes; beyond it every node is asked about its neighbours in a ring


class Reachable(Between):
    """An ICMP echo from one end is answered by the other (one of three)."""

    verb = "reaches"

    async def _judge_way(self, net: Network, way: Way) -> Verdict:
        rtt, why = await echo.round_trip(
            way.source_node, way.target, source=way.source, tries=3, wait_s=patience_s(net)
        )
        if rtt is None:
            return Verdict.fails(f"{family_of(way)}: {why}")
        return Verdict.holds(f"{family_of(way)}: {rtt * 1e3:.3g} ms round trip")


class Isolated(Between):
    """None of three ICMP echoes is answered, in the time the longest way through would take."""

    verb = "does not reach"

    async def _judge_way(self, net: Network, way: Way) -> Verdict:
        with echo.Echo(way.source_node, way.target, source=way.source) as asked:
            for number in range(3):
                asked.send(number)
            until = time.monotonic() + patience_s(net)
            while time.monotonic() < until:
                for answer in await asked.wait(until):
                    if answer.reached:
                        return Verdict.fails(f"{family_of(way)}: answered from {answer.address}")
        return Verdict.holds(f"{family_of(way)}: no answer")


class Path(Between):
    """The routers on the way: all of them in order (`via`), or how many there are (`hops`).

    Found by ICMP echoes with small times to live.
    """

    alone = True  # routers answer one asker only so often a second (RFC 1812, 4.3.2.8)
    verb = "is routed to"

    def __init__(
        self,
        source: str,
        target: str,
        *,
        via: Sequence[str] | None = None,
        hops: int | None = None,
        family: str | None = None,
    ) -> None:
        super().__init__(source, target, family=family)
        if (via is None) == (hops is None):
            with at(self.place):
                raise TopologyError(f"Path({source!r}, {target!r})", remedy="give via= or hops=")
        self._via, self._hops = via, hops
        how = f"over {' '.join(via) or 'no router'}" if via is not None else f"over {hops} routers"
        self.statement += f" {how}"

    def ends(self) -> Iterable[str]:
        """The ends and the routers."""
        return (*super().ends(), *(self._via or ()))

    async def _judge_way(self, net: Network, way: Way) -> Verdict:
        found = await echo.path(
            way.source_node, way.target, source=way.source, wait_s=patience_s(net)
        )
        owners = _owners(net)
        names = [owners.get(each, each) if each else "?" for each in found]
        shown = f"{family_of(way)}: {' '.join(names)}"
        if not found or found[-1] != way.target:
            return Verdict.fails(f"{shown or 'nothing'}, and no answer from {self._ends[1]}")
        seen = names[:-1]
        if "?" in seen and (self._hops is None or len(seen) == self._hops):
            return Verdict.not_measurable(f"{shown}: a router kept silent")
        if self._via is not None:
            return Verdict.of(seen == list(self._via), shown)
        return Verdict.of(len(seen) == self._hops, f"{shown} ({len(seen)} routers)")


def _owners(net: Network) -> dict[str, str]:
    """Address -> node."""
    return {
        address: node.name
        for node in net.hosts
        for intf in node.intfList()
        for address in (intf.ip, getattr(intf, "ip6", None))
        if address
    }


class AllReachable(Expectation):
    """Every host and router reaches every other (a ring of them, where there are over 24)."""

    def __init__(self, *, family: str | None = None) -> None:
        super().__init__()
        self._family = family
        self.statement = "everybody reaches everybody" + (f" ({family})" if family else "")

    async def judge(self, net: Network) -> Verdict:
        """Ask all pairs, some at a time."""
        pairs = [Reachable(a.name, b.name, family=self._family) for a, b in pairs_of(net)]
        outcomes = await check_now(net, pairs)
        judged = [each for each in outcomes if each.verdict.outcome in (HOLDS, FAILS)]
        lost = [each for each in judged if each.fails]
        if not judged:
            return Verdict.not_measurable("no two nodes share a family")
        shown = f"{len(judged) - len(lost)} of {len(judged)} pairs"
        if lost:
            shown += f"; {lost[0].expectation.statement}: {lost[0].verdict.measured}"
        return Verdict.of(not lost, shown)


def pairs_of(net: Network) -> Iterable[tuple[Any, Any]]:
    """All pairs of nodes with interfaces up to 24 nodes, beyond it each with its neighbour."""
    nodes = [node for node in net.hosts if node.intfList()]
    if len(nodes) <= _ALL_PAIRS_UP_TO:
        return itertools.permutations(nodes, 2)
    return itertools.pairwise([*nodes, nodes[0]])


class Check(Expectation):
    """A check of the user's own: `function(net)` says `Verdict`, or whether it holds."""

    alone = True

    def __init__(self, statement: str, function: Callable[[Network], Any]) -> None:
        super().__init__()
        self.statement, self._function = statement, function

    async def judge(self, net: Network) -> Verdict:
        """Call it (in a coroutine's case: await it)."""
        said = self._function(net)
        if asyncio.iscoroutine(said):
            said = await said
        return said if isinstance(said, Verdict) else Verdict.of(bool(said), repr(said))
