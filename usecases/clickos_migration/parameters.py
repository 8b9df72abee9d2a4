"""Parameters of the use case: the paths all variants share, and a group for each variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from testbed.run import Parameters, parameter
from usecases.clickos_migration.orchestrator import Policy
from usecases.clickos_migration.prices import Prices

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
    queue: float = parameter(
        100.0, unit="ms", help="queues of both paths, full, at their rates", minimum=1, maximum=2000
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
            queue=f"{self.queue}ms",
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
    share: float = parameter(
        50.0, unit="%", help="of each kind, to be redirected", minimum=1, maximum=100
    )
    before: float = parameter(3.0, unit="s", help="before the operator acts", minimum=2)
    after: float = parameter(6.0, unit="s", help="after it has acted", minimum=2)

    @property
    def clients(self) -> int:
        """Hosts that the connections come from."""
        return self.uploads + self.downloads


@dataclass(frozen=True, kw_only=True)
class Chain(Parameters):
    """Variant chain: connections led through one more middlebox at a time."""

    connections: int = parameter(1, help="in each direction", minimum=1, maximum=20)
    rate: float = parameter(
        4.0, unit="Mb/s", help="of each connection; 0: what the path gives", minimum=0, maximum=100
    )
    longest: int = parameter(
        5, help="middleboxes on the way at the end, M1 included", minimum=2, maximum=5
    )
    hold: float = parameter(3.0, unit="s", help="how long each length is kept", minimum=1.5)

    @property
    def clients(self) -> int:
        """Hosts that the connections come from."""
        return 2 * self.connections


@dataclass(frozen=True, kw_only=True)
class PriceList(Parameters):
    """What capacity costs, in any currency."""

    owned: float = parameter(
        1.0, help="a Mb/s of the own path, used or not, for a second", minimum=0
    )
    rented: float = parameter(1.5, help="a megabit carried by a rented network", minimum=0)
    function: float = parameter(0.2, help="a rented function for a second", minimum=0)

    @property
    def prices(self) -> Prices:
        """As the cost model takes them."""
        return Prices(owned=self.owned, rented=self.rented, function=self.function)


@dataclass(frozen=True, kw_only=True)
class Burst(Parameters):
    """Variant burst: a flash crowd in two waves at operator A, whose direct path is too small."""

    base: int = parameter(16, help="connections before and after", minimum=1, maximum=500)
    waves: tuple[int, ...] = parameter(
        (24, 16), help="connections of each wave", minimum=1, maximum=500
    )
    demand: float = parameter(
        0.25, unit="Mb/s", help="what a connection asks for, each way", minimum=0.01, maximum=20
    )
    large: float = parameter(
        18.0, unit="Mb/s", help="rate of the own path provisioned for the crowd", minimum=0.5
    )
    lead: float = parameter(2.5, unit="s", help="before the first wave", minimum=1)
    spacing: float = parameter(3.0, unit="s", help="between waves", minimum=0.5)
    stay: float = parameter(5.0, unit="s", help="how long all stay after the last wave", minimum=1)
    tail: float = parameter(2.0, unit="s", help="after the crowd has left", minimum=0.5)
    full: float = parameter(
        90.0, unit="%", help="load from which the own path counts as full", minimum=10, maximum=100
    )
    target: float = parameter(
        75.0, unit="%", help="load of the own path while capacity is rented", minimum=5, maximum=100
    )
    hold: float = parameter(
        0.3, unit="s", help="how long it must be full before capacity is rented", minimum=0
    )
    dear_compute: PriceList = PriceList(owned=1, rented=0.6, function=3.5)
    dear_network: PriceList = PriceList(owned=5, rented=4, function=0.5)

    @property
    def clients(self) -> int:
        """Hosts that the connections come from."""
        return 1 + len(self.waves)

    def policy(self, capacity_mbps: float) -> Policy:
        """When to rent, for an own path of this rate."""
        return Policy(
            capacity_mbps=capacity_mbps,
            full=self.full / 100,
            target=self.target / 100,
            hold_s=self.hold,
        )


@dataclass(frozen=True, kw_only=True)
class Migrate(Parameters):
    """Variant migrate: a function moves from one data centre to the other, connections live."""

    connections: tuple[int, ...] = parameter(
        (1, 10, 100, 1000, 10_000), help="live connections, one move each",
        minimum=1, maximum=20_000,
    )  # fmt: skip
    baseline: tuple[int, ...] = parameter(
        (1000,), help="with how many the baselines move: without state, and in a virtual machine",
        minimum=1, maximum=20_000,
    )  # fmt: skip
    wide: int = parameter(
        100, help="connections of the move to other addresses, by redirection", minimum=2,
        maximum=2000,
    )  # fmt: skip
    rate: float = parameter(
        500.0, help="exchanges a second, of all connections together", minimum=10, maximum=5000
    )
    opening: float = parameter(
        1000.0, help="connections opened in a second", minimum=1, maximum=5000
    )
    before: float = parameter(
        2.0, unit="s", help="before a move, besides an exchange of each connection", minimum=0.5
    )
    after: float = parameter(3.0, unit="s", help="after a move", minimum=1)
    patience: float = parameter(
        5.0, unit="s", help="for answers to the roll call at the end", minimum=1
    )


@dataclass(frozen=True, kw_only=True)
class ClickosMigrationParameters(Parameters):
    """All of them."""

    paths: Paths = Paths()
    redirect: Redirect = Redirect()
    chain: Chain = Chain()
    migrate: Migrate = Migrate()
    burst: Burst = Burst()
    congestion: str = parameter("cubic", help="congestion control", choices=("reno", "cubic"))
    tear_down: str = parameter(
        "both", help="how a redirected subflow ends", choices=("rst", "mp_prio", "both")
    )
