"""TAPs: the end of a guest's cable that is in a node's namespace.

A TAP lives as long as a descriptor on it is open, QEMU's or ours, and no longer; a persistent one
as long as its namespace, and it has no carrier while nobody holds it.
Interface: Documentation/networking/tuntap.rst of the kernel.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import struct

from testbed.errors import FeatureError, PrivilegeError, TopologyError
from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink

_TUN = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


class Tap:
    """A TAP called `name` in `namespace`, up once it has been configured.

    It is made, or taken hold of where there is a persistent one that nobody else holds.
    """

    def __init__(self, name: str, namespace: NetworkNamespace, *, persistent: bool = False) -> None:
        if not 0 < len(name.encode()) < 16:
            raise TopologyError(f"interface name {name!r}", remedy="1 to 15 characters")
        self.name = name
        with namespace:
            self.fd = _open()  # a TAP belongs to the namespace in which this was opened
            try:
                flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
                fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
                if persistent:
                    fcntl.ioctl(self.fd, _TUNSETPERSIST, 1)
            except OSError as error:
                os.close(self.fd)
                raise TopologyError(
                    f"TAP {name}: {error.strerror}", remedy="another name"
                ) from error
            self._netlink = RtNetlink()
        self.index = self._netlink.index(name)

    def configure(self, *, mac: str, address: str, neighbour: str, neighbour_mac: str) -> None:
        """Give this side its MAC and address ("10.0.0.1/30"), tell it the guest's, and set it up.

        The guest's MAC is known here, so that packets reach it at once also where it has just
        been migrated to.
        """
        self._netlink.batch(
            [
                rtnetlink.set_link(self.index, mac=mac),
                rtnetlink.set_link(self.index, up=True),
                rtnetlink.add_address(self.index, ipaddress.ip_interface(address)),
                rtnetlink.add_neighbour(self.index, neighbour, neighbour_mac),
            ]
        )

    def close(self) -> None:
        """Let go of it; it is gone when QEMU has gone too."""
        if self.fd >= 0:
            self._netlink.close()
            os.close(self.fd)
            self.fd = -1


def _open() -> int:
    try:
        return os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FeatureError(f"no {_TUN}", remedy="modprobe tun") from error
    except PermissionError as error:
        raise PrivilegeError(
            f"{_TUN} may not be opened", remedy=f"run as root, or chmod 666 {_TUN}"
        ) from error
