"""What an experiment holds while it is up: memory, kernel memory, files, processor time.

Of all processes of the sandbox it is called in; kernel memory is the whole machine's, so a
difference tells only when nobody else is at work.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_KERNEL = ("Slab", "Percpu", "KernelStack", "PageTables")


def _processes() -> Iterator[Path]:
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def memory() -> float:
    """MB of all processes, pages they share counted in parts (PSS)."""
    total = 0
    for process in _processes():
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended, or has no memory
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def kernel_memory() -> float:
    """MB that the machine's kernel has allocated for itself."""
    fields = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(field[1]) for field in fields if field[0].rstrip(":") in _KERNEL) / 1024


def files() -> int:
    """Descriptors open in all processes."""
    total = 0
    for process in _processes():
        try:
            total += len(os.listdir(process / "fd"))
        except OSError:  # it has ended
            continue
    return total


def processor_seconds() -> tuple[float, float]:
    """Of this process and its children that have ended: in user mode, in the kernel."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime for one in used), sum(one.ru_stime for one in used)
