"""Traces: read strictly, turned into changes, and played on live links."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dynamics_lab import until
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import ParameterError, TopologyError
from testbed.links.spec import FULL_FRAME
from testbed.links.synthetic import deliveries_of, random_walk, write_csv
from testbed.links.trace import LEAST_RATE_BPS, Row, Trace, deliveries, load
from testbed.network import Network, schedule

CSV = """# somewhere
time_s, rate (Mb/s), Delay_ms, loss_%

0,      10,          40,       0
0.5,    0,           50.5,     2.5
2,      5,           40,       0
"""


def write(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_csv_file_with_units_in_its_header(tmp_path: Path) -> None:
    trace = load(write(tmp_path, CSV))
    assert trace.name == "t"
    assert trace.length_s == 3.5
    assert trace.rows[1] == Row(at_s=0.5, rate_bps=0.0, delay_s=0.0505, loss=2.5)
    changes = list(trace.changes(scale=2))
    assert changes[0] == (0, {"bw": 20, "delay": "40.000000ms", "loss": 0})
    assert changes[1][1]["bw"] == LEAST_RATE_BPS / 1e6
    assert trace.bits() == pytest.approx(10e6 * 0.5 + 5e6 * 1.5)
    assert trace.bits(7.25) == pytest.approx(2 * trace.bits() + 10e6 * 0.25)


def test_other_units_mean_the_same(tmp_path: Path) -> None:
    first = load(write(tmp_path, "time_ms,rate_kbps,delay_s,loss_ratio\n250,1500,0.04,0.025\n"))
    second = load(write(tmp_path, "time_s,rate_bps,delay_us,loss_percent\n.25,1.5e6,40000,2.5\n"))
    assert first.rows == second.rows


BAD = [
    ("", "nothing in it"),
    ("# only a comment\n", "nothing in it"),
    ("time_s,rate_mbps\n", "no rows"),
    ("time_s\n1\n", "t.csv:1: the columns are time"),
    ("rate_mbps,delay_ms\n1,2\n", "t.csv:1: the columns are rate, delay"),
    ("time_s,rate_mbps,rate_kbps\n", "t.csv:1: the columns"),
    ("time_s,rate_furlongs\n", "t.csv:1: column 'rate_furlongs' is unknown"),
    ("time_s,rate\n", "t.csv:1: column 'rate' is unknown"),
    ("time_s,rate_mbps\n0,1\n0,2\n", "t.csv:3: time 0 s is not after 0 s"),
    ("time_s,rate_mbps\n0,1\n1\n", "t.csv:3: there are 1 values"),
    ("time_s,rate_mbps\n0,fast\n", "t.csv:2: rate is 'fast'"),
    ("time_s,rate_mbps\n0,-1\n", "t.csv:2: rate is '-1'"),
    ("time_s,rate_mbps\n0,nan\n", "t.csv:2: rate is 'nan'"),
    ("time_s,loss_%\n0,101\n", "t.csv:2: loss is 101%"),
    ("1\n2\nx\n", "t.csv:3: 'x' is no millisecond"),
    ("1\n3\n2\n", "t.csv:3: 2 ms is before 3 ms"),
    ("1.5\n", "t.csv:1: '1.5' is no millisecond"),
    ("0\n0\n", "no length"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_files_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        load(write(tmp_path, text))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ParameterError, match="/no/such/file"):
        load("/no/such/file")


def test_packet_deliveries_become_a_rate_over_windows(tmp_path: Path) -> None:
    lines = [1, 1, 5, 50, 51, 120]
    trace = load(write(tmp_path, "\n".join(map(str, lines)), "up.trace"), window_s=0.05)
    assert trace.length_s == 0.12
    assert [row.at_s for row in trace.rows] == [0, 0.05, 0.1]
    packets = [(row.rate_bps or 0) * width / 8 / FULL_FRAME for row, width in
               zip(trace.rows, (0.05, 0.05, 0.02), strict=True)]  # fmt: skip
    assert packets == pytest.approx([4, 1, 1])


times = st.lists(st.integers(0, 3000), min_size=1, max_size=200).filter(any).map(sorted)


@settings(deadline=None)
@given(times, st.integers(1, 500))
def test_windows_let_through_exactly_the_packets_of_the_trace(found: list[int], ms: int) -> None:
    trace = deliveries("t", found, window_s=ms / 1e3)
    assert trace.bits() == pytest.approx(len(found) * FULL_FRAME * 8)
    assert trace.length_s == found[-1] / 1e3


def test_a_looped_trace_begins_again_at_its_end_and_skips_what_does_not_change() -> None:
    rows = tuple(Row(at_s=at, rate_bps=rate) for at, rate in ((0, 1e6), (1, 1e6), (2, 3e6)))
    changes = Trace("t", rows, 4.0).changes(loop=True)
    assert [(at, fields["bw"]) for at, fields in (next(changes) for _ in range(4))] == [
        (0, 1), (2, 3), (4, 1), (6, 3)
    ]  # fmt: skip


def test_a_synthetic_trace_survives_its_file_and_is_fixed_by_its_seed(tmp_path: Path) -> None:
    trace = random_walk(seconds=5, seed=3)
    assert trace == random_walk(seconds=5, seed=3)
    assert trace != random_walk(seconds=5, seed=4)
    write_csv(trace, tmp_path / "walk3.csv")
    again = load(tmp_path / "walk3.csv")
    assert again.length_s == pytest.approx(trace.length_s)
    assert again.bits() == pytest.approx(trace.bits())
    packets = deliveries_of(trace)
    assert len(packets) * FULL_FRAME * 8 == pytest.approx(trace.bits(), abs=FULL_FRAME * 8)


# -- live ------------------------------------------------------------------------------------------

FLOOD = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for _ in range(4):
        sender.sendto(bytes(1472), (sys.argv[1], 9))
    time.sleep(0.002)
"""


def pair(**params: Any) -> tuple[Network, Any]:
    net = Network()
    for name in ("h1", "h2"):
        net.addHost(name)
    return net, net.addLink("h1", "h2", **params)


@pytest.mark.live
@pytest.mark.parametrize("engine", [{"bw": 5}, {"bw": 5, "delay": "5ms"}])
def test_a_link_delivers_what_the_trace_lets_through(engine: dict[str, Any]) -> None:
    trace = random_walk(seconds=1, mean_mbps=8, step_s=0.05, seed=2)
    rates = Trace("rates", tuple(Row(at_s=r.at_s, rate_bps=r.rate_bps) for r in trace.rows), 1.0)
    net, link = pair(queue="50ms", **engine)
    with net:
        net.staticArp()
        flood = net["h1"].popen([sys.executable, "-c", FLOOD, net["h2"].IP()])
        player = link.replay(rates, direction="h1", loop=True)
        time.sleep(0.5)
        seen = []
        for _ in range(11):
            there, back = net.engines.reports()
            seen.append((time.monotonic() - player.epoch, there.delivered_bytes * 8))
            time.sleep(0.2)
        link.stop_replay()
        flood.kill()
        flood.communicate()
        stays = link.specs
        time.sleep(0.15)
        assert link.specs == stays
    shares = [
        (bits - before) / (rates.bits(ended) - rates.bits(began))
        for (began, before), (ended, bits) in itertools.pairwise(seen)
    ]
    # of most moments: in some, the sender may have had no processor
    assert 0.8 < statistics.median(shares) < 1.15
    assert player.lateness.total >= 30
    assert back.spec.bw == 5


@pytest.mark.live
def test_replays_of_two_directions_and_what_ends_them(tmp_path: Path) -> None:
    net, link = pair(bw=5, delay="5ms")
    heard: list[str] = []
    net.observers.append(lambda kind, mark="", **_data: heard.append(f"{kind}: {mark}"))
    write(tmp_path, "time_s,rate_mbps\n0,3\n0.1,4\n", "up.csv")
    with net:
        schedule_text = "0 link h1 h2 replay up.csv from=h1\n0 link h1 h2 replay up.csv from=h2"
        timeline = schedule.parse(schedule_text, net, folder=tmp_path)
        with timeline:
            pass
        assert until(lambda: [spec.bw for spec in link.specs] == [4, 4])
        with pytest.raises(TopologyError, match="h3 is no end"):
            link.replay(tmp_path / "up.csv", direction="h3")
        shaped = net.addLink("h1", "h2", bw=3)
        delays = Trace("delays", (Row(at_s=0, delay_s=0.01),), 1.0)
        with pytest.raises(ParameterError, match="cannot become"):
            shaped.replay(delays)
        broken = net.engines.replay(link.wire, [(0.0, ({}, {}))], lambda _fields: 1 / 0)
        while broken.running:
            time.sleep(0.01)
        with pytest.raises(ZeroDivisionError):
            net.engines.check()
    assert heard.count("link replay: h1-h2 trace up") == 2
