"""How is a topology brought up?  Mininet's API on an engine of netlink and descriptors.

    Network                     Mininet's `Mininet`
    Host, Router, Node          end systems, routers (addresses and routes by plan)
    CPULimitedHost, NAT         a share of the processors; address translation
    Bridge, OVSSwitch           Linux bridge (the default switch), Open vSwitch in userspace
    Controller, RemoteController    OpenFlow controllers, ours to start or not
    Link, Intf                  links with the parameters of `testbed.links.LinkSpec`

Mininet's own names work where topologies use them: its `Topo` classes, and user classes
derived from its nodes, switches, links and interfaces.
"""

from testbed.network.addressing import AddressPlan
from testbed.network.controller import Controller, RemoteController
from testbed.network.cpu import CPULimitedHost
from testbed.network.intf import Intf
from testbed.network.link import Link, TCLink
from testbed.network.nat import NAT
from testbed.network.net import Network
from testbed.network.node import Host, Node, Router
from testbed.network.ovs import OVSSwitch
from testbed.network.switch import Bridge, Switch

__all__ = [
    "NAT",
    "AddressPlan",
    "Bridge",
    "CPULimitedHost",
    "Controller",
    "Host",
    "Intf",
    "Link",
    "Network",
    "Node",
    "OVSSwitch",
    "RemoteController",
    "Router",
    "Switch",
    "TCLink",
]
