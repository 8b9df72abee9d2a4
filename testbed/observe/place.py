"""What is to be observed: one namespace and what its things are called in the records."""

from __future__ import annotations

from dataclasses import dataclass, field


def interface_source(node: str, interface: str) -> str:
    """What an interface of a node is called in the records: "h1-eth0", "phone-wifi"."""
    return interface if not node or interface.startswith(f"{node}-") else f"{node}-{interface}"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A namespace, by a descriptor.

    `name` is the node's, "" where several share it (interfaces then go by their own names).  In
    the namespace of a links' engine only `queues` (interface index -> source) are looked at.
    """

    fd: int
    name: str = ""
    queues: dict[int, str] = field(default_factory=dict)

    @property
    def node(self) -> str:
        """Whose sockets are in it."""
        return self.name or "root"

    def source(self, interface: str) -> str:
        """What an interface is called in the records."""
        return interface_source(self.name, interface)
