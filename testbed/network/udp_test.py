"""UDP at a rate from one node to another: two programs of the standard library only.

    python udp_test.py receive PORT             prints "ready"; at end of input, bytes and seconds
    python udp_test.py send ADDRESS PORT BPS S  prints bytes and seconds

What iperf needs besides, a connection that lossy links break, this does without.
"""

from __future__ import annotations

import select
import socket
import sys
import time

_PAYLOAD = bytes(1470)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def receive(port: int) -> tuple[int, float]:
    """Count what arrives until standard input ends: bytes, and seconds from first to last."""
    arrived, first, last = 0, 0.0, 0.0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        udp.bind(("::", port))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            ready, _, _ = select.select([udp, sys.stdin], [], [])
            if udp not in ready:
                return arrived, last - first
            arrived += len(udp.recv(65536))
            last = time.monotonic()
            first = first or last


def send(address: str, port: int, rate_bps: float, seconds: float) -> tuple[int, float]:
    """Send full packets at a rate; where that is too fast for this machine, as fast as it can."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as udp:
        udp.connect((address, port))
        interval = len(_PAYLOAD) * 8 / rate_bps
        start = time.monotonic()
        sent = 0
        while (now := time.monotonic() - start) < seconds:
            if sent * interval > now:
                time.sleep(sent * interval - now)
            try:
                udp.send(_PAYLOAD)
            except ConnectionRefusedError:  # an answer to an earlier packet
                continue
            sent += 1
        return sent * len(_PAYLOAD), time.monotonic() - start


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        result = receive(int(sys.argv[2]))
    else:
        result = send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
    sys.stdout.write(f"{result[0]} {result[1]}\n")
