"""Who faces whom in the topology, in the terms that routes are made of."""

from __future__ import annotations

import ipaddress
from typing import Any

from testbed.observe import throughput


def facing(net: Any, node: str, neighbour: str) -> Any:
    """The interface of `node` on its link to `neighbour`."""
    ((own, _theirs),) = net[node].connectionsTo(net[neighbour])
    return own


def gateway(net: Any, node: str, neighbour: str) -> str:
    """The address by which `node` sends to `neighbour`."""
    return str(facing(net, neighbour, node).ip)


def subnet(net: Any, host: str) -> str:
    """The IPv4 subnet that a node with one interface is in."""
    interface = net[host].intf()
    return str(ipaddress.ip_interface(f"{interface.ip}/{interface.prefixLen}").network)


def received(net: Any, node: str, neighbour: str) -> int:
    """Bytes that `node` has received on its link from `neighbour`, Ethernet headers included."""
    return throughput.received(facing(net, node, neighbour))


def interconnect_bytes(net: Any) -> int:
    """What the interconnect between the data centres has delivered so far, both ways."""
    return received(net, "dci", "dc1") + received(net, "dc1", "dci")
