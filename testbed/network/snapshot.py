"""What an interface is configured with, as the netlink messages that would configure it again.

An interface that is set down loses its routes, its IPv6 addresses and its permanent neighbours.
`Snapshot` says what there was, so that it can be put back.  Routes of routing daemons are left
out: they are the daemons' to add again.

Layouts: struct ifaddrmsg, rtmsg, ndmsg of linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from testbed.errors import KernelError
from testbed.kernel import RtNetlink
from testbed.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_NEWADDR,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    Message,
    attribute,
    attributes,
)
from testbed.links.counters import dump

_RTM_GETADDR, _RTM_GETROUTE, _RTM_GETNEIGH = 22, 26, 30
_NEW = NLM_F_CREATE | NLM_F_EXCL
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, interface, state, flags, type
_IFA_FLAGS, _IFA_CACHEINFO = 8, 6
_RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_CACHEINFO = 4, 5, 9, 12
_NDA_DST, _NDA_LLADDR = 1, 2
_GIVEN_BY_HAND = (3, 4)  # RTPROT_BOOT, RTPROT_STATIC
_PERMANENT = 0x80
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_LINK_SCOPE, _NO_DAD = 253, 0x02
_LASTING_FLAGS = 0x280  # IFA_F_PERMANENT, IFA_F_NOPREFIXROUTE


@dataclass(frozen=True)
class Snapshot:
    """Messages, in the order in which they can be sent."""

    messages: tuple[Message, ...]

    @classmethod
    def take(cls, index: int) -> Snapshot:
        """The configuration of an interface in the calling thread's namespace."""
        routes = sorted(_routes(index), key=lambda message: message.purpose)
        return cls((*_addresses(index), *_neighbours(index), *routes))

    def without(self, other: Snapshot) -> Snapshot:
        """What is in this one and not in `other`."""
        there = set(other.messages)
        return Snapshot(tuple(each for each in self.messages if each not in there))

    def restore(self, netlink: RtNetlink) -> None:
        """Put it back; what the kernel has brought back by itself stays as it is."""
        for message in self.messages:
            try:
                netlink.request(message)
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise


def _addresses(index: int) -> Iterator[Message]:
    for body in dump(_RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        family, length, flags, scope, interface = _ADDRESS.unpack_from(body)
        if interface != index or (scope == _LINK_SCOPE and family == socket.AF_INET6):
            continue  # the kernel makes link-local addresses itself
        found = attributes(body[_ADDRESS.size :])
        (wide,) = struct.unpack("=I", found.pop(_IFA_FLAGS, struct.pack("=I", flags)))
        found.pop(_IFA_CACHEINFO, None)
        kept = wide & _LASTING_FLAGS | (_NO_DAD if family == socket.AF_INET6 else 0)
        payload = _ADDRESS.pack(family, length, kept & 0xFF, scope, interface)
        payload += _pack(found) + attribute(_IFA_FLAGS, kept)
        yield Message(RTM_NEWADDR, _NEW, payload, "an address")


def _routes(index: int) -> Iterator[Message]:
    for body in dump(_RTM_GETROUTE, _ROUTE.pack(*[0] * 9)):
        fields = list(_ROUTE.unpack_from(body))
        found = attributes(body[_ROUTE.size :])
        if fields[5] not in _GIVEN_BY_HAND or not _leads_by(found, index):
            continue
        fields[8] = 0  # flags say whether the next hop is dead or its link down
        found.pop(_RTA_CACHEINFO, None)
        order = "2: a route with a gateway" if _RTA_GATEWAY in found else "1: a route on the link"
        yield Message(RTM_NEWROUTE, _NEW, _ROUTE.pack(*fields) + _pack(found), order)


def _leads_by(found: dict[int, bytes], index: int) -> bool:
    if _RTA_OIF in found:
        return bool(struct.unpack("=I", found[_RTA_OIF])[0] == index)
    hops = found.get(_RTA_MULTIPATH, b"")
    while len(hops) >= 8:  # struct rtnexthop: length, flags, hops, interface
        length, interface = struct.unpack_from("=HxxI", hops)
        if interface == index:
            return True
        hops = hops[(length + 3) & ~3 :]
    return False


def _neighbours(index: int) -> Iterator[Message]:
    for body in dump(_RTM_GETNEIGH, _NEIGHBOUR.pack(0, 0, 0, 0, 0)):
        family, interface, state, flags, _kind = _NEIGHBOUR.unpack_from(body)
        if (
            interface != index
            or not state & _PERMANENT
            or family not in (socket.AF_INET, socket.AF_INET6)
        ):
            continue
        found = attributes(body[_NEIGHBOUR.size :])
        kept = {kind: found[kind] for kind in (_NDA_DST, _NDA_LLADDR) if kind in found}
        payload = _NEIGHBOUR.pack(family, interface, state, flags, 0) + _pack(kept)
        yield Message(RTM_NEWNEIGH, _NEW, payload, "a neighbour")


def _pack(found: dict[int, bytes]) -> bytes:
    return b"".join(attribute(kind, value) for kind, value in found.items())
