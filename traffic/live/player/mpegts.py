"""MPEG transport streams (ISO/IEC 13818-1): a segment's bytes to coded pictures; no I/O.

One programme with one H.264 stream, as HTTP Live Streaming carries it (RFC 8216 3.2): the
programme tables say which packets are the video's, each PES packet holds one access unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed.errors import ExperimentError

PACKET = 188
_SYNC = 0x47
_PAT = 0
_H264 = 0x1B
_CLOCK_HZ = 90_000
_IDR, _PARAMETERS = 5, 7


class TransportError(ExperimentError):
    """Bytes that are no transport stream, or one in which packets are missing."""


@dataclass(frozen=True)
class AccessUnit:
    """One coded picture: when it is shown (s of media time), and its bytes (Annex B)."""

    time_s: float
    data: bytes = field(repr=False)

    @property
    def key(self) -> bool:
        """Can decoding begin here (an IDR picture with its parameter sets)?"""
        kinds = set(_unit_kinds(self.data))
        return _IDR in kinds and _PARAMETERS in kinds


def access_units(segment: bytes) -> list[AccessUnit]:
    """The coded pictures of a segment, in the order of decoding; raises `TransportError`."""
    try:
        return [_access_unit(pes) for pes in _elementary_packets(segment)]
    except IndexError as error:
        raise TransportError("a table or a packet is cut short") from error


def _elementary_packets(segment: bytes) -> Iterator[bytearray]:
    """The PES packets of the video."""
    if not segment or len(segment) % PACKET:
        raise TransportError(f"{len(segment)} bytes are no whole number of transport packets")
    video: int | None = None
    tables = -1
    pes = bytearray()
    counter = -1
    for at in range(0, len(segment), PACKET):
        if segment[at] != _SYNC:
            raise TransportError(f"no sync byte at {at}")
        flags, control = segment[at + 1], segment[at + 3]
        pid = (flags & 0x1F) << 8 | segment[at + 2]
        if not control & 0x10:
            continue  # an adaptation field only
        start = at + 4 + (segment[at + 4] + 1 if control & 0x20 else 0)
        if pid == video:
            if counter >= 0 and control & 15 != (counter + 1) & 15:
                raise TransportError(f"packets of the video are missing before byte {at}")
            counter = control & 15
            if flags & 0x40 and pes:
                yield pes
                pes = bytearray()
            pes += segment[start : at + PACKET]
        elif pid == _PAT:
            tables = _programme_map_pid(_section(segment, start))
        elif pid == tables:
            video = _video_pid(_section(segment, start))
    if pes:
        yield pes


def _section(segment: bytes, start: int) -> bytes:
    """The table that begins in this packet, without its head and its checksum."""
    begin = start + 1 + segment[start]  # pointer_field
    length = (segment[begin + 1] & 0x0F) << 8 | segment[begin + 2]
    return segment[begin + 8 : begin + 3 + length - 4]


def _programme_map_pid(table: bytes) -> int:
    for at in range(0, len(table), 4):
        if table[at] << 8 | table[at + 1]:  # 0: the network's table
            return (table[at + 2] & 0x1F) << 8 | table[at + 3]
    raise TransportError("no programme in the stream")


def _video_pid(table: bytes) -> int:
    at = 4 + ((table[2] & 0x0F) << 8 | table[3])
    while at + 5 <= len(table):
        if table[at] == _H264:
            return (table[at + 1] & 0x1F) << 8 | table[at + 2]
        at += 5 + ((table[at + 3] & 0x0F) << 8 | table[at + 4])
    raise TransportError("no H.264 in the programme")


def _access_unit(pes: bytearray) -> AccessUnit:
    if pes[:3] != b"\0\0\1" or len(pes) < 14 or not pes[7] & 0x80:
        raise TransportError("a PES packet without a presentation time")
    a, b, c, d, e = pes[9:14]
    stamp = (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
    return AccessUnit(stamp / _CLOCK_HZ, bytes(pes[9 + pes[8] :]))


def _unit_kinds(data: bytes) -> Iterator[int]:
    """Types of the NAL units (H.264 7.3.1), up to the first slice."""
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        kind = data[at + 3] & 31
        yield kind
        if kind in (1, _IDR):
            return
        at = data.find(b"\0\0\1", at + 3)
