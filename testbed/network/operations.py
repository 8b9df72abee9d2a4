"""What Mininet's `Mininet` does with a network besides bringing it up, where ours differs.

Controllers, waiting for them, moving a host, the processor test.  Kept apart from `net`, which
builds.
"""

from __future__ import annotations

import time
from typing import Any

from mininet.log import info, output, warn
from mininet.net import Mininet

from testbed.network.adapt import adapt
from testbed.network.cpu import CPULimitedHost, busy_shares
from testbed.network.move import move

_PAUSE_S = 0.01


class Operations(Mininet):
    """Base of `Network`."""

    def addController(self, name: Any = "c0", controller: Any = None, **params: Any) -> Any:
        """As in Mininet: by name and class, or one that was made already."""
        made = super().addController(name, adapt(controller or self.controller), **params)
        if made is not None:
            made.network = made.network or self
        return made

    def waitConnected(self, timeout: float | bool | None = None, delay: float = _PAUSE_S) -> bool:
        """Wait until every switch has an OpenFlow connection to a controller.

        For `timeout` seconds; None takes the network's `waitConnected=`, and waits as long as it
        takes if that is no number.  Says whether all are connected.
        """
        if timeout is None and not isinstance(self.waitConn, bool):
            timeout = self.waitConn
        if isinstance(timeout, bool):
            timeout = None if timeout else 0
        info("*** Waiting for switches to connect\n")
        start = time.monotonic()
        waiting = list(self.switches)
        while waiting := [switch for switch in waiting if not switch.connected()]:
            if timeout is not None and time.monotonic() - start > timeout:
                names = ", ".join(switch.name for switch in waiting)
                warn(f"Warning: not connected to a controller after {timeout} s: {names}\n")
                return False
            time.sleep(delay)
        info(" ".join(switch.name for switch in self.switches) + "\n")
        return True

    def runCpuLimitTest(self, cpu: float, duration: int = 5) -> list[float]:
        """Percent of all processors that busy loops get in each CPU-limited host and second."""
        info(f"*** Testing CPU {cpu * 100:.0f}% bandwidth limit\n")
        limited = [host for host in self.hosts if isinstance(host, CPULimitedHost)]
        shares = busy_shares(limited, cpu, duration)
        output(f"*** Results: {shares}\n")
        return shares

    def moveHost(self, host: Any, new: Any, *, old: Any = None, port: int | None = None) -> None:
        """Plug a host's cable into another switch, as it runs.

        The link and what it does to packets stay.  `old` says which link is meant where the host
        has several; `port` is the number on the new switch.
        """
        host, new = (self[each] if isinstance(each, str) else each for each in (host, new))
        move(self, host, self[old] if isinstance(old, str) else old, new, port)
