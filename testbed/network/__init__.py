"""How is a topology brought up?  Mininet's API on an engine of netlink and descriptors.

    Network                     Mininet's `Mininet`
    Host, Router, Node          end systems, routers (addresses and routes by plan)
    Bridge, OVSSwitch           Linux bridge (the default switch), Open vSwitch in userspace
    Link, Intf                  links with the parameters of `testbed.links.LinkSpec`

Mininet's own names work where topologies use them: its `Topo` classes, and user classes
derived from its nodes, switches, links and interfaces.
"""

from testbed.network.addressing import AddressPlan
from testbed.network.intf import Intf
from testbed.network.link import Link, TCLink
from testbed.network.net import Network
from testbed.network.node import Host, Node, Router
from testbed.network.ovs import OVSSwitch
from testbed.network.switch import Bridge, Switch

__all__ = [
    "AddressPlan",
    "Bridge",
    "Host",
    "Intf",
    "Link",
    "Network",
    "Node",
    "OVSSwitch",
    "Router",
    "Switch",
    "TCLink",
]
