"""Queues that a link's engine keeps itself, out of the kernel's sight (the fabric's).

They are asked of the engine by the trial's process, which alone can talk to it: once an instant,
all queues at once.  The kernel's own queues are the sampler's business (`counts`).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from testbed.errors import TestbedError
from testbed.observe.changes import Changes, Row
from testbed.observe.qdiscs import METRICS
from testbed.run.recorder import Recorder

_METRICS = METRICS[:3]  # what waits, and drops


class EngineQueues:
    """Samples the queues of a network's engines into `record`.

    `names` are the directions' names in the records, by wire and direction.
    """

    def __init__(
        self, engines: Any, names: dict[tuple[str, int], str], record: Recorder, interval_s: float
    ) -> None:
        self.cpu_s = 0.0
        self._engines, self._names = engines, names
        self._record, self._interval_s = record, interval_s
        self._rows: list[Row] = []
        self._known: dict[tuple[str, int], Changes] = {}
        self._task: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin, if there are any such queues."""
        if self._engines is not None and self._sample():
            self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        due = time.monotonic()
        try:
            while True:
                due = max(due + self._interval_s, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
                self._sample()
        except TestbedError as error:
            self._record.fail(error)

    def _sample(self) -> int:
        """Ask once; how many queues there are."""
        now, began = time.monotonic(), time.thread_time()
        found = self._engines.waiting()
        for key, values in found.items():
            if key in self._names:
                changes = self._known.get(key)
                if changes is None:
                    changes = self._known[key] = Changes(self._names[key], _METRICS, self._rows)
                changes.sample(now, values)
        self._hand_on()
        self.cpu_s += time.thread_time() - began
        return len(found)

    def _hand_on(self) -> None:
        self._record.observed(self._rows)
        self._rows.clear()

    async def stop(self) -> None:
        """No further sample."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for changes in self._known.values():
            changes.end()
        self._hand_on()
