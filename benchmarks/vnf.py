"""What does a light network function cost?  Starting one, its memory, and its packets.

Functions stand between a client and a server, each on a veth pair. A function has started when a
datagram that the client sends then has come to the server. Forwarding is compared, in one run,
with a namespace that routes between the same veth pairs and does nothing else, and with one that
has besides the one rule of nftables that translates sources, as a function with NAT does.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click

from benchmarks._compare import Ratio, alone, interleaved, print_result, say, table
from testbed.errors import ExperimentError

_FORWARD, _NAT = "forward.click", "firewall_nat.click"
_ROUTERS = {"routing": False, "routing, NAT by one rule": True}
_FUNCTIONS = {"function: counters": _FORWARD, "function: firewall and NAT": _NAT}
_PORT = 5000
_FRAME = 64  # bytes of the small packets
_BATCH = 32
_PROCESSES = 5  # of cold starts


class Forwarding(NamedTuple):
    """Of one contender in one round: TCP payload in Mb/s, small packets in 1000/s."""

    mbps: float
    kpps: float


@click.command()
@click.option("--rounds", type=click.IntRange(1), help="Rounds of forwarding (3).")
@click.option("--functions", default=100, help="How many are alive at once.")
@click.option("--quick", is_flag=True, help="Two rounds, 20 functions.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(rounds: int | None, functions: int, quick: bool, as_json: bool) -> None:
    """Starting, memory and forwarding rate of light network functions."""
    say("starting ...")
    started = {
        "cold": [alone(_cold_process) for _ in range(2 if quick else _PROCESSES)],
        "warm": alone(_warm, 20),
    }
    number = 20 if quick else functions
    say(f"{number} at once ...")
    crowd = alone(_crowd, number)
    contenders: dict[str, Callable[[], Forwarding]] = {
        name: partial(_take, name, 1.0) for name in (*_ROUTERS, *_FUNCTIONS)
    }
    found = interleaved(contenders, rounds or (2 if quick else 3))
    facts = {
        "start_ms": started,
        "crowd": crowd,
        "forwarding": {name: [each._asdict() for each in rows] for name, rows in found.items()},
    }
    print_result(facts, f"{_start_table(started, crowd)}\n\n{_rate_table(found)}", as_json)


# -- a function between two hosts ----------------------------------------------------------------


class _Hosts:
    """A client and a server: one namespace each, with 10.N.0.1 on a veth for each function N."""

    def __init__(self, stack: ExitStack) -> None:
        from testbed.kernel import NetworkNamespace, RtNetlink
        from testbed.kernel import rtnetlink as rt

        self.client, self.server = NetworkNamespace.create(), NetworkNamespace.create()
        self.netlinks: list[RtNetlink] = []
        for namespace in (self.client, self.server):
            stack.callback(namespace.close)
            with namespace:
                self.netlinks.append(RtNetlink())
            stack.callback(self.netlinks[-1].close)
            self.netlinks[-1].request(rt.set_link(1, up=True))

    def devices(self, number: int) -> dict[str, Any]:
        """Function `number` has 10.1.NUMBER.2 to the client, 10.2.NUMBER.2 to the server."""
        from testbed.vnf.function import Device

        return {
            name: Device(
                platform=(self.client, self.server)[side],
                peer=f"f{number}",
                addresses=[f"10.{side + 1}.{number}.2/24", *public],
                peer_addresses=[f"10.{side + 1}.{number}.1/24"],
            )
            for side, (name, public) in enumerate(
                (("eth0", []), ("eth1", [f"10.2.{number}.100/32"]))
            )
        }

    def route(self, number: int) -> None:
        """Let client and server find each other over a function."""
        from testbed.kernel import rtnetlink as rt

        for side, netlink in enumerate(self.netlinks):
            destination = ipaddress.ip_network(f"10.{2 - side}.{number}.0/24")
            netlink.request(rt.add_route(destination, via=f"10.{side + 1}.{number}.2"))


def _first_packet(hosts: _Hosts, number: int, example: str) -> tuple[Any, float]:
    """Start a function and send a datagram through it: the function, and milliseconds."""
    from testbed.vnf.compiler import compile_file
    from testbed.vnf.function import Function

    with hosts.server:
        receiver = socket.socket(type=socket.SOCK_DGRAM)
    with hosts.client:
        sender = socket.socket(type=socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind(("0.0.0.0", _PORT))
        receiver.settimeout(5)
        began = time.perf_counter()
        program = compile_file(_example(example), values={"PUBLIC": f"10.2.{number}.100"})
        function = Function.instantiate(program, devices=hosts.devices(number), name=f"f{number}")
        hosts.route(number)
        sender.sendto(b"first", (f"10.2.{number}.1", _PORT))
        receiver.recv(100)
        return function, (time.perf_counter() - began) * 1e3


def _example(name: str) -> Path:
    import testbed.vnf

    return Path(testbed.vnf.__file__).parent / "examples" / name


# -- starting ------------------------------------------------------------------------------------


def _cold_process() -> float:
    """Milliseconds of the first function of a new process, its modules loaded in that time."""
    code = "import time; t = time.perf_counter(); from benchmarks import vnf; vnf.cold(t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise ExperimentError(f"a function in a new process: {done.stderr.strip()[-300:]}")
    return float(done.stdout)


def cold(began: float) -> None:
    """Print the milliseconds from `began` (perf_counter) to the first packet forwarded."""
    with ExitStack() as stack:
        function, _ms = _first_packet(_Hosts(stack), 1, _NAT)
        sys.stdout.write(f"{(time.perf_counter() - began) * 1e3}")
        function.destroy()


def _warm(times: int) -> list[float]:
    """Milliseconds of functions one after the other, after one that does not count."""
    found = []
    with ExitStack() as stack:
        hosts = _Hosts(stack)
        for number in range(times + 1):
            function, ms = _first_packet(hosts, number + 1, _NAT)
            function.destroy()
            found.append(ms)
    return found[1:]


def _crowd(number: int) -> dict[str, float]:
    """Many functions alive: each one's first packet, and what one takes of memory."""
    from benchmarks import _footprint

    with ExitStack() as stack:
        hosts = _Hosts(stack)
        stack.callback(_first_packet(hosts, 250, _NAT)[0].destroy)  # loads what all share
        kernel, user = _footprint.kernel_memory(), _footprint.memory()
        files = _footprint.files()
        began = time.perf_counter()
        times = []
        for each in range(number):
            function, ms = _first_packet(hosts, each + 1, _NAT)
            stack.callback(function.destroy)
            times.append(ms)
        took = time.perf_counter() - began
        return {
            "functions": number,
            "median_ms": median(times),
            "worst_ms": max(times),
            "all_s": took,
            "kernel_kb": (_footprint.kernel_memory() - kernel) * 1024 / number,
            "user_kb": (_footprint.memory() - user) * 1024 / number,
            "files": (_footprint.files() - files) / number,
        }


def _start_table(started: Mapping[str, list[float]], crowd: Mapping[str, float]) -> str:
    rows: list[list[object]] = [
        ["first of a process, modules loaded too", *_spread(started["cold"])],
        ["later ones, one at a time", *_spread(started["warm"])],
        [f"{crowd['functions']} that stay alive", crowd["median_ms"], crowd["worst_ms"]],
    ]
    first = table(["firewall and NAT: text to first packet", "median ms", "worst ms"], rows)
    second = table(
        ["of one function", "kernel KB", "process KB", "descriptors"],
        [["while it lives", crowd["kernel_kb"], crowd["user_kb"], crowd["files"]]],
    )
    return f"{first}\n\n{second}"


def _spread(times: list[float]) -> list[float]:
    return [median(times), max(times)]


# -- forwarding ----------------------------------------------------------------------------------


def _take(name: str, seconds: float) -> Forwarding:
    say(f"{name} ...")
    return alone(_forward, name, seconds)


def _forward(name: str, seconds: float) -> Forwarding:
    from testbed.vnf.compiler import compile_file
    from testbed.vnf.function import Function

    with ExitStack() as stack:
        hosts = _Hosts(stack)
        if name in _ROUTERS:
            _router(hosts, stack, translates=_ROUTERS[name])
        else:
            program = compile_file(_example(_FUNCTIONS[name]), values={"PUBLIC": "10.2.1.100"})
            function = Function.instantiate(program, devices=hosts.devices(1), name="f1")
            stack.callback(function.destroy)
        hosts.route(1)
        return Forwarding(_goodput(hosts, seconds), _small_packets(hosts, seconds))


def _router(hosts: _Hosts, stack: ExitStack, *, translates: bool) -> None:
    """A namespace that routes, on the veth pairs that a function would have."""
    from testbed.kernel import NetworkNamespace, RtNetlink
    from testbed.kernel import rtnetlink as rt
    from testbed.kernel.nftables import Nftables

    router = NetworkNamespace.create()
    stack.callback(router.close)
    router.sysctl("net.ipv4.ip_forward", 1)
    if translates:
        with Nftables(router) as rules:
            rules.run(
                "add table ip nat\n"
                "add chain ip nat out { type nat hook postrouting priority 100; }\n"
                'add rule ip nat out oifname "eth1" snat to 10.2.1.100'
            )
    with router:
        inside = RtNetlink()
    stack.callback(inside.close)
    for index, (name, device) in enumerate(hosts.devices(1).items(), 2):
        netlink = hosts.netlinks[index - 2]
        far = rt.VethEnd("f1", 0, device.platform.fd, up=True)
        netlink.request(rt.new_veth(far, rt.VethEnd(name, index, router.fd)))
        (there,) = (ipaddress.ip_interface(each) for each in device.peer_addresses)
        netlink.request(rt.add_address(netlink.index("f1"), there))
        inside.batch([rt.add_address(index, each) for each in device.interfaces])
        inside.request(rt.set_link(index, up=True))


def _goodput(hosts: _Hosts, seconds: float) -> float:
    """Mb/s of one TCP connection from client to server, on a processor each."""
    from benchmarks.datapath import apart

    with hosts.server:
        listener = subprocess.Popen(
            ["iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True
        )
    assert listener.stdout is not None
    while "listening" not in (line := listener.stdout.readline()):
        if not line:
            raise ExperimentError("iperf3 did not begin to listen")
    words = ["iperf3", "-J", "-C", "cubic", *apart(), "-t", str(seconds), "-c", "10.2.1.1"]
    with hosts.client:
        client = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    report = json.loads(client.communicate()[0])
    listener.communicate()
    if "error" in report:
        raise ExperimentError(f"iperf3: {report['error']}")
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6


def _small_packets(hosts: _Hosts, seconds: float) -> float:
    """Thousands of datagrams that come to the server in a second of processor time.

    Sending, forwarding and receiving one is all done by the sender's system call, so that what
    others take of the processor does not count.
    """
    from testbed.kernel.nftables import Nftables
    from testbed.kernel.packet_batch import FrameBatch

    with Nftables(hosts.server) as rules:
        # the server answers nothing, and looks for no socket: what is measured is the way
        rules.run(
            "add table ip sink\nadd counter ip sink taken\n"
            "add chain ip sink c { type filter hook prerouting priority -300; }\n"
            f'add rule ip sink c udp dport {_PORT} counter name "taken" drop'
        )
        with hosts.client:
            batch = FrameBatch()
        frame, port = _datagram(hosts)
        total = batch.fill([(batch.address(port), (frame,) * _BATCH)])
        for _ in range(3):
            batch.flush(total)
        before, began = _taken(rules), time.process_time()
        while time.process_time() < began + seconds:
            batch.flush(total)
        took = time.process_time() - began
        return (_taken(rules) - before) / took / 1e3


def _taken(rules: Any) -> int:
    found = rules.ask("list counter ip sink taken")
    return int(next(each["counter"]["packets"] for each in found if "counter" in each))


def _datagram(hosts: _Hosts) -> tuple[bytes, int]:
    """A frame of a datagram to the server, and the index of the client's interface."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    here = hosts.netlinks[0].link("f1")
    with hosts.client:
        probe = socket.socket(type=socket.SOCK_DGRAM)
        with probe:
            probe.connect(("10.2.1.1", _PORT))
            probe.send(b"")  # so that the next hop's address is known
        neighbours = Path("/proc/thread-self/net/arp").read_text().splitlines()[1:]
    there = next(line.split()[3] for line in neighbours if line.split()[0] == "10.1.1.2")
    packet = IP(src="10.1.1.1", dst="10.2.1.1") / UDP(sport=4000, dport=_PORT)
    frame = bytes(Ether(src=here.mac, dst=there) / packet)
    return frame.ljust(_FRAME, b"\0"), here.index


def _rate_table(found: Mapping[str, list[Forwarding]]) -> str:
    plain = found["routing"]
    rows = [
        [
            name,
            median(each.mbps for each in rounds),
            Ratio.of([each.mbps for each in rounds], [each.mbps for each in plain]),
            median(each.kpps for each in rounds),
            Ratio.of([each.kpps for each in rounds], [each.kpps for each in plain]),
        ]
        for name, rounds in found.items()
    ]
    head = ["between client and server", "TCP Mb/s", "of routing", "1000 packets/s", "of routing"]
    return table(head, rows)
