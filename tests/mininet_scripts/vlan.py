"""Hosts in a VLAN, by vconfig."""

from functools import partial

from mininet.net import Mininet
from mininet.node import Host, OVSBridge
from mininet.topo import SingleSwitchTopo


class Tagged(Host):
    def config(self, vlan=100, **params):
        result = super().config(**params)
        intf = self.defaultIntf()
        self.cmd("ifconfig %s inet 0" % intf)
        self.cmd("vconfig add %s %d" % (intf, vlan))
        self.cmd("ifconfig %s.%d inet %s" % (intf, vlan, params["ip"]))
        return result


net = Mininet(SingleSwitchTopo(2), host=partial(Tagged, vlan=7), switch=OVSBridge)
net.start()
assert net.pingAll() == 0
assert "h1-eth0.7" in net["h1"].cmd("ip -br link")
net.stop()
print("done")
