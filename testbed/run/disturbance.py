"""Why were packets late?  What went on meanwhile, as far as it can be known from inside.

What is said here stood beside the lag; that it caused it is for the reader to judge.  Measured
are the processors (`testbed.run.cpu`) and the engines' processes (`WorkerStatus`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from testbed.run.cpu import SPELL_S, CpuUse

if TYPE_CHECKING:
    from testbed.links.engine import WorkerStatus

_STEAL, _STEAL_SPELL = 0.01, 0.10  # of all processors: on the whole, in one spell of 100 ms
_OTHERS = 0.05
_FULL, _FULL_SHARE = 0.95, 0.01  # in use by anyone, in so many spells
_BUSY_WORKER = 0.80
_LATE_S = 2e-3  # a sleep that ends so late shows in the lag


def disturbances(cpu: CpuUse, workers: Sequence[WorkerStatus]) -> tuple[str, ...]:
    """What may have made packets late, in words; most telling first."""
    return (*_by_the_machine(cpu), *_by_the_workers(cpu, workers))


def _by_the_machine(cpu: CpuUse) -> Iterator[str]:
    if cpu.steal > _STEAL or cpu.worst_steal > _STEAL_SPELL:
        yield (
            f"other guests of the host took {cpu.steal:.1%} of the processors, "
            f"{cpu.worst_steal:.0%} in the worst {SPELL_S * 1e3:.0f} ms"
        )
    if cpu.others > _OTHERS:
        yield f"processes outside the experiment took {cpu.others:.0%} of the processors"
    if (full := cpu.share_above(_FULL)) > _FULL_SHARE:
        yield f"the processors were saturated for {full:.0%} of the time"


def _by_the_workers(cpu: CpuUse, workers: Sequence[WorkerStatus]) -> Iterator[str]:
    if not all(worker.realtime for worker in workers):
        yield "the fabric may not have real-time priority here (root has it)"
    seconds = len(cpu.busy) * SPELL_S
    busiest = max((worker.cpu_s for worker in workers), default=0.0)
    if seconds and busiest / seconds > _BUSY_WORKER:
        yield "a worker of the fabric had no time to spare: its links carry more than it can"
    latest = max((worker.late.maximum for worker in workers), default=0.0)
    if latest > _LATE_S:
        waited = sum(worker.waited_s for worker in workers)
        yield (
            f"the kernel woke the fabric up to {latest * 1e3:.1f} ms late "
            f"(it waited {waited:.2f} s for a processor in all)"
        )
