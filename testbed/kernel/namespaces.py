"""Linux namespaces as file descriptors: create, enter, leave, mount inside.

Python below 3.12 has neither `os.setns` nor `os.unshare`, so they are called through libc.
A namespace that nobody is in lives as long as a descriptor on it is open: an idle node of a
thousand-host network costs one descriptor here, no process and no mount.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeVar

from testbed.errors import KernelError

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE, MS_SLAVE = 0x1000, 0x2000, 0x4000, 1 << 18, 1 << 19

_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


class _Thread(threading.local):
    """The namespaces that this thread left to be inside others, outermost first."""

    def __init__(self) -> None:
        self.left: list[int] = []


_thread = _Thread()


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise KernelError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces of the kinds in `flags` (unshare(2))."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `fd` (setns(2))."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system (mount(2)); a `KernelError` names the target."""
    arguments = (source.encode(), target.encode(), fstype.encode() or None)
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def open_current(kind: str) -> int:
    """A descriptor on the calling thread's namespace; `kind` is a name in /proc/self/ns."""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def in_new_thread(function: Callable[[], _T]) -> _T:
    """Run `function` in a thread of its own and return (or raise) what it did.

    A thread that joins a mount namespace cannot go back to what it shared with its process, so
    such work is given a thread to spoil.
    """
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class NetworkNamespace:
    """A network namespace held by a file descriptor; `with ns:` puts this thread inside it.

    Blocks may nest, also across namespaces, and several threads may be inside.  While inside,
    sockets are created in it and /proc/sys/net shows its settings; a child process started there
    stays in it.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> NetworkNamespace:
        """A new, empty network namespace (its loopback is down)."""
        home = open_current("net")
        try:
            unshare(CLONE_NEWNET)
            try:
                return cls(open_current("net"))
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    @classmethod
    def current(cls) -> NetworkNamespace:
        """The namespace the calling thread is in."""
        return cls(open_current("net"))

    @property
    def inode(self) -> int:
        """The number that identifies this namespace on the machine."""
        return os.fstat(self.fd).st_ino

    @property
    def path(self) -> str:
        """A path other processes of the same sandbox can open while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def __enter__(self) -> NetworkNamespace:
        home = open_current("net")
        setns(self.fd, CLONE_NEWNET)
        _thread.left.append(home)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        home = _thread.left.pop()
        setns(home, CLONE_NEWNET)
        os.close(home)

    def sysctl(self, name: str, value: str | int | None = None) -> str:
        """Read `net.*` setting `name` (dots or slashes), writing `value` first if given."""
        with self:
            return sysctl(name, value)

    def set_sysctls(self, values: Mapping[str, str | int]) -> None:
        """Write several `net.*` settings in one visit."""
        with self:
            for name, value in values.items():
                _write_sysctl(name, value)

    def close(self) -> None:
        """Let go of the namespace; the kernel removes it when nobody is left in it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def sysctl(name: str, value: str | int | None = None) -> str:
    """Read kernel setting `name` in the caller's namespaces, writing `value` first if given."""
    if value is not None:
        _write_sysctl(name, value)
    try:
        with open(_sysctl_path(name), encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        raise KernelError(error.errno or 0, f"kernel setting {name}: {error.strerror}") from error


def _write_sysctl(name: str, value: str | int) -> None:
    try:
        file = os.open(_sysctl_path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, f"{value}\n".encode("ascii"))
        finally:
            os.close(file)
    except OSError as error:
        raise KernelError(
            error.errno or 0, f"kernel setting {name} = {value}: {error.strerror}"
        ) from error


def _sysctl_path(name: str) -> str:
    return "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))
