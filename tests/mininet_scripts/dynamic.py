"""A network that changes while it runs."""

from mininet.link import TCLink
from mininet.net import Mininet
from mininet.node import OVSSwitch
from mininet.topo import LinearTopo


class Moving(OVSSwitch):
    def give(self, intf, switch, port):
        self.detach(intf)
        self.delIntf(intf)
        switch.addIntf(intf, port=port)
        intf.node = switch
        intf.rename("%s-eth%d" % (switch.name, port))
        switch.attach(intf)


def rtt(a, b):
    ((_src, _dst, found), *_rest) = net.pingFull([a, b])
    return found[3]  # the average, in ms


net = Mininet(LinearTopo(3), switch=Moving, waitConnected=True)
net.start()
h1, h2, h3, s1, s3 = net.get("h1", "h2", "h3", "s1", "s3")
assert net.pingAll() == 0

late = net.addHost("late", ip="10.0.0.50/8")
link = net.addLink(late, s1)
s1.attach(link.intf2)
late.configDefault()
assert net.ping([late, h3]) == 0
net.delLink(link)
net.delHost(late)
assert "late" not in net

net.configLinkStatus("h1", "s1", "down")
assert net.ping([h1, h2], timeout="0.3") == 100
net.configLinkStatus("h1", "s1", "up")
assert net.ping([h1, h2]) == 0

(_mine, port) = h1.connectionsTo(s1)[0]
s1.give(port, s3, 17)
for switch in net.switches:
    switch.dpctl("del-flows")
assert h1.connectionsTo(s3)
assert s3.cmd("ovs-vsctl get Interface s3-eth17 ofport").strip() == "17"
assert net.pingAll() == 0

rtt(h1, h2)
before = rtt(h1, h2)
assert before < 20, before
h1.intf().config(delay="30ms")  # the link was made without any of this
assert rtt(h1, h2) >= 30
h1.intf().config(loss=100)
assert net.ping([h1, h2], timeout="0.3") == 100
h1.intf().config(bw=50)
assert rtt(h1, h2) < 30
net.stop()

net = Mininet(LinearTopo(1), link=TCLink, waitConnected=True)
net.start()
net["h1"].intf().config(bw=7, delay="1ms", loss=0, max_queue_size=50, use_tbf=True)
net.addHost("h9", ip="10.0.0.9/8")
extra = net.addLink("h9", "s1", bw=20, delay="10ms", jitter="1ms", loss=0, use_htb=True)
net["s1"].attach(extra.intf2)
net["h9"].configDefault()
assert rtt(net["h9"], net["h1"]) >= 18
net.stop()
print("done")
