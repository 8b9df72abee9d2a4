"""NAT: between networks, and as a network's way to the outside."""

from mininet.net import Mininet
from mininet.node import OVSBridge
from mininet.nodelib import NAT
from mininet.topo import SingleSwitchTopo, Topo

ECHO = (
    "import socket as s; u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.bind(('', 7)); "
    "print('up', flush=True); d, a = u.recvfrom(9); u.sendto(a[0].encode(), a)"
)
ASK = (
    "import socket as s; u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.settimeout(3); "
    "u.sendto(b'?', ('%s', 7)); print(u.recv(99).decode())"
)


def seen_as(client, server, address=None):
    """The address by which `server` sees `client`."""
    echo = server.popen(["python3", "-c", ECHO])
    assert echo.stdout.readline() == b"up\n"
    return client.pexec(["python3", "-c", ASK % (address or server.IP())])[0].strip()


class Home(Topo):
    def build(self):
        inet, lan = self.addSwitch("s0", dpid="99"), self.addSwitch("s1")
        outside = self.addHost("h0")
        nat = self.addNode(
            "nat1", cls=NAT, subnet="192.168.1.0/24", inetIntf="nat1-eth0", localIntf="nat1-eth1"
        )
        inside = self.addHost("h1", ip="192.168.1.100/24", defaultRoute="via 192.168.1.1")
        self.addLink(outside, inet)
        self.addLink(nat, inet, intfName1="nat1-eth0")
        self.addLink(nat, lan, intfName1="nat1-eth1", params1={"ip": "192.168.1.1/24"})
        self.addLink(inside, lan)


net = Mininet(Home(), switch=OVSBridge)
net.start()
h0, h1, nat1 = net.get("h0", "h1", "nat1")
assert seen_as(h1, h0) == nat1.IP("nat1-eth0") != h1.IP()
net.stop()

net = Mininet(SingleSwitchTopo(2), waitConnected=True)
nat = net.addNAT()
nat.configDefault()
net.start()
h1 = net["h1"]
assert "default via %s" % nat.IP() in h1.cmd("ip route")
away = net.addHost("away", ip=None)  # a place outside that knows no route back to 10/8
link = net.addLink(away, nat)
away.setIP("203.0.113.9", 24)
nat.setIP("203.0.113.1", 24, intf=link.intf2)
assert seen_as(h1, away, "203.0.113.9") == "203.0.113.1"
net.stop()
print("done")
