"""What the kernel counted at interfaces: RTM_GETLINK's 64-bit statistics, of one or of all.

Layout: struct rtnl_link_stats64 of linux/if_link.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from testbed.errors import KernelError
from testbed.kernel import rtnetlink

NLM_F_DUMP = 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_IFLA_STATS64 = 23


class Counters(NamedTuple):
    """Of one interface: packets and bytes received and sent, and what was dropped."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


def dump(kind: int, payload: bytes) -> Iterator[bytes]:
    """The bodies of a netlink dump's answers, in the calling thread's namespace."""
    return _ask(kind, rtnetlink.NLM_F_REQUEST | NLM_F_DUMP, payload)


def _ask(kind: int, flags: int, payload: bytes) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(_HEADER.pack(16 + len(payload), kind, flags, 1, 0) + payload)
        while True:
            data = netlink.recv(1 << 18)
            offset = 0
            while offset < len(data):
                length, answer, _flags, _sequence, _port = _HEADER.unpack_from(data, offset)
                body = data[offset + 16 : offset + length]
                offset += (length + 3) & ~3
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise KernelError(number, f"netlink request {kind}: {os.strerror(number)}")
                yield body
            if not flags & NLM_F_DUMP:
                return


def interfaces() -> dict[int, Counters]:
    """Counters of every interface of the calling thread's namespace, by index."""
    return dict(map(_counters, dump(rtnetlink.RTM_GETLINK, rtnetlink.link())))


def interface(index: int) -> Counters:
    """Counters of one interface of the calling thread's namespace."""
    request = rtnetlink.link(index)
    (body,) = _ask(rtnetlink.RTM_GETLINK, rtnetlink.NLM_F_REQUEST, request)
    return _counters(body)[1]


def _counters(body: bytes) -> tuple[int, Counters]:
    (index,) = struct.unpack_from("=i", body, 4)
    stats = rtnetlink.attributes(body[16:])[_IFLA_STATS64]
    return index, Counters(*struct.unpack_from("=8Q", stats))
