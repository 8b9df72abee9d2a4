"""One trial, in a process of its own inside a sandbox: `python -m testbed.run.trial SPEC.json`.

It brings the use case's network up, probes its links, runs the use case under a recorder and
certifies what the links did.  What it has to say it tells the runner in lines of JSON on
standard output:

    {"kind": "progress", "fraction": 0.4, "text": "bulk transfer"}
    {"kind": "error", "type": ..., "message": ..., "remedy": ..., "traceback": ...}
    {"kind": "done", "seconds": ..., "certificate": ..., "engines": ..., "settings": ...}

What the use case itself prints goes to the trial's log.  Repeats, variants and the bundle's
run.json are the runner's business.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any

from testbed.errors import ExperimentError, TestbedError
from testbed.observe.observation import Observation, prepare
from testbed.observe.settings import NOT_OBSERVED, Settings
from testbed.run import provenance
from testbed.run.certificate import Certificate, certify
from testbed.run.cpu import SPELL_S, CpuSampler
from testbed.run.discovery import find
from testbed.run.probe import Delay, probe
from testbed.run.recorder import Recorder
from testbed.run.usecase import Trial, UseCase


class Interrupted(ExperimentError):
    """The runner asked the trial to end."""


class Conductor:
    """Runs one trial of a use case; `tell` passes messages on to the runner."""

    def __init__(
        self,
        use_case: UseCase[Any],
        params: Any,
        record: Recorder,
        tell: Any,
        *,
        observe: Settings = NOT_OBSERVED,
    ) -> None:
        self.use_case = use_case
        self.params = params
        self.record = record
        self.trial = record.trial
        self._tell = tell
        self._observe = observe
        self._changed: set[str] = set()
        self._first: BaseException | None = None

    def conduct(self) -> None:
        """Run the trial from an empty sandbox to its certificate."""
        self._progress("bringing the network up")
        if self._observe.interval_s is not None:
            prepare()
        topo = self.use_case.topology(self.params)
        network = self.use_case.network(self.params, topo, self.trial)
        try:
            with network as net:
                self._within(net, topo)
        except BaseException as error:
            # what failed while taking the network down comes second
            raise self._first or error from None

    def _within(self, net: Any, topo: Any) -> None:
        try:
            self._progress("probing the links")
            delays = probe(getattr(net, "links", ()))
            outcomes = self._check(net, topo)
            asyncio.run(self._drive(net, delays, outcomes))
        except BaseException as error:
            self._first = error
            raise

    def _check(self, net: Any, topo: Any) -> list[dict[str, Any]]:
        """Check what the topology states; what does not hold is recorded, and is no error."""
        if not getattr(topo, "expect", None):
            return []
        from testbed.network.expect import check, stated

        self._progress("checking what the topology states")
        return [outcome.as_dict() for outcome in check(net, stated(topo))]

    async def _drive(
        self,
        net: Any,
        delays: dict[tuple[str, str], Delay],
        outcomes: list[dict[str, Any]],
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        cpu, started = CpuSampler(), time.monotonic()
        watch = asyncio.ensure_future(self._watch(net, cpu))
        self._progress("")
        self.record.epoch = started
        for outcome in outcomes:
            self.record.event("expectation", time_s=0.0, **outcome)
        if hasattr(net, "observers"):
            net.observers.append(self.record.event)
        try:
            await self.record.supervise(self._work(net))
        except asyncio.CancelledError:
            raise Interrupted("interrupted") from None
        finally:
            watch.cancel()
        seconds = time.monotonic() - started
        certificate = self._certify(net, cpu, delays)
        self._tell(
            kind="done",
            seconds=round(seconds, 3),
            certificate=certificate.as_dict(),
            engines=_choices(net),
            settings=provenance.settings(),
        )

    async def _work(self, net: Any) -> None:
        if self._observe.wanted:
            await Observation.start(net, self.record, self._observe)
            self.record.start_clock()
        await self.use_case.run(net, self.params, self.record)

    async def _watch(self, net: Any, cpu: CpuSampler) -> None:
        """Sample the processors; notice a dead engine and links that change."""
        engines = getattr(net, "engines", None)
        before = _specs(net)
        try:
            while True:
                await asyncio.sleep(SPELL_S)
                cpu.sample()
                if engines is not None:
                    engines.check()
                self._changed |= {name for name, specs in _specs(net).items()
                                  if specs != before.get(name)}  # fmt: skip
        except TestbedError as error:
            self.record.fail(error)

    def _certify(
        self, net: Any, cpu: CpuSampler, delays: dict[tuple[str, str], Delay]
    ) -> Certificate:
        cpu.sample()
        engines = getattr(net, "engines", None)
        reports = engines.reports() if engines is not None else []
        return certify(
            reports,
            cpu.use,
            delays=delays,
            ends=_ends(net),
            changed=frozenset(self._changed),
            workers=engines.workers() if engines is not None else (),
        )

    def _progress(self, text: str) -> None:
        self._tell(kind="progress", fraction=0.0, text=text)


def _specs(net: Any) -> dict[str, Any]:
    links = getattr(net, "links", ())
    return {link.wire.name: link.specs for link in links if getattr(link, "wire", None) is not None}


def _ends(net: Any) -> dict[tuple[str, str], str]:
    """(wire, direction) -> the interfaces it goes from and to."""
    found = {}
    for link in getattr(net, "links", ()):
        if getattr(link, "wire", None) is not None:
            there, back = link.wire.directions
            first, second = link.intf1.name, link.intf2.name
            found[link.wire.name, there] = f"{first} > {second}"
            found[link.wire.name, back] = f"{second} > {first}"
    return found


def _choices(net: Any) -> list[dict[str, str]]:
    engines = getattr(net, "engines", None)
    return [choice._asdict() for choice in engines.choices()] if engines is not None else []


def main(spec_path: str) -> int:
    """Run the trial that the file describes; 0 when it came to its end."""
    voice = _take_standard_output()

    def tell(**message: Any) -> None:
        voice.write(json.dumps(message, default=str) + "\n")
        voice.flush()

    try:
        _run(json.loads(Path(spec_path).read_text()), tell)
    except BaseException as error:
        tell(kind="error", **describe(error))
        traceback.print_exc()
        return 1
    return 0


def _run(spec: dict[str, Any], tell: Any) -> None:
    import pyarrow.parquet  # a third of a second: not while traffic flows

    pyarrow.array([0.0])  # its first array imports pandas, which takes as long again

    use_case = find(spec["use_case"], tuple(spec["folders"]))
    params = use_case.Parameters().changed(spec["parameters"])

    def progress(fraction: float, text: str) -> None:
        tell(kind="progress", fraction=fraction, text=text)

    record = Recorder(Path(spec["folder"]), Trial(**spec["trial"]), on_progress=progress)
    try:
        observe = Settings.from_dict(spec["observe"])
        Conductor(use_case, params, record, tell, observe=observe).conduct()
    finally:
        record.close()


def describe(error: BaseException) -> dict[str, Any]:
    """An error as the runner wants it: for one of ours its words, for a bug where it was."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, TestbedError):
        return {
            "type": type(error).__name__,
            "message": error.message,
            "remedy": error.remedy,
            "exit_status": error.exit_status,
            "traceback": trace,
        }
    where = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(where[-1].filename).name}, line {where[-1].lineno})" if where else ""
    return {
        "type": type(error).__name__,
        "message": f"{type(error).__name__}: {error}".rstrip(": ") + place,
        "remedy": "",
        "exit_status": 1,
        "traceback": trace,
    }


def _take_standard_output() -> IO[str]:
    """Keep standard output for the runner; prints of the use case go to standard error."""
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "w", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
