"""One seed, one sequence of losses on every link, however links are loaded and placed."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import cycle, islice
from random import Random

import pytest

from benchmarks.bank import Bank
from testbed.kernel.packet_batch import FrameBatch
from testbed.links import LinkSpec
from testbed.links.fabric.engine import FabricEngine

MODELS = [
    LinkSpec(loss=5),
    LinkSpec(delay="2ms", loss=10, loss_burst=4),
    LinkSpec(delay="5ms", jitter="4ms", loss=3),
    LinkSpec(delay="4ms", reorder=25, loss=8),
    LinkSpec(50, "1ms", loss=4, loss_burst=2, queue=20),
    LinkSpec(100, "3ms", jitter="1ms", loss=20, aqm="codel"),
]
LINKS = list(islice(cycle(MODELS), 12))
FRAMES = 12_000


def losses(seed: int, *, timing: int, workers: int, busy: bool) -> list[tuple[int, list[int]]]:
    """Of each link: how many frames met its loss model, and the numbers of those it took."""
    with Bank("fabric", LINKS, workers=workers, seed=seed) as bank:
        spin = [sys.executable, "-c", "while True: pass"]
        load = [subprocess.Popen(spin) for _ in range(2 if busy else 0)]
        try:
            send(bank, Random(timing))
        finally:
            for process in load:
                process.kill()
                process.wait()
        time.sleep(0.3)
        met = {
            report.wire: report.delivered_packets + report.lost_packets
            for report in bank.engines.reports()
            if report.direction.startswith("pa")
        }
        found = []
        for wire in bank.wires:
            engine = bank.engines.carrier(wire)
            assert isinstance(engine, FabricEngine)
            found.append((met[wire.name], engine.losses(wire)[0]))
        return found


def send(bank: Bank, timing: Random) -> None:
    """Frames of random sizes in random bursts at random moments, over all links."""
    header = b"\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a\x88\xb5"
    with bank.a:
        batch = FrameBatch()
    sent = 0
    while sent < FRAMES:
        runs = [
            (
                batch.address(port),
                [header + bytes(timing.randrange(50, 1200))] * timing.randrange(6),
            )
            for port in timing.sample(bank.near, 8)
        ]
        sent += sum(len(frames) for _address, frames in runs)
        batch.send(runs)
        time.sleep(timing.choice((0, 0.0002, 0.002)))
    batch.close()


@pytest.mark.live
def test_a_seed_fixes_every_links_losses_under_parallel_load() -> None:
    first = losses(7, timing=1, workers=2, busy=False)
    for again in (
        losses(7, timing=2, workers=2, busy=True),
        losses(7, timing=3, workers=1, busy=False),
    ):
        for (met, lost), (met_again, lost_again) in zip(first, again, strict=True):
            both = min(met, met_again)
            assert both > 300
            assert [n for n in lost if n <= both] == [n for n in lost_again if n <= both]
            assert len([n for n in lost if n <= both]) > 3
    sequences = [tuple(lost) for _met, lost in first]
    assert len(set(sequences)) == len(sequences)  # each link has its own
    assert [lost for _met, lost in losses(8, timing=1, workers=2, busy=False)] != [
        lost for _met, lost in first
    ]
