"""Mininet's names, bound to this engine, for scripts that know nothing of it.

`bind` puts copies of Mininet's modules in their place in which the names of `_NAMES` are ours.
Mininet's own code keeps the originals: our classes derive from them and call them.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

from mininet.clean import Cleanup
from mininet.log import info
from mininet.net import MininetWithControlNet
from mininet.topolib import TorusTopo, TreeTopo

from testbed.network import adapt, controller, cpu, intf, link, nat, node, ovs, switch
from testbed.network.net import Network


class OVSSwitch(ovs.OVSSwitch):
    """With Mininet's default: without its controller, a switch forwards nothing new."""

    def __init__(self, name: str, failMode: str = "secure", **params: Any) -> None:
        super().__init__(name, failMode=failMode, **params)


class Mininet(Network):
    """`Network` with Mininet's order of parameters and Mininet's defaults."""

    def __init__(
        self,
        topo: Any = None,
        switch: Any = OVSSwitch,
        host: Any = node.Host,
        controller: Any = controller.DefaultController,
        link: Any = link.Link,
        intf: Any = intf.Intf,
        **options: Any,
    ) -> None:
        super().__init__(
            topo, switch=switch, host=host, controller=controller, link=link, intf=intf, **options
        )


class _WithControlNet(MininetWithControlNet, Mininet):
    """Mininet's, on this engine."""


def _tree_net(depth: int = 1, fanout: int = 2, **options: Any) -> Mininet:
    return Mininet(TreeTopo(depth, fanout), **options)


def _torus_net(x: int, y: int, **options: Any) -> Mininet:
    return Mininet(TorusTopo(x, y), **options)


def custom(cls: Any, **params: Any) -> Any:
    """Mininet's `custom`: a constructor with parameters filled in."""
    return functools.partial(cls, **params)


class _Cleanup(Cleanup):
    """Mininet's `mn -c`: there is nothing to remove, it goes with the sandbox."""

    @classmethod
    def cleanup(cls) -> None:
        """Call what scripts have registered, as Mininet does."""
        info("*** Nothing to clean up in a sandbox\n")
        for callback in cls.callbacks:
            callback()


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """What Mininet does to the machine here, a sandbox has done or does not need."""


def _adapted(cls: type) -> Any:
    return adapt.adapt(cls)


def _names() -> dict[str, dict[str, Any]]:
    """Module, name and what it is bound to."""
    original = importlib.import_module
    return {
        "mininet.net": {
            "Mininet": Mininet,
            "MininetWithControlNet": _WithControlNet,
        },
        "mininet.node": {
            "Node": node.Node,
            "Host": node.Host,
            "CPULimitedHost": cpu.CPULimitedHost,
            "Switch": switch.Switch,
            "UserSwitch": ovs.UserSwitch,
            "OVSSwitch": OVSSwitch,
            "OVSKernelSwitch": OVSSwitch,
            "OVSBridge": _adapted(original("mininet.node").OVSBridge),
            "IVSSwitch": switch.IVSSwitch,
            "Controller": controller.Controller,
            "OVSController": controller.OVSController,
            "RemoteController": controller.RemoteController,
            "Ryu": _adapted(original("mininet.node").Ryu),
            "NOX": _adapted(original("mininet.node").NOX),
            "DefaultController": controller.DefaultController,
        },
        "mininet.nodelib": {"LinuxBridge": switch.Bridge, "NAT": nat.NAT},
        "mininet.link": {
            "Intf": intf.Intf,
            "TCIntf": intf.TCIntf,
            "Link": link.Link,
            "OVSLink": link.Link,
            "TCLink": link.TCLink,
            "TCULink": link.TCLink,
        },
        "mininet.topolib": {"TreeNet": _tree_net, "TorusNet": _torus_net},
        "mininet.clean": {"Cleanup": _Cleanup, "cleanup": _Cleanup.cleanup},
        "mininet.util": {"custom": custom, "fixLimits": _nothing, "mountCgroups": _nothing},
    }


def bind() -> None:
    """From now on, who imports Mininet's modules gets these names."""
    package = importlib.import_module("mininet")
    for name, replaced in _names().items():
        original = importlib.import_module(name)
        stand_in = ModuleType(name, original.__doc__)
        vars(stand_in).update({**vars(original), **replaced})
        sys.modules[name] = stand_in
        setattr(package, name.rpartition(".")[2], stand_in)
