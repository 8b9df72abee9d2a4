"""What a trial plays on: the network with its server, the machines, the viewer."""

from __future__ import annotations

import asyncio
import shlex
import sys
from typing import Any

from testbed.errors import ExperimentError
from testbed.guests.network import GuestNetwork, readdress
from testbed.guests.qemu.vm import QemuVm
from testbed.mptcp.configure import MAX_SUBFLOWS, configure
from testbed.mptcp.path_manager import PathManager
from testbed.run import NodeProcess, Recorder
from traffic.live.archive import player_archive
from usecases.vm_migration.berths import DEVICE
from usecases.vm_migration.journey import MIGRATE_TCP
from usecases.vm_migration.machines import Machines
from usecases.vm_migration.parameters import VmMigrationParameters
from usecases.vm_migration.viewer import Viewer
from usecases.vm_migration.viewing import Report

_PLAYER = "/run/player.pyz"
# what gives a machine its new address comes first, also when QEMU has to translate all anew
_YIELDING = f"import os, runpy; os.nice(19); runpy.run_path('{_PLAYER}', run_name='__main__')"
_PLAYING_LIMIT_S = 60.0


class Stage:
    """One trial's; `open` sets the server up, `show` has a player play in a machine."""

    def __init__(self, net: Any, params: VmMigrationParameters, record: Recorder) -> None:
        self.net, self.params, self.record = net, params, record
        self.variant = record.trial.variant
        self.mptcp = self.variant != MIGRATE_TCP
        self.machines = Machines(net, params, record)
        self.viewer = Viewer(record)
        self._url = ""

    async def open(self) -> None:
        """Start the live stream."""
        server = self.net["server"]
        configure(server.netns, enabled=True, congestion="reno")
        with PathManager(server.netns) as manager:
            manager.set_limits(subflows=MAX_SUBFLOWS, add_addr_accepted=MAX_SUBFLOWS)
        video = self.params.video
        argv = [sys.executable, "-m", "traffic.live.server", "--mptcp", "--congestion", "cubic"]
        argv += ["--ladder", video.ladder, "--frame-rate", str(video.pictures)]
        process = await NodeProcess.start(server, argv, self.record, name="server")
        said = await process.ready(_PLAYING_LIMIT_S)
        self._url = f"http://{server.IP()}:{said['port']}{said['path']}"

    async def show(self, vm: QemuVm) -> None:
        """Start a player in a machine, and wait until it plays."""
        await vm.put(_PLAYER, await asyncio.to_thread(player_archive))
        video = self.params.video
        words = [
            "python3", "-c", _YIELDING, self._url, "--display", "--reconnect",
            "--report", "/dev/reports", "--behind", str(video.behind),
            "--timeout", str(video.patience), "--mptcp" if self.mptcp else "--tcp",
        ]  # fmt: skip
        self.viewer.watch(vm, anew=True)
        await vm.run(f"{shlex.join(words)} >/dev/console 2>&1 &")
        session = self.viewer.session

        def plays(report: Report) -> bool:
            return report.session == session and report.state == "playing"

        if not await self.viewer.until(plays, _PLAYING_LIMIT_S):
            raise ExperimentError(
                f"no picture within {_PLAYING_LIMIT_S:.0f} s of the player's start: "
                f"{vm.last_words()}"
            )

    async def readdress(self, vm: QemuVm, source: str, target: str) -> None:
        """Give a machine that has come from one device to another its address there.

        With Multipath TCP its connections go on over a subflow from there: the address is an
        endpoint, and the subflow that cannot live on, the connection's first or a later one, is
        given up, of which the server is told.
        """
        here, there = self.machines.berths[target], self.machines.berths[source]
        await readdress(
            vm,
            GuestNetwork(
                device=DEVICE,
                addresses=(here.address,),
                gateways=(here.gateway,),
                left=(there.ip,),
                mptcp=self.mptcp,
            ),
        )
