"""Packets that come to a function: counted before anything of it sees them, paused or not."""

from __future__ import annotations

from testbed.kernel import NetworkNamespace
from testbed.kernel.nftables import Nftables

_TABLE = "inet arrivals"
# before the hooks of functions and of their pauses
_CHAIN = "type filter hook prerouting priority -450; counter packets 0 bytes 0"


class Arrivals:
    """A count of the IP packets that come into a namespace, from now until `close`."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._nft = Nftables(namespace)
        self._nft.run(f"table {_TABLE} {{ chain count {{ {_CHAIN}; }}; }}")

    def count(self) -> int:
        """Packets so far."""
        (counter,) = (
            expression["counter"]
            for each in self._nft.ask(f"list chain {_TABLE} count")
            for expression in each.get("rule", {}).get("expr", ())
        )
        return int(counter["packets"])

    def close(self) -> None:
        """Stop counting."""
        self._nft.run(f"delete table {_TABLE}")
        self._nft.close()
