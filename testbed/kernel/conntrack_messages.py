"""Requests that make, and remove, entries of connection tracking, built for a whole block at once.

What a dump says is not what the kernel takes back as it is:

- an entry behind NAT is made with the reply tuple it had before translation, and with the
  translation (CTA_NAT_SRC, CTA_NAT_DST) that leads to the one it has; only then are its packets
  translated;
- window tracking (RFC 793 sequence numbers as the kernel's nf_conntrack_proto_tcp.c follows them)
  is not told.  An entry begins it anew with the first packet it sees of each direction, and may
  until both were seen take a packet in flight for one outside of the window, which a firewall
  drops.  So entries are made liberal (IP_CT_TCP_FLAG_BE_LIBERAL) unless asked otherwise;
- counters and timestamps cannot be put back.

Layouts: linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_tcp.h.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.kernel import conntrack_entries as ct
from testbed.kernel.conntrack_entries import Entries
from testbed.kernel.nfnetlink import GENERIC, HEADER, SUBSYSTEM_CONNTRACK
from testbed.kernel.records import Block, Bytes, Path, Values, render
from testbed.kernel.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST

NEW, GET, DELETE = (SUBSYSTEM_CONNTRACK << 8 | kind for kind in range(3))
BE_LIBERAL = 0x08
_NAT_SRC, _NAT_DST = 6, 13
_ORIGINAL, _REPLY = ct.TUPLE_ORIG, ct.TUPLE_REPLY
_TCP_FLAGS = ((ct.PROTOINFO, 1, 4), (ct.PROTOINFO, 1, 5))
_PORTS = ((2, 2), (2, 3))  # below a tuple: source and destination
_ICMP_IDS = ((2, 4), (2, 7))
_DEFAULT_TIMEOUT = np.array([0, 0, 0, 120], dtype=np.uint8)  # seconds, where the kernel gave none


@dataclass(frozen=True)
class Requests:
    """Requests ready to be sent, and the place in the entries that each one is for."""

    messages: list[memoryview]
    places: list[int]


def insertions(entries: Entries, *, liberal: bool = True) -> Requests:
    """Requests that make all entries; connections that others belong to come first."""
    numbered, start = [], 0
    for block in entries.blocks:
        numbered.append((block, start))
        start += len(block)
    numbered.sort(key=lambda each: any(p[0] == ct.TUPLE_MASTER for p, _ in each[0].leaves))
    requests = Requests([], [])
    for block, first in numbered:
        for part, places in _by_translation(block):
            values = _insertion(part, liberal=liberal)
            _add(requests, NEW, NLM_F_CREATE | NLM_F_EXCL, part.block.kind, values)
            requests.places.extend((first + places).tolist())
    return requests


def deletions(entries: Entries) -> Requests:
    """Requests that remove all entries."""
    requests = Requests([], [])
    for block in entries.blocks:
        named = block.only({ct.TUPLE_ORIG, ct.ZONE})
        _add(requests, DELETE, 0, block.kind, named.values())
        requests.places.extend(range(len(requests.places), len(requests.places) + len(block)))
    return requests


# -- translation ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Entries of a block that are translated in the same way."""

    block: Block
    source: bool
    destination: bool


class _Ends:
    """Paths of what NAT may change in entries of a block: addresses, and ports or an ICMP id."""

    def __init__(self, block: Block) -> None:
        self.six = block.kind == socket.AF_INET6
        self.source, self.destination = ((1, 3), (1, 4)) if self.six else ((1, 1), (1, 2))
        paths = {path for path, _size in block.leaves}
        self.ports: tuple[Path, Path] | None = None
        if (_ORIGINAL, *_PORTS[0]) in paths:
            self.ports = _PORTS
        for each in _ICMP_IDS:
            if (_ORIGINAL, *each) in paths:
                self.ports = (each, each)

    def pairs(self) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
        """What of the original tuple equals what of the reply without NAT, by end: source first."""
        source: list[tuple[Path, Path]] = [(self.source, self.destination)]
        destination: list[tuple[Path, Path]] = [(self.destination, self.source)]
        if self.ports:
            source.append((self.ports[0], self.ports[1]))
            if self.ports[0] != self.ports[1]:  # an ICMP id is the source's
                destination.append((self.ports[1], self.ports[0]))
        return source, destination


def _by_translation(block: Block) -> Iterator[tuple[_Part, npt.NDArray[np.int64]]]:
    ends = _Ends(block)
    source, destination = (_translated(block, pairs) for pairs in ends.pairs())
    for by_source in (False, True):
        for by_destination in (False, True):
            mask = (source == by_source) & (destination == by_destination)
            if mask.any():
                yield _Part(block.take(mask), by_source, by_destination), np.flatnonzero(mask)


def _translated(block: Block, pairs: list[tuple[Path, Path]]) -> npt.NDArray[np.bool_]:
    differs = np.zeros(len(block), dtype=bool)
    for original, reply in pairs:
        ours, theirs = block.value((_ORIGINAL, *original)), block.value((_REPLY, *reply))
        if ours is not None and theirs is not None:
            differs |= (ours != theirs).any(axis=1)
    return differs


def _insertion(part: _Part, *, liberal: bool) -> Values:
    block = part.block
    values = dict(block.only(ct.MOVED).values())
    ends = _Ends(block)
    translation: Values = []
    for pairs, kind, wanted in zip(
        ends.pairs(), (_NAT_SRC, _NAT_DST), (part.source, part.destination), strict=True
    ):
        if wanted:
            translation += _range(kind, [values[(_REPLY, *reply)] for _o, reply in pairs], ends.six)
        for original, reply in pairs:
            values[(_REPLY, *reply)] = values[(_ORIGINAL, *original)]
    for path in _TCP_FLAGS:
        if path in values:
            flags = values[path].copy()
            flags[:, 0] |= BE_LIBERAL if liberal else 0
            flags[:, 1] = 0xFF  # which of the flags are told
            values[path] = flags
    values.setdefault((ct.TIMEOUT,), np.tile(_DEFAULT_TIMEOUT, (len(block), 1)))
    return [*values.items(), *translation]


def _range(kind: int, targets: list[Bytes], six: bool) -> Values:
    """A translation to one address and, where there is one, one port: ranges of one."""
    low, high = (4, 5) if six else (1, 2)
    values: Values = [((kind, low), targets[0]), ((kind, high), targets[0])]
    if len(targets) > 1:
        values += [((kind, 3, 1), targets[1]), ((kind, 3, 2), targets[1])]
    return values


def _add(requests: Requests, kind: int, flags: int, family: int, values: Values) -> None:
    """Append a request for each row of `values`, numbered on from those that are there."""
    head = HEADER.pack(0, kind, NLM_F_REQUEST | flags, 0, 0) + GENERIC.pack(family, 0, 0)
    matrix = render(head, values)
    entries, width = matrix.shape
    matrix[:, 0:4] = np.frombuffer(np.uint32(width).tobytes(), dtype=np.uint8)
    first = len(requests.messages) + 1
    numbers = np.arange(first, first + entries, dtype=np.uint32)
    matrix[:, 8:12] = numbers.view(np.uint8).reshape(entries, 4)
    data = memoryview(matrix.tobytes())
    requests.messages.extend(data[at : at + width] for at in range(0, len(data), width))
