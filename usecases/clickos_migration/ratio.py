"""How well traffic would compress: packets that pass a box, given to the tunnel's own packing."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from testbed.kernel import NetworkNamespace
from usecases.clickos_migration import tunnel

_ETH_P_IP = 0x0800
_UDP_IP = 28  # bytes of headers that each datagram of the tunnel adds
_SAMPLE = 64  # packets
_PATIENCE_S = 0.5
_BATCH = 4  # packets that wait together where traffic is as dense as here
_LONGEST = 1 << 16


async def sample_ratio(namespace: NetworkNamespace, interface: str) -> float:
    """Bytes of the next 64 IPv4 packets through `interface`, over what the tunnel makes of them.

    Fewer packets if no more come in half a second; 1 if none do.
    """
    loop, packets = asyncio.get_running_loop(), list[bytes]()
    with namespace:
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with listener, contextlib.suppress(TimeoutError):
        listener.setblocking(False)
        listener.bind((interface, _ETH_P_IP))
        async with asyncio.timeout(_PATIENCE_S):
            while len(packets) < _SAMPLE:
                packets.append(await loop.sock_recv(listener, _LONGEST))
    return ratio(packets)


def ratio(packets: list[bytes]) -> float:
    """How many bytes of these packets the tunnel carries in one."""
    datagrams = [
        each
        for start in range(0, len(packets), _BATCH)
        for each in tunnel.pack(packets[start : start + _BATCH])
    ]
    carried = sum(len(each) + _UDP_IP for each in datagrams)
    return sum(map(len, packets)) / carried if carried else 1.0
