"""The inside of a sandbox: make the namespaces, be their first process, run the payload.

Three processes, each the parent of the next:

    outer    makes the namespaces, waits, hands on the exit status
    init     pid 1 of the new process namespace: mounts, watches the lifelines, reaps orphans
    payload  the command or function that was asked for

A lifeline is the read end of a pipe: end of file on it means its holder has died.  There is one
to the process that asked for the sandbox and one to `outer`, so it does not matter which of
them is killed, or when: a lifeline that closed before anyone watched is read as closed.
"""

from __future__ import annotations

import os
import resource
import secrets
import select
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from testbed.errors import KernelError, PrivilegeError
from testbed.kernel import RtNetlink, rtnetlink, unshare
from testbed.kernel.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_BIND,
    MS_MOVE,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
)
from testbed.sandbox._janitor import janitor
from testbed.sandbox.uplink import Uplink
from testbed.sandbox.uplink import furnish as furnish_uplink

_MARK = Path("/run/testbed-sandbox")
_STAGE = Path("/run/.cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_KINDS = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC
_MAX_FILES = 1 << 20
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def inside() -> bool:
    """Is this process in a sandbox?"""
    return _MARK.exists()


def name_of_this() -> str:
    """The name of the sandbox this process is in, which no other on the machine has."""
    return _MARK.read_text()


def contain(payload: Callable[[], int], lifelines: Iterable[int], *, uplink: bool = False) -> int:
    """Run `payload` in new namespaces and return its exit status (128 + n for signal n).

    The calling process is spoilt for anything else: it is in the new namespaces.  `lifelines`
    are descriptors whose end of file ends the sandbox.  With `uplink` it reaches the machine's
    network.  Raises `PrivilegeError` where the machine does not allow namespaces, and
    `FeatureError` where it has no uplink to offer.
    """
    name = f"testbed-{os.getpid()}-{secrets.token_hex(4)}"
    keeper = janitor(name)
    way_out = Uplink() if uplink else None
    helpers = [helper for helper in (keeper, way_out) if helper]
    held = [helper.pipe for helper in helpers]
    _enter_namespaces()
    if way_out:
        way_out.connect()
    own_read, own_write = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(own_write)
        _init(payload, name, [own_read, *lifelines], held, uplink)
    os.close(own_read)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: _forward(init, received))
    status = _exit_status(_wait(init))
    for helper in helpers:
        helper.finish()
    return status


def _forward(init: int, number: int) -> None:
    # The terminal sends Ctrl-C to the whole foreground group, payload included.
    if number != signal.SIGINT:
        os.kill(init, number)


def _wait(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def _exit_status(wait_status: int) -> int:
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _enter_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(_KINDS if uid == 0 else _KINDS | CLONE_NEWUSER)
        if uid != 0:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise _refused(uid, error) from error


def _refused(uid: int, error: OSError) -> PrivilegeError:
    if uid == 0:
        return PrivilegeError(
            f"the kernel refuses new namespaces ({error})",
            remedy="run with CAP_SYS_ADMIN: outside the container, or in a privileged one",
        )
    return PrivilegeError(
        f"this machine does not let ordinary users make namespaces ({error})",
        remedy=f"run with sudo, or let users: {_user_namespace_setting()}",
    )


def _user_namespace_setting() -> str:
    for name, value in (
        ("kernel.unprivileged_userns_clone", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "0"),
        ("user.max_user_namespaces", "10000"),
    ):
        path = Path("/proc/sys") / name.replace(".", "/")
        if path.exists() and path.read_text().strip() != value:
            return f"sudo sysctl -w {name}={value}"
    return "ask whoever runs the container to allow user namespaces"


# -- the first process ---------------------------------------------------------------------------


def _init(
    payload: Callable[[], int], name: str, lifelines: list[int], held: list[int], uplink: bool
) -> NoReturn:
    """Life of pid 1: set up, start the payload, reap, and leave when it or a lifeline ends.

    `held` are descriptors that tell others that it lives; the payload gets none of them.
    """
    status = 1
    try:
        wake_read, wake_write = os.pipe()
        for end in (wake_read, wake_write):
            os.set_blocking(end, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        _furnish(name)
        for source, target in furnish_uplink() if uplink else ():
            mount(source, target, flags=MS_BIND)
        child = _start(payload, [wake_read, wake_write, *lifelines, *held])
        signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(child, number))
        status = _watch(child, wake_read, lifelines)
    except KernelError as error:
        os.write(2, f"testbed: cannot furnish the sandbox: {error}\n".encode())
    finally:
        os._exit(status)


def _start(payload: Callable[[], int], private: Iterable[int]) -> int:
    child = os.fork()
    if child:
        return child
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for fd in private:
        os.close(fd)
    status = 1
    try:
        status = payload()
    finally:
        os._exit(status)


def _watch(child: int, wake: int, lifelines: list[int]) -> int:
    poll = select.poll()
    for fd in (wake, *lifelines):
        poll.register(fd, select.POLLIN)
    while True:
        ready = [fd for fd, _events in poll.poll()]
        if any(fd in lifelines for fd in ready):
            return 128 + signal.SIGKILL
        os.read(wake, 4096)
        for pid, wait_status in _reap():
            if pid == child:
                return _exit_status(wait_status)


def _reap() -> Iterable[tuple[int, int]]:
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, wait_status


def _furnish(name: str) -> None:
    """Private /proc, /sys, /run and /dev/shm, loopback up, descriptors for large networks."""
    strict = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", strict)
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    _STAGE.mkdir()
    if _CGROUPS.is_dir():
        mount(str(_CGROUPS), str(_STAGE), flags=MS_BIND | MS_REC)
    mount("sysfs", "/sys", "sysfs", strict)
    if os.path.ismount(_STAGE):
        mount(str(_STAGE), str(_CGROUPS), flags=MS_MOVE)
    _STAGE.rmdir()
    for directory in ("netns", "lock"):
        Path("/run", directory).mkdir()
    _MARK.write_text(name)
    loopback = RtNetlink()
    loopback.request(rtnetlink.set_link(1, up=True))
    loopback.close()
    _raise_file_limit()
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(path + [d for d in _SBIN if d not in path])


def _raise_file_limit() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, _MAX_FILES)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, PermissionError):  # only root may go past its hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
