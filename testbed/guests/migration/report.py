"""What a migration says of itself: its phases, how far it is, and what it took in the end.

Times are seconds of CLOCK_MONOTONIC, like all times of the testbed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.guests.migration.options import Method


class Phase(enum.Enum):
    """Where a migration is."""

    SETUP = "setup"
    PRE_COPY = "pre-copy"  # the guest runs at the source
    STOPPED = "stopped"  # it runs nowhere
    POST_COPY = "post-copy"  # it runs at the target, which lacks some of its memory
    COMPLETED = "completed"  # it is all at the target


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a migration is.  Sizes are in bytes.

    `passes` is the number of the pass over the memory, `sent` what the target's kernel has
    acknowledged, `remaining` what is to be sent of this pass, `dirty_rate` (byte/s) what the
    guest writes, `throttle` the share of its time that auto-converge takes from it (0 to 1), and
    `expected_downtime_s` how long it would stand still if it was stopped now (0 while unknown).
    Of these, QEMU tells nothing new while it sends the last pass, nor that the guest is stopped:
    STOPPED may show late, or not at all.  The report's times are QEMU's own, and right.
    """

    time_s: float
    phase: Phase
    passes: int
    sent: int
    remaining: int
    dirty_rate: float
    throttle: float
    expected_downtime_s: float

    @classmethod
    def of(cls, said: Mapping[str, Any], *, time_s: float, phase: Phase, sent: int) -> Progress:
        """From QEMU's answer to `query-migrate`."""
        ram = said.get("ram", {})
        return cls(
            time_s=time_s,
            phase=phase,
            passes=ram.get("dirty-sync-count", 0),
            sent=sent,
            remaining=ram.get("remaining", 0),
            dirty_rate=float(ram.get("dirty-pages-rate", 0) * ram.get("page-size", 4096)),
            throttle=said.get("cpu-throttle-percentage", 0) / 100,
            expected_downtime_s=said.get("expected-downtime", 0) / 1000,
        )


@dataclass(frozen=True, kw_only=True)
class Moments:
    """When what happened: `passes` began, the guest stopped and resumed, all was over."""

    ordered_s: float
    passes: tuple[float, ...]
    stopped_s: float
    resumed_s: float
    completed_s: float


@dataclass(frozen=True, kw_only=True)
class VmMigrationReport:
    """What a migration took.

    `downtime_s`: from QEMU's event STOP at the source to RESUME at the target.  `total_s`: from
    the order to the later of RESUME and the source's word that all is done.  `bytes`: payload of
    the connections, by the kernel's count of what was acknowledged.  `rounds`: passes over the
    guest's memory.  `pages` were sent whole, `zero_pages` as zeroes, by QEMU's count.
    `throttle`: the most that auto-converge took of the guest's time (0 to 1).
    """

    method: Method
    moments: Moments
    bytes: int
    rounds: int
    pages: int
    zero_pages: int
    throttle: float = 0.0

    @property
    def downtime_s(self) -> float:
        """How long the guest ran nowhere."""
        return self.moments.resumed_s - self.moments.stopped_s

    @property
    def total_s(self) -> float:
        """How long it took."""
        return self.moments.completed_s - self.moments.ordered_s

    def phases(self) -> list[tuple[Phase, float, float]]:
        """Each phase that there was, with its beginning and its end."""
        moments = self.moments
        first = moments.passes[0] if moments.passes else moments.ordered_s
        bounds = [
            (Phase.SETUP, moments.ordered_s, first),
            (Phase.PRE_COPY, first, moments.stopped_s),
            (Phase.STOPPED, moments.stopped_s, moments.resumed_s),
        ]
        if self.method == "post-copy":
            bounds.append((Phase.POST_COPY, moments.resumed_s, moments.completed_s))
        return bounds
