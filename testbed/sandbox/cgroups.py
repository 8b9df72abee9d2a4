"""Control groups of a sandbox: limits on what the processes of a node may use.

Both of the kernel's interfaces are spoken: version 1 (a tree for each controller) and version 2
(one tree).  A sandbox's groups are below one that carries its name, by which they are removed
when it is gone (`_janitor`).
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from testbed.errors import FeatureError, PrivilegeError
from testbed.sandbox._child import name_of_this
from testbed.sandbox._janitor import ROOT

_PATIENCE_S = 5.0


class Cgroup:
    """One group; processes enter it by `enter`, their children are born in it.

    Raises `PrivilegeError` where groups may not be made, `FeatureError` where the kernel has no
    controller for processors.  `root` is where control groups are mounted.
    """

    def __init__(self, name: str, *, root: Path = Path(ROOT)) -> None:
        self._root = root
        self._path = Path(name_of_this(), name)
        self.version = 2 if (root / "cgroup.controllers").exists() else 1
        self._made: dict[Path, int] = {}  # and a descriptor by which processes enter it
        for controller in ("cpu",) if self.version == 2 else ("cpu", "cpuacct"):
            self._make(controller)

    def _tree(self, controller: str) -> Path:
        return self._root if self.version == 2 else self._root / controller

    def _directory(self, controller: str) -> Path:
        return self._tree(controller) / self._path

    def _make(self, controller: str) -> None:
        tree, group = self._tree(controller), self._directory(controller)
        if not tree.is_dir() or not (tree / "cgroup.procs").exists():
            raise FeatureError(
                f"this kernel limits no processors by control groups ({tree} is missing)",
                remedy="mount cgroups, with the cpu controller",
            )
        if group in self._made:
            self._enable(tree, group, controller)
            return
        try:
            self._enable(tree, group, controller)
            group.mkdir(parents=True, exist_ok=True)
            self._made[group] = os.open(group / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise PrivilegeError(
                f"control groups may not be made here ({error})",
                remedy="run as root, outside a container, for hosts with limited processors",
            ) from error

    def _enable(self, tree: Path, group: Path, controller: str) -> None:
        """In version 2, a controller is there for a group if the groups above pass it on."""
        if self.version == 2:
            group.parent.mkdir(exist_ok=True)
            for level in (tree, group.parent):
                (level / "cgroup.subtree_control").write_text(f"+{controller}")

    # -- limits ---------------------------------------------------------------------------------

    def write(self, controller: str, parameter: str, value: str | int) -> None:
        """Set one parameter of a controller of this group."""
        self._put(self._directory(controller), controller, parameter, value)

    def read(self, controller: str, parameter: str) -> str:
        """One parameter of a controller of this group."""
        return (self._directory(controller) / f"{controller}.{parameter}").read_text().strip()

    @staticmethod
    def _put(directory: Path, controller: str, parameter: str, value: str | int) -> None:
        path = directory / f"{controller}.{parameter}"
        try:
            path.write_text(f"{value}\n")
        except OSError as error:
            raise FeatureError(
                f"control group: {path.name} = {value}: {error.strerror}",
                remedy="use a kernel that has it (CONFIG_CFS_BANDWIDTH, CONFIG_RT_GROUP_SCHED)",
            ) from error

    def limit_cpu(self, quota_us: int | None, period_us: int) -> None:
        """Let the group run for `quota_us` of processor time in every period; None is unlimited."""
        if self.version == 2:
            self.write("cpu", "max", f"{'max' if quota_us is None else quota_us} {period_us}")
            return
        self.write("cpu", "cfs_period_us", period_us)
        self.write("cpu", "cfs_quota_us", -1 if quota_us is None else quota_us)

    def limit_realtime(self, runtime_us: int, period_us: int) -> None:
        """Let real-time processes of the group run for `runtime_us` in every period.

        The groups above must have been given as much.
        """
        if self.version == 2:
            raise FeatureError(
                "sched='rt' needs control groups of version 1", remedy="use sched='cfs'"
            )
        group = self._directory("cpu")
        siblings = (path for path in group.parent.iterdir() if path.is_dir() and path != group)
        share = runtime_us / period_us + sum(map(_realtime_share, siblings))
        period = int((group.parent / "cpu.rt_period_us").read_text())
        self._put(group.parent, "cpu", "rt_runtime_us", int(share * period) + 1)
        self.write("cpu", "rt_period_us", period_us)
        self.write("cpu", "rt_runtime_us", runtime_us)

    def pin(self, cores: str, mems: str = "0") -> None:
        """Run on these processors only, as "0,2-3"."""
        self._make("cpuset")
        group = self._directory("cpuset")
        if self.version == 1:  # a group starts without any, and must be within the one above
            for parameter in ("cpus", "mems"):
                above = (self._tree("cpuset") / f"cpuset.{parameter}").read_text().strip()
                self._put(group.parent, "cpuset", parameter, above)
        self._put(group, "cpuset", "cpus", cores)
        self._put(group, "cpuset", "mems", mems)

    def cpu_s(self) -> float:
        """Processor time used so far, in seconds."""
        if self.version == 1:
            return int(self.read("cpuacct", "usage")) / 1e9
        used = dict(line.split() for line in self.read("cpu", "stat").splitlines())
        return int(used["usage_usec"]) / 1e6

    # -- members --------------------------------------------------------------------------------

    def enter(self) -> None:
        """Put the calling process into the group, which it need not see in its /sys."""
        for door in self._made.values():
            os.write(door, b"0")

    def remove(self) -> None:
        """End what is left in the group, and remove it."""
        deadline = time.monotonic() + _PATIENCE_S
        for group, door in self._made.items():
            os.close(door)
            while members := (group / "cgroup.procs").read_text().split():
                for pid in members:
                    _kill(int(pid))
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            group.rmdir()
        self._made.clear()


def _realtime_share(group: Path) -> float:
    runtime, period = (
        int((group / f"cpu.rt_{what}_us").read_text()) for what in ("runtime", "period")
    )
    return runtime / period


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended by itself
        return
