"""Many links side by side between two namespaces, for benchmarks that send raw frames.

    a0 -- ... -- b0        namespace a holds all near ends of one side, b those of the other,
    a1 -- ... -- b1        so that one light process can load all links

What is between is the contender's: nothing ("veth"), a bare AF_PACKET forwarder ("forwarder"), or
the fabric ("fabric", with a number of workers).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.rtnetlink import VethEnd
from testbed.links import Engines, LinkSpec, Wire, counters, offloads
from testbed.links.engine import bring_up, make_namespace
from testbed.links.histogram import Histogram

_FIRST = 1000


class Bank:
    """A link for each of `specs`, of one contender; a context manager, in a sandbox."""

    def __init__(
        self,
        contender: str,
        specs: Sequence[LinkSpec],
        *,
        workers: int | None = None,
        seed: int = 1,
    ) -> None:
        self.contender, self.specs = contender, specs
        self.near = list(range(_FIRST, _FIRST + 2 * len(specs), 2))
        self.far = [index + 1 for index in self.near]
        self.a, self.b = make_namespace(), make_namespace()
        self.engines = Engines(prefer="fabric", seed=seed, workers=workers)
        self.wires: list[Wire] = []
        self._stack = ExitStack()
        self._forwarder: subprocess.Popen[bytes] | None = None
        netlink = RtNetlink()
        self._stack.callback(netlink.close)
        if contender == "forwarder":
            self._between = make_namespace()
        for near, far, spec in zip(self.near, self.far, specs, strict=True):
            self._join(netlink, near, far, spec)
        for namespace, side, indexes in ((self.a, "a", self.near), (self.b, "b", self.far)):
            offloads.disable(namespace, *(f"{side}{index}" for index in indexes))
            with namespace:
                bring_up(indexes)
        if contender == "forwarder":
            self._forward()
        for wire in self.wires:
            self.engines.attach(wire)

    def _join(self, netlink: RtNetlink, near: int, far: int, spec: LinkSpec) -> None:
        ends = VethEnd(f"a{near}", near, self.a.fd), VethEnd(f"b{far}", far, self.b.fd)
        if self.contender == "veth":
            netlink.request(rtnetlink.new_veth(*ends))
            return
        specs = (spec, spec)
        if self.contender == "fabric":
            between: NetworkNamespace = self.engines.place(f"link{near}", specs).namespace
        else:
            between = self._between
        for end in ends:
            port = VethEnd(f"p{end.name}", end.index, between.fd)
            netlink.request(rtnetlink.new_veth(end, port))
        if self.contender == "fabric":
            names = (f"pa{near}", f"pb{far}")
            self.wires.append(
                Wire(name=f"link{near}", ports=(near, far), port_names=names, specs=specs)
            )

    def _forward(self) -> None:
        with self._between:
            bring_up(self.near + self.far)
            command = [sys.executable, "-m", "benchmarks.forwarder"]
            self._forwarder = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._stack.enter_context(self._forwarder)
        self._stack.callback(self._forwarder.kill)
        assert self._forwarder.stdout is not None
        self._forwarder.stdout.readline()  # it listens

    # -- load ------------------------------------------------------------------------------------

    def load(self, *, size: int, rate: float, seconds: float) -> dict[str, Any]:
        """Send `rate` frames/s of `size` bytes over all links from a to b; what came of it."""
        before, cpu_before = self._received(), self.cpu_s()
        sent = self._send(size, rate, seconds)
        time.sleep(0.2 + max(spec.delay_s for spec in self.specs))
        delivered = self._received() - before
        return {
            "contender": self.contender,
            "links": len(self.near),
            "size": size,
            "offered_pps": sent["sent"] / sent["seconds"],
            "delivered_pps": delivered / sent["seconds"],
            "delivered_share": delivered / sent["sent"],
            "source_us_a_frame": sent["cpu_s"] / sent["sent"] * 1e6,
            "engine_us_a_frame": (self.cpu_s() - cpu_before) / max(1, delivered) * 1e6,
            **self.lag(),
        }

    def _send(self, size: int, rate: float, seconds: float) -> dict[str, float]:
        """By as many sources as there are processors, or links; the sum of what they say."""
        count = min(len(os.sched_getaffinity(0)), len(self.near))
        sources = []
        with self.a:
            for number in range(count):
                ports = ",".join(map(str, self.near[number::count]))
                words = [ports, str(size), str(rate / count), str(seconds)]
                command = [sys.executable, "-m", "benchmarks.frames", *words]
                sources.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        said = [json.loads(source.communicate()[0]) for source in sources]
        total = {key: sum(each[key] for each in said) for key in ("sent", "cpu_s")}
        return {**total, "seconds": max(each["seconds"] for each in said)}

    def _received(self) -> int:
        with self.b:
            seen = counters.interfaces()
        return sum(seen[index].rx_packets for index in self.far)

    def cpu_s(self) -> float:
        """Processor time that whatever is between has used."""
        if self._forwarder is not None:
            with open(f"/proc/{self._forwarder.pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            return ticks / float(os.sysconf("SC_CLK_TCK"))
        return sum(worker.cpu_s for worker in self.engines.workers())

    def lag(self) -> dict[str, float | None]:
        """How late frames left, over all links, in milliseconds."""
        lag = Histogram()
        for report in self.engines.reports():
            if report.lag is not None:
                lag = lag.merge(report.lag)
        names = {"p50": lag.p50, "p99": lag.p99, "p99.9": lag.p999, "max": lag.maximum}
        return {f"lag_{name}_ms": value * 1e3 if lag.total else None
                for name, value in names.items()}  # fmt: skip

    def __enter__(self) -> Bank:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.engines.close()
        self._stack.close()
        self.a.close()
        self.b.close()
