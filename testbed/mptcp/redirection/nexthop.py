"""The box that connections are redirected to: it forwards what is sent to it to the server meant.

The client joins at an address of the next hop; rules there rewrite the destination to the server
and the source to the hop's outward address, so that answers come back through it.  Maps hold
which address and port mean which server, so hundreds of connections and several servers share
one hop.  A hop may lead to another one, which makes a chain.

The rules concern a connection's first packet; the kernel's connection tracking keeps what they
decided, so connections outlive the entry that led them through.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.closing import Closing
from testbed.errors import ParameterError, TestbedError
from testbed.kernel import NetworkNamespace
from testbed.kernel.nftables import Nftables
from testbed.mptcp.counters import Address
from testbed.mptcp.redirection.watcher import JOINED_MARK, Watcher

_FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
_FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_SPARE_PORTS = range(20000, 60000)


@dataclass
class _Entry:
    """A server behind the hop: where clients reach it, where the hop sends them, for how many."""

    listen: Address
    target: Address | None = None
    users: int = 0


class NextHop(Closing):
    """An address (or one of each family) of a forwarding box, behind which servers can be put.

    `outward` is the address (or one of each family) that servers see.  `onward` is the hop that
    this one leads to, instead of the server itself.  The routes are the network's affair.

    Raises `ParameterError` for addresses without a counterpart and where the box does not
    forward, `KernelError` where the kernel refuses the rules.
    """

    def __init__(
        self,
        namespace: NetworkNamespace,
        addresses: str | Sequence[str],
        *,
        outward: str | Sequence[str],
        onward: NextHop | None = None,
    ) -> None:
        self.namespace, self.onward = namespace, onward
        self._addresses, self._outward = _by_family(addresses), _by_family(outward)
        self._check()
        self._entries: dict[Address, _Entry] = {}
        self._table = "liquidnet_hop_" + re.sub(r"\W", "_", next(iter(self._addresses.values())))
        self._nft = Nftables(namespace)
        try:
            self._nft.run(ruleset(self._table))
            self.watcher = Watcher(namespace)
        except BaseException:
            self._nft.close()
            raise

    def _check(self) -> None:
        if self._addresses.keys() != self._outward.keys():
            raise ParameterError(
                f"next hop {self}: outward addresses {list(self._outward.values())}",
                remedy="give one for each family of its addresses",
            )
        for family in self._addresses:
            if self.namespace.sysctl(_FORWARDING[family]) == "0":
                raise ParameterError(
                    f"next hop {self} does not forward", remedy=f"set {_FORWARDING[family]}=1"
                )

    def __str__(self) -> str:
        return ", ".join(self._addresses.values())

    def close(self) -> None:
        """Take all entries out; connections that came through go on as long as the box lives.

        The rules stay, empty: without any, the kernel would stop translating live connections.
        """
        for server, entry in self._entries.items():
            if entry.users:
                entry.users = 1
                self.release(server)
        self.watcher.close()
        self._nft.close()

    @property
    def servers(self) -> Mapping[Address, Address]:
        """The servers that can be reached through the hop now, and where clients dial them."""
        return {server: entry.listen for server, entry in self._entries.items() if entry.users}

    def listen(self, server: Address) -> Address:
        """Where clients dial `server` here, from the next `open` on; it stays the same.

        The port is the server's own unless another server has it here.  Raises `ParameterError`
        where the hop has no address of that family, or no port.
        """
        if server not in self._entries:
            self._entries[server] = _Entry(self._free(server))
        return self._entries[server].listen

    def open(self, server: Address) -> None:
        """Let clients reach `server`; each `open` needs a `release`.

        Raises `KernelError` where the kernel refuses, and then has changed nothing.
        """
        self.listen(server)
        entry = self._entries[server]
        if entry.users == 0:
            self._install(server, entry)
        entry.users += 1

    def _install(self, server: Address, entry: _Entry) -> None:
        if self.onward is None:
            entry.target = server
        else:
            self.onward.open(server)
            entry.target = self.onward.listen(server)
        try:
            self._change("add", entry)
        except TestbedError:
            if self.onward is not None:
                self.onward.release(server)
            raise

    def release(self, server: Address) -> None:
        """Take back one `open`; the last one ends new joins, and leaves live connections alone."""
        entry = self._entries[server]
        if entry.users == 1:
            self._change("delete", entry)
            if self.onward is not None:
                self.onward.release(server)
        entry.users -= 1

    def _free(self, server: Address) -> Address:
        family = ipaddress.ip_address(server.ip).version
        if family not in self._addresses:
            raise ParameterError(
                f"next hop {self} has no IPv{family} address for server {server}",
                remedy="give it one of each family",
            )
        taken = {entry.listen for entry in self._entries.values()}
        for port in (server.port, *_SPARE_PORTS):
            listen = Address(self._addresses[family], port)
            if listen not in taken:
                return listen
        raise ParameterError(f"next hop {self} has no free port", remedy="use a further address")

    def _change(self, verb: str, entry: _Entry) -> None:
        family = ipaddress.ip_address(entry.listen.ip).version
        listen, target = (f"{end.ip} . {end.port}" for end in (entry.listen, entry.target) if end)
        server = f"{listen} : {target}" if verb == "add" else listen
        outward = f"{entry.listen.ip} . {target}"
        seen_as = f"{outward} : {self._outward[family]}" if verb == "add" else outward
        self._nft.run(
            f"{verb} element inet {self._table} servers{family} {{ {server} }}\n"
            f"{verb} element inet {self._table} outward{family} {{ {seen_as} }}\n"
        )


def _by_family(addresses: str | Sequence[str]) -> dict[int, str]:
    given = [addresses] if isinstance(addresses, str) else list(addresses)
    try:
        found = {ipaddress.ip_address(address).version: address for address in given}
    except ValueError as error:
        raise ParameterError(f"next hop: {error}", remedy="give IP addresses") from error
    if not found or len(found) < len(given):
        raise ParameterError(f"next hop with addresses {given}", remedy="give one of each family")
    return dict(sorted(found.items()))


def ruleset(table: str, mark: int = JOINED_MARK) -> str:
    """The rules as nft reads them; loading them again empties them.

    The mark shows the first segment without SYN, FIN and RST that a server sends on each
    connection, which is its sign of having accepted the join (RFC 8684 3.2, figure 8).  A SYN
    takes it back: what is tracked may be an earlier connection from the same port, whose reset
    was forged and therefore not seen.
    """
    maps = "".join(
        f"  map servers{family} {{ type {kind} . inet_service : {kind} . inet_service; }}\n"
        f"  map outward{family} {{ type {kind} . {kind} . inet_service : {kind}; }}\n"
        for family, (_word, kind) in _FAMILIES.items()
    )
    arriving = "".join(
        f"    dnat {word} to {word} daddr . tcp dport map @servers{family}\n"
        for family, (word, _kind) in _FAMILIES.items()
    )
    leaving = "".join(
        f"    ct status dnat snat {word} to ct original {word} daddr . {word} daddr . tcp dport"
        f" map @outward{family}\n"
        for family, (word, _kind) in _FAMILIES.items()
    )
    joined = (
        f"    ct direction original tcp flags & (fin|syn|rst|ack) == syn"
        f" ct mark set ct mark and {~mark & 0xFFFFFFFF}\n"
        f"    ct direction reply ct status dnat ct mark & {mark} == 0"
        f" tcp flags & (fin|syn|rst) == 0 ct mark set ct mark or {mark}"
        f" meta mark set meta mark or {mark}\n"
    )
    flushed = "".join(
        f"flush map inet {table} {name}{family}\n"
        for name in ("servers", "outward")
        for family in _FAMILIES
    )
    return (
        f"table inet {table} {{\n{maps}}}\nflush table inet {table}\n{flushed}"
        f"table inet {table} {{\n"
        f"  chain arriving {{\n    type nat hook prerouting priority dstnat\n{arriving}  }}\n"
        f"  chain leaving {{\n    type nat hook postrouting priority srcnat\n{leaving}  }}\n"
        f"  chain joined {{\n    type filter hook postrouting priority mangle\n{joined}  }}\n}}\n"
    )
