"""Does anything survive an experiment that is killed?  SIGKILL at random moments, then look.

The holder of each experiment is killed somewhere between its first instruction and a network
under load, whose hosts are in control groups where those may be made.  Afterwards the machine is
compared with what it was: network namespaces (as the processes on it see them), interfaces,
mounts, control groups, and processes that carry the experiment's mark.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from benchmarks._compare import print_result, say, table
from testbed import doctor

_EXPERIMENT = """
import sys
from testbed.sandbox import ensure
ensure()
from functools import partial
from mininet.topo import SingleSwitchTopo
from testbed.network import CPULimitedHost, Host, Network
host = partial(CPULimitedHost, cpu=0.4) if sys.argv[2] == "limited" else Host
with Network(SingleSwitchTopo(10, lopts={"delay": "5ms", "bw": 10}), host=host) as net:
    net["h1"].popen(["iperf3", "-s"])
    net["h2"].cmd("while ! iperf3 -t 60 -c h1; do sleep 0.05; done # " + sys.argv[1])
"""
_LONGEST_S = 2.5
_PATIENCE_S = 10.0


@click.command()
@click.option("--kills", type=click.IntRange(1), help="How many experiments to kill (50).")
@click.option("--seed", default=1, help="Fixes the moments.")
@click.option("--quick", is_flag=True, help="Ten experiments.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(kills: int | None, seed: int, quick: bool, as_json: bool) -> int:
    """Kill experiments at random moments and list what is left of them.

    Exit status 1 when anything is.
    """
    outcome = kill_many(kills or (10 if quick else 50), seed)
    left = outcome["left"]
    cells = [outcome["kills"], *(len(found) for found in left.values()), outcome["slowest_s"]]
    head = ["killed", *(f"{kind} left" for kind in left), "slowest to vanish s"]
    print_result(outcome, table(head, [cells]), as_json)
    return 1 if any(left.values()) else 0


def kill_many(kills: int, seed: int) -> dict[str, Any]:
    """Kill `kills` experiments; what is left of all of them, by kind."""
    before = _state()
    moments = random.Random(seed)
    hosts = "unlimited" if doctor.reason("CPU limits") else "limited"
    slowest = 0.0
    for number in range(kills):
        if number % 10 == 0:
            say(f"{number} of {kills} killed ...")
        mark = f"liquidnet-kill-{os.getpid()}-{number}"
        holder = subprocess.Popen(
            [sys.executable, "-c", _EXPERIMENT, mark, hosts],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(0, _LONGEST_S))
        holder.kill()
        holder.wait()
        slowest = max(slowest, _until_gone(mark, before["control groups"]))
    after = _state()
    left = {kind: sorted(after[kind] - before[kind]) for kind in before}
    left["processes"] = _processes(f"liquidnet-kill-{os.getpid()}-")
    return {"kills": kills, "left": left, "slowest_s": slowest}


def _until_gone(mark: str, groups: set[str]) -> float:
    start = time.monotonic()
    while (_processes(mark) or _groups() - groups) and time.monotonic() - start < _PATIENCE_S:
        time.sleep(0.005)
    return time.monotonic() - start


def _state() -> dict[str, set[str]]:
    return {
        "interfaces": set(os.listdir("/sys/class/net")),
        "control groups": _groups(),
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "namespaces": {_namespace(pid) for pid in _pids()} - {""},
    }


def _groups() -> set[str]:
    """Control groups of sandboxes, in trees of either version."""
    root = Path("/sys/fs/cgroup")
    return {str(path) for pattern in ("testbed-*", "*/testbed-*") for path in root.glob(pattern)}


def _pids() -> list[str]:
    return [entry for entry in os.listdir("/proc") if entry.isdigit()]


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:  # it has ended, or is not ours to look at
        return ""


def _processes(mark: str) -> list[str]:
    found = []
    for pid in _pids():
        try:
            words = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if mark.encode() in words and int(pid) != os.getpid():
            found.append(pid)
    return found
