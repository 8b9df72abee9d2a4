"""Several workers of the fabric: what one of them suffers, and many links."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

import pytest

from benchmarks.bank import Bank
from testbed.errors import EngineError
from testbed.kernel.packet_batch import CAPACITY, FrameBatch
from testbed.links import DirectionReport, LinkSpec

pytestmark = pytest.mark.live

FRAME = b"\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a\x88\xb5" + bytes(50)
RING = 8192


def bank(links: int) -> Bank:
    return Bank("fabric", [LinkSpec(delay="1ms")] * links, workers=2)


def send(links: Bank, times: int, ports: Sequence[int] = ()) -> None:
    """That many frames over every link, or those at `ports`."""
    with links.a:
        batch = FrameBatch()
    addresses = [batch.address(port) for port in ports or links.near]
    for start in range(0, len(addresses), CAPACITY):
        some = addresses[start : start + CAPACITY]
        for _ in range(times):
            assert batch.send([(address, [FRAME]) for address in some]) == []
    batch.close()


def there(links: Bank) -> list[DirectionReport]:
    """The directions that frames were sent in."""
    return [report for report in links.engines.reports() if report.direction.startswith("pa")]


def soon(links: Bank, done: Callable[[DirectionReport], bool]) -> list[DirectionReport]:
    """Reports, when all of them are so; as they are after half a minute."""
    deadline = time.monotonic() + 30
    while not all(map(done, found := there(links))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_hundreds_of_links_over_two_workers() -> None:
    with bank(300) as links:
        assert len({status.pid for status in links.engines.workers()}) == 2
        send(links, 3)
        found = soon(links, lambda report: report.delivered_packets == 3)
        assert [report.delivered_packets for report in found] == [3] * 300
        statuses = links.engines.workers()
        assert all(status.cpu_s > 0 and status.ring_drops == 0 for status in statuses)


def test_frames_that_a_full_ring_turned_away_are_counted_exactly() -> None:
    with bank(2) as links:
        slow, _other = links.engines.workers()
        os.kill(slow.pid, signal.SIGSTOP)
        send(links, 1000)
        send(links, RING, links.near[:1])
        os.kill(slow.pid, signal.SIGCONT)
        found = soon(links, lambda report: report.offered_packets in (1000, RING + 1000))
        found = soon(links, lambda report: report.inside_packets == 0)
        full, free = found
        assert (full.offered_packets, full.outside_drops) == (RING + 1000, 1000)
        assert full.delivered_packets == RING
        assert (free.offered_packets, free.outside_drops) == (1000, 0)
        assert [status.ring_drops for status in links.engines.workers()] == [1000, 0]
        assert full.lag is not None
        assert full.lag.p50 > 0.001  # that it was stopped shows


def test_one_dead_worker_of_two_is_noticed_and_both_end() -> None:
    links = bank(2)
    first, second = links.engines.workers()
    os.kill(second.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="worker died"):
        links.engines.reports()
    with pytest.raises(EngineError, match="worker died"):
        links.engines.check()
    with pytest.raises(EngineError, match="worker died"):
        links.engines.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)
