"""A netlink socket that asks one prepared question again and again.

The socket belongs to the namespace its maker was in and is kept; answers are read into a buffer
that is used again, and handed on message by message without being copied.

Layout: linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator

from testbed.errors import KernelError

NETLINK_SOCK_DIAG = 4
_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER_BYTES = 1 << 16  # the kernel fills at most 32 KiB of a dump's datagram
_NOT_NESTED = 0x3FFF

Take = Callable[[bytearray, int, int], None]
"""Called with the buffer and where a message's body begins and ends in it."""


class Question:
    """A dump request of type `kind` of a netlink `protocol`, ready to be asked."""

    def __init__(self, protocol: int, kind: int, payload: bytes) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._request = _HEADER.pack(16 + len(payload), kind, _REQUEST_DUMP, 1, 0) + payload
        self._buffer = bytearray(_BUFFER_BYTES)

    def ask(self, take: Take) -> None:
        """Ask, and call `take` for every message of the answer; `KernelError` if refused."""
        self._socket.send(self._request)
        while not walk(self._buffer, self._socket.recv_into(self._buffer), take):
            pass

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def walk(buffer: bytearray, size: int, take: Take) -> bool:
    """Call `take` for every message of a datagram; True when it ends the dump."""
    offset = 0
    while offset < size:
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(buffer, offset)
        if kind == _NLMSG_DONE:
            return True
        if kind == _NLMSG_ERROR:
            number = -struct.unpack_from("=i", buffer, offset + 16)[0]
            raise KernelError(number, f"netlink dump: {os.strerror(number)}")
        take(buffer, offset + 16, offset + length)
        offset += (length + 3) & ~3
    return False


def attribute_places(
    buffer: bytearray | bytes, start: int, end: int
) -> Iterator[tuple[int, int, int]]:
    """Attributes between `start` and `end`: type, where the value begins, where it ends."""
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(buffer, start)
        if length < 4:
            return
        yield kind & _NOT_NESTED, start + 4, min(start + length, end)
        start += (length + 3) & ~3


def find(buffer: bytearray | bytes, start: int, end: int, wanted: int) -> tuple[int, int] | None:
    """Where the value of the first attribute of type `wanted` begins and ends."""
    for kind, first, last in attribute_places(buffer, start, end):
        if kind == wanted:
            return first, last
    return None
