"""Elements of nftables' sets and maps, thousands at once, with the time each has left.

Elements stay in the kernel's own form, so that whatever may be in a set (concatenations,
intervals, verdicts, named objects, counters and quotas of elements) is moved the same way.

Layouts: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from testbed.kernel.namespaces import NetworkNamespace
from testbed.kernel.nfnetlink import GENERIC, SUBSYSTEM_NFTABLES, NfNetlink
from testbed.kernel.records import Block, Bytes, Form, render
from testbed.kernel.rtnetlink import NLM_F_CREATE, attribute, attributes

GETSET, NEWSETELEM, GETSETELEM, DELSETELEM = 10, 12, 13, 14
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
_ANONYMOUS, _CONSTANT, _MAP, _TIMEOUT, _DYNAMIC, _OBJECT = 0x1, 0x2, 0x8, 0x10, 0x20, 0x40
_SET_NAME, _SET_FLAGS = 2, 3
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_KEY, _FLAGS, _EXPIRATION, _KEY_END = 1, 3, 5, 10
IDENTITY = {_KEY, _KEY_END, _FLAGS}
_FORM = Form(head=4, nested=lambda _path: False)
_LENGTH = struct.Struct("=H")
_LIST_BYTES = 60_000  # an attribute's length has 16 bits
_REFRESHED_MS = 250  # more time left than has run down: a packet renewed it


@dataclass(frozen=True)
class NamedSet:
    """A set or map that has a name, and whose elements may change."""

    name: str
    flags: int

    @property
    def dynamic(self) -> bool:
        """Is it filled by packets, or do its elements end by themselves?"""
        return bool(self.flags & (_TIMEOUT | _DYNAMIC))

    @property
    def of_objects(self) -> bool:
        """Does it lead to named counters, quotas or limits?"""
        return bool(self.flags & _OBJECT)


@dataclass(frozen=True, eq=False)
class Elements:
    """Elements of one set; `time_s` is when they were taken (CLOCK_MONOTONIC)."""

    blocks: tuple[Block, ...]
    time_s: float

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    @classmethod
    def of_datagrams(cls, datagrams: Iterable[bytes], time_s: float) -> Elements:
        """Elements in the answer to a dump."""
        data = b"".join(datagrams)
        places: dict[int, list[int]] = {}
        for at, end in _lists(data):
            while at < end:
                (length,) = _LENGTH.unpack_from(data, at)
                places.setdefault(length, []).append(at)
                at += (length + 3) & ~3
        return cls(tuple(_FORM.blocks(data, places)), time_s)

    def same(self, earlier: Elements) -> bool:
        """Are these the same elements, their time having run down and nothing else?"""
        if len(self) != len(earlier):
            return False
        passed = (self.time_s - earlier.time_s) * 1000
        known = dict(zip(earlier._keys(), earlier._left(), strict=True))
        return all(
            known.get(key, -np.inf) + _REFRESHED_MS >= left + passed
            for key, left in zip(self._keys(), self._left(), strict=True)
        )

    def _keys(self) -> Iterator[bytes]:
        """Everything of each element but the time left."""
        for block in self.blocks:
            kinds = {path[0] for path, _size in block.leaves}
            yield from block.keys(kinds, without={_EXPIRATION})

    def _left(self) -> Iterator[float]:
        """Milliseconds that each element has left; 0 where it does not end."""
        for block in self.blocks:
            left = block.value((_EXPIRATION,))
            yield from [0.0] * len(block) if left is None else _milliseconds(left).tolist()

    def aged(self, now_s: float) -> Elements:
        """The elements that are left at `now_s`, with the time they have then."""
        passed = max(0, round((now_s - self.time_s) * 1000))
        return Elements(tuple(_aged(block, passed) for block in self.blocks), now_s)


def _milliseconds(left: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(left).view(">u8")[:, 0].astype(np.int64)


def _aged(block: Block, passed: int) -> Block:
    where = block.columns((_EXPIRATION,))
    if where is None or not passed:
        return block
    left = _milliseconds(block.rows[:, where]) - passed
    rows = block.rows[left > 0].copy()
    rows[:, where] = left[left > 0].astype(">u8")[:, None].view(np.uint8)
    return Block(block.kind, block.leaves, rows)


def _lists(data: bytes) -> Iterator[tuple[int, int]]:
    """Where lists of elements begin and end in datagrams."""
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("=I", data, at)
        place = at + 20
        while place < at + size:
            length, kind = struct.unpack_from("=HH", data, place)
            if kind & 0x3FFF == _LIST_ELEMENTS:
                yield place + 4, place + length
            place += (length + 3) & ~3
        at += (size + 3) & ~3


class Sets:
    """Sets and maps of a table, read and written over netlink."""

    def __init__(self, namespace: NetworkNamespace | None, family: str, table: str) -> None:
        self._netlink = NfNetlink(namespace)
        self._family = GENERIC.pack(FAMILIES[family], 0, 0)
        self._table = table

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def named(self) -> list[NamedSet]:
        """Sets that have a name and may change."""
        request = self._family + attribute(1, self._table)
        kind = SUBSYSTEM_NFTABLES << 8 | GETSET
        found = []
        for datagram in self._netlink.dump(kind, request, purpose=f"sets of {self._table}"):
            at = 0
            while at < len(datagram):
                (size,) = struct.unpack_from("=I", datagram, at)
                about = attributes(datagram[at + 20 : at + size])
                name = about[_SET_NAME].rstrip(b"\0").decode()
                flags = int.from_bytes(about.get(_SET_FLAGS, b""), "big")
                if not flags & (_ANONYMOUS | _CONSTANT):
                    found.append(NamedSet(name, flags))
                at += (size + 3) & ~3
        return found

    def elements(self, name: str, time_s: float) -> Elements:
        """Elements of a set, taken at `time_s`."""
        request = self._family + attribute(_LIST_TABLE, self._table) + attribute(_LIST_SET, name)
        kind = SUBSYSTEM_NFTABLES << 8 | GETSETELEM
        datagrams = self._netlink.dump(kind, request, purpose=f"elements of {name}")
        return Elements.of_datagrams(datagrams, time_s)

    def replace(self, changes: Iterable[tuple[str, Elements]]) -> None:
        """Let sets hold just these elements: all of the sets, or none (`KernelError`)."""
        requests = []
        for name, elements in changes:
            head = self._family + attribute(_LIST_TABLE, self._table) + attribute(_LIST_SET, name)
            requests.append((DELSETELEM, 0, head, f"emptying of {name}"))
            for some in _parts(elements.blocks):
                body = head + attribute(_LIST_ELEMENTS | 0x8000, some)
                requests.append((NEWSETELEM, NLM_F_CREATE, body, f"elements of {name}"))
        self._netlink.transaction(requests)


def _parts(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Elements as lists, none longer than an attribute may be."""
    full = [block for block in blocks if len(block)]
    if any(block.columns((_FLAGS,)) for block in full):
        yield from _in_order(full)
        return
    for block in full:
        matrix = _rendered(block)
        width = matrix.shape[1]
        data, step = matrix.tobytes(), _LIST_BYTES // width * width
        for at in range(0, len(data), step):
            yield data[at : at + step]


def _in_order(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Where intervals begin and end, which the kernel takes in ascending order only."""
    elements = sorted(
        (key, not block.columns((_FLAGS,)), row.tobytes())
        for block in blocks
        for key, row in zip(_values(block, _KEY), _rendered(block), strict=True)
    )
    size = max(len(element) for _key, _begins, element in elements)
    step = _LIST_BYTES // size
    for at in range(0, len(elements), step):
        yield b"".join(element for _key, _begins, element in elements[at : at + step])


def _values(block: Block, kind: int) -> list[bytes]:
    value = block.value((kind,))
    return [b""] * len(block) if value is None else [each.tobytes() for each in value]


def _rendered(block: Block) -> Bytes:
    matrix = render(bytes(4), block.values())
    head = struct.pack("=HH", matrix.shape[1], _LIST_ELEMENT | 0x8000)
    matrix[:, :4] = np.frombuffer(head, dtype=np.uint8)
    return matrix
