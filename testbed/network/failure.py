"""Nodes that fail: they hang (`freeze`, `thaw`), or lose everything (`kill`, `restart`).

A frozen node is a machine that hangs: its programs stand still, its links keep their carrier,
and nothing gets in or out, so that its protocol stack cannot answer either.  (The timers of its
stack go on, since they are the machine's.)

A killed node is one without power: its links lose their carrier, its programs die without a
word to their peers, its protocol stack is gone.  Its network cards, that is names, MAC
addresses, MTU and offloads of the interfaces that links made, wait in a new, empty namespace.
`restart` configures that as the first one was: by `config`, by the addresses of its interfaces,
by the routes of the plan, and by what was set through the node's own methods (`sysctl`,
`add_route`, `setARP`, ...).  What was typed into its shell is lost; what it should run again is
given as `on_start`.

Switches have no namespace of their own: theirs is `switch`'s business.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from testbed.errors import ExperimentError, KernelError, TopologyError
from testbed.kernel import rtnetlink
from testbed.network.cuts import Cut
from testbed.network.shell import SUPPLY, LazyShell

if TYPE_CHECKING:
    from testbed.kernel.rtnetlink import Message
    from testbed.network.addressing import NodeRoutes
    from testbed.network.net import Network

FROZEN, KILLED = "frozen", "killed"
_PATIENCE_S = 5.0

Program = str | Sequence[str] | Callable[[Any], object]
"""A shell command, the words of one, or a function that is given the node."""


class Fallible(LazyShell):
    """A node that can fail; `failed` is "", "frozen" or "killed".

    `on_start` are programs that run from the network's start on, and again after a restart.
    """

    network: Network | None = None
    failed = ""
    on_start: Sequence[Program] | Program = ()
    _planned: NodeRoutes | None = None
    _stopped: Iterable[int] = ()

    # -- hanging ------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Hang: programs stand still and nothing gets in or out, while the carrier stays."""
        self._require_running("frozen")
        cuts = [cut for i in self.wired for cut in (Cut(i), Cut(i, received=True))]
        self._network.cuts.add(self, cuts)
        self._stopped = self.stand_still()
        self.failed = FROZEN
        self._tell("node freeze", "frozen")

    def stand_still(self) -> list[int]:
        """Stop all programs; the processes that were stopped."""
        return _stop_all(self.netns.inode)

    def thaw(self) -> None:
        """Go on as if nothing had happened."""
        if self.failed != FROZEN:
            raise ExperimentError(f"{self.name} is not frozen", remedy="freeze it first")
        self._let_go()
        self._network.cuts.remove(self)
        self.failed = ""
        self._tell("node thaw", "thawed")

    def _let_go(self) -> None:
        """Let programs that were stopped go on."""
        stopped, self._stopped = self._stopped, ()
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # -- without power ------------------------------------------------------------------------

    def kill(self) -> None:
        """Lose power: programs, addresses, routes, neighbours and connections are gone at once."""
        if self.failed == KILLED:
            raise ExperimentError(f"{self.name} is killed already", remedy="restart it first")
        self._own_namespace("killed")
        wired = self.wired
        self.netlink.batch([rtnetlink.set_link(intf.index, up=False) for intf in wired])
        self._network.cuts.lost(self)
        self._network.cuts.remove(self)
        self._stopped = ()
        _kill_all(self.netns.inode)
        self._reap()
        self._replace_namespace([intf.index for intf in wired])
        self.failed = KILLED
        self._tell("node kill", "killed")

    def restart(self) -> None:
        """Come back with the configuration from the topology, its plan and the node's methods."""
        if self.failed != KILLED:
            self.kill()
        self.failed = ""
        self._configure_again()
        self._network.cuts.renew(self)
        for link in {intf.link for intf in self.intfList() if intf.link is not None}:
            link.renew(self)
        self.start_programs()
        self._tell("node restart", "restarted")

    def start_programs(self) -> None:
        """Run what `on_start` names."""
        programs = self.on_start
        one = isinstance(programs, str) or callable(programs)
        for program in [programs] if one else programs:  # type: ignore[union-attr]
            if callable(program):
                program(self)
            else:
                self.popen(
                    program if isinstance(program, str) else list(program),
                    shell=isinstance(program, str),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )

    def _reap(self) -> None:
        """Collect the dead, and forget the shell."""
        for child in list(self._children):
            child.wait()
        if self.shell_started:
            self.shell.wait()
        self.close_shell()

    def _replace_namespace(self, indexes: list[int]) -> None:
        """A new protocol stack under the same network cards."""
        old, new = self.home, SUPPLY.take()
        self.__dict__["home"] = new
        for name, value in self.settings.items():
            with suppress(KernelError):  # of an interface that is not there yet
                self.netns.sysctl(name, value)
        moves = [rtnetlink.set_link(index, namespace_fd=new.namespace.fd) for index in indexes]
        try:
            old.netlink.batch(moves)
        finally:
            old.close()

    def _configure_again(self) -> None:
        wired = self.wired
        addresses = [(intf, *intf.addresses) for intf in wired]
        for intf, ip, ip6 in addresses:
            intf.forget()
            intf.set_addresses(ip, ip6)
        for name, value in self.settings.items():
            self.netns.sysctl(name, value)
        self.config(**self.params)
        for intf, ip, ip6 in addresses:
            if (ip, ip6) != intf.addresses:  # they were changed after `config`
                intf.set_addresses(ip, ip6)
        if self._planned is not None:
            self.apply_routes(self._planned)
        self.netlink.batch(list(self.remembered))

    @property
    def wired(self) -> list[Any]:
        """Its interfaces, loopback apart."""
        return [intf for intf in self.intfList() if intf.name != "lo"]

    # -- what it needs ------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """Kernel settings made by `sysctl`, in order."""
        found: dict[str, Any] = self.__dict__.setdefault("_settings", {})
        return found

    @property
    def remembered(self) -> dict[Message, None]:
        """Routes and neighbours that were added by the node's methods, in order."""
        found: dict[Message, None] = self.__dict__.setdefault("_remembered", {})
        return found

    @property
    def _network(self) -> Network:
        if self.network is None:
            raise TopologyError(
                f"{self.name} belongs to no network and cannot fail in one",
                remedy="make nodes with net.addHost()",
            )
        return self.network

    def _tell(self, kind: str, what: str) -> None:
        self._network.notify(kind, mark=f"{self.name} {what}", node=self.name)

    def _own_namespace(self, what: str) -> None:
        if not self.inNamespace:
            raise TopologyError(
                f"{self.name} cannot be {what}: it shares the network's namespace",
                remedy="make it without inNamespace=False",
            )

    def _require_running(self, what: str = "used") -> None:
        if self.failed:
            remedy = "thaw it first" if self.failed == FROZEN else "restart it first"
            raise ExperimentError(
                f"{self.name} is {self.failed} and cannot be {what}", remedy=remedy
            )
        if what != "used":
            self._own_namespace(what)

    # -- what a failed node does not do -------------------------------------------------------

    def popen(self, *args: Any, **kwargs: Any) -> subprocess.Popen[Any]:
        """As in Mininet; raises `ExperimentError` on a node that is frozen or killed."""
        self._require_running()
        return super().popen(*args, **kwargs)

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:
        """As in Mininet; raises `ExperimentError` on a node that is frozen or killed."""
        self._require_running()
        super().sendCmd(*args, **kwargs)

    def terminate(self) -> None:
        """End the node's programs, be they frozen, and let go of its namespaces."""
        self._let_go()
        self.failed = ""
        super().terminate()


def processes(inode: int) -> set[int]:
    """Processes whose network namespace has that number, our own apart."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):
                if os.stat(f"/proc/{name}/ns/net").st_ino == inode:
                    found.add(int(name))
    return found


def _stop_all(inode: int) -> list[int]:
    """Stop every process in a namespace, also those born meanwhile; returns which, when all stand.

    Those that stand still already are none of them: they must not run on a later SIGCONT.
    """
    deadline = time.monotonic() + _PATIENCE_S
    standing = {pid for pid in processes(inode) if _stands(pid)}
    stopped: set[int] = set()
    while running := {pid for pid in processes(inode) - standing if not _stands(pid)}:
        for pid in running - stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= running
        if time.monotonic() > deadline:
            raise ExperimentError(
                f"processes {sorted(running)} do not stop", remedy="see what they wait for"
            )
        time.sleep(0.001)
    return sorted(stopped)


def _kill_all(inode: int) -> None:
    """Kill every process in a namespace and return when all are gone."""
    deadline = time.monotonic() + _PATIENCE_S
    while left := processes(inode):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ExperimentError(
                f"processes {sorted(left)} do not end",
                remedy="see what they wait for",
            )
        time.sleep(0.002)


def _stands(pid: int) -> bool:
    """Is a process stopped already?"""
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in "Tt"
    return False
