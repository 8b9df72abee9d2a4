"""One entry of connection tracking in words, for those who look at few of them.

`read` makes `Entry` objects of a block, `message` the kernel's form of one, so that entries
written by hand go the way of those that were taken.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from testbed.kernel import conntrack_entries as ct
from testbed.kernel.conntrack_entries import Entries
from testbed.kernel.nfnetlink import GENERIC, nested
from testbed.kernel.nfnetlink import message as framed
from testbed.kernel.records import Path
from testbed.kernel.rtnetlink import attribute

_ICMP, _ICMP6 = socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6
_ECHO = {_ICMP: (8, 0), _ICMP6: (128, 129)}


class Status(IntFlag):
    """Bits of an entry's status (enum ip_conntrack_status)."""

    EXPECTED = 1 << 0
    SEEN_REPLY = 1 << 1
    ASSURED = 1 << 2
    CONFIRMED = 1 << 3
    SRC_NAT = 1 << 4
    DST_NAT = 1 << 5
    SEQ_ADJUST = 1 << 6
    SRC_NAT_DONE = 1 << 7
    DST_NAT_DONE = 1 << 8
    DYING = 1 << 9
    FIXED_TIMEOUT = 1 << 10


class TcpState(IntEnum):
    """State of a tracked TCP connection (enum tcp_conntrack)."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9


@dataclass(frozen=True)
class Flow:
    """One direction's tuple.  Of ICMP both ports are the identifier."""

    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0

    def reversed(self) -> Flow:
        """The tuple of the answers, where nothing is translated."""
        return Flow(self.destination, self.source, self.destination_port, self.source_port)


@dataclass(frozen=True)
class Tcp:
    """What tracking knows of a TCP connection; pairs are (original, reply)."""

    state: TcpState = TcpState.ESTABLISHED
    window_scales: tuple[int, int] = (7, 7)
    flags: tuple[int, int] = (0x03, 0x03)  # IP_CT_TCP_FLAG_WINDOW_SCALE | _SACK_PERM


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry.  Counters, (packets, bytes), are None unless net.netfilter.nf_conntrack_acct is
    on, and are not put back; `labels` is 16 bytes or empty.
    """

    protocol: int
    original: Flow
    reply: Flow
    timeout_s: int = 600
    status: Status = Status.CONFIRMED | Status.SEEN_REPLY | Status.ASSURED
    tcp: Tcp | None = None
    mark: int = 0
    zone: int = 0
    labels: bytes = b""
    helper: str = ""
    counters: tuple[tuple[int, int], tuple[int, int]] | None = None


def read(entries: Entries) -> Iterator[Entry]:
    """Each entry in words."""
    for block in entries.blocks:
        for row in block.rows:
            data, values, at = row.tobytes(), {}, 0
            for path, size in block.leaves:
                values[path] = data[at : at + size]
                at += size
            yield _entry(values)


def _entry(values: dict[Path, bytes]) -> Entry:
    protocol = values[(ct.TUPLE_ORIG, 2, 1)][0]
    tcp = None
    if (ct.PROTOINFO, 1, 1) in values:
        # of a connection that has gone the kernel tells the state only
        state, *rest = (values.get((ct.PROTOINFO, 1, kind), b"\0")[0] for kind in range(1, 6))
        tcp = Tcp(TcpState(state), (rest[0], rest[1]), (rest[2], rest[3]))
    counters = None
    if (ct.COUNTERS_ORIG, 1) in values:
        original, reply = (
            (_number(values[(kind, 1)]), _number(values[(kind, 2)]))
            for kind in (ct.COUNTERS_ORIG, ct.COUNTERS_REPLY)
        )
        counters = (original, reply)
    return Entry(
        protocol=protocol,
        original=_flow(values, ct.TUPLE_ORIG, protocol),
        reply=_flow(values, ct.TUPLE_REPLY, protocol),
        timeout_s=_number(values.get((ct.TIMEOUT,), b"")),
        status=Status(_number(values.get((ct.STATUS,), b""))),
        tcp=tcp,
        mark=_number(values.get((ct.MARK,), b"")),
        zone=_number(values.get((ct.ZONE,), b"")),
        labels=values.get((ct.LABELS,), b""),
        helper=values.get((ct.HELP, 1), b"").rstrip(b"\0").decode(),
        counters=counters,
    )


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _flow(values: dict[Path, bytes], which: int, protocol: int) -> Flow:
    first = 1 if (which, 1, 1) in values else 3
    source, destination = (
        str(ipaddress.ip_address(values[(which, 1, kind)])) for kind in (first, first + 1)
    )
    ports = {_ICMP: (4, 4), _ICMP6: (7, 7)}.get(protocol, (2, 3))
    numbers = (_number(values.get((which, 2, kind), b"")) for kind in ports)
    return Flow(source, destination, *numbers)


def of(entries: Iterable[Entry]) -> Entries:
    """Entries written by hand, in blocks."""
    return Entries.of_messages(_message(entry) for entry in entries)


def _message(entry: Entry) -> bytes:
    """An entry as the kernel's dump would say it."""
    family = socket.AF_INET6 if ":" in entry.original.source else socket.AF_INET
    parts = [
        _tuple(ct.TUPLE_ORIG, entry, entry.original, answer=False),
        _tuple(ct.TUPLE_REPLY, entry, entry.reply, answer=True),
        attribute(ct.STATUS, struct.pack("!I", entry.status)),
        attribute(ct.TIMEOUT, struct.pack("!I", entry.timeout_s)),
        attribute(ct.MARK, struct.pack("!I", entry.mark)),
    ]
    if entry.tcp:
        info = entry.tcp
        values = (info.state, *info.window_scales)
        told = [attribute(kind, bytes((value,))) for kind, value in enumerate(values, 1)]
        told += [attribute(kind, bytes((flag, 0))) for kind, flag in enumerate(info.flags, 4)]
        parts.append(nested(ct.PROTOINFO, nested(1, *told)))
    if entry.helper:
        parts.append(nested(ct.HELP, attribute(1, entry.helper)))
    if entry.zone:
        parts.append(attribute(ct.ZONE, struct.pack("!H", entry.zone)))
    if entry.labels:
        parts.append(attribute(ct.LABELS, entry.labels))
    return framed(0, 0, 0, GENERIC.pack(family, 0, 0) + b"".join(parts))


def _tuple(kind: int, entry: Entry, flow: Flow, *, answer: bool) -> bytes:
    source, destination = map(ipaddress.ip_address, (flow.source, flow.destination))
    first = 1 if source.version == 4 else 3
    addresses = attribute(first, source.packed), attribute(first + 1, destination.packed)
    ports = [struct.pack("!H", port) for port in (flow.source_port, flow.destination_port)]
    told = [attribute(1, bytes((entry.protocol,)))]
    if entry.protocol in _ECHO:
        base = 4 if entry.protocol == _ICMP else 7
        values = (ports[0], bytes((_ECHO[entry.protocol][answer],)), b"\0")
        told += [attribute(base + offset, value) for offset, value in enumerate(values)]
    else:
        told += [attribute(2, ports[0]), attribute(3, ports[1])]
    return nested(kind, nested(1, *addresses), nested(2, *told))
