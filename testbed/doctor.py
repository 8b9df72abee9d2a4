"""What can this machine do?  Probes, each a real attempt, with the remedy where one fails.

A probe that needs namespaces runs in a sandbox.  Tests skip only with a reason from here.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed import guests, vm
from testbed.errors import TestbedError
from testbed.guests.qemu import accelerator
from testbed.guests.xen import host as xen
from testbed.kernel.namespaces import sysctl
from testbed.links import Engines, LinkSpec, kernel_engine
from testbed.network import ovs, vlan
from testbed.network.controller import Controller
from testbed.sandbox import call, uplink
from testbed.sandbox.cgroups import Cgroup

IPPROTO_MPTCP = 262
_EXAMPLES = Path("/usr/lib/python3/dist-packages/mininet/examples")


@dataclass(frozen=True)
class Finding:
    """One thing the machine has or lacks.

    `needed_for` names what cannot be done without it; `required` is false for what has a
    substitute here.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed_for: str = ""
    required: bool = True


_TOOLS = (
    ("ip", "iproute2", "the Mininet CLI and many scripts", True),
    ("ping", "iputils-ping", "reachability checks", True),
    ("nft", "nftables", "filters and address translation", True),
    ("tcpdump", "tcpdump", "captures, the attacker of trusted_pooling", True),
    ("tshark", "tshark", "the cross-check of the MPTCP codec", True),
    ("dumpcap", "tshark", "captures beside a trial (--pcap)", True),
    ("iperf3", "iperf3", "Network.iperf", True),
    ("mptcpize", "mptcpize", "MPTCP for unmodified programs", True),
    ("mnexec", "mininet", "stock Mininet, as the baseline of `testbed bench network`", False),
)


def examine() -> list[Finding]:
    """Run every probe (about a second)."""
    return [*_machine(), *_sandboxed(), *_for_mininet(), *_tools(), _vm(), _guests(), _xen()]


def _machine() -> Iterator[Finding]:
    release = os.uname().release
    yield Finding("kernel", True, f"Linux {release}, {os.cpu_count()} cores")
    who = "root" if os.geteuid() == 0 else f"ordinary user (uid {os.geteuid()})"
    try:
        call(int)
    except TestbedError as error:
        yield Finding("sandbox", False, error.message, error.remedy, "every experiment")
    else:
        kinds = "net, pid, mount, uts, ipc" + ("" if os.geteuid() == 0 else ", user")
        yield Finding("sandbox", True, f"as {who}: {kinds} namespaces")


def _sandboxed() -> list[Finding]:
    try:
        return call(_in_sandbox)
    except TestbedError:  # said by the finding "sandbox"
        return []


def _in_sandbox() -> list[Finding]:
    return [
        _mptcp(),
        _netem(),
        _htb(),
        _engine(),
        _ring(),
        _realtime(),
        _congestion(),
        _ovs(),
        _limits(),
        _vlan(),
    ]


def _attempt(what: Callable[[], str], name: str, remedy: str, needed_for: str) -> Finding:
    try:
        return Finding(name, True, what(), needed_for=needed_for)
    except (OSError, TestbedError) as error:
        return Finding(name, False, str(error), remedy, needed_for)


def _mptcp() -> Finding:
    def attempt() -> str:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
        if Path("/proc/sys/net/mptcp/path_manager").exists():
            return f"path managers {sysctl('net.mptcp.available_path_managers')}"
        return f"path manager type {sysctl('net.mptcp.pm_type')}"

    return _attempt(
        attempt, "MPTCP", "use Linux 5.19 or later with CONFIG_MPTCP", "Multipath TCP experiments"
    )


def _netem() -> Finding:
    lacks = kernel_engine.missing(netem=True, codel=False)
    detail = lacks or "delay and loss in the kernel"
    remedy = "nothing to do: the fabric engine takes its place" if lacks else ""
    return Finding("netem", not lacks, detail, remedy, "engine netem", required=False)


def _htb() -> Finding:
    lacks = kernel_engine.missing(netem=False, codel=False)
    detail = lacks or "rate and queue in the kernel"
    remedy = "nothing to do: the fabric engine takes its place" if lacks else ""
    return Finding("HTB", not lacks, detail, remedy, "engine htb", required=False)


def _engine() -> Finding:
    engines = Engines()
    try:
        chosen = engines.choose((LinkSpec(delay="1ms"), LinkSpec(delay="1ms")))
    finally:
        engines.close()
    return Finding("links with delay or loss", True, f"engine {chosen} is chosen")


def _ring() -> Finding:
    def attempt() -> str:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packet:
            packet.setsockopt(263, 10, 1)  # SOL_PACKET, PACKET_VERSION: TPACKET_V2
        return "packet sockets with rings"

    return _attempt(
        attempt, "fabric", "use a kernel with CONFIG_PACKET and CONFIG_VETH", "engine fabric"
    )


def _realtime() -> Finding:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return Finding(
            "real-time priority",
            False,
            "not allowed: a busy machine delays the fabric's packets more",
            "run as root, or allow rtprio in /etc/security/limits.conf",
            "the fabric's timing under load",
            required=False,
        )
    return Finding("real-time priority", True, "the fabric's packets go before other work")


def _congestion() -> Finding:
    available = sysctl("net.ipv4.tcp_available_congestion_control")
    default = sysctl("net.ipv4.tcp_congestion_control")
    return Finding("congestion control", True, f"{available} (default {default})")


def _ovs() -> Finding:
    lacks = ovs.missing()
    return Finding(
        "Open vSwitch",
        not lacks,
        lacks or "userspace switches, private to each experiment",
        "apt-get install openvswitch-switch" if lacks else "",
        "OVSSwitch and SDN controllers",
    )


def _limits() -> Finding:
    def attempt() -> str:
        group = Cgroup("probe")
        try:
            group.limit_cpu(10_000, 100_000)
        finally:
            group.remove()
        return f"control groups of version {group.version}"

    return _attempt(attempt, "CPU limits", "run as root, outside a container", "CPULimitedHost")


def _vlan() -> Finding:
    lacks = vlan.missing()
    remedy = "modprobe 8021q, or a kernel with CONFIG_VLAN_8021Q" if lacks else ""
    return Finding("VLAN", not lacks, lacks or "IEEE 802.1Q", remedy, "hosts in VLANs", False)


def _for_mininet() -> Iterator[Finding]:
    """What scripts written for Mininet want besides."""
    found = Controller.isAvailable()
    remedy = "" if found else "apt-get install openvswitch-testcontroller"
    yield Finding(
        "OpenFlow controller",
        bool(found),
        found or "ovs-testcontroller is not installed",
        remedy,
        "Controller, the default of Mininet's scripts",
    )
    lacks = uplink.missing()
    yield Finding(
        "uplink",
        not lacks,
        lacks or "slirp4netns",
        "apt-get install slirp4netns; root, or a /dev/net/tun of mode 0666" if lacks else "",
        "--uplink, the machine's network for an experiment",
        required=False,
    )
    examples = _EXAMPLES.is_dir()
    yield Finding(
        "Mininet's examples",
        examples,
        str(_EXAMPLES) if examples else f"no {_EXAMPLES}",
        "" if examples else "apt-get install mininet",
        "the tests that run them",
        required=False,
    )


def _tools() -> Iterator[Finding]:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for program, package, needed_for, required in _TOOLS:
        found = shutil.which(program, path=path)
        yield Finding(
            program,
            found is not None,
            found or "not installed",
            "" if found else f"apt-get install {package}",
            needed_for,
            required,
        )


def _vm() -> Finding:
    detail, _semicolon, remedy = vm.missing().partition("; ")
    return Finding(
        "netem in a VM",
        not detail,
        detail or f"QEMU with {vm.kernels()[0].name}",
        remedy,
        "`testbed bench vm`: engine netem where this kernel has none",
        required=False,
    )


def _guests() -> Finding:
    lacks = guests.missing("function") or guests.missing("micro")
    detail, _semicolon, remedy = lacks.partition("; ")
    return Finding(
        "guests",
        not detail,
        detail or f"QEMU with {_accelerator()}, image {guests.find().describe()}",
        remedy,
        "functions in virtual machines, the baseline of clickos_migration",
        required=False,
    )


def _xen() -> Finding:
    detail, _semicolon, remedy = guests.missing("xen").partition("; ")
    here = "this machine is no dom0" if xen.missing() else "this machine is a dom0"
    return Finding(
        "Xen",
        not detail,
        detail or f"a dom0 in a guest, image {guests.find('xen').describe()}; {here}",
        remedy,
        "guests on Xen",
        required=False,
    )


def _accelerator() -> str:
    why_not = accelerator.why_not_kvm()
    return f"translation (TCG), {why_not}" if why_not else "KVM"


def reason(name: str) -> str:
    """Why the thing called `name` cannot be used here, with its remedy; empty where it can."""
    finding = next(f for f in examine() if f.name == name)
    return "" if finding.ok else f"{finding.name}: {finding.detail}; {finding.remedy}"
