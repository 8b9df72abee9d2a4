"""A virtual machine's hardware, as every back end takes it."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.errors import ParameterError
from testbed.guests.images import Image


@dataclass(frozen=True)
class Machine:
    """A guest's hardware, which must be the same where it is migrated to.

    memory_mb    what the guest has
    macs         one MAC address for each of its interfaces, which are eth0, eth1, ... in this order
    accelerator  "kvm", or "tcg" for translation
    cpus         how many processors it sees
    cpu_limit    the processor time it may take, in processors (0.5 is half of one; None: no limit)
    display      width and height of its display in pixels (None: it has none)

    `cpu_limit` and `display` may be others where the guest is migrated to.  Raises
    `ParameterError` for what no machine can be.
    """

    image: Image
    memory_mb: int = 128
    macs: tuple[str, ...] = ()
    name: str = "guest"
    accelerator: str = "tcg"
    cpus: int = 1
    cpu_limit: float | None = None
    display: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.memory_mb < self.image.least_mb:
            raise ParameterError(
                f"guest {self.name}: {self.memory_mb} MB of memory for image {self.image.name}",
                remedy=f"give at least {self.image.least_mb}",
            )
        if self.cpus < 1:
            raise ParameterError(f"guest {self.name}: {self.cpus} processors", remedy="give one")
        if self.cpu_limit is not None and not self.cpu_limit >= 0.01:
            raise ParameterError(
                f"guest {self.name}: a limit of {self.cpu_limit:g} processors",
                remedy="give at least 0.01, or none",
            )
        if self.display is not None and not all(64 <= size <= 4096 for size in self.display):
            raise ParameterError(
                f"guest {self.name}: a display of {'x'.join(map(str, self.display))}",
                remedy="give 64 to 4096 pixels each way",
            )
