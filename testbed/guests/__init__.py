"""Virtual machines as nodes' guests: QEMU in a namespace, its interfaces TAPs of that namespace.

    images      what a guest boots: a kernel and a root made of distribution packages
    accelerator KVM where a guest really boots on it, else translation (TCG)
    command     QEMU's command line
    monitor     QEMU's monitor protocol (QMP): commands, and events with QEMU's own times
    agent       commands for the shell in the guest, over a virtio serial port
    tap         a guest's cable into a namespace
    guest       one running machine
    migration   live migration from one namespace to another, over the network between them
    function    a firewall or any other nftables program in a machine of its own

All that waits is asyncio.  A guest is a child process that holds its TAPs: with its sandbox, or
when it is closed, both are gone, and nothing was ever written but its log.
"""

from testbed.guests.function import Port, VmFunction
from testbed.guests.guest import Guest
from testbed.guests.images import Image, build, find, missing
from testbed.guests.migration import VmMigrationReport, migrate

__all__ = [
    "Guest",
    "Image",
    "Port",
    "VmFunction",
    "VmMigrationReport",
    "build",
    "find",
    "migrate",
    "missing",
]
