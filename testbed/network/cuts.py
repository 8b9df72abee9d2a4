"""Silent cuts: frames vanish, the carrier stays, and nobody is told.

A cut takes frames where they leave their sender's interface, after the sender has been told that
they are sent, and puts them into a sink: a veth pair whose far end is in a namespace without
addresses.  So neither protocol stack behaves as on a local error (TCP, told of a local drop,
would not back off), and the receiver sees nothing, not even in a capture.  What the engine of an
impaired link holds already still arrives.

Several reasons may cut the same frames (a partition, another one, a frozen node); they flow again
when the last reason is gone.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from testbed.errors import ExperimentError, KernelError
from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.namespaces import sysctl
from testbed.kernel.rtnetlink import VethEnd
from testbed.links import tc
from testbed.links.engine import make_namespace, set_state

if TYPE_CHECKING:
    from testbed.network.node import Node

_SINK = "sink"  # the name of the interface that a namespace has while something is cut in it


class Cut(NamedTuple):
    """Frames to take away at an interface: those it sends, or with `received` those it gets.

    With `source` only frames from that MAC address.
    """

    interface: Any  # an Intf
    source: str = ""
    received: bool = False

    @property
    def hook(self) -> int:
        """Where traffic control sees them."""
        return tc.RECEIVED if self.received else tc.SENT


@dataclass(frozen=True)
class _Place:
    """Where a cut was made: the namespace, the interface's number, the filter's priority."""

    namespace: NetworkNamespace
    index: int
    hook: int
    priority: int


class Cuts:
    """All silent cuts of one network, with the reasons for each."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._lock = threading.RLock()
        self._reasons: dict[Cut, set[object]] = {}
        self._places: dict[Cut, _Place] = {}
        self._sinks: dict[int, int] = {}  # namespace's inode -> index of the sink's near end
        self._drain: NetworkNamespace | None = None

    def add(self, reason: object, cuts: Iterable[Cut]) -> None:
        """Cut for `reason`."""
        with self._lock:
            for cut in cuts:
                self._reasons.setdefault(cut, set()).add(reason)
                if cut not in self._places:
                    self._make(cut)

    def remove(self, reason: object) -> None:
        """`reason` is gone; what nothing else cuts flows again."""
        with self._lock:
            for cut, reasons in list(self._reasons.items()):
                reasons.discard(reason)
                if not reasons:
                    del self._reasons[cut]
                    self._undo(cut)

    def forget(self, interface: Any) -> None:
        """An interface is removed."""
        with self._lock:
            for cut in [cut for cut in self._reasons if cut.interface is interface]:
                del self._reasons[cut]
                self._undo(cut)

    def lost(self, node: Node) -> None:
        """The node's namespace is about to go, and every cut in it with it."""
        with self._lock:
            for cut in [cut for cut in self._places if cut.interface.node is node]:
                del self._places[cut]
            self._sinks.pop(node.netns.inode, None)

    def renew(self, node: Node) -> None:
        """Make the node's cuts again, in its new namespace."""
        with self._lock:
            for cut in self._reasons:
                if cut.interface.node is node and cut not in self._places:
                    self._make(cut)

    def close(self) -> None:
        """Forget all of them; the filters go with their interfaces."""
        with self._lock:
            self._reasons.clear()
            self._places.clear()
            self._sinks.clear()
            if self._drain is not None:
                self._drain.close()
                self._drain = None

    # -- the kernel's side --------------------------------------------------------------------

    def _make(self, cut: Cut) -> None:
        namespace, index = cut.interface.node.netns, cut.interface.index
        place = _Place(namespace, index, cut.hook, self._free_priority(namespace, index))
        sink = self._sink(namespace)
        filtering = tc.redirect(
            index, sink, hook=cut.hook, priority=place.priority, source_mac=cut.source
        )
        with namespace:
            netlink = RtNetlink()
        try:
            netlink.request(tc.clsact(index), harmless=(errno.EEXIST,))
            netlink.request(filtering)
        except KernelError as error:
            raise ExperimentError(
                f"{cut.interface}: cannot be cut silently: {error.message}",
                remedy="this needs the kernel's clsact, u32 and mirred, and an interface "
                "without an ingress qdisc of its own; or take the link down",
            ) from error
        finally:
            netlink.close()
        self._places[cut] = place

    def _free_priority(self, namespace: NetworkNamespace, index: int) -> int:
        inode = namespace.inode
        taken = {
            place.priority
            for place in self._places.values()
            if place.index == index and place.namespace.inode == inode
        }
        return next(number for number in range(1, 0xFFFF) if number not in taken)

    def _undo(self, cut: Cut) -> None:
        place = self._places.pop(cut, None)
        if place is None:
            return
        with place.namespace:
            netlink = RtNetlink()
        try:
            removal = tc.delete_filter(place.index, hook=place.hook, priority=place.priority)
            netlink.request(removal, harmless=(errno.ENODEV,))
        finally:
            netlink.close()

    def _sink(self, namespace: NetworkNamespace) -> int:
        """The near end of the sink in a namespace, made on first use."""
        inode = namespace.inode
        if inode in self._sinks:
            return self._sinks[inode]
        if self._drain is None:
            self._drain = make_namespace()
        index = (1 << 29) + inode % (1 << 28)  # apart from the numbers that others give
        near = VethEnd(_SINK, index, namespace.fd)
        far = VethEnd(f"drain{index}", index, self._drain.fd)
        with self._drain:
            netlink = RtNetlink()
            try:
                netlink.request(rtnetlink.new_veth(near, far, group=self._group))
                set_state([index], up=True)
            finally:
                netlink.close()
        with namespace:
            if Path(f"/proc/sys/net/ipv6/conf/{_SINK}").exists():
                sysctl(f"net/ipv6/conf/{_SINK}/disable_ipv6", 1)  # it must not speak for itself
            set_state([index], up=True)
        self._sinks[inode] = index
        return index
