"""Many frames for many interfaces of a namespace by one system call (AF_PACKET, sendmmsg).

The kernel's message headers lie in memory that is filled in place: per frame three words are
written and nothing is copied but by the kernel itself.

Layouts: struct mmsghdr of bits/socket.h, struct sockaddr_ll of linux/if_packet.h, on a 64-bit
machine.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence

from testbed.errors import FeatureError

CAPACITY = 64
"""Most frames in one batch: some 100 microseconds of the kernel's time."""

_SOL_PACKET, _QDISC_BYPASS = 263, 20
_ADDRESS = struct.Struct("=HHiHBB8s")  # sockaddr_ll
_HEADER_WORDS, _VECTOR_WORDS, _WORD = 8, 2, 8  # struct mmsghdr, struct iovec
_HEADER = struct.Struct("=QIxxxxQQQQIxxxxIxxxx")

_libc = ctypes.CDLL(None, use_errno=True)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


def _data_offset() -> int:
    """Where a bytes object's data begins, counted from its id; checked, as CPython may change."""
    offset, sample = bytes.__basicsize__ - 1, os.urandom(64)
    if ctypes.sizeof(ctypes.c_void_p) != _WORD or (
        ctypes.string_at(id(sample) + offset, len(sample)) != sample
    ):
        raise FeatureError(
            "this Python keeps bytes in another way than 64-bit CPython",
            remedy="run the testbed on CPython 3.11 or later, 64 bit",
        )
    return offset


class FrameBatch:
    """Sends whole frames on the interfaces of the namespace its creator is in.

    They go past the interfaces' queueing disciplines.  `address(interface index)` gives the
    number by which `send` knows an interface.
    """

    def __init__(self) -> None:
        self._offset = _data_offset()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        self._fd = self._socket.fileno()
        headers = bytearray(CAPACITY * _HEADER.size)
        vectors = bytearray(CAPACITY * _VECTOR_WORDS * _WORD)
        self._headers_at, first_vector = _at(headers), _at(vectors)
        for number in range(CAPACITY):
            vector = first_vector + number * _VECTOR_WORDS * _WORD
            fields = (0, _ADDRESS.size, vector, 1, 0, 0, 0, 0)
            _HEADER.pack_into(headers, number * _HEADER.size, *fields)
        self._headers = memoryview(headers).cast("Q")
        self._vectors = memoryview(vectors).cast("Q")
        self._addresses: dict[int, tuple[int, bytearray]] = {}

    def address(self, index: int) -> int:
        """The number by which `send` knows the interface with this index."""
        if index not in self._addresses:
            data = bytearray(_ADDRESS.pack(socket.AF_PACKET, 0, index, 0, 0, 0, b""))
            self._addresses[index] = _at(data), data
        return self._addresses[index][0]

    def send(self, runs: Sequence[tuple[int, Sequence[bytes]]]) -> list[tuple[int, int]]:
        """Send frames, at most `CAPACITY` in all: (address, its frames) for each interface.

        Returns (position among all, errno) for each that the kernel refused: the interface is
        down or gone, or its receiver has no room.
        """
        return self.flush(self.fill(runs))

    def fill(self, runs: Sequence[tuple[int, Sequence[bytes]]]) -> int:
        """Fill in the frames that `flush` sends; the caller keeps them.  Returns how many."""
        headers, vectors, offset = self._headers, self._vectors, self._offset
        header = vector = 0
        for address, frames in runs:
            for frame in frames:
                headers[header] = address
                vectors[vector] = id(frame) + offset
                vectors[vector + 1] = len(frame)
                header += 8
                vector += 2
        return header // _HEADER_WORDS

    def flush(self, total: int) -> list[tuple[int, int]]:
        """Send the first `total` frames of those filled in; returns what was refused."""
        sent = _sendmmsg(self._fd, self._headers_at, total, socket.MSG_DONTWAIT)
        return [] if sent == total else self._go_on(sent, total)

    def _go_on(self, sent: int, total: int) -> list[tuple[int, int]]:
        """The kernel stopped before a frame: ask for that one's error, and send what follows."""
        refused = []
        done = max(0, sent)
        while done < total:
            at = self._headers_at + done * _HEADER.size
            sent = _sendmmsg(self._fd, at, total - done, socket.MSG_DONTWAIT)
            if sent < 0:
                refused.append((done, ctypes.get_errno()))
                sent = 1
            done += sent
        return refused

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _at(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
