"""Hosts that get a share of the machine's processors, by control groups of the sandbox."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Sequence
from typing import Any

from mininet.node import CPULimitedHost as MininetCPULimitedHost

from testbed.errors import ParameterError
from testbed.network.node import Host
from testbed.sandbox.cgroups import Cgroup

_SCHEDULERS = ("cfs", "rt")
_RT_PRIORITY = 20
_LEAST_QUOTA_US = 1000  # the kernel's


class CPULimitedHost(Host, MininetCPULimitedHost):
    """A host whose programs share `cpu`, a fraction of all processors (-1: no limit).

    `cores` (0, "0,1", [0, 1]) are the processors it may use.  `sched` "rt" runs its programs at
    real-time priority, for at most that share.
    """

    def __init__(
        self, name: str, sched: str = "cfs", period_us: int = 100_000, **params: Any
    ) -> None:
        if sched not in _SCHEDULERS:
            raise ParameterError(f"{name}: sched is {sched!r}", remedy='give "cfs" or "rt"')
        self.sched = sched
        self.period_us = period_us
        self._realtime = False
        super(MininetCPULimitedHost, self).__init__(name, **params)
        self.group = Cgroup(name)

    def before_exec(self) -> None:
        """Runs in each new program of the node: it enters the group."""
        self.group.enter()
        if self._realtime:
            _make_realtime(0)

    def config(
        self, *args: Any, cpu: float | None = None, cores: Any = None, **params: Any
    ) -> dict[str, Any]:
        """Configure the node, and its share of the processors."""
        results = super().config(*args, **params)
        if cpu is not None:
            self.setCPUFrac(cpu)
        if cores is not None:
            self.setCPUs(cores)
        return results

    def setCPUFrac(self, f: float, sched: str | None = None) -> None:
        """Limit the host to a fraction of all processors; below 0 it is not limited."""
        self.sched = sched or self.sched
        if self.sched == "rt":
            if f <= 0:
                raise ParameterError(
                    f"{self.name}: cpu is {f!r} with sched='rt'", remedy="give a fraction above 0"
                )
            self.group.limit_realtime(int(self.period_us * f), self.period_us)
            self._realtime = True  # the kernel refuses it to a group without a share
            if self.shell_started:
                _make_realtime(self.pid)
            return
        if f < 0:
            self.group.limit_cpu(None, self.period_us)
            return
        period, cores = self.period_us, os.cpu_count() or 1
        quota = int(period * f * cores)
        if quota < _LEAST_QUOTA_US:
            if f == 0:
                raise ParameterError(f"{self.name}: cpu is 0", remedy="give a fraction above 0")
            quota, period = _LEAST_QUOTA_US, int(_LEAST_QUOTA_US / f / cores)
        self.group.limit_cpu(quota, period)

    def setCPUs(self, cores: Any, mems: Any = 0) -> None:
        """Run on certain processors only."""
        if isinstance(cores, (list, tuple)):
            cores = ",".join(map(str, cores))
        self.group.pin(str(cores), str(mems))

    def cgroupSet(self, param: str, value: Any, resource: str = "cpu") -> int:
        """Set a parameter of the host's group, as the kernel calls it."""
        self.group.write(resource, param, value)
        return self.cgroupGet(param, resource)

    def cgroupGet(self, param: str, resource: str = "cpu") -> int:
        """Read a parameter of the host's group."""
        return int(self.group.read(resource, param))

    def cleanup(self) -> None:
        """Let go of everything, the group too."""
        if not self.ended:
            super().cleanup()
            self.group.remove()


def _make_realtime(pid: int) -> None:
    os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(_RT_PRIORITY))


def busy_shares(hosts: Sequence[CPULimitedHost], cpu: float, duration: int) -> list[float]:
    """Percent of all processors that busy loops got in each host and second, host by host."""
    cores = os.cpu_count() or 1
    for host in hosts:
        for _ in range(math.ceil(cores * cpu)):
            host.popen(["sh", "-c", "while :; do :; done"])
    used = {host: [host.group.cpu_s()] for host in hosts}
    moments = [time.monotonic()]
    for _ in range(duration):
        time.sleep(1)  # what is measured is use over time
        moments.append(time.monotonic())
        for host in hosts:
            used[host].append(host.group.cpu_s())
    spans = [after - before for before, after in itertools.pairwise(moments)]
    return [
        (after - before) / span / cores * 100
        for host in hosts
        for before, after, span in zip(used[host], used[host][1:], spans, strict=False)
    ]
