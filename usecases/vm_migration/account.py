"""What is recorded of a move: durations, and what the viewer saw around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from testbed.run import Recorder
from usecases.vm_migration.journey import Leg
from usecases.vm_migration.viewing import Viewing

Phase = tuple[str, float, float]
"""What a machine does while it moves ("copy", "down", ...), and from when to when."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a move took: the machine stood still for `downtime_s`, `payload` bytes were carried.

    It was ordered when the first of `phases` begins, and over when the last one ends.
    """

    stopped_s: float
    downtime_s: float
    payload: int
    phases: tuple[Phase, ...]

    @property
    def began_s(self) -> float:
        """When it was ordered."""
        return self.phases[0][1]

    @property
    def ended_s(self) -> float:
        """When the machine, and its player, ran at the target with its new address."""
        return self.phases[-1][2]

    def since(self, epoch_s: float) -> Moved:
        """The same by a clock that began then."""
        phases = tuple((name, begin - epoch_s, end - epoch_s) for name, begin, end in self.phases)
        return replace(self, stopped_s=self.stopped_s - epoch_s, phases=phases)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """From when to when the viewer was watched around a move; `settled_s` is well after it."""

    start_s: float
    settled_s: float
    end_s: float


def tell(
    record: Recorder, leg: Leg, moved: Moved, watched: Watched, viewing: Viewing, gap_s: float
) -> None:
    """Record what came of a move; for `gap_s` no byte of the video came."""

    def result(metric: str, value: float, unit: str) -> None:
        record.result(metric, value, unit, leg.name)

    record.event(
        "move", leg=leg.name, began=moved.began_s, ended=moved.ended_s, watched=watched.end_s,
        phases=moved.phases,
    )  # fmt: skip
    result("downtime", moved.downtime_s, "s")
    result("total", moved.ended_s - moved.began_s, "s")
    result("payload", moved.payload, "B")
    result("gap", gap_s, "s")
    _tell_interruption(result, moved, watched, viewing)
    _tell_quality(result, moved, watched, viewing)


def _tell_interruption(
    result: Callable[[str, float, str], None], moved: Moved, watched: Watched, viewing: Viewing
) -> None:
    around = moved.began_s, watched.end_s
    result("stall", viewing.stall_s(*around), "s")
    result("freeze", viewing.freeze_s(*around), "s")
    result("missed", viewing.missed_s(*around), "s")
    result("backwards", viewing.backwards_s(*around), "s")
    result("survived", viewing.survived(moved.stopped_s, watched.end_s), "")
    result("playing", viewing.playing(watched.end_s), "")


def _tell_quality(
    result: Callable[[str, float, str], None], moved: Moved, watched: Watched, viewing: Viewing
) -> None:
    for when, start, end in (
        ("before", watched.start_s, moved.began_s),
        ("after", watched.settled_s, watched.end_s),
    ):
        result(f"bitrate_{when}", viewing.mean("bitrate_bps", start, end), "bit/s")
        result(f"pictures_{when}", viewing.rate("frames", start, end), "1/s")
        result(f"latency_{when}", viewing.mean("latency_s", start, end), "s")
