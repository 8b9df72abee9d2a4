"""Synthetic captures: what a connection's bytes look like on the paths it uses."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from testbed.mptcp.counters import Address
from testbed.mptcp.options import Dss, MpCapable, MpJoinSyn
from usecases.trusted_pooling.capture import ACK, SYN, Flow, Segment

PHONE, SERVER = Address("10.1.0.2", 40000), Address("10.9.0.2", 80)
UP = Flow(PHONE, SERVER)
CLIENT_KEY, SERVER_KEY = 0x1111222233334444, 0x5555666677778888


def padded(option: bytes) -> bytes:
    """TCP options as they stand in a header."""
    return option + b"\x01" * (-len(option) % 4)


def syn(flow: Flow = UP, sequence: int = 1000, *, token: int | None = None) -> Segment:
    """The SYN of a connection, or of a join to connection `token`."""
    option = MpCapable().build() if token is None else MpJoinSyn(token=token, nonce=7).build()
    return Segment(0.0, flow, sequence, SYN, padded(option), b"")


def third_ack(flow: Flow = UP, sequence: int = 1001) -> Segment:
    """The ACK that carries both keys."""
    option = MpCapable(sender_key=CLIENT_KEY, receiver_key=SERVER_KEY).build()
    return Segment(0.0, flow, sequence, ACK, padded(option), b"")


def data(
    payload: bytes, ssn: int, *, mapping: Dss | MpCapable | None = None, flow: Flow = UP,
    initial: int = 1000, time_s: float = 0.0,
) -> Segment:  # fmt: skip
    """A data segment: `ssn` counts from the SYN at `initial`."""
    options = padded(mapping.build()) if mapping else b""
    return Segment(time_s, flow, (initial + ssn) % (1 << 32), ACK, options, payload)


def dss(dsn: int, ssn: int, length: int, *, wide: bool = True, fin: bool = False) -> Dss:
    """A mapping."""
    sent = dsn if wide else dsn % (1 << 32)
    return Dss(dsn=sent, wide_dsn=wide, ssn=ssn, length=length, data_fin=fin)


def write_pcap(path: Path, frames: list[bytes], *, order: str = "<", nano: bool = False) -> None:
    """A capture file of Ethernet frames, a second between each."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, 1)
    for number, frame in enumerate(frames):
        out += struct.pack(f"{order}IIII", number, 500, len(frame), len(frame)) + frame
    path.write_bytes(out)


def frame(segment: Segment, *, six: bool = False, padding: int = 0) -> bytes:
    """A segment as an Ethernet frame; `padding` bytes follow the packet."""
    tcp = struct.pack(
        "!HHIIBBHHH", segment.flow.source.port, segment.flow.destination.port, segment.sequence,
        0, (5 + len(segment.options) // 4) << 4, segment.flags, 0, 0, 0,
    )  # fmt: skip
    tcp += segment.options + segment.payload
    if six:
        addresses = socket.inet_pton(socket.AF_INET6, "fd01::2") * 2
        packet = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + addresses
    else:
        ends = (segment.flow.source.ip, segment.flow.destination.ip)
        packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0)
        packet += b"".join(map(socket.inet_aton, ends))
    kind = b"\x86\xdd" if six else b"\x08\x00"
    return b"\x02" * 12 + kind + packet + tcp + bytes(padding)
