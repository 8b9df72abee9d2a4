"""Many frames of a packet socket by one system call (recvmmsg), for short busy times.

The interpreter's lock stays held meanwhile: the call never blocks, and a thread that gives the
lock up for every frame waits for the others as often.

Layouts: struct mmsghdr of bits/socket.h, struct sockaddr_ll of linux/if_packet.h, on a 64-bit
machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import NamedTuple

_CAPACITY = 64
_ADDRESS_BYTES = 20  # sockaddr_ll
_HEADER = struct.Struct("=QIxxxxQQQQIxxxxIxxxx")  # struct mmsghdr
_VECTOR = struct.Struct("=QQ")  # struct iovec
_length = struct.Struct("=56xI4x").iter_unpack
_address = struct.Struct("=4xi2xB9x").iter_unpack

_libc = ctypes.PyDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p
)  # fmt: skip


class Frame(NamedTuple):
    """A frame's first bytes, the index of its interface, and its kind (`PACKET_OUTGOING`, ...)."""

    data: bytes
    interface: int
    kind: int


class PacketReader:
    """Reads a packet socket, up to `longest` bytes of each frame."""

    def __init__(self, sock: socket.socket, longest: int) -> None:
        self._fd, self._longest = sock.fileno(), longest
        self._data = bytearray(_CAPACITY * longest)
        self._addresses = bytearray(_CAPACITY * _ADDRESS_BYTES)
        self._vectors = bytearray(_CAPACITY * _VECTOR.size)
        self._headers = bytearray(_CAPACITY * _HEADER.size)
        data, addresses, vectors = map(_at, (self._data, self._addresses, self._vectors))
        for number in range(_CAPACITY):
            vector = number * _VECTOR.size
            _VECTOR.pack_into(self._vectors, vector, data + number * longest, longest)
            address = addresses + number * _ADDRESS_BYTES
            fields = (address, _ADDRESS_BYTES, vectors + vector, 1, 0, 0, 0, 0)
            _HEADER.pack_into(self._headers, number * _HEADER.size, *fields)
        self._headers_at = _at(self._headers)

    def read(self) -> list[Frame]:
        """Some of the frames that wait, none if none do; `OSError` as recv(2) has it."""
        count = _recvmmsg(self._fd, self._headers_at, _CAPACITY, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(number, os.strerror(number))
        data, step = self._data, self._longest
        lengths = _length(memoryview(self._headers)[: count * _HEADER.size])
        addresses = _address(memoryview(self._addresses)[: count * _ADDRESS_BYTES])
        return [
            Frame(bytes(data[start : start + length]), interface, kind)
            for start, (length,), (interface, kind) in zip(
                range(0, count * step, step), lengths, addresses, strict=True
            )
        ]


def _at(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
