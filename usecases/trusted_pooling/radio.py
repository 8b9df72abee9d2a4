"""What the radio links deliver, from the counters of the interfaces at their far ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from testbed.run import Recorder
from usecases.trusted_pooling.sniffer import interface_counters

SAMPLE_S = 0.1
_LINKS = {
    "wifi": (("phone", "wifi"), ("ap", "wlan")),
    "lte": (("phone", "lte"), ("enodeb", "radio")),
}


class RadioMeter:
    """Records the throughput of WiFi and LTE, both ways together, while its block runs.

    Counted is what arrives: what leaves an interface only enters the link's queue.
    """

    def __init__(self, net: Any, record: Recorder) -> None:
        self._net, self._record = net, record
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> RadioMeter:
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

    def _delivered(self) -> dict[str, int]:
        return {
            link: sum(interface_counters(self._net[node], name)[0] for node, name in ends)
            for link, ends in _LINKS.items()
        }

    async def _measure(self) -> None:
        before, last = self._delivered(), time.monotonic()
        due = last
        while True:
            due += SAMPLE_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now, delivered = time.monotonic(), self._delivered()
            for link, count in delivered.items():
                rate_bps = (count - before[link]) * 8 / (now - last)
                self._record.sample(link, "throughput", rate_bps, "bit/s")
            before, last = delivered, now
