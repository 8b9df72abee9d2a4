"""Where a machine can be: on each device a cable into a subnet of that device's own.

The network is told of the subnets by routes: each is reached over its device, and over nothing
else.  Both cables look the same to the machine, but for their addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from testbed.guests.tap import Tap
from usecases.vm_migration.journey import PHONE, TABLET

DEVICE = "eth0"  # the machine's interface
MACHINE_MAC, GATEWAY_MAC = "52:54:00:02:01:02", "52:54:00:02:01:01"
_TAP = "machine"
_SUBNETS = {PHONE: "10.250.1.0/30", TABLET: "10.250.2.0/30"}  # beyond what the plan gives out
_WAYS = {PHONE: ("ap", "isp1", "core", "server"), TABLET: ("enodeb", "isp2", "core", "server")}


@dataclass(frozen=True)
class Berth:
    """A place for a machine on `node`; addresses are those of the cable's ends."""

    node: Any
    subnet: ipaddress.IPv4Network

    @property
    def gateway(self) -> str:
        """The device's end."""
        return str(self.subnet[1])

    @property
    def address(self) -> str:
        """The machine's end, with its prefix."""
        return f"{self.subnet[2]}/{self.subnet.prefixlen}"

    @property
    def ip(self) -> str:
        """The machine's end."""
        return str(self.subnet[2])

    def plug(self) -> Tap:
        """Make the cable."""
        tap = Tap(_TAP, self.node.netns)
        try:
            tap.configure(
                mac=GATEWAY_MAC,
                address=f"{self.gateway}/{self.subnet.prefixlen}",
                neighbour=self.ip,
                neighbour_mac=MACHINE_MAC,
            )
        except BaseException:
            tap.close()
            raise
        return tap


def berths(net: Any) -> Mapping[str, Berth]:
    """A berth on each device, and routes to it from the server on."""
    found = {}
    for device, text in _SUBNETS.items():
        for nearer, node in pairwise((device, *_WAYS[device])):
            net[node].add_route(text, via=str(facing(net, nearer, node).ip))
        found[device] = Berth(net[device], ipaddress.IPv4Network(text))
    return found


def facing(net: Any, node: str, neighbour: str) -> Any:
    """The interface of `node` on its link to `neighbour`."""
    ((own, _theirs),) = net[node].connectionsTo(net[neighbour])
    return own
