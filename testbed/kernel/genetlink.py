"""Generic netlink: one family, its commands and its multicast groups.

Used where pyroute2 knows only part of a family (MPTCP's path manager).  Errors carry the
kernel's own explanation (extended ACK) where it gives one.

Layouts: linux/netlink.h, linux/genetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from testbed.errors import FeatureError, KernelError
from testbed.kernel.rtnetlink import NLM_F_ACK, NLM_F_REQUEST, attribute, attributes

NLM_F_DUMP = 0x300
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NETLINK_GENERIC, _SOL_NETLINK = 16, 270
_NETLINK_ADD_MEMBERSHIP, _NETLINK_EXT_ACK = 1, 11
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_CONTROLLER, _GETFAMILY = 0x10, 3
_FAMILY_ID, _FAMILY_NAME, _MCAST_GROUPS = 1, 2, 7
_GROUP_NAME, _GROUP_ID = 1, 2
_HEADER = struct.Struct("=IHHII")


class Reply(NamedTuple):
    """One message of a family: its command and the bytes of its attributes."""

    command: int
    attributes: bytes


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | 0x8000, b"".join(parts))


class GenericNetlink:
    """A socket on one generic netlink family, in the namespace its creator was in.

    Raises `FeatureError` when the kernel has no such family.
    """

    def __init__(self, family: str) -> None:
        self.socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC
        )
        self.socket.bind((0, 0))
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._sequence = 0
        self._groups: dict[str, int] = {}
        try:
            self._resolve(family)
        except KernelError as error:
            self.socket.close()
            raise FeatureError(
                f"the kernel has no generic netlink family {family!r}",
                remedy="use a kernel that has it (`testbed doctor` lists what is missing)",
            ) from error

    def _resolve(self, family: str) -> None:
        question = attribute(_FAMILY_NAME, family)
        (answer,) = self._exchange(_CONTROLLER, _GETFAMILY, question, 0)
        found = attributes(answer.attributes)
        self.family = struct.unpack("=H", found[_FAMILY_ID])[0]
        for group in attributes(found.get(_MCAST_GROUPS, b"")).values():
            fields = attributes(group)
            name = fields[_GROUP_NAME].rstrip(b"\0").decode()
            self._groups[name] = struct.unpack("=I", fields[_GROUP_ID])[0]

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def subscribe(self, group: str) -> None:
        """Join a multicast group of the family; its messages come from `received`."""
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, self._groups[group])

    def received(self) -> list[Reply]:
        """Messages of one datagram that waits on the socket (blocks unless it is non-blocking)."""
        return [
            Reply(body[0], body[4:])
            for kind, _flags, _sequence, body in _split(self.socket.recv(1 << 16))
            if kind == self.family
        ]

    def request(self, command: int, payload: bytes = b"", *, flags: int = 0) -> list[Reply]:
        """Send one command and return what it answers; `KernelError` carries the kernel's text."""
        return self._exchange(self.family, command, payload, flags)

    def _exchange(self, family: int, command: int, payload: bytes, flags: int) -> list[Reply]:
        self._sequence += 1
        body = struct.pack("=BBH", command, 1, 0) + payload
        flags |= NLM_F_REQUEST | NLM_F_ACK
        self.socket.send(_HEADER.pack(16 + len(body), family, flags, self._sequence, 0) + body)
        replies: list[Reply] = []
        while True:
            for kind, message_flags, sequence, content in _split(self.socket.recv(1 << 17)):
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_ERROR:
                    _raise_if_refused(content, message_flags)
                    return replies
                if kind == _NLMSG_DONE:
                    return replies
                replies.append(Reply(content[0], content[4:]))


def _raise_if_refused(content: bytes, flags: int) -> None:
    number = -struct.unpack_from("=i", content)[0]
    if number == 0:
        return
    text = os.strerror(number)
    if flags & _NLM_F_ACK_TLVS:
        request_length = struct.unpack_from("=I", content, 4)[0]
        skip = 20 if flags & _NLM_F_CAPPED else 4 + request_length
        explanation = attributes(content[skip:]).get(1, b"").rstrip(b"\0").decode()
        text = f"{text} ({explanation})" if explanation else text
    raise KernelError(number, text)


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3
