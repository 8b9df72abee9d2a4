"""Migrating machines (D3.1 2.1), as the testbed sees it: topology, one trial, claims, figures."""

from __future__ import annotations

import os
from typing import Any

from testbed.run import Recorder, UseCase
from usecases.vm_migration.claims import CLAIMS
from usecases.vm_migration.figures import FIGURES
from usecases.vm_migration.journey import VARIANTS
from usecases.vm_migration.parameters import VmMigrationParameters


class VmMigration(UseCase[VmMigrationParameters]):
    """See the package's docstring."""

    name = "vm_migration"
    section = "D3.1 2.1"
    title = "Virtual machines that migrate"
    summary = (
        "A video application moves in its virtual machine from a phone to a tablet in another "
        "subnet; Multipath TCP in the machine keeps its connection."
    )
    Parameters = VmMigrationParameters
    variants = VARIANTS
    quick = {"before": 4.0, "after": 6.0}  # noqa: RUF012 - the base class declares it so
    quick_repeats = 1
    claims = CLAIMS
    figures = FIGURES

    def topology(self, params: VmMigrationParameters) -> Any:
        """A phone, a tablet, and their ways to the server; `ParameterError` for bad displays."""
        from topologies.devices import Devices

        params.machine.displays()
        return Devices(
            wifi_bw=params.wifi.bw,
            wifi_delay=f"{params.wifi.delay}ms",
            wifi_loss=params.wifi.loss or None,
            lte_bw=params.lte.bw,
            lte_delay=f"{params.lte.delay}ms",
            lte_loss=params.lte.loss or None,
            peer_bw=params.peer.bw,
            peer_delay=f"{params.peer.delay}ms" if params.peer.delay else None,
            cpu=params.machine.cpu / 100 / (os.cpu_count() or 1),
        )

    async def run(self, net: Any, params: VmMigrationParameters, record: Recorder) -> None:
        """One trial."""
        from usecases.vm_migration.travel import travel

        await travel(net, params, record)
