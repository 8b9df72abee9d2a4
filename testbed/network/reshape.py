"""Impairments for a link that was made without: an engine is put between its ends as it runs.

    before      host --veth-- switch
    after       host --veth-- [engine's namespace] --veth-- switch

The switch's end becomes the engine's port, and the switch gets a new end with the old one's name,
number and port.  The host's interface stays as it is, with its addresses, routes and whatever is
bound to it; it has no carrier for the moment this takes.  Where both ends are hosts, neither could
be replaced without that being lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.errors import TopologyError
from testbed.kernel import RtNetlink, rtnetlink
from testbed.kernel.rtnetlink import VethEnd
from testbed.links import LinkSpec, Specs
from testbed.network.switch import Switch

if TYPE_CHECKING:
    from testbed.network.intf import Intf
    from testbed.network.link import Link

_CHANGEABLE = LinkSpec(delay="0ms")
"""Impairs nothing, on an engine that can impair everything later."""


def changeable(link: Any) -> Specs:
    """What a plain link does once an engine is between its ends, before it impairs anything.

    Raises `TopologyError` where none can be put there.
    """
    _replaceable(link)
    return _CHANGEABLE, _CHANGEABLE


def replaced(link: Link, intf: Intf, given: dict[str, Any]) -> Specs:
    """The link's specifications when packets that leave `intf` are treated as `given` says.

    As with Mininet's `TCIntf.config`, what is not given is off.
    """
    first, second = link.specs or changeable(link)
    base = {} if link.engine_name == "htb" else _CHANGEABLE.as_dict()
    spec = LinkSpec(**{**base, **given})
    return (spec, second) if intf is link.intf1 else (first, spec)


def _replaceable(link: Any) -> Any:
    ends = (link.intf2, link.intf1)
    found = next((end for end in ends if isinstance(end.node, Switch)), None)
    if found is None:
        raise TopologyError(
            f"link {link} between two hosts was made without impairments and cannot get any "
            "while it runs",
            remedy="make it with delay='0ms', say, and change it then",
        )
    return found


def interpose(link: Any) -> None:
    """Put an engine between the ends of a plain link; it impairs nothing yet."""
    end = _replaceable(link)
    link.specs = changeable(link)
    namespace, names = link.engine_namespace(), link.port_names()
    side = 0 if end is link.intf1 else 1
    switch, index, mac = end.node, end.index, end.updateMAC()
    if switch.forwards:
        switch.detach(end)
    port = names[1 - side]  # the old end: it leads to the other node
    switch.netlink.request(
        rtnetlink.set_link(index, up=False, name=port, namespace_fd=namespace.fd)
    )
    with namespace:
        inside = RtNetlink()
    moved = inside.index(port)
    inside.close()
    far = VethEnd(names[side], link.new_index(), namespace.fd)
    near = VethEnd(end.name, index, switch.netns.fd, mac or "", up=True)
    switch.netlink.request(rtnetlink.new_veth(near, far, group=link.group))
    link.adopt_ports((far.index, moved) if side == 0 else (moved, far.index), names)
    if switch.forwards:
        switch.attach(end)
