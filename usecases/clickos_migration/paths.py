"""What every link of the topology carried, and the two wide-area paths over time.

Counted is what arrives at a link's far end, in both directions, Ethernet headers included (the
kernel's counters of the interfaces): what is sent may still be lost in the link's queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from testbed.links import counters
from testbed.run import Recorder

DIRECT, OTHER = "direct", "other"
LINKS: Mapping[str, tuple[str, str]] = {
    "access": ("edge", "m1"),
    "m1-a1": ("m1", "a1"),
    "m1-a2": ("m1", "a2"),
    "a1-transit": ("a1", "transit"),
    "a2-transit": ("a2", "transit"),
    DIRECT: ("transit", "far"),
    "peering": ("a1", "b1"),
    "b1-dc2": ("b1", "dc2"),
    "dc2-m2": ("dc2", "m2"),
    "b1-b2": ("b1", "b2"),
    OTHER: ("b2", "far"),
}
"""Name of each link between routers that clients' traffic may use -> its ends."""

SAMPLE_S = 0.1


class PathMeter:
    """Counts links, and while its block runs records the throughput of the two paths.

    Samples are called `throughput` and come from `SOURCE.direct` and `SOURCE.other`, where the
    source is who is being tried at the moment (`source`).
    """

    def __init__(self, net: Any, record: Recorder) -> None:
        self._record = record
        self._ends = {name: _interfaces(net, *nodes) for name, nodes in LINKS.items()}
        self._task: asyncio.Task[None] | None = None
        self.source = ""

    def carried(self) -> dict[str, int]:
        """Bytes that each link has delivered so far, both ways together."""
        return {name: _delivered(ends) for name, ends in self._ends.items()}

    def __enter__(self) -> PathMeter:
        self._task = asyncio.create_task(self._measure())
        self._task.add_done_callback(self._ended)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._record.fail(error)

    async def _measure(self) -> None:
        paths = {name: self._ends[name] for name in (DIRECT, OTHER)}
        before = {name: _delivered(ends) for name, ends in paths.items()}
        due = last = time.monotonic()
        while True:
            due += SAMPLE_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now, after = time.monotonic(), {name: _delivered(ends) for name, ends in paths.items()}
            for name, count in after.items() if self.source else ():
                rate_bps = (count - before[name]) * 8 / (now - last)
                self._record.sample(f"{self.source}.{name}", "throughput", rate_bps, "bit/s")
            before, last = after, now


def _interfaces(net: Any, one: str, other: str) -> tuple[Any, ...]:
    ((first, second),) = net[one].connectionsTo(net[other])
    return first, second


def _delivered(ends: tuple[Any, ...]) -> int:
    return sum(received(each) for each in ends)


def received(intf: Any) -> int:
    """Bytes that an interface has received."""
    with intf.node.netns:
        return counters.interface(intf.index).rx_bytes
