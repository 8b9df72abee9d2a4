"""A node's processes: its mount namespace, its programs and, on first use, its bash.

Mininet starts a bash in every node when the network comes up, which is most of the time it
takes.  Here a node is two descriptors until somebody calls `cmd`, `sendCmd`, `popen` or asks
for its `pid`.  Programs are started by a thread that has joined the node's namespaces, so no
helper program (Mininet's `mnexec`) is needed.
"""

from __future__ import annotations

import functools
import os
import pty
import select
import shlex
import signal
import subprocess
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mininet.node import Node as MininetNode

from testbed.kernel import NetworkNamespace, RtNetlink, setns, unshare
from testbed.kernel.namespaces import (
    CLONE_FS,
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    in_new_thread,
    mount,
    open_current,
)
from testbed.kernel.rtnetlink import Message
from testbed.network.pipeline import PIPELINE
from testbed.network.supply import Home, Supply

SUPPLY = Supply()
HOSTS_FILE = Path("/run/testbed-hosts")  # names of the network's nodes, in the sandbox's own /run
_SENTINEL = chr(127)
_T = TypeVar("_T")


class LazyShell(MininetNode):
    """Mininet's `Node` whose shell starts on first use.

    `shell`, `pid`, `stdin`, `stdout`, `pollOut`, `master`, `slave` and `execed` are what they
    are in Mininet; reading any of them starts the shell.
    """

    ended = False
    before_exec: Callable[[], None] | None = None
    """What each program of the node does before it becomes one, where that is anything."""
    _lazy: dict[str, Any]
    _children: weakref.WeakSet[subprocess.Popen[Any]]
    _mounts = -1

    def __new__(cls, *_args: Any, **_params: Any) -> LazyShell:
        """Prepare what Mininet's constructors, which classes call by name, will assign to."""
        node: LazyShell = super().__new__(cls)
        node._lazy = {}
        node._children = weakref.WeakSet()
        return node

    # -- programs ---------------------------------------------------------------------------

    @functools.cached_property
    def home(self) -> Home:
        """The node's namespace and a socket in it, taken from the supply on first use."""
        if self.inNamespace:
            return SUPPLY.take()
        return Home(NetworkNamespace.current(), RtNetlink())

    @property
    def netns(self) -> NetworkNamespace:
        """The network namespace, with all in it that was asked for."""
        PIPELINE.flush()
        return self.home.namespace

    @property
    def netlink(self) -> RtNetlink:
        """An rtnetlink socket in the node's namespace, when all asked for before is done."""
        PIPELINE.flush()
        return self.home.netlink

    def configure(self, *messages: Message) -> None:
        """Have requests done in the node's namespace; while a network is built, a little later."""
        PIPELINE.put(self.home.netlink, messages)

    def run_inside(self, function: Callable[[], _T]) -> _T:
        """Run `function` in a thread inside the node's network and mount namespaces."""
        if not self.inNamespace:
            return function()
        directory = os.getcwd()

        def enter_and_run() -> _T:
            if self._mounts < 0:
                self._make_mounts()
            else:
                unshare(CLONE_FS)
                setns(self._mounts, CLONE_NEWNS)
                os.chdir(directory)
                setns(self.netns.fd, CLONE_NEWNET)
            return function()

        return in_new_thread(enter_and_run)

    def _make_mounts(self) -> None:
        """Private mounts: a /sys that shows this node's interfaces, /etc/hosts, `privateDirs`."""
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        setns(self.netns.fd, CLONE_NEWNET)
        mount("sysfs", "/sys", "sysfs")
        if HOSTS_FILE.exists():
            mount(str(HOSTS_FILE), "/etc/hosts", flags=MS_BIND)
        for entry in self.privateDirs:
            self._mount_private(entry)
        self._mounts = open_current("mnt")

    def _mount_private(self, entry: str | tuple[str, str]) -> None:
        if isinstance(entry, str):
            Path(entry).mkdir(parents=True, exist_ok=True)
            mount("tmpfs", entry, "tmpfs")
            return
        target, source = entry[0], entry[1] % self.__dict__
        for directory in (source, target):
            Path(directory).mkdir(parents=True, exist_ok=True)
        mount(source, target, flags=MS_BIND)

    def mountPrivateDirs(self) -> None:
        """Nothing to do yet: they are mounted with the node's first program."""

    def unmountPrivateDirs(self) -> None:
        """Nothing to do: they vanish with the node's mount namespace."""

    def popen(self, *args: Any, **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program in the node; arguments as in Mininet (a list, a string, or words).

        Keyword arguments are those of `subprocess.Popen`; standard output and error are pipes
        unless given, and the program leads a session of its own so that it can be ended whole.
        """
        if "mncmd" not in kwargs:
            kwargs["mncmd"] = []
        kwargs.setdefault("start_new_session", True)
        if self.before_exec is not None:
            kwargs.setdefault("preexec_fn", self.before_exec)
        if kwargs.get("shell"):
            os.environ.setdefault("SHELL", "/bin/bash")
        child: subprocess.Popen[Any] = self.run_inside(
            lambda: MininetNode.popen(self, *args, **kwargs)
        )
        self._children.add(child)
        return child

    # -- the shell --------------------------------------------------------------------------

    def _start_shell(self) -> None:
        master, slave = pty.openpty()
        environment = dict(os.environ, PS1=_SENTINEL)
        command = ["bash", "--norc", "--noediting", "-is", f"mininet:{self.name}"]
        shell = self.run_inside(
            lambda: subprocess.Popen(
                command,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                preexec_fn=self.before_exec,
                env=environment,
            )
        )
        terminal = os.fdopen(master, "r")
        poll = select.poll()
        poll.register(terminal)
        self._lazy = {
            "shell": shell,
            "pid": shell.pid,
            "master": master,
            "slave": slave,
            "stdin": terminal,
            "stdout": terminal,
            "pollOut": poll,
            "execed": False,
        }
        self.outToNode[master] = self.inToNode[master] = self
        self.lastCmd = self.lastPid = None
        self.readbuf = ""
        while not self.read(1024).endswith(_SENTINEL):
            poll.poll()
        self.waiting = False
        self.cmd("unset HISTFILE; stty -echo; set +m")

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:
        """As in Mininet; `printPid=True` needs no helper program."""
        if kwargs.pop("printPid", False):
            words = args[0] if len(args) == 1 and isinstance(args[0], list) else args
            command = " ".join(str(word) for word in words)
            script = f'printf "\\001%d\\012" $$; exec {command}'
            args = ("sh", "-c", shlex.quote(script))
        super().sendCmd(*args, **kwargs)

    @property
    def shell_started(self) -> bool:
        """Has anything asked for this node's shell yet?"""
        return bool(self._lazy)

    def terminate(self) -> None:
        """End the node's programs and let go of its namespaces."""
        if self.ended:
            return
        for child in list(self._children):
            self._end(child)
        if self.shell_started:
            self._end(self.shell, signal.SIGHUP)
        self.cleanup()

    @staticmethod
    def _end(child: subprocess.Popen[Any], number: int = signal.SIGKILL) -> None:
        if child.poll() is None:
            os.killpg(child.pid, number)
            child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()

    def cleanup(self) -> None:
        """Close descriptors; the kernel then takes the namespace and its interfaces."""
        self.close_shell()
        self.ended = True
        if "home" in self.__dict__:
            self.home.close()

    def close_shell(self) -> None:
        """Close the shell's terminal and let go of the mounts; a later use makes new ones."""
        if self.shell_started:
            lazy, self._lazy = self._lazy, {}
            self.outToNode.pop(lazy["master"], None)
            self.inToNode.pop(lazy["master"], None)
            lazy["stdin"].close()
            os.close(lazy["slave"])
        if self._mounts >= 0:
            os.close(self._mounts)
            self._mounts = -1


def _lazy_property(name: str) -> property:
    def get(self: LazyShell) -> Any:
        if not self._lazy and not self.ended:
            self._start_shell()
        return self._lazy.get(name)

    def ignore(self: LazyShell, value: Any) -> None:
        """Mininet's constructor assigns None before there is a shell."""
        if self._lazy:
            self._lazy[name] = value

    return property(get, ignore, doc=f"`{name}` of the node's shell, which it starts.")


for _name in ("shell", "pid", "stdin", "stdout", "pollOut", "master", "slave", "execed"):
    setattr(LazyShell, _name, _lazy_property(_name))
