"""TCP sockets of a namespace by sock_diag: both families and MPTCP's subflows, in one dump.

The old request (TCPDIAG_GETSOCK) is the one that answers for IPv4 and IPv6 at once.  A socket
that ends is told by a multicast group with its last counters.  `MPTCP` connections are asked for
by a request of their own, one a family.

Layouts: linux/inet_diag.h, struct tcp_info of linux/tcp.h, struct mptcp_info of linux/mptcp.h.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

from testbed.kernel.rtnetlink import attribute
from testbed.mptcp.counters import TCP_INFO, Address, parse_connection
from testbed.observe.changes import Metric
from testbed.observe.netlink import attribute_places, find

TCPDIAG_GETSOCK: Final = 18
SOCK_DIAG_BY_FAMILY: Final = 20
GROUPS_OF_ENDED: Final = (1, 3)  # SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY
BODY: Final = 72

LISTEN: Final = 10
ACKED, RECEIVED = 13, 14  # places in `METRICS`
_IPPROTO_MPTCP = 262
_INFO, _VEGASINFO, _CONG, _BBRINFO, _ULP_INFO = 2, 3, 4, 16, 19
_ULP_MPTCP, _TOKEN_LOCAL = 3, 2
_REQ_PROTOCOL = 3
_WANTED = (1 << _INFO - 1) | (1 << _VEGASINFO - 1) | (1 << _CONG - 1)  # VEGASINFO: BBR's too
# established, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: those that have counters
_CONNECTED = sum(1 << state for state in (1, 4, 5, 8, 9, 11))
_NO_THRESHOLD, _NO_RTT = 0x7FFFFFFF, 0xFFFFFFFF
_NO_RATE = 0xFFFFFFFFFFFFFFFF
_PORTS = struct.Struct("!HH")
_BBR = struct.Struct("=5I")
_DATA_SEGMENTS, _DATA_SEGMENTS_AT = struct.Struct("=II"), 152
_LEAST_TCP_INFO = 160  # mptcp_info is shorter

REQUEST: Final = struct.pack("=BBBB48sII", 0, 0, 0, _WANTED, bytes(48), _CONNECTED, 0)

METRICS: Final = (
    Metric("tcp.state", "1"),
    Metric("tcp.cwnd", "packets"),
    Metric("tcp.ssthresh", "packets"),
    Metric("tcp.srtt", "s"),
    Metric("tcp.rttvar", "s"),
    Metric("tcp.min_rtt", "s"),
    Metric("tcp.in_flight", "packets"),
    Metric("tcp.sacked", "B"),
    Metric("tcp.lost", "packets"),
    Metric("tcp.retransmissions", "packets", counter=True),
    Metric("tcp.delivered", "packets", counter=True),
    Metric("tcp.pacing_rate", "bit/s"),
    Metric("tcp.delivery_rate", "bit/s"),
    Metric("tcp.bytes_acked", "B", counter=True),
    Metric("tcp.bytes_received", "B", counter=True),
    Metric("tcp.notsent", "B"),
    Metric("tcp.bbr_bandwidth", "bit/s"),
    Metric("tcp.bbr_pacing_gain", "1"),
    Metric("tcp.bbr_cwnd_gain", "1"),
)
TOTALS: Final = ("tcp.bytes_acked", "tcp.bytes_received", "tcp.retransmissions")

MPTCP_METRICS: Final = (
    Metric("mptcp.subflows", "1"),
    Metric("mptcp.bytes_sent", "B", counter=True),
    Metric("mptcp.bytes_acked", "B", counter=True),
    Metric("mptcp.bytes_received", "B", counter=True),
    Metric("mptcp.bytes_retransmitted", "B", counter=True),
    Metric("mptcp.unacked", "B"),
)


def mptcp_request(family: int) -> bytes:
    """The payload that asks for MPTCP connections of a family (protocol 262 needs its own)."""
    head = struct.pack(
        "=BBBxI48s", family, _IPPROTO_MPTCP & 0xFF, 1 << _INFO - 1, _CONNECTED, bytes(48)
    )
    return head + attribute(_REQ_PROTOCOL, _IPPROTO_MPTCP)


def listening_request(family: int, protocol: int) -> bytes:
    """The payload that asks for sockets of a family that wait for peers, TCP's or UDP's."""
    states = 1 << LISTEN if protocol == socket.IPPROTO_TCP else 1 << 7  # unconnected UDP: CLOSE
    return struct.pack("=BBBxI48s", family, protocol, 0, states, bytes(48))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a socket is: its ends, and of an MPTCP connection or a subflow the token."""

    local: Address
    remote: Address
    congestion: str
    token: int  # of this end's MPTCP connection; 0 for plain TCP

    def __str__(self) -> str:
        return f"{self.local} > {self.remote}"


def cookie(buffer: bytearray | bytes, start: int) -> bytes:
    """What tells a socket from all others, also from a later one with the same ends."""
    return bytes(buffer[start + 44 : start + 52])


def identity(buffer: bytearray | bytes, start: int, end: int, *, token: int = 0) -> Identity:
    """Who an answer is about; an MPTCP connection's own token stands elsewhere."""
    attributes = attribute_places(buffer, start + BODY, end)
    found = {kind: (first, last) for kind, first, last in attributes}
    if _ULP_INFO in found:
        token = _token(buffer, *found[_ULP_INFO])
    name = bytes(buffer[slice(*found[_CONG])]) if _CONG in found else b""
    local, remote = _ends(buffer, start)
    return Identity(
        local=local,
        remote=remote,
        congestion=name.rstrip(b"\0").decode(),
        token=token,
    )


def _ends(buffer: bytearray | bytes, start: int) -> tuple[Address, Address]:
    near, far = _PORTS.unpack_from(buffer, start + 4)
    six = buffer[start] == socket.AF_INET6
    ends = []
    for port, place in ((near, start + 8), (far, start + 24)):
        data = bytes(buffer[place : place + 16])
        if six and data[:12] != bytes(10) + b"\xff\xff":
            ends.append(Address(socket.inet_ntop(socket.AF_INET6, data), port))
        else:
            ends.append(Address(socket.inet_ntoa(data[12:] if six else data[:4]), port))
    return ends[0], ends[1]


def _token(buffer: bytearray | bytes, start: int, end: int) -> int:
    """The token of a subflow's connection; 0 for another protocol over TCP."""
    outer = find(buffer, start, end, _ULP_MPTCP)
    place = find(buffer, *outer, _TOKEN_LOCAL) if outer else None
    return int.from_bytes(buffer[slice(*place)], sys.byteorder) if place else 0


def info_place(buffer: bytearray | bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where tcp_info (or mptcp_info) begins and ends in an answer.

    None for what is left of a socket that was closed in FIN_WAIT2: it has no counters any more.
    """
    return find(buffer, start + BODY, end, _INFO)


def last_info_place(buffer: bytearray | bytes, start: int, end: int) -> tuple[int, int] | None:
    """The same in what is told of a socket that ended; None for one that is not TCP."""
    place = find(buffer, start + BODY, end, _INFO)
    return place if place and place[1] - place[0] >= _LEAST_TCP_INFO else None


def carried_data(buffer: bytearray | bytes, start: int) -> bool:
    """Did a socket, by its tcp_info at `start`, ever send or receive data?"""
    return _DATA_SEGMENTS.unpack_from(buffer, start + _DATA_SEGMENTS_AT) != (0, 0)


def tcp_values(
    buffer: bytearray | bytes, start: int, end: int, message_end: int
) -> tuple[float | None, ...]:
    """`METRICS`' values out of the tcp_info between `start` and `end`, and what follows it."""
    if end - start >= TCP_INFO.size:
        f = TCP_INFO.unpack_from(buffer, start)
    else:  # an older kernel's
        f = TCP_INFO.unpack(bytes(buffer[start:end]).ljust(TCP_INFO.size, b"\0"))
    bbr = find(buffer, end, message_end, _BBRINFO)  # tcp_info is a multiple of 4 bytes long
    return (
        f[0],
        f[26],
        None if f[25] >= _NO_THRESHOLD else f[25],
        f[23] / 1e6 or None,
        f[24] / 1e6 or None,
        None if f[39] == _NO_RTT else f[39] / 1e6 or None,
        f[12],
        f[13] * f[10],
        f[14],
        f[31],
        f[46],
        None if f[32] == _NO_RATE else f[32] * 8,
        f[42] * 8 or None,
        f[34],
        f[35],
        f[38],
        *(_bbr(buffer, bbr[0]) if bbr else (None, None, None)),
    )


def _bbr(buffer: bytearray | bytes, start: int) -> tuple[float, float, float]:
    low, high, _min_rtt, pacing_gain, cwnd_gain = _BBR.unpack_from(buffer, start)
    return (low | high << 32) * 8, pacing_gain / 256, cwnd_gain / 256


def mptcp_values(buffer: bytearray | bytes, start: int, end: int) -> tuple[int, tuple[int, ...]]:
    """The connection's token, and `MPTCP_METRICS`' values out of its mptcp_info."""
    info = parse_connection(bytes(buffer[start:end]))
    return info.token, (
        info.total_subflows or info.extra_subflows + 1,
        info.bytes_sent,
        info.bytes_acked,
        info.bytes_received,
        info.bytes_retransmitted,
        info.unacked,
    )
