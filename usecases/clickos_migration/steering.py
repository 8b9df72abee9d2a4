"""Which data centre clients' traffic is led through, and how that changes in a moment.

Where the function is, two routes decide, one in each direction: M1's for what clients send to
the servers, and the far domain's for the function's public address.  What follows behind them is
laid out beforehand for both places, so that switching is two requests to the kernel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from testbed.kernel import rtnetlink
from usecases.clickos_migration.functions import INSIDE, OUTSIDE, PUBLIC
from usecases.clickos_migration.wiring import gateway, subnet

_TABLE = 500  # of what comes from clients as they sent it
_PUBLIC_NET = f"{PUBLIC}/32"


class Steering:
    """Leads `clients`' traffic to `server` through a function, at first through dc1's."""

    def __init__(self, net: Any, clients: Sequence[str], server: str = "server1") -> None:
        self._net = net
        self._clients = [subnet(net, client) for client in clients]
        self._servers = subnet(net, server)
        for node in ("m1", "a1", "b1", "dc1", "dc2"):
            self._tell_clients_apart(node)
        for node, neighbour in (("a1", "b1"), ("b1", "dc2")):
            self._from_clients(node, gateway(net, node, neighbour))
        ways_back = {"transit": "a1", "a1": "m1", "m1": "dc1", "b2": "b1", "b1": "dc2"}
        for node, neighbour in ways_back.items():
            net[node].add_route(_PUBLIC_NET, via=gateway(net, node, neighbour))
        self.switch("dc1")

    def _tell_clients_apart(self, node: str) -> None:
        """Have a table of its own for what clients sent: translated, it is no longer theirs."""
        rules = [
            rtnetlink.add_source_rule(ipaddress.ip_network(client), _TABLE, priority=_TABLE)
            for client in self._clients
        ]
        self._net[node].netlink.batch(rules)

    def _from_clients(self, node: str, via: str) -> None:
        self._net[node].add_route(self._servers, via=via, table=_TABLE)

    def attach(self, place: str) -> None:
        """Lead what comes to a data centre for the function to it: it has its cables there."""
        self._from_clients(place, INSIDE.function)
        self._net[place].add_route(_PUBLIC_NET, via=OUTSIDE.function)

    def switch(self, place: str) -> None:
        """Lead all traffic through the function at `place` from now on."""
        ingress, egress = {"dc1": ("dc1", "transit"), "dc2": ("a1", "b2")}[place]
        self._from_clients("m1", gateway(self._net, "m1", ingress))
        self._net["far"].add_route(_PUBLIC_NET, via=gateway(self._net, "far", egress))
