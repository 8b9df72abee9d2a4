"""The fidelity certificate: did the emulated links do what they were told?

Per direction of each impaired link, configured against measured: the rate while packets waited,
the one-way delay (probed before the trial), the share of packets lost; how late the engine was;
what the kernel dropped outside the model; and whether the machine had processor time to spare.
Within `Budget` a trial is certified; otherwise the certificate says what was not within it.

The links' own counts come from `testbed.links`, delays from `testbed.run.probe`, processor time
from `testbed.run.cpu`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from testbed.run.cpu import CpuUse
from testbed.run.disturbance import disturbances
from testbed.run.probe import Delay
from testbed.run.statistics import clustering_of, plausible_counts

if TYPE_CHECKING:
    from testbed.links import DirectionReport, LinkSpec, WorkerStatus


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a certified trial may deviate by.

    lag_p99_s       99th percentile of how late packets left: a tenth of the 10 ms that a last
                    mile adds, and below what a retransmission timer can notice
    lag_p999_s      99.9th percentile: what one packet in a thousand may be late by; no more than a
                    WiFi frame waits for the air
    lag_max_s       longest lag: a quarter of Linux's least retransmission timeout (200 ms), so
                    that no stall of the emulator can pass for a loss
    rate_error      of the rate while packets waited, judged where that was for backlog_s at least
    delay_error_s   of the median one-way delay of the probes (plus the jitter)
    loss_confidence of the interval the count of losses must lie in, over all links of the trial
    busy            share of processor time from which on the machine counts as saturated, and
    busy_share      the share of 100 ms spells in which it may be
    outside_drops   packets the kernel may drop outside the model
    """

    lag_p99_s: float = 1e-3
    lag_p999_s: float = 5e-3
    lag_max_s: float = 50e-3
    rate_error: float = 0.02
    backlog_s: float = 0.5
    delay_error_s: float = 1e-3
    loss_confidence: float = 0.99
    busy: float = 0.95
    busy_share: float = 0.10
    outside_drops: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinkCertificate:
    """One direction of a link: configured against measured, in SI units; None: not measured."""

    link: str
    direction: str
    engine: str
    configured: str
    rate_bps: float | None
    measured_rate_ratio: float | None
    backlogged_s: float
    delay_s: float
    measured_delay_s: float | None
    loss_ratio: float
    measured_loss_ratio: float | None
    plausible_loss: tuple[float, float] | None
    packets: int
    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_p999_s: float | None
    lag_max_s: float | None
    outside_drops: int
    changed: bool
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certificate:
    """The certificate of one trial; `why` is "" when it is certified.

    `disturbances` is what may have kept the engines from being punctual, be it without harm.
    """

    links: tuple[LinkCertificate, ...]
    cpu: CpuUse
    problems: tuple[str, ...]
    budget: Budget
    disturbances: tuple[str, ...] = ()

    @property
    def certified(self) -> bool:
        """Was everything within budget?"""
        return not self.problems

    @property
    def why(self) -> str:
        """What was not within budget, the first of it in full, and what went on meanwhile."""
        text = shorten(self.problems)
        if text and self.disturbances:
            text += f"; meanwhile {', '.join(self.disturbances)}"
        return text

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"certified": self.certified, "why": self.why, **dataclasses.asdict(self)}


def shorten(problems: Sequence[str]) -> str:
    """The first problem, and how many more there are."""
    if len(problems) < 2:
        return "".join(problems)
    return f"{problems[0]} (and {len(problems) - 1} more)"


def certify(
    reports: Iterable[DirectionReport],
    cpu: CpuUse,
    *,
    delays: Mapping[tuple[str, str], Delay] | None = None,
    ends: Mapping[tuple[str, str], str] | None = None,
    changed: frozenset[str] = frozenset(),
    workers: Sequence[WorkerStatus] = (),
    budget: Budget | None = None,
) -> Certificate:
    """Judge a trial.

    `delays` are the probes by (wire, direction), `ends` the directions' names for readers
    ("phone-wifi > ap-eth0"); `changed` names the wires whose specification changed while the
    trial ran: their losses cannot be held against one ratio.  `workers` are the engines'
    processes.
    """
    limits, found = budget or Budget(), list(reports)
    lossy = sum(1 for each in found if each.spec.loss_ratio and each.wire not in changed)
    # several links at once: the confidence is that of all intervals together (Bonferroni)
    confidence = 1 - (1 - limits.loss_confidence) / max(1, lossy)
    links = [
        _judge(
            each,
            limits,
            ends=(ends or {}).get((each.wire, each.direction), each.direction),
            probe=(delays or {}).get((each.wire, each.direction)),
            confidence=confidence,
            changed=each.wire in changed,
        )
        for each in found
    ]
    problems = [f"link {each.direction}: {text}" for each in links for text in each.problems]
    problems += _judge_cpu(cpu, limits)
    return Certificate(
        links=tuple(links),
        cpu=cpu,
        problems=tuple(problems),
        budget=limits,
        disturbances=disturbances(cpu, workers),
    )


def _judge(
    report: DirectionReport,
    limits: Budget,
    *,
    ends: str,
    probe: Delay | None,
    confidence: float,
    changed: bool,
) -> LinkCertificate:
    spec, lag = report.spec, report.lag
    judged = report.delivered_packets + report.lost_packets
    loss = report.lost_packets / judged if judged else None
    plausible = None if changed or not judged else _plausible(spec, judged, confidence)
    saturated = spec.rate_bps is not None and report.backlogged_s >= limits.backlog_s
    link = LinkCertificate(
        link=report.wire,
        direction=ends,
        engine=report.engine,
        configured=str(spec),
        rate_bps=spec.rate_bps,
        measured_rate_ratio=report.rate_ratio if saturated else None,
        backlogged_s=report.backlogged_s,
        delay_s=spec.delay_s,
        measured_delay_s=probe.median_s if probe else None,
        loss_ratio=spec.loss_ratio,
        measured_loss_ratio=loss,
        plausible_loss=plausible,
        packets=report.offered_packets,
        lag_p50_s=lag.p50 if lag else None,
        lag_p99_s=lag.p99 if lag else None,
        lag_p999_s=lag.p999 if lag else None,
        lag_max_s=lag.maximum if lag else None,
        outside_drops=report.outside_drops,
        changed=changed,
    )
    return dataclasses.replace(link, problems=tuple(_problems(link, probe, limits)))


def _plausible(spec: LinkSpec, judged: int, confidence: float) -> tuple[float, float]:
    spread = clustering_of(*spec.gilbert_elliott) if 0 < spec.loss_ratio < 1 else 1.0
    low, high = plausible_counts(judged, spec.loss_ratio, confidence=confidence, clustering=spread)
    return low / judged, high / judged


def _problems(link: LinkCertificate, probe: Delay | None, limits: Budget) -> Iterable[str]:
    ratio = link.measured_rate_ratio
    if ratio is not None and abs(ratio - 1) > limits.rate_error:
        yield f"delivered {ratio:.1%} of its rate (budget ±{limits.rate_error:.0%})"
    if probe is not None and not probe.within(limits.delay_error_s):
        yield (
            f"delayed packets by {probe.median_s * 1e3:.2f} ms, not {probe.expected_s * 1e3:.2f} "
            f"(budget ±{(probe.jitter_s + limits.delay_error_s) * 1e3:.2g} ms)"
        )
    if link.plausible_loss is not None and link.measured_loss_ratio is not None:
        low, high = link.plausible_loss
        if not low <= link.measured_loss_ratio <= high:
            yield (
                f"lost {link.measured_loss_ratio:.3%} of its packets, configured "
                f"{link.loss_ratio:.3%} (plausible {low:.3%} to {high:.3%})"
            )
    if link.lag_p99_s is not None and link.lag_p99_s > limits.lag_p99_s:
        yield (
            f"packets left late: p99 {link.lag_p99_s * 1e3:.2f} ms "
            f"(budget {limits.lag_p99_s * 1e3:.0f} ms)"
        )
    if link.lag_p999_s is not None and link.lag_p999_s > limits.lag_p999_s:
        yield (
            f"packets left late: p99.9 {link.lag_p999_s * 1e3:.2f} ms "
            f"(budget {limits.lag_p999_s * 1e3:.0f} ms)"
        )
    if link.lag_max_s is not None and link.lag_max_s > limits.lag_max_s:
        yield (
            f"the emulator stalled for {link.lag_max_s * 1e3:.0f} ms "
            f"(budget {limits.lag_max_s * 1e3:.0f} ms)"
        )
    if link.outside_drops > limits.outside_drops:
        yield f"the kernel dropped {link.outside_drops} packets outside the model"


def _judge_cpu(cpu: CpuUse, limits: Budget) -> list[str]:
    share = cpu.share_above(limits.busy)
    if share <= limits.busy_share:
        return []
    return [
        f"the processors were saturated for {share:.0%} of the time "
        f"(budget {limits.busy_share:.0%}): use slower links, fewer nodes or a larger machine"
    ]


def summarise(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The bundle's certificate of its trials' ({variant, repeat, certified, why, ...})."""
    bad = [each for each in trials if not each["certified"]]
    why = "" if trials else "no trial came to its end"
    if bad:
        first = bad[0]
        why = f"{first['variant']} repeat {first['repeat'] + 1}: {first['why']}"
        if len(trials) > 1:
            why += f" [{len(bad)} of {len(trials)} trials]"
    return {"certified": not why, "why": why, "trials": list(trials)}
