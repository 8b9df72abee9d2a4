"""How busy the machine was: /proc/stat, read every 100 ms while a trial runs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

SPELL_S = 0.1
_USER, _NICE, _SYSTEM, _IDLE, _IOWAIT, _IRQ, _SOFTIRQ, _STEAL = range(8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpuUse:
    """Share of all processors' time in use (0 to 1) in each spell, and taken by other guests.

    A virtual machine's stolen time counts as in use: it was not there to be had.
    """

    busy: tuple[float, ...] = ()
    steal: float = 0.0

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
        self._busy: list[float] = []

    def sample(self) -> None:
        """End a spell now."""
        now = self._read()
        spent = [new - old for new, old in zip(now, self._last, strict=True)]
        # less than two ticks a processor say nothing
        if sum(spent) >= 2 * (os.cpu_count() or 1):
            idle = spent[_IDLE] + spent[_IOWAIT]
            self._busy.append(1 - idle / sum(spent))
            self._last = now

    @property
    def use(self) -> CpuUse:
        """What was seen so far."""
        spent = [new - old for new, old in zip(self._last, self._first, strict=True)]
        steal = spent[_STEAL] / sum(spent) if sum(spent) else 0.0
        return CpuUse(busy=tuple(round(each, 3) for each in self._busy), steal=round(steal, 4))

    def _read(self) -> list[int]:
        first = self._path.read_text().partition("\n")[0]
        # guest time (fields 9, 10) is in user time already
        return [int(word) for word in first.split()[1:9]]
