"""QEMU as a process: the descriptors it inherits, its logs, its share of processors."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from testbed.guests.machine import Machine
from testbed.guests.qemu.command import Descriptors, command_line
from testbed.guests.tap import Tap
from testbed.kernel import NetworkNamespace
from testbed.sandbox.cgroups import Cgroup

_PERIOD_US = 20_000  # short, so that a guest that has used its share stands still only briefly
_LEAST_QUOTA_US = 1000  # the kernel's
_numbers = itertools.count(1)


class Ends(NamedTuple):
    """Our ends of QEMU's sockets (see `Descriptors`)."""

    monitor: socket.socket
    shell: socket.socket
    agent: socket.socket
    reports: socket.socket

    def close(self) -> None:
        """Close them all."""
        for end in self:
            end.close()


class Process:
    """A QEMU in a namespace.

    `log` is where the guest's console goes, and what QEMU itself says beside it (NAME.qemu.log);
    a file that another machine has begun is left to it (NAME-2.log).  Without it both are
    temporary.  `before_exec` is called in the new process, before it becomes QEMU: the place to
    enter a control group; a machine with a limit of its own enters its own instead.
    """

    def __init__(
        self,
        machine: Machine,
        namespace: NetworkNamespace,
        taps: Sequence[Tap],
        *,
        incoming: bool = False,
        log: Path | None = None,
        before_exec: Callable[[], None] | None = None,
    ) -> None:
        pairs = [socket.socketpair() for _end in Ends._fields]
        self.ends = Ends(*(ours for ours, _theirs in pairs))
        theirs = [end for _ours, end in pairs]
        monitor, shell, agent, reports = (end.fileno() for end in theirs)
        inherited = Descriptors(monitor, shell, agent, reports, tuple(tap.fd for tap in taps))
        self._logs = _Logs(log)
        self.group = _group(machine)
        try:
            with namespace:
                self._process = subprocess.Popen(
                    command_line(machine, inherited, incoming=incoming),
                    stdin=subprocess.DEVNULL,
                    stdout=self._logs.console,
                    stderr=self._logs.said,
                    pass_fds=inherited.all,
                    start_new_session=True,
                    preexec_fn=self.group.enter if self.group else before_exec,
                )
        except BaseException:
            self.ends.close()
            self._close()
            raise
        finally:
            for end in theirs:
                end.close()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status (-N: killed by signal N), None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait for its end; its exit status."""
        return self._process.wait()

    @property
    def console(self) -> str:
        """All that the guest's console has said."""
        return self._logs.text(self._logs.console)

    @property
    def said(self) -> str:
        """All that QEMU itself has said."""
        return self._logs.text(self._logs.said)

    @property
    def resident(self) -> int:
        """Bytes of this machine's memory that it occupies."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    @property
    def cpu_s(self) -> float:
        """Processor time it has used so far, in seconds."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and let go of its logs, which stay readable here, and its group."""
        self.kill()
        self._close()

    def _close(self) -> None:
        self._logs.close()
        if self.group is not None:
            self.group.remove()
            self.group = None


def limit_cpu(group: Cgroup, processors: float) -> None:
    """Let a group take so much processor time, in processors."""
    quota, period = int(processors * _PERIOD_US), _PERIOD_US
    if quota < _LEAST_QUOTA_US:
        quota, period = _LEAST_QUOTA_US, int(_LEAST_QUOTA_US / processors)
    group.limit_cpu(quota, period)


def _group(machine: Machine) -> Cgroup | None:
    if machine.cpu_limit is None:
        return None
    group = Cgroup(f"{machine.name}-qemu{next(_numbers)}")
    limit_cpu(group, machine.cpu_limit)
    return group


class _Logs:
    """What the console and QEMU say; readable also when it has been closed."""

    def __init__(self, path: Path | None) -> None:
        self.console, self.said = _files(path)
        self._texts: dict[IO[bytes], str] = {}

    def text(self, log: IO[bytes]) -> str:
        """All of it so far."""
        if log.closed:
            return self._texts[log]
        size = os.fstat(log.fileno()).st_size
        return os.pread(log.fileno(), size, 0).decode(errors="replace")

    def close(self) -> None:
        """Let go of the files."""
        for log in (self.console, self.said):
            self._texts[log] = self.text(log)
            log.close()


def _files(path: Path | None) -> tuple[IO[bytes], IO[bytes]]:
    if path is None:
        return tempfile.TemporaryFile(), tempfile.TemporaryFile()
    for number in itertools.count(1):
        name = path.stem if number == 1 else f"{path.stem}-{number}"
        try:
            console = path.with_name(f"{name}{path.suffix}").open("x+b")
        except FileExistsError:
            continue
        return console, path.with_name(f"{name}.qemu{path.suffix}").open("w+b")
    raise AssertionError
