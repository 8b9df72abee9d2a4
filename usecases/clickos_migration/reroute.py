"""What an operator can do without touching connections: send them another way inside its domain.

This is what OpenFlow or MPLS traffic engineering achieves at M1: another label-switched path,
another egress.  It ends at the domain's border: the neighbour behind it, and so the wide-area
path, stay the same.  The operator's peer is no way out either, as peers carry for each other only
what is addressed to themselves; `close_peering` makes that a rule of B's border.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from testbed.kernel.nftables import Nftables

_DEFAULT, _ALTERNATIVE = "a1", "a2"


class InternalPaths:
    """The two ways from M1 to the border of its domain, for what goes to the servers."""

    def __init__(self, net: Any, server: str = "server1") -> None:
        self._m1 = net["m1"]
        self._gateways = {name: _facing(net, name, "m1") for name in (_DEFAULT, _ALTERNATIVE)}
        host = net[server].intf()
        self._targets = [_network(host.ip, host.prefixLen), _network(host.ip6, host.prefixLen6)]

    def use_alternative(self) -> None:
        """Send over the second egress, all servers' connections at once."""
        self._use(_ALTERNATIVE)

    def restore(self) -> None:
        """Send as routing has it."""
        self._use(_DEFAULT)

    def _use(self, border: str) -> None:
        gateway = self._gateways[border]
        for target in self._targets:
            via = gateway.ip if target.version == 4 else gateway.ip6
            self._m1.add_route(str(target), via=via)


def _facing(net: Any, node: str, neighbour: str) -> Any:
    """The interface of `node` towards `neighbour`."""
    ((own, _theirs),) = net[node].connectionsTo(net[neighbour])
    return own


def _network(address: str, prefix: str | int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_interface(f"{address}/{prefix}").network


def close_peering(net: Any) -> None:
    """Have operator B's border carry from its peer only what is addressed to B's data centre."""
    entrance = _facing(net, "b1", "a1").name
    allowed = _facing(net, "b1", "dc2").name
    with Nftables(net["b1"].netns) as nft:
        nft.run(
            f"""table inet peering {{
                chain forward {{
                    type filter hook forward priority filter; policy accept;
                    iifname "{entrance}" oifname != "{allowed}" counter drop
                }}
            }}"""
        )
