"""How fast does a star come up and go, against stock Mininet and against the kernel's own cost?

Each figure is taken in a sandbox of its own, the three contenders in turn, each when the kernel
has finished removing the namespaces of the one before:

    ours      Network, from the constructor to the end of start()
    stock     Mininet from PyPI with its LinuxBridge, the same topology; needs Debian's `mnexec`
    netlink   the bare requests for the same star, prepared beforehand: what the kernel needs
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from mininet.log import setLogLevel

from testbed.errors import FeatureError
from testbed.sandbox import call

_SIZES = (10, 100, 300, 1000)
_QUIET = 0.1  # share of processor time that others may use when a contender starts
_PATIENCE_S = 30.0
T = TypeVar("T")


@click.command()
@click.option("--hosts", multiple=True, type=click.IntRange(2), help="Sizes (10 100 300 1000).")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(hosts: tuple[int, ...], as_json: bool) -> None:
    """Bring-up and teardown of a star of hosts against stock Mininet and bare netlink."""
    if shutil.which("mnexec") is None or shutil.which("brctl") is None:
        raise FeatureError(
            "stock Mininet needs mnexec and brctl, which are not here",
            remedy="apt-get install mininet bridge-utils (`make setup` does)",
        )
    rows = []
    for count in hosts or _SIZES:
        click.echo(f"a star of {count} hosts ...", err=True)
        rows.append(measure(count))
    click.echo(json.dumps({"rows": rows}) if as_json else _table(rows))


def measure(hosts: int) -> dict[str, Any]:
    """One row: seconds for a star of `hosts` hosts, all contenders one after the other."""
    bare = _alone(_bare, hosts)
    up, down = _alone(_ours, hosts)
    stock_up, stock_down = _alone(_stock, hosts)
    return {
        "hosts": hosts,
        "up_s": round(up, 4),
        "down_s": round(down, 4),
        "mininet_up_s": round(stock_up, 4),
        "mininet_down_s": round(stock_down, 4),
        "netlink_up_s": round(bare, 4),
    }


def _alone(contender: Callable[[int], T], hosts: int) -> T:
    """Run in a sandbox, after the kernel has done away with the one before."""
    deadline = time.monotonic() + _PATIENCE_S
    while _busy() > _QUIET and time.monotonic() < deadline:
        pass
    return call(contender, hosts)


def _busy() -> float:
    """Share of processor time in use during a fifth of a second."""
    before = _processor_times()
    time.sleep(0.2)
    spent = [after - start for after, start in zip(_processor_times(), before, strict=True)]
    idle = spent[3] + spent[4]
    return 1 - idle / (sum(spent) or 1)


def _processor_times() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]


def _ours(hosts: int) -> tuple[float, float]:
    from mininet.topo import SingleSwitchTopo

    from testbed.network import Network

    return _time(lambda: Network(SingleSwitchTopo(hosts)))


def _stock(hosts: int) -> tuple[float, float]:
    from mininet.net import Mininet
    from mininet.nodelib import LinuxBridge
    from mininet.topo import SingleSwitchTopo

    topo = SingleSwitchTopo(hosts)
    return _time(lambda: Mininet(topo, switch=LinuxBridge, controller=None))


def _time(make: Any) -> tuple[float, float]:
    setLogLevel("critical")  # Mininet's dots cost it time
    start = time.perf_counter()
    net = make()
    net.start()
    up = time.perf_counter() - start
    lost = net.ping([net.hosts[0], net.hosts[-1]])
    if lost:
        raise FeatureError(f"the star of {len(net.hosts)} hosts does not carry packets")
    start = time.perf_counter()
    net.stop()
    return up, time.perf_counter() - start


def _bare(hosts: int) -> float:
    """Namespaces, veth pairs, addresses and a bridge by prepared requests, and nothing else."""
    from testbed.kernel import NetworkNamespace, RtNetlink
    from testbed.kernel import rtnetlink as rt

    bridge = 5
    start = time.perf_counter()
    home = RtNetlink()
    here = NetworkNamespace.current()
    home.request(rt.new_link("bridge", "s1", bridge, up=False))
    for i in range(1, hosts + 1):
        namespace = NetworkNamespace.create()
        with namespace:
            inside = RtNetlink()
        port = rt.VethEnd(f"s1-eth{i}", 1000 + i, here.fd, up=True, master=bridge)
        host = rt.VethEnd(f"h{i}-eth0", 5, namespace.fd)
        home.request(rt.new_veth(port, host))
        address = ipaddress.ip_interface(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}/8")
        inside.batch([rt.set_link(1, up=True), rt.add_address(5, address), rt.set_link(5, up=True)])
    home.request(rt.set_link(bridge, up=True))
    return time.perf_counter() - start


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| hosts | up s | stock up s | ratio | down s | stock down s | ratio "
        "| bare up s | ours/bare |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['hosts']} | {row['up_s']:.2f} | {row['mininet_up_s']:.2f} "
            f"| {row['mininet_up_s'] / row['up_s']:.1f}x | {row['down_s']:.2f} "
            f"| {row['mininet_down_s']:.2f} | {row['mininet_down_s'] / row['down_s']:.1f}x "
            f"| {row['netlink_up_s']:.2f} | {row['up_s'] / row['netlink_up_s']:.2f}x |"
        )
    return "\n".join(lines)
