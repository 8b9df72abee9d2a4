"""Topologies of Mininet's own and one of ours, with default switches and controller."""

from mininet.link import Link
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.node import Host, OVSKernelSwitch
from mininet.nodelib import LinuxBridge
from mininet.topo import LinearTopo, SingleSwitchReversedTopo, Topo
from mininet.topolib import TorusTopo, TreeNet
from mininet.util import custom, dumpNodeConnections


class Pair(Topo):
    def build(self, left="left", **_opts):
        a, b = self.addHost(left), self.addHost("right", ip="10.9.0.2/8", mac="00:00:00:00:09:02")
        switch = self.addSwitch("s7", dpid="77")
        self.addLink(a, switch)
        self.addLink(b, switch, port2=5)


def run():
    for topo in (LinearTopo(3), SingleSwitchReversedTopo(3), Pair(left="one")):
        net = Mininet(topo, OVSKernelSwitch, Host, autoSetMacs=True, waitConnected=True)
        net.start()
        dumpNodeConnections(net.hosts)
        assert net.pingAll() == 0
        if "s7" in net:
            s7, right = net.get("s7", "right")
            assert int(s7.dpid, 16) == 0x77
            assert right.MAC() == "00:00:00:00:09:02"
            assert s7.cmd("ovs-vsctl get Interface s7-eth5 ofport").strip() == "5"
        net.stop()

    assert TreeNet(depth=2, fanout=2, waitConnected=True).run(len, "123") == 3

    net = Mininet(TorusTopo(3, 3), switch=custom(LinuxBridge, stp=True), link=Link, build=False)
    net.build()
    assert (len(net.switches), len(net.hosts), len(net.links)) == (9, 9, 27)


if __name__ == "__main__":
    setLogLevel("warning")
    run()
    print("done")
