"""The two devices: the processor time they take, and tasks that load one of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from usecases.vm_migration.journey import PHONE, TABLET

_TASK = ("sha256sum", "/dev/zero")  # takes what processor time it is given, and little memory


def cpu_s(net: Any) -> Mapping[str, float]:
    """Seconds of processor time that each device's control group has taken so far."""
    return {device: float(net[device].group.cpu_s()) for device in (PHONE, TABLET)}


@contextmanager
def loaded(device: Any, tasks: int) -> Iterator[None]:
    """While the block runs, so many tasks take what processor time they can get of a device."""
    running = [
        device.popen(list(_TASK), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _number in range(tasks)
    ]
    try:
        yield
    finally:
        for task in running:
            task.kill()
            task.wait()
