"""A link as a cable that can be unplugged: both ends lose their carrier, nothing else changes.

An impaired link is taken down at its engine's ports, so that the nodes' own interfaces stay up
and keep addresses and routes, as when a cable is pulled.

A plain link is one veth pair, and a veth loses its carrier only when its peer is set down; the
kernel offers no other way (no `carrier off`, no protodown).  So one end has to be set down: the
end in a switch, where there is one, since it has nothing to lose.  Between two hosts or routers
it is one end, whose addresses stay (`keep_addr_on_down`) and whose routes and permanent
neighbours are put back when the cable is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.namespaces import sysctl
from testbed.network.failure import KILLED
from testbed.network.node import Node, Router
from testbed.network.snapshot import Snapshot
from testbed.network.switch import Switch

if TYPE_CHECKING:
    from testbed.network.live_link import LiveLink


class Cable:
    """The cable of one link, plugged in at first."""

    def __init__(self, link: LiveLink) -> None:
        self._link = link
        self._lost: Snapshot | None = None

    def unplug(self) -> None:
        """Take the carrier from both ends."""
        if self._link.wire is not None:
            self._link.engines.down(self._link.wire)
        else:
            self._lost = _set_down(self._lowered.node.netns, self._lowered)

    def plug(self) -> None:
        """Give it back, and what the end that was down has lost."""
        if self._link.wire is not None:
            self._link.engines.up(self._link.wire)
            return
        if self._lowered.node.failed == KILLED:  # its restart brings the interface up
            self._lost = None
            return
        with self._lowered.node.netns:
            netlink = RtNetlink()
        try:
            netlink.request(rtnetlink.set_link(self._lowered.index, up=True))
            if self._lost is not None:
                self._lost.restore(netlink)
        finally:
            netlink.close()
            self._lost = None

    def renew(self, node: Node) -> None:
        """A node has come back with all its interfaces up, while the cable is unplugged."""
        if self._link.wire is None and self._lowered.node is node:
            self.unplug()

    @property
    def _lowered(self) -> Any:
        """The interface that is set down for a plain link."""
        first, second = self._link.intf1, self._link.intf2
        if isinstance(second.node, Switch):
            return second
        spare_second = isinstance(second.node, Router) and not isinstance(first.node, Router)
        return first if isinstance(first.node, Switch) or spare_second else second


def _set_down(namespace: NetworkNamespace, intf: Any) -> Snapshot:
    """Set an interface down; returns what it lost by that."""
    keep = f"net/ipv6/conf/{intf.name}/keep_addr_on_down"
    with namespace:
        netlink = RtNetlink()
        try:
            before = Snapshot.take(intf.index)
            kept = Path("/proc/sys", keep).exists()
            usual = sysctl(keep) if kept else ""
            if kept:
                sysctl(keep, 1)
            netlink.request(rtnetlink.set_link(intf.index, up=False))
            if kept:
                sysctl(keep, usual)
            return before.without(Snapshot.take(intf.index))
        finally:
            netlink.close()
