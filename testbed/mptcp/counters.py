"""The kernel's view of an MPTCP socket: the connection's counters and those of its subflows.

Layouts: struct mptcp_info, mptcp_full_info, mptcp_subflow_info (linux/mptcp.h) and the start of
struct tcp_info (linux/tcp.h).  Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from testbed.errors import KernelError

SOL_MPTCP = 284
_MPTCP_INFO, _MPTCP_FULL_INFO = 1, 4
_MAX_SUBFLOWS = 16

_INFO = struct.Struct("=6B2xIIQQQ3BxIQQQQBB2xIII")
_FULL = struct.Struct("=IIIIIIQQ")
_SUBFLOW_INFO = 264  # u32 id, padding, two sockaddr_storage
TCP_INFO = struct.Struct("=8B24I4Q6I4Q2I2Q")

_libc = ctypes.CDLL(None, use_errno=True)


class Address(NamedTuple):
    """An IP address (an IPv4-mapped one is written as IPv4) and a port."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class TcpState(IntEnum):
    """States of a TCP connection, as the kernel numbers them (net/tcp_states.h)."""

    NONE = 0
    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


_MAY_SEND = {TcpState.ESTABLISHED, TcpState.CLOSE_WAIT, TcpState.SYN_SENT, TcpState.SYN_RECV}


@dataclass(frozen=True, kw_only=True)
class ConnectionInfo:
    """MPTCP_INFO: one connection.  Sequence numbers are the data level's, on 64 bits."""

    token: int
    extra_subflows: int
    total_subflows: int
    write_seq: int
    snd_una: int
    rcv_nxt: int
    bytes_sent: int
    bytes_received: int
    bytes_acked: int
    bytes_retransmitted: int
    retransmits: int
    checksums: bool
    flags: int

    @property
    def unacked(self) -> int:
        """Bytes written that the peer has not acknowledged at the data level."""
        return (self.write_seq - self.snd_una) % (1 << 64)


@dataclass(frozen=True, kw_only=True)
class Subflow:
    """One subflow: where it runs and the part of its tcp_info that experiments read."""

    id: int  # the kernel's running number within the connection, not the address id
    local: Address
    remote: Address
    state: TcpState
    timeouts: int  # retransmission time-outs since the last acknowledgement
    rto_s: float
    rtt_s: float
    min_rtt_s: float
    mss: int
    cwnd: int  # packets
    unacked: int  # packets in flight
    notsent_bytes: int
    bytes_sent: int
    bytes_acked: int
    bytes_received: int
    bytes_retransmitted: int
    delivery_rate_bps: float

    @property
    def may_send(self) -> bool:
        """Can data still be given to it?  (It is open or opening; FIN and closed are past.)"""
        return self.state in _MAY_SEND and self.remote.port != 0


def connection_info(sock: socket.socket) -> ConnectionInfo:
    """Counters of the connection; `KernelError` (EOPNOTSUPP) after a fallback to TCP."""
    try:
        data = sock.getsockopt(SOL_MPTCP, _MPTCP_INFO, _INFO.size)
    except OSError as error:
        raise _refused(error.errno or 0) from error
    return parse_connection(data)


def full_info(sock: socket.socket) -> tuple[ConnectionInfo, tuple[Subflow, ...]]:
    """Connection and subflows at one moment (MPTCP_FULL_INFO), closed subflows included."""
    subflow_data = (ctypes.c_char * (_SUBFLOW_INFO * _MAX_SUBFLOWS))()
    tcp_data = (ctypes.c_char * (TCP_INFO.size * _MAX_SUBFLOWS))()
    pointers = ctypes.addressof(subflow_data), ctypes.addressof(tcp_data)
    sizes = (0, TCP_INFO.size, 0, _SUBFLOW_INFO, 0, _MAX_SUBFLOWS)
    buffer = bytearray(_FULL.pack(*sizes, *pointers) + bytes(_INFO.size))
    _getsockopt(sock.fileno(), _MPTCP_FULL_INFO, buffer)
    count = min(_FULL.unpack_from(buffer)[4], _MAX_SUBFLOWS)
    flows, infos = bytes(subflow_data), bytes(tcp_data)
    return parse_connection(buffer[_FULL.size :]), tuple(
        _subflow(flows[_SUBFLOW_INFO * i :], infos[TCP_INFO.size * i :]) for i in range(count)
    )


def _getsockopt(fd: int, option: int, buffer: bytearray) -> None:
    # socket.getsockopt cannot hand the kernel a buffer that it reads first.
    length = ctypes.c_uint32(len(buffer))
    memory = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    if _libc.getsockopt(fd, SOL_MPTCP, option, memory, ctypes.byref(length)) != 0:
        raise _refused(ctypes.get_errno())


def _refused(number: int) -> KernelError:
    remedy = ""
    if number in (errno.EOPNOTSUPP, errno.ENOPROTOOPT):
        remedy = "this connection is plain TCP: the peer or the path does not speak MPTCP"
    return KernelError(number, f"MPTCP socket information: {os.strerror(number)}", remedy=remedy)


def parse_connection(data: bytes | bytearray) -> ConnectionInfo:
    """A connection out of a struct mptcp_info; what an older kernel's lacks is 0."""
    data = bytes(data).ljust(_INFO.size, b"\0")
    field = _INFO.unpack_from(data)
    return ConnectionInfo(
        extra_subflows=field[0],
        flags=field[6],
        token=field[7],
        write_seq=field[8],
        snd_una=field[9],
        rcv_nxt=field[10],
        checksums=bool(field[13]),
        retransmits=field[14],
        bytes_retransmitted=field[15],
        bytes_sent=field[16],
        bytes_received=field[17],
        bytes_acked=field[18],
        total_subflows=field[19],
    )


def _subflow(flow: bytes, info: bytes) -> Subflow:
    tcp = TCP_INFO.unpack_from(info)
    return Subflow(
        id=struct.unpack_from("=I", flow)[0],
        local=_address(flow[8:]),
        remote=_address(flow[136:]),
        state=TcpState(tcp[0]),
        timeouts=tcp[2],
        rto_s=tcp[8] / 1e6,
        mss=tcp[10],
        unacked=tcp[12],
        rtt_s=tcp[23] / 1e6,
        cwnd=tcp[26],
        bytes_acked=tcp[34],
        bytes_received=tcp[35],
        notsent_bytes=tcp[38],
        min_rtt_s=tcp[39] / 1e6,
        delivery_rate_bps=tcp[42] * 8.0,
        bytes_sent=tcp[48],
        bytes_retransmitted=tcp[49],
    )


def _address(data: bytes) -> Address:
    family, port = struct.unpack_from("=H", data)[0], struct.unpack_from("!H", data, 2)[0]
    if family == socket.AF_INET6:
        address = ipaddress.IPv6Address(data[8:24])
        return Address(str(address.ipv4_mapped or address), port)
    return Address(socket.inet_ntoa(data[4:8]), port)
