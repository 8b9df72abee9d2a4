"""The fabric's pipe, driven by hand: no clock, no socket, no root."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import ParameterError
from testbed.links import LinkSpec
from testbed.links.fabric.loss import Loss, stream
from testbed.links.fabric.pipe import Pipe

FULL = 1500


def frame(number: int, size: int = FULL) -> bytes:
    return number.to_bytes(4, "big") + bytes(size - 4)


def number(data: bytes) -> int:
    return int.from_bytes(data[:4], "big")


def drain(pipe: Pipe) -> list[tuple[float, int]]:
    """Everything inside, as (time due, number), by following `next_event` only."""
    left = []
    while (now := pipe.next_event()) < inf:
        left += [(due, number(data)) for due, _span, data in pipe.due(now)]
    return left


def test_serialisation_then_delay() -> None:
    pipe = Pipe(LinkSpec(12, "10ms"))  # a full frame takes 1 ms
    for i in range(3):
        pipe.offer(5.0, frame(i))
    assert drain(pipe) == [(pytest.approx(5.011 + i / 1000), i) for i in range(3)]


def test_an_idle_link_begins_at_arrival_not_at_the_end_of_the_last_frame() -> None:
    pipe = Pipe(LinkSpec(12))
    pipe.offer(1.0, frame(0))
    pipe.offer(2.0, frame(1))
    assert drain(pipe) == [(pytest.approx(1.001), 0), (pytest.approx(2.001), 1)]


def test_without_a_rate_only_the_delay_counts() -> None:
    pipe = Pipe(LinkSpec(delay="3ms"))
    for i in range(100):
        pipe.offer(0.0, frame(i))
    assert {due for due, _ in drain(pipe)} == {0.003}


@pytest.mark.parametrize("queue", ["5p", "7500B"])
def test_droptail_lets_the_limit_wait_and_one_on_the_wire(queue: str) -> None:
    pipe = Pipe(LinkSpec(12, queue=queue))
    for i in range(20):
        pipe.offer(0.0, frame(i))
    assert [n for _, n in drain(pipe)] == [0, 1, 2, 3, 4, 5]
    assert pipe.queue_drops == 14


def test_a_late_look_changes_no_departure() -> None:
    """Virtual time: when the process gets round to it does not matter."""
    eager, lazy = Pipe(LinkSpec(12, "2ms", queue="3p")), Pipe(LinkSpec(12, "2ms", queue="3p"))
    seen = []
    for i in range(50):
        now = i * 0.0007
        eager.offer(now, frame(i))
        seen += [(due, number(data)) for due, _, data in eager.due(now)]
        lazy.offer(now, frame(i))
    assert seen + drain(eager) == drain(lazy)
    assert eager.queue_drops == lazy.queue_drops > 0


def test_jitter_keeps_order_and_its_bounds() -> None:
    pipe = Pipe(LinkSpec(delay="10ms", jitter="4ms"))
    for i in range(500):
        pipe.offer(i * 0.1, frame(i))
    left = drain(pipe)
    delays = [due - n * 0.1 for due, n in left]
    assert [n for _, n in left] == list(range(500))
    assert min(delays) == pytest.approx(0.006, abs=2e-4)
    assert max(delays) == pytest.approx(0.014, abs=2e-4)
    assert sum(delays) / 500 == pytest.approx(0.010, abs=5e-4)


def test_reordered_packets_skip_the_delay() -> None:
    pipe = Pipe(LinkSpec(delay="10ms", reorder=20), seed=3)
    for i in range(1000):
        pipe.offer(i * 0.001, frame(i))
    left = drain(pipe)
    early = [n for due, n in left if due == n * 0.001]
    assert 150 < len(early) < 250
    assert [due for due, _ in left] == sorted(due for due, _ in left)
    rest = [n for _, n in left if n not in set(early)]
    assert rest == sorted(rest)


def losses(spec: LinkSpec, count: int, seed: object = 1) -> list[int]:
    pipe = Pipe(spec, seed=seed)
    for i in range(count):
        pipe.offer(i * 0.001, frame(i))
    return sorted(set(range(count)) - {n for _, n in drain(pipe)})


def test_the_same_seed_loses_the_same_packets_whenever_they_come() -> None:
    spec = LinkSpec(loss=5, loss_burst=3)
    assert losses(spec, 5000) == losses(spec.replace(delay="40ms", jitter="9ms"), 5000)
    assert losses(spec, 5000) != losses(spec, 5000, seed=2)
    pipe = Pipe(spec, seed=1)
    for i in range(5000):
        pipe.offer(0.0, frame(i))
    assert [n - 1 for n in pipe.loss.log] == losses(spec, 5000)


def bursts(lost: list[int]) -> list[int]:
    lengths, before = [], -2
    for n in lost:
        if n == before + 1:
            lengths[-1] += 1
        else:
            lengths.append(1)
        before = n
    return lengths


@pytest.mark.parametrize(("burst", "mean"), [(None, 1.11), (1, 1), (4, 4)])
def test_losses_have_the_rate_and_the_burst_length_asked_for(
    burst: float | None, mean: float
) -> None:
    lost = losses(LinkSpec(loss=10, loss_burst=burst), 40_000)
    assert len(lost) / 40_000 == pytest.approx(0.1, rel=0.1)
    lengths = bursts(lost)
    assert sum(lengths) / len(lengths) == pytest.approx(mean, rel=0.1)


def test_total_loss_takes_the_very_next_packet() -> None:
    pipe = Pipe(LinkSpec(loss=0))
    pipe.offer(0.0, frame(0))
    pipe.update(0.0, LinkSpec(loss=100))
    for i in range(1, 100):
        pipe.offer(0.0, frame(i))
    assert [n for _, n in drain(pipe)] == [0]


def test_loss_draws_depend_on_nothing_but_seed_and_count() -> None:
    one, two = Loss(stream("s"), 0.1, 0.9), Loss(stream("s"), 0.1, 0.9)
    assert [one.lost() for _ in range(1000)] == [two.lost() for _ in range(1000)]


# -- CoDel (RFC 8289) ----------------------------------------------------------------------------


def overload(spec: LinkSpec, seconds: float) -> tuple[Pipe, list[float]]:
    """Offer 1.2 times the rate for a while; the pipe and each frame's time in it."""
    pipe, stays = Pipe(spec), []
    sent: dict[int, float] = {}
    for i in range(int(seconds * 1200)):
        now = sent[i] = i / 1200
        pipe.offer(now, frame(i))
        stays += [due - sent[number(data)] for due, _, data in pipe.due(now)]
    return pipe, stays


def test_codel_holds_the_delay_that_droptail_lets_grow() -> None:
    tail, tail_stays = overload(LinkSpec(12, queue="1s"), 20)
    codel, codel_stays = overload(LinkSpec(12, queue="1s", aqm="codel"), 20)
    assert tail.queue_drops > 0
    assert codel.queue_drops > 0
    assert tail_stays[-1] > 0.9
    assert codel_stays[-1] < 0.2


def test_codel_lets_a_short_burst_pass() -> None:
    pipe = Pipe(LinkSpec(12, queue="1s", aqm="codel"))
    for i in range(50):  # 50 ms of waiting, gone before an interval is over
        pipe.offer(0.0, frame(i))
    assert len(drain(pipe)) == 50


# -- properties ----------------------------------------------------------------------------------

specs = st.builds(
    lambda bw, delay, jitter, loss, burst, queue, aqm, reorder: LinkSpec(
        bw,
        delay,
        jitter=min(jitter, delay),
        loss=loss,
        loss_burst=burst,
        queue=queue,
        aqm=aqm,
        reorder=reorder if delay else None,
    ),
    st.none() | st.sampled_from([0.1, 1, 12, 100]),
    st.sampled_from([0, 1, 20]),
    st.sampled_from([0, 0, 5]),
    st.sampled_from([None, 0, 5, 40]),
    st.sampled_from([None, 3]),
    st.sampled_from([None, 3, "6000B", "50ms"]),
    st.sampled_from(["droptail", "codel"]),
    st.sampled_from([None, None, 30]),
)
in_order = specs.filter(lambda spec: not spec.reorder)
steps = st.lists(st.tuples(st.integers(0, 4000), st.integers(60, 1514), st.booleans()), max_size=60)


def conserved(pipe: Pipe) -> bool:
    return pipe.offered_packets == (
        pipe.delivered_packets + pipe.lost_packets + pipe.queue_drops + pipe.inside
    )


@given(specs, steps)
@settings(deadline=None)
def test_every_packet_is_accounted_for(spec: LinkSpec, steps: Any) -> None:
    pipe, now = Pipe(spec), 0.0
    for i, (pause_us, size, look) in enumerate(steps):
        now += pause_us / 1e6
        pipe.offer(now, frame(i, size))
        if look:
            pipe.due(now)
        assert conserved(pipe)
    drain(pipe)
    assert pipe.inside == 0
    assert conserved(pipe)


@given(in_order, steps)
@settings(deadline=None)
def test_order_is_kept_and_nothing_is_early(spec: LinkSpec, steps: Any) -> None:
    pipe, now, least = Pipe(spec), 0.0, {}
    for i, (pause_us, size, _look) in enumerate(steps):
        now += pause_us / 1e6
        least[i] = now + spec.delay_s - spec.jitter_s + size * 8 / (spec.rate_bps or inf)
        pipe.offer(now, frame(i, size))
    left = drain(pipe)
    assert [n for _, n in left] == sorted(n for _, n in left)
    assert [due for due, _ in left] == sorted(due for due, _ in left)
    assert all(due >= least[n] - 1e-9 for due, n in left)


@given(in_order.filter(lambda spec: spec.bw is not None and not spec.jitter_s), steps)
@settings(deadline=None)
def test_departures_are_never_faster_than_the_rate(spec: LinkSpec, steps: Any) -> None:
    pipe, now, sizes = Pipe(spec), 0.0, {}
    for i, (pause_us, size, _look) in enumerate(steps):
        now += pause_us / 1e6
        sizes[i] = size
        pipe.offer(now, frame(i, size))
    left = drain(pipe)
    assert spec.rate_bps is not None
    for (before, _), (due, n) in pairwise(left):
        assert due - before >= sizes[n] * 8 / spec.rate_bps - 1e-9


@given(in_order, st.lists(in_order, min_size=1, max_size=5), steps)
@settings(deadline=None)
def test_updates_lose_and_reorder_nothing(first: LinkSpec, later: Any, steps: Any) -> None:
    """With the loss and the drops that the specifications ask for taken out, all arrives."""

    def gentle(spec: LinkSpec) -> LinkSpec:
        return spec.replace(loss=0, queue=100, aqm="droptail")

    pipe, now = Pipe(gentle(first)), 0.0
    left = []
    for i, (pause_us, size, look) in enumerate(steps):
        now += pause_us / 1e6
        pipe.offer(now, frame(i, size))
        if look:
            pipe.update(now, gentle(later[i % len(later)]))
            left += [number(data) for _, _, data in pipe.due(now)]
            assert pipe.next_event() >= now or pipe.inside == 0
    left += [n for _, n in drain(pipe)]
    assert left == list(range(len(steps)))


@given(in_order, in_order, steps)
@settings(deadline=None)
def test_an_update_drops_nothing_that_waits(first: LinkSpec, second: LinkSpec, steps: Any) -> None:
    """Be it more than the new limit."""
    pipe, now = Pipe(first), 0.0
    for i, (pause_us, size, _look) in enumerate(steps):
        now += pause_us / 1e6
        pipe.offer(now, frame(i, size))
    drops = pipe.queue_drops
    pipe.update(now, second.replace(aqm="droptail"))
    drain(pipe)
    assert pipe.queue_drops == drops
    assert conserved(pipe)


@given(in_order, in_order, steps, st.integers(0, 150_000))
@settings(deadline=None)
def test_a_scheduled_change_is_an_update_at_its_moment(
    first: LinkSpec, second: LinkSpec, steps: Any, at_us: int
) -> None:
    """Whenever the process looks, and however many frames it takes in at once."""
    at, now = at_us / 1e6, 0.0
    arrivals = []
    for i, (pause_us, size, _look) in enumerate(steps):
        now += pause_us / 1e6
        arrivals.append((now, frame(i, size)))
    asked, planned, at_once = (Pipe(first, seed=1) for _ in range(3))

    for arrival in [each for each in arrivals if each[0] < at]:
        asked.offer(*arrival)
    left = [(due, number(data)) for due, _, data in asked.due(at)]
    asked.update(at, second)
    asked.offer_all([each for each in arrivals if each[0] >= at])
    left += drain(asked)

    everything = {field.name: getattr(second, field.name) for field in fields(LinkSpec)}
    assert planned.schedule(at, everything) == second
    at_once.schedule(at, everything)
    seen = []
    for arrival, (_pause, _size, look) in zip(arrivals, steps, strict=True):
        planned.offer(*arrival)
        if look:
            seen += [(due, number(data)) for due, _, data in planned.due(arrival[0])]
    at_once.offer_all(arrivals)
    assert seen + drain(planned) == left
    assert drain(at_once) == left
    assert planned.queue_drops == at_once.queue_drops == asked.queue_drops
    assert planned.loss.log == at_once.loss.log == asked.loss.log


def test_scheduled_changes_build_on_each_other_and_can_be_revoked() -> None:
    pipe = Pipe(LinkSpec(12, "10ms"))
    pipe.schedule(1.0, {"bw": 1})
    assert pipe.schedule(2.0, {"delay": "1ms"}) == LinkSpec(1, "1ms")
    assert pipe.next_event() == 1.0
    with pytest.raises(ParameterError, match="jitter"):
        pipe.schedule(3.0, {"jitter": "5ms"})
    assert pipe.due(1.5) == []
    assert pipe.spec == LinkSpec(1, "10ms")
    pipe.unschedule()
    assert pipe.due(9.0) == []
    assert pipe.spec == LinkSpec(1, "10ms")


def test_the_frame_on_the_wire_takes_the_new_rate_for_what_it_has_to_go() -> None:
    pipe = Pipe(LinkSpec(0.012, "10ms"))  # a full frame takes a second
    pipe.offer(0.0, frame(0))
    pipe.offer(0.0, frame(1))
    pipe.update(0.5, LinkSpec(12, "10ms"))
    assert drain(pipe) == [(pytest.approx(0.5105), 0), (pytest.approx(0.5115), 1)]


def test_a_shorter_delay_does_not_let_packets_overtake() -> None:
    pipe = Pipe(LinkSpec(delay="100ms"))
    pipe.offer(0.0, frame(0))
    pipe.update(0.01, LinkSpec(delay="1ms"))
    pipe.offer(0.02, frame(1))
    pipe.offer(0.2, frame(2))
    assert drain(pipe) == [(0.1, 0), (0.1, 1), (pytest.approx(0.201), 2)]


def test_taking_the_rate_away_lets_go_what_waits() -> None:
    pipe = Pipe(LinkSpec(0.012))
    for i in range(5):
        pipe.offer(0.0, frame(i))
    pipe.update(0.25, LinkSpec())
    assert drain(pipe) == [(0.25, i) for i in range(5)]


def test_spans_are_the_bytes_of_one_busy_spell() -> None:
    pipe = Pipe(LinkSpec(12))
    for i in range(4):
        pipe.offer(0.0, frame(i))
    pipe.offer(1.0, frame(4))
    spans = [span for _due, span, _data in pipe.due(10.0)]
    assert spans == [0, FULL, FULL, FULL, 0]


def test_a_span_counts_what_was_lost_before_it() -> None:
    pipe = Pipe(LinkSpec(12, loss=30, queue="1000p"), seed=4)
    for i in range(200):
        pipe.offer(0.0, frame(i))
    departures = pipe.due(10.0)
    first, last = number(departures[0][2]), number(departures[-1][2])
    assert sum(span for _due, span, _data in departures) == (last - first) * FULL
