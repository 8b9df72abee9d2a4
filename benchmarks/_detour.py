"""A small wide area for live redirections: one way through m1, others through m2 and m3.

    client -- r -- m1 -- x -- server        10.1.0.2, fd00:1::2        10.9.0.2, fd00:9::2
               \\- m2 -/ |
                   \\ m3-/

Everything is routed through m1 until a connection is redirected.  The four links of m1 and m2
have the delay and the loss; the others are plain.  Call it inside a sandbox only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

from testbed.kernel import NetworkNamespace, RtNetlink, rtnetlink
from testbed.kernel.rtnetlink import Message, VethEnd
from testbed.links import offloads
from testbed.links.engine import Wire, bring_up
from testbed.links.engines import Engines
from testbed.links.histogram import Histogram
from testbed.links.spec import LinkSpec
from testbed.mptcp import configure

PORT = 5000
CLIENT, SERVER = ("10.1.0.2", "fd00:1::2"), ("10.9.0.2", "fd00:9::2")
M2, M2_OUTWARD = ("10.12.0.2", "fd00:12::2"), ("10.22.0.2", "fd00:22::2")
M2_ONWARD = ("10.23.0.2", "fd00:23::2")
M3, M3_OUTWARD = ("10.23.0.3", "fd00:23::3"), ("10.33.0.3", "fd00:33::3")

_NODES = ("client", "r", "m1", "m2", "m3", "x", "server")
_LINKS = (
    ("client", 2, "r", 1, 1, False),
    ("r", 1, "m1", 2, 11, True), ("m1", 2, "x", 1, 21, True),
    ("r", 1, "m2", 2, 12, True), ("m2", 2, "x", 1, 22, True),
    ("m2", 2, "m3", 3, 23, False), ("m3", 3, "x", 1, 33, False),
    ("x", 1, "server", 2, 9, False),
)  # fmt: skip
_SETTINGS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv6.conf.default.accept_dad": 0,  # else the first packets wait for it
}
_ROUTES = {  # node: (subnet or None for all, the link and the host it goes by)
    "client": ((None, 1, 1),),
    "r": ((9, 11, 2), (33, 12, 2)),
    "m1": ((1, 11, 1), (9, 21, 1)),
    "m2": ((1, 12, 1), (9, 22, 1), (33, 23, 3)),
    "m3": ((1, 23, 2), (12, 23, 2), (9, 33, 1)),
    "x": ((1, 21, 2),),
    "server": ((None, 9, 1),),
}


class Detour:
    """The namespaces, by name; leaving the `with` block closes them.

    `rtt_s` is the round trip between client and server by either way, `loss` the percentage lost
    in each direction of each way.  `subflows` and `add_addr_accepted` are the client's limits.
    """

    def __init__(
        self,
        *,
        rtt_s: float = 0.0,
        loss: float = 0.0,
        subflows: int = 8,
        add_addr_accepted: int = 8,
        seed: int = 1,
    ) -> None:
        self._stack = ExitStack()
        self.nodes: dict[str, NetworkNamespace] = {}
        self._indexes: dict[tuple[str, int], int] = {}
        self._engines = Engines(seed=seed) if rtt_s or loss else None
        half = (1 - (1 - loss / 100) ** 0.5) * 100  # each way crosses two lossy links
        self._spec = LinkSpec(delay=f"{rtt_s * 1e3 / 4}ms", loss=half)
        try:
            self._build(subflows, add_addr_accepted)
        except BaseException:
            self._stack.close()
            raise

    def _build(self, subflows: int, add_addr_accepted: int) -> None:
        if self._engines is not None:
            self._stack.callback(self._engines.close)
        for name in _NODES:
            self.nodes[name] = node = NetworkNamespace.create()
            self._stack.callback(node.close)
            self._send(node, rtnetlink.set_link(1, up=True))
            node.set_sysctls(_SETTINGS)
        for link in _LINKS:
            self._join(*link)
        for name, routes in _ROUTES.items():
            self._send(self.nodes[name], *self._routes(name, routes))
        for name in ("client", "server"):
            configure.pin_congestion_control(self.nodes[name], "reno")
            limit_subflows(self.nodes[name], subflows, add_addr_accepted)

    def __getitem__(self, name: str) -> NetworkNamespace:
        return self.nodes[name]

    def __enter__(self) -> Detour:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def lag(self) -> Histogram:
        """How late emulated packets left, against when they ought to have."""
        found = Histogram()
        for report in self._engines.reports() if self._engines is not None else ():
            found = found.merge(report.lag) if report.lag is not None else found
        return found

    @staticmethod
    def _send(node: NetworkNamespace, *messages: Message) -> None:
        with node:
            netlink = RtNetlink()
        try:
            netlink.batch(messages)
        finally:
            netlink.close()

    def _join(self, a: str, a_host: int, b: str, b_host: int, subnet: int, impaired: bool) -> None:
        ends = []
        for name, other in ((a, b), (b, a)):
            index = 10 + subnet
            self._indexes[name, subnet] = index
            ends.append(VethEnd(f"to-{other}", index, self.nodes[name].fd))
        if impaired and self._engines is not None:
            self._emulate(f"{a}-{b}", ends, subnet)
        else:
            self._send(self.nodes[a], rtnetlink.new_veth(*ends))
        for name, host, end in ((a, a_host, ends[0]), (b, b_host, ends[1])):
            self._send(
                self.nodes[name],
                rtnetlink.set_link(end.index, up=True),
                *(rtnetlink.add_address(end.index, address) for address in _both(subnet, host)),
            )
            offloads.disable(self.nodes[name], end.name)

    def _emulate(self, name: str, ends: list[VethEnd], subnet: int) -> None:
        assert self._engines is not None
        specs = (self._spec, self._spec)
        engine = self._engines.place(name, specs)
        ports = [
            VethEnd(f"p{subnet}{side}", 100 * (place + 1) + subnet, engine.namespace.fd)
            for place, side in enumerate("ab")
        ]
        for end, port in zip(ends, ports, strict=True):
            self._send(engine.namespace, rtnetlink.new_veth(end, port))
            offloads.disable(engine.namespace, port.name)
        with engine.namespace:
            bring_up([port.index for port in ports])
        indexes, names = (ports[0].index, ports[1].index), (ports[0].name, ports[1].name)
        self._engines.attach(Wire(name=name, ports=indexes, port_names=names, specs=specs))

    def _routes(
        self, name: str, routes: tuple[tuple[int | None, int, int], ...]
    ) -> Iterator[Message]:
        for subnet, by, host in routes:
            index = self._indexes[name, by]
            for place, hop in enumerate(_both(by, host)):
                everywhere = ipaddress.ip_network(("0.0.0.0/0", "::/0")[place])
                to = everywhere if subnet is None else _both(subnet, 0)[place].network
                yield rtnetlink.add_route(to, via=str(hop.ip), index=index)


def _both(subnet: int, host: int) -> tuple[rtnetlink.Interface, rtnetlink.Interface]:
    return (
        ipaddress.ip_interface(f"10.{subnet}.0.{host}/24"),
        ipaddress.ip_interface(f"fd00:{subnet}::{host}/64"),
    )


def limit_subflows(node: NetworkNamespace, subflows: int, add_addr_accepted: int) -> None:
    """Set a node's limits of the kernel's path manager."""
    from testbed.mptcp.path_manager import PathManager

    with PathManager(node) as manager:
        manager.set_limits(subflows=subflows, add_addr_accepted=add_addr_accepted)
