"""A light source of frames: `python -m benchmarks.frames PORT,PORT,... SIZE RATE SECONDS`.

Sends RATE frames/s of SIZE bytes in turn on the interfaces (64 at most) with these indexes of the
namespace it is started in, and prints what it sent and what that cost it as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from testbed.kernel.packet_batch import FrameBatch

_HEADER = b"\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a\x88\xb5"
_BATCH = 32


def send(ports: list[int], size: int, rate: float, seconds: float) -> dict[str, float]:
    """Send at an even rate; after a delay of this process, what is behind goes at once."""
    batch, frame = FrameBatch(), _HEADER + bytes(size - len(_HEADER))
    addresses = [batch.address(port) for port in ports]
    each = max(1, _BATCH // len(ports))
    total = batch.fill([(address, (frame,) * each) for address in addresses])
    began = now = time.monotonic()
    sent = refused = 0
    while now < began + seconds:
        while sent < (now - began) * rate:
            refused += len(batch.flush(total))
            sent += total
        time.sleep(max(0.0, began + sent / rate - time.monotonic()))
        now = time.monotonic()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "sent": sent - refused,
        "seconds": now - began,
        "cpu_s": used.ru_utime + used.ru_stime,
    }


if __name__ == "__main__":
    _ports, _size, _rate, _seconds = sys.argv[1:]
    _result = send(list(map(int, _ports.split(","))), int(_size), float(_rate), float(_seconds))
    sys.stdout.write(json.dumps(_result))
