"""QEMU's command line for a guest: what is fixed, and why.  Nothing here starts anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.guests.machine import Machine

QEMU = "qemu-system-x86_64"
# A named model: with `max`, translated guests were seen corrupted after live migration.
_CPU = "Nehalem"
# q35 rather than microvm: what migrates has PCI, and microvm hangs at boot now and then.
_MACHINE = "q35"
# init_on_free: memory that the guest has freed is zero, and QEMU sends a page of zeroes as 9 bytes.
_KERNEL_OPTIONS = "console=ttyS0 quiet panic=-1 tsc=reliable init_on_free=1"
_LEAST_KB = 8  # QEMU rounds memory up to a multiple of it
_TRANSLATED_MB = 32  # at most, of code; QEMU's default grows to a gigabyte
AGENT_PORT = "liquidnet"


@dataclass(frozen=True)
class Descriptors:
    """What QEMU inherits: sockets of its monitor and of the guest's agent, and its TAPs."""

    monitor: int
    agent: int
    taps: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        """Every one of them."""
        return (self.monitor, self.agent, *self.taps)


def command_line(machine: Machine, inherited: Descriptors, *, incoming: bool = False) -> list[str]:
    """The words that start QEMU; with `incoming` it waits for a guest to be migrated to it.

    QEMU's standard output is the guest's console.
    """
    # Ends that are handed over as descriptors leave no socket and no interface behind.
    words = [
        *(QEMU, "-name", machine.name, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", _MACHINE, "-cpu", _CPU, "-m", f"{_memory_kb(machine)}K", "-no-reboot"),
        *("-accel", _accelerator(machine)),
        *("-kernel", str(machine.image.kernel), "-initrd", str(machine.image.initrd)),
        *("-append", _KERNEL_OPTIONS),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=monitor,fd={inherited.monitor}"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=agent,fd={inherited.agent}", "-device", "virtio-serial-pci"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        *_interfaces(machine.macs, inherited.taps),
    ]
    return [*words, "-incoming", "defer"] if incoming else words


def _memory_kb(machine: Machine) -> int:
    """What the machine is given, in KB: for a translated one, a little more than it asks for.

    QEMU before 9.0 loses track of pages that a translated guest writes during a migration's later
    passes, where its memory is a whole number of 256 KB (fixed upstream by "physmem: Fix migration
    dirty bitmap coherency with TCG memory access"): the guest arrives corrupt.  Other sizes take
    a way through QEMU that keeps count.
    """
    return machine.memory_mb * 1024 + (_LEAST_KB if machine.accelerator == "tcg" else 0)


def _accelerator(machine: Machine) -> str:
    if machine.accelerator != "tcg":
        return machine.accelerator
    return f"tcg,thread=single,tb-size={_TRANSLATED_MB}"


def _interfaces(macs: Sequence[str], taps: Sequence[int]) -> list[str]:
    words = []
    for number, (mac, tap) in enumerate(zip(macs, taps, strict=True)):
        words += ["-netdev", f"tap,id=net{number},fd={tap}"]
        words += ["-device", f"virtio-net-pci,netdev=net{number},mac={mac},romfile="]
    return words
