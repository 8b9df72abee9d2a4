"""Live migration of a guest to a QEMU in another namespace, over the network between.

options     how: pre-copy or post-copy, limits, compression, streams
channel     the connections that memory travels in, made by the testbed, and their counters
course      one migration: ordered, watched, cancelled, undone
report      progress on the way, and what it took
userfault   may post-copy be had here?

report = await migrate(source, target, "10.2.0.1", MigrationOptions(downtime_limit_s=0.1))
"""

from testbed.guests.migration.course import Migration, OnProgress, OnResume
from testbed.guests.migration.options import Compression, Method, MigrationOptions
from testbed.guests.migration.report import Moments, Phase, Progress, VmMigrationReport
from testbed.guests.migration.userfault import why_no_userfault
from testbed.guests.qemu.vm import QemuVm

__all__ = [
    "Compression",
    "Method",
    "Migration",
    "MigrationOptions",
    "Moments",
    "OnProgress",
    "OnResume",
    "Phase",
    "Progress",
    "VmMigrationReport",
    "migrate",
    "why_no_userfault",
]


async def migrate(
    source: QemuVm,
    target: QemuVm,
    address: str,
    options: MigrationOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_resume: OnResume | None = None,
) -> VmMigrationReport:
    """Move the guest of `source` to `target`: `Migration.run`, for who need not cancel it."""
    move = Migration(source, target, address, options, on_progress=on_progress, on_resume=on_resume)
    return await move.run()
