"""Control groups of a sandbox: what is written where, in both of the kernel's versions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed import doctor
from testbed.errors import FeatureError, PrivilegeError
from testbed.sandbox import cgroups
from testbed.sandbox.cgroups import Cgroup


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the mounted control groups; files in it are made by those who write."""
    monkeypatch.setattr(cgroups, "name_of_this", lambda: "testbed-7")
    make = Path.mkdir

    def with_files(path: Path, *args: object, **kwargs: object) -> None:
        make(path, *args, **kwargs)  # type: ignore[arg-type]
        if tmp_path in path.parents:
            (path / "cgroup.procs").touch()

    monkeypatch.setattr(Path, "mkdir", with_files)
    return tmp_path


def test_version_2_has_one_tree_and_one_parameter(tree: Path) -> None:
    for name in ("cgroup.controllers", "cgroup.procs"):
        (tree / name).touch()
    group = Cgroup("h1", root=tree)
    assert group.version == 2
    group.limit_cpu(20_000, 100_000)
    made = tree / "testbed-7" / "h1"
    assert (made / "cpu.max").read_text() == "20000 100000\n"
    group.limit_cpu(None, 100_000)
    assert (made / "cpu.max").read_text() == "max 100000\n"
    group.pin("0,1")
    assert (made / "cpuset.cpus").read_text() == "0,1\n"
    for level in (tree, tree / "testbed-7"):
        assert (level / "cgroup.subtree_control").read_text() == "+cpuset"
    (made / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    assert group.cpu_s() == 1.5
    with pytest.raises(FeatureError, match="version 1"):
        group.limit_realtime(1, 2)


def test_version_1_has_a_tree_for_each_controller(tree: Path) -> None:
    for name in ("cpu", "cpuacct", "cpuset"):
        (tree / name).mkdir()
    for name in ("cpus", "mems"):
        (tree / "cpuset" / f"cpuset.{name}").write_text("0-3\n")
    group = Cgroup("h1", root=tree)
    assert group.version == 1
    group.limit_cpu(20_000, 100_000)
    made = tree / "cpu" / "testbed-7" / "h1"
    assert (made / "cpu.cfs_quota_us").read_text() == "20000\n"
    assert (made / "cpu.cfs_period_us").read_text() == "100000\n"
    group.pin("2")
    above = tree / "cpuset" / "testbed-7"
    assert (above / "cpuset.cpus").read_text() == "0-3\n"
    assert (above / "h1" / "cpuset.cpus").read_text() == "2\n"
    group.enter()
    assert (made / "cgroup.procs").read_text() == "0"


def test_a_machine_without_the_controller_is_named(tree: Path) -> None:
    with pytest.raises(FeatureError, match="cpu is missing"):
        Cgroup("h1", root=tree)


HOLDER = """
import sys, time
from testbed.sandbox import ensure
ensure()
from testbed.sandbox.cgroups import Cgroup
from testbed.network import CPULimitedHost
host = CPULimitedHost("h1")
host.setCPUs(0)
host.popen(["sleep", "50"])
from testbed.sandbox._child import name_of_this
print(name_of_this(), flush=True)
time.sleep(50)
"""


def groups(name: str) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [path for pattern in ("", "*/") for path in root.glob(f"{pattern}{name}/h1")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_groups_go_with_their_sandbox_however_it_ends(number: signal.Signals) -> None:
    if reason := doctor.reason("CPU limits"):
        pytest.skip(reason)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    name = holder.stdout.readline().strip()
    assert groups(name)
    holder.send_signal(number)
    holder.communicate()
    deadline = time.monotonic() + 30
    while groups(name) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert groups(name) == []


def test_who_may_not_make_groups_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "name_of_this", lambda: "testbed-7")
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cgroup.procs").touch()
    (tmp_path / "cpu" / "testbed-7").touch()  # in the way, as a lack of rights would be
    with pytest.raises(PrivilegeError, match="run as root"):
        Cgroup("h1", root=tmp_path)
    assert os.path.isfile(tmp_path / "cpu" / "testbed-7")
