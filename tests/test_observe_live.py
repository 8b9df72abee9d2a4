"""Observation of real traffic, against what was sent, and against iproute2's own tools."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.run import Recorder, Trial

MPTCP = 262


class Records:
    """What a trial recorded."""

    def __init__(self, record: Recorder) -> None:
        from pyarrow import parquet

        self.rows = parquet.read_table(record.series_path).to_pylist()
        self.events = [
            json.loads(line) for line in (record.folder / "events.jsonl").read_text().splitlines()
        ]

    def series(self, metric: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for row in self.rows:
            if row["metric"] == metric and row["time_s"] is not None:
                found.setdefault(row["source"], []).append(row["value"])
        return found

    def result(self, metric: str, source: str = "observation") -> float:
        return next(float(row["value"]) for row in self.rows
                    if (row["metric"], row["source"]) == (metric, source)
                    and row["time_s"] is None)  # fmt: skip


def observed(
    folder: Path, net: Any, work: Callable[[Recorder], Awaitable[None]], **settings: Any
) -> Records:
    """Do `work` on `net` under an observation; what it recorded."""
    from testbed.observe.observation import Observation
    from testbed.observe.settings import Settings

    record = Recorder(folder, Trial(variant="v", repeat=0, seed=1))

    async def conduct() -> None:
        await Observation.start(net, record, Settings.parse(**{"every": "20ms", **settings}))
        record.start_clock()
        await work(record)

    try:
        asyncio.run(record.supervise(conduct()))
    finally:
        record.close()
    return Records(record)


def pair(**link: Any) -> Any:
    from testbed.network import Network

    net = Network()
    net.addHost("h1")
    net.addHost("h2")
    net.addLink("h1", "h2", **link)
    return net


def connection(net: Any) -> tuple[socket.socket, socket.socket]:
    """A connected pair, a sender in h1 and a receiver in h2."""
    with net["h2"].netns, socket.socket() as listener:
        listener.bind(("0.0.0.0", 5000))
        listener.listen()
        with net["h1"].netns:
            sender = socket.socket()
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        sender.connect((net["h2"].IP(), 5000))
        receiver, _peer = listener.accept()
        return sender, receiver


async def transfer(net: Any, size: int) -> None:
    """Send `size` bytes from h1 to h2 and close; nothing is left in flight."""
    sender, receiver = connection(net)
    await asyncio.gather(
        asyncio.to_thread(_send, sender, size), asyncio.to_thread(_drain, receiver)
    )


def _send(sender: socket.socket, size: int) -> None:
    with sender:
        sender.sendall(bytes(size))
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(1) == b""


def _drain(receiver: socket.socket) -> None:
    with receiver:
        while receiver.recv(1 << 16):
            pass


@pytest.mark.live
def test_acknowledged_bytes_are_those_sent(tmp_path: Path) -> None:
    size = 1_500_000
    with pair(bw=20) as net:
        records = observed(tmp_path, net, lambda _record: transfer(net, size))
    (acked,) = (v for source, v in records.series("tcp.bytes_acked").items() if "h1 " in source)
    (received,) = (v for s, v in records.series("tcp.bytes_received").items() if "h2 " in s)
    assert acked[0] == 0
    assert size <= acked[-1] <= size + 2  # SYN and FIN count
    assert size <= received[-1] <= size + 2
    assert acked == sorted(acked)
    assert records.result("tcp.bytes_acked", "h1 > 10.0.0.2:5000") == acked[-1]
    carried = records.series("interface.rx_bytes")["h2-eth0"]
    assert carried[-1] - carried[0] > size
    told = next(e for e in records.events if e["kind"] == "socket" and e["node"] == "h1")
    # a starved sampler may have seen no more than its end, which does not tell
    assert told.get("congestion", "reno") == "reno"
    assert 0 < records.result("observation.processor_share") < 1


@pytest.mark.live
def test_a_connection_shorter_than_the_interval_is_there_with_all_its_bytes(tmp_path: Path) -> None:
    with pair() as net:
        records = observed(tmp_path, net, lambda _record: transfer(net, 3000), every="5s")
    (acked,) = (v for source, v in records.series("tcp.bytes_acked").items() if "h1 " in source)
    assert acked[0] == 0
    assert 3000 <= acked[-1] <= 3002


async def multipath(net: Any, size: int) -> None:
    """Send over MPTCP from h1 to h2, whose listener stays open for the second subflow.

    The ends stay open for some intervals longer: the last one of a subflow is unseen.
    """
    with net["h2"].netns, socket.socket(proto=MPTCP) as listener:
        listener.bind(("0.0.0.0", 5000))
        listener.listen()
        with net["h1"].netns:
            sender = socket.socket(proto=MPTCP)
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        sender.connect((net["h2"].IP(), 5000))
        receiver, _peer = listener.accept()
        with sender, receiver:
            receiving = asyncio.to_thread(receiver.recv, size, socket.MSG_WAITALL)
            _sent, received = await asyncio.gather(
                asyncio.to_thread(sender.sendall, bytes(size)), receiving
            )
            assert len(received) == size
            await asyncio.sleep(0.5)


@pytest.mark.live
def test_subflows_on_two_paths_add_up_to_what_was_sent(tmp_path: Path) -> None:
    from testbed.network import Network

    net = Network()
    size = 1_500_000
    h1, h2 = (net.addHost(name) for name in ("h1", "h2"))
    for number in (0, 1):
        net.addLink(h1, h2, bw=8, params1={"ip": f"10.0.{number}.1/24"},
                    params2={"ip": f"10.0.{number}.2/24"})  # fmt: skip
    with net:
        h1.cmd("ip mptcp endpoint add 10.0.1.1 dev h1-eth1 subflow")
        h2.cmd("ip route add 10.0.1.1 dev h2-eth1")
        h1.cmd("ip rule add from 10.0.1.1 lookup 9; ip route add 10.0.0.2 dev h1-eth1 table 9")
        h2.cmd("sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.rp_filter=0")
        records = observed(tmp_path, net, lambda _record: multipath(net, size))
    tokens = {e["token"] for e in records.events if e.get("protocol") == "mptcp"}
    flows = [e for e in records.events if e.get("protocol") == "subflow" and e["node"] == "h1"]
    assert len(flows) == 2
    assert {flow["token"] for flow in flows} <= tokens
    acked = records.series("tcp.bytes_acked")
    parts = [acked[flow["source"]][-1] for flow in flows]
    # how they share it is the scheduler's; what is sent again on the other path counts on both
    assert min(parts) > 0
    assert 0.9 * size <= sum(parts) <= 2 * size
    whole = records.series("mptcp.bytes_received")
    assert max(values[-1] for values in whole.values()) >= 0.9 * size


@pytest.mark.live
@pytest.mark.parametrize("link", [{}, {"delay": "5ms", "seed": 1}], ids=["kernel", "fabric"])
def test_the_backlog_of_a_shaped_link_is_seen_and_never_above_its_limit(
    tmp_path: Path, link: dict[str, Any]
) -> None:
    with pair(bw=10, queue="30p", **link) as net:
        records = observed(tmp_path, net, lambda _record: transfer(net, 1_000_000))
    backlog = records.series("queue.backlog_packets")["h1-eth0 > h2-eth0"]
    assert 5 < max(backlog) <= 30
    assert backlog[-1] == 0
    assert records.series("queue.drops")["h1-eth0 > h2-eth0"][-1] > 0


@pytest.mark.live
def test_a_nodes_own_queueing_discipline_is_found_while_it_runs(tmp_path: Path) -> None:
    with pair() as net:

        async def work(_record: Recorder) -> None:
            net["h1"].cmd("tc qdisc add dev h1-eth0 root tbf rate 5mbit burst 5kb limit 40kb")
            await transfer(net, 1_500_000)

        records = observed(tmp_path, net, work)
    backlog = records.series("queue.backlog")["h1-eth0 tbf root"]
    assert 0 < max(backlog) <= 40_000 + 1514  # tbf holds one frame besides its queue


@pytest.mark.live
def test_what_is_left_of_a_socket_closed_before_its_peer_is_passed_by(tmp_path: Path) -> None:
    from testbed.observe.place import Place
    from testbed.observe.sampler import Sampler

    with pair() as net:
        sampler = Sampler([Place(fd=net["h1"].netns.fd, name="h1")])
        sampler.sample()
        sender, receiver = connection(net)
        with receiver:
            sender.sendall(bytes(1000))
            assert len(receiver.recv(1000, socket.MSG_WAITALL)) == 1000
            sender.close()
            while not tools(net, "ss -tnH state fin-wait-2").strip():
                pass
            sampler.sample()
            sampler.sample()
    totals = sampler.end()["connections"]
    assert totals["h1 > 10.0.0.2:5000"]["tcp.bytes_acked"] >= 1000


@pytest.mark.live
def test_values_agree_with_iproute2(tmp_path: Path) -> None:
    from testbed.observe.place import Place
    from testbed.observe.sampler import Sampler

    with pair() as net:
        net["h1"].cmd("tc qdisc add dev h1-eth0 root tbf rate 50mbit burst 5kb limit 40kb")
        sender, receiver = connection(net)
        with sender, receiver:
            sender.sendall(bytes(200_000))
            held = 0
            while held < 200_000:
                held += len(receiver.recv(1 << 16))
            # the connection is idle now: it keeps its values while three tools look
            line = before = ""
            while not line or line != before:
                before, line = line, tools(net, "ss -tinH dport = 5000 | grep -o 'rto:.*pmtu'")
            link = json.loads(tools(net, "ip -s -j link show h1-eth0"))[0]["stats64"]
            queue = json.loads(tools(net, "tc -s -j qdisc show dev h1-eth0"))[0]
            line = tools(net, "ss -tinH dport = 5000")
            sampler = Sampler([Place(fd=net["h1"].netns.fd, name="h1")])
            sampler.sample()
    found = {(row[1].split(" ")[0], row[2]): row[3] for row in sampler.rows}
    for ours, (side, theirs) in {
        "rx_bytes": ("rx", "bytes"), "tx_bytes": ("tx", "bytes"),
        "rx_packets": ("rx", "packets"), "tx_packets": ("tx", "packets"),
        "rx_drops": ("rx", "dropped"), "tx_drops": ("tx", "dropped"),
    }.items():  # fmt: skip
        assert found["h1-eth0", f"interface.{ours}"] == link[side][theirs]
    for name in ("drops", "overlimits", "backlog"):
        assert found["h1-eth0", f"queue.{name}"] == queue[name]
    for name in ("cwnd", "bytes_acked"):
        assert found["h1", f"tcp.{name}"] == int(field(rf"\b{name}:(\d+)", line))
    assert found["h1", "tcp.bytes_acked"] == 200_001
    for name, pattern in (("srtt", r"\brtt:([\d.]+)/"), ("rttvar", r"\brtt:[\d.]+/([\d.]+)")):
        assert found["h1", f"tcp.{name}"] * 1e3 == pytest.approx(float(field(pattern, line)))


def tools(net: Any, command: str) -> str:
    return str(net["h1"].cmd(command))


def field(pattern: str, line: str) -> str:
    match = re.search(pattern, line)
    assert match is not None, line
    return match[1]


@pytest.mark.live
def test_a_sampler_that_dies_ends_the_trial_with_its_last_words(tmp_path: Path) -> None:
    from testbed.errors import EngineError
    from testbed.observe.observation import Observation
    from testbed.observe.settings import Settings

    async def conduct(net: Any, record: Recorder) -> None:
        observation = await Observation.start(net, record, Settings(interval_s=0.02))
        assert observation is not None
        observation._process.kill()
        await asyncio.sleep(60)

    record = Recorder(tmp_path, Trial(variant="v", repeat=0, seed=1))
    with pair() as net, pytest.raises(EngineError, match="sampler died"):
        asyncio.run(record.supervise(conduct(net, record)))
    record.close()


# -- the command ---------------------------------------------------------------------------------

TOPOLOGY = """
from mininet.topo import Topo
class Pair(Topo):
    def build(self, bw=20):
        self.addHost("h1"), self.addHost("h2"), self.addSwitch("s1")
        self.addLink("h1", "s1", bw=bw, queue="40p"), self.addLink("h2", "s1")
"""


def observe(folder: Path, *words: str, **options: Any) -> tuple[subprocess.Popen[str], list[str]]:
    (folder / "net.py").write_text(TOPOLOGY)
    argv = [sys.executable, "-m", "testbed.cli.main", "observe", str(folder / "net.py")]
    argv += ["--results", str(folder / "results"), "--every", "20ms", *words]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    return process, argv


def bundle_of(folder: Path) -> Any:
    from testbed.run.bundle import Bundle, find_bundles

    (path,) = find_bundles(folder / "results")
    return Bundle.open(path)


def test_any_command_leaves_a_bundle_with_figures_and_a_capture(tmp_path: Path) -> None:
    process, _argv = observe(
        tmp_path, "--arg", "bw=30", "--pcap", "h2-eth0", "--pcap-ring", "2x1MB", "--json",
        "--with", "h2 iperf3 -s", "--before", "h1 sysctl -w net.ipv4.tcp_sack=1",
        "--", "h1", "iperf3", "-c", "h2", "-n", "3M", "-C", "reno", ",,", "h2", "true",
    )  # fmt: skip
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    facts = json.loads(said)
    assert facts["status"] == "complete"
    assert "of one processor" in facts["observed"]
    names = {Path(each).stem for each in facts["figures"]}
    assert names == {"observed-links", "observed-queues", "observed-tcp"}
    bundle = bundle_of(tmp_path)
    captures = list((bundle.path / "pcap").iterdir())
    assert 1 <= len(captures) <= 2
    assert all(0 < path.stat().st_size <= 1_100_000 for path in captures)
    logs = {path.name for path in (bundle.path / "logs").iterdir()}
    assert {"observed-0-command1-h1-iperf3.log", "observed-0-server1-h2-iperf3.log"} <= logs
    assert "Observation used" in Path(facts["report"]).read_text()
    assert bundle.run["observe"]["interval_s"] == 0.02
    drawn = sorted((bundle.path / "figures").iterdir())
    again = subprocess.run(
        [sys.executable, "-m", "testbed.cli.main", "report", str(bundle.path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert sorted((bundle.path / "figures").iterdir()) == drawn


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--", "h1", "sh", "-c", "echo oh dear >&2; exit 3"], "ended with status 3: oh dear"),
        (["--with", "h2 sh -c 'echo no port; exit 4'", "--", "h1", "true"], "status 4: no port"),
        (["--", "h1", "no-such-program"], "cannot start no-such-program"),
    ],
)
def test_what_fails_says_its_last_line_and_keeps_what_was_recorded(
    words: list[str], why: str, tmp_path: Path
) -> None:
    process, _argv = observe(tmp_path, *words)
    _said, complained = process.communicate(timeout=120)
    assert process.returncode == 1
    assert why in complained
    bundle = bundle_of(tmp_path)
    assert why in bundle.status
    assert bundle.series()


def test_a_server_that_dies_later_ends_the_trial(tmp_path: Path) -> None:
    server = "h2 sh -c 'timeout -s KILL 1 iperf3 -s -p 7; echo gone; exit 9'"
    process, _argv = observe(tmp_path, "--with", server, "--", "h1", "sleep", "50")
    _said, complained = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "ended with status 9: gone" in complained


def test_duration_ends_commands_and_what_happens_meanwhile_is_marked(tmp_path: Path) -> None:
    change = "0.1s link h1 s1 update bw=5"
    process, _argv = observe(
        tmp_path, "--duration", "1.5s", "--at", change, "--", "h1", "ping", "h2"
    )
    _said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    bundle = bundle_of(tmp_path)
    assert bundle.status == "complete"
    (marked,) = (event for event in bundle.events() if event.get("mark"))
    assert marked["time_s"] >= 0.1


def test_ctrl_c_keeps_what_was_recorded(tmp_path: Path) -> None:
    process, _argv = observe(tmp_path, "--", "h1", "ping", "-i", "0.05", "h2")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "results").glob("observe/*/series/*.part-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 1
    bundle = bundle_of(tmp_path)
    assert "interrupted" in bundle.status
    (series,) = bundle.series()
    assert ".part-" not in series.name
