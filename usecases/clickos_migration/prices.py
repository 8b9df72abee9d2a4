"""What capacity costs, and which way of renting it is cheaper (D3.1 3.1.3); no I/O.

An operator whose own path is full can rent network at a neighbour, and functions there.  It may
send part of its traffic as it is, or have it compressed before and expanded behind the rented
network: fewer bytes for more functions.  Which is cheaper follows from the prices.  Prices are
in any currency; rates are Mb/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Plan(Enum):
    """How traffic is carried over rented network."""

    TRAFFIC = "traffic only"
    PROCESSING = "processing too"

    @property
    def functions(self) -> int:
        """Functions it needs: the next hop, and for processing both ends of the compression."""
        return 1 if self is Plan.TRAFFIC else 3


@dataclass(frozen=True, kw_only=True)
class Prices:
    """`owned` for a Mb/s of one's own path, used or not, `function` for a function, each for a
    second; `rented` for a megabit that the rented network carries."""

    owned: float
    rented: float
    function: float

    def rent(self, plan: Plan, rate_mbps: float, ratio: float) -> float:
        """Expected cost per second of carrying `rate_mbps` that compress `ratio` to 1."""
        carried = rate_mbps if plan is Plan.TRAFFIC else rate_mbps / ratio
        return carried * self.rented + plan.functions * self.function

    def choose(self, rate_mbps: float, ratio: float) -> Plan:
        """The cheaper plan; traffic only where both cost the same."""
        return min(Plan, key=lambda plan: self.rent(plan, rate_mbps, ratio))


@dataclass(kw_only=True)
class Bill:
    """What was used, in the units prices are for, and what that costs."""

    owned_mbps_s: float = 0.0
    carried_mbit: float = 0.0
    function_s: float = 0.0

    def cost(self, prices: Prices) -> float:
        """The sum."""
        return sum(self.parts(prices).values())

    def parts(self, prices: Prices) -> dict[str, float]:
        """The sum's parts, by what they are for."""
        return {
            "own path": self.owned_mbps_s * prices.owned,
            "rented network": self.carried_mbit * prices.rented,
            "rented functions": self.function_s * prices.function,
        }
