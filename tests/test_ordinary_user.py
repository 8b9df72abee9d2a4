"""The same script as root and as an ordinary user, in a user namespace of its own.

Where the tests run as root, they run the script under another user's id. What it needs of Python
and of this checkout may lie where that user cannot go, so it is bound to where it can, inside the
test's sandbox.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from testbed.kernel.namespaces import MS_BIND, MS_REC, mount

_NOBODY = 65534
_CHECKOUT = Path(__file__).resolve().parent.parent
_PLACE = Path("/mnt")  # in this test's own mounts; /run is private to the inner sandbox

SCRIPT = """
import os
user = os.geteuid()
from testbed.sandbox import call

def experiment():
    from testbed.network import Network
    net = Network()
    net.addHost("h1")
    net.addHost("h2")
    net.addLink("h1", "h2", delay="20ms", bw=10)
    with net:
        said = net["h1"].cmd("ping -c2 -i0.2", net["h2"].IP())
        engine = net.engines.choices()[0].engine
    return " 0% packet loss" in said, float(said.split("mdev = ")[1].split("/")[0]) >= 40, engine

print(user, *call(experiment))
"""


def _bind(source: str, name: str) -> Path:
    target = _PLACE / name
    target.mkdir()
    mount(source, str(target), flags=MS_BIND | MS_REC)
    return target


def as_ordinary_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with `arguments` under another user's id."""
    mount("tmpfs", str(_PLACE), "tmpfs", data="mode=755")
    python = _bind(sys.base_prefix, "python")
    site = _bind(sysconfig.get_path("purelib"), "site")
    source = _bind(str(_CHECKOUT), "source")
    program = python / "bin" / f"python3.{sys.version_info.minor}"
    return subprocess.run(
        [program, *arguments],
        user=_NOBODY,
        group=_NOBODY,
        extra_groups=[],
        cwd="/",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{source}:{site}",
            "LD_LIBRARY_PATH": str(python / "lib"),  # of Python's own, not of the system's
            "HOME": "/",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


_as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="every live test runs as an ordinary user here"
)


@pytest.mark.live
@_as_root
def test_a_network_with_an_impaired_link_as_an_ordinary_user() -> None:
    done = as_ordinary_user("-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    user, reached, delayed, engine = done.stdout.split()
    assert user == str(_NOBODY)
    assert (reached, delayed) == ("True", "True")
    assert engine in ("fabric", "netem")


MININET_SCRIPT = """
import sys
from mininet.cli import CLI
from mininet.net import Mininet
from mininet.node import CPULimitedHost
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo
net = Mininet(SingleSwitchTopo(2), switch=LinuxBridge, controller=None)
net.addNAT().configDefault()
net.start()
assert net.pingAll() == 0
h1, s1 = net.get("h1", "s1")
h1.intf().config(delay="10ms")
assert net.pingFull([h1, net["h2"]])[0][2][3] >= 10
net.stop()
print("came through")
Mininet().addHost("slow", cls=CPULimitedHost, cpu=0.1)
"""


@pytest.mark.live
@_as_root
def test_a_mininet_script_as_an_ordinary_user() -> None:
    script = Path("/var/tmp/ordinary-user-script.py")
    mount("tmpfs", "/var/tmp", "tmpfs", data="mode=755")
    script.write_text(MININET_SCRIPT)
    program = f"python3.{sys.version_info.minor}"
    command = [str(_PLACE / "python/bin" / program), "-m", "testbed.cli.main", "topo", "--script"]
    done = as_ordinary_user("-m", "testbed.sandbox", "--", *command, str(script))
    assert "came through" in done.stdout, done.stderr
    assert done.returncode == 2
    (last,) = done.stderr.splitlines()[-1:]
    assert last.startswith(f"testbed: {script}:17: ")
    assert "run as root" in last


CHANGES = """
import os
user = os.geteuid()
from testbed.sandbox import call

def experiment():
    from testbed.network import Network
    net = Network()
    for name in ("h1", "h2"):
        net.addHost(name)
    link = net.addLink("h1", "h2")
    net.addLink("h1", "h2", bw=10)
    with net:
        h1, h2 = net.hosts
        def reaches():
            return " 0 received" not in h1.cmd("ping -c5 -i0.2 -W0.5", h2.IP())
        seen = [reaches()]
        for begin, end in (
            (link.down, link.up), (link.cut, link.mend),
            (h2.freeze, h2.thaw), (h2.kill, h2.restart),
            (lambda: net.partition({"h1"}, {"h2"}), net.heal),
        ):
            begin()
            seen.append(reaches())
            end()
            seen.append(reaches() or reaches())
        return "".join("-+"[each] for each in seen)

print(user, call(experiment))
"""


@pytest.mark.live
@_as_root
def test_links_and_nodes_fail_for_an_ordinary_user_too() -> None:
    done = as_ordinary_user("-c", CHANGES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(_NOBODY), "+-+-+-+-+-+"]


OBSERVE = """
import tempfile
from pathlib import Path
from testbed.cli.main import main

folder = Path(tempfile.mkdtemp())
(folder / "net.py").write_text('''
from mininet.topo import Topo
class Pair(Topo):
    def build(self):
        self.addHost("h1"), self.addHost("h2")
        self.addLink("h1", "h2", bw=20)
''')
words = ["--pcap", "h1-eth0", "--with", "h2 iperf3 -s", "--", *"h1 iperf3 -c h2 -n 1M".split()]
try:
    main(["observe", str(folder / "net.py"), "--results", str(folder / "results"), *words])
finally:
    (pcap,) = (folder / "results").glob("observe/*/pcap/*")
    print("captured", pcap.stat().st_size > 100_000)
"""


@pytest.mark.live
@_as_root
def test_a_transfer_is_observed_and_captured_as_an_ordinary_user() -> None:
    done = as_ordinary_user("-c", OBSERVE)
    assert done.returncode == 0, done.stderr
    assert "observation used" in done.stdout
    assert "captured True" in done.stdout
