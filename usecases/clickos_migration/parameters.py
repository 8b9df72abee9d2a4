"""Parameters of the use case: the paths all variants share, and a group for each variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from testbed.run import Parameters, parameter

_ACCESS_SHARE = 0.2  # of the direct path's round trip, between the clients and M1
_PEERING_DELAY_MS = 1.0


@dataclass(frozen=True, kw_only=True)
class Paths(Parameters):
    """The wide-area paths between clients and servers, and between the data centres."""

    rtt: float = parameter(
        40.0, unit="ms", help="round trip by the direct path", minimum=0, maximum=1000
    )
    detour: float = parameter(
        10.0, unit="ms", help="what the round trip over operator B takes longer", minimum=2
    )
    direct_bw: float = parameter(
        8.0, unit="Mb/s", help="rate of the direct path, each way", minimum=0.5, maximum=200
    )
    other_bw: float = parameter(
        16.0, unit="Mb/s", help="rate of the path over operator B", minimum=0.5, maximum=200
    )
    loss: float = parameter(
        0.0, unit="%", help="packets lost on both paths, each way", minimum=0, maximum=10
    )
    dc_bw: float = parameter(
        50.0, unit="Mb/s", help="rate between the data centres", minimum=1, maximum=1000
    )
    dc_delay: float = parameter(
        10.0, unit="ms", help="one-way delay between the data centres", minimum=0, maximum=500
    )

    def topology(self, **counts: int) -> Any:
        """The topology with these paths; `counts` of clients, servers, middleboxes."""
        from topologies.operators import Operators

        one_way, loss = self.rtt / 2, self.loss or None
        access = _ACCESS_SHARE * one_way
        direct = one_way - access
        other = direct + self.detour / 2 - _PEERING_DELAY_MS
        return Operators(
            access_delay=access,
            direct_bw=self.direct_bw,
            direct_delay=direct,
            direct_loss=loss,
            other_bw=self.other_bw,
            other_delay=other,
            other_loss=loss,
            peering_delay=_PEERING_DELAY_MS,
            dc_bw=self.dc_bw,
            dc_delay=self.dc_delay,
            **counts,
        )


@dataclass(frozen=True, kw_only=True)
class Redirect(Parameters):
    """Variant redirect: connections that share the direct path."""

    uploads: int = parameter(2, help="connections that send to the server", minimum=1, maximum=50)
    downloads: int = parameter(2, help="connections that fetch from it", minimum=1, maximum=50)
    before: float = parameter(3.0, unit="s", help="before the operator acts", minimum=2)
    after: float = parameter(5.0, unit="s", help="after it has acted", minimum=2)


@dataclass(frozen=True, kw_only=True)
class ClickosMigrationParameters(Parameters):
    """All of them."""

    paths: Paths = Paths()
    redirect: Redirect = Redirect()
    congestion: str = parameter("cubic", help="congestion control", choices=("reno", "cubic"))
