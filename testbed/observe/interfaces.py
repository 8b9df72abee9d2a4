"""Counters of all interfaces of a namespace: RTM_GETSTATS, a sixth of what RTM_GETLINK answers.

Layouts: struct if_stats_msg and struct rtnl_link_stats64 of linux/if_link.h.
"""

from __future__ import annotations

import struct
from typing import Final

from testbed.kernel import rtnetlink
from testbed.observe.changes import Metric
from testbed.observe.netlink import find

RTM_GETSTATS: Final = 94
REQUEST: Final = struct.pack("=BxxxII", 0, 0, 1)  # filter mask: IFLA_STATS_LINK_64 alone
RTM_GETLINK: Final = rtnetlink.RTM_GETLINK
NAMES_REQUEST: Final = rtnetlink.link()

_STATS_LINK_64 = 1
_STATS_HEADER, _LINK_HEADER = 12, 16
_COUNTERS = struct.Struct("=8Q")

METRICS: Final = (
    Metric("interface.rx_packets", "packets", counter=True),
    Metric("interface.tx_packets", "packets", counter=True),
    Metric("interface.rx_bytes", "B", counter=True),
    Metric("interface.tx_bytes", "B", counter=True),
    Metric("interface.rx_errors", "packets", counter=True),
    Metric("interface.tx_errors", "packets", counter=True),
    Metric("interface.rx_drops", "packets", counter=True),
    Metric("interface.tx_drops", "packets", counter=True),
)


def counters(buffer: bytearray, start: int, end: int) -> tuple[int, bytes]:
    """Interface index and the bytes of its counters out of one answer to `REQUEST`."""
    (index,) = struct.unpack_from("=I", buffer, start + 4)
    place = find(buffer, start + _STATS_HEADER, end, _STATS_LINK_64)
    return index, bytes(buffer[place[0] : place[0] + _COUNTERS.size]) if place else b""


def values(data: bytes) -> tuple[int, ...]:
    """`METRICS`' values out of what `counters` found."""
    return _COUNTERS.unpack(data)


def name(buffer: bytearray, start: int, end: int) -> tuple[int, str]:
    """Interface index and name out of one answer to `NAMES_REQUEST`."""
    (index,) = struct.unpack_from("=i", buffer, start + 4)
    place = find(buffer, start + _LINK_HEADER, end, rtnetlink.IFLA_IFNAME)
    assert place is not None
    return index, bytes(buffer[slice(*place)]).rstrip(b"\0").decode()
