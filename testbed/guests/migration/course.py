"""The course of one migration: ordered, watched, and, when it fails, undone.

The guest is never let run at both ends.  Until it resumes at the target, whatever fails, the
target is killed before the source is told to go on.  From then on it is the target's: the source
is stopped, should it have missed that all is done.  Post-copy gives the source up as the guest
stops there; what fails later costs the guest, and the error says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from testbed.errors import ExperimentError
from testbed.guests.backend import Capability
from testbed.guests.migration.channel import Channel, opened
from testbed.guests.migration.options import MigrationOptions
from testbed.guests.migration.report import Moments, Phase, Progress, VmMigrationReport
from testbed.guests.migration.signs import ENDED, Signs
from testbed.guests.migration.userfault import require_userfault
from testbed.guests.qemu.command import QEMU
from testbed.guests.qemu.monitor import Event
from testbed.guests.qemu.vm import QemuVm

OnProgress = Callable[[Progress], None]
OnResume = Callable[[], Awaitable[object] | None]

_RECOVERY_S = 20.0
_FAREWELL_S = 5.0  # for the source to hear that the target has all; it gives up later than that
_LAST_WORDS_S = 1.0
_POLL_S = 0.05


class Migration:
    """One move of the guest of `source` to `target`, started with `incoming_from=source`.

    `address` is one of the target's namespace that the source's reaches.  `on_progress` is called
    some twenty times a second.  `on_resume` is called when the guest runs at the target: the
    place to change routes; what it returns is awaited where it can be.  When it fails, so does
    the migration.
    """

    def __init__(
        self,
        source: QemuVm,
        target: QemuVm,
        address: str,
        options: MigrationOptions | None = None,
        *,
        on_progress: OnProgress | None = None,
        on_resume: OnResume | None = None,
    ) -> None:
        self.options = options or MigrationOptions()
        self._source, self._target, self._address = source, target, address
        self._on_progress, self._on_resume = on_progress, on_resume
        self._asked_to_stop = asyncio.Event()
        self._signs = Signs(source, target)
        self._ordered_s = 0.0
        self._throttle = 0.0

    @property
    def phase(self) -> Phase:
        """Where it is."""
        return self._signs.phase

    def cancel(self) -> None:
        """Call it off: the guest goes on at the source, and `run` raises `ExperimentError`.

        Raises `ExperimentError` when it is too late, because the guest is the target's.
        """
        if self._signs.resumed:
            raise ExperimentError(
                f"migration of {self._source.name}: it is too late to cancel",
                remedy="migrate it back",
            )
        self._asked_to_stop.set()

    async def run(self) -> VmMigrationReport:
        """Migrate.  Afterwards the source stands still; it is to be closed.

        Raises `ExperimentError` when it fails, is cancelled or takes too long; the message says
        what has become of the guest.  The target is dead then.  `FeatureError` where the kernel
        lacks what the options take.
        """
        QemuVm.require(Capability.LIVE_MIGRATION)
        if self.options.method == "post-copy":
            require_userfault()
        try:
            async with (
                asyncio.timeout(self.options.limit_s),
                opened(self._source, self._target, self._address, self.options) as channel,
            ):
                try:
                    return await self._transfer(channel)
                except BaseException:
                    channel.cut()
                    raise
        except BaseException as error:
            await self._give_up(error)

    # -- the course ------------------------------------------------------------------------------

    async def _transfer(self, channel: Channel) -> VmMigrationReport:
        await self._order(channel)
        moving = asyncio.create_task(self._move(channel))
        helpers = [
            asyncio.create_task(self._watch(channel)),
            asyncio.create_task(self._wait_for_cancel()),
            asyncio.create_task(channel.adopt()),
        ]
        if self.options.method == "post-copy":
            helpers.append(asyncio.create_task(self._start_post_copy()))
        try:
            return await _unless_one_fails(moving, helpers)
        finally:
            for task in (moving, *helpers):
                task.cancel()
            await asyncio.gather(moving, *helpers, return_exceptions=True)

    async def _order(self, channel: Channel) -> None:
        for vm in (self._source, self._target):
            await vm.monitor.execute(
                "migrate-set-capabilities", {"capabilities": self.options.capabilities()}
            )
            await vm.monitor.execute("migrate-set-parameters", self.options.parameters())
        incoming = await channel.listen()
        await self._target.monitor.execute("migrate-incoming", {"uri": incoming})
        outgoing = await channel.outgoing()
        self._ordered_s = time.monotonic()
        await self._source.monitor.execute("migrate", {"uri": outgoing})

    async def _move(self, channel: Channel) -> VmMigrationReport:
        """Until the guest is the target's alone; what it took."""
        resuming = asyncio.create_task(self._signs.wait_for_resume())
        ending = asyncio.create_task(self._signs.wait_for_end())
        try:
            await asyncio.wait({resuming, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not resuming.done() and not await self._has_all(resuming):
                ending.result()  # raises, unless it is completed
            resumed = await resuming
            if self._on_resume is not None and (more := self._on_resume()) is not None:
                await more
            ended = await self._farewell(ending)
        finally:
            for task in (resuming, ending):
                task.cancel()
        return await self._report(channel, resumed, ended)

    async def _has_all(self, resuming: asyncio.Task[Event]) -> bool:
        """Had a source that is gone sent everything, so that the guest resumes without it?"""
        if self._signs.stopped and await _exited(self._source):
            await asyncio.wait({resuming}, timeout=_FAREWELL_S)
        return resuming.done() and resuming.exception() is None

    async def _farewell(self, ending: asyncio.Task[Event]) -> Event | None:
        """Wait for the source's word that all is done; without it, see that it stands still."""
        if self._signs.switched:
            return await ending
        ended = None
        with contextlib.suppress(ExperimentError, TimeoutError):  # the target has all it needs
            ended = await asyncio.wait_for(ending, _FAREWELL_S)
        if self._target.crashed.done():
            raise ExperimentError("the target's QEMU is gone")
        if ended is None and not self._source.crashed.done():
            await self._source.monitor.execute("stop")
        return ended

    async def _start_post_copy(self) -> None:
        await self._signs.wait_for_pass(self.options.passes_before_post_copy + 1)
        await self._source.monitor.execute("migrate-start-postcopy")

    async def _wait_for_cancel(self) -> None:
        await self._asked_to_stop.wait()
        raise ExperimentError("cancelled")

    async def _watch(self, channel: Channel) -> None:
        """Tell how far it is; raise when nothing gets through any more."""
        sent, moved_s, said = -1, time.monotonic(), dict[str, Any]()
        asking = asyncio.create_task(self._account())
        try:
            while True:
                if asking.done():
                    said, asking = asking.result(), asyncio.create_task(self._account())
                now, acknowledged = time.monotonic(), channel.acknowledged
                self._tell(
                    Progress.of(said, time_s=now, phase=self._signs.phase, sent=acknowledged)
                )
                if acknowledged != sent:
                    sent, moved_s = acknowledged, now
                elif now - moved_s > self.options.stall_limit_s:
                    raise ExperimentError(f"nothing got through for {now - moved_s:.0f} s")
                await asyncio.sleep(_POLL_S)
        finally:
            asking.cancel()

    def _tell(self, progress: Progress) -> None:
        self._throttle = max(self._throttle, progress.throttle)
        if self._on_progress is not None:
            self._on_progress(progress)

    async def _account(self) -> dict[str, Any]:
        """QEMU's own account at the source; nothing when it does not give one.

        It does not answer while it sends the last pass, and not when it is gone, which `_move`
        hears of.
        """
        try:
            said: dict[str, Any] = await self._source.monitor.execute("query-migrate")
        except ExperimentError:
            return {}
        return said

    async def _report(
        self, channel: Channel, resumed: Event, ended: Event | None
    ) -> VmMigrationReport:
        stopped = self._signs.stopped
        assert stopped is not None
        last = resumed if ended is None else max(resumed, ended, key=lambda event: event.time_s)
        ram = (await self._account()).get("ram", {})
        return VmMigrationReport(
            method=self.options.method,
            moments=Moments(
                ordered_s=self._ordered_s,
                passes=tuple(self._signs.monotonic(event) for event in self._signs.passes),
                stopped_s=self._signs.monotonic(stopped),
                resumed_s=self._signs.monotonic(resumed),
                completed_s=self._signs.monotonic(last),
            ),
            bytes=channel.acknowledged,
            rounds=ram.get("dirty-sync-count", 0),
            pages=ram.get("normal", 0),
            zero_pages=ram.get("duplicate", 0),
            throttle=self._throttle,
        )

    # -- when it fails ---------------------------------------------------------------------------

    async def _give_up(self, error: BaseException) -> NoReturn:
        """See to it that the guest runs at the source or nowhere, and say which."""
        reason = await self._reason(error)
        fate = await self._fate()
        if not isinstance(error, (ExperimentError, OSError, TimeoutError)):
            raise error
        raise ExperimentError(
            f"migration of {self._source.name} to {self._address}: {reason} ({fate})"
        ) from error

    async def _reason(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"not done after {self.options.limit_s:.0f} s"
        if self._asked_to_stop.is_set() or not isinstance(error, (ExperimentError, OSError)):
            return str(error)
        # what the target says as it ends tells most
        if await _exited(self._target) and (said := _complaint(self._target)):
            return f"the target refuses: {said}"
        return str(error)

    async def _fate(self) -> str:
        resumed = self._signs.resumed
        self._target.process.kill()
        if self._signs.switched and resumed:
            return "the guest is lost: it ran at the target, without all of its memory"
        try:
            await self._go_on()
        except (ExperimentError, TimeoutError) as error:
            if await _exited(self._source):
                return "the guest is lost with the source's QEMU"
            return f"what became of the guest is not known: {error or 'its QEMU does not end this'}"
        return "it goes on where it was"

    async def _go_on(self) -> None:
        """Let the source's guest run again, whatever state the migration is in."""
        async with asyncio.timeout(_RECOVERY_S):
            await self._source.monitor.execute("migrate_cancel")
            while (await self._status()) not in (*ENDED, "none", "postcopy-paused"):
                await asyncio.sleep(_POLL_S)
            if (await self._source.monitor.execute("query-status"))["status"] != "running":
                await self._source.monitor.execute("cont")

    async def _status(self) -> str:
        said = await self._source.monitor.execute("query-migrate")
        return str(said.get("status", "none"))


async def _unless_one_fails(
    main: asyncio.Task[VmMigrationReport], helpers: list[asyncio.Task[None]]
) -> VmMigrationReport:
    """What `main` returns; the failure of a helper is its own."""
    waiting: set[asyncio.Task[Any]] = {main, *helpers}
    while not main.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {main}:
            task.result()
    return main.result()


async def _exited(vm: QemuVm) -> bool:
    """Has this QEMU ended, or does it in a moment?"""
    await asyncio.wait({vm.crashed}, timeout=_LAST_WORDS_S)
    return vm.crashed.done()


def _complaint(vm: QemuVm) -> str:
    """The first thing that QEMU itself said, which is the cause of what follows."""
    for line in vm.process.said.splitlines():
        if line.startswith(f"{QEMU}: "):
            return line.removeprefix(f"{QEMU}: ").strip()
    return ""
