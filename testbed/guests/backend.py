"""What a back end offers: a running virtual machine behind one contract, and what it can do.

QEMU's is `qemu.vm.QemuVm`, Xen's `xen.vm.XenVm`.  What starts a machine differs (cables, files);
what is done with a running one does not.  A back end says what it can, and refuses the rest in
one line.
"""

from __future__ import annotations

import abc
import asyncio
import enum
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from testbed.errors import FeatureError
from testbed.guests.machine import Machine
from testbed.guests.reports import Reports

BOOT_LIMIT_S = 90.0  # ten times what translated machines were seen to take on a loaded machine


class Capability(enum.Enum):
    """Something that not every back end can do with a running machine."""

    LIVE_MIGRATION = "live migration (pre-copy)"
    POST_COPY = "post-copy migration"
    SAVE_RESTORE = "saving to a file and restoring"
    DISPLAY = "a display"
    CPU_LIMIT = "a limit on processors"
    REPORTS = "lines that programs in the guest report"


class Vm(abc.ABC):
    """A running virtual machine; whoever starts it closes it, or leaves it to `async with`.

    `machine` is its hardware, `lines` are what programs in the guest report (`async for line in
    vm.lines`).  All that waits belongs to the event loop in which it was started.
    """

    backend: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    instead: ClassVar[Mapping[Capability, str]] = {}
    """What to do where it has no such capability, if anything but to use another back end."""
    machine: Machine
    lines: Reports

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.machine.name

    @classmethod
    def require(cls, capability: Capability) -> None:
        """Raise `FeatureError` where this back end cannot do something."""
        if capability not in cls.capabilities:
            remedy = cls.instead.get(capability, "use another back end")
            raise FeatureError(f"guests on {cls.backend} lack {capability.value}", remedy=remedy)

    @abc.abstractmethod
    async def ready(self, limit_s: float = BOOT_LIMIT_S) -> str:
        """Wait until the guest has booted; what it says of itself (kernel, available memory).

        Raises `ExperimentError`, with the last line of its console, when it does not.
        """

    @abc.abstractmethod
    async def run(self, script: str, *, given: bytes = b"", limit_s: float = 30.0) -> str:
        """Run shell commands in the guest, with `given` as their input; what they said.

        They take turns: one that takes long is to be put into the background (`&`).  Raises
        `ExperimentError` when they fail or take longer than `limit_s`.
        """

    @abc.abstractmethod
    async def put(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Write a file in the guest, with the folders that lead to it."""

    @property
    @abc.abstractmethod
    def crashed(self) -> asyncio.Future[str]:
        """Done, with the reason, when the machine has ended without being closed."""

    @property
    @abc.abstractmethod
    def console(self) -> str:
        """All that the guest's console has said."""

    def last_words(self) -> str:
        """The line of the console that tells most: the kernel's panic, or the last one."""
        lines = [line.strip() for line in self.console.splitlines() if line.strip()]
        panics = [line for line in lines if "Kernel panic" in line]
        return (panics or lines or ["its console is empty"])[-1]

    async def screenshot(self, path: Path) -> None:
        """Write what the display shows, as PNG."""
        self.require(Capability.DISPLAY)
        raise NotImplementedError

    async def save(self, path: Path) -> None:
        """Write the machine's state to a file; it stands still from there on.

        The back end's `restore` starts a machine from it.
        """
        self.require(Capability.SAVE_RESTORE)
        raise NotImplementedError

    @abc.abstractmethod
    async def close(self) -> None:
        """End the machine; its state is lost."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()
