"""An observation as the trial sees it: the sampler's process, what it sends, what it cost.

    observation = await Observation.start(net, record, settings)

It ends with the trial (`Recorder.defer`).  If the sampler dies, so does the trial, with its last
words.  What is to be looked at is made out here, from the network.
"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Self

import testbed
from testbed.errors import EngineError, ExperimentError, KernelError
from testbed.kernel.namespaces import sysctl
from testbed.observe.capture import Capture
from testbed.observe.engine_queues import EngineQueues
from testbed.observe.place import Place, interface_source
from testbed.observe.settings import Settings, check_interfaces
from testbed.run.recorder import Recorder

SOURCE = "observation"
_ROOT = str(Path(testbed.__file__).parent.parent)
_READY_S, _STOP_S = 30.0, 15.0
_SOCKET_BUCKETS = 1024


class Observation:
    """A running sampler; make it with `await Observation.start(...)`."""

    def __init__(self, net: Any, record: Recorder, interval_s: float) -> None:
        self._record, self._interval_s = record, interval_s
        self._links = [
            (interface_name(a), interface_name(b), rate)
            for link in getattr(net, "links", ())
            for a, b, rate in _directions(link)
        ]
        self._pipe, self._theirs = Pipe()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._addresses = {
            str(address): interface_name(intf)
            for intf in interfaces(net)
            for address in (intf.ip, intf.ip6)
            if address
        }
        self._ready, self._done = asyncio.Event(), asyncio.Event()
        self._facts: dict[str, Any] = {}
        self._cpu_s = 0.0  # spent on what it sends, in this process
        self._stopping = False
        self._engine_queues = EngineQueues(
            getattr(net, "engines", None), direction_names(net), record, interval_s
        )
        self._process = self._spawn(places_of(net))

    @classmethod
    async def start(cls, net: Any, record: Recorder, settings: Settings) -> Self | None:
        """Begin captures and sampling on a started network, as far as `settings` want them.

        Both run when this returns.  Raises `TopologyError` for an interface that is not there,
        `FeatureError` without dumpcap.
        """
        ends = {interface_name(intf): intf for intf in interfaces(net)}
        check_interfaces(settings.pcap, list(ends))
        for name in settings.pcap:
            await Capture.start(ends[name], name, record, settings)
        if settings.interval_s is None:
            return None
        observation = cls(net, record, settings.interval_s)
        record.defer(observation.stop)
        asyncio.get_running_loop().add_reader(observation._pipe.fileno(), observation._take)
        record.event("observation", **observation._about())
        await observation._wait(observation._ready, _READY_S, "become ready")
        observation._engine_queues.start()
        return observation

    def _spawn(self, places: list[Place]) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
        fd = self._theirs.fileno()
        with self._theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "testbed.observe.worker", str(fd)],
                pass_fds=(fd, *(place.fd for place in places)),
                stdin=subprocess.DEVNULL,
                stderr=self._stderr,
                env={**os.environ, "PYTHONPATH": path},
            )
        self._pipe.send({"places": [vars(each) for each in places], "interval_s": self._interval_s})
        return process

    def _about(self) -> dict[str, Any]:
        """What figures need to know of the network, and which moment the record's clock shows."""
        links = [
            {"from": source, "to": target, "rate_bps": rate} for source, target, rate in self._links
        ]
        return {"interval_s": self._interval_s, "unix_time": time.time(), "links": links,
                "addresses": self._addresses}  # fmt: skip

    # -- what the sampler says -------------------------------------------------------------------

    def _take(self) -> None:
        began = time.thread_time()
        try:
            while self._pipe.poll():
                self._understand(*self._pipe.recv())
        except (EOFError, ConnectionResetError):
            self._ended()
        except ExperimentError as error:  # a full disk
            self._record.fail(error)
        self._cpu_s += time.thread_time() - began

    def _understand(self, kind: str, *content: Any) -> None:
        if kind == "rows":
            rows, events = content
            self._record.observed(rows)
            for when, facts in events:
                self._record.event("socket", time_s=when - self._record.epoch, **facts)
        elif kind == "done":
            (self._facts,) = content
            self._done.set()
        else:
            self._ready.set()

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        self._done.set()
        self._ready.set()
        if not self._stopping:
            self._record.fail(self._death())

    def _death(self) -> EngineError:
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return EngineError(f"the observation's sampler died (exit status {status}){last}")

    async def _wait(self, event: asyncio.Event, limit_s: float, what: str) -> None:
        try:
            await asyncio.wait_for(event.wait(), limit_s)
        except TimeoutError:
            raise EngineError(
                f"the observation's sampler did not {what} within {limit_s:g} s",
                remedy="use a longer interval, or a less busy machine",
            ) from None

    # -- the end ---------------------------------------------------------------------------------

    async def stop(self) -> None:
        """A last sample, the results, and what it cost."""
        self._stopping = True
        try:
            await self._engine_queues.stop()
            if self._process.poll() is None:
                self._pipe.send("stop")
                await self._wait(self._done, _STOP_S, "stop")
            self._results()
        finally:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            self._pipe.close()
            self._process.kill()
            self._process.wait()
            self._stderr.close()

    def _results(self) -> None:
        facts, result = self._facts, self._record.result
        if not facts:
            return
        for source, target, _rate in self._links:
            count = facts["interfaces"].get(target, {})
            if count.get("interface.rx_bytes"):
                rate = count["interface.rx_bytes"] * 8 / count["seconds"]
                result("link.throughput", rate, "bit/s", f"{source} > {target}")
        for source, totals in facts["connections"].items():
            for metric, value in totals.items():
                result(metric, value, "packets" if "retrans" in metric else "B", source)
        self._cost(facts)

    def _cost(self, facts: dict[str, Any]) -> None:
        result, cost = self._record.result, facts["cost"]
        cpu_s = facts["cpu_s"] + self._cpu_s + self._engine_queues.cpu_s
        result("observation.processor_share", cpu_s / facts["seconds"], "1", SOURCE)
        result("observation.sample_time", facts["cpu_s"] / facts["samples"], "s", SOURCE)
        for kind in ("interfaces", "qdiscs", "sockets"):
            if cost[kind]:
                each = cost[f"{kind}_s"] / cost[kind]
                result(f"observation.time_per_{kind.rstrip('s')}", each, "s", SOURCE)
        for count in ("samples", "late", "missed", "lost_ends"):
            result(f"observation.{count}", facts[count], "1", SOURCE)


def prepare() -> None:
    """Give each namespace made from now on a table of TCP sockets of its own, before a network is.

    The one that all namespaces share has hundreds of thousands of buckets, and every question
    about sockets goes through all of them.  A kernel before 6.1 has only that one.
    """
    try:
        sysctl("net.ipv4.tcp_child_ehash_entries", _SOCKET_BUCKETS)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise


# -- what there is to observe --------------------------------------------------------------------


def interface_name(intf: Any) -> str:
    """What an interface is called in the records."""
    shared = not getattr(intf.node, "inNamespace", True)
    return interface_source("" if shared else intf.node.name, intf.name)


def interfaces(net: Any) -> list[Any]:
    """Both ends of all links."""
    return [end for link in getattr(net, "links", ()) for end in (link.intf1, link.intf2) if end]


def _directions(link: Any) -> list[tuple[Any, Any, float | None]]:
    """The two directions of a link: from, to, and its rate (bit/s; None: no limit)."""
    first, second = link.intf1, link.intf2
    specs = getattr(link, "specs", None)
    rates = [spec.rate_bps for spec in specs] if specs else [None, None]
    return [(first, second, rates[0]), (second, first, rates[1])]


def places_of(net: Any) -> list[Place]:
    """The namespaces of a network's nodes, and those where its kernel engines queue."""
    nodes: dict[int, Place] = {}
    for node in (*getattr(net, "hosts", ()), *getattr(net, "switches", ())):
        name = node.name if node.inNamespace else ""
        nodes.setdefault(node.netns.inode, Place(fd=node.netns.fd, name=name))
    return [*nodes.values(), *_engine_places(net)]


def direction_names(net: Any) -> dict[tuple[str, int], str]:
    """What the directions of impaired links are called, by wire and direction."""
    return {
        (link.wire.name, side): f"{interface_name(a)} > {interface_name(b)}"
        for link in getattr(net, "links", ())
        if getattr(link, "wire", None) is not None
        for side, (a, b, _rate) in enumerate(_directions(link))
    }


def _engine_places(net: Any) -> list[Place]:
    engines = getattr(net, "engines", None)
    if engines is None:
        return []
    names = direction_names(net)
    return [
        Place(fd=namespace.fd, queues={index: names[key] for index, key in queues.items()})
        for namespace, queues in engines.queues()
    ]
