"""The player in a guest: it plays and draws there, and goes on on another display."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from traffic_lab import Line, Program

from testbed.guests import Machine, QemuVm
from testbed.guests.images import find, missing
from testbed.guests.tap import Tap
from testbed.network import Network
from topologies.star import Star
from traffic.live.archive import player_archive

ABSENT = missing("micro")
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=ABSENT or "not skipped")
MAC, TAP_MAC = "52:54:00:00:00:02", "52:54:00:00:00:01"
COMMAND = "python3 /run/player.pyz {url} --behind 3 --display --report /dev/reports"
LIMIT_S = 120


def cable(node: Any) -> Tap:
    tap = Tap("vm", node.netns)
    tap.configure(mac=TAP_MAC, address="10.9.0.1/24", neighbour="10.9.0.2", neighbour_mac=MAC)
    return tap


async def until(vm: QemuVm, wanted: Callable[[Line], bool]) -> Line:
    """The guest's next report that is as `wanted`."""
    async with asyncio.timeout(LIMIT_S):
        async for line in vm.lines:
            said: Line = line.json()
            if said.get("name") == "player" and wanted(said):
                return said
    raise AssertionError("the guest is gone")


async def colours(vm: QemuVm, path: Path) -> list[str]:
    """The display's size, and of the picture the first and the last of its six columns."""
    await vm.screenshot(path)
    pixels = matplotlib.image.imread(path)
    height, width = pixels.shape[:2]
    names = {(1, 0, 0): "red", (0, 1, 1): "cyan"}
    most = []
    for twelfth in (1, 11):  # things move through the picture: what most of a column is
        column = pixels[: int(height * 0.8), width * twelfth // 12, :3]
        most.append(Counter(tuple(round(float(c)) for c in dot) for dot in column).most_common(1))
    return [f"{width}x{height}", *(names.get(seen[0][0], str(seen)) for seen in most)]


@pytest.mark.live
def test_a_guest_plays_and_goes_on_on_another_display(tmp_path: Path) -> None:
    async def use(net: Network, port: int) -> None:
        node = net["h1"]
        machine = Machine(
            find("micro"), memory_mb=128, macs=(MAC,), name="viewer", display=(480, 320)
        )
        async with await QemuVm.start(machine, node.netns, [cable(node)]) as vm:
            await vm.ready()
            await vm.run("ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up")
            await vm.put("/run/player.pyz", await asyncio.to_thread(player_archive))
            url = f"http://10.9.0.1:{port}/live.m3u8"
            await vm.run(f"{COMMAND.format(url=url)} >/dev/console 2>&1 &")
            before = await until(vm, lambda said: said["shown"] > 12)
            assert before["display"] == "480x320"
            assert await colours(vm, tmp_path / "1.png") == ["480x320", "red", "cyan"]
            await vm.save(tmp_path / "state")
        other = dataclasses.replace(machine, display=(640, 400))
        state = tmp_path / "state"
        async with await QemuVm.restore(state, other, node.netns, [cable(node)]) as vm:
            after = await until(
                vm, lambda said: said["display"] == "640x400" and said["bytes"] > before["bytes"]
            )
            assert await colours(vm, tmp_path / "2.png") == ["640x400", "red", "cyan"]
        assert after["connection"] == before["connection"]
        assert after["connections"] == 1
        # by the guest's clock nothing was between
        moved, passed, stalled, missed = (
            after[key] - before[key] for key in ("position_s", "time", "stalled_s", "missed_s")
        )
        assert moved == pytest.approx(passed - stalled + missed, abs=0.1)

    with Network(Star(2)) as net, Program(net["h1"], "live.server") as serving:
        asyncio.run(use(net, serving.ready()["port"]))
