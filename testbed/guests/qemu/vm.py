"""One running machine: a QEMU in a namespace, its TAPs, its monitor and its agent."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, ClassVar

from testbed.errors import ExperimentError
from testbed.guests.agent import Agent
from testbed.guests.backend import Capability, Vm
from testbed.guests.machine import Machine
from testbed.guests.qemu.command import Descriptors, command_line
from testbed.guests.qemu.monitor import Monitor
from testbed.guests.tap import Tap
from testbed.kernel import NetworkNamespace

_BOOT_LIMIT_S = 90.0  # ten times what translated machines were seen to take on a loaded machine


class QemuVm(Vm):
    """A virtual machine; `start` makes one, `ready` waits until it has booted.

    `log` holds what the guest's console and QEMU said.  QEMU is killed when the guest is closed,
    and ends with its sandbox in any case.
    """

    backend: ClassVar[str] = "QEMU"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.LIVE_MIGRATION})

    def __init__(
        self,
        machine: Machine,
        namespace: NetworkNamespace,
        taps: Sequence[Tap],
        process: subprocess.Popen[bytes],
        log: IO[bytes],
    ) -> None:
        self.machine = machine
        self.namespace = namespace
        self.taps = tuple(taps)
        self.process = process
        self._log = log
        self.monitor: Monitor
        self.agent: Agent

    @classmethod
    async def start(
        cls,
        machine: Machine,
        namespace: NetworkNamespace,
        taps: Sequence[Tap] = (),
        *,
        incoming_from: QemuVm | None = None,
        log: Path | None = None,
    ) -> QemuVm:
        """Start QEMU in `namespace` with one TAP for each of the machine's interfaces.

        With `incoming_from` it waits for that guest to be migrated to it.  `log` is a file to
        be written (else a temporary one).  The TAPs become the guest's to close.

        Raises `ExperimentError` where QEMU does not start.
        """
        monitor, monitor_there = socket.socketpair()
        agent, agent_there = socket.socketpair()
        descriptors = Descriptors(
            monitor_there.fileno(), agent_there.fileno(), tuple(tap.fd for tap in taps)
        )
        words = command_line(machine, descriptors, incoming=incoming_from is not None)
        output = _log_file(log)
        with namespace, monitor_there, agent_there:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors.all,
                start_new_session=True,
            )
        vm = cls(machine, namespace, taps, process, output)
        try:
            await vm._attach(monitor, agent, incoming_from)
        except BaseException:
            vm._end()
            monitor.close()
            agent.close()
            raise
        return vm

    async def _attach(
        self, monitor: socket.socket, agent: socket.socket, incoming_from: QemuVm | None
    ) -> None:
        try:
            self.monitor = await Monitor.open(monitor, self.machine.name)
        except ExperimentError as error:
            raise ExperimentError(f"{error.message}; {self.last_words()}") from error
        if incoming_from is None:
            self.agent = await Agent.open(agent, self.machine.name)
        else:
            self.agent = await incoming_from.agent.successor(agent)

    async def ready(self, limit_s: float = _BOOT_LIMIT_S) -> str:
        """Wait until the guest has booted; kernel release and available memory, as it says them.

        Raises `ExperimentError`, with the last line of its console, when it does not.
        """
        try:
            return await self.agent.ready(limit_s)
        except ExperimentError as error:
            raise ExperimentError(f"{error.message}: {self.last_words()}") from error

    async def run(self, script: str, *, limit_s: float = 30.0) -> str:
        """Run shell commands in the guest; what they said (see `Agent.run`)."""
        return await self.agent.run(script, limit_s=limit_s)

    @property
    def console(self) -> str:
        """All that the guest's console and QEMU have said."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    @property
    def resident(self) -> int:
        """Bytes of this machine's memory that QEMU occupies."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    async def close(self) -> None:
        """Kill QEMU and take its TAPs away; the guest's state is lost."""
        self._end()
        await self.monitor.close()
        await self.agent.close()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        for tap in self.taps:
            tap.close()
        if not self._log.closed:
            self._log.close()


def _log_file(path: Path | None) -> IO[bytes]:
    return path.open("w+b") if path else tempfile.TemporaryFile()
