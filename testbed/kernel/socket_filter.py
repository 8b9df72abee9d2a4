"""Classic BPF on packet sockets: assemble a program, attach it, and only then let packets in.

A socket that reads frames costs an interpreter's time for each; a filter runs in the kernel,
compiled, and works for an ordinary user in a user namespace too, where eBPF does not.

Layouts: linux/filter.h, linux/if_packet.h; the instructions: McCanne and Jacobson, "The BSD
Packet Filter" (1993).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from contextlib import nullcontext

from testbed.errors import KernelError, TestbedError
from testbed.kernel.namespaces import NetworkNamespace

ETH_P_ALL = 3
PACKET_OUTGOING = 4

# Loads at these "addresses" give what the kernel knows of a packet (linux/filter.h).
PACKET_KIND = 0xFFFFF000 + 4
MARK = 0xFFFFF000 + 20

_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_SOL_PACKET, _STATISTICS = 263, 6
_INSTRUCTION = struct.Struct("=HBBI")
_ADDRESS = struct.Struct("=HHiHBB8s")  # sockaddr_ll
_LONGEST = 4096  # BPF_MAXINSNS

_CODES = {
    "ld": 0x20, "ldh": 0x28, "ldb": 0x30,        # A from a fixed place
    "ldh_x": 0x48, "ldb_x": 0x50,                # A from a place counted from X
    "ldx": 0x01, "ldx_header": 0xB1,             # X from a number; from an IPv4 header's length
    "ld_scratch": 0x60, "st_scratch": 0x02,
    "add": 0x04, "and": 0x54, "rsh": 0x74, "add_x": 0x0C,
    "tax": 0x07, "txa": 0x87, "ret": 0x06,
    "ja": 0x05, "jeq": 0x15, "jgt": 0x25, "jge": 0x35, "jset": 0x45, "jgt_x": 0x2D,
}  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


class Program:
    """Instructions in order; jumps name labels, which lie further on."""

    def __init__(self) -> None:
        self._code: list[tuple[str, int, str, str]] = []
        self._labels: dict[str, int] = {}

    def add(self, name: str, value: int = 0) -> Program:
        """Append an instruction that is no jump."""
        self._code.append((name, value, "", ""))
        return self

    def jump(self, name: str, value: int = 0, *, yes: str = "", no: str = "") -> Program:
        """Append a jump; an empty label is the next instruction."""
        self._code.append((name, value, yes, no))
        return self

    def label(self, name: str) -> Program:
        """Name the next instruction."""
        self._labels[name] = len(self._code)
        return self

    def __len__(self) -> int:
        return len(self._code)

    def assemble(self) -> bytes:
        """The program as the kernel reads it; `TestbedError` where a jump or all is too long."""
        if len(self._code) > _LONGEST:
            raise TestbedError(f"a packet filter of {len(self._code)} instructions, not {_LONGEST}")
        return b"".join(map(self._instruction, range(len(self._code))))

    def _instruction(self, place: int) -> bytes:
        name, value, yes, no = self._code[place]
        if name == "ja":
            return _INSTRUCTION.pack(_CODES[name], 0, 0, self._distance(place, yes))
        distances = [self._distance(place, label) for label in (yes, no)]
        if not all(0 <= distance <= 255 for distance in distances):
            raise TestbedError(f"a packet filter's jump at {place} by {distances}, not 0 to 255")
        return _INSTRUCTION.pack(_CODES[name], *distances, value)

    def _distance(self, place: int, label: str) -> int:
        return self._labels[label] - place - 1 if label else 0


def attach(sock: socket.socket, program: Program) -> None:
    """Put a program in front of a socket, in the place of the one it had."""
    code = program.assemble()
    memory = ctypes.create_string_buffer(code, len(code))
    length = len(code) // _INSTRUCTION.size
    descriptor = struct.pack("@HP", length, ctypes.addressof(memory))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, descriptor)
    except OSError as error:
        number = error.errno or 0
        reason = f"a packet filter of {length} instructions: {os.strerror(number)}"
        raise KernelError(number, reason) from error


def packet_socket(
    namespace: NetworkNamespace | None, program: Program, *, buffer_bytes: int
) -> socket.socket:
    """A non-blocking socket for frames of all interfaces of a namespace that pass `program`.

    Nothing arrives before the filter is in force.  Raises `KernelError` or `OSError`.
    """
    with namespace or nullcontext():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        attach(sock, program)
        _enlarge(sock, buffer_bytes)
        sock.setblocking(False)
        _listen(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _enlarge(sock: socket.socket, buffer_bytes: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
    except PermissionError:  # an ordinary user gets what the machine allows everybody
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)


def _listen(sock: socket.socket) -> None:
    """Bind to every protocol and every interface, which Python's own `bind` cannot express."""
    protocol = socket.htons(ETH_P_ALL)
    address = _ADDRESS.pack(socket.AF_PACKET, protocol, 0, 0, 0, 0, b"")
    if _libc.bind(sock.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise KernelError(number, f"bind a packet socket: {os.strerror(number)}")


def statistics(sock: socket.socket) -> tuple[int, int]:
    """Frames that passed a packet socket's filter, and those dropped of them for want of room.

    Both since the last call.
    """
    passed, dropped = struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _STATISTICS, 8))
    return passed, dropped
