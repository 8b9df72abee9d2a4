"""Old subflows that a box no longer forwards: elements of nft sets.

A flow is stopped where it enters the box, in both directions, before routing and translation see
it; what is injected leaves all the same.  The kernel answers each segment that is stopped with
an RST at exactly the number it acknowledges, which its sender must believe (RFC 5961 3.2): an end
that still sends learns at once that the subflow is gone, and gives what was in flight to the
others, however busy this program is.  A block outlives the redirection, for ends that missed
everything, and ends by itself: after `_TIMEOUT`, or when a new connection begins with the same
ends.
"""

from __future__ import annotations

import itertools
import os

from testbed.kernel import NetworkNamespace
from testbed.kernel.nftables import Nftables
from testbed.mptcp.redirection.watcher import Connection, Flow

_TIMEOUT = "5m"
_FAMILIES = {"4": ("ip", "ipv4_addr"), "6": ("ip6", "ipv6_addr")}
_numbers = itertools.count(1)


class Blocker:
    """The rules of one box, loaded at the first block."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._nft = Nftables(namespace)
        self._table = f"liquidnet_blocked_{os.getpid()}_{next(_numbers)}"
        self._loaded = False

    def close(self) -> None:
        """Take the rules out, with all blocks."""
        if self._loaded:
            self._nft.run(f"delete table inet {self._table}")
            self._loaded = False
        self._nft.close()

    def block(self, connection: Connection) -> None:
        """Stop and reset what enters the box on a flow; `KernelError` where the kernel refuses."""
        if not self._loaded:
            self._nft.run(ruleset(self._table))
            self._loaded = True
        self._change(("add",), connection)

    def unblock(self, connection: Connection) -> None:
        """Let it pass again."""
        self._change(("add", "delete"), connection)  # it may have ended by itself

    def _change(self, verbs: tuple[str, ...], connection: Connection) -> None:
        outside = Flow(connection.outside.server, connection.outside.client)
        self._nft.run(
            "".join(
                f"{verb} element inet {self._table} blocked{_family(ends)} {{ {_key(ends)} }}\n"
                for verb in verbs
                for ends in (connection.inside, outside)
            )
        )


def _family(ends: Flow) -> str:
    return "6" if ":" in ends.client.ip else "4"


def _key(ends: Flow) -> str:
    return " . ".join(f"{end.ip} . {end.port}" for end in ends)


def ruleset(table: str) -> str:
    """The rules as nft reads them."""
    sets = "".join(
        f"  set blocked{family} {{ type {kind} . inet_service . {kind} . inet_service;"
        f" flags dynamic, timeout; timeout {_TIMEOUT}; }}\n"
        for family, (_word, kind) in _FAMILIES.items()
    )
    rules = "".join(
        f"    tcp flags & syn == syn delete @blocked{family} {{ {ends} }}\n"
        f"    {ends} @blocked{family} reject with tcp reset\n"
        for family, (word, _kind) in _FAMILIES.items()
        for ends in [f"{word} saddr . tcp sport . {word} daddr . tcp dport"]
    )
    hook = "    type filter hook prerouting priority raw\n"
    chain = f"  chain drops {{\n{hook}{rules}  }}\n"
    return f"create table inet {table}\ntable inet {table} {{\n{sets}{chain}}}\n"
