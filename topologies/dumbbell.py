"""Senders and receivers on the two sides of a bottleneck: where flows compete.

left1 ---.                          .--- right1
left2 --- west ---- bottleneck ---- east --- right2
...   ---'                          '--- ...
"""

from __future__ import annotations

from mininet.topo import Topo

from testbed.network import Host, Router
from testbed.network.expect import AllReachable, Expectation, Path
from topologies._links import at_least, options


class Dumbbell(Topo):
    """`pairs` hosts on each side; the bottleneck has `bw` Mb/s, `delay` one way and a `queue`.

    The queue is in `LinkSpec`'s units ("100p", "64KB", "100ms"; default: the latter).  Access
    links are unshaped unless `access_bw` or `access_delay` is given: `access_delay` may be a
    list, a delay for each pair, for flows of different round-trip times.
    """

    def build(
        self,
        pairs: int = 2,
        *,
        bw: float | None = 10,
        delay: str | float | None = "20ms",
        loss: float | None = None,
        queue: str | int | None = None,
        aqm: str | None = None,
        access_bw: float | None = None,
        access_delay: str | float | list[str | float] | None = None,
    ) -> None:
        """Wire it up."""
        at_least(1, pairs=pairs)
        west, east = (self.addNode(name, cls=Router) for name in ("west", "east"))
        self.addLink(west, east, **options(bw, delay, loss, queue=queue, aqm=aqm))
        for number in range(1, pairs + 1):
            access = options(access_bw, _of_pair(access_delay, number))
            self.addLink(self.addHost(f"left{number}", cls=Host), west, **access)
            self.addLink(self.addHost(f"right{number}", cls=Host), east, **options(access_bw))

    def expect(self) -> list[Expectation]:
        """Everybody reaches everybody; flows meet at the bottleneck and nowhere else."""
        return [
            AllReachable(),
            Path("left1", "right1", via=["west", "east"]),
            Path("right1", "left1", via=["east", "west"]),
        ]


def _of_pair(delay: str | float | list[str | float] | None, number: int) -> str | float | None:
    return delay[(number - 1) % len(delay)] if isinstance(delay, list) else delay


topos = {"dumbbell": Dumbbell}
