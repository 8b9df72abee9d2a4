"""Everything there is to see at one instant, in all namespaces of a network.

What is asked and answered is in `interfaces`, `qdiscs` and `sockets`, which values become rows in
`changes`; at which instants, and in what process, in `worker`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from testbed.observe.changes import Row
from testbed.observe.connections import Connections, Event
from testbed.observe.counts import EngineQueues, Interfaces, Qdiscs
from testbed.observe.place import Place


@dataclass(kw_only=True)
class Cost:
    """Processor seconds spent on samples of each kind, and of how many things."""

    interfaces_s: float = 0.0
    qdiscs_s: float = 0.0
    sockets_s: float = 0.0
    interfaces: int = 0
    qdiscs: int = 0
    sockets: int = 0


class Sampler:
    """The netlink sockets in all `places`, opened once, and the series read from them.

    `rows` collects what is to be recorded, `events` what there is to say of sources; whoever runs
    the sampler takes them away.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.rows: list[Row] = []
        self.events: list[Event] = []
        self.cost = Cost()
        self._interfaces: list[Interfaces] = []
        self._queues: list[Qdiscs | EngineQueues] = []
        self._connections: list[Connections] = []
        for place in places:
            if place.queues:
                self._queues.append(EngineQueues(place, self.rows))
                continue
            interfaces = Interfaces(place, self.rows)
            self._interfaces.append(interfaces)
            self._queues.append(Qdiscs(place, interfaces, self.rows))
            self._connections.append(Connections(place, self.rows, self.events))

    def sample(self) -> None:
        """Look at everything once."""
        cost, began = self.cost, time.thread_time()
        cost.interfaces += sum(each.sample() for each in self._interfaces)
        interfaces_done = time.thread_time()
        cost.qdiscs += sum(each.sample() for each in self._queues)
        qdiscs_done = time.thread_time()
        cost.sockets += sum(each.sample() for each in self._connections)
        cost.interfaces_s += interfaces_done - began
        cost.qdiscs_s += qdiscs_done - interfaces_done
        cost.sockets_s += time.thread_time() - qdiscs_done

    def end(self) -> dict[str, Any]:
        """No further sample: the last rows; what whole sources counted, and what it cost."""
        totals: dict[str, Any] = {"interfaces": {}, "connections": {}}
        for interfaces in self._interfaces:
            totals["interfaces"].update(interfaces.end())
        for queues in self._queues:
            queues.end()
        for connections in self._connections:
            totals["connections"].update(connections.end())
        totals["lost_ends"] = sum(each.lost_ends for each in self._connections)
        return {**totals, "cost": asdict(self.cost)}
