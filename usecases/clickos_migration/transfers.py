"""Live connections between clients and the server: started, followed, and what became of them.

Each is a program of `traffic.bulk` at both ends, over the kernel's Multipath TCP, which compares
the SHA-256 of what was sent and of what arrived.  A connection that breaks is a result, not the
end of the trial.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from testbed.errors import NodeProcessError
from testbed.mptcp.configure import MAX_SUBFLOWS, configure
from testbed.mptcp.counters import Address
from testbed.mptcp.path_manager import PathManager
from testbed.mptcp.redirection.watcher import Flow
from testbed.run import NodeProcess, Recorder
from usecases.clickos_migration.arrived import Arrived

UP, DOWN = "up", "down"
_SPARE_S = 60.0  # a connection is given so much longer than it should take
_SILENCE_S = 20.0


def prepare(nodes: Iterable[Any]) -> None:
    """Ordinary hosts with Multipath TCP: further addresses are accepted, subflows opened."""
    for node in nodes:
        configure(node.netns, enabled=True, path_manager="kernel", congestion="reno")
        with PathManager(node.netns) as manager:
            manager.set_limits(subflows=MAX_SUBFLOWS, add_addr_accepted=MAX_SUBFLOWS)


class Transfer:
    """One connection, from the client's start to both ends' reports."""

    def __init__(
        self,
        record: Recorder,
        name: str,
        direction: str,
        flow: Flow,
        ends: Sequence[NodeProcess],
    ) -> None:
        self._record = record
        self.name, self.direction, self.flow = name, direction, flow
        self._client, self._server = ends
        self.intact = False
        self.arrived = Arrived(())

    @classmethod
    async def start(
        cls,
        net: Any,
        record: Recorder,
        *,
        name: str,
        client: str,
        direction: str,
        port: int,
        duration_s: float,
        congestion: str,
        rate_bps: float = 0.0,
        server: str = "server1",
        seed: int = 1,
    ) -> Transfer:
        """Start both ends; the connection is up, and data flow, when this returns.

        With `rate_bps` 0 it takes what the path gives.
        """
        common = ["--port", str(port), "--mptcp", "--congestion", congestion, "--arrivals"]
        common += ["--silence", str(_SILENCE_S)]
        argv = [sys.executable, "-m", "traffic.bulk"]
        serving = await NodeProcess.start(
            net[server], [*argv, "server", "--once", *common], record,
            name=f"{name}.server", check=False,
        )  # fmt: skip
        await serving.ready()
        told = ["client", str(net[server].IP()), "--direction", direction]
        told += ["--duration", str(duration_s), "--seed", str(seed)]
        told += ["--rate", str(rate_bps)] if rate_bps else []
        asking = await NodeProcess.start(
            net[client], [*argv, *told, *common], record, name=f"{name}.client", check=False
        )
        ready = await asking.ready()
        flow = Flow(_endpoint(ready["local"]), _endpoint(ready["remote"]))
        return cls(record, name, direction, flow, (asking, serving))

    async def finish(self, within_s: float) -> None:
        """Wait for both ends; `intact` and `arrived` are known then.

        An end that failed is an event (`connection-failed`), and the connection not intact.
        """
        ends = (self._client, self._server)
        asked, served = await asyncio.gather(*(self._outcome(end, within_s) for end in ends))
        if asked is None or served is None:
            return
        self.intact = asked["intact"] is True and asked["protocol"] == "mptcp"
        receiver = served if self.direction == UP else asked
        self.arrived = Arrived(receiver["arrivals"])

    async def _outcome(self, end: NodeProcess, within_s: float) -> dict[str, Any] | None:
        try:
            return await end.done(within_s + _SPARE_S)
        except NodeProcessError as error:
            self._record.event("connection-failed", source=end.name, error=error.message)
            return None


def _endpoint(text: str) -> Address:
    address, _, port = text.rpartition(":")
    return Address(address, int(port))
