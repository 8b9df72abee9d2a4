"""Classes written for Mininet, put on top of this engine.

A user's `class MyRouter(mininet.node.Node)` expects Mininet's shell-driven base below it.
`adapt` derives from it and from ours, in that order: what the user overrides stays in force,
and where the user's class calls `super()` it now reaches the netlink implementation.
"""

from __future__ import annotations

import functools
from typing import Any

from mininet.link import Intf as MininetIntf
from mininet.link import Link as MininetLink
from mininet.link import OVSLink as MininetOVSLink
from mininet.link import TCIntf as MininetTCIntf
from mininet.link import TCLink as MininetTCLink
from mininet.node import Host as MininetHost
from mininet.node import Node as MininetNode
from mininet.node import OVSSwitch as MininetOVSSwitch
from mininet.node import Switch as MininetSwitch
from mininet.nodelib import LinuxBridge as MininetLinuxBridge

from testbed.network.intf import Intf
from testbed.network.link import Link, TCLink
from testbed.network.node import Host, Node
from testbed.network.ovs import OVSSwitch
from testbed.network.switch import Bridge, Switch

# Most derived first: the first base of Mininet's that a class has decides.
_OURS: tuple[tuple[type, type], ...] = (
    (MininetTCIntf, Intf),
    (MininetIntf, Intf),
    (MininetOVSLink, Link),
    (MininetTCLink, TCLink),
    (MininetLink, Link),
    (MininetLinuxBridge, Bridge),
    (MininetOVSSwitch, OVSSwitch),
    (MininetSwitch, Switch),
    (MininetHost, Host),
    (MininetNode, Node),
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
    """`thing` (a class, or a `functools.partial` of one) on top of this engine."""
    if isinstance(thing, functools.partial):
        return functools.partial(adapt(thing.func), *thing.args, **thing.keywords)
    if isinstance(thing, type):
        return _adapted(thing)
    return thing
