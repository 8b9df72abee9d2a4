"""Which engine carries which wire: probe, choose, record why, and refuse what cannot be meant.

htb      the kernel: rate and queue only
netem    the kernel: everything, where it has netem; a seed fixes its losses from Linux 6.7 on
fabric   our own process: everything everywhere; a seed means the same losses on every machine
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from testbed.errors import EngineError, FeatureError, ParameterError, TestbedError
from testbed.kernel import NetworkNamespace
from testbed.links import kernel_engine
from testbed.links.engine import (
    Apply,
    Changes,
    DirectionReport,
    Engine,
    Specs,
    Wire,
    WorkerStatus,
)
from testbed.links.fabric.engine import FabricEngine
from testbed.links.player import Player
from testbed.links.spec import FULL_FRAME, LinkSpec

PREFERENCES = ("auto", "fabric", "netem")

_MAKERS: dict[str, Callable[[int], Engine]] = {
    "htb": lambda _seed: kernel_engine.KernelEngine("htb"),
    "netem": lambda seed: kernel_engine.KernelEngine("netem", seed),
    "fabric": FabricEngine,
}


_FASTEST_BPS = 1e9  # what a link without a rate is expected to carry at most


class Choice(NamedTuple):
    """Which engine a wire got, and why."""

    wire: str
    engine: str
    why: str


class Engines:
    """The engines of one network; each is made when the first wire needs it.

    `prefer` is "auto", or "fabric" or "netem" to force that engine for what asks for more than a
    rate and a queue.  `seed` fixes the losses of wires that have no seed of their own, on the
    engines that can (fabric, netem from Linux 6.7 on).  `workers` is the most processes the
    fabric may use; left out, as many as there are processors for this process.  A wire goes to
    the one that has least to do by what wires are specified to carry; which one it is changes
    nothing else.
    """

    def __init__(self, *, prefer: str = "auto", seed: int = 0, workers: int | None = None) -> None:
        if prefer not in PREFERENCES:
            raise ParameterError(
                f"engine is {prefer!r}", remedy=f"choose of {', '.join(PREFERENCES)}"
            )
        if workers is not None and workers < 1:
            raise ParameterError(f"workers is {workers!r}", remedy="give a number from 1 on")
        self._prefer = prefer
        self._seed = seed
        self._lock = threading.RLock()  # changes come from threads too
        self._workers = workers or len(os.sched_getaffinity(0))
        self._engines: list[Engine] = []
        self._load: dict[Engine, dict[str, float]] = {}
        self._placed: dict[str, tuple[Choice, Engine]] = {}
        self._wires: dict[str, tuple[Engine, Wire]] = {}
        self._choices: dict[str, Choice] = {}
        self._players: list[Player] = []

    # -- choosing --------------------------------------------------------------------------------

    def choose(self, specs: Specs) -> str:
        """Name of the engine for a link with these specifications.

        Raises `FeatureError` where the engine that is forced cannot work on this machine.
        """
        return self._choice("", specs).engine

    def _choice(self, wire: str, specs: Specs) -> Choice:
        impairs = any(spec.impairs for spec in specs)
        codel = any(spec.codel for spec in specs)
        seeded = any(spec.seed is not None for spec in specs)
        seeds = impairs and seeded and self._prefer == "netem"
        lacks = kernel_engine.missing(netem=impairs, codel=codel, seeds=seeds)
        if not impairs and not lacks:
            return Choice(wire, "htb", "rate and queue only")
        if self._prefer == "netem":
            if lacks:
                raise FeatureError(lacks, remedy='use a kernel that has it, or engine="fabric"')
            return Choice(wire, "netem", "forced")
        if self._prefer == "fabric":
            return Choice(wire, "fabric", "forced")
        if lacks:
            return Choice(wire, "fabric", lacks)
        if seeded:
            return Choice(wire, "fabric", "the link has a seed")
        return Choice(wire, "netem", "this kernel has netem")

    def choices(self) -> list[Choice]:
        """What was chosen for each wire that was attached, and why."""
        return list(self._choices.values())

    def _engine(self, name: str) -> Engine:
        """The engine called `name` that has least to do, or a new one while more are allowed."""
        made = [engine for engine in self._engines if engine.name == name]
        idlest = min(made, key=self._expected, default=None)
        most = self._workers if name == "fabric" else 1
        if idlest is None or (self._load[idlest] and len(made) < most):
            idlest = _MAKERS[name](self._seed)
            self._engines.append(idlest)
            self._load[idlest] = {}
        return idlest

    def _expected(self, engine: Engine) -> float:
        return sum(self._load[engine].values())

    # -- wires -----------------------------------------------------------------------------------

    def place(self, name: str, specs: Specs) -> Engine:
        """The engine that will carry the wire called `name`: its ports belong in its namespace."""
        with self._lock:
            if name in self._wires:
                raise TestbedError(f"there is a wire {name!r} already", remedy="detach it first")
            if name not in self._placed:
                choice = self._choice(name, specs)
                engine = self._engine(choice.engine)
                self._load[engine][name] = sum(map(_expected_pps, specs))
                self._placed[name] = choice, engine
            return self._placed[name][1]

    def attach(self, wire: Wire) -> Engine:
        """Give a wire to the engine at its place; its ports must be there."""
        with self._lock:
            engine = self.place(wire.name, wire.specs)
            choice, _engine = self._placed.pop(wire.name)
            engine.attach(wire)
            self._wires[wire.name] = engine, wire
            self._choices[wire.name] = choice
        return engine

    def update(self, wire: Wire, specs: Specs) -> Wire:
        """Change a live wire without losing or reordering anything; returns it as it is now.

        Raises `ParameterError` where the engine that carries it cannot do what is asked.
        """
        with self._lock:
            engine, current = self._wire(wire)
            self.require(current, specs)
            updated = engine.update(current, specs)
            self._wires[wire.name] = engine, updated
            self._load[engine][wire.name] = sum(map(_expected_pps, specs))
            return updated

    def down(self, wire: Wire) -> None:
        """Take the carrier from both ends of a wire; what is inside is lost."""
        with self._lock:
            engine, current = self._wire(wire)
            engine.down(current)

    def up(self, wire: Wire) -> None:
        """Give the carrier back."""
        with self._lock:
            engine, current = self._wire(wire)
            engine.up(current)

    def require(self, wire: Wire, specs: Specs) -> None:
        """Raise `ParameterError` where the engine that carries a wire cannot be told `specs`."""
        engine, wire = self._wire(wire)
        if engine.name == "fabric":
            return
        if engine.name == "htb" and any(spec.impairs for spec in specs):
            raise ParameterError(
                f"link {wire.name} has a rate and a queue only and cannot become ({specs[0]})",
                remedy="build the link with delay='0ms' (or loss=0) to change that later",
            )
        for new, old in zip(specs, wire.specs, strict=True):
            if kernel_engine.leaf_kind(new) != kernel_engine.leaf_kind(old):
                raise ParameterError(
                    f"link {wire.name} has a queue ({old}) that the kernel cannot make ({new})",
                    remedy="build the link with that aqm, or a queue in that unit, from the start",
                )

    def replay(self, wire: Wire, changes: Changes, apply: Apply) -> Player:
        """Begin to play changes on a live wire; `check` raises what goes wrong meanwhile."""
        with self._lock:
            engine, current = self._wire(wire)
            player = engine.replay(current, changes, apply)
            self._players.append(player)
        player.start()
        return player

    def carrier(self, wire: Wire) -> Engine:
        """The engine that carries a wire; raises `EngineError` where none does."""
        return self._wire(wire)[0]

    def detach(self, wire: Wire) -> None:
        """Stop carrying a wire (its choice stays on record)."""
        with self._lock:
            engine, current = self._wire(wire)
            engine.detach(current)
            del self._wires[wire.name], self._load[engine][wire.name]

    def _wire(self, wire: Wire) -> tuple[Engine, Wire]:
        if wire.name not in self._wires:
            raise EngineError(f"no engine carries a wire {wire.name!r}", remedy="attach it first")
        return self._wires[wire.name]

    # -- all of them -----------------------------------------------------------------------------

    def reports(self) -> list[DirectionReport]:
        """What each direction of each wire did so far."""
        with self._lock:
            return [report for engine in self._engines for report in engine.reports()]

    def waiting(self) -> dict[tuple[str, int], tuple[int, int, int]]:
        """What waits in queues that engines keep themselves (`Engine.waiting`)."""
        found: dict[tuple[str, int], tuple[int, int, int]] = {}
        with self._lock:
            for engine in self._engines:
                found.update(engine.waiting())
        return found

    def queues(self) -> list[tuple[NetworkNamespace, dict[int, tuple[str, int]]]]:
        """Namespaces in which the kernel queues for wires, each with its `Engine.queues`."""
        found = ((engine.namespace, engine.queues()) for engine in self._engines)
        return [(namespace, queues) for namespace, queues in found if queues]

    def check(self) -> None:
        """Raise `EngineError` if an engine has died, or what has ended a replay."""
        for player in list(self._players):
            if not player.running:
                self._players.remove(player)
                player.join()
        for engine in self._engines:
            engine.check()

    def workers(self) -> list[WorkerStatus]:
        """The processes behind the engines."""
        with self._lock:
            found = [engine.worker() for engine in self._engines]
        return [status for status in found if status is not None]

    def close(self) -> None:
        """End all replays and engines, all of them also where one fails."""
        with contextlib.ExitStack() as ending:
            ending.callback(self._wires.clear)
            while self._engines:
                ending.callback(self._engines.pop().close)
            while self._players:
                ending.callback(self._players.pop().stop)


def _expected_pps(spec: LinkSpec) -> float:
    return min(spec.rate_bps or _FASTEST_BPS, _FASTEST_BPS) / 8 / FULL_FRAME
