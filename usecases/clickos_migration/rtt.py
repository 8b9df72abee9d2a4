"""Round trips as the connections have them, with what waits in queues at that moment."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from testbed.network import echo
from testbed.run import Recorder

_SPACING_S = 0.1
_WAIT_S = 3.0


async def measure(net: Any, record: Recorder, source: str, *, for_s: float) -> None:
    """Echoes from a client to the server for some time; their median is the result `rtt`."""
    loop, found = asyncio.get_running_loop(), []
    until = loop.time() + for_s
    while loop.time() < until:
        seconds, _why = await echo.round_trip(
            net["client1"], str(net["server1"].IP()), tries=1, wait_s=_WAIT_S
        )
        if seconds is not None:  # an echo may be lost in a full queue, as any packet may
            found.append(seconds)
        await asyncio.sleep(min(_SPACING_S, max(0.0, until - loop.time())))
    if found:
        record.result("rtt", statistics.median(found), "s", source)
