"""What the live tests of redirection share: a detour, a watcher, next hops, verified transfers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from benchmarks._detour import (
    M2,
    M2_ONWARD,
    M2_OUTWARD,
    M3,
    M3_OUTWARD,
    PORT,
    SERVER,
    Detour,
)
from benchmarks._transfers import Transfer, Transfers
from testbed.mptcp.redirection.driver import Redirector
from testbed.mptcp.redirection.nexthop import NextHop
from testbed.mptcp.redirection.watcher import Watcher

_T = TypeVar("_T")


class Scene:
    """A detour with a watcher at m1; `hop` leads through m2, `chain` through m2 and m3."""

    def __init__(self, **detour: float) -> None:
        self._stack = ExitStack()
        self.lab = self._stack.enter_context(Detour(**detour))  # type: ignore[arg-type]
        self.watcher = self._stack.enter_context(Watcher(self.lab["m1"]))

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def enter(self, hop: NextHop) -> NextHop:
        """Have a next hop closed with the scene."""
        return self._stack.enter_context(hop)

    def hop(self) -> NextHop:
        return self.enter(NextHop(self.lab["m2"], M2, outward=M2_OUTWARD))

    def chain(self) -> NextHop:
        last = self._stack.enter_context(NextHop(self.lab["m3"], M3, outward=M3_OUTWARD))
        first = NextHop(self.lab["m2"], M2, outward=M2_ONWARD, onward=last)
        return self._stack.enter_context(first)

    def transfers(self, *, ipv6: bool = False, port: int = PORT, **options: float) -> Transfers:
        ends = (self.lab["client"], self.lab["server"])
        return self._stack.enter_context(
            Transfers(*ends, (SERVER[ipv6], port), **options)  # type: ignore[arg-type]
        )

    def redirecting(self, work: Callable[[Redirector], Awaitable[_T]]) -> _T:
        """Run `work` with a redirector at m1."""

        async def run() -> _T:
            async with Redirector(self.watcher) as redirector:
                return await work(redirector)

        return asyncio.run(run())


def flowing(transfers: Transfers, *, beyond: int = 20_000) -> None:
    """Wait until every transfer has got further by so many bytes."""
    goals = [(transfer, transfer.bytes + beyond) for transfer in transfers.each]
    deadline = time.monotonic() + 20
    for transfer, goal in goals:
        while transfer.bytes < goal:
            assert time.monotonic() < deadline, f"{transfer.flow} is stuck: {transfer.error}"
            time.sleep(0.005)


def whole(transfers: Transfers) -> None:
    """End the transfers; every byte must have arrived."""
    transfers.finish()
    broken = [each for each in transfers.each if not each.whole]
    assert not broken, [(each.error, each.ended, each.bytes) for each in broken]


def subflow_remotes(transfer: Transfer) -> set[str]:
    """Addresses that the client's live subflows go to."""
    from testbed.mptcp import sockets

    return {flow.remote.ip for flow in sockets.subflows(transfer.client)}
