"""Observation without a network: answers of the kernel, which samples become rows, and words."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import observe_wire as wire
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.cli.main import main
from testbed.errors import KernelError, ParameterError, TopologyError, UserError
from testbed.observe import interfaces, qdiscs, sockets
from testbed.observe.changes import Changes, Metric, Row
from testbed.observe.commands import Command, split
from testbed.observe.netlink import attribute_places, walk
from testbed.observe.series import busiest
from testbed.observe.settings import Ring, Settings, interfaces_of
from testbed.observe.worker import Schedule

# -- the kernel's answers ------------------------------------------------------------------------


def tcp(data: bytes) -> tuple[sockets.Identity, dict[str, float | None]]:
    place = sockets.info_place(data, 0, len(data))
    assert place is not None
    values = sockets.tcp_values(data, *place, len(data))
    names = [metric.name for metric in sockets.METRICS]
    return sockets.identity(data, 0, len(data)), dict(zip(names, values, strict=True))


def test_a_subflow_as_ss_told_it() -> None:
    who, values = tcp(wire.SUBFLOW)
    assert str(who) == "127.0.0.1:40000 > 127.0.0.1:5201"
    assert (who.congestion, who.token) == ("bbr", 0x7F3C7D13)
    assert values["tcp.state"] == 1
    assert values["tcp.srtt"] == pytest.approx(27e-6)
    assert values["tcp.rttvar"] == pytest.approx(13e-6)
    assert values["tcp.cwnd"] == 15
    assert values["tcp.bytes_acked"] == 100_001
    assert values["tcp.bytes_received"] == 300
    assert values["tcp.bbr_bandwidth"] == 62_464_000_000
    assert values["tcp.ssthresh"] is None


def test_ipv6_sockets_as_ss_told_them() -> None:
    who, values = tcp(wire.IPV6_SENDER)
    assert str(who) == "[::1]:40001 > [::1]:5202"
    assert (who.congestion, who.token) == ("reno", 0)
    assert values["tcp.bytes_acked"] == 11
    assert values["tcp.bbr_bandwidth"] is None
    assert tcp(wire.IPV6_RECEIVER)[1]["tcp.bytes_received"] == 10


def test_an_mptcp_connection_as_ss_told_it() -> None:
    place = sockets.info_place(wire.MPTCP, 0, len(wire.MPTCP))
    assert place is not None
    token, values = sockets.mptcp_values(wire.MPTCP, *place)
    found = dict(zip((metric.name for metric in sockets.MPTCP_METRICS), values, strict=True))
    assert token == 0xC11ECE6C
    assert found["mptcp.subflows"] == 1
    assert found["mptcp.bytes_received"] == 100_000
    assert found["mptcp.bytes_sent"] == found["mptcp.bytes_acked"] == 300
    assert found["mptcp.unacked"] == 0


def test_interfaces_and_queues_as_ip_and_tc_told_them() -> None:
    index, data = interfaces.counters(bytearray(wire.INTERFACE), 0, len(wire.INTERFACE))
    assert (index, interfaces.values(data)) == (1, (19, 19, 102_638, 102_638, 0, 0, 0, 0))
    assert interfaces.name(bytearray(wire.NAME), 0, len(wire.NAME)) == (1, "lo")
    for answer, kind, parent, over in (
        (wire.HTB, "htb", qdiscs.ROOT, 1),
        (wire.BFIFO, "bfifo", 0x10001, 0),
    ):
        buffer = bytearray(answer)
        assert qdiscs.kind(buffer, 0, len(buffer)) == kind
        assert qdiscs.identity(buffer, 0).parent == parent
        assert qdiscs.values(buffer, 0, len(buffer)) == (9, 8926, 11, over)
    assert [qdiscs.handle_text(each) for each in (0x10000, 0x10001)] == ["1:", "1:1"]


def test_an_older_kernels_shorter_tcp_info() -> None:
    place = sockets.info_place(wire.SUBFLOW, 0, len(wire.SUBFLOW))
    assert place is not None
    start = place[0]
    short = sockets.tcp_values(wire.SUBFLOW, start, start + 160, start + 160)
    whole = tcp(wire.SUBFLOW)[1]
    names = [metric.name for metric in sockets.METRICS]
    found = dict(zip(names, short, strict=True))
    assert found["tcp.bytes_acked"] == whole["tcp.bytes_acked"]
    assert found["tcp.delivered"] == 0


attribute_lists = st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8)


@given(attribute_lists)
def test_attributes_are_found_where_they_are(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in parts
    )
    found = [(kind, data[a:b]) for kind, a, b in attribute_places(data, 0, len(data))]
    assert found == parts


@given(st.binary(max_size=200))
def test_no_bytes_make_the_walk_run_for_ever_or_past_the_end(data: bytes) -> None:
    assert all(0 <= a <= b <= len(data) for _k, a, b in attribute_places(data, 0, len(data)))


@given(st.lists(st.tuples(st.integers(16, 100), st.binary(max_size=50)), max_size=6), st.booleans())
def test_messages_of_a_datagram_are_walked_until_it_is_done(
    messages: list[tuple[int, bytes]], done: bool
) -> None:
    parts = [*messages, *([(3, b"\0\0\0\0")] if done else [])]
    data = bytearray()
    for kind, body in parts:
        data += struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body + bytes(-len(body) % 4)
    seen: list[bytes] = []
    size = len(data)
    assert walk(data, size, lambda b, start, end: seen.append(bytes(b[start:end]))) is done
    assert seen == [body for _kind, body in messages]


def test_a_refusal_is_an_error() -> None:
    data = bytearray(struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -1))
    with pytest.raises(KernelError, match="not permitted"):
        walk(data, len(data), lambda *_place: None)


# -- which samples become rows -------------------------------------------------------------------

METRICS = (Metric("a", "B", counter=True), Metric("b", "1"))


def retold(rows: Sequence[Row], metric: str, when: float) -> float | None:
    """The value at `when` on the straight lines between rows; None outside of them."""
    points = [(t, value) for t, _source, name, value, _unit in rows if name == metric]
    for (t0, v0), (t1, v1) in itertools.pairwise(points):
        if t0 <= when <= t1:
            return v0 + (v1 - v0) * (when - t0) / (t1 - t0)
    return next((value for t, value in points if t == when), None)


pairs = st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 2)))


@given(st.lists(pairs, min_size=1, max_size=30))
def test_every_sample_can_be_told_again_from_the_rows(samples: list[tuple[int, Any]]) -> None:
    rows: list[Row] = []
    changes = Changes("x", METRICS, rows)
    for when, values in enumerate(samples, 1):
        changes.sample(float(when), values)
    changes.end()
    for when, (first, second) in enumerate(samples, 1):
        assert retold(rows, "a", float(when)) == first
        if second is not None:
            assert retold(rows, "b", float(when)) == second
    for metric in ("a", "b"):
        times = [t for t, _s, name, _v, _u in rows if name == metric]
        assert times == sorted(set(times))


def test_what_stays_costs_two_rows_and_what_is_new_counts_from_nothing() -> None:
    rows: list[Row] = []
    changes = Changes("x", METRICS, rows)
    changes.begin(2.0, (5, 7), born_after=1.0)
    for when in (3.0, 4.0, 5.0):
        changes.same(when)
    changes.end()
    assert [row[:1] + row[2:4] for row in rows] == [
        (1.0, "a", 0), (2.0, "a", 5), (2.0, "b", 7), (5.0, "a", 5), (5.0, "b", 7),
    ]  # fmt: skip
    assert changes.grown() == {"a": 5}


def test_late_and_missed_instants_are_counted() -> None:
    schedule = Schedule(0.0, 1.0)
    for begin, end in ((0.0, 0.1), (1.6, 1.7), (2.0, 4.5), (5.0, 5.2)):
        schedule.begins(begin)
        schedule.ended(end)
    assert (schedule.samples, schedule.late, schedule.missed) == (4, 1, 2)
    assert schedule.due == 6.0


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=20))
def test_every_instant_is_sampled_or_missed(steps: list[tuple[float, float]]) -> None:
    schedule = Schedule(0.0, 1.0)
    now = 0.0
    for wait, work in steps:
        now = max(now, schedule.due) + wait
        schedule.begins(now)
        now += work
        schedule.ended(now)
    assert schedule.due == pytest.approx(schedule.samples + schedule.missed)
    assert not steps or schedule.due > now - 1e-9


# -- words ---------------------------------------------------------------------------------------


def test_commands_are_parted_and_their_nodes_known() -> None:
    words = ["h1", "iperf3", "-c", "h2", ",,", "h2", "sh", "-c", "a b"]
    lines = split(words)
    assert lines == [words[:4], words[5:]]
    assert Command.parse("h2 sh -c 'a b'", ["h2"]).argv == ("sh", "-c", "a b")
    assert str(Command.parse(lines[1], ["h2"])) == "h2 sh -c 'a b'"


def test_only_whole_words_that_are_nodes_become_addresses() -> None:
    class Node:
        def IP(self) -> str:  # noqa: N802
            return "10.0.0.2"

    command = Command.parse("h2 ping h2 h22 x=h2", ["h2"])
    assert command.resolved({"h2": Node()}) == ["ping", "10.0.0.2", "h22", "x=h2"]


@given(st.lists(st.text(min_size=1), min_size=1), st.text(min_size=1))
def test_any_words_survive_a_parameter(argv: list[str], node: str) -> None:
    import shlex

    line = shlex.join([node, *argv])
    assert Command.parse(line, [node]) == Command(node, tuple(argv))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "missing"),
        (["h1"], "command is missing"),
        (["h9", "ping"], "no node 'h9'"),
        ("h1 sh -c 'x", "No closing quotation"),
    ],
)
def test_commands_that_cannot_be_meant(words: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        Command.parse(words, ["h1", "h2"])


@pytest.mark.parametrize(
    "given_settings",
    [
        {"every": "5ms"}, {"every": "1h"}, {"every": "fast"}, {"every": "10B"},
        {"ring": "10"}, {"ring": "0x1MB"}, {"ring": "2x1s"}, {"ring": "2x1B"}, {"snap": -1},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant(given_settings: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        Settings.parse(**given_settings)


def test_settings_survive_the_trials_specification() -> None:
    import json

    settings = Settings.parse(every="20ms", pcap=["h1-eth0"] * 2, ring="3x2MB", snap=96)
    assert settings.ring == Ring(files=3, file_bytes=2_000_000)
    assert settings.pcap == ("h1-eth0",)
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


def test_interfaces_of_a_topology_are_known_before_it_is_built() -> None:
    from mininet.topo import Topo

    topo = Topo()
    for name in ("h1", "phone"):
        topo.addHost(name)
    topo.addSwitch("s1")
    topo.addLink("h1", "s1")
    topo.addLink("phone", "s1", intfName1="wifi")
    names = {"h1-eth0", "s1-eth1", "phone-wifi", "s1-eth2"}
    assert set(interfaces_of(topo)) == names
    Settings(pcap=("phone-wifi",)).check(topo)
    with pytest.raises(TopologyError, match="no interface 'wifi'"):
        Settings(pcap=("wifi",)).check(topo)


def test_the_busiest_are_shown_and_the_rest_counted() -> None:
    growth = {"a": 5.0, "b": 100.0, "c": 0.5, "d": 0.0, "e": 50.0}
    assert busiest(growth, 2) == (["b", "e"], 1)
    assert busiest({}, 2) == ([], 0)


FILE = """
from mininet.topo import Topo
class Pair(Topo):
    def build(self):
        self.addHost("h1"), self.addHost("h2")
        self.addLink("h1", "h2")
"""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--", "h3", "ping", "h2"], "no node 'h3'"),
        (["--with", "h3 iperf3 -s", "--", "h1", "ping", "h2"], "no node 'h3'"),
        (["--pcap", "h1-eth9", "--", "h1", "ping", "h2"], "no interface 'h1-eth9'"),
        (["--every", "1ms", "--", "h1", "ping", "h2"], "interval of 1ms"),
        (["--", "h1"], "command is missing"),
        (["--", "h1", "ls", ",,"], "a command is missing"),
        ([], "no command is given"),
        (["--class", "Other", "--", "h1", "ls"], "no topology 'Other'"),
        (["--at", "2s lnk h1 h2 down", "--", "h1", "ls"], "cannot be read"),
        (["--duration", "0s", "--", "h1", "ls"], "duration"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.py"
    file.write_text(FILE)
    with pytest.raises(SystemExit) as ended:
        main(["observe", str(file), "--results", str(tmp_path / "results"), *words])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert why in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "results").exists()


def test_a_file_without_a_topology_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text("x = 1\n")
    with pytest.raises(SystemExit) as ended:
        main(["observe", str(tmp_path / "net.py"), "--", "h1", "ls"])
    assert ended.value.code == 2
    assert "holds no topology" in capsys.readouterr().err
