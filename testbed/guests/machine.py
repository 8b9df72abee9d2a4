"""A virtual machine's hardware, as every back end takes it."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.guests.images import Image


@dataclass(frozen=True)
class Machine:
    """A guest's hardware, which must be the same where it is migrated to.

    `memory_mb` is what the guest has; `macs` has one MAC address for each of its interfaces,
    which are eth0, eth1, ... in this order.
    """

    image: Image
    memory_mb: int = 96
    macs: tuple[str, ...] = ()
    name: str = "guest"
    accelerator: str = "tcg"
