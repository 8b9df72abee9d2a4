"""Traffic control through rtnetlink: the few queueing disciplines, classes and filters we use.

Messages go through `testbed.kernel.RtNetlink`, many at a time: a link takes ten, and a network
may have a thousand links.

Layouts: linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h, linux/gen_stats.h.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

from testbed.kernel.genetlink import nested
from testbed.kernel.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, Message, attribute, attributes
from testbed.links import counters

ROOT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
RECEIVED, SENT = 0xFFFFFFF2, 0xFFFFFFF3
ROOT_HANDLE, CLASS, LEAF_HANDLE, INGRESS_HANDLE = 0x10000, 0x10001, 0x100000, 0xFFFF0000

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTCLASS, _RTM_NEWTFILTER, _RTM_DELTFILTER = 40, 44, 45
_TCA_KIND, _TCA_OPTIONS, _TCA_STATS2 = 1, 2, 7
_TCMSG = struct.Struct("=BxxxiIII")
_NEW = NLM_F_CREATE | NLM_F_EXCL
_TCA_NETEM_PRNG_SEED, _NETEM_QOPT_BYTES = 14, 24
_TICK_NS = 64
_ALL_PROTOCOLS = 0x0300
_U32 = 0xFFFFFFFF


def _message(
    kind: int,
    flags: int,
    index: int,
    what: str,
    options: bytes,
    *,
    handle: int,
    parent: int,
    info: int = 0,
) -> Message:
    payload = _TCMSG.pack(0, index, handle, parent, info) + attribute(_TCA_KIND, what)
    payload += nested(_TCA_OPTIONS, options) if options else b""
    return Message(kind, flags, payload, f"{what} on interface {index}")


def qdisc(
    index: int, what: str, options: bytes = b"", *, handle: int, parent: int, change: bool = False
) -> Message:
    """Add a queueing discipline, or change the one that is there without touching its packets."""
    flags = 0 if change else _NEW
    return _message(_RTM_NEWQDISC, flags, index, what, options, handle=handle, parent=parent)


def delete_qdisc(index: int, *, parent: int) -> Message:
    """Remove the queueing discipline at `parent`, and all below it."""
    return Message(
        _RTM_DELQDISC, 0, _TCMSG.pack(0, index, 0, parent, 0), f"qdisc of interface {index}"
    )


def htb(index: int, *, default: int = CLASS & 0xFFFF) -> Message:
    """An HTB root; what names no class goes to `default`, where that is 0 past all of them."""
    glob = struct.pack("=5I", 3, 10, default, 0, 0)
    return qdisc(index, "htb", attribute(2, glob), handle=ROOT_HANDLE, parent=ROOT)


def htb_class(
    index: int,
    *,
    rate_bps: float,
    burst_s: float,
    ceiling_bps: float = 0.0,
    priority: int = 0,
    handle: int = CLASS,
    parent: int = ROOT_HANDLE,
    change: bool = False,
) -> Message:
    """A class of HTB: `rate_bps`, and the time for which an idle link may save up tokens.

    It may borrow up to `ceiling_bps` (0: nothing) from its parent, which serves the lowest
    priority first.
    """
    rate = max(1, round(rate_bps / 8))
    ceiling = max(rate, round(ceiling_bps / 8))
    specs = b"".join(_rate_spec(each) for each in (rate, ceiling))
    buffer = min(round(burst_s * 1e9 / _TICK_NS), _U32)
    options = attribute(1, specs + struct.pack("=5I", buffer, buffer, 1514, 0, priority))
    if ceiling >= _U32:
        options += attribute(6, struct.pack("=Q", rate)) + attribute(7, struct.pack("=Q", ceiling))
    return _message(
        _RTM_NEWTCLASS,
        0 if change else _NEW,
        index,
        "htb",
        options,
        handle=handle,
        parent=parent,
    )


def _rate_spec(bytes_per_s: int) -> bytes:
    return struct.pack("=BBHhHI", 0, 1, 0, 0, 0, min(bytes_per_s, _U32))  # link layer: Ethernet


def fifo_options(limit: int) -> bytes:
    """Of bfifo (bytes) and pfifo (packets)."""
    return struct.pack("=I", min(limit, 0x7FFFFFFF))


def codel_options(limit_packets: int) -> bytes:
    """RFC 8289's own target and interval, and a hard limit in packets."""
    return attribute(1, 5000) + attribute(2, limit_packets) + attribute(3, 100_000)


def netem_options(
    *,
    delay_s: float,
    jitter_s: float,
    loss: float = 0.0,
    burst: tuple[float, float] | None = None,
    reorder: float = 0.0,
    seed: int | None = None,
) -> bytes:
    """netem with order kept: losses independent (`loss`), or Gilbert-Elliott's p, r as `burst`.

    Only with a rate does netem send no packet before its predecessor, be it for jitter or for a
    delay that was shortened: it gets one that takes no time worth mentioning.  `seed` (64 bits)
    begins netem's random sequence anew; kernels before 6.7 pass over it.
    """
    delay_ns, jitter_ns = round(delay_s * 1e9), round(jitter_s * 1e9)
    ticks = [min(value // _TICK_NS, _U32) for value in (delay_ns, jitter_ns)]
    gap = 1 if reorder else 0
    options = struct.pack("=6I", ticks[0], 1_000_000, _share(loss), gap, 0, ticks[1])
    options += attribute(10, struct.pack("=q", delay_ns))
    options += attribute(11, struct.pack("=q", jitter_ns))
    options += attribute(6, struct.pack("=IiIi", _U32, 0, 0, 0))
    options += attribute(8, struct.pack("=Q", 125_000_000_000))
    if burst:
        p, r = burst
        options += nested(5, attribute(2, struct.pack("=4I", _share(p), _share(r), 0, 0)))
    if reorder:
        options += attribute(3, struct.pack("=II", _share(reorder), 0))
    if seed is not None:
        options += attribute(_TCA_NETEM_PRNG_SEED, struct.pack("=Q", seed))
    return options


def netem_seed(index: int) -> int | None:
    """The seed of the netem on an interface; None where the kernel knows none (before 6.7)."""
    for body in counters.dump(_RTM_GETQDISC, _TCMSG.pack(0, index, 0, 0, 0)):
        found = attributes(body[_TCMSG.size :])
        if _TCMSG.unpack_from(body)[1] == index and found.get(_TCA_KIND) == b"netem\0":
            options = attributes(found[_TCA_OPTIONS][_NETEM_QOPT_BYTES:])
            seed = options.get(_TCA_NETEM_PRNG_SEED)
            return None if seed is None else int.from_bytes(seed, sys.byteorder)
    return None


def _share(probability: float) -> int:
    return round(probability * _U32)


def ingress(index: int) -> Message:
    """The hook for filters on what an interface receives."""
    return qdisc(index, "ingress", handle=INGRESS_HANDLE, parent=INGRESS)


def clsact(index: int) -> Message:
    """The hooks for filters on what an interface receives (`RECEIVED`) and sends (`SENT`)."""
    return qdisc(index, "clsact", handle=INGRESS_HANDLE, parent=INGRESS)


def redirect(
    index: int,
    target: int,
    *,
    hook: int = INGRESS_HANDLE,
    priority: int = 1,
    source_mac: str = "",
) -> Message:
    """All that `index` receives leaves by `target` (u32 that matches everything, mirred).

    With `hook=SENT` it is what `index` sends, with `source_mac` only what that address sent.

    A copy leaves and the original is freed at once, so that a packet does not hold its sender's
    socket buffer while it waits in the link: a sender does not feel a queue beyond its own NIC.
    """
    keys = _source_keys(source_mac) if source_mac else [struct.pack("=IIii", 0, 0, 0, 0)]
    selector = struct.pack("=BBBxHHhhI", 1, 0, len(keys), 0, 0, 0, 0, 0) + b"".join(keys)
    stolen, egress_mirror = 4, 2
    mirred = struct.pack("=IIiiiiI", 0, 0, stolen, 0, 0, egress_mirror, target)
    action = attribute(1, "mirred") + nested(2, attribute(2, mirred))
    options = attribute(5, selector) + nested(7, nested(1, action))
    return _message(
        _RTM_NEWTFILTER,
        _NEW,
        index,
        "u32",
        options,
        handle=0,
        parent=hook,
        info=priority << 16 | _ALL_PROTOCOLS,
    )


def _source_keys(mac: str) -> list[bytes]:
    """u32 keys on the source address of an Ethernet header; offsets count from the IP header."""
    first, last = struct.unpack("!IH", bytes.fromhex(mac.replace(":", "")))
    return [
        struct.pack("!II", 0xFFFFFFFF, first) + struct.pack("=ii", -8, 0),
        struct.pack("!II", 0xFFFF0000, last << 16) + struct.pack("=ii", -4, 0),
    ]


def delete_filter(index: int, *, hook: int, priority: int) -> Message:
    """Remove the filter of that priority."""
    return _message(
        _RTM_DELTFILTER,
        0,
        index,
        "u32",
        b"",
        handle=0,
        parent=hook,
        info=priority << 16 | _ALL_PROTOCOLS,
    )


class QdiscStats(NamedTuple):
    """What a queueing discipline let through, dropped, and holds."""

    packets: int = 0
    bytes: int = 0
    drops: int = 0
    waiting_packets: int = 0
    waiting_bytes: int = 0


def statistics() -> dict[tuple[int, int], QdiscStats]:
    """Every queueing discipline of the thread's namespace, by (interface index, handle)."""
    found = {}
    for body in counters.dump(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
        _family, index, handle, _parent, _info = _TCMSG.unpack_from(body)
        stats = attributes(attributes(body[_TCMSG.size :]).get(_TCA_STATS2, b""))
        if 1 in stats and 3 in stats:
            size, packets = struct.unpack_from("=QI", stats[1])
            if 8 in stats:
                (packets,) = struct.unpack_from("=Q", stats[8])
            waiting, backlog, drops = struct.unpack_from("=III", stats[3])
            found[index, handle] = QdiscStats(packets, size, drops, waiting, backlog)
    return found
