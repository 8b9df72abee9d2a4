"""Xen itself, its two dom0s guests of ours: a domain's life, and its way from one to the other.

client --- s1 --- a    the dom0s, in the namespaces of a and b, are on the switch's network
             \\--- b
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mininet.topo import Topo
from test_guests_live import qemus

from testbed import doctor
from testbed.errors import ExperimentError
from testbed.guests import Machine, find
from testbed.guests.tap import Tap
from testbed.guests.xen.copy import copy
from testbed.guests.xen.dom0 import BRIDGE, GuestHost
from testbed.guests.xen.vm import XenVm
from testbed.network import Network

ABSENT = doctor.reason("Xen") or doctor.reason("guests")
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")
STATE = Path("/root/box.state")
NUMBERS = {"a": 1, "b": 2}
COUNT = """
ip addr add 10.9.0.9/24 dev eth0
ip link set eth0 up
n=0
while echo '{"n": '$n'}'; do n=$((n + 1)); usleep 50000; done >/dev/reports &
nc -l -p 5000 -e cat >/dev/null 2>&1 &
"""
LEFT = "ls -d /run/liquidnet-xen* /dev/vport* 2>/dev/null || true"
BUSY = "while :; do :; done & echo $! >/run/busy"


class Switched(Topo):
    """The client, and the nodes in which the Xen hosts are."""

    def build(self) -> None:
        self.addSwitch("s1")
        self.addHost("client", ip="10.9.0.1/24")
        self.addLink("client", "s1")
        for name in NUMBERS:
            self.addHost(name, ip=None)
            self.addLink(name, "s1", bw=200, intfName1="uplink")


@contextlib.asynccontextmanager
async def xen_host(net: Network, node: str, log: Path) -> AsyncIterator[GuestHost]:
    """Xen in a node, its TAP and the node's interface in one bridge."""
    tap = Tap("tap", net[node].netns)
    for command in (
        "ip link add bridge0 type bridge",
        "ip link set uplink master bridge0",
        "ip link set tap master bridge0",
        "ip link set tap up",
        "ip link set bridge0 up",
    ):
        assert not net[node].cmd(command), command
    number = NUMBERS[node]
    async with await GuestHost.boot(
        net[node].netns,
        [tap],
        macs=[f"52:54:00:00:00:0{number}"],
        address=f"10.9.0.10{number}/24",
        name=node,
        log=log,
    ) as host:
        yield host


def machine() -> Machine:
    return Machine(find(), 128, ("00:16:3e:00:00:09",), name="box")


def ping(net: Network) -> str:
    said: str = net["client"].cmd("ping -c 3 -W 5 10.9.0.9")
    return said


def connect(net: Network) -> socket.socket:
    with net["client"].netns:
        return socket.create_connection(("10.9.0.9", 5000), 60)


def exchange(connection: socket.socket, word: bytes) -> bytes:
    connection.settimeout(120)
    connection.sendall(word)
    return connection.recv(100)


async def share(vm: XenVm) -> float:
    """What the domain took of a processor in two seconds of the host's."""

    async def taken() -> tuple[float, float]:
        domain = await vm.domain()
        assert domain is not None
        return domain.cpu_s, float(await vm.host.run("cut -d' ' -f1 /proc/uptime"))

    cpu, began = await taken()
    await vm.host.run("sleep 2")
    more, ended = await taken()
    return (more - cpu) / (ended - began)


async def limits(vm: XenVm) -> None:
    """Memory and processors are what they are limited to, by the guest's and by Xen's account."""
    domain = await vm.domain()
    assert domain is not None
    assert (domain.memory_mb, domain.cpus) == (128, 1)
    assert int((await vm.run("grep MemTotal /proc/meminfo")).split()[1]) < 128 * 1024
    await vm.run(BUSY)
    free = await share(vm)
    await vm.limit_cpu(0.2)
    assert await share(vm) < 0.6 * free
    await vm.limit_cpu(None)
    await vm.run("kill $(cat /run/busy)", limit_s=120)


async def refusals(vm: XenVm) -> None:
    """What xl does not do is said in one line, and changes nothing."""
    host, before = vm.host, await vm.host.run("xl list | wc -l; ls /run")
    with pytest.raises(
        ExperimentError, match=r"^guest box on Xen host a: .*\"box\" already exists"
    ):
        await XenVm.start(machine(), host, [BRIDGE])
    other = Machine(find(), 128, ("00:16:3e:00:00:08",), name="other")
    with pytest.raises(ExperimentError, match=r"^guest other on Xen host a: .*bridge nowhere: "):
        await XenVm.start(other, host, ["nowhere"])
    with pytest.raises(ExperimentError, match=r"^guest box on Xen host a: Can't open restore file"):
        await XenVm.restore(Path("/root/none"), machine(), host, [BRIDGE])
    assert await host.run("xl list | wc -l; ls /run") == before


async def life(net: Network, a: GuestHost, b: GuestHost, log: Path) -> None:
    async with await XenVm.start(machine(), a, [BRIDGE], log=log) as vm:
        assert "MemAvailable" in await vm.ready(300)
        await vm.run(COUNT)
        assert " 0% packet loss" in ping(net)
        connection = await asyncio.to_thread(connect, net)
        assert await asyncio.to_thread(exchange, connection, b"before") == b"before"
        await limits(vm)
        await refusals(vm)
        last = await moved(net, vm, b, connection)
        assert last > 20
    assert "box" not in await a.run("xl list")


async def moved(net: Network, vm: XenVm, b: GuestHost, connection: socket.socket) -> int:
    """Saved, copied, restored at `b`: what ran goes on there; the last number it counted."""
    await vm.save(STATE)
    assert not vm.crashed.done()
    assert await vm.domain() is None
    copied = await copy(STATE, vm.host, b, "10.9.0.102")
    assert copied.bytes > 128 << 20
    async with await XenVm.restore(STATE, machine(), b, [BRIDGE]) as again:
        assert await again.ready(120) == ""
        assert await asyncio.to_thread(exchange, connection, b"after") == b"after"
        connection.close()
        assert " 0% packet loss" in ping(net)
        line = await again.lines.line(0)
        assert line is not None
        assert line.json()["n"] > vm.lines.received[-1].json()["n"]
        await again.lines.line(20)
        counted = [each.json()["n"] for each in again.lines.received]
        assert counted == list(range(counted[0], counted[0] + len(counted)))
        with pytest.raises(ExperimentError, match="guest box is gone"):
            await again.run("echo c >/proc/sysrq-trigger")
        why = await asyncio.wait_for(again.crashed, 60)
        assert why.startswith("guest box crashed: ")
        assert "Kernel panic - not syncing: sysrq triggered crash" in why
        domain = await again.domain()
        assert domain is not None
        assert domain.crashed
    async with await XenVm.restore(STATE, machine(), b, [BRIDGE]) as once_more:
        await b.run("xl destroy box")
        assert await asyncio.wait_for(once_more.crashed, 60) == "guest box was destroyed"
    return int(counted[-1])


@pytest.mark.live
def test_a_domain_lives_and_moves_to_another_xen_host(tmp_path: Path) -> None:
    async def main(net: Network) -> None:
        async with contextlib.AsyncExitStack() as stack:
            booting = [xen_host(net, node, tmp_path / f"{node}.log") for node in NUMBERS]
            a, b = await asyncio.gather(*map(stack.enter_async_context, booting))
            before = [await host.run(LEFT) for host in (a, b)]
            await life(net, a, b, tmp_path / "box.log")
            with pytest.raises(ExperimentError, match=r"^copy of .* at 10\.9\.0\.77: "):
                await copy(STATE, a, b, "10.9.0.77")
            for host, was in zip((a, b), before, strict=True):
                assert await host.run(LEFT) == was
                assert await host.run("xl list | wc -l") == "2\n"  # a heading, and dom0
        assert qemus() == []

    with Network(Switched()) as net:
        asyncio.run(main(net))
