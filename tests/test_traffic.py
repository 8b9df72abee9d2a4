"""What the traffic programs do without a network: protocols, sources, accounts, player."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import time
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import ParameterError
from traffic import pattern
from traffic.deframer import Deframer, ProtocolError, State, header, line
from traffic.emit import Emitter
from traffic.flow import HEADER, Datagram, Flow
from traffic.meter import Meter
from traffic.pattern import HIGH, LOW, Frames, block, marked_bytes
from traffic.playout import Playout
from traffic.program import Life, Stopped, Task, Tasks, amount, port, whole
from traffic.sources import Source
from traffic.web.site import Web


class Lines:
    """An emitter whose lines a test reads."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self.emit = Emitter(self._text)

    @property
    def all(self) -> list[dict[str, object]]:
        return [json.loads(text) for text in self._text.getvalue().splitlines()]


# -- what programs say ---------------------------------------------------------------------------


def test_lines_follow_the_protocol() -> None:
    lines = Lines()
    lines.emit.ready(port=5)
    lines.emit.sample("goodput", 8.0, "bit/s", time_s=1.5)
    lines.emit.event("stall", kind="nonsense", seconds=2)
    lines.emit.done(bytes=3)
    ready, sample, event, done = lines.all
    assert (ready["kind"], ready["port"]) == ("ready", 5)
    assert sample == {
        "kind": "sample", "time": 1.5, "metric": "goodput", "value": 8.0, "unit": "bit/s",
    }  # fmt: skip
    assert (event["kind"], event["name"], event["seconds"]) == ("event", "stall", 2)
    assert (done["kind"], done["bytes"]) == ("done", 3)


def test_amounts() -> None:
    assert (amount("64k"), amount("2.5M"), amount("3"), whole("1k")) == (64e3, 2.5e6, 3.0, 1000)
    assert port("0") == 0
    for function, text in (
        (amount, "-1"), (amount, "fast"), (amount, "0"), (amount, "inf"), (amount, "nan"),
        (whole, "1.5"), (port, "70000"), (port, "http"),
    ):  # fmt: skip
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            function(text)


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("bulk", [], "role"),
        ("bulk", ["client"], "HOST"),
        ("bulk", ["client", "h", "--bytes", "none"], "--bytes"),
        ("bulk", ["client", "127.0.0.1", "--congestion", "warp"], "warp"),
        ("bursts", ["client", "h", "--alpha", "0.5"], "mean"),
        ("cbr", ["send", "h", "--size", "5"], "give 20 to"),
        ("many", ["client", "h", "--connections", "30k"], "give 1 to 20000 connections"),
        ("many", ["client", "h", "--size", "10"], "give 64 to"),
        ("web", ["client", "h", "--https", "2"], "share"),
        ("web", ["client", "h", "--https", "1", "--certificate", "/no/such"], "No such file"),
        ("video", ["client", "h", "--bitrate", "0"], "--bitrate"),
    ],
)
def test_bad_arguments_end_in_one_line_and_status_2(
    module: str, arguments: list[str], says: str
) -> None:
    argv = [sys.executable, "-m", f"traffic.{module}", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


# -- the life of a program -----------------------------------------------------------------------


def test_stopping_wakes_sleepers() -> None:
    life = Life()
    sleeper = Task(life.sleep, 60)
    life.stop()
    with pytest.raises(Stopped):
        sleeper.join()
    life.close()


def test_a_task_hands_over_its_result_or_its_exception() -> None:
    assert Task(divmod, 7, 2).join() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        Task(divmod, 7, 0).join()


def test_an_exception_in_a_server_s_thread_is_not_lost() -> None:
    tasks = Tasks()
    failed = tasks.start(divmod, 7, 0)
    while failed.alive:
        time.sleep(0.001)
    with pytest.raises(ZeroDivisionError):
        tasks.start(divmod, 7, 2)
    with pytest.raises(ZeroDivisionError):
        tasks.join()


# -- payload -------------------------------------------------------------------------------------


def test_payload_is_the_same_for_the_same_seed_and_no_two_frames_are_alike() -> None:
    def stream(seed: int) -> list[bytes]:
        frames = Frames(seed)
        return [bytes(frames.next(size)) for size in (70, 70, 70, 3)]

    assert stream(1) == stream(1) != stream(2)
    assert len(set(stream(1))) == 4


@pytest.mark.parametrize(("mark", "share"), [(LOW, 0), (HIGH, 1)])
def test_marks_are_in_every_byte(mark: str, share: int) -> None:
    frames = Frames(3, mark, head=8)
    for size in (1, 7, 8, 100, pattern.FRAME):
        payload = frames.next(size, header(size))[8:]
        assert marked_bytes(payload) == size * share
    assert 0 < marked_bytes(block(3, 1000)) < 1000


# -- goodput -------------------------------------------------------------------------------------


def test_a_meter_tells_every_byte_once_and_nothing_while_nobody_receives() -> None:
    lines = Lines()
    meter = Meter(lines.emit)
    meter.add(100)  # came with a request, before its transfer had begun
    assert lines.all == []
    with meter.active():
        meter.add(20)
        with meter.active():
            meter.add(5)
    first = len(lines.all)
    assert 1 <= first < 10
    time.sleep(0.3)
    with meter.active():
        meter.add(1000)
    assert 1 <= len(lines.all) - first < 10
    assert sum(line["value"] for line in lines.all) * 0.1 / 8 == pytest.approx(1125)  # type: ignore[misc]
    assert {line["metric"] for line in lines.all} == {"goodput"}


# -- the stream protocol -------------------------------------------------------------------------


def sent(payloads: list[bytes], request: dict[str, object] | None = None) -> bytes:
    data = line(request) if request is not None else b""
    for payload in payloads:
        data += header(len(payload)) + payload
    count = {"bytes": sum(map(len, payloads)), "seconds": 0.5}
    count["sha256"] = hashlib.sha256(b"".join(payloads)).hexdigest()  # type: ignore[assignment]
    return data + header(0) + line(count) + line(count)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=5),
    st.lists(st.integers(min_value=0), max_size=8),
    st.one_of(st.none(), st.just({"receive": True})),
)
def test_deframing_does_not_depend_on_the_pieces(
    payloads: list[bytes], cuts: list[int], request: dict[str, object] | None
) -> None:
    took: list[int] = []
    deframer = Deframer(expect_request=request is not None, on_payload=took.append)
    for piece in pieces(sent(payloads, request), cuts):
        deframer.feed(memoryview(piece))
    assert deframer.state is State.END
    assert deframer.request == request
    assert sum(took) == sum(map(len, payloads))
    assert deframer.trailer is not None
    assert deframer.count[:2] == deframer.trailer[:2]
    assert deframer.report == deframer.trailer


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP", b"00000000[]\n", b"00000000{}\n", b"00000000{\n", b"00000000" + b"x" * 5000],
)
def test_what_is_no_stream_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="the peer sent"):
        Deframer().feed(memoryview(data))


# -- sources -------------------------------------------------------------------------------------


def test_on_off_periods_are_heavy_tailed_with_the_means_asked_for() -> None:
    source = Source(on_s=0.5, off_s=2.0, alpha=1.8, seed=4, duration_s=1, rate_bps=1e6)
    periods = list(islice(source.periods(), 20000))
    assert periods == list(islice(source.periods(), 20000))
    on, off = (sum(values) / len(values) for values in zip(*periods, strict=True))
    assert on == pytest.approx(0.5, rel=0.15)
    assert off == pytest.approx(2.0, rel=0.15)
    assert max(period[0] for period in periods) > 10 * on


@pytest.mark.parametrize(
    "fields", [{"nonsense": 1}, {"bytes": -1}, {"alpha": 1.0}, {"mark": "blue"}, {"bytes": "many"}]
)
def test_a_source_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="cannot be sent"):
        Source.parse(fields)


def test_a_source_of_bytes_sends_just_those() -> None:
    life = Life()
    assert sum(Source(bytes=200_001).sizes(life)) == 200_001
    bursts = Source(bytes=5000, rate_bps=8e6, on_s=0.002, off_s=0.001)
    assert sum(bursts.sizes(life)) == 5000
    life.close()


# -- constant bit rate ---------------------------------------------------------------------------


def test_datagrams() -> None:
    datagram = Datagram("data", 7, 12, 1_000_000_007)
    assert Datagram.parse(datagram.build(100)) == datagram
    assert len(datagram.build(100)) == 100
    assert Datagram.parse(b"x" * HEADER) is None
    assert Datagram.parse(b"") is None


def account(numbers: list[int]) -> tuple[Flow, Lines]:
    flow, lines = Flow(), Lines()
    for position, number in enumerate(numbers):
        flow.took(lines.emit, number, 0.010, 100 + position * 0.01, 50)
    return flow, lines


def test_loss_duplicates_and_reordering_are_told_apart() -> None:
    flow, _ = account([0, 1, 3, 2, 2, 6])
    results = flow.results(sent=8)
    assert (results["received"], results["lost"], results["loss"]) == (5, 3, 3 / 8)
    assert (results["duplicates"], results["reordered"]) == (1, 1)
    assert results["delay_mean"] == pytest.approx(0.010)
    assert results["jitter"] == pytest.approx(0.0)


@given(st.sets(st.integers(0, 200), min_size=1), st.randoms(use_true_random=False))
def test_what_is_missing_is_lost_in_whatever_order_the_rest_comes(
    numbers: set[int], random: object
) -> None:
    order = sorted(numbers, key=lambda _: random.random())  # type: ignore[attr-defined]
    flow, lines = account(order)
    flow.advance(lines.emit, 103)
    assert flow.results(201)["lost"] == 201 - len(numbers)
    told = sum(sample["value"] for sample in lines.all if sample["metric"] == "lost")  # type: ignore[misc]
    assert told == max(numbers) + 1 - len(numbers)
    assert not flow.duplicates


def test_samples_of_a_flow_are_per_100_ms() -> None:
    flow, lines = account(list(range(25)))
    flow.advance(lines.emit, 100.5)
    goodput = [line for line in lines.all if line["metric"] == "goodput"]
    assert [line["time"] for line in goodput] == pytest.approx([100.1, 100.2, 100.3, 100.4, 100.5])
    assert sum(line["value"] for line in goodput) * 0.1 == 25 * 50 * 8  # type: ignore[misc]


# -- video ---------------------------------------------------------------------------------------


def test_a_player_starts_stalls_and_goes_on() -> None:
    player = Playout(start_s=4, resume_s=2)
    player.segment(1.0, 2)
    assert not player.playing
    player.segment(2.0, 2)
    assert (player.playing, player.began) == (True, 2.0)
    player.advance(5.0)
    assert player.buffered == pytest.approx(1.0)
    player.advance(8.0)  # empty at 6
    assert player.stalled
    assert player.stalled_s(8.0) == pytest.approx(2.0)
    player.segment(9.0, 2)
    assert not player.stalled
    player.segment(10.0, 2, last=True)
    player.advance(20.0)
    assert player.finished
    assert [(stall.start_s, stall.seconds) for stall in player.stalls] == [(6.0, 3.0)]
    assert player.stalled_s(30.0) == pytest.approx(3.0)


def test_a_short_video_starts_with_its_end() -> None:
    player = Playout(start_s=10, resume_s=10)
    player.segment(1.0, 2, last=True)
    assert player.playing
    assert player.room_at(1.0, 0.5) == pytest.approx(2.5)
    player.advance(3.5)
    assert player.finished
    assert player.stalls == []


def test_no_web_has_impossible_shares() -> None:
    with pytest.raises(ParameterError, match=r"https=1\.5"):
        Web(https=1.5)
