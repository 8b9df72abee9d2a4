"""nfnetlink in bulk: many requests to a datagram, and which of them the kernel refused.

One `NfNetlink` is one socket in one namespace.  `each` sends requests that stand for themselves
(connection tracking), `transaction` some that are carried out together or not at all (nf_tables),
`dump` asks for everything.  What messages hold belongs to the modules above.

Layouts: linux/netlink.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from testbed.errors import KernelError
from testbed.kernel.namespaces import NetworkNamespace
from testbed.kernel.rtnetlink import NLM_F_ACK, NLM_F_REQUEST, attribute

NLM_F_DUMP = 0x300
SUBSYSTEM_CONNTRACK, SUBSYSTEM_NFTABLES = 1, 10
HEADER = struct.Struct("=IHHII")
GENERIC = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource

_PROTOCOL, _SOL_NETLINK = 12, 270
_ADD_MEMBERSHIP, _CAP_ACK = 1, 10
_ERROR, _DONE = 2, 3
_INTERRUPTED, _END = 0x10, 20  # flag of messages, bytes of the one that ends a dump
_BATCH_BEGIN, _BATCH_END = 16, 17
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_BYTES = 8 << 20
_DATAGRAM = 1 << 16  # the kernel fills at most 32 KiB of a dump's datagram
_MESSAGES = 256  # to a datagram: each refused one is answered into our buffer
_DUMPS = 5  # attempts at one that no change interrupts


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | 0x8000, b"".join(parts))


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A request with its header; `body` begins with nfgenmsg and is aligned."""
    return HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | flags, sequence, 0) + body


class NfNetlink:
    """An nfnetlink socket in `namespace` (the calling thread's, where none is given)."""

    def __init__(self, namespace: NetworkNamespace | None = None) -> None:
        with namespace or nullcontext():
            self.socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _PROTOCOL
            )
        self.socket.bind((0, 0))
        self.socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        for force, plain in (
            (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
            (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        ):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, force, _BUFFER_BYTES)
            except PermissionError:  # an ordinary user's sandbox
                self.socket.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def subscribe(self, *groups: int) -> None:
        """Join multicast groups; use a socket of its own for this, and read it by `received`."""
        for group in groups:
            self.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def received(self) -> list[tuple[int, int, bytes]]:
        """Types, flags and bodies in one datagram; `KernelError` (ENOBUFS) when some were lost."""
        try:
            data = self.socket.recv(_DATAGRAM)
        except BlockingIOError:
            return []
        except OSError as error:
            raise KernelError(error.errno or 0, f"netfilter events: {error.strerror}") from error
        return [(kind, flags, body) for kind, flags, _sequence, body in _split(data)]

    # -- asking -----------------------------------------------------------------------------

    def dump(self, kind: int, body: bytes, *, purpose: str) -> list[bytes]:
        """Datagrams of the answer to a dump request, complete and of one moment's table."""
        for _attempt in range(_DUMPS):
            datagrams, whole = self._dump(kind, body, purpose)
            if whole:
                return datagrams
        raise KernelError(errno.EAGAIN, f"{purpose}: it changes faster than it can be read")

    def _dump(self, kind: int, body: bytes, purpose: str) -> tuple[list[bytes], bool]:
        self.socket.send(message(kind, NLM_F_DUMP, 1, body))
        datagrams: list[bytes] = []
        whole = True
        while True:
            data = self.socket.recv(_DATAGRAM)
            _length, answer, flags, _sequence, _port = HEADER.unpack_from(data)
            whole = whole and not flags & _INTERRUPTED
            if answer == _ERROR:
                raise _refusal(data[16:], purpose)
            # the end stands alone, or last in a datagram that had room for it
            length, last, flags, _sequence, _port = HEADER.unpack_from(data, len(data) - _END)
            if (length, last) == (_END, _DONE):
                whole = whole and not flags & _INTERRUPTED
                rest = data[:-_END]
                return [*datagrams, rest] if rest else datagrams, whole
            datagrams.append(data)

    # -- telling ----------------------------------------------------------------------------

    def each(self, messages: Sequence[bytes | memoryview]) -> dict[int, int]:
        """Send requests; errno of those refused by their places in `messages`.

        Headers are the caller's: the sequence number is the place counted from 1, and none asks
        for an acknowledgement.
        """
        refused: dict[int, int] = {}
        for start in range(0, len(messages), _MESSAGES):
            some = messages[start : start + _MESSAGES]
            # the end of a datagram is told by an acknowledgement of its last request
            closing = bytearray(some[-1])
            struct.pack_into("=H", closing, 6, struct.unpack_from("=H", closing, 6)[0] | NLM_F_ACK)
            self.socket.send(b"".join((*some[:-1], closing)))
            for sequence, number in self._refused(last=start + len(some)):
                refused[sequence - 1] = number
        return refused

    def transaction(self, requests: Sequence[tuple[int, int, bytes, str]]) -> None:
        """Carry out nf_tables requests (type, flags, body, purpose), all or none.

        Raises `KernelError` that names the purpose of the first one refused.
        """
        if not requests:
            return
        edge = GENERIC.pack(socket.AF_UNSPEC, 0, socket.htons(SUBSYSTEM_NFTABLES))
        parts = [message(_BATCH_BEGIN, 0, 0, edge)]
        last = len(requests)
        for sequence, (kind, flags, body, _purpose) in enumerate(requests, 1):
            flags |= NLM_F_ACK if sequence == last else 0
            parts.append(message(SUBSYSTEM_NFTABLES << 8 | kind, flags, sequence, body))
        parts.append(message(_BATCH_END, 0, last + 1, edge))
        self.socket.send(b"".join(parts))
        refused = self._refused(last=last)
        if refused:
            sequence, number = refused[0]
            purpose = requests[sequence - 1][3] if sequence else "commit"
            raise KernelError(number, f"nf_tables: {purpose}: {os.strerror(number)}")

    def _refused(self, *, last: int) -> list[tuple[int, int]]:
        """Sequence numbers and errno of refused requests, up to the answer to `last`.

        0 is the start of a transaction, which is answered alone when the whole of it failed.
        """
        refused: list[tuple[int, int]] = []
        while True:
            for kind, _flags, sequence, body in _split(self.socket.recv(_DATAGRAM)):
                if kind != _ERROR:
                    continue
                number = -struct.unpack_from("=i", body)[0]
                if number:
                    refused.append((sequence, number))
                if sequence == last or (number and sequence == 0):
                    return refused


def _refusal(body: bytes, purpose: str) -> KernelError:
    number = -struct.unpack_from("=i", body)[0]
    return KernelError(number, f"{purpose}: {os.strerror(number)}")


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, flags, sequence, _port = HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3
