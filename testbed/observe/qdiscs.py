"""What waits in queueing disciplines: RTM_GETQDISC.

Layouts: struct tcmsg of linux/rtnetlink.h, struct gnet_stats_queue of linux/gen_stats.h.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from testbed.observe.changes import Metric
from testbed.observe.netlink import find

RTM_GETQDISC: Final = 38
REQUEST: Final = struct.pack("=BxxxiIII", 0, 0, 0, 0, 0)
ROOT: Final = 0xFFFFFFFF

_KIND, _STATS2, _QUEUE = 1, 7, 3
_HEADER = 20
_IDENTITY = struct.Struct("=iII")
_STATISTICS = struct.Struct("=5I")

METRICS: Final = (
    Metric("queue.backlog_packets", "packets"),
    Metric("queue.backlog", "B"),
    Metric("queue.drops", "packets", counter=True),
    Metric("queue.overlimits", "1", counter=True),
)


class Identity(NamedTuple):
    """Which queueing discipline: interface index, its own handle and its parent's."""

    ifindex: int
    handle: int
    parent: int


def identity(buffer: bytearray, start: int) -> Identity:
    """Whose answer this is."""
    return Identity(*_IDENTITY.unpack_from(buffer, start + 4))


def kind(buffer: bytearray, start: int, end: int) -> str:
    """Its kind: "htb", "bfifo", ..."""
    place = find(buffer, start + _HEADER, end, _KIND)
    return bytes(buffer[slice(*place)]).rstrip(b"\0").decode() if place else ""


def values(buffer: bytearray, start: int, end: int) -> tuple[int, int, int, int] | None:
    """`METRICS`' values; None where it keeps no statistics."""
    outer = find(buffer, start + _HEADER, end, _STATS2)
    place = find(buffer, *outer, _QUEUE) if outer else None
    if place is None:
        return None
    waiting, backlog, drops, _requeues, overlimits = _STATISTICS.unpack_from(buffer, place[0])
    return waiting, backlog, drops, overlimits


def handle_text(handle: int) -> str:
    """A handle as tc writes it: "1:"."""
    minor = handle & 0xFFFF
    return f"{handle >> 16:x}:" + (f"{minor:x}" if minor else "")
