"""What becomes of a network while it runs: partitions, outages, and who is told of changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from testbed.errors import ParameterError, TopologyError
from testbed.network import partition
from testbed.network.cuts import Cuts
from testbed.network.partition import Group, Partition


class LiveNetwork:
    """The part of `Network` for changes while it runs.

    `observers` are called for every change, `cuts` are the silent cuts in force.
    """

    observers: list[Callable[..., None]]
    cuts: Cuts
    linksBetween: Callable[[Any, Any], list[Any]]
    nameToNode: dict[str, Any]

    @functools.cached_property
    def _partitions(self) -> list[Partition]:
        return []

    def notify(self, kind: str, *, mark: str = "", **data: Any) -> None:
        """Tell every observer that the running network has changed.

        An observer is called as `observer(kind, mark=..., **data)`; `mark` is a short text for
        figures ("wifi down"), `data` fits into JSON.
        """
        for observer in list(self.observers):
            observer(kind, mark=mark, **data)

    def partition(self, *groups: Group) -> Partition:
        """Part groups of nodes (names or nodes): no frame gets from one to another.

        One group alone is parted from all other hosts and routers.  Partitions may overlap; each
        ends by its `heal`, all of them by that of the network.  See `testbed.network.partition`
        for nodes in no group.
        """
        resolved = partition.resolve(self, groups)
        cuts = partition.plan(self, resolved)
        made = Partition(self, resolved)
        self.cuts.add(made, cuts)
        self._partitions.append(made)
        self.notify("partition", mark=f"partition {made}", groups=str(made))
        return made

    def heal(self, which: Partition | None = None) -> None:
        """End a partition, or all of them."""
        for each in [which] if which is not None else list(self._partitions):
            self.cuts.remove(each)
            if each in self._partitions:
                self._partitions.remove(each)
                self.notify("heal", mark="healed", groups=str(each))

    def configLinkStatus(self, src: str, dst: str, status: str) -> None:
        """As in Mininet: set every link between two nodes "up" or "down", as cables."""
        if status not in ("up", "down"):
            raise ParameterError(f"link status is {status!r}", remedy="give up or down")
        for name in (src, dst):
            if name not in self.nameToNode:
                raise TopologyError(f"there is no node {name!r}", remedy="see net.nameToNode")
        links = self.linksBetween(*(self.nameToNode[name] for name in (src, dst)))
        if not links:
            raise TopologyError(f"{src} and {dst} are not linked", remedy="see net.links")
        for link in links:
            (link.up if status == "up" else link.down)()
