"""Expectations of figures: TCP's rate, one-way delay, loss; see `expect`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from testbed.errors import ParameterError, TopologyError
from testbed.links import units
from testbed.network import echo, measure
from testbed.network.expectation import Between, family_of, patience_s
from testbed.network.measure import Way
from testbed.network.where import at
from testbed.verdict import Verdict

if TYPE_CHECKING:
    from testbed.network.net import Network
    from testbed.network.sketch import Sketch

_RATES = {"b/s": 1.0, "kb/s": 1e3, "Mb/s": 1e6, "Gb/s": 1e9}


class Bounded(Between):
    """A figure between `at_least` and `at_most`."""

    alone = True
    figure: ClassVar[str]
    verb = "to"

    def __init__(
        self,
        source: str,
        target: str,
        *,
        at_least: str | float | None = None,
        at_most: str | float | None = None,
        family: str | None = None,
    ) -> None:
        super().__init__(source, target, family=family)
        with at(self.place):
            self._low = None if at_least is None else self._value("at_least", at_least)
            self._high = None if at_most is None else self._value("at_most", at_most)
            if at_least is None and at_most is None:
                raise TopologyError(
                    f"{type(self).__name__}({source!r}, {target!r})",
                    remedy="give at_least=, at_most= or both",
                )
            if self._low is not None and self._high is not None and self._low > self._high:
                raise TopologyError(f"at_least is {at_least!r} and at_most {at_most!r}",
                                    remedy="give a range that is not empty")  # fmt: skip
        self.statement = (
            f"{self.figure} from {source} to {target}"
            + (f" ({family})" if family else "")
            + (f" at least {at_least}" if at_least is not None else "")
            + (" and" if None not in (at_least, at_most) else "")
            + (f" at most {at_most}" if at_most is not None else "")
            + self._unit(at_least, at_most)
        )

    def _value(self, name: str, value: str | float) -> float:
        raise NotImplementedError

    def _unit(self, *_given: object) -> str:
        return ""

    def _inside(self, value: float) -> bool:
        return (self._low is None or value >= self._low) and (
            self._high is None or value <= self._high
        )


class Rate(Bounded):
    """TCP's goodput (payload, not headers): one connection, `seconds` counted after half of it.

    Bounds are in bit/s or written "9Mb/s".  At most 95.7% of a link's `bw` is payload.
    """

    figure = "TCP goodput"

    def __init__(self, source: str, target: str, *, seconds: float = 1.0, **bounds: Any) -> None:
        super().__init__(source, target, **bounds)
        self._seconds = seconds

    def _value(self, name: str, value: str | float) -> float:
        split = units.split(value) if isinstance(value, str) else (value, "b/s")
        text = value.strip() if isinstance(value, str) else ""
        unit = next((u for u in sorted(_RATES, key=len, reverse=True) if text.endswith(u)), "")
        if text and unit:
            split = units.split(text.removesuffix(unit))
        bad = isinstance(value, bool) or split is None or (text and not unit)
        if bad or split is None or not 0 < split[0] < math.inf:
            raise ParameterError(f"{name} is {value!r}", remedy='give a rate such as "9Mb/s"')
        return float(split[0]) * _RATES[unit or "b/s"]

    def mistakes(self, sketch: Sketch) -> Iterator[str]:
        """Also a rate above that of every link at the source or the target."""
        yield from super().mistakes(sketch)
        for end in self._ends:
            node = sketch.nodes.get(end.partition(":")[0])
            rates = [_fastest_bps(e.link.params) for e in node.ends] if node else []
            if self._low is not None and rates and self._low > max(rates):
                yield f"no link of {node.name if node else end} has more than {max(rates):g} b/s"

    async def _judge_way(self, net: Network, way: Way) -> Verdict:
        found = measure.transfer(way, seconds=self._seconds)
        shown = f"{family_of(way)}: {found.goodput_bps / 1e6:.3g} Mb/s"
        too_low = self._low is not None and found.goodput_bps < self._low
        unsure = self._high is not None and found.goodput_bps <= self._high
        if found.limited_by_us and (too_low or unsure):
            return Verdict.not_measurable(f"{shown}, and the sender's processor was the limit")
        return Verdict.of(self._inside(found.goodput_bps), shown)


def _fastest_bps(params: dict[str, Any] | None) -> float:
    """The faster direction of a link, in bit/s; unlimited where that is not known."""
    sides = [
        {**(params or {}), **((params or {}).get(key) or {})} for key in ("params1", "params2")
    ]
    rates = [side.get("bw") for side in sides]
    return max(float(rate) * 1e6 if isinstance(rate, int | float) else math.inf for rate in rates)


class Delay(Bounded):
    """One-way delay: the median of nine small datagrams, timed by the kernel where they arrive.

    One way, as links' delays are given; bounds are "25ms" or, as in Mininet, milliseconds.
    """

    figure = "one-way delay"

    def _value(self, name: str, value: str | float) -> float:
        return units.seconds(name, value)

    def _unit(self, *given: object) -> str:
        return " ms" if any(isinstance(each, int | float) for each in given) else ""

    async def _judge_way(self, net: Network, way: Way) -> Verdict:
        wait_s = patience_s(net)
        await _meet(way, wait_s)
        found = await measure.passage(way, count=9, spacing_s=0.02, wait_s=wait_s)
        if not found.delays_s:
            return Verdict.not_measurable(f"{family_of(way)}: no datagram arrived")
        value = median(found.delays_s)
        return Verdict.of(self._inside(value), f"{family_of(way)}: {value * 1e3:.3g} ms")


class Loss(Bounded):
    """Share of small datagrams lost one way, in percent, of `packets` at 2 ms intervals.

    It fails when the 95% confidence interval (Wilson) lies outside the bounds.
    """

    figure = "loss"

    def __init__(self, source: str, target: str, *, packets: int = 200, **bounds: Any) -> None:
        super().__init__(source, target, **bounds)
        self._packets = packets

    def _value(self, name: str, value: str | float) -> float:
        return units.number(name, value, low=0, high=100, meaning="a percentage from 0 to 100")

    def _unit(self, *_given: object) -> str:
        return "%"

    async def _judge_way(self, net: Network, way: Way) -> Verdict:
        wait_s = patience_s(net)
        await _meet(way, wait_s)
        sent, delays = await measure.passage(
            way, count=self._packets, spacing_s=0.002, wait_s=wait_s
        )
        lost = sent - len(delays)
        low, high = _wilson(lost, sent)
        shown = f"{family_of(way)}: {100 * lost / sent:.3g}% ({lost} of {sent})"
        too_much = self._high is not None and 100 * low > self._high
        too_little = self._low is not None and 100 * high < self._low
        return Verdict.of(not (too_much or too_little), shown)


async def _meet(way: Way, wait_s: float) -> None:
    """Let the neighbours on the way find each other before anything counts."""
    await echo.round_trip(way.source_node, way.target, source=way.source, tries=1, wait_s=wait_s)


def _wilson(hits: int, of: int) -> tuple[float, float]:
    """95% confidence interval of a share (E. B. Wilson, JASA 22, 1927)."""
    z, share = 1.96, hits / of
    centre = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (centre - spread) / (1 + z * z / of), (centre + spread) / (1 + z * z / of)
