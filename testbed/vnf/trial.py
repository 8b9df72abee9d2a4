"""One function between two hosts, to see whether it lets a ping through."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass

from testbed.errors import ParameterError
from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.vnf.elements.counting import Counter
from testbed.vnf.function import Device, Function
from testbed.vnf.program import Program

_DEVICES = ("eth0", "eth1")


@dataclass(frozen=True)
class Trial:
    """What was seen."""

    start_ms: float
    answered: int
    counters: dict[str, str]


def run(program: Program, pings: int) -> Trial:
    """Ping 10.2.0.1, on eth1, from 10.1.0.1, on eth0.  Call it in a sandbox."""
    other = [each for each in program.devices if each not in _DEVICES]
    if other:
        raise ParameterError(
            f"{program.graph.file} uses device {other[0]}", remedy="name them eth0 and eth1"
        )
    with ExitStack() as stack:
        hosts = [NetworkNamespace.create() for _ in _DEVICES]
        devices = {}
        for side, (name, host) in enumerate(zip(_DEVICES, hosts, strict=True), 1):
            stack.callback(host.close)
            devices[name] = Device(
                platform=host,
                peer="eth0",
                addresses=[f"10.{side}.0.2/24"],
                peer_addresses=[f"10.{side}.0.1/24"],
            )
        began = time.perf_counter()
        function = Function.instantiate(program, devices=devices)
        start_ms = (time.perf_counter() - began) * 1e3
        stack.callback(function.destroy)
        for side, host in enumerate(hosts, 1):
            _route_over(host, f"10.{side}.0.2")
        return Trial(start_ms, _ping(hosts[0], pings), _counters(function))


def _route_over(host: NetworkNamespace, gateway: str) -> None:
    with host:
        netlink = RtNetlink()
    netlink.request(rtnetlink.add_route(ipaddress.ip_network("0.0.0.0/0"), via=gateway))
    netlink.close()


def _ping(host: NetworkNamespace, count: int) -> int:
    words = ["ping", "-n", "-c", str(count), "-i", "0.2", "-W", "1", "10.2.0.1"]
    with host:
        said = subprocess.run(words, capture_output=True, text=True).stdout
    match = re.search(r"(\d+) received", said)
    return int(match[1]) if match else 0


def _counters(function: Function) -> dict[str, str]:
    return {
        f"{element.name}.count": function.read(f"{element.name}.count")
        for element in function.program.elements.values()
        if isinstance(element, Counter)
    }
