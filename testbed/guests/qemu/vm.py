"""One running machine: a QEMU in a namespace, its TAPs, its monitor, and the guest's ports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import ClassVar

from testbed.errors import ExperimentError, FeatureError
from testbed.guests.agent import Agent
from testbed.guests.backend import BOOT_LIMIT_S, Capability, Vm
from testbed.guests.machine import Machine
from testbed.guests.qemu import saved
from testbed.guests.qemu.monitor import Monitor
from testbed.guests.qemu.process import Process, limit_cpu
from testbed.guests.reports import Reports
from testbed.guests.tap import Tap
from testbed.kernel import NetworkNamespace


class QemuVm(Vm):
    """A virtual machine; `start` makes one, `ready` waits until it has booted.

    `monitor` is QEMU's, `shell` our end of the guest's terminal hvc0.  QEMU is killed when the
    machine is closed, and ends with its sandbox in any case.
    """

    backend: ClassVar[str] = "QEMU"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    def __init__(
        self,
        machine: Machine,
        namespace: NetworkNamespace,
        taps: Sequence[Tap],
        process: Process,
        reports: Reports,
    ) -> None:
        self.machine = machine
        self.namespace = namespace
        self.taps = tuple(taps)
        self.process = process
        self.lines = reports
        self.shell = process.ends.shell
        self.monitor: Monitor
        self.agent: Agent
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watching: asyncio.Task[None]

    @classmethod
    async def start(
        cls,
        machine: Machine,
        namespace: NetworkNamespace,
        taps: Sequence[Tap] = (),
        *,
        incoming_from: QemuVm | None = None,
        log: Path | None = None,
        before_exec: Callable[[], None] | None = None,
    ) -> QemuVm:
        """Start QEMU in `namespace` with one TAP for each of the machine's interfaces.

        With `incoming_from` it waits for that guest to be migrated to it, and shares its `lines`.
        `log` and `before_exec` are those of `Process`.  The TAPs become the guest's to close.

        Raises `ExperimentError` where QEMU does not start.
        """
        process = Process(
            machine,
            namespace,
            taps,
            incoming=incoming_from is not None,
            log=log,
            before_exec=before_exec,
        )
        if incoming_from is None:
            vm = cls(machine, namespace, taps, process, Reports())
            await vm._attach(lambda end: Agent.open(end, machine.name))
        else:
            vm = cls(machine, namespace, taps, process, incoming_from.lines)
            await vm._attach(incoming_from.agent.successor)
        return vm

    @classmethod
    async def restore(
        cls,
        path: Path,
        machine: Machine,
        namespace: NetworkNamespace,
        taps: Sequence[Tap] = (),
        *,
        log: Path | None = None,
        before_exec: Callable[[], None] | None = None,
    ) -> QemuVm:
        """Start a machine from the state that `save` wrote; the guest goes on where it was.

        Its clock stood still meanwhile.  Raises `ParameterError` where the state is not of such
        a machine, `ExperimentError` where it is not whole.
        """
        with saved.open_for(machine, path) as state:
            process = Process(
                machine, namespace, taps, incoming=True, log=log, before_exec=before_exec
            )
            vm = cls(machine, namespace, taps, process, Reports())
            await vm._attach(lambda end: Agent.open(end, machine.name, booted=True))
            try:
                await saved.take_up(vm.monitor, state)
            except BaseException:
                await vm.close()
                raise
        return vm

    async def _attach(self, open_agent: Callable[[socket.socket], Awaitable[Agent]]) -> None:
        """Get hold of the new QEMU, or end it."""
        ends = self.process.ends
        try:
            self.monitor = await Monitor.open(ends.monitor, self.name)
            self.agent = await open_agent(ends.agent)
        except BaseException as error:
            self._end()
            ends.close()
            if isinstance(error, ExperimentError):
                raise ExperimentError(f"{error.message}; {self.last_words()}") from error
            raise
        self.lines.attach(ends.reports)
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Note that the machine has ended, and why."""
        await self.monitor.gone()
        status = await asyncio.to_thread(self.process.wait)
        self._ended.set_result(self._why(status))

    def _why(self, status: int) -> str:
        shutdown = [e for e in self.monitor.events if e.name == "SHUTDOWN"]
        if status < 0:
            return f"guest {self.name}: QEMU was killed by signal {-status}"
        if status or not shutdown or "Kernel panic" in self.last_words():
            return f"guest {self.name} is gone: {self.last_words()}"
        return f"guest {self.name} has ended by itself ({shutdown[-1].data.get('reason')})"

    # -- the guest ----------------------------------------------------------------------------

    async def ready(self, limit_s: float = BOOT_LIMIT_S) -> str:
        """Wait until the guest has booted; kernel release and available memory, as it says them.

        Raises `ExperimentError`, with the last line of its console, when it does not.
        """
        try:
            return await self.agent.ready(limit_s)
        except ExperimentError as error:
            raise ExperimentError(f"{error.message}: {self.last_words()}") from error

    async def run(self, script: str, *, given: bytes = b"", limit_s: float = 30.0) -> str:
        """Run shell commands in the guest, `given` their input; what they said (see `Agent`)."""
        return await self.agent.run(script, given=given, limit_s=limit_s)

    async def put(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Write a file in the guest, with the folders that lead to it."""
        await self.agent.put(path, data, executable=executable)

    @property
    def crashed(self) -> asyncio.Future[str]:
        """Done when the machine has ended without being closed; why."""
        return asyncio.shield(self._ended)

    @property
    def console(self) -> str:
        """All that the guest's console has said."""
        return self.process.console

    def last_words(self) -> str:
        """The line that tells most: a panic on the console, QEMU's last one, the console's."""
        words, said = super().last_words(), self.process.said.strip()
        return words if "Kernel panic" in words or not said else said.splitlines()[-1]

    async def screenshot(self, path: Path) -> None:
        """Write what the display shows, as PNG; `FeatureError` where the machine has none."""
        if self.machine.display is None:
            raise FeatureError(f"guest {self.name} has no display", remedy="give it a display size")
        await self.monitor.execute("screendump", {"filename": str(path.resolve()), "format": "png"})

    # -- its life -----------------------------------------------------------------------------

    async def save(self, path: Path) -> None:
        """Write the machine's state to a file, for `restore`; it stands still from there on."""
        await saved.save(self.monitor, self.machine, path)

    def limit_cpu(self, processors: float) -> None:
        """Change the limit that the machine was started with, while it runs."""
        if self.process.group is None:
            raise FeatureError(
                f"guest {self.name} was started without a limit on processors",
                remedy="give the machine a cpu_limit",
            )
        limit_cpu(self.process.group, processors)

    async def close(self) -> None:
        """Kill QEMU and take its TAPs away; the guest's state is lost."""
        self._watching.cancel()
        self._end()
        await self.monitor.close()
        await self.agent.close()
        self.lines.detach(self.process.ends.reports)
        self.shell.close()

    def _end(self) -> None:
        self.process.close()
        for tap in self.taps:
            tap.close()
