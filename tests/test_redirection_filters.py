"""The kernel's part of watching: which packets reach Python.  Frames go through a socket pair."""

from __future__ import annotations

import socket

import pytest

from testbed.kernel.socket_filter import attach
from testbed.mptcp.counters import Address
from testbed.mptcp.options import AddAddr, Dss, MpCapable, MpJoinAck, Option
from testbed.mptcp.redirection import filters
from testbed.mptcp.redirection.segment import Flags, Segment, header_options

ADDRESSES = {4: ("10.1.0.2", "10.9.0.2"), 6: ("fd00:1::2", "fd00:9::2")}


def frame(
    family: int, *options: Option, flags: Flags = Flags.ACK, stamps: bool = True, sport: int = 4000
) -> bytes:
    source, destination = ADDRESSES[family]
    segment = Segment(
        source=Address(source, sport),
        destination=Address(destination, 5000),
        seq=1,
        flags=flags,
        options=header_options((1, 2) if stamps else None, options),
    )
    return bytes(12) + (b"\x08\x00" if family == 4 else b"\x86\xdd") + segment.build()


def passes(program: filters.Program, data: bytes) -> bool:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        attach(receiver, program)
        receiver.setblocking(False)
        try:
            sender.send(data)
            return bool(receiver.recv(1 << 12))
        except BlockingIOError:
            return False
        except PermissionError:  # what the receiver's filter drops is an error of the sender's
            return False


CAPABLE = MpCapable(sender_key=1, receiver_key=2)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("stamps", [True, False])
def test_handshakes_pass_and_data_does_not(family: int, stamps: bool) -> None:
    program = filters.handshakes(1 << 30)
    for flags in (Flags.SYN, Flags.SYN | Flags.ACK, Flags.FIN | Flags.ACK, Flags.RST):
        assert passes(program, frame(family, flags=flags, stamps=stamps))
    for option in (CAPABLE, MpJoinAck(bytes(20))):
        assert passes(program, frame(family, option, stamps=stamps))
    echo = AddAddr(address_id=1, address="10.0.0.1")
    for other in ((), (Dss(data_ack=1),), (Dss(data_ack=1, wide_ack=True),), (echo,)):
        assert not passes(program, frame(family, *other, stamps=stamps))


def test_what_is_no_tcp_does_not_pass() -> None:
    program = filters.handshakes(1 << 30)
    syn = frame(4, flags=Flags.SYN)
    assert not passes(program, syn[:23] + bytes([17]) + syn[24:])  # UDP
    assert not passes(program, syn[:20] + b"\x00\x10" + syn[22:])  # a later fragment
    assert not passes(program, syn[:12] + b"\x08\x06" + syn[14:])  # ARP
    assert not passes(program, syn[:30])


@pytest.mark.parametrize("family", [4, 6])
def test_segments_of_many_chosen_ports(family: int) -> None:
    chosen = set(range(1000, 1800, 3))
    program = filters.segments(chosen, {80}, socket.PACKET_HOST)
    for port in range(990, 1810):
        assert passes(program, frame(family, sport=port)) == (port in chosen), port
    assert passes(filters.segments((), {5000}, socket.PACKET_HOST), frame(family))
    assert not passes(filters.segments({4000}, {5000}), frame(family))  # it does not leave
