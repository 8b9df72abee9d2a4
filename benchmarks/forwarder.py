"""A bare AF_PACKET forwarder: `python -m benchmarks.forwarder`, in the namespace of its ports.

Interfaces with even indexes are joined to the next odd one.  What it reads it sends at once; it
has no rates, delays, losses or counters: what is left is the cost of user space as such.  It
writes a line when it listens.
"""

from __future__ import annotations

import os
import select

from testbed.kernel.packet_batch import CAPACITY, FrameBatch
from testbed.kernel.packet_ring import PacketRing


def forward() -> None:
    """Until it is killed."""
    ring, batch = PacketRing(), FrameBatch()
    os.write(1, b"listening\n")
    while True:
        frames = ring.read(CAPACITY)
        if frames:
            batch.send(
                [
                    (batch.address(port ^ 1), [data for _arrival, data in arrivals])
                    for port, arrivals in frames.items()
                ]
            )
        else:
            select.select([ring], [], [])


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    forward()
