"""The live stream's server and its player in the nodes of real networks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from traffic_lab import Line, Program

from testbed.network import Network
from topologies.dumbbell import Dumbbell
from traffic.live.archive import player_archive
from traffic.live.player.outlet import Outlet

live = pytest.mark.live
LIMIT_S = 60
BEHIND = ("--behind", "3")


@contextmanager
def watching(
    *options: str, protocol: str = "tcp", path: str = "/live.m3u8"
) -> Iterator[tuple[Any, Program, Program]]:
    """The link between a server and a player, and both."""
    with Network(Dumbbell(1, bw=20, delay="5ms")) as net:
        server, viewer = net["right1"], net["left1"]
        link = net.linksBetween(net["west"], net["east"])[0]
        with Program(server, "live.server", f"--{protocol}") as serving:
            port = serving.ready()["port"]
            url = f"http://{server.IP()}:{port}{path}"
            with Program(viewer, "live.player", url, f"--{protocol}", *options) as player:
                yield link, serving, player


def until(player: Program, wanted: Callable[[Line], bool]) -> Line:
    """The first report that is as `wanted`."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        text = player.process.stdout.readline()
        assert text, player.process.stderr.read()
        line: Line = json.loads(text)
        player.lines.append(line)
        if line.get("name") == "player" and wanted(line):
            return line
    raise AssertionError(f"not seen in {LIMIT_S} s; last: {player.lines[-1]}")


def playing(seconds: float) -> Callable[[Line], bool]:
    """Does it play, with that much in its buffer?"""
    return lambda line: line["state"] == "playing" and line["buffer_s"] >= seconds


@live
@pytest.mark.parametrize("protocol", ["tcp", "mptcp"])
def test_a_stream_is_watched_over_one_connection(protocol: str) -> None:
    with watching(*BEHIND, protocol=protocol) as (_link, serving, player):
        first = until(player, playing(0.1))
        later = until(player, lambda line: line["frames"] >= 24)
        results = player.stop()
        served = serving.stop()
    assert (results["connections"], results["breaks"]) == (1, 0)
    assert results["protocol"] == protocol
    assert first["connection"] == results["connection"]
    moved, passed = later["position_s"] - first["position_s"], later["time"] - first["time"]
    assert moved == pytest.approx(passed - (later["stalled_s"] - first["stalled_s"]), abs=0.1)
    assert 0 < results["bytes"] <= served["bytes_sent"]
    assert served["encoder_cpu"] > 0
    numbers = [line["reports"] for line in player.lines if line.get("name") == "player"]
    assert numbers == list(range(1, len(numbers) + 1))
    # what the player takes for the live edge is what the server has announced
    announced = [(line["time"], line["value"]) for line in serving.samples("live edge")]
    known = [line for line in player.lines if line.get("live_edge_s")]
    for line in known:
        newest = max(value for told, value in announced if told <= line["time"])
        assert newest - 1.5 <= line["live_edge_s"] <= newest + 2.5


@live
def test_an_outage_is_seen_when_it_outlasts_the_buffer() -> None:
    with watching("--behind", "5") as (link, _serving, player):
        held = until(player, playing(4))
        link.cut()
        until(player, lambda line: line["buffer_s"] < held["buffer_s"] - 1)
        link.mend()
        short = until(player, playing(3.5))
        assert (short["stalls"], short["connections"]) == (0, 1)
        link.cut()
        stalled = until(player, lambda line: line["state"] == "stalled" and line["stalled_s"] > 1)
        link.mend()
        after = until(player, playing(1))
        results = player.stop()
    assert stalled["buffer_s"] == 0
    assert after["connection"] == held["connection"]
    assert after["stalls"] == 1
    assert after["stalled_s"] > 1
    assert after["missed_s"] == 0
    assert after["latency_s"] > held["latency_s"] + 0.5
    # the position went on from where it had stood
    shown = [line for line in player.lines if line.get("position_s") is not None]
    for earlier, later in itertools.pairwise(shown):
        step, passed = (later[key] - earlier[key] for key in ("position_s", "time"))
        assert -0.001 <= step <= passed + 0.001
    assert results["segments"] >= after["segments"]


@live
@pytest.mark.parametrize("reconnect", [False, True])
def test_a_connection_without_answers_is_told(reconnect: bool) -> None:
    options = ("--timeout", "2", *(["--reconnect"] if reconnect else []))
    with watching(*BEHIND, *options) as (link, _serving, player):
        first = until(player, playing(1))
        link.cut()
        broken = until(player, lambda line: line["breaks"] >= 1)
        assert broken["broken"] == "no byte for 2 s"
        assert player.events("connection broken")
        link.mend()
        after = until(player, lambda line: line["bytes"] > broken["bytes"] and not line["broken"])
        player.stop()
    assert (after["connection"] == first["connection"]) is not reconnect
    assert (after["connections"] > 1) is reconnect


@live
def test_a_viewer_that_begins_where_another_one_ended_misses_nothing() -> None:
    with watching(*BEHIND) as (_link, serving, player):
        ended = until(player, playing(1))["position_s"]
        player.stop()
        port = next(line["port"] for line in serving.lines if line["kind"] == "ready")
        url = f"http://127.0.0.1:{port}/live.m3u8"
        node = _Here(serving)
        with Program(node, "live.player", url, "--position", str(ended)) as second:
            first = until(second, playing(0.1))
            second.stop()
    assert first["missed_s"] == 0
    assert int(ended) <= first["position_s"] < ended + 2


class _Here:
    """Runs programs where another one runs."""

    def __init__(self, program: Program) -> None:
        self._pid = program.process.pid

    def popen(self, argv: list[str], **options: Any) -> subprocess.Popen[str]:
        inside = ["nsenter", f"--net=/proc/{self._pid}/ns/net", *argv]
        return subprocess.Popen(inside, **options)


@live
def test_without_a_server_the_player_says_so() -> None:
    with Network(Dumbbell(1)) as net:
        url = f"http://{net['right1'].IP()}:8080/live.m3u8"
        with Program(net["left1"], "live.player", url) as player:
            status, said = player.error()
    assert status == 1
    assert said.count("\n") == 1
    assert "cannot connect" in said
    assert "start the server first" in said


@live
def test_a_stream_that_is_not_there_is_said() -> None:
    with watching(path="/other.m3u8") as (_link, _serving, player):
        status, said = player.error()
    assert (status, said) == (1, "traffic.live.player: error: /other.m3u8: status 404\n")


@live
def test_an_encoder_that_dies_ends_the_server() -> None:
    with Network(Dumbbell(1)) as net, Program(net["right1"], "live.server") as serving:
        serving.ready()
        for child in children(serving.process.pid):
            os.kill(child, 9)
        status, said = serving.error()
    assert status == 1
    assert said.startswith("traffic.live.server: error: ffmpeg ended")
    assert said.count("\n") == 1


@live
def test_a_server_that_is_killed_leaves_no_encoder() -> None:
    with Network(Dumbbell(1)) as net, Program(net["right1"], "live.server") as serving:
        serving.ready()
        encoders = children(serving.process.pid)
        assert encoders
        serving.process.kill()
        serving.process.wait()
        deadline = time.monotonic() + LIMIT_S
        while any(alive(child) for child in encoders) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not [child for child in encoders if alive(child)]


def children(pid: int) -> list[int]:
    said = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in said for word in path.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- the player as one file, and its reports -----------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], ""),
        (["ftp://10.0.0.1/x"], "is not like http://10.0.0.2:8080/live.m3u8"),
        (["http://10.0.0.1:99999/x"], "is not like http://10.0.0.2:8080/live.m3u8"),
        (["http://[::1/x"], "is not like http://10.0.0.2:8080/live.m3u8"),
        (["http://a..b/x"], "a..b has no address"),
        (["http://10.0.0.1/x", "--report", "/none/x"], "--report /none/x: No such file"),
        (["http://[::1]:80/x", "--behind", "0"], "'0' is not a positive number"),
    ],
)
def test_the_archive_has_all_that_the_player_imports(words: list[str], said: str) -> None:
    """Without this project, or anything but the standard library, to be found."""
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place, "player.pyz")
        archive.write_bytes(player_archive())
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(archive), *words],
            cwd=place,
            capture_output=True,
            text=True,
        )
    assert done.returncode == (2 if said else 0), done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == bool(said)


def test_a_port_that_nobody_reads_does_not_stop_the_player(tmp_path: Path) -> None:
    path = tmp_path / "port"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    outlet = Outlet(str(path))
    lines = [f"{number:0200d}\n" for number in range(2000)]
    for line in lines:
        outlet.write(line)
        outlet.flush()
    taken = b""
    while data := _read(reader):
        taken += data
        outlet.flush()
    assert taken.decode() == "".join(lines)
    assert outlet.lost == 0
    outlet.close()
    os.close(reader)


def test_of_too_many_lines_some_are_lost_whole(tmp_path: Path) -> None:
    path = tmp_path / "port"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    outlet = Outlet(str(path))
    for number in range(6000):
        outlet.write(f"{number:0200d}\n")
        outlet.flush()
    taken = b""
    while data := _read(reader):
        taken += data
        outlet.flush()
    numbers = [int(line) for line in taken.split()]
    assert taken.endswith(b"\n")
    assert outlet.lost == 6000 - len(numbers) > 0
    assert numbers == sorted(numbers)
    assert numbers[-1] == 5999
    outlet.close()
    os.close(reader)


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 1 << 16)
    except BlockingIOError:
        return b""
