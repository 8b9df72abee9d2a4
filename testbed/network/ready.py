"""Conditions instead of sleeps: wait until something is so, or say what did not come true.

    net.wait_until(ready.listening(h2, 80), ready.reachable(h1, h2), timeout_s=5)
    await net.until(ready.alive(server), ready.listening(h2, 80))

A condition is asked again and again, at first after half a millisecond, then less and less
often, and never so often that asking costs more than a quarter of the time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from testbed.errors import ExperimentError, KernelError
from testbed.network.echo import Echo

_FIRST_S, _LONGEST_S, _GROWTH, _COST_SHARE = 0.0005, 0.05, 1.5, 3
_OPERSTATE_UP = 6  # RFC 2863
_SOLICITED = "ff0200000000000000000001ff"  # ff02::1:ff00:0/104
_ELECTED = ("designated_root", "designated_bridge", "designated_port")
_AGAIN_S = 0.2  # between echoes
_SAMPLED = 32  # links, of many


class NotReady(ExperimentError):
    """A condition did not come true in time; the message says which, and how things stood."""


class Condition(NamedTuple):
    """Something that can become true: in words, and what is still missing ("" when it is so).

    `missing` may raise `NotReady` where waiting is in vain.
    """

    statement: str
    missing: Callable[[], str]


def wait_until(*conditions: Condition | Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Return when all conditions hold; `NotReady` after `timeout_s`.

    A plain function is a condition too: it holds when it returns something true.
    """
    for pause in _polls([_condition(each) for each in conditions], timeout_s):
        time.sleep(pause)


async def until(*conditions: Condition | Callable[[], Any], timeout_s: float = 10.0) -> None:
    """The same in a coroutine; others go on meanwhile."""
    for pause in _polls([_condition(each) for each in conditions], timeout_s):
        await asyncio.sleep(pause)


def _polls(conditions: Sequence[Condition], timeout_s: float) -> Iterator[float]:
    """Pauses to make until all conditions hold."""
    pause, deadline = _FIRST_S, time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        lacking = [(each, what) for each in conditions if (what := each.missing())]
        if not lacking:
            return
        now = time.monotonic()
        if now >= deadline:
            said = "; ".join(f"{each.statement}: {what}" for each, what in lacking)
            raise NotReady(f"after {timeout_s:g} s still not so: {said}")
        yield min(max(pause, _COST_SHARE * (now - began)), deadline - now)
        pause = min(pause * _GROWTH, _LONGEST_S)
        conditions = [each for each, _what in lacking]


def _condition(thing: Condition | Callable[[], Any]) -> Condition:
    if isinstance(thing, Condition):
        return thing
    name = getattr(thing, "__name__", str(thing))
    return Condition(name, lambda: "" if thing() else "not yet")


# -- conditions ----------------------------------------------------------------------------------


def listening(node: Any, port: int, protocol: str = "tcp") -> Condition:
    """A TCP (or, with "udp", UDP) socket waits on `port` of `node`, in either family."""

    def missing() -> str:
        ports = _ports(node, protocol)
        if port in ports:
            return ""
        others = ", ".join(map(str, sorted(ports))) or "none"
        return f"nothing listens there (open: {others})"

    return Condition(f"{protocol.upper()} port {port} of {node.name} is open", missing)


def _ports(node: Any, protocol: str) -> set[int]:
    """Ports with a listening TCP socket or an unconnected UDP one (proc(5), net/tcp)."""
    wanted = {"tcp": "0A", "udp": "07"}[protocol]
    found = set()
    with node.netns:
        for suffix in ("", "6"):
            table = Path(f"/proc/thread-self/net/{protocol}{suffix}")
            for row in table.read_text().splitlines()[1:] if table.exists() else ():
                _number, local, _remote, state = row.split()[:4]
                if state == wanted:
                    found.add(int(local.rpartition(":")[2], 16))
    return found


def alive(process: Any, name: str = "") -> Condition:
    """A program (a `Popen`) runs; when it has ended, waiting ends too."""
    shown = name or str(getattr(process, "args", "") or process)

    def missing() -> str:
        status = process.poll()
        if status is not None:
            raise NotReady(f"{shown} ended with status {status}")
        return ""

    return Condition(f"{shown} runs", missing)


def carrier(node: Any, interface: str) -> Condition:
    """An interface is up, and so is the other end of its link."""

    def missing() -> str:
        try:
            state = node.netlink.link(interface)
        except KernelError:
            return "there is no such interface"
        if not state.up:
            return "it is down"
        return "" if state.operstate == _OPERSTATE_UP else "it has no carrier"

    return Condition(f"{node.name}:{interface} is up", missing)


def carrying(links: Sequence[Any]) -> Condition:
    """Links carry packets, and their IPv6 addresses may be used.

    The kernel gives an interface its queueing discipline, and an IPv6 address its multicast group,
    shortly after the request that brought them up has been answered; what is sent before is lost.
    It does so in order, so of many links the last ones and some of the others are asked.
    """
    asked = [*links[:: max(1, len(links) // _SAMPLED)], *links[-_SAMPLED:]]
    waiting = [link for link in dict.fromkeys(asked) if link.intf1 is not None]

    def missing() -> str:
        waiting[:] = [link for link in waiting if not _carries(link)]
        return f"{waiting[0]} does not yet" if waiting else ""

    return Condition("the links carry packets", missing)


def _carries(link: Any) -> bool:
    ends = [(intf, intf.node.netlink.link(intf.name)) for intf in (link.intf1, link.intf2)]
    if not all(state.up for _intf, state in ends):
        return True  # it was taken down, and is left alone
    return all(
        state.operstate == _OPERSTATE_UP
        and (not intf.ip6 or intf.node.stack_elsewhere or _hears_neighbours(intf))
        for intf, state in ends
    )


def _hears_neighbours(intf: Any) -> bool:
    """Has an interface joined the group that neighbours ask for its IPv6 address?

    The kernel does it a moment after the address was added, also without duplicate detection
    (RFC 4291, solicited-node multicast; /proc/net/igmp6).
    """
    group = _SOLICITED + ipaddress.IPv6Address(intf.ip6).packed[-3:].hex()
    with intf.node.netns:
        rows = Path("/proc/thread-self/net/igmp6").read_text().splitlines()
    return any(row.split()[1:3] == [intf.name, group] for row in rows)


def route(node: Any, address: str) -> Condition:
    """The node knows a way to an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def missing() -> str:
        with node.netns, socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((address, 9))
            except OSError as error:
                return error.strerror or str(error)
        return ""

    return Condition(f"{node.name} has a route to {address}", missing)


def reachable(node: Any, target: Any) -> Condition:
    """An echo from `node` to `target`, an address or another node, is answered."""
    address = target if isinstance(target, str) else target.IP()
    numbers = itertools.count()
    echo: list[Echo] = []
    last = [0.0, 0.0]  # when the last echo was sent; whether one was ever answered

    def missing() -> str:
        if last[1]:
            return ""
        if not echo:
            echo.append(Echo(node, address))
        if any(answer.reached for answer in echo[0].answers()):
            last[1] = 1.0
            echo.pop().close()
            return ""
        why = ""
        if time.monotonic() - last[0] > _AGAIN_S:
            last[0] = time.monotonic()
            why = echo[0].send(next(numbers))
        return why or "no echo was answered"

    return Condition(f"{node.name} reaches {address}", missing)


def spanning_tree(*bridges: Any) -> Condition:
    """No port of these bridges listens or learns any more, and neighbours agree on the tree.

    With a short `forward_delay` ports forward before the election is over (hellos are 2 s apart):
    both ends of a link between bridges must name the same root and designated port.
    """

    def missing() -> str:
        unsettled = [each.name for each in bridges if not each.connected()]
        if unsettled:
            return f"{', '.join(unsettled)} still listen or learn"
        links = {intf.link for each in bridges for intf in each.intfList() if intf.link}
        apart = [str(link) for link in links if not _agree(link, bridges)]
        return f"the ends of {apart[0]} disagree" if apart else ""

    return Condition("the spanning tree has settled", missing)


def _agree(link: Any, bridges: Sequence[Any]) -> bool:
    """Do both ends of a link between bridges know who of them is designated?"""
    if link.intf1.node not in bridges or link.intf2.node not in bridges:
        return True
    one, two = (
        [Path(f"/sys/class/net/{intf.name}/brport/{name}").read_text() for name in _ELECTED]
        for intf in (link.intf1, link.intf2)
    )
    return one == two


def connected(*switches: Any) -> Condition:
    """These switches are connected to a controller, or need none."""

    def missing() -> str:
        waiting = [each.name for each in switches if not each.connected()]
        return f"{', '.join(waiting)} not connected" if waiting else ""

    return Condition("the switches are connected to their controllers", missing)
