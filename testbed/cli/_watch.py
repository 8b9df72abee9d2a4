"""What the machine was while something ran: its parts, stolen time, and what others took."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from testbed.run.cpu import CpuSampler
from testbed.run.provenance import machine

_KERNEL_THREADS = 2  # their parent
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Use:
    """Shares of all processors' time (0 to 1) over a spell.

    `busy` in use by anyone, `steal` taken by other guests of the host, `others` taken by
    processes that neither are this one nor were started by it.
    """

    busy: float
    steal: float
    others: float


class Watch:
    """Watches from its making until `end`."""

    def __init__(self) -> None:
        self._cpu = CpuSampler()
        self._others = _others()
        self._start_s = os.times().elapsed

    def end(self) -> Use:
        """What was seen since."""
        self._cpu.sample()
        use = self._cpu.use
        spent_s = sum(seconds - self._others.get(pid, 0) for pid, seconds in _others().items())
        available_s = (os.times().elapsed - self._start_s) * (os.cpu_count() or 1)
        others = max(0.0, spent_s / available_s) if available_s else 0.0
        return Use(busy=use.mean, steal=use.steal, others=others)


def machine_line(use: Use) -> str:
    """One line: kernel, processor, cores, memory, and what `use` says."""
    facts = machine()
    memory = facts["memory_bytes"] / 2**30
    return (
        f"{facts['kernel']}, {facts['cpu']}{' (virtual)' if facts['virtual'] else ''}, "
        f"{facts['cpus']} cores, {memory:.0f} GB; processors {use.busy:.0%} busy, "
        f"{use.steal:.1%} stolen, {use.others:.0%} used by others"
    )


def _others(proc: Path = Path("/proc")) -> dict[int, float]:
    """Processor seconds of each process but this one and kernel threads, its waited-for children
    included."""
    found = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) not in (0, _KERNEL_THREADS):
            found[int(entry.name)] = sum(map(int, fields[11:15])) * _TICK_S
    return found
