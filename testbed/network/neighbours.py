"""Neighbour entries (ARP, IPv6 neighbour discovery) that the kernel does not throw away.

The kernel keeps one table of neighbours for all namespaces of the machine, and no more than 1024
entries that it found itself (net.ipv4.neigh.default.gc_thresh3, which only the machine's own
namespace could raise).  Forty hosts that talk to each other fill it; after that nobody resolves
anybody, "neighbour table overflow", until entries are five seconds old.  Entries marked as learned
externally do not count.  So whenever a node has resolved a neighbour, the keeper, told by the
kernel, marks the entry: resolution stays ARP's and NDP's own, and so do ageing and renewal.

linux/neighbour.h, net/core/neighbour.c (neigh_alloc, neigh_forced_gc); netlink(7) for
NETLINK_LISTEN_ALL_NSID.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Iterable, Iterator

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink, setns
from testbed.kernel.namespaces import CLONE_NEWNET
from testbed.kernel.rtnetlink import split

_SOL_NETLINK, _LISTEN_ALL_NSID = 270, 8
_RTMGRP_NEIGH = 1 << 2
_NEW = rtnetlink.RTM_NEWNEIGH
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 32 << 20
_HEADER = struct.Struct("=IHHII")
_NDMSG = struct.Struct("=BxxxiHBB")
_DESTINATION, _LLADDR = 1, 2
_RESOLVED = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, STALE, DELAY, PROBE
_EXT_LEARNED = 0x10
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class NeighbourKeeper:
    """Marks neighbours that the given namespaces resolve, from construction to `close`."""

    def __init__(self, namespaces: Iterable[NetworkNamespace]) -> None:
        self._namespaces = dict(_numbered(namespaces))
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:  # an ordinary user gets what everybody may have
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.bind((0, _RTMGRP_NEIGH))
        self._wake, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run, name="neighbours", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; entries marked stay so."""
        os.close(self._end)
        self._thread.join()
        os.close(self._wake)
        self._socket.close()

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        for readable in (self._socket.fileno(), self._wake):
            poll.register(readable, select.POLLIN)
        while self._wake not in (fd for fd, _events in poll.poll()):
            try:
                data, ancillary, _flags, _address = self._socket.recvmsg(1 << 16, 64)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # events were lost: their entries stay ordinary ones
            namespace = self._namespaces.get(_number(ancillary))
            if namespace is not None:
                self._mark(namespace, [body for kind, _n, body in split(data) if kind == _NEW])

    @staticmethod
    def _mark(namespace: NetworkNamespace, entries: Iterable[bytes]) -> None:
        requests = b"".join(filter(None, map(_marked, entries)))
        if requests:
            # Nothing is read back: an entry that has changed meanwhile is told of again.
            try:
                setns(namespace.fd, CLONE_NEWNET)
            except KernelError:  # the node has gone, or has another one, meanwhile
                return
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as there:
                there.send(requests)


def _marked(entry: bytes) -> bytes:
    """The request that marks a resolved neighbour; empty where there is nothing to do."""
    family, index, state, flags, _type = _NDMSG.unpack_from(entry)
    found = rtnetlink.attributes(entry[_NDMSG.size :])
    resolved = state & _RESOLVED and _DESTINATION in found and _LLADDR in found
    if family not in _FAMILIES or flags & _EXT_LEARNED or not resolved:
        return b""
    payload = _NDMSG.pack(family, index, state, flags | _EXT_LEARNED, 0) + b"".join(
        rtnetlink.attribute(kind, found[kind]) for kind in (_DESTINATION, _LLADDR)
    )
    # without NLM_F_CREATE: an entry that is gone meanwhile shall stay so
    header = _HEADER.pack(
        16 + len(payload), _NEW, rtnetlink.NLM_F_REQUEST | rtnetlink.NLM_F_REPLACE, 0, 0
    )
    return header + payload


def _number(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    for level, kind, value in ancillary:
        if (level, kind) == (_SOL_NETLINK, _LISTEN_ALL_NSID):
            return int(struct.unpack("=i", value[:4])[0])
    return -1


def _numbered(namespaces: Iterable[NetworkNamespace]) -> Iterator[tuple[int, NetworkNamespace]]:
    """Namespaces by the numbers that events carry."""
    netlink = RtNetlink()
    try:
        for namespace in namespaces:
            number = netlink.namespace_number(namespace.fd)
            if number < 0:
                netlink.request(rtnetlink.number_namespace(namespace.fd))
                number = netlink.namespace_number(namespace.fd)
            yield number, namespace
    finally:
        netlink.close()
