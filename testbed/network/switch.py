"""Switches: the Linux bridge (the default), and Open vSwitch's userspace switch in `ovs`."""

from __future__ import annotations

import itertools
import os
import struct
from pathlib import Path
from typing import Any

from mininet.node import IVSSwitch as MininetIVSSwitch
from mininet.node import Switch as MininetSwitch
from mininet.nodelib import LinuxBridge as MininetLinuxBridge

from testbed.errors import FeatureError
from testbed.kernel import rtnetlink
from testbed.network.cuts import Cut
from testbed.network.failure import FROZEN, KILLED
from testbed.network.node import Node

_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE, _IFLA_BR_PRIORITY = 1, 5, 6
_IFLA_BR_MCAST_SNOOPING = 23
_SETTLED = ("3", "4")  # a port that forwards, or is blocked (BR_STATE_*)
_USER_HZ = os.sysconf("SC_CLK_TCK")
_indexes = itertools.count(1_000_000)


class Switch(Node, MininetSwitch):
    """Base of switches; like Mininet's they share the network's own namespace.

    `wire_frames` says that the switch cannot handle what network cards are offloaded with
    (segmentation, checksums), so that its links must carry frames as on a wire.
    """

    wire_frames = False
    forwards = False
    """Are its interfaces ports of a switch that exists by now?"""

    def cmd(self, *args: Any, **kwargs: Any) -> Any:
        """As in Mininet; what its constructor runs in vain (loopback is up) starts no shell."""
        if args == ("ifconfig", "lo", "up"):
            return ""
        return super().cmd(*args, **kwargs)

    # -- failures -----------------------------------------------------------------------------

    def freeze(self) -> None:
        """Hang: no frame gets in or out, while the links keep their carrier."""
        self._require_running("frozen")
        ends = [end for link in self._links() for end in (link.intf1, link.intf2)]
        self._network.cuts.add(self, [Cut(end) for end in ends])
        self.failed = FROZEN
        self._tell("node freeze", "frozen")

    def kill(self) -> None:
        """Lose power: the links lose their carrier, what was learned is gone."""
        if self.failed == FROZEN:
            self.thaw()
        self._require_running("killed")
        for link in self._links():
            link.down(self)
        self.failed = KILLED
        self._tell("node kill", "killed")

    def restart(self) -> None:
        """Come back, having learned nothing yet."""
        if self.failed != KILLED:
            self.kill()
        self.failed = ""
        for link in self._links():
            link.up(self)
        self._tell("node restart", "restarted")

    def _links(self) -> set[Any]:
        return {intf.link for intf in self.intfList() if intf.link is not None}

    def _own_namespace(self, what: str) -> None:
        """It needs none to fail."""


class Bridge(Switch, MininetLinuxBridge):
    """A Linux bridge, optionally with spanning tree (`stp=True`, `prio=`, `forward_delay=`).

    `forward_delay` (2 to 30 s, the kernel's default is 15) is how long a port listens, and then
    learns, before it forwards: a network with spanning tree takes twice that to come up.

    It exists from construction on, so that links join it in the message that makes them, also
    while the network runs.
    """

    bridge_index = 0
    forwards = True

    def __init__(self, name: str, *, forward_delay: float | None = None, **params: Any) -> None:
        super().__init__(name, **params)
        self.forward_delay_s = forward_delay
        self.bridge_index = next(_indexes)
        self.netlink.request(
            rtnetlink.new_link(
                "bridge", name, self.bridge_index, up=False, data=self._bridge_data()
            )
        )

    def _bridge_data(self) -> bytes:
        if not self.stp:
            return _snooping(False)
        priority = struct.pack("=HHHxx", 6, _IFLA_BR_PRIORITY, self.prio)
        data = _snooping(False) + rtnetlink.attribute(_IFLA_BR_STP_STATE, 1) + priority
        if self.forward_delay_s is not None:
            ticks = int(self.forward_delay_s * _USER_HZ)
            data = rtnetlink.attribute(_IFLA_BR_FORWARD_DELAY, ticks) + data
        return data

    @classmethod
    def setup(cls) -> None:
        """Needs no helper programs."""

    def start(self, _controllers: Any) -> None:
        """Begin to forward.

        Multicast snooping comes on only now, and goes off before ports do: with it on, the kernel
        goes through all ports' groups for each port that changes its state.
        """
        self.netlink.batch(
            [
                rtnetlink.set_link(self.bridge_index, up=True),
                rtnetlink.change_link(self.bridge_index, "bridge", _snooping(True)),
            ]
        )

    def attach(self, intf: Any) -> None:
        """Put an interface made by other means into the bridge."""
        index = self.netlink.index(str(intf))
        self.netlink.request(rtnetlink.set_link(index, master=self.bridge_index, up=True))

    def detach(self, intf: Any) -> None:
        """Take an interface out of the bridge."""
        index = self.netlink.index(str(intf))
        self.netlink.request(rtnetlink.set_link(index, master=0))

    def connected(self) -> bool:
        """Forwarding yet?  (With spanning tree, no port may still be listening or learning.)"""
        if not self.stp:
            return True
        states = Path(f"/sys/class/net/{self.name}/brif").glob("*/state")
        return all(state.read_text().strip() in _SETTLED for state in states)

    def stop(self, deleteIntfs: bool = True) -> None:
        """Remove the bridge and, with `deleteIntfs`, its ports."""
        if deleteIntfs:
            self.deleteIntfs()
        if self.bridge_index:
            self.netlink.batch(
                [
                    rtnetlink.change_link(self.bridge_index, "bridge", _snooping(False)),
                    rtnetlink.delete_link(self.bridge_index),
                ]
            )
            self.bridge_index = 0

    def dpctl(self, *args: str) -> str:
        """Run iproute2's `bridge` command."""
        return self.cmd("bridge", *args)  # type: ignore[no-any-return]


class IVSSwitch(Switch, MininetIVSSwitch):
    """Indigo Virtual Switch, which needs a kernel module that is not maintained any more."""

    def __init__(self, name: str, **_params: Any) -> None:
        raise FeatureError(
            f"switch {name}: the Indigo Virtual Switch is not offered",
            remedy="use OVSSwitch, which speaks OpenFlow too",
        )


def _snooping(on: bool) -> bytes:
    return rtnetlink.attribute(_IFLA_BR_MCAST_SNOOPING, bytes([on]))
