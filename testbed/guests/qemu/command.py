"""QEMU's command line for a guest: what is fixed, and why.  Nothing here starts anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.guests.images import Image
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
# A dom0 has what its domains' images and saved states take in its memory.  What protects domains
# from each other costs translated ones much, and there is nobody to be protected from.
_XEN_OPTIONS = (
    "console=com1 com1=115200,8n1 dom0_mem=768M,max:768M dom0_max_vcpus=1 bootscrub=0 "
    "spec-ctrl=no xpti=no pv-l1tf=no"
)
_DOM0_OPTIONS = "console=hvc0 quiet panic=-1 mitigations=off"
_PORTS, _PORTS_OF_HOSTS = 4, 31  # hosts have one more for each domain
_SERIAL_PORTS = ("agent", "reports")  # in the guest /dev/vport0p1 and so on, in this order


@dataclass(frozen=True)
class Descriptors:
    """What QEMU inherits: its TAPs, and sockets of its monitor and of the guest's serial ports.

    `shell` is the guest's terminal hvc0, `agent` and `reports` are its ports.
    """

    monitor: int
    shell: int
    agent: int
    reports: int
    taps: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        """Every one of them."""
        return (self.monitor, self.shell, self.agent, self.reports, *self.taps)


def command_line(machine: Machine, inherited: Descriptors, *, incoming: bool = False) -> list[str]:
    """The words that start QEMU; with `incoming` it waits for a guest to be migrated to it.

    QEMU's standard output is the guest's console.
    """
    # Ends that are handed over as descriptors leave no socket and no interface behind.
    words = [
        *(QEMU, "-name", machine.name, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", _MACHINE, "-cpu", _CPU, "-m", f"{_memory_kb(machine)}K", "-no-reboot"),
        *("-accel", _accelerator(machine)),
        *_boot(machine.image),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=monitor,fd={inherited.monitor}"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-smp", str(machine.cpus)),
        *_serial(inherited, _PORTS_OF_HOSTS if machine.image.hypervisor else _PORTS),
        *_display(machine.display),
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


def _boot(image: Image) -> list[str]:
    if image.hypervisor is None:
        kernel, initrd, options = image.kernel, str(image.initrd), _KERNEL_OPTIONS
    else:  # by the multiboot protocol, its modules the kernel with its options and the initrd
        words = f"{image.kernel} {_DOM0_OPTIONS}".replace(",", ",,")
        kernel, initrd, options = image.hypervisor, f"{words},{image.initrd}", _XEN_OPTIONS
    return ["-kernel", str(kernel), "-initrd", initrd, "-append", options]


def _serial(inherited: Descriptors, ports: int) -> list[str]:
    words = ["-device", f"virtio-serial-pci,max_ports={ports}"]
    words += ["-chardev", f"socket,id=shell,fd={inherited.shell}"]
    words += ["-device", "virtconsole,chardev=shell,nr=0"]
    for number, name in enumerate(_SERIAL_PORTS, 1):
        words += ["-chardev", f"socket,id={name},fd={getattr(inherited, name)}"]
        words += ["-device", f"virtserialport,chardev={name},nr={number},name=liquidnet.{name}"]
    return words


def _display(size: tuple[int, int] | None) -> list[str]:
    """The simplest one there is: it needs no driver, and its EDID tells the size."""
    if size is None:
        return []
    return ["-device", f"bochs-display,edid=on,xres={size[0]},yres={size[1]}"]


def _interfaces(macs: Sequence[str], taps: Sequence[int]) -> list[str]:
    words = []
    for number, (mac, tap) in enumerate(zip(macs, taps, strict=True)):
        words += ["-netdev", f"tap,id=net{number},fd={tap}"]
        words += ["-device", f"virtio-net-pci,netdev=net{number},mac={mac},romfile="]
    return words
