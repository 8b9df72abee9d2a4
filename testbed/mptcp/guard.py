"""The packet filter's part in the trust gate: packets of a confined connection that carry
payload and would leave on an untrusted path are dropped.

The gate cannot do without it where the peer may open subflows: one that it joins in the middle
of a sensitive period is filled with sensitive bytes before the gate has seen it, and destroying
it does not take them back (the kernel goes on sending what an orphaned subflow has queued:
hundreds of kilobytes were measured).  Nor would the guard do alone: what was dropped waits in the
subflow's queue, so the mark is taken off only when no untrusted subflow is left.  An orphan
keeps its mark, which is why the rules stay as long as their namespace.

Packets without payload pass: handshakes, acknowledgements and resets go on working.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from typing import Any

from testbed.errors import FeatureError, KernelError
from testbed.kernel import NetworkNamespace
from testbed.mptcp.confinement import Trust

MARK = 0x5E


class PayloadGuard:
    """The rules of one namespace, for every gate in it that has the same trust.

    Guards of one namespace need marks of their own.  Raises `FeatureError` where nft is missing
    or refuses the rules.
    """

    def __init__(self, namespace: NetworkNamespace, trust: Trust, *, mark: int = MARK) -> None:
        self.trust = trust
        self._namespace, self._mark = namespace, mark
        self._table = f"liquidnet_trust_{mark:x}"
        self._nft("-f", "-", rules=ruleset(trust, mark, self._table))

    def set(self, sock: socket.socket, *, raised: bool) -> None:
        """Put a connection under the guard, subflows to come included, or let it go."""
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark if raised else 0)
        except OSError as error:
            number = error.errno or 0
            raise KernelError(number, f"mark of a socket: {os.strerror(number)}") from error

    def dropped(self) -> int:
        """Packets that would have leaked."""
        table = json.loads(self._nft("-j", "list", "table", "inet", self._table))
        rules = (item["rule"] for item in table["nftables"] if "rule" in item)
        return sum(_packets(rule["expr"]) for rule in rules)

    def _nft(self, *arguments: str, rules: str = "") -> str:
        program = shutil.which("nft")
        if program is None:
            raise FeatureError("nft is not installed", remedy="sudo apt install nftables")
        with self._namespace:
            done = subprocess.run(
                [program, *arguments], input=rules, capture_output=True, text=True, check=False
            )
        if done.returncode != 0:
            reason = (done.stderr.strip() or "no reason given").splitlines()[0]
            raise FeatureError(
                f"nft refuses {self._table}: {reason}",
                remedy="it needs nf_tables of Linux 5.16 and nft 1.0.1, and a mark of its own",
            )
        return done.stdout


def _packets(expressions: list[dict[str, Any]]) -> int:
    return sum(int(part["counter"]["packets"]) for part in expressions if "counter" in part)


def ruleset(trust: Trust, mark: int, table: str) -> str:
    """The rules as nft reads them."""
    untrusted = [
        condition
        for field, addresses in (("saddr", trust.local), ("daddr", trust.remote))
        if addresses is not None
        for condition in (_outside("ip", field, addresses), _outside("ip6", field, addresses))
    ]
    payload = f"meta mark {mark:#x} meta l4proto tcp @ih,0,8 >= 0 counter drop"
    rules = "\n".join(f"    {condition} {payload}" for condition in untrusted)
    hook = "type filter hook postrouting priority 0;"
    chain = f"chain leaving {{\n    {hook}\n{rules}\n  }}"
    # "create" refuses a table that exists; "table" would add to it.
    return f"create table inet {table}\ntable inet {table} {{\n  {chain}\n}}\n"


def _outside(family: str, field: str, addresses: frozenset[str]) -> str:
    own = sorted(a for a in addresses if (":" in a) == (family == "ip6"))
    protocol = "meta nfproto ipv6" if family == "ip6" else "meta nfproto ipv4"
    return f"{protocol} {family} {field} != {{ {', '.join(own)} }}" if own else protocol
