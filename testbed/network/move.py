"""A host's cable pulled out of one switch and put into another."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from testbed.errors import TopologyError
from testbed.kernel.rtnetlink import mac_bytes
from testbed.network.ovs import OVSSwitch
from testbed.network.switch import Switch

if TYPE_CHECKING:
    from testbed.network.operations import Operations

_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6


def move(net: Operations, host: Any, old: Any, new: Any, port: int | None) -> None:
    """Move the link between `host` and `old` (its only switch, without) to `new`.

    The host's interface is not touched.  The other end changes its switch and takes the name it
    would have there; the host then announces itself, so that switches learn where it is now.
    Flows towards it that a controller installed are deleted.
    """
    ours, theirs = _link(host, old)
    if not isinstance(new, Switch):
        raise TopologyError(f"{new} is not a switch", remedy="move a host to a switch")
    link, before = theirs.link, theirs.node
    before.detach(theirs)
    before.delIntf(theirs)
    theirs.node = new
    new.addIntf(theirs, port=port)
    theirs.rename(f"{new.name}-eth{new.ports[theirs]}")
    if new.wire_frames:
        link.disable_offloads()
    new.attach(theirs)
    for switch in net.switches:
        if isinstance(switch, OVSSwitch) and switch.controlled:
            switch.dpctl("del-flows", f"dl_dst={ours.updateMAC()}")
    _announce(host, ours)
    net.notify("host moved", mark=f"{host} to {new}", host=host.name, switch=new.name)


def _link(host: Any, old: Any) -> tuple[Any, Any]:
    """The host's interface, and the one it is connected to on `old`."""
    found = []
    for intf in host.intfList():
        if intf.link:
            other = intf.link.intf2 if intf is intf.link.intf1 else intf.link.intf1
            if isinstance(other.node, Switch) and old in (None, other.node):
                found.append((intf, other))
    if len(found) != 1:
        where = "a switch" if old is None else str(old)
        raise TopologyError(
            f"{host} has {len(found)} links to {where}", remedy="say which one by old=SWITCH"
        )
    return found[0]


def _announce(host: Any, intf: Any) -> None:
    """A gratuitous ARP announcement (RFC 5227, section 3), as an access point sends for a guest."""
    mac = mac_bytes(intf.updateMAC())
    address = socket.inet_aton(intf.ip or "0.0.0.0")
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    frame = _BROADCAST + mac + struct.pack("!H", _ETH_P_ARP) + head + mac + address
    with host.netns, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((intf.name, 0))
        raw.send(frame + bytes(6) + address)
