"""Crowds of live connections (`traffic.many`) in the nodes of a trial, and what came of them."""

from __future__ import annotations

import sys
from typing import Any

from testbed.run import NodeProcess, Recorder

_PROGRAM = (sys.executable, "-m", "traffic.many")
_SPARE_S = 60.0  # a crowd is given so much longer than it should take


async def serve(net: Any, record: Recorder, *, mptcp: bool, congestion: str) -> NodeProcess:
    """An echo server at server1 that is ready."""
    argv = [*_PROGRAM, "server", *_transport(mptcp, congestion)]
    process = await NodeProcess.start(net["server1"], argv, record, name="echo")
    await process.ready()
    return process


def _transport(mptcp: bool, congestion: str) -> tuple[str, ...]:
    return ("--mptcp" if mptcp else "--tcp", "--congestion", congestion)


class Crowd:
    """Connections of one client, live from `start` until `finish`."""

    def __init__(self, process: NodeProcess) -> None:
        self._process = process
        self.results: dict[str, Any] = {}

    @classmethod
    async def start(
        cls,
        net: Any,
        record: Recorder,
        *,
        name: str,
        client: str,
        connections: int,
        rate: float,
        mptcp: bool,
        congestion: str,
        more: tuple[str, ...] = (),
    ) -> Crowd:
        """Open the connections; exchanges begin when this returns.

        `name` is the source of its samples; `rate` in exchanges a second, of all connections.
        """
        argv = [*_PROGRAM, "client", str(net["server1"].IP()), *_transport(mptcp, congestion)]
        argv += ["--connections", str(connections), "--rate", str(rate), *more]
        process = await NodeProcess.start(net[client], argv, record, name=name)
        await process.ready(_SPARE_S)
        return cls(process)

    async def finish(self) -> dict[str, Any]:
        """Have it call the roll; its results."""
        await self._process.send({"command": "finish"})
        self.results = await self._process.done(_SPARE_S)
        return self.results

    async def stop(self) -> None:
        """End it, if it has not ended yet."""
        await self._process.stop()
