"""What a network waits for: that it is usable when it has started, and what its user asks for."""

from __future__ import annotations

from typing import Any

from testbed.network import ready
from testbed.network.switch import Bridge

_LINKS_DEADLINE_S = 60.0  # the kernel may be busy with networks of others
_TREE_DEADLINE_S = 120.0


class WaitingNetwork:
    """The part of `Network` that waits."""

    links: list[Any]
    switches: list[Any]

    def settle(self) -> None:
        """Return when links carry packets, IPv6 addresses can be used and spanning trees stand.

        Raises `NotReady` where one does not come up.
        """
        ready.wait_until(ready.carrying(self.links), timeout_s=_LINKS_DEADLINE_S)
        trees = [each for each in self.switches if isinstance(each, Bridge) and each.stp]
        if trees:
            ready.wait_until(ready.spanning_tree(*trees), timeout_s=_TREE_DEADLINE_S)

    def wait_until(self, *conditions: Any, timeout_s: float = 10.0) -> None:
        """Wait until conditions of `testbed.network.ready` (or functions) hold; else `NotReady`."""
        ready.wait_until(*conditions, timeout_s=timeout_s)

    async def until(self, *conditions: Any, timeout_s: float = 10.0) -> None:
        """The same in a coroutine."""
        await ready.until(*conditions, timeout_s=timeout_s)
