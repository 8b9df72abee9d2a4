"""A use case for the tests of `testbed.run`: a sender, a receiver, a link, and faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import TopologyError
from testbed.kernel import NetworkNamespace
from testbed.run import (
    Claim,
    Figure,
    NodeProcess,
    Parameters,
    Recorder,
    Trial,
    UseCase,
    Verdict,
    parameter,
)

FAULTS = (
    "none", "crash", "quiet", "die", "kill-trial", "fill-disk", "hang", "bug", "missing", "garbage",
)  # fmt: skip

PROGRAM = """
import json, random, sys, time
kinds = (int, float, int, float)
seed, size, steps, pause = (kind(word) for kind, word in zip(kinds, sys.argv[1:]))
def say(**message):
    print(json.dumps(message), flush=True)
say(kind="ready")
random.seed(seed)
for step in range(steps):
    value = size * (1 + random.gauss(0, 0.05)) * (1 - 2.718 ** (-step / 4))
    say(kind="sample", time=time.monotonic(), metric="goodput", value=value, unit="bit/s")
    if step == steps // 2:
        say(kind="event", time=time.monotonic(), name="halfway", step=step)
    time.sleep(pause)
if len(sys.argv) > 5:
    sys.exit(sys.argv[5] or 0)
say(kind="done", bytes=size)
"""


@dataclass(frozen=True, kw_only=True)
class Link(Parameters):
    bw: float = parameter(20.0, unit="Mb/s", help="rate", minimum=0.1, maximum=1000)
    delay: float = parameter(10.0, unit="ms", help="one-way delay", minimum=0)


@dataclass(frozen=True, kw_only=True)
class TinyParameters(Parameters):
    wifi: Link = Link()
    lte: Link = Link(bw=10, delay=30)
    steps: int = parameter(6, help="samples a trial", minimum=1)
    pause: float = parameter(0.02, unit="s", help="between samples", minimum=0)
    fault: str = parameter("none", help="what goes wrong", choices=FAULTS)
    faulty_repeat: int = parameter(-1, help="the repeat it goes wrong in; -1 is all")


class Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.netns = NetworkNamespace.create()

    def popen(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        with self.netns:
            return subprocess.Popen(argv, **options)


class Net:
    def __init__(self) -> None:
        self.node = Node("h1")

    def __getitem__(self, name: str) -> Node:
        return self.node


@contextlib.contextmanager
def started() -> Iterator[Net]:
    net = Net()
    try:
        yield net
    finally:
        net.node.netns.close()


def _zero_leak(results: Any) -> Verdict:
    leaked = results.values("leaked", variant="trusted")
    return Verdict.of(leaked.max() == 0, f"{leaked.max():.0f} bytes in {len(leaked)} trials")


def _faster(results: Any) -> Verdict:
    gain = results.mean("mean goodput", variant="mptcp").mean
    base = results.mean("mean goodput", variant="lte-only").mean
    return Verdict.of(gain > base, f"{gain / base:.2f} times")


def _no_data(results: Any) -> Verdict:
    return Verdict.of(results.mean("stall", variant="trusted").mean < 1, "?")


def _goodput(results: Any, canvas: Any) -> None:
    from testbed.report import figures

    axes = canvas.subplots()
    figures.band(axes, results, "goodput", bin_s=0.05, scale=1e-6)
    axes.set_ylabel("Goodput (Mb/s)")
    figures.legend(axes)


def _bars(results: Any, canvas: Any) -> None:
    from testbed.report import figures

    axes = canvas.subplots()
    figures.bars(axes, results, "mean goodput", scale=1e-6)
    axes.set_ylabel("Mean goodput (Mb/s)")


class Tiny(UseCase[TinyParameters]):
    name = "tiny"
    section = "D0.0"
    title = "A tiny use case"
    summary = "One program sends samples; faults come on demand."
    Parameters = TinyParameters
    variants = {  # noqa: RUF012
        "lte-only": "everything over LTE",
        "mptcp": "both paths",
        "trusted": "sensitive bytes over LTE alone",
    }
    quick = {"steps": 4}  # noqa: RUF012
    trial_limit_s = 60
    claims = (
        Claim("leak", "Nothing leaks", "D0.0 1", _zero_leak),
        Claim("faster", "Two paths are faster than one", "D0.0 2", _faster),
        Claim("stall", "It never stalls", "D0.0 3", _no_data),
    )
    figures = (
        Figure("goodput", "Goodput over time", "Mean over repeats and 95% confidence.", _goodput),
        Figure("bars", "Mean goodput", "Mean and 95% confidence; dots are trials.", _bars),
    )

    def topology(self, params: TinyParameters) -> object:
        if params.wifi.bw == 999:
            raise TopologyError("node ap is wired to itself", remedy="wire it to another")
        return None

    def network(self, params: TinyParameters, topo: object, trial: Trial) -> Any:
        return started()

    async def run(self, net: Net, params: TinyParameters, record: Recorder) -> None:
        size = {"lte-only": params.lte.bw, "trusted": 1.4 * params.lte.bw}.get(
            record.trial.variant, params.wifi.bw + params.lte.bw
        ) * 1e6
        argv = [sys.executable, "-c", PROGRAM, str(record.trial.seed), str(size),
                str(params.steps), str(params.pause)]  # fmt: skip
        due = params.faulty_repeat in (-1, record.trial.repeat)
        fault = params.fault if due else "none"
        if fault in ("crash", "quiet"):
            argv.append({"crash": "no route to host", "quiet": ""}[fault])
        sender = await NodeProcess.start(net["h1"], argv, record, name="sender")
        await sender.ready()
        record.progress(0.5, "sending")
        await self._break(fault, sender, record)
        await sender.done(30)
        record.result("leaked", 0 if record.trial.variant != "mptcp" else 62_000, "B")
        record.result("mean goodput", size * (1 + record.trial.seed % 7 / 100), "bit/s")

    async def _break(self, fault: str, sender: NodeProcess, record: Recorder) -> None:
        if fault == "die":
            os.kill(sender.pid, signal.SIGKILL)
            await asyncio.sleep(60)
        elif fault == "kill-trial":
            await sender.event("halfway", 30)
            record.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "hang":
            await asyncio.sleep(60)
        elif fault == "bug":
            raise KeyError("server")
        elif fault == "missing":
            await NodeProcess.start(None or _node("h2"), ["/no/such/program"], record)
        elif fault == "garbage":
            await NodeProcess.start(_node("h2"), ["echo", "hello"], record, name="echo")
            await asyncio.sleep(60)
        elif fault == "fill-disk":
            for number in range(4000):
                record.samples((0.001 * k, "fill", "noise", os.urandom(1)[0] + k / 7 + number, "")
                               for k in range(1000))  # fmt: skip
                await asyncio.sleep(0)


def _node(name: str) -> Any:
    node = Node(name)
    node.netns.close()
    node.netns = NetworkNamespace.current()
    return node


HERE = str(Path(__file__).resolve())
