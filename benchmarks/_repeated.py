"""How often can one connection be redirected?  To and fro between two hops, until one fails.

With the kernel's path manager at the client, and with a user-space one that accepts every address
it is told of, as mptcpd does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks._detour import CLIENT, M2, M2_OUTWARD, M3_OUTWARD, PORT, SERVER, Detour
from benchmarks._transfers import Transfers
from testbed.mptcp import configure
from testbed.mptcp.events import EventKind, EventMonitor
from testbed.mptcp.path_manager import PathManager
from testbed.mptcp.redirection.driver import Redirector
from testbed.mptcp.redirection.messages import Outcome
from testbed.mptcp.redirection.nexthop import NextHop
from testbed.mptcp.redirection.watcher import Flow, Watcher

_TIMEOUT_S = 3.0


def survived(user_space: bool, most: int) -> dict[str, object]:
    """Redirections until the first that failed, `most` at most, and whether all bytes arrived."""
    with ExitStack() as stack:
        lab = stack.enter_context(Detour())
        accepting = None
        if user_space:
            configure.set_path_manager(lab["client"], "userspace")
            accepting = stack.enter_context(_accepting(lab))
        watcher = stack.enter_context(Watcher(lab["m1"]))
        hops = [
            stack.enter_context(NextHop(lab["m2"], M2, outward=M2_OUTWARD)),
            stack.enter_context(NextHop(lab["m3"], M3_OUTWARD, outward=M3_OUTWARD)),
        ]
        ends = (lab["client"], lab["server"])
        transfers = stack.enter_context(Transfers(*ends, (SERVER[0], PORT)))
        done, reason = asyncio.run(
            _to_and_fro(watcher, hops, transfers.each[0].flow, most, accepting)
        )
        transfers.finish()
        return {
            "manager": "user space" if user_space else "kernel",
            "tried": most,
            "redirected": done,
            "then": reason,
            "whole": transfers.each[0].whole,
        }


async def _to_and_fro(
    watcher: Watcher, hops: list[NextHop], flow: Flow, most: int, accepting: _Accepting | None
) -> tuple[int, str]:
    if accepting is not None:
        asyncio.get_running_loop().add_reader(accepting.events, accepting.accept)
    boxes = [Redirector(each) for each in (watcher, *(hop.watcher for hop in hops))]
    try:
        at = boxes[0]
        for number in range(most):
            hop = hops[number % 2]
            report = await at.redirect(flow, hop, timeout_s=_TIMEOUT_S)
            if report.outcome is not Outcome.REDIRECTED or report.flow is None:
                return number, report.reason
            flow, at = report.flow, boxes[1 + number % 2]
        return most, ""
    finally:
        for each in boxes:
            await each.close()


class _Accepting:
    """A path manager in user space that joins at every address announced."""

    def __init__(self, manager: PathManager, events: EventMonitor) -> None:
        self.events, self._manager = events, manager

    def accept(self) -> None:
        """Take in what waits."""
        for event in self.events.read():
            if event.kind is EventKind.ANNOUNCED and event.token and event.remote:
                remote = (event.remote.ip, event.remote.port or PORT)
                self._manager.create_subflow(event.token, CLIENT[0], remote, local_id=1)


@contextmanager
def _accepting(lab: Detour) -> Iterator[_Accepting]:
    with PathManager(lab["client"]) as manager, EventMonitor(lab["client"]) as events:
        yield _Accepting(manager, events)
