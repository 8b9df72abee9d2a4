"""Frames that ports refused because their link was down, told from those that the kernel lost.

A node that sends before it has noticed that its carrier is gone finds a port that is down, and so
does an engine that has a frame for it; the kernel counts that with a port's other drops.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable
from typing import NamedTuple

from testbed.kernel import NetworkNamespace
from testbed.links import counters
from testbed.links.engine import DirectionReport


class _Drops(NamedTuple):
    """Frames that a port dropped: received ones, and ones to be sent."""

    received: int
    sent: int


class Outages:
    """What the ports of one engine refused while they were down."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._refused: dict[int, _Drops] = {}
        self._since: dict[int, _Drops] = {}

    def begin(self, ports: Iterable[int]) -> None:
        """The ports are about to go down."""
        with self._lock:
            self._since.update({port: self._drops(port) for port in ports})

    def end(self, ports: Iterable[int]) -> None:
        """The ports are up again."""
        with self._lock:
            for port in ports:
                if port in self._since:
                    self._refused[port] = self._count(port)
                    del self._since[port]

    def account(self, report: DirectionReport, source: int, target: int) -> DirectionReport:
        """The report of the direction between two ports, refused frames in their place."""
        with self._lock:
            refused = self._count(source).received + self._count(target).sent
        refused = min(refused, report.outside_drops)
        return dataclasses.replace(
            report,
            outside_drops=report.outside_drops - refused,
            down_drops=report.down_drops + refused,
        )

    def _count(self, port: int) -> _Drops:
        before = self._refused.get(port, _Drops(0, 0))
        if port not in self._since:
            return before
        now, since = self._drops(port), self._since[port]
        return _Drops(
            before.received + now.received - since.received, before.sent + now.sent - since.sent
        )

    def _drops(self, port: int) -> _Drops:
        with self._namespace:
            found = counters.interface(port)
        return _Drops(found.rx_dropped, found.tx_dropped)
