"""A guest's interface: in the topology it is the end of a link, in the guest a network card.

The end of the link is in the guest's namespace on the host, without any address: what arrives
there is handed to the guest's TAP, and what the guest sends to the link (see `berth`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING, Any

from testbed.guests.equipment import Card
from testbed.network import rules
from testbed.network.intf import Intf

if TYPE_CHECKING:
    from testbed.guests.node import Guest


def derived_mac(*words: str) -> str:
    """A MAC address (local, of one station) that the same words always give."""
    digest = hashlib.sha256("/".join(words).encode()).hexdigest()
    return ":".join(("52", "54", *(digest[at : at + 2] for at in (0, 2, 4, 6))))


class GuestIntf(Intf):
    """An interface of a `Guest`; what is asked of it is done in the guest when that runs."""

    node: Guest
    admin_up = True

    def config(self, *args: Any, **params: Any) -> dict[str, Any]:
        """As in Mininet; it has a MAC address of its own from the beginning."""
        if self.name != "lo":
            self.mac = self.mac or derived_mac(self.node.name, self.name)
        return super().config(*args, **params)

    @property
    def card(self) -> Card:
        """What it should be in the guest."""
        return Card(self.name, tuple(each for each in self.addresses if each), self.admin_up)

    def setIP(self, ipstr: str, prefixLen: int | str | None = None) -> str:
        """Set the IPv4 address ("10.0.0.1/8"), replacing the one set before; brings it up."""
        new = rules.address(ipstr, 4, owner=self.name, prefix=str(prefixLen or ""))
        old = f"{self.ip}/{self.prefixLen}" if self.ip else ""
        self.ip, self.prefixLen = str(new.ip), str(new.network.prefixlen)
        self.isUp(setUp=True)
        gone = [f"ip addr del {old} dev {self.name}"] if old else []
        self.node.tell(*gone, f"ip addr add {new} dev {self.name}")
        return ""

    def setIP6(self, ip6: str) -> None:
        """Set the IPv6 address ("fd00::1/64")."""
        new = rules.address(ip6, 6, owner=self.name)
        self.ip6, self.prefixLen6 = str(new.ip), new.network.prefixlen
        self.node.tell(f"ip addr add {new} dev {self.name}")

    def setMAC(self, macstr: str) -> str:
        """Set the MAC address."""
        if macstr != self.mac:
            self.mac = macstr
            self.node.tell(f"ip link set {self.name} address {macstr}")
        return ""

    def updateMAC(self) -> str | None:
        """The MAC address."""
        return self.mac

    def ifconfig(self, *args: str) -> str:
        """ "up" and "down" in the guest, whose end of the cable stays; the rest is a command."""
        if args not in (("up",), ("down",)):
            return str(self.node.cmd("ifconfig", self.name, *args))
        self.admin_up = args == ("up",)
        if self.admin_up:
            super().ifconfig("up")
        self.node.tell(f"ip link set {self.name} {args[0]}")
        return ""


class PlacedIntf(GuestIntf):
    """The interface of a guest that runs on a node: its addresses are where the guest is.

    No link leads to it; it has the second address of the subnet whose first one is the node's.
    """

    def setIP(self, ipstr: str, prefixLen: int | str | None = None) -> str:
        """It has no address of its own choice; Mininet gives every host one, which is ignored."""
        return ""

    @property
    def ip(self) -> str | None:
        """IPv4 address where the guest is."""
        return self._near("ip", "prefixLen")[0]

    @ip.setter
    def ip(self, _value: str | None) -> None:
        """Mininet's constructor assigns None."""

    @property  # type: ignore[override]
    def prefixLen(self) -> str | None:
        """Length of its prefix."""
        return self._near("ip", "prefixLen")[1]

    @prefixLen.setter
    def prefixLen(self, _value: str | None) -> None:
        """As for `ip`."""

    @property
    def ip6(self) -> str | None:
        """IPv6 address where the guest is."""
        return self._near("ip6", "prefixLen6")[0]

    @ip6.setter
    def ip6(self, _value: str | None) -> None:
        """As for `ip`."""

    @property
    def prefixLen6(self) -> int | None:
        """Length of its prefix."""
        length = self._near("ip6", "prefixLen6")[1]
        return int(length) if length else None

    @prefixLen6.setter
    def prefixLen6(self, _value: int | None) -> None:
        """As for `ip`."""

    def ifconfig(self, *args: str) -> str:
        """ "up" and "down" in the guest."""
        if args not in (("up",), ("down",)):
            return str(self.node.cmd("ifconfig", self.name, *args))
        self.admin_up = args == ("up",)
        self.node.tell(f"ip link set {self.name} {args[0]}")
        return ""

    def _near(self, address: str, length: str) -> tuple[str | None, str | None]:
        gateway = self.node.gateway
        if gateway is None or not getattr(gateway, address):
            return None, None
        ip = ipaddress.ip_address(getattr(gateway, address)) + 1
        return str(ip), str(getattr(gateway, length))
