"""A network without Topo and without Mininet(): nodes, links, Open vSwitch by its commands."""

from mininet.clean import cleanup
from mininet.link import Link, TCLink
from mininet.net import Mininet
from mininet.node import Node
from mininet.nodelib import LinuxBridge

Mininet.init()
controller = Node("c0", inNamespace=False)
switch = Node("s0", inNamespace=False)
h0, h1, h2 = Node("h0"), Node("h1"), Node("h2")
Link(h0, switch)
Link(h1, switch)
h0.setIP("192.168.123.1/24")
h1.setIP("192.168.123.2/24")
controller.cmd("controller -v ptcp: > /run/said 2>&1 &")
switch.cmd("ovs-vsctl add-br dp0 -- set-fail-mode dp0 secure")
for intf in switch.intfs.values():
    switch.cmd("ovs-vsctl add-port dp0 %s" % intf)
switch.cmd("ovs-vsctl set-controller dp0 tcp:127.0.0.1:6633")
assert "1 received" in h0.cmd("ping -c1 -w10 " + h1.IP())  # as soon as switch and controller met
switch.cmd("ovs-vsctl del-br dp0")
controller.cmd("kill %controller")
switch.deleteIntfs()

link = TCLink(h0, h2, delay="5ms", bw=10)
h0.setIP("10.1.0.1/24", intf=link.intf1)
h2.setIP("10.1.0.2/24", intf=link.intf2)
assert " 0% packet loss" in h0.cmd("ping -c1 -W2 10.1.0.2")

bridge = LinuxBridge("s5")
ports = [Link(node, bridge) for node in (h1, h2)]
bridge.start([])
h1.setIP("10.2.0.1/24", intf=ports[0].intf1)
h2.setIP("10.2.0.2/24", intf=ports[1].intf1)
assert " 0% packet loss" in h1.cmd("ping -c1 -W2 10.2.0.2")
cleanup()
print("done")
