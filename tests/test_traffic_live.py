"""Traffic programs in the nodes of real networks."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from traffic_lab import Program, serving

from testbed.mptcp.configure import configure_endpoints
from testbed.network import Network
from topologies.dumbbell import Dumbbell
from topologies.mobile import Mobile
from topologies.star import Star

live = pytest.mark.live
PLAIN: dict[str, Any] = {"wifi_bw": None, "wifi_delay": None, "lte_bw": None, "lte_delay": None}


@live
@pytest.mark.parametrize("direction", ["up", "down", "both"])
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_bulk_transfers_arrive_whole(protocol: str, direction: str) -> None:
    with Network(Star(2)) as net:
        h1, h2 = net["h1"], net["h2"]
        with (
            serving(h2, "bulk", "server", f"--{protocol}") as server,
            Program(
                h1, "bulk", "client", h2.IP(), f"--{protocol}", "--bytes", "3M",
                "--direction", direction,
            ) as client,
        ):  # fmt: skip
            results = client.done()
            served = server.stop()
        up, down = direction in ("up", "both"), direction in ("down", "both")
        assert results["intact"] is True
        assert results["protocol"] == protocol
        assert (results["bytes_sent"], results["bytes_received"]) == (3e6 * up, 3e6 * down)
        assert (served["bytes_received"], served["bytes_sent"]) == (3e6 * up, 3e6 * down)
        for program, receives in ((server, up), (client, down)):
            told = sum(sample["value"] for sample in program.samples("goodput")) * 0.1 / 8
            assert told == pytest.approx(3e6 * receives)


@live
def test_goodput_series_are_those_of_the_link() -> None:
    with Network(Dumbbell(1, bw=20, delay="2ms")) as net:
        left, right = net["left1"], net["right1"]
        with (
            serving(right, "bulk", "server") as server,
            Program(left, "bulk", "client", right.IP(), "--duration", "2") as client,
        ):
            results = client.done()
            server.stop()
    samples = server.samples("goodput")
    gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(samples)]
    assert gaps == pytest.approx([0.1] * len(gaps))
    assert 0 < results["goodput_sent"] < 20e6
    # never above the link for long, however late the receiver is at times
    carried = itertools.accumulate(sample["value"] * 0.1 for sample in samples)
    for sample, bits in zip(samples, carried, strict=True):
        assert bits <= 20e6 * (sample["time"] - samples[0]["time"] + 1.0)


@live
def test_a_phone_uses_both_its_links_with_mptcp() -> None:
    used = {}
    with Network(Mobile(wifi_bw=8, wifi_delay="5ms", lte_bw=8, lte_delay="10ms")) as net:
        phone, server = net["phone"], net["server1"]
        configure_endpoints(phone.netns, phone.intfList())

        def received() -> dict[str, int]:
            return {name: int(phone.cmd(f"cat /sys/class/net/{name}/statistics/rx_bytes"))
                    for name in ("wifi", "lte")}  # fmt: skip

        for protocol in ("tcp", "mptcp"):
            with (
                serving(server, "bulk", "server", f"--{protocol}") as far,
                Program(
                    phone, "bulk", "client", server.IP(), f"--{protocol}", "--bytes", "3M",
                    "--direction", "down",
                ) as client,
            ):  # fmt: skip
                before = received()
                assert client.done()["intact"] is True
                far.stop()
                used[protocol] = {
                    name for name, count in received().items() if count - before[name] > 100_000
                }
    assert used == {"tcp": {"wifi"}, "mptcp": {"wifi", "lte"}}


# -- ending --------------------------------------------------------------------------------------


@live
@pytest.mark.parametrize("how", ["signal", "stdin", "command"])
def test_programs_stop_cleanly_in_the_middle(how: str) -> None:
    with (
        Network(Star(2)) as net,
        serving(net["h2"], "bulk", "server") as server,
        Program(net["h1"], "bulk", "client", net["h2"].IP(), "--duration", "60") as client,
    ):
        client.ready()
        server.until("sample")
        if how == "signal":
            client.process.send_signal(signal.SIGTERM)
        elif how == "stdin":
            client.process.stdin.close()
        else:
            client.process.stdin.write('{"command": "stop"}\n')
            client.process.stdin.flush()
        results = client.done()
        assert (results["stopped"], results["intact"]) == (True, False)
        assert server.until("event")["name"] == "failed"
        assert server.stop()["failed"] == 1


@live
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_server_stopped_right_after_a_transfer_counts_it(direction: str) -> None:
    with Network(Dumbbell(1, bw=None, delay="150ms")) as net:
        left, right = net["left1"], net["right1"]
        with (
            serving(right, "bulk", "server") as server,
            Program(
                left, "bulk", "client", right.IP(), "--bytes", "1k", "--direction", direction
            ) as client,
        ):
            client.done()  # its report is on its way for 150 ms yet
            served = server.stop()
    assert (served["streams"], served["failed"]) == (1, 0)
    assert served["bytes_received" if direction == "up" else "bytes_sent"] == 1000


@live
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_peer_that_vanishes_ends_a_client_with_status_1(direction: str) -> None:
    with (
        Network(Star(2)) as net, serving(net["h2"], "bulk", "server") as server,
        Program(
            net["h1"], "bulk", "client", net["h2"].IP(), "--duration", "60",
            "--direction", direction,
        ) as client,
    ):  # fmt: skip
        client.ready()
        if direction == "up":
            server.until("sample")
        else:
            client.until("sample")
        server.process.kill()
        status, text = client.error()
    assert status == 1
    assert text.startswith("traffic.bulk: error: the peer vanished")
    assert text.count("\n") == 1


@live
def test_a_silent_peer_has_vanished() -> None:
    with (
        Network(Star(2)) as net, serving(net["h2"], "bulk", "server") as server,
        Program(
            net["h1"], "bulk", "client", net["h2"].IP(), "--duration", "60", "--silence", "1",
        ) as client,
    ):  # fmt: skip
        server.until("sample")
        os.kill(server.process.pid, signal.SIGSTOP)
        status, text = client.error()
        os.kill(server.process.pid, signal.SIGCONT)
    assert (status, "silent for 1 s" in text) == (1, True)


@live
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("bulk", ["client"]),
        ("web", ["client"]),
        ("video", ["client"]),
        ("bursts", ["client"]),
        ("cbr", ["send"]),
    ],
)
def test_nobody_there_is_one_line_and_status_1(module: str, arguments: list[str]) -> None:
    with (
        Network(Star(2)) as net,
        Program(net["h1"], module, *arguments, net["h2"].IP()) as client,
    ):
        status, text = client.error()
    assert (status, text.count("\n")) == (1, 1)
    assert "start the" in text


@live
@pytest.mark.parametrize("arguments", [["bulk", "server"], ["web", "server"], ["cbr", "receive"]])
def test_servers_end_when_their_parent_dies(arguments: list[str]) -> None:
    script = f"""
import os, subprocess, sys
program = subprocess.Popen([sys.executable, "-m", *{["traffic." + arguments[0], *arguments[1:]]!r}],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
program.stdout.readline()
print(program.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    with Network(Star(1)) as net:
        parent = net["h1"].popen([sys.executable, "-c", script], text=True)
        out, _ = parent.communicate()
        deadline = time.monotonic() + 30
        while _runs(int(out)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _runs(pid: int) -> bool:
    """Is it there, and not a zombie that its new parent has yet to reap?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while, it was read
        return False


# -- the other programs --------------------------------------------------------------------------


@live
@pytest.mark.parametrize("https", ["0", "1"])
def test_a_browser_loads_pages_and_logs_in(https: str, tmp_path: Path) -> None:
    certificate = str(tmp_path / "sites.pem")
    web = ["--sites", "3", "--pages", "2", "--weight", "0.2", "--https", https, "--mptcp"]
    web += ["--certificate", certificate]
    with (
        Network(Star(2)) as net,
        serving(net["h2"], "web", "server", *web) as server,
        Program(net["h1"], "web", "client", net["h2"].IP(), "--visits", "4", *web) as client,
    ):
        results = client.done()
        served = server.stop()
    assert (results["pages"], served["failed"]) == (4, 0)
    assert len(client.samples("page_load_time")) == 4
    assert 1 <= len(client.events("login")) <= 3
    assert 0 < results["sensitive_bytes"] < results["bytes_received"]
    assert {event["https"] for event in client.events("page")} == {https == "1"}
    assert served["bytes_sent"] > results["bytes_received"]


@live
def test_a_constant_rate_measures_the_delay_and_loss_of_the_link() -> None:
    with Network(Dumbbell(1, bw=None, delay="30ms", loss=10), seed=3) as net:
        left, right = net["left1"], net["right1"]
        with (
            serving(right, "cbr", "receive", "--once") as receiver,
            Program(
                left, "cbr", "send", right.IP(), "--rate", "800k", "--size", "100",
                "--duration", "1.5",
            ) as sender,
        ):  # fmt: skip
            sent = sender.done()
            flow = receiver.done()
    assert sent["sent"] == flow["sent"] == 1500
    assert sent["lost"] == flow["lost"]
    assert 0.05 < flow["loss"] < 0.16
    assert 0.0295 < flow["delay_min"] < 0.045
    assert sum(sample["value"] for sample in receiver.samples("lost")) <= flow["lost"]


@live
def test_a_video_stalls_on_a_link_that_is_too_slow_and_not_on_one_that_is_not() -> None:
    stalled = {}
    for bw in (1, 10):
        with (
            Network(Dumbbell(1, bw=bw, delay="5ms")) as net,
            serving(net["right1"], "video", "server") as server,
            Program(
                net["left1"], "video", "client", net["right1"].IP(), "--bitrate", "1.5M",
                "--length", "4", "--segment", "0.5", "--start", "0.5", "--resume", "0.5",
            ) as client,
        ):  # fmt: skip
            results = client.done()
            server.stop()
        assert results["finished"] is True
        assert results["bytes_received"] > 4 * 1.5e6 / 8
        assert client.samples("buffered")
        assert bool(client.events("stall")) == bool(results["stalls"])
        stalled[bw] = results["stalled"]
    assert stalled[1] > max(0.5, stalled[10])  # s: 4 s of 1.5 Mb/s take 6 s at 1 Mb/s


@live
@pytest.mark.parametrize("direction", ["up", "down"])
def test_bursts_have_silences(direction: str) -> None:
    with (
        Network(Star(2)) as net, serving(net["h2"], "bursts", "server") as server,
        Program(
            net["h1"], "bursts", "client", net["h2"].IP(), "--duration", "2", "--on", "0.2",
            "--off", "0.4", "--rate", "4M", "--direction", direction, "--seed", "2",
        ) as client,
    ):  # fmt: skip
        results = client.done()
        server.stop()
    receiver = client if direction == "down" else server
    values = [sample["value"] for sample in receiver.samples("goodput")]
    assert results["intact"] is True
    assert min(values) == 0 < max(values)
    assert sum(values) * 0.1 < 0.9 * 4e6 * 2  # bits, had it sent all the time
