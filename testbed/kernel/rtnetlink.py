"""rtnetlink in bulk: interfaces, addresses, routes and rules for thousands of nodes.

One `RtNetlink` is one socket in one namespace.  Messages are built by the functions below and
sent many at a time (`batch`), which is what makes a thousand hosts come up in the time the
kernel itself needs.  For anything that is not bulk, pyroute2 reads better: use it.

Message layouts: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/fib_rules.h.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from testbed.errors import KernelError

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
RTM_NEWNEIGH = 28
RTM_NEWRULE = 32
RTM_NEWNSID, RTM_GETNSID = 88, 90

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

IFF_UP, IFF_NOARP = 0x1, 0x80
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_OPERSTATE = 1, 3, 4, 10, 16
IFLA_LINKINFO, IFLA_GROUP, IFLA_NET_NS_FD = 18, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1

_NETNSA_NSID, _NETNSA_FD = 1, 3
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFO = struct.Struct("=BxHiII")
_ALIGN = 3
_BATCH = 128  # messages a datagram: the kernel answers errors one by one into our buffer


class Message(NamedTuple):
    """One rtnetlink request: type, flags beside NLM_F_REQUEST, payload, and what it is for.

    The parts of `purpose` are put together only where the kernel refuses the request.
    """

    kind: int
    flags: int
    payload: bytes
    purpose: str | tuple[object, ...] = ""


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """One netlink attribute; an int is a u32, a str is sent with its final NUL."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) & _ALIGN)


def attributes(data: bytes | memoryview) -> dict[int, bytes]:
    """Attributes of a message by type (the last one of a type wins); nesting bits removed."""
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < 4:
            break
        found[kind & 0x3FFF] = bytes(data[4:length])
        data = data[(length + _ALIGN) & ~_ALIGN :]
    return found


def mac_bytes(mac: str) -> bytes:
    """Six bytes from aa:bb:cc:dd:ee:ff."""
    return bytes.fromhex(mac.replace(":", ""))


def link(index: int = 0, *, up: bool | None = None, arp: bool = True, extra: bytes = b"") -> bytes:
    """Payload of a link message; `up=None` leaves the interface's state alone."""
    flags, change = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    if not arp:
        flags, change = flags | IFF_NOARP, change | IFF_NOARP
    return _IFINFO.pack(0, 0, index, flags, change) + extra


@dataclass(frozen=True)
class VethEnd:
    """One end of a veth pair to be made: its name, index, namespace and, if known, its MAC.

    `master` (the index of a bridge) and `up` may be set on the first end only: the kernel
    configures the second before it has a peer, and refuses to open it then.
    """

    name: str
    index: int
    namespace_fd: int
    mac: str = ""
    master: int = 0
    up: bool = False

    def payload(self, group: int) -> bytes:
        """This end as an ifinfomsg with its attributes."""
        parts = [link(self.index, up=True if self.up else None), attribute(IFLA_IFNAME, self.name)]
        if self.mac:
            parts.append(attribute(IFLA_ADDRESS, mac_bytes(self.mac)))
        parts.append(attribute(IFLA_NET_NS_FD, self.namespace_fd))
        if self.master:
            parts.append(attribute(IFLA_MASTER, self.master))
        if group:
            parts.append(attribute(IFLA_GROUP, group))
        return b"".join(parts)


def new_veth(end1: VethEnd, end2: VethEnd, *, group: int = 0) -> Message:
    """Make a veth pair, each end named, numbered, addressed and in its namespace, at once."""
    peer = attribute(VETH_INFO_PEER, end2.payload(group))
    info = attribute(IFLA_INFO_KIND, "veth") + attribute(IFLA_INFO_DATA, peer)
    payload = end1.payload(group) + attribute(IFLA_LINKINFO, info)
    return Message(
        RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload, ("veth", end1.name, "-", end2.name)
    )


def new_link(
    kind: str, name: str, index: int = 0, *, up: bool = True, data: bytes = b""
) -> Message:
    """Make an interface of `kind` ("bridge", "vxlan", ...) in the socket's own namespace."""
    info = attribute(IFLA_INFO_KIND, kind) + (attribute(IFLA_INFO_DATA, data) if data else b"")
    payload = link(
        index, up=up, extra=attribute(IFLA_IFNAME, name) + attribute(IFLA_LINKINFO, info)
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload, (kind, name))


def change_link(index: int, kind: str, data: bytes) -> Message:
    """Change settings that interfaces of `kind` have beside the common ones."""
    info = attribute(IFLA_INFO_KIND, kind) + attribute(IFLA_INFO_DATA, data)
    extra = attribute(IFLA_LINKINFO, info)
    return Message(RTM_NEWLINK, 0, link(index, extra=extra), (kind, index))


def set_link(
    index: int,
    *,
    up: bool | None = None,
    arp: bool = True,
    name: str = "",
    mac: str = "",
    mtu: int = 0,
    master: int | None = None,
    namespace_fd: int | None = None,
) -> Message:
    """Change an interface; `master=0` takes it out of its bridge."""
    extra = attribute(IFLA_IFNAME, name) if name else b""
    if mac:
        extra += attribute(IFLA_ADDRESS, mac_bytes(mac))
    if mtu:
        extra += attribute(IFLA_MTU, mtu)
    if master is not None:
        extra += attribute(IFLA_MASTER, master)
    if namespace_fd is not None:
        extra += attribute(IFLA_NET_NS_FD, namespace_fd)
    return Message(RTM_NEWLINK, 0, link(index, up=up, arp=arp, extra=extra), ("interface", index))


def delete_link(index: int) -> Message:
    """Remove an interface (a veth end takes its peer along)."""
    return Message(RTM_DELLINK, 0, link(index), ("interface", index))


_ROUTES = {
    4: (socket.AF_INET, 4, struct.Struct("=BBBBBBBBI HH4s HH4s HHI HHI")),
    6: (socket.AF_INET6, 16, struct.Struct("=BBBBBBBBI HH16s HH16s HHI HHI")),
}
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _family(address: Interface | Network | ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _address_message(kind: int, flags: int, index: int, address: Interface) -> Message:
    length = address.network.prefixlen
    payload = struct.pack(
        # IFA_F_NODAD: an emulated address is usable at once, not after duplicate detection
        "=BBBBI",
        _family(address),
        length,
        0x02 if address.version == 6 else 0,
        0,
        index,
    )
    payload += attribute(1, address.ip.packed) + attribute(2, address.ip.packed)
    if isinstance(address, ipaddress.IPv4Interface) and length < 31:
        payload += attribute(4, address.network.broadcast_address.packed)
    return Message(kind, flags, payload, ("address", address))


def add_address(index: int, address: Interface) -> Message:
    """Add an address with its prefix; an IPv6 address skips duplicate address detection."""
    return _address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, address)


def delete_address(index: int, address: Interface) -> Message:
    """Remove an address."""
    return _address_message(RTM_DELADDR, 0, index, address)


def add_route(
    destination: Network,
    *,
    via: str = "",
    index: int = 0,
    table: int = 254,
    metric: int = 0,
    source: str = "",
) -> Message:
    """Add or replace a unicast route; without `via` it is on-link."""
    family, width, plain = _ROUTES[destination.version]
    flags, where = NLM_F_CREATE | NLM_F_REPLACE, ("via", via) if via else ("interface", index)
    on_link_scope = 253 if destination.version == 4 and not via else 0
    head = (family, destination.prefixlen, 0, 0, 0, 3, on_link_scope, 1, 0)
    size = width + 4
    if via and index and destination.prefixlen and not metric and not source:
        # what routing tables of thousands consist of, in one go
        to, gateway = destination.network_address.packed, _packed(via)
        payload = plain.pack(*head, size, 1, to, size, 5, gateway, 8, 4, index, 8, 15, table)
        return Message(RTM_NEWROUTE, flags, payload, ("route", destination, *where))
    payload = struct.pack("=BBBBBBBBI", *head)
    if destination.prefixlen:
        payload += attribute(1, destination.network_address.packed)
    if via:
        payload += attribute(5, _packed(via))
    if index:
        payload += attribute(4, index)
    if metric:
        payload += attribute(6, metric)
    if source:
        payload += attribute(7, _packed(source))
    payload += attribute(15, table)
    return Message(RTM_NEWROUTE, flags, payload, ("route", destination, *where))


@functools.lru_cache(maxsize=1 << 16)
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def add_source_rule(source: Network, table: int, *, priority: int) -> Message:
    """Packets from `source` look up `table` (`ip rule add from SOURCE lookup TABLE`)."""
    payload = struct.pack("=BBBBBBBBI", _family(source), 0, source.prefixlen, 0, 0, 0, 0, 1, 0)
    payload += attribute(2, source.network_address.packed)
    payload += attribute(6, priority) + attribute(15, table)
    return Message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, payload, ("rule from", source))


def number_namespace(fd: int) -> Message:
    """Give the namespace behind `fd` a number in the socket's own one, as events name it."""
    payload = bytes(4) + attribute(_NETNSA_NSID, 0xFFFFFFFF) + attribute(_NETNSA_FD, fd)
    return Message(RTM_NEWNSID, 0, payload, ("number of namespace", fd))


def add_neighbour(index: int, address: str, mac: str) -> Message:
    """Add a permanent neighbour (static ARP) entry."""
    ip = ipaddress.ip_address(address)
    payload = struct.pack("=BxHiHBB", _family(ip), 0, index, 0x80, 0, 0)
    payload += attribute(1, ip.packed) + attribute(2, mac_bytes(mac))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, payload, ("neighbour", address))


@dataclass(frozen=True)
class LinkState:
    """What RTM_GETLINK says of one interface."""

    index: int
    name: str
    mac: str
    up: bool
    operstate: int  # RFC 2863: 6 is up, 2 is down, 0 is unknown
    mtu: int


class RtNetlink:
    """An rtnetlink socket in the namespace its creator was in."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._sequence = 0
        self._lock = threading.Lock()  # a timeline's thread may use a node's socket too

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def batch(self, messages: Sequence[Message]) -> None:
        """Send messages in order; the first one refused raises `KernelError` after the rest ran."""
        for start in range(0, len(messages), _BATCH):
            with self._lock:
                self._send(messages[start : start + _BATCH])

    def request(self, message: Message, *, harmless: Collection[int] = ()) -> None:
        """Send one message; an error number that is `harmless` means there is nothing to do."""
        try:
            with self._lock:
                self._send((message,))
        except KernelError as error:
            if error.errno not in harmless:
                raise

    def _send(self, messages: Sequence[Message]) -> None:
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(messages)
        self._socket.send(b"".join(self._frames(messages, first, last)))
        refused: KernelError | None = None
        while True:
            for kind, sequence, body in split(self._socket.recv(1 << 17)):
                if kind != _NLMSG_ERROR or not first <= sequence <= last:
                    continue
                number = -struct.unpack_from("=i", body)[0]
                if number and refused is None:
                    purpose = messages[sequence - first].purpose
                    if isinstance(purpose, tuple):
                        purpose = " ".join(map(str, purpose))
                    refused = KernelError(number, f"{purpose}: {os.strerror(number)}")
                if sequence == last:
                    if refused is not None:
                        raise refused
                    return

    @staticmethod
    def _frames(messages: Iterable[Message], first: int, last: int) -> Iterable[bytes]:
        for sequence, message in enumerate(messages, first):
            flags = NLM_F_REQUEST | message.flags | (NLM_F_ACK if sequence == last else 0)
            yield _HEADER.pack(16 + len(message.payload), message.kind, flags, sequence, 0)
            yield message.payload

    def link(self, name: str) -> LinkState:
        """State of the interface called `name`; `KernelError` (ENODEV) where there is none."""
        payload = link(extra=attribute(IFLA_IFNAME, name))
        return _link_state(self._get(RTM_GETLINK, payload, f"interface {name}"))

    def namespace_number(self, fd: int) -> int:
        """The number of the namespace behind `fd` in this one, -1 where it has none yet."""
        payload = bytes(4) + attribute(_NETNSA_FD, fd)
        answer = self._get(RTM_GETNSID, payload, f"number of namespace {fd}")
        return int(struct.unpack("=i", attributes(answer[4:])[_NETNSA_NSID])[0])

    def _get(self, kind: int, payload: bytes, purpose: str) -> bytes:
        """The body of the kernel's answer to a question."""
        with self._lock:
            self._sequence += 1
            header = _HEADER.pack(16 + len(payload), kind, NLM_F_REQUEST, self._sequence, 0)
            self._socket.send(header + payload)
            while True:
                for answer, sequence, body in split(self._socket.recv(1 << 16)):
                    if sequence != self._sequence:
                        continue
                    if answer == _NLMSG_ERROR:
                        number = -struct.unpack_from("=i", body)[0]
                        raise KernelError(number, f"{purpose}: {os.strerror(number)}")
                    return body

    def index(self, name: str) -> int:
        """Index of the interface called `name`."""
        return self.link(name).index


def split(data: bytes) -> Iterable[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message in a datagram."""
    offset = 0
    while offset < len(data):
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
        yield kind, sequence, data[offset + 16 : offset + length]
        offset += (length + _ALIGN) & ~_ALIGN


def _link_state(body: bytes) -> LinkState:
    _af, _type, index, flags, _change = _IFINFO.unpack_from(body)
    found = attributes(body[16:])
    return LinkState(
        index=index,
        name=found[IFLA_IFNAME].rstrip(b"\0").decode(),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        up=bool(flags & IFF_UP),
        operstate=found.get(IFLA_OPERSTATE, b"\0")[0],
        mtu=struct.unpack("=I", found[IFLA_MTU])[0],
    )
