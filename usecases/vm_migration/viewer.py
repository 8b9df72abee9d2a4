"""The viewer's side of a trial: the player's reports, and waiting for what they say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from testbed.guests.qemu.vm import QemuVm
from testbed.run import Recorder
from traffic.live.player.program import EVENT
from usecases.vm_migration.viewing import Report, Viewing

_SAMPLES = (
    ("position", "position_s", "s"),
    ("buffer", "buffer_s", "s"),
    ("latency", "latency_s", "s"),
    ("bitrate", "bitrate_bps", "bit/s"),
    ("frames", "frames", ""),
)


class Viewer:
    """Takes down what players report, one after the other."""

    def __init__(self, record: Recorder) -> None:
        self.reports: list[Report] = []
        self._record = record
        self.session = -1
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        record.defer(self._stop)

    @property
    def viewing(self) -> Viewing:
        """All that was seen so far."""
        return Viewing(self.reports)

    def watch(self, vm: QemuVm, *, anew: bool) -> None:
        """Listen to a machine too; `anew`: another player runs in it than before."""
        self.session += anew
        task = asyncio.create_task(self._listen(vm, self.session))
        task.add_done_callback(self._ended)
        self._tasks.add(task)

    async def until(self, wanted: Callable[[Report], bool], limit_s: float) -> bool:
        """Wait for a report that is `wanted`, from the newest on; False if none came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not self.reports or not wanted(self.reports[-1]):
                    self._news.clear()
                    await self._news.wait()
                return True
        return False

    async def _listen(self, vm: QemuVm, session: int) -> None:
        async for line in vm.lines:
            said = line.json()
            if said["kind"] != "event":
                continue
            time_s = line.time_s - self._record.epoch
            if said["name"] != EVENT:
                self._record.event(said["name"], time_s=time_s, reason=said.get("reason", ""))
                continue
            self._take(Report.of(said, time_s, session))

    def _take(self, report: Report) -> None:
        self.reports.append(report)
        if report.shown:
            self._record.samples(
                (report.time_s, "viewer", metric, getattr(report, field), unit)
                for metric, field, unit in _SAMPLES
            )
        self._news.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._record.fail(error)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
