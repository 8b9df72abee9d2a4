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


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="every live test runs as an ordinary user here")
def test_a_network_with_an_impaired_link_as_an_ordinary_user() -> None:
    mount("tmpfs", str(_PLACE), "tmpfs", data="mode=755")
    python = _bind(sys.base_prefix, "python")
    site = _bind(sysconfig.get_path("purelib"), "site")
    source = _bind(str(_CHECKOUT), "source")
    program = python / "bin" / f"python3.{sys.version_info.minor}"
    done = subprocess.run(
        [program, "-c", SCRIPT],
        user=_NOBODY,
        group=_NOBODY,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{source}:{site}", "HOME": "/"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    user, reached, delayed, engine = done.stdout.split()
    assert user == str(_NOBODY)
    assert (reached, delayed) == ("True", "True")
    assert engine in ("fabric", "netem")
