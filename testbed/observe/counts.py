"""The interfaces and queueing disciplines of one namespace, sampled into series."""

from __future__ import annotations

import socket
import time

from testbed.kernel import NetworkNamespace
from testbed.observe import interfaces, qdiscs
from testbed.observe.changes import Changes, Row
from testbed.observe.netlink import Question
from testbed.observe.place import Place

_SEARCH_S = 1.0  # between looks for queueing disciplines where there are none


class Interfaces:
    """Counters of all interfaces of `place`, loopback apart."""

    def __init__(self, place: Place, rows: list[Row]) -> None:
        self._place, self._rows = place, rows
        with NetworkNamespace(place.fd):
            self._question = Question(
                socket.NETLINK_ROUTE, interfaces.RTM_GETSTATS, interfaces.REQUEST
            )
            self._names = Question(
                socket.NETLINK_ROUTE, interfaces.RTM_GETLINK, interfaces.NAMES_REQUEST
            )
        self._sources: dict[int, str] = {}
        self._known: dict[int, Changes | None] = {}  # None: not to be observed
        self._data: dict[int, bytes] = {}
        self._begun: dict[str, float] = {}
        self._now = 0.0

    def sample(self) -> int:
        """Ask once; how many interfaces there are."""
        self._now = time.monotonic()
        self._question.ask(self._take)
        return len(self._data)

    def _take(self, buffer: bytearray, start: int, end: int) -> None:
        index, data = interfaces.counters(buffer, start, end)
        changes = self._known.get(index)
        if changes is None:
            if index not in self._known:
                self._meet(index, data)
        elif data == self._data[index]:
            changes.same(self._now)
        else:
            changes.update(self._now, interfaces.values(data))
            self._data[index] = data

    def _meet(self, index: int, data: bytes) -> None:
        self._known[index] = None
        source = self.source(index)
        if source == self._place.source("lo") or not data:
            return
        changes = self._known[index] = Changes(source, interfaces.METRICS, self._rows)
        changes.begin(self._now, interfaces.values(data))
        self._data[index], self._begun[source] = data, self._now

    def source(self, index: int) -> str:
        """What an interface is called in the records."""
        if index not in self._sources:
            self._names.ask(self._take_name)
        return self._sources.get(index) or self._place.source(f"interface{index}")

    def _take_name(self, buffer: bytearray, start: int, end: int) -> None:
        index, name = interfaces.name(buffer, start, end)
        self._sources[index] = self._place.source(name)

    def end(self) -> dict[str, dict[str, float]]:
        """No further sample; by interface, for how long it was seen and how much it counted."""
        totals = {}
        for changes in filter(None, self._known.values()):
            changes.end()
            seconds = changes.previous - self._begun[changes.source]
            totals[changes.source] = {"seconds": seconds, **changes.grown()}
        return totals


class Qdiscs:
    """Queueing disciplines of a node's interfaces; where there are none it looks once a second.

    Without a handle are those that the kernel attaches by itself (noqueue): they are left out.
    """

    def __init__(self, place: Place, names: Interfaces, rows: list[Row]) -> None:
        self._question = _question(place)
        self._names, self._rows = names, rows
        self._known: dict[tuple[int, int], Changes] = {}
        self._next = self._now = 0.0

    def sample(self) -> int:
        """Ask once; how many queueing disciplines are known."""
        self._now = time.monotonic()
        if self._known or self._now >= self._next:
            self._question.ask(self._take)
            self._next = self._now + _SEARCH_S
        return len(self._known)

    def _take(self, buffer: bytearray, start: int, end: int) -> None:
        found = qdiscs.identity(buffer, start)
        values = qdiscs.values(buffer, start, end) if found.handle else None
        if values is None:
            return
        changes = self._known.get((found.ifindex, found.handle))
        if changes is None:
            kind = qdiscs.kind(buffer, start, end)
            at = "root" if found.parent == qdiscs.ROOT else qdiscs.handle_text(found.handle)
            source = f"{self._names.source(found.ifindex)} {kind} {at}"
            changes = Changes(source, qdiscs.METRICS, self._rows)
            self._known[found.ifindex, found.handle] = changes
        changes.sample(self._now, values)

    def end(self) -> None:
        """No further sample."""
        for changes in self._known.values():
            changes.end()


class EngineQueues:
    """The queues of links that the kernel shapes, in the namespace of their engine."""

    def __init__(self, place: Place, rows: list[Row]) -> None:
        self._question = _question(place)
        self._known = {
            index: Changes(source, qdiscs.METRICS, rows) for index, source in place.queues.items()
        }
        self._now = 0.0

    def sample(self) -> int:
        """Ask once; how many queues there are."""
        self._now = time.monotonic()
        self._question.ask(self._take)
        return len(self._known)

    def _take(self, buffer: bytearray, start: int, end: int) -> None:
        found = qdiscs.identity(buffer, start)
        if found.parent != qdiscs.ROOT or found.ifindex not in self._known:
            return
        values = qdiscs.values(buffer, start, end)
        if values is not None:
            self._known[found.ifindex].sample(self._now, values)

    def end(self) -> None:
        """No further sample."""
        for changes in self._known.values():
            changes.end()


def _question(place: Place) -> Question:
    with NetworkNamespace(place.fd):
        return Question(socket.NETLINK_ROUTE, qdiscs.RTM_GETQDISC, qdiscs.REQUEST)
