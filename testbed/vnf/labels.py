"""What is known of a client, known of the connections that it opens at another place too.

A function that looks into packets (StringMatcher) remembers what it found in the mark of the
connection, which does not lead anywhere when the client's next packets come as another connection:
a subflow that was redirected to another provider joins from the client's address, with other
ports and without the bytes that were looked at.  So labels move by the client's address.

`of_clients` collects them where a function was, `remember` lets new connections of these clients
carry them from their first packet on, before the graph sees it.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from testbed.kernel.conntrack import Entries
from testbed.kernel.conntrack_entries import MARK, TUPLE_ORIG
from testbed.kernel.nftables import Nftables
from testbed.kernel.records import Bytes
from testbed.vnf.marks import LABEL

_TABLE = "inet carried"
_KINDS = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
_SOURCES = {4: (TUPLE_ORIG, 1, 1), 6: (TUPLE_ORIG, 1, 3)}
_ASK = "ct state new ct direction original ct mark & {label:#x} == 0 ct mark set {family} saddr map"


def of_clients(connections: Entries) -> dict[str, int]:
    """Label by client's address; of several labels the one that most of its connections carry."""
    counted: dict[bytes, Counter[int]] = {}
    for source, label in _labelled(connections):
        counted.setdefault(source, Counter())[label] += 1
    return {
        str(ipaddress.ip_address(source)): labels.most_common(1)[0][0]
        for source, labels in counted.items()
    }


def _labelled(connections: Entries) -> Iterator[tuple[bytes, int]]:
    """Client and label of each connection that has one."""
    for block in connections.blocks:
        marks = block.value((MARK,))
        sources = [block.value(path) for path in _SOURCES.values()]
        source = next((each for each in sources if each is not None), None)
        if marks is None or source is None:
            continue
        labels = _number(marks) & LABEL
        for place in np.flatnonzero(labels):
            yield source[place].tobytes(), int(labels[place])


def _number(value: Bytes) -> np.ndarray:
    return np.ascontiguousarray(value).view(">u4")[:, 0].astype(np.int64)


def remember(nft: Nftables, labels: Mapping[str, int], *, timeout_s: int = 3600) -> None:
    """New connections of these clients, and no others, carry labels for `timeout_s` from now."""
    commands = [f"add table {_TABLE}", f"delete table {_TABLE}", f"add table {_TABLE}"]
    commands.append(f"add chain {_TABLE} known {{ type filter hook prerouting priority -160; }}")
    for version, (family, kind) in _KINDS.items():
        name = f"clients{version}"
        known = {c: n for c, n in labels.items() if ipaddress.ip_address(c).version == version}
        commands.append(f"add map {_TABLE} {name} {{ type {kind} : mark; flags timeout; }}")
        rule = _ASK.format(label=LABEL, family=family)
        commands.append(f"add rule {_TABLE} known {rule} @{name}")
        if known:
            elements = ", ".join(f"{c} timeout {timeout_s}s : {n}" for c, n in known.items())
            commands.append(f"add element {_TABLE} {name} {{ {elements} }}")
    nft.run("\n".join(commands))
