"""Bridges that answer ARP themselves, for LANs on which every question would reach thousands.

A question to all on a LAN of n hosts is n packets, and n hosts that look for their neighbours are
n^2: on a LAN of 4000 that takes minutes of a processor, while kernels ask again each second.  So
each bridge is told all hosts' addresses and behind which port they are, and answers in their stead
(proxy ARP as access points do it, IFLA_BRPORT_PROXYARP_WIFI).  Permanent entries of bridges do not
count towards the kernel's limit of neighbours.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from testbed.kernel import RtNetlink, rtnetlink
from testbed.kernel.rtnetlink import Message, attribute

_BRPORT_PROXYARP_WIFI = 12
_INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 4, 5
_NUD_PERMANENT, _NUD_NOARP, _NTF_MASTER = 0x80, 0x40, 0x04
_AF_BRIDGE = 7


def answer_arp(links: Iterable[Any]) -> None:
    """Let the bridges between hosts answer for them; links are of `Network`, already up."""
    ports: dict[Any, list[tuple[Any, Any]]] = {}  # of a node: its own interface, the one opposite
    for link in links:
        for here, there in ((link.intf1, link.intf2), (link.intf2, link.intf1)):
            ports.setdefault(here.node, []).append((here, there))
    bridges = [node for node in ports if getattr(node, "bridge_index", 0)]
    netlink = RtNetlink()
    try:
        for bridge in bridges:
            netlink.batch([_answering(here.index) for here, _there in ports[bridge]])
            netlink.batch(list(_known(bridge, ports)))
    finally:
        netlink.close()


def _answering(port: int) -> Message:
    data = attribute(_BRPORT_PROXYARP_WIFI, b"\1")
    info = attribute(_INFO_SLAVE_KIND, "bridge") + attribute(_INFO_SLAVE_DATA, data)
    payload = rtnetlink.link(port, extra=attribute(rtnetlink.IFLA_LINKINFO, info))
    return Message(rtnetlink.RTM_NEWLINK, 0, payload, ("bridge port", port))


def _known(bridge: Any, ports: dict[Any, list[tuple[Any, Any]]]) -> Iterator[Message]:
    """What a bridge needs to know of every host: its MAC address, and the port that leads to it."""
    seen = {bridge}
    waiting = deque((here.index, there) for here, there in ports[bridge])
    while waiting:
        port, intf = waiting.popleft()
        node = intf.node
        if not getattr(node, "bridge_index", 0):
            if intf.ip and intf.mac:
                yield rtnetlink.add_neighbour(bridge.bridge_index, intf.ip, intf.mac)
                yield _behind(port, intf.mac)
        elif node not in seen:
            seen.add(node)
            waiting += [(port, there) for here, there in ports[node] if here is not intf]


def _behind(port: int, mac: str) -> Message:
    payload = struct.pack("=BxHiHBB", _AF_BRIDGE, 0, port, _NUD_NOARP, _NTF_MASTER, 0)
    payload += attribute(2, rtnetlink.mac_bytes(mac))
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE
    return Message(rtnetlink.RTM_NEWNEIGH, flags, payload, ("forwarding of", mac))
