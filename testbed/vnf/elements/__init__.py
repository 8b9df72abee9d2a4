"""The elements: their arguments, and what they become in the kernel.

`REGISTRY` holds every class by the name it has in the language.
"""

from testbed.vnf.elements import (
    balancing,
    classification,
    counting,
    devices,
    inspection,
    lookup,
    passing,
    queueing,
    rewriting,
)
from testbed.vnf.elements.base import (
    REGISTRY,
    Context,
    Element,
    Flow,
    Parts,
    Ports,
    Stateful,
    StringRule,
)

__all__ = ["REGISTRY", "Context", "Element", "Flow", "Parts", "Ports", "Stateful", "StringRule"]

del balancing, classification, counting, devices, inspection, lookup, passing, queueing, rewriting
