"""Where a run came from: machine, kernel, packages, revision, kernel settings."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from testbed.errors import KernelError
from testbed.kernel.namespaces import sysctl
from testbed.remote.project import MACHINE, REVISION, note

_DISTRIBUTION = "liquidnet"
_SYSCTLS = (
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_max_backlog",
    "net.mptcp.enabled",
    "net.mptcp.scheduler",
    "net.mptcp.path_manager",
)


def machine() -> dict[str, Any]:
    """Kernel, processor, memory and the operating system, as far as they bear on results.

    On a machine that `testbed vm` works on, "remote" says which that is.
    """
    system = os.uname()
    remote = note(MACHINE)
    return {
        **({"remote": remote} if remote else {}),
        "kernel": f"{system.sysname} {system.release} {system.machine}",
        "kernel_build": system.version,
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "virtual": " hypervisor" in _read("/proc/cpuinfo"),
        "os": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "root": os.geteuid() == 0,
    }


def packages() -> dict[str, str]:
    """Versions of Python, of ourselves and of what we depend on."""
    found = {"python": platform.python_version()}
    for line in (_DISTRIBUTION, *(requires(_DISTRIBUTION) or ())):
        name = re.split(r"[\s;<>=!~\[]", line, maxsplit=1)[0]
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return found


def revision() -> dict[str, Any]:
    """Git revision of the code that runs, and whether files differ from it; {} if not known.

    A copy of the project on another machine knows it of a note.
    """
    if noted := note(REVISION):
        return noted
    folder = Path(__file__).parent
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return {}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=normal", ":/")
    return {"commit": head, "changed_files": len((changed or "").splitlines())}


def settings() -> dict[str, str]:
    """Kernel settings that bear on results, as they are in the caller's network namespace."""
    found = {}
    for name in _SYSCTLS:
        try:
            found[name] = sysctl(name)
        except KernelError:
            found[name] = "(not in this namespace)"
    return found


def command_line() -> list[str]:
    """The command that was typed."""
    return ["testbed" if sys.argv[0].endswith("testbed") else sys.argv[0], *sys.argv[1:]]


def _cpu_model() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return match[1] if match else platform.processor()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:  # not every machine has every file
        return ""


def _git(folder: Path, *arguments: str) -> str | None:
    # safe.directory: a checkout that belongs to someone else (sudo) may be asked all the same
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
