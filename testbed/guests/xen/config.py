"""What xl is told of a machine: its configuration, as a text.  Nothing here starts anything.

Format: xl.cfg(5) and xl-network-configuration(5) of Xen 4.17.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from testbed.errors import ParameterError, TopologyError
from testbed.guests.machine import Machine

# The console carries the agent too, so the kernel says on it only what it dies of: no watchdog
# that complains when the machine was slow.  panic=-1: Xen hears of a panic at once.
_KERNEL_OPTIONS = "console=hvc0 terminal=/dev/hvc0 quiet panic=-1 nowatchdog mitigations=off"
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")


def configuration(
    machine: Machine, *, uuid: str, kernel: str, initrd: str, bridges: Sequence[str], script: str
) -> str:
    """The configuration of a paravirtualized domain.

    `uuid` tells it from all others; `kernel` and `initrd` are files of the Xen host; `bridges` has
    one bridge of the Xen host for each of the machine's interfaces, to which `script` of the host
    joins it.  A domain that has crashed stays until it is destroyed.

    Raises `TopologyError` for what no domain can be, `ParameterError` for what Xen cannot limit.
    """
    if not _NAME.fullmatch(machine.name):
        raise TopologyError(
            f"a Xen guest called {machine.name!r}", remedy="letters, digits and _ . + - only"
        )
    settings = {
        "type": "pv",
        "name": machine.name,
        "uuid": uuid,  # else xl makes one, for which a young dom0 lacks random bytes
        "kernel": kernel,
        "ramdisk": initrd,
        "cmdline": _KERNEL_OPTIONS,
        "memory": machine.memory_mb,
        "maxmem": machine.memory_mb,
        "vcpus": machine.cpus,
        "cap": cap(machine.cpu_limit),
        "vif": _interfaces(machine, bridges, script),
        "on_poweroff": "destroy",
        "on_reboot": "destroy",
        "on_crash": "preserve",
    }
    return "".join(f"{key} = {_written(value)}\n" for key, value in settings.items())


def cap(processors: float | None) -> int:
    """A limit on processors as Xen's schedulers take it: percent of one, 0 for no limit."""
    if processors is None:
        return 0
    if not 0.01 <= processors <= 655:
        raise ParameterError(
            f"a limit of {processors:g} processors", remedy="from 0.01 to 655, or none"
        )
    return round(processors * 100)


def _interfaces(machine: Machine, bridges: Sequence[str], script: str) -> list[str]:
    if len(bridges) != len(machine.macs):
        raise TopologyError(
            f"Xen guest {machine.name}: {len(machine.macs)} interfaces, {len(bridges)} bridges",
            remedy="give one bridge of the Xen host for each interface",
        )
    return [
        f"mac={mac},bridge={bridge},script={script}"
        for mac, bridge in zip(machine.macs, bridges, strict=True)
    ]


def _written(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_written(each) for each in value) + "]"
    return str(value) if isinstance(value, int) else f'"{value}"'
