"""One trial: a machine with its video on the phone, and the moves of its journey."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from testbed.links import LinkSpec
from testbed.observe import throughput
from testbed.observe.throughput import ThroughputMeter
from testbed.run import Recorder
from usecases.vm_migration import account
from usecases.vm_migration.account import Watched
from usecases.vm_migration.devices import cpu_s, loaded
from usecases.vm_migration.journey import BACK, LOAD, PHONE, TABLET, Leg, journey
from usecases.vm_migration.movers import Mover, mover
from usecases.vm_migration.parameters import VmMigrationParameters
from usecases.vm_migration.stage import Stage
from usecases.vm_migration.subflows import Subflows
from usecases.vm_migration.viewing import Report

LINKS = {
    "wifi": ((PHONE, "wifi"), ("ap", "wlan")),
    "lte": ((TABLET, "lte"), ("enodeb", "radio")),
    "peer": ((PHONE, "peer"), (TABLET, "peer")),
}
_SETTLE_S = 1.0  # between a change of the setting and what is measured of it
_RECOVERY_S = 45.0  # for the video to go on after a move
_MEASURED_S = 4.0  # at the end of what is watched


async def travel(net: Any, params: VmMigrationParameters, record: Recorder) -> None:
    """Boot, play, and make every move of the variant's journey."""
    stage = Stage(net, params, record)
    legs = journey(stage.variant, scenario=params.scenario, once=params.once)
    _tell_setting(stage)
    record.progress(0.0, "booting")
    record.start_clock()
    await stage.open()
    vm = await stage.machines.boot(legs[0].source)
    paths = {berth.ip: device for device, berth in stage.machines.berths.items()}
    with (
        ThroughputMeter(record, _interfaces(net)),
        Subflows(record, net["server"], paths) as subflows,
    ):
        await stage.show(vm)
        carrier = mover(stage, vm)
        for number, leg in enumerate(legs):
            record.progress((number + 0.5) / (len(legs) + 0.5), leg.title)
            with _circumstances(stage, leg):
                await Travel(stage, carrier, subflows, leg).make()


def _interfaces(net: Any) -> dict[str, list[Any]]:
    return {
        link: [net[node].nameToIntf[name] for node, name in ends] for link, ends in LINKS.items()
    }


def _tell_setting(stage: Stage) -> None:
    """Record the topology as it runs: links with what they do, addresses of the machine."""
    names = {frozenset(node for node, _name in ends): link for link, ends in LINKS.items()}
    links = []
    for link in stage.net.links:
        ends = [str(intf.node.name) for intf in (link.intf1, link.intf2)]
        told = _spec(link.specs[0]) if getattr(link, "specs", None) else ""
        links.append({"ends": ends, "name": names.get(frozenset(ends), ""), "spec": told})
    addresses = {device: berth.ip for device, berth in stage.machines.berths.items()}
    stage.record.event("setting", links=links, addresses=addresses)


def _spec(spec: LinkSpec) -> str:
    """What a link does, for people ("8 Mb/s, 25 ms, 1% lost")."""
    texts = [f"{spec.rate_bps / 1e6:g} Mb/s"] if spec.rate_bps else []
    texts += [f"{spec.delay_s * 1e3:g} ms"] if spec.delay_s else []
    texts += [f"{spec.loss_ratio:.2%} lost"] if spec.loss_ratio else []
    return ", ".join(texts)


@contextlib.contextmanager
def _circumstances(stage: Stage, leg: Leg) -> Iterator[None]:
    """What a move is made for, from before it to the end of what is watched after it."""
    wifi = stage.net[PHONE].nameToIntf["wifi"].link
    if leg in (BACK, LOAD):
        wifi.update(bw=stage.params.wifi.better)
    with loaded(stage.net[PHONE], stage.params.tasks if leg is LOAD else 0):
        yield


class Travel:
    """One move, and what is watched around it."""

    def __init__(self, stage: Stage, carrier: Mover, subflows: Subflows, leg: Leg) -> None:
        self._stage, self._carrier, self._subflows, self._leg = stage, carrier, subflows, leg
        self._record, self._params = stage.record, stage.params

    async def make(self) -> None:
        """Watch, move, watch, and record what came of it."""
        await asyncio.sleep(_SETTLE_S)
        start_s, spent, carried = self._record.now(), [cpu_s(self._stage.net)], self._carried()
        await asyncio.sleep(self._params.before)
        await self._photograph("before", self._leg.source)
        began_s = self._record.now()
        spent.append(cpu_s(self._stage.net))
        moved = (await self._carrier.move(self._leg)).since(self._record.epoch)
        await self._stage.viewer.until(
            lambda report: self._goes_on(report, moved.stopped_s), _RECOVERY_S
        )
        measured_s = min(_MEASURED_S, self._params.after)
        await asyncio.sleep(self._params.after - measured_s)
        settled_s = self._record.now()
        spent.append(cpu_s(self._stage.net))
        await asyncio.sleep(measured_s)
        watched = Watched(start_s=start_s, settled_s=settled_s, end_s=self._record.now())
        spent.append(cpu_s(self._stage.net))
        await self._photograph("after", self._leg.target)
        gap_s = self._subflows.gap_s(self._leg.target, moved.stopped_s, watched.end_s)
        account.tell(self._record, self._leg, moved, watched, self._stage.viewer.viewing, gap_s)
        self._tell_paths(carried)
        self._tell_devices(spent, began_s - start_s, measured_s)

    def _goes_on(self, report: Report, since_s: float) -> bool:
        """Does the video come over the new path, and the picture move?"""
        now = self._record.now()
        came = self._subflows.gap_s(self._leg.target, since_s, now) < now - since_s
        return came and report.state == "playing"

    async def _photograph(self, when: str, device: str) -> None:
        """Take a screenshot, and note how large the picture is and what the device offers."""
        name = f"{self._record.trial.label}-{self._leg.name}-{when}.png"
        path = Path("pictures", name)
        (self._record.folder / path).parent.mkdir(exist_ok=True)
        await self._carrier.vm.screenshot(self._record.folder / path)
        self._record.event(
            "display", leg=self._leg.name, when=when, picture=str(path),
            mode=self._stage.viewer.reports[-1].display,
            offered=self._stage.machines.display(device),
        )  # fmt: skip

    def _carried(self) -> Mapping[str, float]:
        """Bytes of links, and of paths by the server's count, so far."""
        links = {n: float(throughput.received(*i)) for n, i in _interfaces(self._stage.net).items()}
        return links | {device: self._subflows.carried(device) for device in (PHONE, TABLET)}

    def _tell_paths(self, before: Mapping[str, float]) -> None:
        for name, count in self._carried().items():
            metric = "subflow" if name in (PHONE, TABLET) else "carried"
            self._record.result(metric, count - before[name], "B", f"{self._leg.name}.{name}")

    def _tell_devices(
        self, spent: list[Mapping[str, float]], before_s: float, after_s: float
    ) -> None:
        """Processor time of all that was watched, and as a share of one before and after."""
        for device in (PHONE, TABLET):
            first, began, settled, last = (each[device] for each in spent)
            source = f"{self._leg.name}.{device}"
            self._record.result("cpu", last - first, "s", source)
            self._record.result("cpu_before", (began - first) / before_s, "", source)
            self._record.result("cpu_after", (last - settled) / after_s, "", source)
