"""Where a guest is: the namespace its QEMU runs in, and the TAPs of its interfaces there.

A guest with links of its own has a namespace like any node, in which its links end:

    link --veth-- [vm-eth0 | tc | tap0] --QEMU-- eth0

Traffic control hands frames from one to the other as they are, before any protocol stack sees
them: no bridge learns addresses, and a segment of 64 KB or a checksum still to be computed stays
that, or becomes what the link's end needs.  Impaired links have their offloads off, so there the
kernel cuts what the guest sends into frames of wire size.

A guest on a node has one TAP in that node's namespace, with a subnet of its own:

    [ node's stack | vm ] --QEMU-- eth0
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Protocol

from testbed.errors import TopologyError
from testbed.guests.interface import derived_mac
from testbed.guests.tap import Tap
from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.namespaces import sysctl
from testbed.links import tc
from testbed.network.intf import Intf
from testbed.network.node import Router

_BEHIND_CUTS = 1 << 14  # priority of the filters: cuts, which take frames away, come first


class Berth(Protocol):
    """A place for a guest."""

    @property
    def namespace(self) -> NetworkNamespace:
        """Where its QEMU runs."""

    @property
    def before_exec(self) -> Callable[[], None] | None:
        """What its QEMU does first, to be counted to somebody."""

    def plug(self) -> list[Tap]:
        """Take hold of the TAPs; no other QEMU may hold them."""


class OwnBerth:
    """The namespace of `guest` itself, with a TAP for each interface of its links."""

    def __init__(self, guest: Any, interfaces: Sequence[Any]) -> None:
        self._guest, self._interfaces = guest, interfaces
        self.before_exec: Callable[[], None] | None = None

    @property
    def namespace(self) -> NetworkNamespace:
        """The guest's."""
        namespace: NetworkNamespace = self._guest.netns
        return namespace

    def plug(self) -> list[Tap]:
        """Make the TAPs, each glued to its interface; they go with QEMU."""
        taps: list[Tap] = []
        try:
            for number, intf in enumerate(self._interfaces):
                taps.append(Tap(f"tap{number}", self.namespace))
                self._glue(intf.index, taps[-1])
        except BaseException:
            for tap in taps:
                tap.close()
            raise
        return taps

    def _glue(self, index: int, tap: Tap) -> None:
        with self.namespace:
            sysctl(f"net/ipv6/conf/{tap.name}/disable_ipv6", 1)  # it must not speak for itself
            netlink = RtNetlink()
        with closing(netlink):
            netlink.request(rtnetlink.set_link(tap.index, up=True))
            for one, other in ((index, tap.index), (tap.index, index)):
                netlink.request(tc.clsact(one), harmless=(errno.EEXIST,))
                earlier = tc.delete_filter(one, hook=tc.RECEIVED, priority=_BEHIND_CUTS)
                netlink.request(earlier, harmless=(errno.ENOENT, errno.EINVAL))
                netlink.request(tc.redirect(one, other, hook=tc.RECEIVED, priority=_BEHIND_CUTS))


class NodeBerth:
    """A place on `node` for the guest called `name`: a TAP of that name, which stays.

    `gateway` is the node's interface there; the network gives it addresses, and others routes.
    """

    def __init__(self, node: Any, name: str, mac: str) -> None:
        if not isinstance(node, Router):
            raise TopologyError(
                f"guest {name} is to run on {node.name}, which forwards nothing",
                remedy=f"make {node.name} a Router, or of a class derived from it",
            )
        self.node, self._name, self._mac = node, name, mac
        Tap(name, node.netns, persistent=True).close()
        self.gateway = Intf(name, node=node, moveIntfFn=_leave)
        self.gateway.setMAC(derived_mac(name, "gateway"))
        node.stubs.append(self.gateway)

    @property
    def namespace(self) -> NetworkNamespace:
        """The node's."""
        namespace: NetworkNamespace = self.node.netns
        return namespace

    @property
    def before_exec(self) -> Callable[[], None] | None:
        """What every program of the node does first."""
        found: Callable[[], None] | None = self.node.before_exec
        return found

    def plug(self) -> list[Tap]:
        """Take hold of the TAP; packets then reach the guest at once, wherever it was before."""
        for address in (self.gateway.ip, self.gateway.ip6):
            if address:
                guest = str(ipaddress.ip_address(address) + 1)
                self.node.configure(rtnetlink.add_neighbour(self.gateway.index, guest, self._mac))
        return [Tap(self._name, self.namespace)]


def _leave(*_words: object) -> None:
    """The interface is where it belongs."""
