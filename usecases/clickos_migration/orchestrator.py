"""When to rent capacity at a neighbour, and which connections to send there; no I/O, no clock.

    load measured  ->  Orchestrator.measured  ->  decisions: Rent, Redirect, Release

It learns from the load what a connection asks for, and when its own path is full it rents what
is cheaper (`prices`) and takes the youngest connections off the path until what is left fits.
Connections that come later are redirected on arrival where they would not fit.  When none of the
redirected ones lives any more, it gives the rented capacity back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from usecases.clickos_migration.prices import Plan, Prices


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Shares of the own path's rate: it counts as full from `full` on, and is filled up to
    `target`.  It must be full, and later empty, for `hold_s` before something is done."""

    capacity_mbps: float
    full: float = 0.9
    target: float = 0.75
    hold_s: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is measured at a moment: the own path's rate since the last time, in its busier
    direction and in `both` together, the connections on it (the oldest first), and how many live
    on rented capacity."""

    time_s: float
    rate_mbps: float
    both_mbps: float
    connections: Sequence[Hashable]
    away: int = 0


@dataclass(frozen=True, kw_only=True)
class Rent:
    """Rent network and functions for about `rate_mbps`, both directions together; `costs` are
    what a second of each plan is expected to cost."""

    plan: Plan
    rate_mbps: float
    costs: dict[str, float]


@dataclass(frozen=True)
class Redirect:
    """Redirect these connections over the rented capacity."""

    connections: tuple[Hashable, ...]


@dataclass(frozen=True)
class Release:
    """Give the rented capacity back."""


_SMOOTH = 3  # measurements that what a connection asks for is learnt from

Decision = Rent | Redirect | Release


class Orchestrator:
    """Decides; `plan` is what is rented at the moment, None for nothing."""

    def __init__(self, policy: Policy, prices: Prices, *, ratio: float) -> None:
        self._policy, self._prices, self._ratio = policy, prices, ratio
        self._demand_mbps = 0.0  # of one connection, as far as seen
        self._count = 0
        self._rates: deque[float] = deque(maxlen=_SMOOTH)
        self._since: float | None = None  # the path has been full, or the rented one empty
        self._moving: set[Hashable] = set()
        self._immovable: set[Hashable] = set()
        self.plan: Plan | None = None

    def measured(self, load: Load) -> list[Decision]:
        """What to do, given the load."""
        here = [each for each in load.connections if each not in self._moving]
        full = load.rate_mbps >= self._policy.full * self._policy.capacity_mbps
        self._learn(load)
        if self.plan is None:
            if not self._lasted(load.time_s, full):
                return []
            return self._rent(load, here)
        if self._lasted(load.time_s, not load.away and not self._moving):
            self.plan, self._since = None, None
            return [Release()]
        return list(self._redirect(here))

    def settled(self, moved: Iterable[Hashable], failed: Iterable[Hashable]) -> None:
        """Redirections have ended: these connections were moved, those will not be tried again."""
        failed = set(failed)
        self._immovable |= failed
        self._moving -= failed | set(moved)

    def _learn(self, load: Load) -> None:
        """What a connection asks for: at least what it was seen to get.

        Connections that have left, or are leaving, still show in the rate, so it is looked at
        only while their number stays or grows.
        """
        count = len(load.connections)
        if self._moving or count < self._count:
            self._rates.clear()
        self._count = count
        self._rates.append(load.rate_mbps)
        if count and len(self._rates) == _SMOOTH:
            self._demand_mbps = max(self._demand_mbps, sum(self._rates) / _SMOOTH / count)

    def _lasted(self, now: float, condition: bool) -> bool:
        if not condition:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._policy.hold_s

    def _rent(self, load: Load, here: Sequence[Hashable]) -> list[Decision]:
        redirect = self._redirect(here)
        both = load.both_mbps / load.rate_mbps
        excess = sum(len(each.connections) for each in redirect) * self._demand_mbps * both
        if not excess:
            return []
        self.plan, self._since = self._prices.choose(excess, self._ratio), None
        costs = {each.value: self._prices.rent(each, excess, self._ratio) for each in Plan}
        return [Rent(plan=self.plan, rate_mbps=excess, costs=costs), *redirect]

    def _redirect(self, here: Sequence[Hashable]) -> list[Redirect]:
        """The youngest connections, as many as do not fit."""
        room = self._policy.target * self._policy.capacity_mbps
        fit = int(room / self._demand_mbps + 1e-9) if self._demand_mbps else len(here)
        movable = [each for each in here if each not in self._immovable]
        excess = min(len(here) - fit, len(movable))
        if excess <= 0:
            return []
        chosen = tuple(movable[-excess:])
        self._moving |= set(chosen)
        return [Redirect(chosen)]
