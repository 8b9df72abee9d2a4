"""Frames of a namespace's interfaces through a ring of memory shared with the kernel.

`PacketRing` receives (AF_PACKET with TPACKET_V2): every frame with the time the kernel saw it,
without a system call per frame.  `FrameSender` sends on one interface, past its queueing
discipline; for many at once there is `packet_batch`.  None needs a TAP, so all work as an
ordinary user in a user namespace.

Layouts: linux/if_packet.h.
"""

from __future__ import annotations

import mmap
import socket
import struct
import time

_SOL_PACKET = 263
_RX_RING, _STATISTICS, _COPY_THRESHOLD = 5, 6, 7
_VERSION, _QDISC_BYPASS, _IGNORE_OUTGOING = 10, 20, 23
_TPACKET_V2 = 1
_ETH_P_ALL = 3

_USER, _COPY, _VLAN, _VLAN_TPID = 1, 2, 1 << 4, 1 << 6
_UNUSUAL = _COPY | _VLAN
_KERNEL = 0

_BLOCK_BYTES = 1 << 16
_LONGEST = 1 << 17
_CLOCK_EVERY_S = 0.01

# status, tp_len, tp_snaplen, tp_mac, tp_sec, tp_nsec, sll_ifindex
_unpack = struct.Struct("=IIIH2xII12xi").unpack_from
_VLAN_AT = 24  # tp_vlan_tci, tp_vlan_tpid
_vlan = struct.Struct("=HH").unpack_from


Arrival = tuple[float, bytes]
"""A received frame: when it arrived (CLOCK_MONOTONIC, s), its bytes."""


class PacketRing:
    """Every frame that arrives on any interface of the namespace its creator is in.

    `slots` frames of up to `slot_bytes` wait in the ring while nobody reads; longer frames are
    received whole as well, at the price of a system call.  `fileno()` polls readable while
    frames wait.
    """

    def __init__(self, *, slots: int = 8192, slot_bytes: int = 2048) -> None:
        protocol = socket.htons(_ETH_P_ALL)  # unbound, so on all interfaces, also future ones
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
        self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self._socket.setsockopt(_SOL_PACKET, _COPY_THRESHOLD, slot_bytes)
        blocks = slots * slot_bytes // _BLOCK_BYTES
        request = struct.pack("=IIII", _BLOCK_BYTES, blocks, slot_bytes, slots)
        self._socket.setsockopt(_SOL_PACKET, _RX_RING, request)
        self._memory = mmap.mmap(self._socket.fileno(), slots * slot_bytes)
        self._words = memoryview(self._memory).cast("I")
        self._slot_bytes = slot_bytes
        self._size = slots * slot_bytes
        self._next = 0
        self._dropped = 0
        self.truncated = 0
        self._epoch = 0
        self._to_monotonic = 0.0
        self._clock_at = float("-inf")
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def read(self, limit: int) -> dict[int, list[Arrival]]:
        """Up to `limit` frames by the interface they came in on, each list in order of arrival.

        The hot path of the fabric: local names and one `struct` call a frame are on purpose.
        """
        if time.monotonic() - self._clock_at > _CLOCK_EVERY_S:
            self._synchronise()
        memory, words, step, size = self._memory, self._words, self._slot_bytes, self._size
        offset = self._next
        second, base = 0, 0.0
        frames: dict[int, list[Arrival]] = {}
        of_port = frames.get
        for _ in range(limit):
            status, length, captured, mac, sec, nsec, index = _unpack(memory, offset)
            if not status & _USER:
                break
            start = offset + mac
            data = memory[start : start + captured]
            if status & _UNUSUAL or length != captured:
                data = self._whole(status, length, _vlan(memory, offset + _VLAN_AT), data)
            if sec != second:
                second, base = sec, sec - self._epoch + self._to_monotonic
            arrivals = of_port(index)
            if arrivals is None:
                frames[index] = arrivals = []
            arrivals.append((base + nsec * 1e-9, data))
            words[offset >> 2] = _KERNEL
            offset += step
            if offset == size:
                offset = 0
        self._next = offset
        return frames

    def _whole(self, status: int, length: int, vlan: tuple[int, int], data: bytes) -> bytes:
        """A frame longer than its slot, or one whose VLAN tag the kernel took off, as sent."""
        if status & _COPY:
            data = self._socket.recv(_LONGEST)
        elif length != len(data):
            self.truncated += 1
        if status & _VLAN:
            tci, tpid = vlan
            tag = struct.pack("!HH", tpid if status & _VLAN_TPID else 0x8100, tci)
            data = data[:12] + tag + data[12:]
        return data

    def _synchronise(self) -> None:
        """The kernel stamps frames with CLOCK_REALTIME, which may be stepped: follow it."""
        samples = []
        for _ in range(3):
            before = time.monotonic()
            real_ns = time.time_ns()
            after = time.monotonic()
            samples.append((after - before, (before + after) / 2, real_ns))
        _width, middle, real_ns = min(samples)
        # Seconds since 1970 leave a float no digits for nanoseconds: count from a nearby epoch.
        self._epoch = real_ns // 1_000_000_000
        self._to_monotonic = middle - (real_ns - self._epoch * 1_000_000_000) * 1e-9
        self._clock_at = middle

    @property
    def dropped(self) -> int:
        """Frames that found the ring full, since it was made."""
        data = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        self._dropped += struct.unpack("=II", data)[1]  # the kernel resets it on reading
        return self._dropped

    def close(self) -> None:
        """Give the ring back."""
        self._words.release()
        self._memory.close()
        self._socket.close()


class FrameSender:
    """Sends whole frames on one interface of the namespace its creator is in.

    `send(frame)` raises `OSError` where the interface is down or gone, or its receiver has no
    room.
    """

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        self._socket.setblocking(False)
        self._socket.bind((interface, 0))
        self.send = self._socket.send

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
