"""The shell of a guest: a terminal of the machine (hvc0), with an interactive shell on it.

Mininet talks to a node's shell by its standard input and output, sees by a sentinel that a
command is done, and interrupts it with Ctrl-C.  All of that goes over the terminal, which moves
with the guest; where the guest runs now is another end of it here.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from testbed.errors import ExperimentError
from testbed.guests.background import BACKGROUND
from testbed.guests.program import GuestProgram
from testbed.network.failure import Fallible

if TYPE_CHECKING:
    import socket

    from testbed.guests.qemu.vm import QemuVm

_SENTINEL = chr(127)
# The terminal forgets its settings when nobody has it open.  Busybox would run its own shell for
# "sh", which edits lines; job control would report jobs among what commands say.
_SHELL = """
cd /
unset ENV
export PS1=$(printf '\\177') PS2=
{ stty -echo -echoctl -ixon; exec setsid -c /bin/sh -i; } </dev/hvc0 >/dev/hvc0 2>&1 &
"""


class Terminal(Fallible):
    """The part of a guest that is its shell and its programs."""

    @property
    def vm(self) -> QemuVm:
        """The running machine; `ExperimentError` when it does not run."""
        raise NotImplementedError

    def _start_shell(self) -> None:
        self._require_running()
        vm = self.vm
        end = vm.shell
        end.setblocking(True)
        BACKGROUND.call(vm.run(_SHELL))
        self._lazy = {"shell": vm.process, "pid": vm.process.pid, "execed": False}
        self._use(end)
        self.lastCmd = self.lastPid = None
        self.readbuf = ""
        while not self.read(1024).endswith(_SENTINEL):
            self.waitReadable()
        self.waiting = False
        self.cmd("set +m")

    def _use(self, end: socket.socket) -> None:
        """Speak with the shell at this end of the terminal."""
        poll = select.poll()
        poll.register(end)
        self._lazy |= {"stdin": end, "stdout": end, "pollOut": poll, "master": end.fileno()}
        self.outToNode[end.fileno()] = self.inToNode[end.fileno()] = self

    def follow(self, vm: QemuVm) -> None:
        """The guest is another machine's now: what its shell says comes out there."""
        if not self.shell_started:
            return
        self._forget_end()
        vm.shell.setblocking(True)
        self._lazy |= {"shell": vm.process, "pid": vm.process.pid}
        self._use(vm.shell)

    def _forget_end(self) -> None:
        self.outToNode.pop(self._lazy["master"], None)
        self.inToNode.pop(self._lazy["master"], None)

    def close_shell(self) -> None:
        """Leave the terminal, which is the machine's to close."""
        if self.shell_started:
            self._forget_end()
            self._lazy = {}

    def read(self, size: int = 1024) -> str:
        """As in Mininet; raises `ExperimentError` when the machine is gone."""
        before = self.readbuf
        try:
            said: str = super().read(size)
        except ConnectionError:
            said = ""
        if not said and not before:
            raise ExperimentError(f"{self.name}: the machine is gone", remedy="see its console log")
        return said

    def popen(self, *args: Any, **options: Any) -> Any:
        """Start a program in the guest; arguments as in Mininet.

        What comes back has what is used of a `subprocess.Popen`; see `GuestProgram`.
        """
        self._require_running()
        options.pop("mncmd", None)
        return GuestProgram(self.vm, args, **options)
