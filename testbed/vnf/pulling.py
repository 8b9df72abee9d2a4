"""What pulls packets to a device: queues, shapers and schedulers as classes of traffic control.

    Queue -> BandwidthShaper -> ToDevice    one HTB class with a queue limited in bytes
    two queues -> PrioSched -> shaper       a class with one class for each queue inside

Without a shaper a device is never waited for, so that queues before it stay empty, and nothing is
installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed.vnf.click.graph import Graph
from testbed.vnf.elements import Element
from testbed.vnf.elements.devices import Discard, ToDevice
from testbed.vnf.elements.queueing import PrioSched, Queue, Scheduler, Shaper, Unqueue

LINE_RATE = 40e9  # bit/s: more than a veth pair carries


@dataclass
class TrafficClass:
    """An HTB class: its number on its device, the class around it, rate and priority.

    `queue` is the element whose packets it holds, if it is a leaf.
    """

    minor: int
    parent: int  # minor number, 0 for the root
    bits: float
    ceiling: float
    priority: int = 0
    queue: Queue | None = None
    shaper: str = ""


@dataclass
class DeviceQueues:
    """All classes of one device, and the number of the class that each queue's packets get."""

    device: str
    classes: list[TrafficClass] = field(default_factory=list)

    def leaf(self, queue: str) -> TrafficClass | None:
        """The class of a queue."""
        return next(
            (each for each in self.classes if each.queue and each.queue.name == queue), None
        )

    def shaped_by(self, shaper: str) -> list[TrafficClass]:
        """The classes whose rate a shaper says, itself and what is below it."""
        return [each for each in self.classes if each.shaper == shaper]


def root(graph: Graph, elements: dict[str, Element], queue: str) -> Element:
    """What pulls from a queue: a ToDevice, Discard or Unqueue; raises `ClickError`."""
    name = graph.outputs(queue)[0].target.element
    while True:
        element = elements[name]
        if isinstance(element, ToDevice | Discard | Unqueue):
            return element
        if not isinstance(element, Shaper | Scheduler | Queue) and not element.transparent:
            raise element.wrong(
                f"it cannot stand behind the queue {queue}", "put it before the queue"
            )
        name = graph.outputs(name)[0].target.element


def device_queues(
    graph: Graph, elements: dict[str, Element], device: ToDevice, numbers: Iterator[int]
) -> DeviceQueues:
    """The classes that what is before `device` becomes; none where nothing is shaped."""
    found = DeviceQueues(device.device)
    _Walk(graph, elements, found, numbers).visit(device.name, 0, LINE_RATE, 0)
    if not any(each.shaper for each in found.classes):
        found.classes.clear()
    return found


@dataclass
class _Walk:
    graph: Graph
    elements: dict[str, Element]
    found: DeviceQueues
    numbers: Iterator[int]

    def visit(self, name: str, parent: int, rate: float, priority: int, shaper: str = "") -> None:
        """Add what pulls from the inputs of `name`, inside class `parent`."""
        for number, connection in enumerate(self.graph.inputs(name)):
            before = self.elements[connection.source.element]
            inner = number if isinstance(self.elements[name], PrioSched) else priority
            if isinstance(before, Queue):
                self._add_leaf(before, parent, rate, inner, shaper)
            elif isinstance(before, Shaper):
                minor = self._add(parent, min(before.bits, rate), inner, before.name)
                self.visit(before.name, minor, min(before.bits, rate), 0, before.name)
            elif isinstance(before, Scheduler) or before.transparent:
                self.visit(before.name, parent, rate, inner, shaper)

    def _add(self, parent: int, rate: float, priority: int, shaper: str) -> int:
        minor = next(self.numbers)
        self.found.classes.append(TrafficClass(minor, parent, rate, rate, priority, shaper=shaper))
        return minor

    def _add_leaf(self, queue: Queue, parent: int, rate: float, priority: int, shaper: str) -> None:
        outer = next((each for each in self.found.classes if each.minor == parent), None)
        alone = outer is not None and len(self.graph.inputs(outer.shaper)) == 1
        direct = outer is not None and any(
            c.source.element == queue.name for c in self.graph.inputs(outer.shaper)
        )
        if outer is not None and alone and direct:
            outer.queue = queue
            return
        # a share of next to nothing, so that the order is that of the priorities
        self.found.classes.append(
            TrafficClass(next(self.numbers), parent, 8000.0, rate, priority, queue, shaper)
        )
