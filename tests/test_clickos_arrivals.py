"""When bytes arrived: what a receiver records, and what is read from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traffic.arrivals import SILENCE_S, Arrivals
from usecases.clickos_migration.arrived import Arrived


def arrived(*reads: tuple[float, int]) -> Arrived:
    collected = Arrivals()
    for when, count in reads:
        collected.took(when, count)
    return Arrived(collected.bursts)


def test_reads_that_follow_each_other_closely_are_one_burst() -> None:
    collected = Arrivals()
    for when in (1.0, 1.002, 1.004, 1.1, 1.101):
        collected.took(when, 10)
    assert collected.bursts == [(1.0, 1.004, 30), (1.1, 1.101, 20)]


@given(st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 9000)), max_size=80))
def test_no_byte_and_no_silence_is_lost(steps: list[tuple[float, int]]) -> None:
    now, reads = 0.0, []
    for pause, count in steps:
        now += pause
        reads.append((now, count))
    seen = arrived(*reads)
    assert seen.total == sum(count for _when, count in reads)
    longest = max((pause for pause, _count in steps[1:]), default=0.0)
    if longest > SILENCE_S:
        assert seen.longest_silence(-1.0, now + 1) == pytest.approx(longest, abs=2e-4)


@given(st.floats(0.0, 1.0))
def test_bytes_are_divided_where_a_stretch_of_time_is(cut: float) -> None:
    seen = arrived(*((k * 0.004, 1000) for k in range(250)))
    whole = seen.within(-1.0, 2.0)
    assert whole == pytest.approx(250_000)
    assert seen.within(-1.0, cut) + seen.within(cut, 2.0) == pytest.approx(whole)
    assert seen.goodput(0.1, 0.9) == pytest.approx(2e6, rel=0.05)


def test_a_silence_counts_for_the_stretch_of_time_it_reaches_into() -> None:
    seen = arrived((1.0, 10), (1.3, 10), (1.35, 10))
    assert seen.silences(1.2, 1.25) == pytest.approx([0.3])
    assert seen.longest_silence(1.32, 2.0) == pytest.approx(0.05)
    assert seen.longest_silence(1.4, 2.0) == 0.0
