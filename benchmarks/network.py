"""How fast does a star come up and go, against stock Mininet and against the kernel's own cost?

Contenders, each in a sandbox of its own and when the kernel has removed the one before:

    ours      Network, from the constructor to the end of start()
    PyPI      Mininet 2.3 from PyPI with its LinuxBridge, the same topology
    Debian    the same from Debian's package, run by Debian's Python
    bare      the requests for the same star and nothing else: namespaces made by two threads,
              links 64 to a datagram, a datagram for each host.  What the kernel needs

Ours and bare are taken three times, around and between the slow ones.  "down" is the network's
stop(); "gone" is the time from the end of an experiment that does not stop its network until the
kernel has removed all of it.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from mininet.log import setLogLevel

from benchmarks import _footprint
from benchmarks._compare import Ratio, alone, print_result, say, settle, table
from testbed.errors import ExperimentError, FeatureError

_SIZES = (10, 100, 300, 1000)
_QUICK_SIZES = (10, 100)
_DEBIAN = Path("/usr/bin/python3")
_ROUNDS = 3  # of the contenders that are fast enough to be taken more than once
_AT_ONCE = 64

_IN_DEBIAN = """
import json, time
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo
setLogLevel("critical")
topo = SingleSwitchTopo(HOSTS)
start = time.perf_counter()
net = Mininet(topo, switch=LinuxBridge, controller=None)
net.start()
up = time.perf_counter() - start
lost = net.ping([net.hosts[0], net.hosts[-1]])
start = time.perf_counter()
net.stop()
print(json.dumps([up, time.perf_counter() - start, lost]))
"""


@click.command()
@click.option("--hosts", multiple=True, type=click.IntRange(2, 1023), help="Sizes (10 to 1000).")
@click.option("--quick", is_flag=True, help="10 and 100 hosts.")
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), help="Draw it, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(hosts: tuple[int, ...], quick: bool, figure: Path | None, as_json: bool) -> None:
    """Bring-up and teardown of a star of hosts against stock Mininet and bare netlink."""
    if shutil.which("mnexec") is None or shutil.which("brctl") is None:
        raise FeatureError(
            "stock Mininet needs mnexec and brctl, which are not here",
            remedy="apt-get install mininet bridge-utils (`make setup` does)",
        )
    rows = []
    for count in hosts or (_QUICK_SIZES if quick else _SIZES):
        say(f"a star of {count} hosts ...")
        rows.append(measure(count))
    if figure is not None:
        _draw(rows, figure)
    print_result({"rows": rows}, _table(rows), as_json)


def measure(hosts: int) -> dict[str, Any]:
    """One row: what every contender took for a star of `hosts` hosts."""
    ours, bare, gone = [], [], []
    stock: dict[str, dict[str, Any]] = {}
    slow: list[tuple[str, Callable[[], dict[str, Any]]]] = [("PyPI", partial(_mininet, hosts))]
    if (_DEBIAN.parent.parent / "lib/python3/dist-packages/mininet").is_dir():
        slow.append(("Debian", partial(_debian, hosts)))
    for number in range(_ROUNDS):
        bare.append(alone(_bare, hosts))
        ours.append(alone(_ours, hosts))
        gone.append(_gone(hosts))
        if number < len(slow):
            name, contender = slow[number]
            stock[name] = alone(contender)
    return {
        "hosts": hosts,
        "ours": {key: statistics.median(one[key] for one in ours) for key in ours[0]},
        "ups_s": [one["up_s"] for one in ours],
        "downs_s": [one["down_s"] for one in ours],
        "gone_s": statistics.median(gone),
        "stock": stock,
        "bare_up_s": statistics.median(bare),
    }


def _ours(hosts: int) -> dict[str, Any]:
    from mininet.topo import SingleSwitchTopo

    from testbed.network import Network

    return _time(lambda: Network(SingleSwitchTopo(hosts)))


def _gone(hosts: int) -> float:
    """Seconds from the end of an experiment until its network is no more."""
    end = alone(_ours_left, hosts)
    settle(patience_s=0)
    return time.perf_counter() - end


def _ours_left(hosts: int) -> float:
    from mininet.topo import SingleSwitchTopo

    from testbed.network import Network

    Network(SingleSwitchTopo(hosts)).start()
    return time.perf_counter()  # all processes of a machine share this clock


def _mininet(hosts: int) -> dict[str, Any]:
    from mininet.net import Mininet
    from mininet.nodelib import LinuxBridge
    from mininet.topo import SingleSwitchTopo

    topo = SingleSwitchTopo(hosts)
    return _time(lambda: Mininet(topo, switch=LinuxBridge, controller=None))


def _debian(hosts: int) -> dict[str, Any]:
    script = _IN_DEBIAN.replace("HOSTS", str(hosts))
    done = subprocess.run([_DEBIAN, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExperimentError(f"Debian's Mininet: {done.stderr.strip().splitlines()[-1]}")
    up, down, lost = json.loads(done.stdout)
    _carries(hosts, lost)
    return {"up_s": up, "down_s": down}


def _time(make: Callable[[], Any]) -> dict[str, Any]:
    setLogLevel("critical")  # Mininet's dots cost it time
    before = _footprint.kernel_memory()
    cpu = _footprint.processor_seconds()
    start = time.perf_counter()
    net = make()
    net.start()
    up = time.perf_counter() - start
    user, kernel = (b - a for a, b in zip(cpu, _footprint.processor_seconds(), strict=True))
    found = {
        "up_s": up,
        "kernel_share": kernel / (user + kernel),
        "memory_mb": _footprint.memory(),
        "kernel_mb": _footprint.kernel_memory() - before,
        "files": _footprint.files(),
    }
    _carries(len(net.hosts), net.ping([net.hosts[0], net.hosts[-1]]))
    start = time.perf_counter()
    net.stop()
    return {**found, "down_s": time.perf_counter() - start}


def _carries(hosts: int, lost: float) -> None:
    if lost:
        raise ExperimentError(f"the star of {hosts} hosts does not carry packets")


def _bare(hosts: int) -> float:
    """Namespaces, veth pairs, addresses and a bridge by the least requests."""
    from testbed.kernel import NetworkNamespace, RtNetlink, unshare
    from testbed.kernel import rtnetlink as rt
    from testbed.kernel.namespaces import CLONE_NEWNET, open_current

    bridge = 5
    homes: list[tuple[int, RtNetlink]] = []

    def make(count: int) -> None:
        for _ in range(count):
            unshare(CLONE_NEWNET)
            homes.append((open_current("net"), RtNetlink()))

    start = time.perf_counter()
    threads = [threading.Thread(target=make, args=(hosts // 2 + n * (hosts % 2),)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    home = RtNetlink()
    here = NetworkNamespace.current()
    quiet = rt.attribute(23, b"\0")  # IFLA_BR_MCAST_SNOOPING, on again at the end
    home.request(rt.new_link("bridge", "s1", bridge, up=False, data=quiet))
    for thread in threads:
        thread.join()
    for first in range(0, hosts, _AT_ONCE):
        home.batch(
            [
                rt.new_veth(
                    rt.VethEnd(f"s1-eth{i}", 1000 + i, here.fd, up=True, master=bridge),
                    rt.VethEnd(f"h{i}-eth0", 5, namespace),
                )
                for i, (namespace, _inside) in enumerate(homes[first : first + _AT_ONCE], first + 1)
            ]
        )
    for i, (_namespace, inside) in enumerate(homes, 1):
        address = ipaddress.ip_interface(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}/8")
        inside.batch([rt.set_link(1, up=True), rt.add_address(5, address), rt.set_link(5, up=True)])
    home.batch(
        [rt.set_link(bridge, up=True), rt.change_link(bridge, "bridge", rt.attribute(23, b"\1"))]
    )
    return time.perf_counter() - start


# -- showing -------------------------------------------------------------------------------------


def _table(rows: list[dict[str, Any]]) -> str:
    head = [
        "hosts", "up s", "of it kernel", "up: PyPI/ours", "up: Debian/ours", "up: ours/bare",
        "down s", "down: PyPI/ours", "down: Debian/ours", "gone s",
        "MB: ours, PyPI", "kernel MB", "files: ours, PyPI",
    ]  # fmt: skip
    return table(head, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[object]:
    ours, pypi = row["ours"], row["stock"]["PyPI"]
    cells: list[object] = [row["hosts"], ours["up_s"], f"{ours['kernel_share']:.0%}"]
    cells += [_ratio(row, name, "up_s") for name in ("PyPI", "Debian")]
    cells += [f"{ours['up_s'] / row['bare_up_s']:.2f}x", ours["down_s"]]
    cells += [_ratio(row, name, "down_s") for name in ("PyPI", "Debian")]
    cells += [row["gone_s"], f"{ours['memory_mb']:.0f}, {pypi['memory_mb']:.0f}"]
    cells += [f"{ours['kernel_mb']:.0f}", f"{ours['files']:.0f}, {pypi['files']:.0f}"]
    return cells


def _ratio(row: dict[str, Any], name: str, key: str) -> Ratio | None:
    """A stock Mininet's figure over each of ours."""
    if name not in row["stock"]:
        return None
    ours = row["ups_s" if key == "up_s" else "downs_s"]
    return Ratio.of([row["stock"][name][key]] * len(ours), ours)


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds to come up against the number of hosts, both on logarithmic axes."""
    from matplotlib.figure import Figure

    from testbed.report.style import HEIGHTS_IN, WIDTHS_IN, house_style, look

    hosts = [row["hosts"] for row in rows]
    lines: dict[str, list[float | None]] = {
        "Mininet, PyPI": [row["stock"]["PyPI"]["up_s"] for row in rows],
        "Mininet, Debian": [row["stock"].get("Debian", {}).get("up_s") for row in rows],
        "LiquidNet": [row["ours"]["up_s"] for row in rows],
        "bare netlink": [row["bare_up_s"] for row in rows],
    }
    with house_style("network"):
        figure = Figure(figsize=(WIDTHS_IN["column"], HEIGHTS_IN["column"]))
        axes = figure.subplots()
        for place, (name, seconds) in enumerate(lines.items()):
            if None not in seconds:
                colour, line, marker = look(place)
                axes.loglog(hosts, seconds, color=colour, ls=line, marker=marker, label=name)
        axes.set_xlabel("hosts")
        axes.set_ylabel("seconds to come up")
        axes.set_xticks(hosts, [str(count) for count in hosts])
        axes.minorticks_off()
        axes.legend()
        figure.savefig(path)
    sys.stderr.write(f"{path}\n")
