"""How busy the machine was: /proc/stat, read every 100 ms while a trial runs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

SPELL_S = 0.1
_USER, _NICE, _SYSTEM, _IDLE, _IOWAIT, _IRQ, _SOFTIRQ, _STEAL = range(8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpuUse:
    """Shares of all processors' time (0 to 1).

    `busy` in use in each spell; a virtual machine's stolen time counts: it was not there to be
    had.  `steal` taken by other guests of the host, and in the worst spell; `others` taken by
    processes of this machine that the sampling process cannot see, as they are not in its
    sandbox.
    """

    busy: tuple[float, ...] = ()
    steal: float = 0.0
    worst_steal: float = 0.0
    others: float = 0.0

    def share_above(self, level: float) -> float:
        """The share of spells in which at least `level` was in use."""
        return sum(each >= level for each in self.busy) / len(self.busy) if self.busy else 0.0

    @property
    def mean(self) -> float:
        """Mean share in use."""
        return sum(self.busy) / len(self.busy) if self.busy else 0.0


class CpuSampler:
    """Call `sample` every `SPELL_S`; `use` is what was seen so far."""

    def __init__(self, path: Path = Path("/proc/stat")) -> None:
        self._path = path
        self._last = self._first = self._read()
        self._seen = _seen_ticks()
        self._busy: list[float] = []
        self._worst_steal = 0.0

    def sample(self) -> None:
        """End a spell now."""
        now = self._read()
        spent = [new - old for new, old in zip(now, self._last, strict=True)]
        # less than two ticks a processor say nothing
        if sum(spent) >= 2 * (os.cpu_count() or 1):
            idle = spent[_IDLE] + spent[_IOWAIT]
            self._busy.append(1 - idle / sum(spent))
            self._worst_steal = max(self._worst_steal, spent[_STEAL] / sum(spent))
            self._last = now

    @property
    def use(self) -> CpuUse:
        """What was seen so far."""
        spent = [new - old for new, old in zip(self._last, self._first, strict=True)]
        total = sum(spent) or 1
        taken = total - spent[_IDLE] - spent[_IOWAIT] - spent[_STEAL]
        others = taken - (_seen_ticks() - self._seen)
        return CpuUse(
            busy=tuple(round(each, 3) for each in self._busy),
            steal=round(spent[_STEAL] / total, 4),
            worst_steal=round(self._worst_steal, 3),
            others=round(max(0, others) / total, 4),
        )

    def _read(self) -> list[int]:
        first = self._path.read_text().partition("\n")[0]
        # guest time (fields 9, 10) is in user time already
        return [int(word) for word in first.split()[1:9]]


def _seen_ticks() -> int:
    """Processor time of the processes in this /proc and of their children that have ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks
