"""Mininet's own examples, as Debian ships them, run unchanged.

Those that take minutes, need a display, other machines or programs that are packaged nowhere are
in the table of docs/coming-from-mininet.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import doctor

EXAMPLES = Path("/usr/lib/python3/dist-packages/mininet/examples")
ALL = "0% dropped"
_TESTBED = [sys.executable, "-m", "testbed.cli.main"]


def run(name: str, stdin: str, *before: str) -> str:
    for needed in ("Mininet's examples", "OpenFlow controller"):
        if reason := doctor.reason(needed):
            pytest.skip(reason)
    command = [*_TESTBED, "topo", "--script", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(
        [*before, *command], input=stdin, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "stdin", "said"),
    [
        ("bind", "h1 touch /var/mn/a\nh2 ls /var/mn/a\npingpair\n", ["No such file", ALL]),
        (
            "controllers",
            "pingall\nsh ovs-vsctl get-controller s2\nsh ovs-vsctl get-controller s3\n",
            [ALL, r"tcp:127\.0\.0\.1:6634", r"tcp:127\.0\.0\.1:6633"],
        ),
        ("controllers2", "", [ALL]),
        ("controlnet", "pingall\n", [ALL]),
        ("emptynet", "pingall\nexit\n", [ALL]),
        ("linuxrouter", "pingall\n", [ALL, r"192\.168\.1\.0 .* r0-eth1"]),
        ("mobility", "", [r"h1\(1\d\)", rf"(?s){ALL}.*{ALL}.*{ALL}.*{ALL}"]),
        ("multilink", "pingall\nlinks\n", [ALL, r"s1-eth3<->h1-eth1 \(OK OK\)"]),
        ("multipoll", "", [r"h3: 64 bytes from 10\.0\.0\.1"]),
        ("multitest", "", [ALL, r"h1-eth0: flags"]),
        ("nat", "h1 ip route\npingall\n", [r"default via 10\.0\.0\.5", ALL]),
        ("natnet", "h1 ping -c1 h0\nh0 ping -c1 192.168.1.1\n", ["1 received", "unreachable"]),
        ("numberedports", "", [r"s1-eth9 :  9", ALL]),
        ("popen", "", [r"<h5>: 5 packets transmitted, 5 received"]),
        ("scratchnet", "", ["1 packets transmitted, 1 received"]),
        ("simpleperf", "", [r"\['10M', '[1-9][\d.]* Mbits/sec'"]),
    ],
)  # fmt: skip
def test_example(name: str, stdin: str, said: list[str]) -> None:
    output = run(name, stdin)
    for expected in said:
        assert re.search(expected, output), (expected, output[-2000:])
    assert not re.search(r"(?<!\d)(?:[1-9]\d?|100)% dropped", output)


def test_an_interface_made_elsewhere_joins_a_switch() -> None:
    make = (
        "ip netns add far; ip link add eth1 type veth peer name eth0 netns far; "
        "ip -n far addr add 10.0.0.77/8 dev eth0; ip -n far link set eth0 up; exec \"$@\""
    )  # fmt: skip
    around = [*_TESTBED, "exec", "sh", "-c", make, "sh"]
    assert "1 received" in run("hwintf", "h1 ping -c1 -w5 10.0.0.77\n", *around)
