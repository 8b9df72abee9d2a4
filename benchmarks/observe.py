"""What does observation cost, and what does it do to what it looks at?

Cost: a network of pairs of hosts, some with TCP connections that each send twenty times a second,
sampled for a few seconds.  Counted is the processor time of the sampler's process and of the
trial's for what it is sent, as every observed run records it.

Effect: a TCP flow as fast as the machine can, in a network of twenty interfaces, alone and sampled
every 10 ms: by a process of the sampler's own (as it is) and by a thread of the trial's process.
Beside the flow's rate, how late a 1 ms timer of the trial's event loop is.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import click
from mininet.log import setLogLevel

from benchmarks._compare import Ratio, alone, interleaved, print_result, say, table

_INTERVALS_S = (0.01, 0.05, 0.1)
_SIZES = ((2, 0), (20, 0), (200, 0), (20, 10), (20, 100))
_QUICK_SIZES = ((2, 0), (20, 10))
_FLOW_INTERFACES = 20
_BEAT_S = 0.05


@click.command()
@click.option("--quick", is_flag=True, help="Two sizes, shorter, fewer rounds.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(quick: bool, as_json: bool) -> None:
    """Processor time of sampling, and its effect on a TCP flow."""
    rows = []
    for interfaces, sockets in _QUICK_SIZES if quick else _SIZES:
        say(f"{interfaces} interfaces, {sockets} sockets ...")
        rows += alone(_costs, interfaces, sockets, 1.0 if quick else 2.0)
    rounds, seconds = (2, 1) if quick else (4, 2)
    say(f"a TCP flow, {rounds} rounds of three ...")
    flows = interleaved(
        {how: lambda how=how: alone(_flow, how, seconds)  # type: ignore[misc]
         for how in ("none", "process", "thread")},
        rounds,
    )  # fmt: skip
    effects = [_effect(how, flows) for how in flows]
    text = f"{_cost_table(rows)}\n\n{_effect_table(effects)}"
    print_result({"cost": rows, "effect": effects}, text, as_json)


def _cost_table(rows: list[dict[str, Any]]) -> str:
    return table(
        ["interfaces", "sockets", "every ms", "% of a processor", "a sample ms", "late, missed"],
        [
            [row["interfaces"], row["sockets"], f"{row['every_s'] * 1e3:.0f}",
             100 * row["processor_share"], 1e3 * row["sample_s"],
             f"{row['late']}, {row['missed']} of {row['samples']}"]
            for row in rows
        ],
    )  # fmt: skip


def _effect_table(effects: list[dict[str, Any]]) -> str:
    return table(
        ["sampler", "flow's rate against none", "timer late p99 ms"],
        [
            [row["sampler"], Ratio(*row["rate_ratio"]), 1e3 * row["timer_late_p99_s"]]
            for row in effects
        ],
    )


def _effect(how: str, flows: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    rates = {name: [rate for rate, _late in found] for name, found in flows.items()}
    lates = sorted(late for _rate, late in flows[how])
    return {
        "sampler": how,
        "rate_ratio": list(Ratio.of(rates[how], rates["none"])),
        "timer_late_p99_s": lates[len(lates) // 2],
    }


# -- the cost of sampling ------------------------------------------------------------------------


def _costs(interfaces: int, sockets: int, seconds: float) -> list[dict[str, Any]]:
    """One row an interval, all on one network."""
    with _network(interfaces) as net, _talking(net, sockets):
        found = []
        for every_s in _INTERVALS_S:
            facts = _observed(net, every_s, seconds)
            found.append({"interfaces": interfaces, "sockets": sockets, "every_s": every_s,
                          **facts})  # fmt: skip
        return found


def _observed(net: Any, every_s: float, seconds: float) -> dict[str, Any]:
    from pyarrow import parquet

    from testbed.run import Recorder, Trial

    with tempfile.TemporaryDirectory() as folder:
        record = Recorder(Path(folder), Trial(variant="v", repeat=0, seed=1))
        asyncio.run(record.supervise(_wait(net, record, every_s, seconds)))
        record.close()
        rows = parquet.read_table(record.series_path).to_pylist()
    found = {row["metric"]: row["value"] for row in rows if row["source"] == "observation"}
    counts = {name: int(found[f"observation.{name}"]) for name in ("samples", "late", "missed")}
    return {
        "processor_share": found["observation.processor_share"],
        "sample_s": found["observation.sample_time"],
        **counts,
    }


async def _wait(net: Any, record: Any, every_s: float, seconds: float) -> None:
    from testbed.observe.observation import Observation
    from testbed.observe.settings import Settings

    await Observation.start(net, record, Settings(interval_s=every_s))
    await asyncio.sleep(seconds)


@contextmanager
def _network(interfaces: int) -> Iterator[Any]:
    """Pairs of hosts with as many interfaces in all."""
    import pyarrow

    from testbed.network import Network
    from testbed.observe.observation import prepare

    pyarrow.array([0.0])  # what a trial does before it starts
    prepare()
    net = Network()
    for number in range(interfaces // 2):
        left, right = (net.addHost(f"{side}{number}") for side in "ab")
        net.addLink(left, right)
    with net:
        yield net


@contextmanager
def _talking(net: Any, sockets: int) -> Iterator[None]:
    """Connections with as many sockets in all, spread over the pairs, that say something."""
    pairs = [_connect(net, place % (len(net.hosts) // 2)) for place in range(sockets // 2)]
    over = threading.Event()

    def talk() -> None:
        while not over.wait(_BEAT_S):
            for sender, receiver in pairs:
                sender.send(bytes(100))
                receiver.recv(100)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for pair in pairs:
            for end in pair:
                end.close()


def _connect(net: Any, pair: int) -> tuple[socket.socket, socket.socket]:
    with net[f"b{pair}"].netns, socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        with net[f"a{pair}"].netns:
            sender = socket.create_connection((net[f"b{pair}"].IP(), port))
        return sender, listener.accept()[0]


# -- its effect ----------------------------------------------------------------------------------


def _flow(how: str, seconds: int) -> tuple[float, float]:
    """Rate of a flow (bit/s), and how late the event loop's timers were (p99, s)."""
    setLogLevel("critical")
    with _network(_FLOW_INTERFACES) as net, _sampled(net, how):
        return asyncio.run(_flow_and_timer(net, seconds))


async def _flow_and_timer(net: Any, seconds: int) -> tuple[float, float]:
    lates: list[float] = []
    timer = asyncio.ensure_future(_timer(lates))
    ends = (net["a0"], net["b0"])
    said = await asyncio.to_thread(net.iperf, ends, seconds=seconds)
    timer.cancel()
    lates.sort()
    return float(said[0].split()[0]) * 1e6, lates[int(0.99 * len(lates))]


async def _timer(lates: list[float]) -> None:
    while True:
        due = time.monotonic() + 0.001
        await asyncio.sleep(0.001)
        lates.append(time.monotonic() - due)


@contextmanager
def _sampled(net: Any, how: str) -> Iterator[None]:
    """Sample every 10 ms in a process or a thread, what is sent thrown away."""
    if how == "none":
        yield
        return
    import subprocess
    import sys

    from testbed.observe import worker
    from testbed.observe.observation import places_of

    places = places_of(net)
    ours, theirs = Pipe()
    ours.send({"places": [vars(each) for each in places], "interval_s": _INTERVALS_S[0]})
    if how == "process":
        fds = (theirs.fileno(), *(place.fd for place in places))
        argv = [sys.executable, "-m", "testbed.observe.worker", str(theirs.fileno())]
        process = subprocess.Popen(argv, pass_fds=fds)
    else:
        thread = threading.Thread(target=worker.run, args=(theirs,))
        thread.start()
    reader = threading.Thread(target=_drain, args=(ours,))
    reader.start()
    try:
        yield
    finally:
        ours.send("stop")
        process.wait() if how == "process" else thread.join()
        reader.join()


def _drain(pipe: Any) -> None:
    while pipe.recv()[0] != "done":
        pass
