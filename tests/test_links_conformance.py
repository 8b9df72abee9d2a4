"""What every engine must do, written once and run on each engine that this machine has."""

from __future__ import annotations

import math
import time

import pytest

from testbed.errors import PrivilegeError
from testbed.kernel import RtNetlink, rtnetlink
from testbed.links import DirectionReport, Engines, LinkSpec, kernel_engine
from testbed.links.calibrate import interval, losses, rate_of, saturated
from testbed.links.rig import Rig, Sighting
from testbed.sandbox import call

pytestmark = pytest.mark.live


def missing(engine: str) -> str:
    """Why this machine has no such engine; "" where it has."""
    try:
        wants = {"htb": {}, "netem": {"netem": True}, "netem seeds": {"seeds": True}}
        return "" if engine == "fabric" else call(kernel_engine.missing, **wants[engine])
    except PrivilegeError as error:
        return str(error)


def engines(*names: str) -> pytest.MarkDecorator:
    """Run a test on each engine, skipping those that this machine has not, with the reason."""
    reasons = {name: missing(name) for name in names}
    return pytest.mark.parametrize(
        "engine",
        [
            pytest.param(name, marks=pytest.mark.skipif(bool(why), reason=why or "not skipped"))
            for name, why in reasons.items()
        ],
    )


every_engine = engines("htb", "netem", "fabric")
impairing = engines("netem", "fabric")
seeded = engines("netem seeds", "fabric")


def rig(engine: str, spec: LinkSpec, *, seed: int = 1) -> Rig:
    """A rig on that engine."""
    engine = engine.removesuffix(" seeds")
    if engine != "htb" and not spec.impairs:
        spec = spec.replace(delay=0)  # ask for more than a rate, so that it is not HTB
    made = Rig(Engines(prefer="auto" if engine == "htb" else engine, seed=seed), (spec, spec))
    assert made.engine is not None
    assert made.engine.name == engine
    return made


def numbers(seen: list[Sighting]) -> list[int]:
    return [sighting.number for sighting in seen]


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def usual_rate(rig: Rig, spec: LinkSpec, seconds: float) -> float:
    """Bit/s of most tenths of a saturated link: a moment without a processor is in few of them."""
    seen = saturated(rig, spec, seconds)
    size = max(2, len(seen) // 10)
    return median([rate_of(seen[at : at + size + 1]) for at in range(0, len(seen) - size, size)])


class Burst:
    """A burst of probes through a slow link, and how long the sender took for it."""

    def __init__(self, rig: Rig, count: int) -> None:
        self._times: list[float] = []
        noted = {0: self._note, count - 1: self._note}
        self.seen = rig.probe(count, interval_s=0, size=1500, drain_s=0.5, at=noted)

    def _note(self) -> None:
        self._times.append(time.monotonic())

    def is_of(self, least: int, most: int) -> bool:
        """Are so many through, or as many more as leave at 1 Mb/s while a slow sender sends?"""
        meanwhile = math.ceil((self._times[1] - self._times[0]) / 0.012)
        return least <= len(self.seen) <= most + meanwhile


def report(rig: Rig) -> DirectionReport:
    return rig.engines.reports()[0]


def is_conserved(r: DirectionReport) -> bool:
    gone = r.lost_packets + r.queue_drops + r.outside_drops + r.down_drops
    return r.offered_packets == r.delivered_packets + gone + r.inside_packets


@every_engine
@pytest.mark.parametrize("bw", [2, 20])
def test_rate(engine: str, bw: float) -> None:
    spec = LinkSpec(bw)
    with rig(engine, spec) as r:
        assert usual_rate(r, spec, 1.0) == pytest.approx(bw * 1e6, rel=0.05)
        assert report(r).queue_drops > 0


@every_engine
def test_queue_in_packets(engine: str) -> None:
    """On a burst, what waits is the limit; beside it go the frame on the wire and a token's."""
    with rig(engine, LinkSpec(1, queue=10)) as r:
        burst = Burst(r, 60)
        assert burst.is_of(11, 13)
        assert numbers(burst.seen) == sorted(numbers(burst.seen))
        assert report(r).queue_drops == 60 - len(burst.seen)


@every_engine
def test_queue_in_bytes(engine: str) -> None:
    with rig(engine, LinkSpec(1, queue="15KB")) as r:
        assert Burst(r, 60).is_of(11, 13)


@every_engine
def test_a_changed_rate_loses_and_reorders_nothing(engine: str) -> None:
    with rig(engine, LinkSpec(10, queue=1000)) as r:
        changes = {
            50 * i: lambda bw=bw: r.update(r.wire.specs[0].replace(bw=bw))
            for i, bw in enumerate((2, 50, 5, 100, 10), start=1)
        }
        seen = r.probe(300, interval_s=0.001, size=1000, drain_s=0.5, at=changes)
        assert numbers(seen) == list(range(300))
        r.update(r.wire.specs[0].replace(bw=40))
        assert usual_rate(r, r.wire.specs[0], 0.5) == pytest.approx(40e6, rel=0.1)


@every_engine
def test_every_packet_is_accounted_for(engine: str) -> None:
    with rig(engine, LinkSpec(2, queue=20)) as r:
        seen = r.probe(200, interval_s=0.002, size=1000)
        found = report(r)
        assert found.direction == "pa>pb"
        assert found.engine == engine
        assert is_conserved(found)
        assert (found.offered_packets, found.delivered_packets) == (200, len(seen))
        assert found.delivered_bytes == 1000 * len(seen)
        assert found.outside_drops == found.lost_packets == 0
        assert found.queue_drops == 200 - len(seen) > 0


@every_engine
def test_a_detached_wire_carries_nothing(engine: str) -> None:
    with rig(engine, LinkSpec(10)) as r:
        assert len(r.probe(10, interval_s=0.001)) == 10
        r.engines.detach(r.wire)
        assert r.probe(10, interval_s=0.001) == []
        assert r.engines.reports() == []


# -- engines that do more than a rate ------------------------------------------------------------


@impairing
def test_delay_is_never_short_and_seldom_long(engine: str) -> None:
    with rig(engine, LinkSpec(delay="20ms")) as r:
        delays = [s.delay for s in r.probe(100, interval_s=0.005)]
        assert len(delays) == 100
        assert min(delays) >= 0.0199
        assert median(delays) < 0.025


@impairing
def test_serialisation_and_delay_add_up(engine: str) -> None:
    with rig(engine, LinkSpec(1, "20ms", queue=50)) as r:
        seen = r.probe(20, interval_s=0, size=1250)  # 10 ms each
        assert seen[0].delay >= 0.02
        # HTB owes the first frame's serialisation: it takes that of the 19 others.
        assert 0.205 <= seen[-1].arrived - seen[0].sent <= 0.4


@impairing
def test_jitter_keeps_order(engine: str) -> None:
    with rig(engine, LinkSpec(delay="20ms", jitter="10ms")) as r:
        seen = r.probe(200, interval_s=0.002)
        delays = [s.delay for s in seen]
        assert numbers(seen) == list(range(200))
        assert min(delays) >= 0.0099
        assert max(delays) - min(delays) > 0.004


@impairing
def test_independent_losses(engine: str) -> None:
    spec = LinkSpec(loss=5)
    with rig(engine, spec) as r:
        lost, probes = losses(r, spec, 3000)
        low, high = interval(probes, spec)
        assert low - 20 <= lost <= high + 20  # what 99 of 100 runs show, and then some
        assert report(r).lost_packets == lost
        assert is_conserved(report(r))


@impairing
def test_losses_in_bursts(engine: str) -> None:
    with rig(engine, LinkSpec(loss=10, loss_burst=5)) as r:
        got = set(numbers(r.probe(3000, interval_s=0.0002)))
        lost = [n not in got for n in range(3000)]
        bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
        assert 100 < sum(lost) < 600
        assert 3 < sum(lost) / bursts < 8


@impairing
def test_reordered_packets_come_early(engine: str) -> None:
    with rig(engine, LinkSpec(delay="20ms", reorder=25)) as r:
        seen = r.probe(200, interval_s=0.002)
        early = [s for s in seen if s.delay < 0.015]
        late = [s.number for s in seen if s.delay >= 0.015]
        assert len(seen) == 200
        assert 25 <= len(early) <= 80
        assert late == sorted(late)


@impairing
def test_a_changed_delay_loses_and_reorders_nothing(engine: str) -> None:
    with rig(engine, LinkSpec(20, "50ms", loss=0)) as r:
        changes = {
            40 * i: lambda delay=delay: r.update(r.wire.specs[0].replace(delay=delay))
            for i, delay in enumerate(("1ms", "80ms", "5ms", "0ms", "10ms"), start=1)
        }
        seen = r.probe(240, interval_s=0.001, size=1000, drain_s=0.5, at=changes)
        assert numbers(seen) == list(range(240))
        assert median([s.delay for s in r.probe(50, interval_s=0.004)]) == pytest.approx(
            0.0103, abs=0.005
        )


@every_engine
def test_an_outage_loses_what_is_inside_and_accounts_for_it(engine: str) -> None:
    spec = LinkSpec(1, None if engine == "htb" else "50ms", queue="200KB")
    with rig(engine, spec) as r:

        def outage() -> None:
            r.engines.down(r.wire)
            time.sleep(0.02)
            r.engines.up(r.wire)

        seen = numbers(r.probe(200, interval_s=0.004, size=1000, at={100: outage}))
        before = [number for number in seen if number < 100]
        assert before == list(range(len(before)))
        assert 0 < len(before) < 80
        assert len(seen) - len(before) == 100
        assert report(r).down_drops == 100 - len(before)
        assert is_conserved(report(r))


@impairing
def test_losses_begin_and_end_with_an_update(engine: str) -> None:
    with rig(engine, LinkSpec(100, loss=0)) as r:
        changes = {
            100: lambda: r.update(r.wire.specs[0].replace(loss=100)),
            200: lambda: r.update(r.wire.specs[0].replace(loss=0)),
        }
        seen = r.probe(300, interval_s=0.002, catch_up=False, at=changes)
        assert set(range(98)) | set(range(200, 300)) <= set(numbers(seen))
        assert len(seen) <= 202


@impairing
def test_a_loss_of_all_takes_the_very_next_packet(engine: str) -> None:
    with rig(engine, LinkSpec(100, loss=0)) as r:
        for loss, seen in ((100, 0), (0, 10), (100, 0)):
            r.update(r.wire.specs[0].replace(loss=loss))
            assert len(r.probe(10, interval_s=0.001)) == seen
        assert report(r).lost_packets == 20
        assert is_conserved(report(r))


@impairing
def test_every_packet_is_accounted_for_over_updates(engine: str) -> None:
    """Losses, a full queue and packets in flight, while everything changes."""
    with rig(engine, LinkSpec(5, "20ms", jitter="5ms", loss=3, queue=20)) as r:
        changes = {
            50 * i: lambda spec=spec: r.update(r.wire.specs[0].replace(**spec))
            for i, spec in enumerate(
                (
                    {"bw": 2},
                    {"loss": 20},
                    {"delay": "250ms"},  # longer than a slow machine takes to ask
                    {"jitter": 0, "bw": 50},
                    {"queue": 50},
                ),
                start=1,
            )
        }
        found = []
        for number in (175, 225, 275, 299):
            changes[number] = lambda: found.append(report(r))
        seen = r.probe(300, interval_s=0.001, size=1000, drain_s=0.5, at=changes)
        found.append(report(r))
        assert all(map(is_conserved, found))
        assert any(each.inside_packets > 0 for each in found)
        last = found[-1]
        assert last.inside_packets == last.outside_drops == 0
        assert last.delivered_packets == len(seen)
        assert numbers(seen) == sorted(numbers(seen))
        assert last.lost_packets > 0
        assert last.queue_drops > 0


@every_engine
def test_what_meets_a_receiver_that_is_down_is_counted_apart(engine: str) -> None:
    with rig(engine, LinkSpec(10)) as r:
        assert len(r.probe(5, interval_s=0.001)) == 5
        set_up(r, False)
        r.probe(10, interval_s=0.001)
        set_up(r, True)
        assert len(r.probe(5, interval_s=0.001)) == 5
        found = report(r)
        assert found.delivered_packets == 10
        assert found.lost_packets == found.queue_drops == found.outside_drops == 0
        assert found.down_drops == found.offered_packets - 10


def set_up(r: Rig, up: bool) -> None:
    with r.b:
        netlink = RtNetlink()
        netlink.request(rtnetlink.set_link(11, up=up, arp=False))
        netlink.close()


@seeded
def test_the_same_seed_drops_the_same_packets(engine: str) -> None:
    def lost(seed: int) -> list[int]:
        with rig(engine, LinkSpec(50, "2ms", loss=5, loss_burst=2), seed=seed) as r:
            first = r.probe(1000, interval_s=0.0001)
            r.update(r.wire.specs[0].replace(loss=10))
            second = r.probe(1000, interval_s=0.0001)
            got = {*numbers(first), *(1000 + number for number in numbers(second))}
            return sorted(set(range(2000)) - got)

    first = lost(7)
    assert first == lost(7)
    assert first != lost(8)
    assert len(first) > 60


@seeded
def test_an_update_does_not_begin_the_same_losses_anew(engine: str) -> None:
    with rig(engine, LinkSpec(loss=30)) as r:
        spells = []
        for _repeat in range(2):
            r.update(r.wire.specs[0].replace(loss=30))
            spells.append(numbers(r.probe(100, interval_s=0.0002)))
        assert spells[0] != spells[1]
