"""A virtual machine as a node of a topology: what is refused, and what a real one does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mininet.topo import Topo

from testbed import doctor
from testbed.errors import ExperimentError, ParameterError, TopologyError
from testbed.guests import Guest
from testbed.guests.hardware import Hardware
from testbed.network import Network, Router

ABSENT = doctor.reason("guests")
needs_guests = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")


class Devices(Topo):
    """`vm` has a link; `app` runs on the phone and may move to the tablet."""

    def build(self) -> None:
        self.addHost("vm", cls=Guest, cpu_limit=0.9)
        self.addHost("h")
        for name in ("r", "phone", "tablet"):
            self.addHost(name, cls=Router)
        self.addHost("app", cls=Guest, on=("phone", "tablet"))
        self.addLink("vm", "r", bw=50, delay="5ms")
        for one, other in (("h", "r"), ("phone", "r"), ("tablet", "r"), ("phone", "tablet")):
            self.addLink(one, other)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"memory": "lots"}, r"guest vm: memory 'lots'; write \"128M\""),
        ({"cpus": "two"}, r"guest vm: cpus 'two'; give a number"),
        ({"display": "large"}, r"guest vm: display 'large'; write \"1024x600\""),
        ({"image": "windows"}, r"no image is called windows; one of"),
    ],
)
def test_hardware_that_cannot_be_is_refused(params: dict[str, Any], told: str) -> None:
    with pytest.raises(ParameterError) as refused:
        Hardware.of("vm", params)
    refused.match(told)


def test_hardware_is_read_as_it_is_written() -> None:
    hardware = Hardware.of("vm", {"memory": "1G", "display": "640x400", "cpu_limit": 0.5})
    assert (hardware.memory_mb, hardware.display, hardware.cpu_limit) == (1024, (640, 400), 0.5)


@pytest.mark.live
@needs_guests
@pytest.mark.parametrize(
    ("on", "told"),
    [
        ("nobody", r"nobody"),
        ("h", r"guest app is to run on h, which forwards nothing; make h a Router"),
    ],
)
def test_a_place_that_cannot_be_is_refused(on: str, told: str) -> None:
    topo = Topo()
    topo.addHost("h")
    topo.addHost("r", cls=Router)
    topo.addLink("h", "r")
    topo.addHost("app", cls=Guest, on=on)
    with pytest.raises(TopologyError, match=told):
        Network(topo)


@pytest.mark.live
@needs_guests
def test_a_guest_is_a_node_like_any_other() -> None:
    with Network(Devices()) as net:
        vm, app, host = net["vm"], net["app"], net["h"]
        assert vm.cmd("uname -r") != host.cmd("uname -r")
        assert vm.IP() in vm.cmd("ip -br address show vm-eth0")
        assert net.pingAll() == 0
        said = vm.popen("echo this; echo that >&2; exit 3", shell=True, text=True)
        assert said.communicate() == ("this\n", "that\n")
        assert said.returncode == 3
        sleeping = vm.popen(["sleep", "1000"])
        sleeping.terminate()
        assert sleeping.wait(timeout=60) == -signal.SIGTERM
        assert _fetched(host, vm) == _fetched(vm, host) == 1 << 20
        _moves(net, app, host)
        _loses_power(vm, host)
        _crashes(net, vm)


_SERVER = """
import socket
with socket.create_server(("", 7000)) as listener:
    print("listening", flush=True)
    with listener.accept()[0] as end:
        end.sendall(bytes(1 << 20))
"""
_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000)) as end:
    print(sum(map(len, iter(lambda: end.recv(1 << 16), b""))))
"""


def _fetched(client: Any, server: Any) -> int:
    """Bytes that one has from the other by TCP."""
    serving = server.popen(["python3", "-c", _SERVER], text=True)
    assert serving.stdout.readline() == "listening\n"
    said, errors = client.popen(["python3", "-c", _CLIENT, server.IP()], text=True).communicate()
    assert not errors
    assert serving.wait(timeout=60) == 0
    return int(said)


def _moves(net: Network, app: Any, host: Any) -> None:
    """A guest that moves keeps what it does, and has its new place's address."""
    app.cmd("cd /tmp; kept=yes")
    before = app.IP()
    report = asyncio.run(app.migrate(net["tablet"]))
    assert 0 < report.downtime_s < report.total_s
    assert app.host is net["tablet"]
    assert app.IP() != before
    assert app.cmd("echo $kept $PWD").split() == ["yes", "/tmp"]
    assert app.IP() in app.cmd("ip -br address")
    assert app.IP() in app.cmd("ip mptcp endpoint show")
    assert net.ping([app, host]) == 0
    with pytest.raises(TopologyError, match="app is on tablet already; name another node"):
        asyncio.run(app.migrate(net["tablet"]))
    with pytest.raises(TopologyError, match="app has no place on r; give it on="):
        asyncio.run(app.migrate(net["r"]))


def _loses_power(vm: Any, host: Any) -> None:
    vm.kill()
    with pytest.raises(ExperimentError, match="vm is killed"):
        vm.cmd("true")
    vm.restart()
    assert "0% packet loss" in host.cmd("ping -c 1 -W 20", vm.IP())


def _crashes(net: Network, vm: Any) -> None:
    """A machine that dies is named, to whoever uses it and to whoever observes the network."""
    told: list[Any] = []
    net.observers.append(lambda *words, **_more: told.append(words))
    os.kill(vm.vm.process.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while not told and time.monotonic() < until:
        time.sleep(0.02)
    assert "node crash" in str(told)
    with pytest.raises(ExperimentError, match="vm is crashed"):
        vm.cmd("true")


@needs_guests
def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "guests.md"
    example = page.read_text().partition("```python\n")[2].partition("```")[0]
    file = tmp_path / "example.py"
    file.write_text(example)
    done = subprocess.run([sys.executable, str(file)], text=True, capture_output=True,
                          check=False, timeout=180)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 packets received" in done.stdout


@needs_guests
def test_a_topology_with_a_guest_runs_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "one_guest.py"
    file.write_text(
        "from mininet.topo import Topo\n"
        "from testbed.guests import Guest\n\n\n"
        "class OneGuest(Topo):\n"
        "    def build(self):\n"
        "        self.addHost('vm', cls=Guest)\n"
        "        self.addHost('h')\n"
        "        self.addLink('vm', 'h')\n"
    )
    command = [str(Path(sys.executable).parent / "testbed"), "topo", str(file), "--cli"]
    done = subprocess.run(command, input="vm uname -n\nh ping -c 1 vm\n", text=True,
                          capture_output=True, check=False, timeout=180)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 received" in done.stdout + done.stderr  # Mininet prints where it prints
