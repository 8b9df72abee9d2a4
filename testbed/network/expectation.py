"""What an expectation is: stated beside a topology, judged in its network; `expect` has the kinds.

Expectations are judged at the same time where they do not disturb each other.  One that cannot be
measured says why; it does not fail.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from testbed.errors import ExperimentError, TopologyError
from testbed.network.measure import Way
from testbed.network.where import at, caller
from testbed.verdict import FAILS, HOLDS, Verdict

if TYPE_CHECKING:
    from testbed.network.net import Network
    from testbed.network.sketch import Sketch

FAMILIES = {"ipv4": 4, "ipv6": 6}
_AT_ONCE = 64
_LONGEST_WAIT_S = 10.0


class Expectation(ABC):
    """A statement about a network; `statement` says it in words, `source` where it is made."""

    alone: ClassVar[bool] = False
    """Would others disturb it, or it others?"""
    statement: str

    def __init__(self) -> None:
        self.place = caller()

    @property
    def source(self) -> str:
        """ "topology, net.py:31"."""
        return f"topology, {self.place}" if self.place else "topology"

    @abstractmethod
    async def judge(self, net: Network) -> Verdict:
        """Measure and judge."""

    def ends(self) -> Iterable[str]:
        """Nodes (and interfaces) it names."""
        return ()

    def mistakes(self, sketch: Sketch) -> Iterator[str]:
        """What is wrong with it in this topology."""
        for end in self.ends():
            node, _colon, interface = end.partition(":")
            if node not in sketch.nodes:
                yield f"there is no node {node!r}"
            elif interface and interface not in [str(e.name) for e in sketch.nodes[node].ends]:
                yield f"{node} has no interface {interface!r}"

    def __str__(self) -> str:
        return self.statement


class Outcome(NamedTuple):
    """An expectation and how it fared."""

    expectation: Expectation
    verdict: Verdict

    @property
    def fails(self) -> bool:
        """Was it seen not to hold?"""
        return self.verdict.outcome == FAILS

    def as_dict(self) -> dict[str, str]:
        """For JSON and for records."""
        return {
            "statement": self.expectation.statement,
            "source": self.expectation.source,
            "outcome": self.verdict.outcome,
            "measured": self.verdict.measured,
            "why": self.verdict.why,
        }


# -- checking ------------------------------------------------------------------------------------


def stated(topo: Any) -> list[Expectation]:
    """What `topo` expects of its network; raises `TopologyError` for what is no expectation."""
    said = getattr(topo, "expect", ())
    found = list(said() if callable(said) else said)
    for each in found:
        if not isinstance(each, Expectation):
            raise TopologyError(
                f"{type(topo).__name__}.expect holds {each!r}",
                remedy="give Reachable(...), Path(...) and the like, or Check(statement, function)",
            )
    return found


def check(net: Network, expectations: Sequence[Expectation]) -> list[Outcome]:
    """Judge all in the started network `net`: at the same time where they do not disturb."""
    return asyncio.run(check_now(net, expectations))


async def check_now(net: Network, expectations: Sequence[Expectation]) -> list[Outcome]:
    """The same in a coroutine."""
    gate = asyncio.Semaphore(_AT_ONCE)
    verdicts: dict[int, Verdict] = {}

    async def judge(number: int, each: Expectation) -> None:
        async with gate:
            verdicts[number] = await _judged(net, each)

    numbered = list(enumerate(expectations))
    await asyncio.gather(*(judge(n, each) for n, each in numbered if not each.alone))
    for number, each in numbered:
        if each.alone:
            await judge(number, each)
    return [Outcome(each, verdicts[number]) for number, each in numbered]


async def _judged(net: Network, expectation: Expectation) -> Verdict:
    try:
        return await expectation.judge(net)
    except ExperimentError as error:
        return Verdict.not_measurable(error.message)
    except Exception as error:
        return Verdict.not_measurable(f"{type(error).__name__}: {error}")


# -- between two ends ----------------------------------------------------------------------------


class Between(Expectation):
    """Something from one end to another, in one family or in each that both have."""

    verb: ClassVar[str]

    def __init__(self, source: str, target: str, *, family: str | None = None) -> None:
        super().__init__()
        self._ends = (source, target)
        if family is not None and family not in FAMILIES:
            with at(self.place):
                raise TopologyError(f"family is {family!r}", remedy='give "ipv4" or "ipv6"')
        self._family = family
        self.statement = f"{source} {self.verb} {target}" + (f" ({family})" if family else "")

    def ends(self) -> Iterable[str]:
        """The two ends."""
        return self._ends

    async def judge(self, net: Network) -> Verdict:
        """Judge each family; it holds when it holds in all of them."""
        ways = list(self._ways(net))
        if not ways:
            family = self._family or "any family"
            return Verdict.not_measurable(f"{' and '.join(self._ends)} share no {family}")
        if self.alone:
            found = [await self._judge_way(net, way) for way in ways]
        else:
            found = await asyncio.gather(*(self._judge_way(net, way) for way in ways))
        worst = next((each for each in found if each.outcome == FAILS), None)
        worst = worst or next((each for each in found if each.outcome != HOLDS), None)
        if worst is not None:
            return worst
        return Verdict.holds(", ".join(dict.fromkeys(each.measured for each in found)))

    def _ways(self, net: Network) -> Iterator[Way]:
        source, target = (_intf(net, end) for end in self._ends)
        for name, version in FAMILIES.items():
            addresses = [
                getattr(intf, "ip" if version == 4 else "ip6") for intf in (source, target)
            ]
            if all(addresses) and self._family in (None, name):
                yield Way(source.node, addresses[0], target.node, addresses[1])

    async def _judge_way(self, net: Network, way: Way) -> Verdict:
        raise NotImplementedError


def _intf(net: Network, end: str) -> Any:
    name, _colon, interface = end.partition(":")
    node = net[name]
    if interface in node.nameToIntf:
        return node.nameToIntf[interface]
    if interface or not node.intfList():
        raise ExperimentError(f"{name} has no interface {interface}".rstrip())
    return node.defaultIntf()


def patience_s(net: Network) -> float:
    """Long enough for an echo over all delays there are."""
    delays_s = sum(
        max(float(spec.delay_s + spec.jitter_s) for spec in link.specs)
        for link in net.links
        if getattr(link, "specs", None)
    )
    return min(1.0 + 2 * delays_s, _LONGEST_WAIT_S)


def family_of(way: Way) -> str:
    """ "IPv4" or "IPv6"."""
    return "IPv6" if ":" in way.target else "IPv4"
