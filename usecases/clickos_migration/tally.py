"""Packets counted where they leave and where they arrive: what is missing was lost in between."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from testbed.kernel.nftables import Nftables

_TABLE = "inet liquidnet_tally"


class Tally:
    """Counts a TCP port's packets at hosts, in the kernel, as long as its block runs."""

    def __init__(self, hosts: list[Any], port: int) -> None:
        self._handles = [Nftables(host.netns) for host in hosts]
        for handle in self._handles:
            handle.run(_rules(port))

    def __enter__(self) -> Tally:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.run(f"delete table {_TABLE}")
            handle.close()

    def missing(self) -> int:
        """Packets that left one of the hosts so far and did not arrive at another."""
        counts = {"sent": 0, "came": 0}
        for handle in self._handles:
            for each in handle.ask(f"list counters table {_TABLE}"):
                if "counter" in each:
                    counts[each["counter"]["name"]] += each["counter"]["packets"]
        return counts["sent"] - counts["came"]


def _rules(port: int) -> str:
    def chain(hook: str, name: str) -> str:
        counted = "".join(f"tcp {side} {port} counter name {name};" for side in ("sport", "dport"))
        return f"chain {name} {{ type filter hook {hook} priority raw; {counted} }};"

    counters = "counter sent { }; counter came { };"
    return f"table {_TABLE} {{ {counters} {chain('output', 'sent')} {chain('input', 'came')} }}"
