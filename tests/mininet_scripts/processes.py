"""Programs on hosts: cmd, popen, pmonitor, monitor, private directories, IPv6."""

from functools import partial
from signal import SIGINT

from mininet.cli import CLI
from mininet.net import Mininet
from mininet.node import Host, Node
from mininet.topo import SingleSwitchTopo
from mininet.util import ensureRoot, irange, pmonitor, quietRun, waitListening

ensureRoot()
assert quietRun("echo quiet").strip() == "quiet"
dirs = ["/var/tmp/private", ("/var/tmp/own", "/run/kept/%(name)s")]
net = Mininet(SingleSwitchTopo(3), host=partial(Host, privateDirs=dirs), waitConnected=True)
net.start()
h1, h2, h3 = net.hosts

pings = {host: host.popen("ping -i0.2 %s" % h1.IP()) for host in (h2, h3)}
seen = 0
for host, line in pmonitor(pings, timeoutms=500):
    seen += host is not None and "bytes from" in line
    if seen == 6:
        for ping in pings.values():
            ping.send_signal(SIGINT)
assert seen >= 6

h1.cmd("echo %s > /var/tmp/private/a; touch /var/tmp/own/b" % h1.name)
assert "No such file" in h2.cmd("cat /var/tmp/private/a")
assert "b" in net["h3"].cmd("ls /run/kept/h1")

for n, host in zip(irange(1, 3), net.hosts, strict=True):
    host.cmd("ip -6 addr add fd00::%d/64 dev %s nodad" % (n, host.defaultIntf()))
assert " 0% packet loss" in h1.cmd("ping -6 -c1 fd00::3")

h2.cmd("python3 -m http.server 80 --bind %s >/dev/null 2>&1 &" % h2.IP())
assert waitListening(h1, h2, 80, timeout=10)
h2.cmd("kill %python3")

fds = {host.stdout.fileno(): host for host in net.hosts}
assert all(Node.fdToNode(fd) is host for fd, host in fds.items())
h3.sendCmd("echo one; sleep 0.1; echo two")
assert h3.waitOutput().split() == ["one", "two"]

with open("/run/commands", "w") as script:
    script.write("pingall\npy h1.cmd('echo by-py').strip()\n")
CLI(net, script="/run/commands")
CLI(net)  # the rest comes from standard input
net.stop()
print("done")
