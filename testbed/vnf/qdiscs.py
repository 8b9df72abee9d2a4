"""The classes of a function's devices as traffic control: HTB, and queues limited in bytes."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.kernel import NetworkNamespace
from testbed.kernel.rtnetlink import Message
from testbed.links import tc
from testbed.vnf.elements.queueing import DEFAULT_CAPACITY, PACKET_BYTES
from testbed.vnf.pulling import DeviceQueues, TrafficClass

_BURST_S = 1 / 250  # one tick of the slowest common kernel clock
_LEAST_BURST = 3000  # bytes


def install(index: int, queues: DeviceQueues) -> Iterator[Message]:
    """All of a device's traffic control; what the graph did not send passes unshaped."""
    yield tc.htb(index, default=0)
    for each in queues.classes:
        yield _class(index, each, change=False)
    parents = {each.parent for each in queues.classes}
    for each in queues.classes:
        if each.minor not in parents:
            limit = each.queue.limit_bytes if each.queue else DEFAULT_CAPACITY * PACKET_BYTES
            handle, parent = _leaf_handle(each), tc.ROOT_HANDLE | each.minor
            yield tc.qdisc(index, "bfifo", tc.fifo_options(limit), handle=handle, parent=parent)


def change(index: int, queues: DeviceQueues, shaper: str, bits: float) -> Iterator[Message]:
    """Another rate for the classes that a shaper made; packets in them stay."""
    for each in queues.shaped_by(shaper):
        if each.bits == each.ceiling:
            each.bits = bits
        each.ceiling = bits
        yield _class(index, each, change=True)


def statistics(namespace: NetworkNamespace, index: int, leaf: TrafficClass) -> tc.QdiscStats:
    """What the queue of a class holds and has dropped."""
    with namespace:
        return tc.statistics().get((index, _leaf_handle(leaf)), tc.QdiscStats())


def _leaf_handle(each: TrafficClass) -> int:
    return (0x100 + each.minor) << 16


def _class(index: int, each: TrafficClass, *, change: bool) -> Message:
    return tc.htb_class(
        index,
        rate_bps=each.bits,
        ceiling_bps=each.ceiling,
        burst_s=max(_BURST_S, _LEAST_BURST * 8 / each.ceiling),
        priority=each.priority,
        handle=tc.ROOT_HANDLE | each.minor,
        parent=tc.ROOT_HANDLE | each.parent if each.parent else tc.ROOT_HANDLE,
        change=change,
    )
