"""The fabric as the network's process sees it: start the worker, talk to it, notice its death."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import testbed
from testbed.errors import EngineError, KernelError
from testbed.links.engine import (
    Apply,
    Changes,
    DirectionReport,
    Engine,
    Specs,
    Wire,
    WorkerStatus,
    bring_up,
    make_namespace,
)
from testbed.links.fabric.announced import Announced
from testbed.links.fabric.protocol import Channel, Message
from testbed.links.histogram import Histogram
from testbed.links.outages import Outages
from testbed.links.player import Player

_ROOT = str(Path(testbed.__file__).parent.parent)
_GRACE_S = 5.0


class FabricEngine(Engine):
    """One worker process and its namespace; `seed` is for wires without one of their own."""

    name = "fabric"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._wires: dict[str, Wire] = {}
        self._asking = threading.Lock()  # replays ask from their own threads
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self.namespace = make_namespace()
        self.outages = Outages(self.namespace)
        ours, theirs = socket.socketpair()
        with theirs:
            self._channel = Channel(ours)
            self._process = self._start(theirs.fileno())

    def _start(self, fd: int) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "testbed.links.fabric.worker", str(fd)]
        with self.namespace:
            return subprocess.Popen(
                command,
                pass_fds=(fd,),
                stdin=subprocess.DEVNULL,
                stderr=self._stderr,
                env={**os.environ, "PYTHONPATH": path},
            )

    # -- the worker ------------------------------------------------------------------------------

    def _ask(self, op: str, **details: Any) -> Any:
        try:
            with self._asking:
                self._channel.send({"op": op, **details})
                answer: Message | None = self._channel.receive()
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise self._death()
        if "error" in answer:
            what = details.get("name", op)
            raise KernelError(answer["errno"], f"fabric {op} {what}: {answer['error']}")
        return answer["ok"]

    def _death(self) -> EngineError:
        try:
            status: int | str = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            status = "unknown: it closed its control socket and lives on"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return EngineError(
            f"the fabric's worker died (exit status {status}){last}",
            remedy="what was carried until now is recorded; start the network again",
        )

    def check(self) -> None:
        """Raise `EngineError` if the worker has died."""
        if self._process.poll() is not None:
            raise self._death()

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def worker(self) -> WorkerStatus:
        """What the worker is and has used so far."""
        facts = self._ask("status")
        late = Histogram.from_json(facts.pop("late"))
        return WorkerStatus(engine=self.name, pid=self.pid, late=late, **facts)

    # -- wires -----------------------------------------------------------------------------------

    def attach(self, wire: Wire) -> None:
        """Begin to carry `wire`."""
        with self.namespace:
            bring_up(wire.ports)
        self._ask(
            "attach",
            name=wire.name,
            ports=wire.ports,
            directions=wire.directions,
            specs=[spec.as_dict() for spec in wire.specs],
            seeds=[wire.seed(side, self._seed) for side in (0, 1)],
        )
        self._wires[wire.name] = wire

    def update(self, wire: Wire, specs: Specs) -> Wire:
        """Change a live wire without losing or reordering anything."""
        self._ask("update", name=wire.name, specs=[spec.as_dict() for spec in specs])
        self._wires[wire.name] = updated = wire.with_specs(specs)
        return updated

    def replay(self, wire: Wire, changes: Changes, apply: Apply) -> Player:
        """A player of changes that take effect at exactly their times.

        The worker is told of each a moment before; what `apply` does at its time changes nothing
        more in the worker.
        """
        return Announced(
            changes,
            apply,
            announce=lambda at, fields: self._ask(
                "schedule", name=wire.name, at=at, fields=[dict(each) for each in fields]
            ),
            revoke=lambda: self._revoke(wire.name),
        )

    def _revoke(self, name: str) -> None:
        if self._process.poll() is None and name in self._wires:
            self._ask("unschedule", name=name)
            self.update(self._wires[name], self._wires[name].specs)

    def down(self, wire: Wire) -> None:
        """Take the carrier from both ends; what is inside is lost."""
        super().down(wire)
        self._ask("flush", name=wire.name)

    def detach(self, wire: Wire) -> None:
        """Stop carrying `wire`."""
        self._ask("detach", name=wire.name)
        del self._wires[wire.name]

    def waiting(self) -> dict[tuple[str, int], tuple[int, int, int]]:
        """What waits in the worker's queues now."""
        return {(name, side): (packets, size, drops)
                for name, side, packets, size, drops in self._ask("queues")}  # fmt: skip

    def losses(self, wire: Wire) -> tuple[list[int], list[int]]:
        """The numbers (from 1) of the first 10000 packets that each direction lost."""
        there, back = self._ask("losses", name=wire.name)
        return there, back

    def reports(self) -> list[DirectionReport]:
        """What each direction of each wire did so far."""
        reports = []
        for name, directions in self._ask("report").items():
            wire = self._wires[name]
            for facts, spec, ports in zip(
                directions, wire.specs, (wire.ports, wire.ports[::-1]), strict=True
            ):
                lag = Histogram.from_json(facts.pop("lag"))
                report = DirectionReport(wire=name, engine=self.name, spec=spec, lag=lag, **facts)
                reports.append(self.outages.account(report, *ports))
        return reports

    def close(self) -> None:
        """End the worker; raises `EngineError` if it had died before."""
        if self.namespace.fd < 0:
            return
        try:
            self.check()
        finally:
            self._channel.close()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._stderr.close()
            self.namespace.close()
