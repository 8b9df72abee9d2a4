"""What every link of the topology carried, and the two wide-area paths over time.

Counted is what arrives at a link's far end, in both directions, Ethernet headers included (the
kernel's counters of the interfaces): what is sent may still be lost in the link's queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.observe.throughput import ThroughputMeter, received
from testbed.run import Recorder
from usecases.clickos_migration.wiring import facing

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


class PathMeter(ThroughputMeter):
    """Counts links, and while its block runs records the throughput of the two paths.

    Samples come from `SOURCE.direct` and `SOURCE.other`, where the source is who is being tried
    at the moment (`source`).
    """

    def __init__(self, net: Any, record: Recorder) -> None:
        self._ends = {
            name: (facing(net, one, other), facing(net, other, one))
            for name, (one, other) in LINKS.items()
        }
        super().__init__(record, {name: self._ends[name] for name in (DIRECT, OTHER)}, source=None)

    def carried(self) -> dict[str, int]:
        """Bytes that each link has delivered so far, both ways together."""
        return {name: received(*ends) for name, ends in self._ends.items()}
