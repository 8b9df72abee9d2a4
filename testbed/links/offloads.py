"""Segmentation and checksum offloads off, so that a frame is what would be on the wire.

With TSO or GSO on, a host hands the link "packets" of up to 64 KB whose checksums are not yet
computed.  Loss would then hit dozens of segments at once, a queue counted in packets would mean
nothing, and a packet that user space relays would carry a wrong checksum.  With them off on the
hosts' interfaces every engine sees frames of wire size, as does every capture.

The ethtool ioctls of linux/ethtool.h; interfaces are those of the calling thread's namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable

from testbed.errors import KernelError
from testbed.kernel import NetworkNamespace

_SIOCETHTOOL = 0x8946
_SETTERS = {"tx": 0x17, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
_GETTERS = {"tx": 0x16, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
_GET_LINK = 0x0A

NAMES = tuple(_SETTERS)
"""What `disable` turns off: tx checksumming, TCP segmentation, generic segmentation, GRO."""


def disable(namespace: NetworkNamespace, *interfaces: str) -> None:
    """Turn the offloads of `interfaces` in `namespace` off.

    Raises `KernelError` naming the interface and the offload; one that the driver does not
    have at all is off already.
    """
    with namespace, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        disable_here(control, interfaces)


def disable_here(control: socket.socket, interfaces: Iterable[str]) -> None:
    """The same in the namespace of the socket `control`, for many interfaces in one visit."""
    for interface in interfaces:
        for name, command in _SETTERS.items():
            try:
                _ethtool(control, interface, name, command, 0)
            except KernelError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise


def states(namespace: NetworkNamespace, interface: str) -> dict[str, bool]:
    """Which offloads of an interface are on."""
    with namespace, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return {
            name: bool(_ethtool(control, interface, name, command, 0))
            for name, command in _GETTERS.items()
        }


def carrier(interface: str) -> bool:
    """Are both ends of a veth pair up?  False also where the interface is gone.

    At once, unlike IFF_RUNNING, which the kernel updates up to a second later.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            return bool(_ethtool(control, interface, "carrier", _GET_LINK, 0))
        except KernelError as error:
            if error.errno == errno.ENODEV:
                return False
            raise


def _ethtool(control: socket.socket, interface: str, name: str, command: int, value: int) -> int:
    """One ETHTOOL_[GS] command on a struct ethtool_value; returns what it holds afterwards."""
    data = (ctypes.c_uint32 * 2)(command, value)
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(data))
    try:
        fcntl.ioctl(control.fileno(), _SIOCETHTOOL, request)
    except OSError as error:
        number = error.errno or 0
        raise KernelError(
            number, f"{name} of interface {interface}: {os.strerror(number)}"
        ) from error
    return int(data[1])
