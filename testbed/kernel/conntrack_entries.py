"""Connection tracking entries in blocks: thousands of them as one matrix, compared and packed.

The kernel describes connections of one kind (IPv4 TCP behind NAT, say) by the same attributes in
the same order, so their messages differ in values only.  A `Block` holds the values, a row for an
entry, and says once what stands where; nothing is done entry by entry.  `Entries` is a few blocks
with the questions that moving state asks: what is new here, what has gone, how many bytes.

What the attributes mean is in `conntrack_messages`, what one entry says in words in
`conntrack_entry`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.errors import TestbedError

Bytes = npt.NDArray[np.uint8]
Path = tuple[int, ...]
"""Attribute types from the outermost to the one that holds a value (CTA_TUPLE_ORIG, ...)."""

TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO, HELP = 1, 2, 3, 4, 5
TIMEOUT, MARK, COUNTERS_ORIG, COUNTERS_REPLY = 7, 8, 9, 10
TUPLE_MASTER, SEQ_ADJ_ORIG, SEQ_ADJ_REPLY, ZONE, LABELS, SYNPROXY = 14, 15, 16, 18, 22, 24
_NESTED = {TUPLE_ORIG, TUPLE_REPLY, PROTOINFO, HELP, COUNTERS_ORIG, COUNTERS_REPLY}
_NESTED |= {TUPLE_MASTER, SEQ_ADJ_ORIG, SEQ_ADJ_REPLY, SYNPROXY}
_NESTED_PATHS = {(TUPLE_ORIG, 1), (TUPLE_ORIG, 2), (TUPLE_REPLY, 1), (TUPLE_REPLY, 2)}
_NESTED_PATHS |= {(TUPLE_MASTER, 1), (TUPLE_MASTER, 2), (PROTOINFO, 1)}
MOVED = {TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO, HELP, TIMEOUT, MARK, TUPLE_MASTER}
MOVED |= {SEQ_ADJ_ORIG, SEQ_ADJ_REPLY, ZONE, LABELS, SYNPROXY}

_HEADER_BYTES = 20  # nlmsghdr and nfgenmsg
_FAMILY_PLACE = 16
_ATTRIBUTE = struct.Struct("=HH")
_BLOCK = struct.Struct("!BBI")


@dataclass(frozen=True, eq=False)
class Block:
    """Entries of one address family and one set of attributes; `rows` is entries x bytes."""

    family: int
    leaves: tuple[tuple[Path, int], ...]  # each value's path and size, in the kernel's order
    rows: Bytes

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self, path: Path) -> slice | None:
        """Where the value at `path` stands in a row."""
        start = 0
        for each, size in self.leaves:
            if each == path:
                return slice(start, start + size)
            start += size
        return None

    def value(self, path: Path) -> Bytes | None:
        """The values at `path`, entries x bytes."""
        where = self.columns(path)
        return None if where is None else self.rows[:, where]

    def only(self, wanted: Iterable[int], *, without: Iterable[int] = ()) -> Block:
        """A block with the attributes `wanted` at the outermost level only."""
        kept = set(wanted) - set(without)
        leaves = tuple(leaf for leaf in self.leaves if leaf[0][0] in kept)
        if leaves == self.leaves:
            return self
        keep = np.concatenate([np.full(size, path[0] in kept) for path, size in self.leaves])
        return Block(self.family, leaves, np.ascontiguousarray(self.rows[:, keep]))

    def take(self, places: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Block:
        """A block of some of the entries."""
        return Block(self.family, self.leaves, self.rows[places])

    def keys(self, wanted: Iterable[int], *, without: Iterable[int] = ()) -> list[bytes]:
        """A key for each entry that is equal where the `wanted` attributes are."""
        block = self.only(wanted, without=without)
        form = repr((self.family, block.leaves)).encode()
        data, width = block.rows.tobytes(), block.rows.shape[1]
        return [form + data[at : at + width] for at in range(0, len(data), width)]


class Entries:
    """Entries of a connection tracking table; `len()`, and see the methods."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self.blocks = [block for block in blocks if len(block)]

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    @classmethod
    def of_messages(cls, datagrams: Iterable[bytes]) -> Entries:
        """Entries in the datagrams of a dump."""
        data = b"".join(datagrams)
        places: dict[int, list[int]] = {}  # by length of the message
        at, end = 0, len(data)
        unpack = struct.Struct("=I").unpack_from
        while at < end:
            (length,) = unpack(data, at)
            places.setdefault(length, []).append(at)
            at += (length + 3) & ~3
        blocks = (_blocks(data, length, some) for length, some in places.items())
        return cls(block for group in blocks for block in group)

    # -- comparing --------------------------------------------------------------------------

    def since(self, earlier: Entries) -> Difference:
        """What has changed since `earlier`; timeouts and counters run on by themselves."""
        known = {key for block in earlier.blocks for key in block.keys(MOVED, without={TIMEOUT})}
        changed = []
        for block in self.blocks:
            keys = block.keys(MOVED, without={TIMEOUT})
            changed.append(block.take(np.array([key not in known for key in keys], dtype=bool)))
        return Difference(Entries(changed), earlier.without(self))

    def without(self, others: Entries) -> Entries:
        """The entries whose connection (original tuple and zone) is not among `others`."""
        identity = {TUPLE_ORIG, ZONE}
        known = {key for block in others.blocks for key in block.keys(identity)}
        kept = []
        for block in self.blocks:
            keep = np.array([key not in known for key in block.keys(identity)], dtype=bool)
            kept.append(block.take(keep))
        return Entries(kept)

    def plus(self, difference: Difference) -> Entries:
        """What a table that held these entries holds after `difference`."""
        kept = self.without(difference.gone).without(difference.changed)
        return Entries([*kept.blocks, *difference.changed.blocks])

    def at(self, places: Iterable[int]) -> Entries:
        """The entries at some places, counted through all blocks."""
        wanted = np.fromiter(places, dtype=np.int64)
        found, start = [], 0
        for block in self.blocks:
            here = wanted[(wanted >= start) & (wanted < start + len(block))] - start
            found.append(block.take(here))
            start += len(block)
        return Entries(found)

    # -- on the wire ------------------------------------------------------------------------

    def encode(self) -> bytes:
        """What can be put back of the entries, in few bytes (`decode` reads it).

        A value that all entries of a block share is sent once.  Of the rest all first bytes come
        before all second ones, where they are alike and zlib makes little of them.
        """
        parts = []
        for whole in self.blocks:
            block = whole.only(MOVED)
            parts.append(_BLOCK.pack(block.family, len(block.leaves), len(block)))
            for path, size in block.leaves:
                parts.append(bytes((len(path), *path, size)))
            varies = (block.rows != block.rows[0]).any(axis=0)
            parts.append(np.packbits(varies).tobytes())
            parts.append(block.rows[0][~varies].tobytes())
            parts.append(np.ascontiguousarray(block.rows[:, varies].T).tobytes())
        return zlib.compress(b"".join(parts), 6)

    @classmethod
    def decode(cls, data: bytes) -> Entries:
        """Entries from what `encode` gave; `TestbedError` if it is anything else."""
        try:
            return cls(_unpack(zlib.decompress(data)))
        except (zlib.error, struct.error, ValueError, IndexError) as error:
            raise TestbedError(f"these are not encoded connections: {error}") from error


@dataclass(frozen=True)
class Difference:
    """What changed between two takes: entries new or changed, and entries that have gone."""

    changed: Entries
    gone: Entries

    def __len__(self) -> int:
        return len(self.changed) + len(self.gone)


# -- from messages -------------------------------------------------------------------------------


def _blocks(data: bytes, length: int, places: list[int]) -> Iterable[Block]:
    """Blocks of the messages of one length, which begin at `places`."""
    buffer = np.frombuffer(data, dtype=np.uint8)
    offsets = np.array(places, dtype=np.int64)
    while len(offsets):
        start = int(offsets[0])
        leaves = list(_leaves(data, start + _HEADER_BYTES, start + length, ()))
        is_value = np.zeros(length, dtype=bool)
        for _path, at, size in leaves:
            is_value[at - start : at - start + size] = True
        form = np.flatnonzero(~is_value)
        form = form[(form >= _HEADER_BYTES) | (form == _FAMILY_PLACE)]
        same = (buffer[offsets[:, None] + form] == buffer[start + form]).all(axis=1)
        rows = buffer[offsets[same, None] + np.flatnonzero(is_value)]
        yield Block(data[start + _FAMILY_PLACE], tuple((p, size) for p, _at, size in leaves), rows)
        offsets = offsets[~same]


def _leaves(data: bytes, at: int, end: int, outer: Path) -> Iterable[tuple[Path, int, int]]:
    """Path, place and size of each value among the attributes from `at` to `end`."""
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        path = (*outer, kind & 0x3FFF)
        if path in _NESTED_PATHS or (not outer and path[0] in _NESTED):
            yield from _leaves(data, at + 4, at + length, path)
        else:
            yield path, at + 4, length - 4
        at += (length + 3) & ~3


def _unpack(data: bytes) -> Iterable[Block]:
    at = 0
    while at < len(data):
        family, count, entries = _BLOCK.unpack_from(data, at)
        at += _BLOCK.size
        leaves = []
        for _leaf in range(count):
            depth = data[at]
            path = tuple(data[at + 1 : at + 1 + depth])
            leaves.append((path, data[at + 1 + depth]))
            at += depth + 2
        width = sum(size for _path, size in leaves)
        varies = np.unpackbits(_bytes(data, at, (width + 7) // 8), count=width).astype(bool)
        at += (width + 7) // 8
        varying = int(varies.sum())
        rows = np.empty((entries, width), dtype=np.uint8)
        rows[:, ~varies] = _bytes(data, at, width - varying)
        at += width - varying
        rows[:, varies] = _bytes(data, at, entries * varying).reshape(varying, entries).T
        at += entries * varying
        yield Block(family, tuple(leaves), rows)


def _bytes(data: bytes, at: int, size: int) -> Bytes:
    return np.frombuffer(data, dtype=np.uint8, count=size, offset=at)
