from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import ParameterError
from testbed.links import Histogram, LinkSpec
from testbed.links.spec import FULL_FRAME


def test_users_units_become_si_units() -> None:
    spec = LinkSpec(20, "10ms", jitter=1.5, loss=2, loss_burst=4, reorder=1, queue="64KB")
    assert spec.rate_bps == 20e6
    assert (spec.delay_s, spec.jitter_s) == (0.01, 0.0015)
    assert (spec.loss_ratio, spec.reorder_ratio) == (0.02, 0.01)
    assert (spec.queue_bytes, spec.queue_packets) == (64_000, None)


@pytest.mark.parametrize(
    ("delay", "delay_s"),
    [("10ms", 0.01), ("1s", 1.0), ("50us", 50e-6), (10, 0.01), (0.5, 0.0005), ("7", 0.007)],
)
def test_times(delay: str | float, delay_s: float) -> None:
    assert LinkSpec(delay=delay).delay_s == pytest.approx(delay_s)
    assert LinkSpec(delay=delay) == LinkSpec(delay=f"{delay_s}s")


@pytest.mark.parametrize(
    ("queue", "packets", "size"),
    [
        (100, 100, None),
        ("100p", 100, None),
        ("64KB", None, 64_000),
        ("2KiB", None, 2048),
        ("100ms", None, 250_000),
        (None, None, 250_000),
        ("1ms", None, 10 * FULL_FRAME),
    ],
)
def test_queues_of_a_20_mbps_link(queue: Any, packets: int | None, size: int | None) -> None:
    spec = LinkSpec(20, queue=queue)
    assert (spec.queue_packets, spec.queue_bytes) == (packets, size)


def test_a_field_left_out_differs_from_zero_only_in_what_it_selects() -> None:
    assert not LinkSpec(10).impairs
    assert LinkSpec(10, "0ms").impairs
    assert LinkSpec(10, loss=0).impairs
    assert not LinkSpec().shapes
    assert LinkSpec(10, "0ms").gilbert_elliott == LinkSpec(10).gilbert_elliott


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bw": "fast"}, "bw is 'fast'; give a rate in Mb/s"),
        ({"bw": 0}, "bw is 0"),
        ({"bw": True}, "bw is True"),
        ({"bw": math.inf}, "bw is inf"),
        ({"delay": "ten"}, "delay is 'ten'; give a time such as"),
        ({"delay": -1}, "delay is -1"),
        ({"delay": "10km"}, "delay is '10km'"),
        ({"delay": "2h"}, "delay is '2h'"),
        ({"delay": "4000s"}, "at most an hour"),
        ({"delay": 1, "jitter": 2}, "at most the delay"),
        ({"jitter": 2}, "with a delay of '0ms'"),
        ({"loss": 101}, "loss is 101; give a percentage"),
        ({"loss": "1%"}, "loss is '1%'"),
        ({"loss": 90, "loss_burst": 2}, "give a loss_burst of at least 9"),
        ({"loss_burst": 0.5}, "1 or more"),
        ({"reorder": 5}, "reorder is 5 without a delay"),
        ({"queue": "lots"}, "queue is 'lots'; give packets"),
        ({"queue": 0}, "queue is 0"),
        ({"queue": 1.5}, "whole number"),
        ({"queue": math.inf}, "queue is inf"),
        ({"aqm": "red"}, "aqm is 'red'; give \"droptail\" or"),
        ({"seed": "x"}, "seed is 'x'; give an integer"),
    ],
)
def test_errors_name_field_value_and_what_is_allowed(fields: Any, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        LinkSpec(**fields)
    assert message in str(caught.value)


def test_replace_refuses_what_a_link_does_not_have() -> None:
    spec = LinkSpec(10, "5ms")
    assert spec.replace(bw=20) == LinkSpec(20, "5ms")
    with pytest.raises(ParameterError, match="no 'latency'; choose of"):
        spec.replace(latency=3)


specs = st.builds(
    LinkSpec,
    st.none() | st.floats(0.01, 1000),
    st.none() | st.sampled_from(["0ms", "10ms", "1s", 5, 12.5]),
    loss=st.none() | st.floats(0, 50),
    loss_burst=st.none() | st.floats(1, 50),
    queue=st.none() | st.sampled_from(["10p", 7, "64KB", "50ms", "1.5KiB"]),
    aqm=st.sampled_from([None, "droptail", "codel"]),
    seed=st.none() | st.integers(),
)


@given(specs)
def test_a_specification_survives_its_own_dictionary(spec: LinkSpec) -> None:
    assert LinkSpec(**spec.as_dict()) == spec
    assert spec.replace() == spec


@given(st.floats(0, 60), st.none() | st.floats(2, 100))
def test_gilbert_elliott_has_the_mean_asked_for(loss: float, burst: float | None) -> None:
    p, r = LinkSpec(loss=loss, loss_burst=burst).gilbert_elliott
    assert p / (p + r) == pytest.approx(loss / 100)
    assert burst is None or r == pytest.approx(1 / burst)


# -- histograms ----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), min_size=1))
def test_histogram_quantiles_are_those_of_the_list(durations_s: list[float]) -> None:
    histogram = Histogram()
    for duration_s in durations_s:
        histogram.add(duration_s)
    ordered = sorted(durations_s)
    assert histogram.total == len(ordered)
    assert histogram.maximum == pytest.approx(ordered[-1], rel=0.01, abs=2e-6)
    assert histogram.p50 == pytest.approx(ordered[(len(ordered) - 1) // 2], rel=0.01, abs=2e-6)


def test_histograms_merge_and_an_empty_one_says_zero() -> None:
    one, two = Histogram(), Histogram()
    assert (one.p50, one.p99, one.maximum) == (0, 0, 0)
    one.add(0.001, 3)
    two.add(0.001)
    two.add(5)
    merged = one.merge(two)
    assert (merged.total, merged.p50, merged.maximum) == (5, 0.001, 5.0)
    assert one.total == 3
