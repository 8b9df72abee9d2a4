"""CPU-limited hosts, against one that is not."""

from functools import partial

from mininet.net import Mininet
from mininet.node import CPULimitedHost, OVSBridge
from mininet.util import custom, numCores

BUSY = "import time; a = time.time(); c = time.process_time()\nwhile time.time() < a + %s: pass\n"
BUSY += "print((time.process_time() - c) / (time.time() - a))"


def share(host, seconds=1.0):
    """Processor time of a busy loop against wall time."""
    return float(host.pexec(["python3", "-c", BUSY % seconds])[0])


net = Mininet(switch=OVSBridge)
slow = net.addHost("slow", cls=custom(CPULimitedHost, sched="cfs", period_us=20000), cpu=0.05)
free = net.addHost("free", cls=partial(CPULimitedHost), cores=0)
s1 = net.addSwitch("s1")
for host in (slow, free):
    net.addLink(host, s1)
net.start()
assert net.pingAll() == 0
limit = 0.05 * numCores()
bound = share(slow)
assert bound < 1.5 * limit, bound
assert any(share(free) > 3 * bound for _ in range(5))  # the machine may be busy with others
assert free.cmd("taskset -p $$").strip().endswith("mask: 1")
slow.setCPUFrac(-1)
assert any(share(slow) > 3 * bound for _ in range(5))
slow.setCPUFrac(0.05)
loops = net.runCpuLimitTest(cpu=0.05, duration=1)
assert 0 < loops[0] < 10, loops
net.stop()
print("done")
