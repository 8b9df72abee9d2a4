"""NAT: a node that forwards for hosts behind it and gives their packets its own address.

Translation is nftables' in the namespace of the node; no setting of the machine is touched.  What
is outside is whatever the node's other interfaces lead to; for a node without a namespace of its
own (`net.addNAT()`) that is the sandbox's outside, which exists where it has an uplink.
"""

from __future__ import annotations

import ipaddress
import subprocess
from typing import Any

from mininet import nodelib

from testbed.errors import FeatureError, TopologyError
from testbed.network.node import Node

_RULES = """
table ip {table} {{
    chain forward {{
        type filter hook forward priority filter;
        iifname "{local}" ip daddr {subnet} drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr {subnet} ip daddr != {subnet} masquerade
    }}
}}
"""


class NAT(Node, nodelib.NAT):
    """Masquerades for `subnet` ("10.0.0.0/8"), which is behind `localIntf` (the first interface).

    `flush` first removes all rules of the node's namespace.
    """

    def __init__(
        self,
        name: str,
        subnet: str = "10.0/8",
        localIntf: Any = None,
        flush: bool = False,
        **params: Any,
    ) -> None:
        super(nodelib.NAT, self).__init__(name, **params)
        self.subnet = _network(name, subnet)
        self.localIntf = localIntf
        self.flush = flush

    def config(self, *args: Any, **params: Any) -> dict[str, Any]:
        """Configure the node, then translate and forward."""
        self.localIntf = self.localIntf or self.defaultIntf()
        results = super().config(*args, **params)
        table = f"nat-{self.name}"
        clear = "flush ruleset\n" if self.flush else f"table ip {table}\ndelete table ip {table}\n"
        self._nft(clear + _RULES.format(table=table, local=self.localIntf, subnet=self.subnet))
        self.sysctl("net/ipv4/ip_forward", 1)
        return results

    def _nft(self, rules: str) -> None:
        try:
            done = self.run_inside(
                lambda: subprocess.run(
                    ["nft", "-f", "-"], input=rules, capture_output=True, text=True
                )
            )
        except FileNotFoundError as error:
            raise FeatureError("nft is not installed", remedy="install nftables") from error
        if done.returncode:
            raise FeatureError(
                f"NAT {self.name}: {done.stderr.strip().splitlines()[0]}",
                remedy="use a kernel with nftables and NAT (CONFIG_NFT_MASQ)",
            )

    def terminate(self) -> None:
        """End it; rules go with the table, where the namespace outlives the node."""
        if not self.inNamespace and not self.ended:
            self._nft(f"table ip nat-{self.name}\ndelete table ip nat-{self.name}\n")
        super().terminate()


def _network(name: str, text: str) -> ipaddress.IPv4Network:
    """ "10.0/8" as Mininet writes it, or any other spelling of a subnet."""
    address, _slash, length = str(text).partition("/")
    parts = [*address.split("."), "0", "0", "0"][:4]
    try:
        return ipaddress.IPv4Network(f"{'.'.join(parts)}/{length or 32}", strict=False)
    except ValueError as error:
        raise TopologyError(
            f"NAT {name}: subnet {text!r} is not one ({error})", remedy='write "10.0.0.0/8"'
        ) from error
