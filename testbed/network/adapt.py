"""Classes written for Mininet, put on top of this engine.

A user's `class MyRouter(mininet.node.Node)` expects Mininet's shell-driven base below it.
`adapt` derives from it and from ours, in that order: what the user overrides stays in force,
and where the user's class calls `super()` it now reaches the netlink implementation.
"""

from __future__ import annotations

import functools
from typing import Any

from mininet import link as mininet_link
from mininet import node as mininet_node
from mininet import nodelib as mininet_nodelib

from testbed.network.controller import (
    Controller,
    DefaultController,
    OVSController,
    RemoteController,
)
from testbed.network.cpu import CPULimitedHost
from testbed.network.intf import Intf, TCIntf
from testbed.network.link import Link, TCLink
from testbed.network.nat import NAT
from testbed.network.node import Host, Node
from testbed.network.ovs import OVSSwitch, UserSwitch
from testbed.network.switch import Bridge, IVSSwitch, Switch

# Most derived first: the first base of Mininet's that a class has decides.
_OURS: tuple[tuple[type, type], ...] = (
    (mininet_link.TCIntf, TCIntf),
    (mininet_link.Intf, Intf),
    (mininet_link.OVSLink, Link),
    (mininet_link.TCLink, TCLink),
    (mininet_link.Link, Link),
    (mininet_nodelib.LinuxBridge, Bridge),
    (mininet_nodelib.NAT, NAT),
    (mininet_node.OVSSwitch, OVSSwitch),
    (mininet_node.UserSwitch, UserSwitch),
    (mininet_node.IVSSwitch, IVSSwitch),
    (mininet_node.Switch, Switch),
    (mininet_node.RemoteController, RemoteController),
    (mininet_node.OVSController, OVSController),
    (mininet_node.Controller, Controller),
    (mininet_node.CPULimitedHost, CPULimitedHost),
    (mininet_node.Host, Host),
    (mininet_node.Node, Node),
)


@functools.cache
def _adapted(cls: type) -> type:
    if issubclass(cls, (Node, Link, Intf)):
        return cls
    for theirs, ours in _OURS:
        if cls is theirs:
            return ours
        if issubclass(cls, theirs):
            return type(cls.__name__, (cls, ours), {"__module__": cls.__module__})
    return cls


def adapt(thing: Any) -> Any:
    """`thing` (a class, a `functools.partial` of one, a list of them) on top of this engine."""
    if isinstance(thing, functools.partial):
        return functools.partial(adapt(thing.func), *thing.args, **thing.keywords)
    if isinstance(thing, type):
        return _adapted(thing)
    if isinstance(thing, list):  # of controllers
        return [adapt(each) for each in thing]
    return DefaultController if thing is mininet_node.DefaultController else thing
