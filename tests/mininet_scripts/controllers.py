"""Several controllers: in a list, for each switch its own, remote, and more than 16 switches."""

from functools import partial
from itertools import pairwise

from mininet.net import Mininet
from mininet.node import (
    Controller,
    DefaultController,
    OVSBridge,
    OVSController,
    OVSSwitch,
    RemoteController,
    UserSwitch,
)
from mininet.topo import LinearTopo, SingleSwitchTopo

c0 = Controller("c0", port=6633)
c1 = RemoteController("c1", ip="127.0.0.1", port=6633)


class Chooses(OVSSwitch):
    def start(self, controllers):
        return OVSSwitch.start(self, [{"s1": c0, "s2": c1}[self.name]])


net = Mininet(LinearTopo(2), switch=Chooses, build=False, waitConnected=True)
for c in (c0, c1):
    net.addController(c)
net.build()
net.start()
assert net.pingAll() == 0
assert net["s2"].cmd("ovs-vsctl get-controller s2").strip() == "tcp:127.0.0.1:6633"
assert "actions=output" in net["s1"].dpctl("dump-flows")
net.stop()

several = [partial(Controller, port=6640), OVSController("c9", port=6641)]
net = Mininet(SingleSwitchTopo(2), controller=several, waitConnected=5)
net.start()
assert [c.name for c in net.controllers] == ["c0", "c9"]
assert net.pingAll() == 0
net.stop()

net = Mininet(controller=DefaultController, switch=OVSSwitch)
ctl = net.addController("c7", port=6650)
hosts = [net.addHost("h%d" % n) for n in (1, 2)]
switches = [net.addSwitch("s%d" % n) for n in range(1, 19)]
for a, b in pairwise(switches):
    net.addLink(a, b)
net.addLink(hosts[0], switches[0])
net.addLink(hosts[1], switches[-1])
net.build()
ctl.start()
for switch in switches:
    switch.start([ctl])
assert net.waitConnected(timeout=10)
assert net.ping(hosts) == 0
net.stop()

for switch in (UserSwitch, OVSBridge, partial(OVSSwitch, protocols="OpenFlow13")):
    net = Mininet(SingleSwitchTopo(2), switch=switch, waitConnected=True)
    net.start()
    assert net.pingAll() == 0, switch
    net.stop()

net = Mininet(
    SingleSwitchTopo(2), controller=None
)  # a secure switch without flows forwards nothing
net.start()
assert net.pingAll(timeout="0.3") == 100
s1 = net["s1"]
s1.dpctl("add-flow", '"in_port=1 actions=output:2"')
s1.cmd("ovs-ofctl add-flow s1 in_port=2,actions=output:1")
assert net.pingAll(timeout="1") == 0
net.stop()
print("done")
