"""The certificate's verdict on lag, and what it says went on meanwhile."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from testbed.links import DirectionReport, Histogram, LinkSpec, WorkerStatus
from testbed.run.certificate import Certificate, certify
from testbed.run.cpu import CpuSampler, CpuUse
from testbed.run.probe import Delay

CALM = CpuUse(busy=(0.3,) * 100)


def worker(**facts: object) -> WorkerStatus:
    status = WorkerStatus(
        engine="fabric", pid=1, realtime=True, cpu_s=1.0, waited_s=0.1, late=Histogram({60: 100}),
        ring_drops=0,
    )  # fmt: skip
    return dataclasses.replace(status, **facts)


def judged(lag: dict[int, int], cpu: CpuUse = CALM, **facts: object) -> Certificate:
    """A link whose packets left so late (microseconds: how many)."""
    count = sum(lag.values())
    report = DirectionReport(
        wire="a--b", direction="a>b", engine="fabric", spec=LinkSpec(delay="1ms"),
        offered_packets=count, offered_bytes=count * 100, delivered_packets=count,
        delivered_bytes=count * 100, lag=Histogram(lag),
    )  # fmt: skip
    return certify([report], cpu, workers=[worker(**facts)])


def test_a_few_late_packets_are_within_budget() -> None:
    certificate = judged({100: 9990, 900: 5, 30_000: 5})
    assert certificate.certified
    assert certificate.why == ""
    assert certificate.as_dict()["disturbances"] == ()


@pytest.mark.parametrize(
    ("lag", "why"),
    [
        ({100: 980, 2000: 20}, "link a>b: packets left late: p99 2.00 ms (budget 1 ms)"),
        ({100: 997, 7000: 3}, "link a>b: packets left late: p99.9 7.00 ms (budget 5 ms)"),
        ({100: 100_000, 80_000: 1}, "link a>b: the emulator stalled for 80 ms (budget 50 ms)"),
    ],
)
def test_late_packets_are_named(lag: dict[int, int], why: str) -> None:
    assert judged(lag).why == why


@pytest.mark.parametrize(
    ("cpu", "facts", "said"),
    [
        (CpuUse(busy=(0.3,) * 100, steal=0.02, worst_steal=0.4), {},
         "other guests of the host took 2.0% of the processors, 40% in the worst 100 ms"),
        (CpuUse(busy=(0.3,) * 100, steal=0.0004, worst_steal=0.4), {}, "other guests"),
        (CpuUse(busy=(0.3,) * 100, others=0.2), {}, "outside the experiment took 20%"),
        (CpuUse(busy=(0.3,) * 95 + (0.99,) * 5), {}, "saturated for 5% of the time"),
        (CALM, {"realtime": False}, "may not have real-time priority"),
        (CALM, {"cpu_s": 9.5}, "a worker of the fabric had no time to spare"),
        (CALM, {"late": Histogram({60: 100, 31_000: 1}), "waited_s": 0.5},
         "woke the fabric up to 31.0 ms late (it waited 0.50 s for a processor in all)"),
    ],
)  # fmt: skip
def test_what_went_on_meanwhile_is_said(cpu: CpuUse, facts: dict[str, object], said: str) -> None:
    why = judged({100: 900, 20_000: 100}, cpu, **facts).why
    assert why.startswith("link a>b: packets left late: p99 20.00 ms (budget 1 ms) (and 1 more)")
    assert "; meanwhile " in why
    assert said in why
    calm = judged({100: 1000}, cpu, **facts)
    assert calm.certified
    assert said in calm.disturbances[0]


def test_stolen_time_and_that_of_others_is_told_apart(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    sampler = CpuSampler(stat)
    stat.write_text("cpu  1000000 0 0 500000 0 0 0 0 0 0\n")
    sampler.sample()
    stat.write_text("cpu  1000000 0 0 750000 0 0 0 250000 0 0\n")
    sampler.sample()
    use = sampler.use
    assert use.busy == (0.667, 0.5)
    assert (use.steal, use.worst_steal) == (0.125, 0.5)
    assert use.others == pytest.approx(0.5, abs=0.01)


def test_a_probed_delay_is_judged_by_what_was_configured_when_it_was_probed() -> None:
    """Not by what an update made of the link later."""

    def problems(jitter_s: float) -> tuple[str, ...]:
        report = DirectionReport(
            wire="a--b", direction="a>b", engine="fabric", spec=LinkSpec(delay="1ms"),
            offered_packets=1, offered_bytes=100, delivered_packets=1, delivered_bytes=100,
        )  # fmt: skip
        probe = Delay(expected_s=0.05, jitter_s=jitter_s, seen_s=(0.046,) * 15)
        return certify([report], CALM, delays={("a--b", "a>b"): probe}).problems

    assert problems(0.01) == ()
    (problem,) = problems(0.0)
    assert "delayed packets by 46.00 ms, not 50.00 (budget ±1 ms)" in problem
