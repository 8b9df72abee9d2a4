"""Virtual machines as nodes' guests: QEMU in a namespace, its interfaces TAPs of that namespace.

    machine     the hardware of a machine
    backend     what is done with a running machine, whatever carries it
    qemu        the back end: accelerator, command line, monitor (QMP), the running machine
    images      what a guest boots: a kernel and a root made of distribution packages
    agent       commands for the shell in the guest, over a virtio serial port
    tap         a guest's cable into a namespace
    migration   live migration from one namespace to another, over the network between them
    function    a firewall or any other nftables program in a machine of its own

All that waits is asyncio.  A guest is a child process that holds its TAPs: with its sandbox, or
when it is closed, both are gone, and nothing was ever written but its log.
"""

from testbed.guests.backend import Capability, Vm
from testbed.guests.function import Port, VmFunction
from testbed.guests.images import Image, build, find, missing
from testbed.guests.machine import Machine
from testbed.guests.migration import Migration, MigrationOptions, VmMigrationReport, migrate
from testbed.guests.node import Guest
from testbed.guests.qemu.vm import QemuVm

__all__ = [
    "Capability",
    "Guest",
    "Image",
    "Machine",
    "Migration",
    "MigrationOptions",
    "Port",
    "QemuVm",
    "Vm",
    "VmFunction",
    "VmMigrationReport",
    "build",
    "find",
    "migrate",
    "missing",
]
