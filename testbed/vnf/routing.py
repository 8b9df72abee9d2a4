"""Routing by mark: each way out of a function has a routing table of its own.

The table of a way out knows the routes of its device only, so that a packet leaves where the
graph says or not at all.  Rules for marks come before the kernel's rule for local addresses:
what the graph sends out is not taken in, even if it is addressed to the function.

Layouts: linux/fib_rules.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping

from testbed.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    Message,
    Network,
    add_route,
    attribute,
)
from testbed.vnf.program import EXIT_MASK, Exit

_RTM_DELRULE = 33
_FIRST_TABLE, _FIRST_PRIORITY, _LOCAL_PRIORITY = 1000, 100, 1000
_LOCAL_TABLE = 255
_UNREACHABLE, _UNICAST = 7, 1
_ON_LINK = 4
_EVERYTHING = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def table(exit_: Exit) -> int:
    """The routing table of a way out."""
    return _FIRST_TABLE + exit_.mark


def rules(exits: Iterable[Exit], version: int) -> Iterator[Message]:
    """Rules that send marked packets to their tables, before those for local addresses."""
    for exit_ in exits:
        match = attribute(10, exit_.mark) + attribute(16, EXIT_MASK)
        yield _rule(version, table(exit_), _FIRST_PRIORITY + exit_.mark, match)
    yield _rule(version, _LOCAL_TABLE, _LOCAL_PRIORITY, b"")
    payload = _rule_head(version) + attribute(15, _LOCAL_TABLE) + attribute(6, 0)
    yield Message(_RTM_DELRULE, 0, payload, "rule for local addresses")


def routes(exit_: Exit, index: int, own: Mapping[Network, str], version: int) -> Iterator[Message]:
    """Fill the table of a way out: `own` are its device's routes (destination to next hop)."""
    if exit_.gateway:
        if ipaddress.ip_address(exit_.gateway).version == version:
            yield _over(exit_.gateway, index, table(exit_))
        return
    for destination, via in own.items():
        if destination.version == version:
            yield add_route(destination, via=via, index=index, table=table(exit_))
    if _EVERYTHING[version] not in own:
        yield _unreachable(version, table(exit_))


def _rule_head(version: int) -> bytes:
    return struct.pack("=BBBBBBBBI", _FAMILIES[version], 0, 0, 0, 0, 0, 0, 1, 0)


def _rule(version: int, number: int, priority: int, match: bytes) -> Message:
    payload = _rule_head(version) + match + attribute(6, priority) + attribute(15, number)
    return Message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, payload, ("rule", priority))


def _route_head(version: int, kind: int, flags: int) -> bytes:
    return struct.pack("=BBBBBBBBI", _FAMILIES[version], 0, 0, 0, 0, 3, 0, kind, flags)


def _unreachable(version: int, number: int) -> Message:
    payload = _route_head(version, _UNREACHABLE, 0) + attribute(15, number)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, payload, "unreachable rest")


def _over(gateway: str, index: int, number: int) -> Message:
    address = ipaddress.ip_address(gateway)
    payload = _route_head(address.version, _UNICAST, _ON_LINK)
    payload += attribute(5, address.packed) + attribute(4, index) + attribute(15, number)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, payload, ("next hop", gateway))
