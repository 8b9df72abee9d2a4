"""What a graph was compiled to, and the commands for nft that load it."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.vnf import marks, pulling
from testbed.vnf.click import Graph
from testbed.vnf.elements import Element, Stateful, StringRule

TABLE, ENTRANCE = "function", "graph"
_NEIGHBOURS = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert"


@dataclass(frozen=True)
class Exit:
    """A way out: packets with `mark` (under `EXIT_MASK`) leave by `device`, over `gateway`."""

    mark: int
    device: str
    gateway: str = ""


EXIT_MASK = marks.DEVICE | marks.GATEWAY


@dataclass(frozen=True)
class Program:
    """What a graph was compiled to."""

    graph: Graph
    elements: dict[str, Element]
    family: str
    objects: dict[str, Stateful]
    chains: dict[str, list[str]]
    base_chains: dict[str, str]
    strings: tuple[StringRule, ...]
    devices: tuple[str, ...]
    exits: tuple[Exit, ...]
    queues: tuple[pulling.DeviceQueues, ...]
    local: bool

    @property
    def table(self) -> str:
        """Family and name of the table of nftables that holds the function."""
        return f"{self.family} {TABLE}"

    def ruleset(self, *, ipv6: bool = True) -> str:
        """Commands for nft that load all of it, or nothing.

        Without `ipv6` it is for a function that has no such addresses.
        """
        lines = [f"add table {self.table}"]
        lines += [
            f"add {each.kind} {self.table} {name} {each.specification}".rstrip()
            for name, each in self.objects.items()
        ]
        for name in self.chains:
            kind = self.base_chains.get(name)
            lines.append(f"add chain {self.table} {name}" + (f" {{ {kind} }}" if kind else ""))
        if ipv6 and self.family == "inet":  # neighbours are found by IPv6's own packets
            match = f"icmpv6 type {{ {_NEIGHBOURS} }}"
            lines.append(f"add rule {self.table} {ENTRANCE} {match} accept")
        for name, rules in self.chains.items():
            lines += [f"add rule {self.table} {name} {rule}" for rule in rules]
        return "\n".join(lines)
