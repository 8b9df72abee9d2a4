"""Delivered against configured: is a link what its specification says, on this machine, now?

Each specification of a grid is built in the caller's sandbox and measured from one end to the
other with probe frames (see `rig`): rate while saturated, added one-way delay, losses.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from testbed.links.engines import Engines
from testbed.links.rig import Rig, Sighting
from testbed.links.spec import FULL_FRAME, LinkSpec

_SMALL = 64
_LOSS_PROBES = 4000
_DELAY_PROBES = 200


def grid(
    rates: Iterable[float] = (1, 10, 50, 100, 200),
    delays: Iterable[str] = ("1ms", "10ms", "50ms"),
    losses: Iterable[float] = (0, 1, 5),
) -> list[LinkSpec]:
    """Every combination of rates (Mb/s), delays and losses (percent)."""
    return [
        LinkSpec(bw, delay, loss=loss)
        for bw, delay, loss in itertools.product(rates, delays, losses)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One specification measured.

    Errors in rate are shares (0.01 is 1% fast), None where this machine could not send faster
    than the link carries, which then says nothing about the link; errors in delay are seconds
    beyond what is configured, serialisation and the bare veth path taken off.  `lost_low` and
    `lost_high` bound the losses that a fair link shows in 99 of 100 such runs.
    """

    engine: str
    spec: LinkSpec
    rate_bps: float | None
    rate_error: float | None
    delay_error_p50_s: float
    delay_error_p99_s: float
    probes: int
    lost: int
    lost_low: int
    lost_high: int

    @property
    def loss_fits(self) -> bool:
        """Is the number of losses one that a fair link shows?"""
        return self.lost_low <= self.lost <= self.lost_high

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a table or JSON; rates in Mb/s, delays in ms, losses in percent."""
        return {
            "engine": self.engine,
            **self.spec.as_dict(),
            "rate_mbps": None if self.rate_bps is None else self.rate_bps / 1e6,
            "rate_error_percent": None if self.rate_error is None else self.rate_error * 100,
            "delay_error_p50_ms": self.delay_error_p50_s * 1e3,
            "delay_error_p99_ms": self.delay_error_p99_s * 1e3,
            "probes": self.probes,
            "lost": self.lost,
            "lost_low": self.lost_low,
            "lost_high": self.lost_high,
            "loss_fits": self.loss_fits,
        }


def calibrate(
    engine: str, specs: Iterable[LinkSpec] | None = None, *, seconds: float = 2.0, seed: int = 1
) -> Iterator[Row]:
    """Measure each of `specs` (default: `grid()`) on `engine`, one row after the other.

    `engine` is "fabric", "netem", or "htb" for the rate and queue alone, in which case the rest
    of a specification is left out.  `seconds` is how long each link is saturated.  Must run in a
    sandbox; raises `FeatureError` where this machine has no such engine.
    """
    base = baseline()
    prefer = "auto" if engine == "htb" else engine
    done: set[LinkSpec] = set()
    for asked in grid() if specs is None else specs:
        spec = LinkSpec(asked.bw, queue=asked.queue) if engine == "htb" else asked
        if spec not in done:
            done.add(spec)
            with Rig(Engines(prefer=prefer, seed=seed), (spec, spec)) as rig:
                yield _measure(rig, spec, base, seconds)


def baseline() -> float:
    """Median one-way delay of a bare veth pair, in seconds: what every figure carries anyway."""
    with Rig() as rig:
        return _quantile([sighting.delay for sighting in _delay_probes(rig, 0.002)], 0.5)


def _measure(rig: Rig, spec: LinkSpec, base: float, seconds: float) -> Row:
    assert rig.engine is not None
    serialisation = _SMALL * 8 / spec.rate_bps if spec.rate_bps else 0.0
    configured = base + spec.delay_s + serialisation
    delays = [s.delay - configured for s in _delay_probes(rig, max(0.003, serialisation * 2))]
    lost, probes = losses(rig, spec)
    low, high = interval(probes, spec)
    rate = None
    if spec.rate_bps:
        if spec.loss:
            rig.update(spec.replace(loss=0))
        turned_away = _queue_drops(rig)
        rate = saturated_rate(rig, spec, seconds)
        if _queue_drops(rig) == turned_away:
            rate = None
    return Row(
        engine=rig.engine.name,
        spec=spec,
        rate_bps=rate,
        rate_error=rate / spec.rate_bps - 1 if rate and spec.rate_bps else None,
        delay_error_p50_s=_quantile(delays, 0.5),
        delay_error_p99_s=_quantile(delays, 0.99),
        probes=probes,
        lost=lost,
        lost_low=low,
        lost_high=high,
    )


def _queue_drops(rig: Rig) -> int:
    return rig.engines.reports()[0].queue_drops


def _delay_probes(rig: Rig, interval_s: float) -> list[Sighting]:
    return rig.probe(_DELAY_PROBES, interval_s=interval_s, size=_SMALL, catch_up=False)


def losses(rig: Rig, spec: LinkSpec, probes: int = _LOSS_PROBES) -> tuple[int, int]:
    """How many of how many probes were lost, sent at half the link's rate."""
    rate = min(spec.rate_bps or math.inf, 5e6)
    seen = rig.probe(probes, interval_s=2 * _SMALL * 8 / rate, size=_SMALL)
    return probes - len(seen), probes


def saturated_rate(rig: Rig, spec: LinkSpec, seconds: float) -> float:
    """Bit/s that come out while a third more goes in, once the queue has filled."""
    return rate_of(saturated(rig, spec, seconds))


def rate_of(seen: list[Sighting]) -> float:
    """Bit/s of probes that followed each other."""
    return sum(s.size for s in seen[1:]) * 8 / (seen[-1].arrived - seen[0].arrived)


def saturated(rig: Rig, spec: LinkSpec, seconds: float) -> list[Sighting]:
    """What comes out while a third more goes in, once the queue has filled."""
    assert spec.rate_bps is not None
    interval_s = FULL_FRAME * 8 / spec.rate_bps
    count = max(20, round(5 / 3 * seconds / interval_s))
    seen = rig.probe(
        count, interval_s=interval_s * 3 / 4, size=FULL_FRAME, drain_s=0.2 + 2 * interval_s
    )
    return seen[len(seen) // 4 :]


def interval(count: int, spec: LinkSpec) -> tuple[int, int]:
    """Fewest and most losses of `count` packets, in 99 of 100 runs.

    The binomial's normal approximation with continuity correction; for bursts its variance is
    that of the two-state chain, (1 + c) / (1 - c) times as large with c = 1 - p - r.
    """
    share = spec.loss_ratio
    if share in (0, 1):
        return round(count * share), round(count * share)
    correlation = 1 - sum(spec.gilbert_elliott)
    spread = math.sqrt(count * share * (1 - share) * (1 + correlation) / (1 - correlation))
    reach = 2.5758 * spread + 0.5
    return max(0, math.floor(count * share - reach)), math.ceil(count * share + reach)


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
