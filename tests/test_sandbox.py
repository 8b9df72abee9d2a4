from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.errors import ExperimentError, ParameterError
from testbed.sandbox import Sandbox, call, inside


def interfaces() -> list[str]:
    return sorted(os.listdir("/sys/class/net"))


def test_call_returns_the_result_and_runs_in_private_namespaces() -> None:
    own = {
        kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "pid", "mnt", "uts", "ipc")
    }

    def look() -> tuple[bool, list[str], list[str], dict[str, str]]:
        kinds = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in own}
        return inside(), interfaces(), sorted(p for p in os.listdir("/proc") if p.isdigit()), kinds

    is_inside, found, processes, kinds = call(look)
    assert is_inside
    assert not inside()
    assert found == ["lo"]
    assert processes == ["1", "2"]
    assert all(kinds[kind] != own[kind] for kind in own)


def test_run_is_private() -> None:
    name = f"/run/only-inside-{os.getpid()}"
    assert call(lambda: Path(name).write_text("x")) == 1
    assert not os.path.exists(name)


def test_an_error_inside_is_raised_outside_with_its_traceback() -> None:
    def fail() -> None:
        raise ParameterError("bw is 'fast'", remedy="give a number in Mb/s")

    with pytest.raises(ParameterError, match="give a number") as caught:
        call(fail)
    assert caught.value.remedy == "give a number in Mb/s"
    assert "in fail" in str(caught.value.__cause__)


def test_a_killed_payload_is_reported() -> None:
    with pytest.raises(ExperimentError, match="status 137"):
        call(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_exit_status_and_signals_of_a_command() -> None:
    def status(script: str) -> int:
        with Sandbox() as sandbox:
            return int(sandbox.popen(["sh", "-c", script]).wait())

    assert status("exit 7") == 7
    assert status("kill -TERM $$") == 128 + signal.SIGTERM
    with Sandbox() as sandbox:
        assert sandbox.popen(["/no/such/program"], stderr=subprocess.DEVNULL).wait() == 127


def test_two_sandboxes_do_not_meet() -> None:
    script = "ip link add same type bridge && sleep 0.3 && ip -o link show type bridge | wc -l"
    with Sandbox() as one, Sandbox() as two:
        first = one.popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
        second = two.popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert first.communicate()[0].strip() == "1"
        assert second.communicate()[0].strip() == "1"


def processes_with(mark: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in command:
                found.append(entry)
    return found


HOLDER = """
import sys, time
from testbed.sandbox import Sandbox
sandbox = Sandbox()
sandbox.popen(["sh", "-c", sys.argv[1]])
time.sleep(60)
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_sigkill_of_the_holder_at_any_moment_leaves_nothing(delay_s: float) -> None:
    mark = f"mark-{os.getpid()}-{delay_s}"
    script = (
        f": {mark}; ip link add b0 type bridge; setsid sleep 50 & setsid sh -c ': {mark}; sleep 51'"
    )
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, script])
    time.sleep(delay_s)
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 30
    while processes_with(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_with(mark) == []


def test_ensure_starts_the_script_again_inside(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from testbed.sandbox import ensure, inside\n"
        "ensure()\n"
        "print(inside(), sys.argv[1:])\n"
        "sys.exit(5)\n"
    )
    done = subprocess.run([sys.executable, script, "a b"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("True ['a b']\n", 5), done.stderr


@pytest.mark.live
def test_live_tests_run_inside() -> None:
    assert inside()
    assert interfaces() == ["lo"]
