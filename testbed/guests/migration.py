"""Live migration (pre-copy) of a guest to a QEMU in another namespace, over the network between.

The memory travels in one TCP connection from the source's namespace to an address in the
target's, while the guest runs; pages it writes meanwhile are sent again, and for the last ones
it stands still.  The connection's two ends are made here and handed to the two QEMUs, so that
what it carried can be read from the kernel.  Whatever fails on the way, the guest goes on at the
source; the two never run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from testbed.errors import ExperimentError
from testbed.guests.qemu.monitor import Event
from testbed.guests.qemu.vm import QemuVm
from testbed.mptcp.counters import TCP_INFO

_DESCRIPTOR = "migration"
_ENDED = ("completed", "failed", "cancelled")
_BYTES_ACKED = 34  # place of tcpi_bytes_acked in TCP_INFO
_CAPABILITIES = [
    {"capability": "events", "state": True},
    # the source is done only when the target says that it has all
    {"capability": "return-path", "state": True},
]
_RECOVERY_S = 20.0
_POLL_S = 0.02


@dataclass(frozen=True)
class VmMigrationReport:
    """What a migration took.

    `downtime_s`: from QEMU's event STOP at the source to RESUME at the target.  `total_s`: from
    the order to the later of RESUME and the source's word that all is done.  `bytes`: payload of
    the TCP connection, by the kernel's count of what was acknowledged.  `rounds`: passes over
    the guest's memory.  `pages` were sent whole, `zero_pages` as zeroes, by QEMU's count.
    """

    downtime_s: float
    total_s: float
    bytes: int
    rounds: int
    pages: int
    zero_pages: int


async def migrate(
    source: QemuVm,
    target: QemuVm,
    address: str,
    *,
    on_resume: Callable[[], None] | None = None,
    downtime_limit_s: float = 0.3,
    congestion: str = "cubic",
    limit_s: float = 300.0,
) -> VmMigrationReport:
    """Move the guest of `source` to `target`, started with `incoming_from=source`.

    `address` is one of the target's namespace that the source's reaches.  `on_resume` is called
    when the guest runs at the target: the place to change routes.  QEMU stops the guest for the
    last round when it expects that one to take at most `downtime_limit_s`.  `congestion` is the
    connection's congestion control.  Afterwards the source stands still; it is to be closed.

    Raises `ExperimentError` when it fails or takes longer than `limit_s`; the guest then runs at
    the source, and the target is dead.
    """
    try:
        async with (
            asyncio.timeout(limit_s),
            _connection(source, target, address, congestion) as end,
        ):
            return await _transfer(source, target, end, downtime_limit_s, on_resume)
    except BaseException as error:
        await _go_on(source, target)
        if isinstance(error, TimeoutError):
            why = f"not done after {limit_s:.0f} s"
        elif isinstance(error, (ExperimentError, OSError)):
            why = str(error)
        else:
            raise
        raise ExperimentError(
            f"migration of {source.machine.name} to {address}: {why} (it goes on where it was)"
        ) from error


@contextlib.asynccontextmanager
async def _connection(
    source: QemuVm, target: QemuVm, address: str, congestion: str
) -> AsyncIterator[socket.socket]:
    """Connect the two QEMUs; a duplicate of the source's end, to read counters from."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        with target.namespace:
            listener = stack.enter_context(socket.create_server((address, 0), family=family))
        with source.namespace:
            end = stack.enter_context(socket.socket(family))
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        for ours in (listener, end):
            ours.setblocking(False)
        accepting = asyncio.create_task(loop.sock_accept(listener))
        try:
            await loop.sock_connect(end, listener.getsockname()[:2])
            there, _address = await accepting
        finally:
            accepting.cancel()
        with there:  # the target's is QEMU's alone: it ends with that QEMU
            await target.monitor.hand_over(there, _DESCRIPTOR)
        await source.monitor.hand_over(end, _DESCRIPTOR)
        yield end


async def _transfer(
    source: QemuVm,
    target: QemuVm,
    end: socket.socket,
    downtime_limit_s: float,
    on_resume: Callable[[], None] | None,
) -> VmMigrationReport:
    for vm in (source, target):
        await vm.monitor.execute("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
    # the network is the limit, not QEMU
    limits = {"downtime-limit": round(downtime_limit_s * 1000), "max-bandwidth": 1 << 40}
    await source.monitor.execute("migrate-set-parameters", limits)
    seen = len(source.monitor.events)
    await target.monitor.execute("migrate-incoming", {"uri": f"fd:{_DESCRIPTOR}"})
    ordered_s = time.time()
    await source.monitor.execute("migrate", {"uri": f"fd:{_DESCRIPTOR}"})
    resuming = asyncio.create_task(_resumed(target, on_resume))
    ending = asyncio.create_task(_completed(source, seen))
    try:
        resumed, ended = await asyncio.gather(resuming, ending)
    finally:
        for task in (resuming, ending):
            task.cancel()
    stopped = next(e for e in source.monitor.events[seen:] if e.name == "STOP")
    said = await source.monitor.execute("query-migrate")
    return VmMigrationReport(
        downtime_s=resumed.time_s - stopped.time_s,
        total_s=max(resumed.time_s, ended.time_s) - ordered_s,
        bytes=_acknowledged(end),
        rounds=said["ram"]["dirty-sync-count"],
        pages=said["ram"]["normal"],
        zero_pages=said["ram"]["duplicate"],
    )


async def _resumed(target: QemuVm, on_resume: Callable[[], None] | None) -> Event:
    event = await target.monitor.event(lambda event: event.name == "RESUME")
    if on_resume is not None:
        on_resume()
    return event


async def _completed(source: QemuVm, since: int) -> Event:
    event = await _ended(source, since)
    if event.data["status"] != "completed":
        said: dict[str, Any] = await source.monitor.execute("query-migrate")
        raise ExperimentError(said.get("error-desc", f"it {event.data['status']}"))
    return event


async def _ended(source: QemuVm, since: int) -> Event:
    return await source.monitor.event(
        lambda event: event.name == "MIGRATION" and event.data["status"] in _ENDED, since=since
    )


def _acknowledged(end: socket.socket) -> int:
    data = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
    return int(TCP_INFO.unpack(data.ljust(TCP_INFO.size, b"\0"))[_BYTES_ACKED])


async def _go_on(source: QemuVm, target: QemuVm) -> None:
    """See to it that the guest runs at the source, and nowhere else."""
    target.process.kill()
    target.process.wait()
    async with asyncio.timeout(_RECOVERY_S):
        await source.monitor.execute("migrate_cancel")
        while (await source.monitor.execute("query-migrate")).get("status", "none") not in (
            *_ENDED,
            "none",
        ):
            await asyncio.sleep(_POLL_S)
        if (await source.monitor.execute("query-status"))["status"] != "running":
            await source.monitor.execute("cont")
