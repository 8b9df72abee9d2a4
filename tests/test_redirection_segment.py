"""TCP segments as a box on the path reads and forges them, against scapy's reading and writing."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from testbed.mptcp.counters import Address
from testbed.mptcp.options import AddAddr, Dss, MpFail, MpFastclose, MpPrio
from testbed.mptcp.redirection.segment import (
    Flags,
    Segment,
    SegmentError,
    distance,
    ending,
    header_options,
    internet_checksum,
    later,
    parse_frame,
    parse_packet,
    pure_ack,
    reset,
)

WORD = st.integers(0, (1 << 32) - 1)
PORT = st.integers(0, (1 << 16) - 1)
STAMPS = st.none() | st.tuples(WORD, WORD)
MAC = "02:00:00:00:00:01"
V4, V6 = ("10.9.0.2", "10.1.0.2"), ("2001:db8::2", "2001:db8:1::2")
PRIO = MpPrio(backup=True)
BASE = Segment(source=Address(V4[0], 1), destination=Address(V4[1], 2), seq=5, flags=Flags.ACK)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    family, size = draw(st.sampled_from([(socket.AF_INET, 4), (socket.AF_INET6, 16)]))
    packed = st.binary(min_size=size, max_size=size)
    address = st.builds(lambda ip, port: Address(socket.inet_ntop(family, ip), port), packed, PORT)
    return Segment(
        source=draw(address),
        destination=draw(address),
        seq=draw(WORD),
        ack=draw(WORD),
        flags=draw(st.integers(0, 255)),
        window=draw(PORT),
        options=header_options(draw(STAMPS), draw(st.sampled_from([(), (PRIO,)]))),
    )


@given(segments())
def test_what_is_built_parses_again(segment: Segment) -> None:
    assert parse_packet(segment.build()) == segment


@given(segments())
def test_scapy_reads_what_is_built_and_finds_its_checksums_right(segment: Segment) -> None:
    packet = segment.build()
    layer = IPv6 if ":" in segment.source.ip else IP
    read = layer(packet)
    assert (read[TCP].sport, read[TCP].dport) == (segment.source.port, segment.destination.port)
    assert (read[TCP].seq, read[TCP].ack) == (segment.seq, segment.ack)
    assert (int(read[TCP].flags), read[TCP].window) == (segment.flags, segment.window)
    for part, field in ((read, "chksum"), (read[TCP], "chksum"), (read, "len"), (read, "plen")):
        if field in part.fields:
            delattr(part, field)  # scapy fills in its own
    assert bytes(read) == packet


@pytest.mark.parametrize("ends", [V4, V6])
@given(payload=st.binary(max_size=40), seq=WORD, stamps=STAMPS)
def test_what_scapy_builds_parses(
    ends: tuple[str, str], payload: bytes, seq: int, stamps: tuple[int, int] | None
) -> None:
    layer = IPv6 if ":" in ends[0] else IP
    options = [] if stamps is None else [("Timestamp", stamps)]
    tcp = TCP(sport=5000, dport=40000, seq=seq, ack=7, flags="PA", window=9, options=options)
    packet = bytes(layer(src=ends[0], dst=ends[1]) / tcp / Raw(payload))
    segment = parse_packet(packet)
    assert segment is not None
    assert segment.source == Address(ends[0], 5000)
    assert segment.destination == Address(ends[1], 40000)
    assert (segment.seq, segment.ack, segment.window) == (seq, 7, 9)
    assert segment.timestamps == stamps
    assert segment.length == len(payload)
    assert segment.end == (seq + len(payload)) % (1 << 32)
    assert parse_frame(bytes(Ether(dst=MAC, src=MAC) / layer(packet))) == segment


@given(segments(), st.integers(1, 9000))
def test_a_capture_may_end_after_the_header_and_no_earlier(segment: Segment, length: int) -> None:
    packet = bytearray(segment.build())
    headers = len(packet)
    field = slice(2, 4) if packet[0] >> 4 == 4 else slice(4, 6)
    packet[field] = (int.from_bytes(packet[field], "big") + length).to_bytes(2, "big")
    whole = parse_packet(bytes(packet) + b"x" * 3)
    assert whole is not None
    assert whole.length == length
    assert all(parse_packet(bytes(packet[:cut])) is None for cut in range(headers))


@given(st.binary(max_size=120))
def test_garbage_is_none_or_a_segment(data: bytes) -> None:
    for parse in (parse_frame, parse_packet):
        for start in (b"", b"\x45", b"\x60", b"\0" * 12 + b"\x08\0\x45", b"\0" * 12 + b"\x86\xdd"):
            segment = parse(start + data)
            if segment is not None:
                assert segment.length >= 0
                assert isinstance(segment.mptcp, tuple)
                assert segment.timestamps is None or len(segment.timestamps) == 2
                ending(segment)


def test_other_frames_hold_no_segment() -> None:
    tcp = IP(src=V4[0], dst=V4[1]) / TCP()
    mac = b"\0" * 12
    assert parse_frame(mac + b"\x08\x06" + bytes(tcp)) is None  # ARP
    assert parse_packet(bytes(IP(src=V4[0], dst=V4[1], proto=17) / Raw(bytes(20)))) is None
    assert parse_packet(bytes(IP(src=V4[0], dst=V4[1], flags="MF") / TCP())) is None
    assert parse_packet(bytes(IP(src=V4[0], dst=V4[1], frag=3) / TCP())) is None
    assert parse_packet(bytes(IP(src=V4[0], dst=V4[1], len=39) / TCP())) is None
    assert parse_packet(bytes(IPv6(src=V6[0], dst=V6[1]) / IPv6ExtHdrFragment() / TCP())) is None
    assert parse_packet(b"\x75" + bytes(tcp)[1:]) is None


def test_extension_headers_of_ipv6_are_passed_over() -> None:
    headers = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    packet = bytes(IPv6(src=V6[0], dst=V6[1]) / headers / TCP(sport=77) / Raw(b"abc"))
    segment = parse_packet(packet)
    assert segment is not None
    assert (segment.source.port, segment.length) == (77, 3)


def test_options_from_a_malformed_one_on_are_absent() -> None:
    stamp = header_options((1, 2))
    broken = Segment(**_fields(options=stamp + PRIO.build() + b"\xfe\x09\x00\x00\x00"))
    assert (broken.timestamps, broken.mptcp) == ((1, 2), (PRIO,))
    broken = Segment(**_fields(options=b"\x1e\x03\xf0" + b"\x1e\x04\x50\x00" + stamp + b"\x01"))
    assert broken.timestamps == (1, 2)
    assert not any(isinstance(option, MpPrio) for option in broken.mptcp)


def test_the_longest_announcement_leaves_room_for_timestamps_without_padding() -> None:
    option = AddAddr(address_id=9, address=V6[0], port=5000, hmac=1)
    segment = pure_ack(BASE, seq=1, ack=2, timestamps=(3, 4), mptcp=[option])
    assert len(segment.options) == 40
    assert (segment.timestamps, segment.mptcp) == ((3, 4), (option,))
    with pytest.raises(SegmentError, match="at most 40 fit"):
        header_options((3, 4), [option, PRIO])


def test_acknowledgements_and_resets_continue_a_flow() -> None:
    like = Segment(**_fields(window=321, length=50, options=header_options((8, 9))))
    ack = pure_ack(like, seq=10, ack=20, mptcp=[PRIO])
    assert (ack.source, ack.destination, ack.window) == (like.source, like.destination, 321)
    assert (ack.seq, ack.ack, ack.flags, ack.length) == (10, 20, Flags.ACK, 0)
    assert ack.timestamps is None
    rst = reset(like, seq=30, ack=40)
    assert (rst.seq, rst.ack, rst.flags, rst.options) == (30, 40, Flags.RST | Flags.ACK, b"")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 3}, "3 bytes of payload"),
        ({"destination": Address(V6[0], 2)}, "from 10.9.0.2:1 to"),
        ({"destination": Address("server", 2)}, "'server' is not an IP address"),
        ({"seq": 1 << 32}, "out of its range"),
        ({"options": b"\1" * 3}, "in fours"),
        ({"options": b"\1" * 44}, "at most 40"),
    ],
)
def test_what_no_packet_can_carry(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SegmentError, match=message):
        Segment(**_fields(**fields)).build()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ""),
        ({"flags": Flags.ACK | Flags.FIN}, "closed the old subflow"),
        ({"flags": Flags.RST}, "closed the old subflow"),
        ({"options": header_options(None, [MpFastclose(3)])}, "closed the connection"),
        ({"options": header_options(None, [MpFail(3)])}, "plain TCP"),
        ({"options": header_options(None, [Dss(data_ack=3, data_fin=True)])}, "all its data"),
        ({"options": header_options(None, [Dss(data_ack=3)])}, ""),
    ],
)
def test_what_ends_a_subflow(fields: dict[str, object], words: str) -> None:
    reason = ending(Segment(**_fields(**fields)))
    assert words in reason
    assert bool(words) == bool(reason)


def _fields(**changes: object) -> dict[str, object]:
    return vars(BASE).copy() | changes


@given(WORD, st.integers(-(1 << 31), (1 << 31) - 1))
def test_sequence_numbers_wrap(start: int, step: int) -> None:
    end = (start + step) % (1 << 32)
    assert distance(start, end) == step
    assert later(start, end) == (end if step > 0 else start)
    assert later(None, end) == end


@given(st.binary(max_size=61))
def test_a_checksum_over_itself_is_zero(data: bytes) -> None:
    even = b"\x45" + data + b"\0" * ((len(data) + 1) % 2)
    assert internet_checksum(even + internet_checksum(even).to_bytes(2, "big")) == 0
