"""What becomes of a link while it runs: new values, traces, outages, cuts.

How each is done is elsewhere: in the link's engine, in `cable` and in `cuts`.  Every change is
told to the network's observers.
"""

from __future__ import annotations

import functools
import itertools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import TopologyError
from testbed.links import Engines, LinkSpec, Specs, Wire
from testbed.links.engine import Fields
from testbed.links.player import Player
from testbed.links.trace import Trace
from testbed.links.trace import load as load_trace
from testbed.network import reshape
from testbed.network.cable import Cable
from testbed.network.cuts import Cut

if TYPE_CHECKING:
    from testbed.network.net import Network
    from testbed.network.node import Node

_NOTHING: dict[str, Any] = {}  # changes nothing: a trace's end
_changing = threading.Lock()  # the two directions of a link may be changed by different threads


class LiveLink:
    """The part of `Link` for a network that runs."""

    _nodes: tuple[Node, Node]
    intf1: Any
    intf2: Any
    specs: tuple[LinkSpec, LinkSpec] | None
    wire: Wire | None

    @functools.cached_property
    def _cable(self) -> Cable:
        return Cable(self)

    @functools.cached_property
    def _down_for(self) -> set[object]:
        """The reasons why the cable is unplugged."""
        return set()

    @functools.cached_property
    def _replays(self) -> dict[int, Player]:
        """Direction (1, 2, 0 for both) -> what plays a trace in it."""
        return {}

    @property
    def engines(self) -> Engines:
        """The engines of the network this link is in, or those for links made by hand."""
        of_nodes = (node.network.engines for node in self._nodes if node.network)
        return next(of_nodes, None) or _scratch_engines()

    # -- while it runs ----------------------------------------------------------------------

    def update(
        self,
        *,
        params1: dict[str, Any] | None = None,
        params2: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        """Change a live link, e.g. `link.update(bw=5, delay="30ms")`; nothing in flight is lost.

        `params1` (`params2`) changes only what leaves node 1 (node 2).  Raises `TopologyError`
        for a link between two hosts that was made without impairments.
        """
        with _changing:
            self._change(self.changed(params1=params1, params2=params2, **changes))
        self._notify("link update", summary(changes, params1, params2))

    def changed(
        self,
        *,
        params1: dict[str, Any] | None = None,
        params2: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Specs:
        """The specifications that `update` would give the link; raises what it would raise."""
        first, second = self.specs or reshape.changeable(self)
        return (
            first.replace(**renamed({**changes, **(params1 or {})})),
            second.replace(**renamed({**changes, **(params2 or {})})),
        )

    def _change(self, specs: Specs) -> None:
        if self.wire is None:
            reshape.interpose(self)
        assert self.wire is not None
        self.wire = self.engines.update(self.wire, specs)
        self.specs = specs

    def replay(
        self,
        trace: Trace | Path | str,
        *,
        direction: int | Any | None = None,
        loop: bool = False,
        scale: float = 1.0,
    ) -> Player:
        """Play a trace of rate, delay and loss (a file, or one that was read) from now on.

        It holds for both directions, or with `direction` for what leaves that node (or 1 or 2,
        the link's first or second node).  `loop` begins it again at its end; `scale` multiplies
        its rates.  A replay that it would meet is stopped before.  When a trace ends or is
        stopped, the link stays as it is.  The player's `lateness` says how late changes came.
        """
        trace = trace if isinstance(trace, Trace) else load_trace(trace)
        side = self._side(direction)
        for _at, fields in trace.changes(scale=scale):
            specs = self.changed(**_for_side(fields, side))
        if self.wire is None:
            reshape.interpose(self)
        assert self.wire is not None
        self.engines.require(self.wire, specs)
        self.stop_replay(direction)
        rows = itertools.chain(
            trace.changes(loop=loop, scale=scale), [] if loop else [(trace.length_s, _NOTHING)]
        )
        changes = ((at, _pair(fields, side)) for at, fields in rows)
        self._notify("link replay", f"trace {trace.name}", direction=side)
        self._replays[side] = self.engines.replay(self.wire, changes, self._apply)
        return self._replays[side]

    def stop_replay(self, direction: int | Any | None = None) -> None:
        """Stop the replay in that direction (left out: every one); the link stays as it is."""
        side = self._side(direction)
        for each in [k for k in self._replays if k == side or not k or not side]:
            player = self._replays.pop(each, None)
            if player is not None and player.running:
                player.stop()
                self._notify("link replay stop", "trace stopped", direction=each)

    def _apply(self, fields: Fields) -> None:
        if not any(fields):
            self._notify("link replay end", "trace ends")
            return
        with _changing:
            self._change(self.changed(params1=dict(fields[0]), params2=dict(fields[1])))

    def _side(self, direction: Any) -> int:
        """1 or 2 for what leaves the link's first or second node, 0 for both."""
        names = {1: 1, 2: 2, None: 0, str(self._nodes[0]): 1, str(self._nodes[1]): 2}
        key = direction if direction in (1, 2, None) else str(direction)
        if key not in names:
            raise TopologyError(
                f"{direction} is no end of link {self}", remedy=f"give {self._nodes[0]} or 1, say"
            )
        return names[key]

    def down(self, reason: object = "down") -> None:
        """Unplug the cable: both ends lose their carrier, what is in flight is lost.

        Addresses and routes are kept, and work again after `up`.  A link that is down for
        several reasons is up again when all are gone.
        """
        if not self._down_for:
            self._cable.unplug()
        self._down_for.add(reason)
        if reason == "down":
            self._notify("link down", "down")

    def up(self, reason: object = "down") -> None:
        """Plug the cable in again."""
        if self._down_for and not self._down_for - {reason}:
            self._cable.plug()
        self._down_for.discard(reason)
        if reason == "down":
            self._notify("link up", "up")

    @property
    def is_up(self) -> bool:
        """Is the cable plugged in?"""
        return not self._down_for

    def cut(self) -> None:
        """Let all frames vanish, both ways, while the carrier stays: nobody is told."""
        network_of(self._nodes[0]).cuts.add(self, [Cut(self.intf1), Cut(self.intf2)])
        self._notify("link cut", "cut")

    def mend(self) -> None:
        """End what `cut` began."""
        network_of(self._nodes[0]).cuts.remove(self)
        self._notify("link mend", "mended")

    def renew(self, node: Node) -> None:
        """Put the link into its state again for a node that has come back."""
        if self._down_for:
            self._cable.renew(node)

    def leave(self) -> None:
        """The link is about to be removed."""
        self.stop_replay()
        if (network := self._nodes[0].network) is not None:
            for intf in (self.intf1, self.intf2):
                network.cuts.forget(intf)

    def _notify(self, kind: str, what: str, **data: Any) -> None:
        network = next((node.network for node in self._nodes if node.network), None)
        if network is not None:
            network.notify(kind, mark=f"{self.label} {what}", link=str(self), **data)

    @property
    def label(self) -> str:
        """A short name: of the interface that was given one by hand, else of the two nodes."""
        names = [(intf.node.name, intf.name) for intf in (self.intf1, self.intf2)]
        given = [intf for node, intf in names if not intf.startswith(f"{node}-eth")]
        return given[0] if given else "-".join(node for node, _intf in names)


@functools.cache
def _scratch_engines() -> Engines:
    """For links between nodes that were made by hand; they end with the process."""
    return Engines()


def network_of(node: Node) -> Network:
    """The network that a node belongs to."""
    if node.network is None:
        raise TopologyError(
            f"{node.name} belongs to no network, and what its links do needs one",
            remedy="make nodes with net.addHost() and links with net.addLink()",
        )
    return node.network


def renamed(params: dict[str, Any]) -> dict[str, Any]:
    """Mininet's name for the queue in ours."""
    if "max_queue_size" in params:
        params = dict(params)
        params["queue"] = params.pop("max_queue_size")
    return params


def _pair(fields: dict[str, Any], side: int) -> Fields:
    return {} if side == 2 else fields, {} if side == 1 else fields


def _for_side(fields: dict[str, Any], side: int) -> dict[str, Any]:
    return {f"params{side}": fields} if side else fields


def summary(*changes: dict[str, Any] | None) -> str:
    """What an update changes, for a figure: "bw 5, delay 30ms"."""
    return ", ".join(f"{key} {value}" for each in changes for key, value in (each or {}).items())
