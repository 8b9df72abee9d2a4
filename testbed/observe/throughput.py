"""Throughput of links, from the kernel's counters of the interfaces that they end at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from testbed.links import counters
from testbed.run.recorder import Recorder

SAMPLE_S = 0.1


def received(*interfaces: Any) -> int:
    """Bytes that interfaces of nodes have received so far, Ethernet headers included."""
    return sum(map(_received, interfaces))


class ThroughputMeter:
    """Records the throughput of links, in bit/s every 100 ms, while its `with` block runs.

    `links` names each link and its interfaces.  Counted is what arrives there: what leaves an
    interface only enters the link's queue.  Samples are called `throughput` and come from the
    link's name, or from `SOURCE.LINK` where `source` is set; with None nothing is recorded.
    A failure is the trial's.
    """

    def __init__(
        self, record: Recorder, links: Mapping[str, Sequence[Any]], *, source: str | None = ""
    ) -> None:
        self.source = source
        self._record, self._links = record, dict(links)
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
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
        before, last = self._delivered(), time.monotonic()
        due = last
        while True:
            due += SAMPLE_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now, delivered = time.monotonic(), self._delivered()
            if self.source is not None:
                rates = ((n - before[link]) * 8 / (now - last) for link, n in delivered.items())
                self._tell(rates)
            before, last = delivered, now

    def _delivered(self) -> dict[str, int]:
        return {link: received(*interfaces) for link, interfaces in self._links.items()}

    def _tell(self, rates_bps: Iterable[float]) -> None:
        prefix = f"{self.source}." if self.source else ""
        for link, rate_bps in zip(self._links, rates_bps, strict=True):
            self._record.sample(f"{prefix}{link}", "throughput", rate_bps, "bit/s")


def _received(interface: Any) -> int:
    with interface.node.netns:
        return counters.interface(interface.index).rx_bytes
