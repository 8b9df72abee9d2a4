"""TCP segments as an on-path box sees and forges them: parse and build, IPv4 and IPv6.

The wire format and nothing else: no sockets, no state of a connection.  MPTCP options are those of
`testbed.mptcp.options`; the Ethernet header of what is built is whoever's who sends it.

    parse_frame(frame)      an Ethernet frame -> Segment, or None where it holds none
    parse_packet(packet)    the same of an IP packet
    pure_ack(...), reset(...)
    segment.build()         the IP packet, lengths and checksums filled in

Parsing is lenient, as kernels are: captures may be cut short after the TCP header, and options
from the first malformed one on are as good as absent.  It is strict where leniency would invent
something: fragments, headers cut short and impossible lengths give None.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from testbed.errors import TestbedError
from testbed.mptcp.counters import Address
from testbed.mptcp.options import (
    KIND,
    Dss,
    MpFail,
    MpFastclose,
    Option,
    OptionError,
    parse,
    tcp_options,
)

ETHERNET_HEADER = 14
_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6
_EXTENSIONS = frozenset({0, 43, 60})  # hop-by-hop, routing, destination options (RFC 8200 4.1)
_FRAGMENT_BITS = 0x3FFF  # more fragments, fragment offset
_MAX_OPTIONS = 40
_TIMESTAMPS_KIND, _NO_OPERATION = 8, b"\x01"
_HOP_LIMIT = 64
_STAMPED, _STAMPED_SIZE = b"\x01\x01\x08\x0a", 12  # how kernels begin the options

_IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")
_IPV6_HEADER = struct.Struct("!IHBB16s16s")
_TCP_HEADER = struct.Struct("!HHIIBBHHH")
_STAMPS = struct.Struct("!II")
_DATA_FIN = 0x10

_O = TypeVar("_O", bound=Option)


class SegmentError(TestbedError):
    """A segment that no packet can carry."""


class Flags:
    """Control bits of a TCP header (RFC 9293 3.1); plain numbers, for every segment is tested."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


def distance(start: int, end: int) -> int:
    """How far `end` lies after `start`, modulo 2^32; negative where it lies before.

    Sequence numbers and timestamps both compare so (RFC 9293 3.4, RFC 7323 5.2).
    """
    return (end - start + (1 << 31)) % (1 << 32) - (1 << 31)


def later(first: int | None, second: int) -> int:
    """The later of two sequence numbers; the second where there is no first."""
    return second if first is None or distance(first, second) > 0 else first


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A TCP segment without its payload.

    `window` is as in the header, not scaled; `options` are the header's, padding included;
    `length` counts bytes of payload, in the packet or not.
    """

    source: Address
    destination: Address
    seq: int
    ack: int = 0
    flags: int
    window: int = 0
    options: bytes = b""
    length: int = 0

    @property
    def end(self) -> int:
        """The sequence number after this segment: SYN and FIN count one each."""
        taken = bool(self.flags & Flags.SYN) + bool(self.flags & Flags.FIN)
        return (self.seq + self.length + taken) % (1 << 32)

    @property
    def timestamps(self) -> tuple[int, int] | None:
        """TSval and TSecr (RFC 7323 3.2)."""
        if self._stamped_first:
            return _STAMPS.unpack_from(self.options, 4)
        for option in self._options(0):
            if option[0] == _TIMESTAMPS_KIND and len(option) == 10:
                return _STAMPS.unpack_from(option, 2)
        return None

    @cached_property
    def mptcp(self) -> tuple[Option, ...]:
        """The MPTCP options that are well formed, in their order."""
        return tuple(self._mptcp())

    def option(self, kind: type[_O]) -> _O | None:
        """The first MPTCP option of a kind."""
        return next((option for option in self.mptcp if isinstance(option, kind)), None)

    def subtypes(self) -> Iterator[tuple[int, bytes]]:
        """Subtype and bytes of each MPTCP option, well formed or not: cheap to look through."""
        for option in self._options(_STAMPED_SIZE if self._stamped_first else 0):
            if option[0] == KIND and len(option) > 2:
                yield option[2] >> 4, option

    @property
    def _stamped_first(self) -> bool:
        return self.options[:4] == _STAMPED and len(self.options) >= _STAMPED_SIZE

    def _options(self, start: int) -> Iterator[bytes]:
        try:
            yield from tcp_options(self.options[start:])
        except OptionError:
            return

    def _mptcp(self) -> Iterator[Option]:
        for _, option in self.subtypes():
            try:
                yield parse(option)
            except OptionError:
                continue

    def build(self) -> bytes:
        """The IP packet without payload, ready to be sent; `SegmentError` where none can be."""
        if self.length:
            raise SegmentError(f"a segment with {self.length} bytes of payload cannot be built")
        source, destination = _packed(self.source.ip), _packed(self.destination.ip)
        if len(source) != len(destination):
            raise SegmentError(f"a segment from {self.source} to {self.destination}")
        tcp = self._tcp(source + destination)
        if len(source) == 16:
            hop = _IPV6_HEADER.pack(6 << 28, len(tcp), _TCP, _HOP_LIMIT, source, destination)
            return hop + tcp
        fields = (0x45, 0, 20 + len(tcp), 0, 0x4000, _HOP_LIMIT, _TCP)
        checksum = internet_checksum(_IPV4_HEADER.pack(*fields, 0, source, destination))
        return _IPV4_HEADER.pack(*fields, checksum, source, destination) + tcp

    def _tcp(self, addresses: bytes) -> bytes:
        if len(self.options) > _MAX_OPTIONS or len(self.options) % 4:
            raise SegmentError(f"TCP options of {len(self.options)} bytes: at most 40, in fours")
        size = _TCP_HEADER.size + len(self.options)
        ports = (self.source.port, self.destination.port)
        try:
            fields = (*ports, self.seq, self.ack, size << 2, self.flags, self.window)
            header = _TCP_HEADER.pack(*fields, 0, 0) + self.options
        except struct.error as error:
            raise SegmentError(f"a field of a segment is out of its range ({error})") from error
        checksum = internet_checksum(addresses + struct.pack("!II", size, _TCP) + header)
        return header[:16] + struct.pack("!H", checksum) + header[18:]


def ending(segment: Segment) -> str:
    """How a segment ends its subflow or its connection, in words; empty where it does not."""
    if segment.flags & (Flags.FIN | Flags.RST):
        return "an end closed the old subflow"
    for subtype, option in segment.subtypes():
        if subtype == MpFastclose.subtype:
            return "an end closed the connection"
        if subtype == MpFail.subtype:
            return "an end fell back to plain TCP"
        if subtype == Dss.subtype and option[3:4] and option[3] & _DATA_FIN:
            return "an end has sent all its data, after which no join is accepted"
    return ""


def pure_ack(
    like: Segment,
    *,
    seq: int,
    ack: int,
    timestamps: tuple[int, int] | None = None,
    mptcp: Iterable[Option] = (),
) -> Segment:
    """An acknowledgement without payload, on the flow, in the direction and with the window of
    `like`."""
    return Segment(
        source=like.source,
        destination=like.destination,
        seq=seq,
        ack=ack,
        flags=Flags.ACK,
        window=like.window,
        options=header_options(timestamps, mptcp),
    )


def reset(like: Segment, *, seq: int, ack: int) -> Segment:
    """An RST on the flow and in the direction of `like`.

    Its receiver believes it only where `seq` is the next sequence number it expects (RFC 5961
    3.2); timestamps it needs none (RFC 7323 5.2).
    """
    return Segment(
        source=like.source,
        destination=like.destination,
        seq=seq,
        ack=ack,
        flags=Flags.RST | Flags.ACK,
    )


def header_options(timestamps: tuple[int, int] | None, mptcp: Iterable[Option] = ()) -> bytes:
    """The options of a TCP header, padded; timestamps unaligned where there is no room else.

    An ADD_ADDR of IPv6 with a port leaves exactly their ten bytes.
    """
    options = b"".join(option.build() for option in mptcp)
    if timestamps is not None:
        stamp = struct.pack("!BBII", _TIMESTAMPS_KIND, 10, *timestamps)
        roomy = len(options) + len(stamp) + 2 <= _MAX_OPTIONS
        options = (_NO_OPERATION * 2 if roomy else b"") + stamp + options
    options += _NO_OPERATION * (-len(options) % 4)
    if len(options) > _MAX_OPTIONS:
        raise SegmentError(f"TCP options of {len(options)} bytes: at most {_MAX_OPTIONS} fit")
    return options


def internet_checksum(data: bytes) -> int:
    """The checksum of IP, TCP and UDP (RFC 1071); 0 over data that holds its own."""
    number = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    total = number % 0xFFFF  # as 2^16 is 1 modulo 2^16 - 1, this adds the words up
    return 0xFFFF - (0xFFFF if number and not total else total)


def parse_frame(frame: bytes) -> Segment | None:
    """The TCP segment of an untagged Ethernet frame; None where it holds none."""
    if len(frame) < ETHERNET_HEADER:
        return None
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    return parse_packet(frame[ETHERNET_HEADER:]) if ethertype in (_IPV4, _IPV6) else None


def parse_packet(packet: bytes) -> Segment | None:
    """The TCP segment of an IP packet, which may be cut short after its TCP header, or None."""
    version = packet[0] >> 4 if packet else 0
    try:
        if version == 4:
            return _parse_ipv4(packet)
        return _parse_ipv6(packet) if version == 6 else None
    except (struct.error, IndexError):  # cut short within a header
        return None


def _parse_ipv4(packet: bytes) -> Segment | None:
    first, _, total, _, fragment, _, protocol, _, source, destination = _IPV4_HEADER.unpack_from(
        packet
    )
    offset = (first & 0xF) * 4
    if protocol != _TCP or fragment & _FRAGMENT_BITS or offset < _IPV4_HEADER.size:
        return None
    return _parse_tcp(packet, offset, total - offset, (socket.AF_INET, source, destination))


def _parse_ipv6(packet: bytes) -> Segment | None:
    _, payload, header, _, source, destination = _IPV6_HEADER.unpack_from(packet)
    offset, end = _IPV6_HEADER.size, _IPV6_HEADER.size + payload
    while header in _EXTENSIONS:
        header, words = packet[offset], packet[offset + 1]
        offset += 8 + 8 * words
    if header != _TCP:
        return None
    return _parse_tcp(packet, offset, end - offset, (socket.AF_INET6, source, destination))


def _parse_tcp(
    packet: bytes, offset: int, size: int, addresses: tuple[int, bytes, bytes]
) -> Segment | None:
    sport, dport, seq, ack, words, flags, window, _, _ = _TCP_HEADER.unpack_from(packet, offset)
    header = (words >> 4) * 4
    options = packet[offset + _TCP_HEADER.size : offset + header]
    if header < _TCP_HEADER.size or header > size or len(options) < header - _TCP_HEADER.size:
        return None
    family, source, destination = addresses
    return Segment(
        source=Address(socket.inet_ntop(family, source), sport),
        destination=Address(socket.inet_ntop(family, destination), dport),
        seq=seq,
        ack=ack,
        flags=flags,
        window=window,
        options=bytes(options),
        length=size - header,
    )


def _packed(address: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError as error:
        raise SegmentError(f"{address!r} is not an IP address") from error
