"""What a capture file holds: its TCP segments, one by one.

Reads the files tcpdump writes (pcap, microseconds or nanoseconds, Ethernet).  What the segments'
bytes mean to Multipath TCP is `streams`' business.

Format: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-03.html
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from testbed.errors import ExperimentError
from testbed.mptcp.counters import Address

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_ETHERNET = 1
_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6
_MAGIC = {0xA1B2C3D4: 1e-6, 0xA1B23C4D: 1e-9}


class Flow(NamedTuple):
    """One direction of one subflow: who sends, who receives."""

    source: Address
    destination: Address

    @property
    def reverse(self) -> Flow:
        """The other direction."""
        return Flow(self.destination, self.source)


class Segment(NamedTuple):
    """One TCP segment as it was captured; `options` and `payload` are its own bytes."""

    time_s: float
    flow: Flow
    sequence: int
    flags: int
    options: bytes
    payload: bytes


def read(path: Path) -> Iterator[Segment]:
    """TCP segments of a capture, in its order; a record cut off at the end is left out.

    Raises `ExperimentError` where the file is no such capture.
    """
    with open(path, "rb") as file:
        order, tick = _header(file, path)
        record = struct.Struct(f"{order}IIII")
        while len(head := file.read(record.size)) == record.size:
            seconds, fraction, captured, _length = record.unpack(head)
            frame = file.read(captured)
            if len(frame) < captured:
                return
            if segment := decode(frame, seconds + fraction * tick):
                yield segment


def _header(file: BinaryIO, path: Path) -> tuple[str, float]:
    head = file.read(24)
    for order in "<>":
        if len(head) == 24:
            magic, *_rest, link_type = struct.unpack(f"{order}IHHiIII", head)
            if magic in _MAGIC and link_type == _ETHERNET:
                return order, _MAGIC[magic]
    raise ExperimentError(f"{path.name} is not a pcap file of Ethernet frames")


def decode(frame: bytes, time_s: float) -> Segment | None:
    """The TCP segment in an Ethernet frame; None when it carries something else."""
    if len(frame) < 34:
        return None
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _IPV4:
        return _ipv4(frame, time_s)
    return _ipv6(frame, time_s) if kind == _IPV6 else None


def _ipv4(frame: bytes, time_s: float) -> Segment | None:
    fragment = int.from_bytes(frame[20:22], "big") & 0x3FFF
    if frame[23] != _TCP or fragment:
        return None
    start = 14 + (frame[14] & 0x0F) * 4
    end = 14 + int.from_bytes(frame[16:18], "big")
    source, destination = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
    return _tcp(frame[start:end], source, destination, time_s)


def _ipv6(frame: bytes, time_s: float) -> Segment | None:
    if len(frame) < 54 or frame[20] != _TCP:
        return None
    end = 54 + int.from_bytes(frame[18:20], "big")
    source, destination = (socket.inet_ntop(socket.AF_INET6, frame[a : a + 16]) for a in (22, 38))
    return _tcp(frame[54:end], source, destination, time_s)


def _tcp(data: bytes, source: str, destination: str, time_s: float) -> Segment | None:
    if len(data) < 20:
        return None
    from_port, to_port, sequence = struct.unpack_from("!HHI", data)
    body = (data[12] >> 4) * 4
    return Segment(
        time_s,
        Flow(Address(source, from_port), Address(destination, to_port)),
        sequence,
        data[13],
        data[20:body],
        data[body:],
    )
