"""Interfaces: Mininet's `Intf`, configured by netlink instead of ifconfig in a shell."""

from __future__ import annotations

import errno
import ipaddress
from typing import TYPE_CHECKING, Any

from mininet.link import Intf as MininetIntf
from mininet.link import TCIntf as MininetTCIntf

from testbed.errors import KernelError
from testbed.kernel import rtnetlink
from testbed.network import rules

if TYPE_CHECKING:
    from testbed.network.link import Link
    from testbed.network.node import Node


class Intf(MininetIntf):
    """An interface of a node.

    Beside Mininet's attributes (`name`, `node`, `link`, `ip`, `prefixLen`, `mac`) there are
    `index`, its number in its namespace, and `ip6` with `prefixLen6`.
    """

    name: str
    node: Node
    link: Link | None
    mac: str | None
    ip: str | None
    prefixLen: str | int | None
    ip6: str | None = None
    prefixLen6: int | None = None
    _index = 0
    _up = False

    @property
    def index(self) -> int:
        """Number of the interface in its namespace."""
        if not self._index:
            known = getattr(self.link, "indexes", {})
            self._index = known.get((self.node, self.name)) or self.node.netlink.index(self.name)
        return self._index

    def config(
        self,
        mac: str | None = None,
        ip: str | None = None,
        ip6: str | None = None,
        ifconfig: Any = None,
        up: bool = True,
        **params: Any,
    ) -> dict[str, Any]:
        """As in Mininet, and `ip6` ("fd00::1/64").

        What describes a link (bw, delay, loss, ...), replaces what it did to packets that leave
        this interface.
        """
        if self.name == "lo":
            return {}
        born_up = getattr(self.link, "born_up", ())
        self._up = self._up or (bool(born_up) and self.index in born_up)
        results: dict[str, Any] = MininetIntf.config(self, mac=mac, ip=ip, ifconfig=ifconfig, up=up)
        self.setParam(results, "setIP6", ip6=ip6)
        if self.link is not None:
            self.link.shape(self, params)
        return results

    # -- addresses --------------------------------------------------------------------------

    def setIP(self, ipstr: str, prefixLen: int | str | None = None) -> str:
        """Set the IPv4 address ("10.0.0.1/8"), replacing the one set before; brings it up."""
        new = rules.address(ipstr, 4, owner=self.name, prefix=str(prefixLen or ""))
        messages = []
        if self.ip and self.name != "lo":
            old = ipaddress.ip_interface(f"{self.ip}/{self.prefixLen}")
            messages.append(rtnetlink.delete_address(self.index, old))
        messages.append(rtnetlink.add_address(self.index, new))
        if not self._up:
            messages.append(rtnetlink.set_link(self.index, up=True))
        self.node.configure(*messages)
        self._up = True
        self.ip, self.prefixLen = str(new.ip), str(new.network.prefixlen)
        return ""

    def setIP6(self, ip6: str) -> None:
        """Add an IPv6 address ("fd00::1/64"), usable at once."""
        new = rules.address(ip6, 6, owner=self.name)
        self.node.configure(rtnetlink.add_address(self.index, new))
        self.ip6, self.prefixLen6 = str(new.ip), new.network.prefixlen

    @property
    def addresses(self) -> tuple[str, str]:
        """IPv4 and IPv6 address with their prefixes; "" where there is none."""
        ip = f"{self.ip}/{self.prefixLen}" if self.ip else ""
        return ip, f"{self.ip6}/{self.prefixLen6}" if self.ip6 else ""

    def set_addresses(self, ip: str, ip6: str) -> None:
        """Bring the interface up with what `addresses` said."""
        self.isUp(setUp=True)
        if ip:
            self.setIP(ip)
        if ip6:
            self.setIP6(ip6)

    def forget(self) -> None:
        """The kernel has forgotten the addresses and set the interface down."""
        self._up = False
        self.ip = self.ip6 = None

    def IP6(self) -> str | None:
        """The interface's IPv6 address."""
        return self.ip6

    def setMAC(self, macstr: str) -> str:
        """Set the MAC address (a veth takes it while up)."""
        if macstr != self.mac:
            self.node.configure(rtnetlink.set_link(self.index, mac=macstr))
            self.mac = macstr
        return ""

    def updateMAC(self) -> str | None:
        """Read the MAC address back from the kernel."""
        self.mac = self.node.netlink.link(self.name).mac
        return self.mac

    def updateIP(self) -> str | None:
        """The IPv4 address (which nothing but `setIP` changes behind our back)."""
        return self.ip

    def updateAddr(self) -> tuple[str | None, str | None]:
        """IPv4 and MAC address."""
        return self.updateIP(), self.updateMAC()

    # -- state ------------------------------------------------------------------------------

    def ifconfig(self, *args: str) -> str:
        """ "up" and "down" by netlink; anything else is handed to the program, as in Mininet."""
        if args in (("up",), ("down",)):
            self._up = args == ("up",)
            self.node.configure(rtnetlink.set_link(self.index, up=self._up))
            return ""
        return super().ifconfig(*args)  # type: ignore[no-any-return]

    def isUp(self, setUp: bool = False) -> bool:
        """Is the interface up?  With `setUp`, make it so."""
        if not setUp:
            return self.node.netlink.link(self.name).up
        if not self._up:
            self.ifconfig("up")
        return True

    def rename(self, newname: str) -> str:
        """Give the interface another name."""
        self.node.netlink.request(rtnetlink.set_link(self.index, up=False))
        self.node.netlink.request(rtnetlink.set_link(self.index, name=newname, up=True))
        self.node.nameToIntf[newname] = self.node.nameToIntf.pop(self.name)
        self.name = newname
        return ""

    def delete(self) -> None:
        """Remove the interface (its peer goes with it)."""
        try:
            self.node.netlink.request(rtnetlink.delete_link(self.index))
        except KernelError as error:
            if error.errno not in (errno.ENODEV, errno.ENOENT):  # its peer was deleted before
                raise
        self.node.delIntf(self)
        self.link = None

    def status(self) -> str:
        """ "OK" or "MISSING", for the CLI's `links`."""
        try:
            self.node.netlink.link(self.name)
        except KernelError:
            return "MISSING"
        return "OK"


class TCIntf(Intf, MininetTCIntf):
    """Mininet's name for an interface whose link can be shaped; here every interface's can."""
