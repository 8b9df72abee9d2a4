"""Netlink's attributes of thousands of things alike, as one matrix: compared, packed, unpacked.

The kernel describes things of one kind (connections over IPv4 TCP, elements of one set) by the
same attributes in the same order, so what it says of them differs in values only.  A `Block` holds
the values, a row for a thing, and says once what stands where; nothing is done thing by thing.
What attributes mean is known to those who make blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Path = tuple[int, ...]
"""Attribute types from the outermost to the one that holds a value (CTA_TUPLE_ORIG, ...)."""

Values = list[tuple[Path, Bytes]]

_NESTED = 0x8000
_ATTRIBUTE = struct.Struct("=HH")
_BLOCK = struct.Struct("!BBI")
_LEAF = struct.Struct("!H")


@dataclass(frozen=True, eq=False)
class Block:
    """Things of one kind and one set of attributes; `rows` is things x bytes."""

    kind: int  # what tells them apart besides attributes: an address family
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
        """The values at `path`, things x bytes."""
        where = self.columns(path)
        return None if where is None else self.rows[:, where]

    def values(self) -> Values:
        """Each path with its values."""
        found, start = [], 0
        for path, size in self.leaves:
            found.append((path, self.rows[:, start : start + size]))
            start += size
        return found

    def only(self, wanted: Iterable[int], *, without: Iterable[int] = ()) -> Block:
        """A block with the attributes `wanted` at the outermost level only."""
        kept = set(wanted) - set(without)
        leaves = tuple(leaf for leaf in self.leaves if leaf[0][0] in kept)
        if leaves == self.leaves:
            return self
        keep = np.concatenate([np.full(size, path[0] in kept) for path, size in self.leaves])
        return Block(self.kind, leaves, np.ascontiguousarray(self.rows[:, keep]))

    def take(self, places: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Block:
        """A block of some of the things."""
        return Block(self.kind, self.leaves, self.rows[places])

    def keys(self, wanted: Iterable[int], *, without: Iterable[int] = ()) -> list[bytes]:
        """A key for each thing that is equal where the `wanted` attributes are."""
        block = self.only(wanted, without=without)
        form = repr((self.kind, block.leaves)).encode()
        data, width = block.rows.tobytes(), block.rows.shape[1]
        return [form + data[at : at + width] for at in range(0, len(data), width)]


@dataclass(frozen=True)
class Form:
    """How the kernel says things of a kind: bytes before their attributes, where in these the
    kind is (if it is anywhere), and which attributes hold attributes.
    """

    head: int
    nested: Callable[[Path], bool]
    kind_place: int | None = None

    def blocks(self, data: bytes, places: dict[int, list[int]]) -> Iterator[Block]:
        """Blocks of what stands in `data` at `places`, which are sorted by the things' lengths."""
        for length, some in places.items():
            yield from self._alike(data, length, np.array(some, dtype=np.int64))

    def _alike(self, data: bytes, length: int, offsets: npt.NDArray[np.int64]) -> Iterator[Block]:
        buffer = np.frombuffer(data, dtype=np.uint8)
        while len(offsets):
            start = int(offsets[0])
            leaves = list(self._leaves(data, start + self.head, start + length, ()))
            is_value = np.zeros(length, dtype=bool)
            for _path, at, size in leaves:
                is_value[at - start : at - start + size] = True
            fixed = np.flatnonzero(~is_value)
            fixed = fixed[(fixed >= self.head) | (fixed == self.kind_place)]
            same = (buffer[offsets[:, None] + fixed] == buffer[start + fixed]).all(axis=1)
            rows = buffer[offsets[same, None] + np.flatnonzero(is_value)]
            kind = 0 if self.kind_place is None else data[start + self.kind_place]
            yield Block(kind, tuple((path, size) for path, _at, size in leaves), rows)
            offsets = offsets[~same]

    def _leaves(
        self, data: bytes, at: int, end: int, outer: Path
    ) -> Iterator[tuple[Path, int, int]]:
        """Path, place and size of each value among the attributes from `at` to `end`."""
        while at + 4 <= end:
            length, kind = _ATTRIBUTE.unpack_from(data, at)
            path = (*outer, kind & 0x3FFF)
            if self.nested(path):
                yield from self._leaves(data, at + 4, at + length, path)
            else:
                yield path, at + 4, length - 4
            at += (length + 3) & ~3


def render(head: bytes, values: Values) -> Bytes:
    """Messages, things x bytes: `head`, then attributes with the values of each thing."""
    form, places = _attributes([(path, value.shape[1]) for path, value in values], len(head))
    matrix = np.tile(np.frombuffer(head + form, dtype=np.uint8), (len(values[0][1]), 1))
    for (_path, value), place in zip(values, places, strict=True):
        matrix[:, place : place + value.shape[1]] = value
    return matrix


def _attributes(leaves: list[tuple[Path, int]], at: int) -> tuple[bytes, list[int]]:
    """Attributes whose values are still zero, and where each value goes (from `at` on)."""
    parts, places = [], []
    while leaves:
        kind = leaves[0][0][0]
        inner = []
        while leaves and leaves[0][0][0] == kind:
            path, size = leaves.pop(0)
            inner.append((path[1:], size))
        if inner[0][0]:
            body, within = _attributes(inner, at + 4)
            head = _ATTRIBUTE.pack(4 + len(body), kind | _NESTED)
        else:
            size = inner[0][1]
            body, within = bytes((size + 3) & ~3), [at + 4]
            head = _ATTRIBUTE.pack(4 + size, kind)
        parts.append(head + body)
        places.extend(within)
        at += 4 + len(body)
    return b"".join(parts), places


# -- on the wire ---------------------------------------------------------------------------------


def pack(blocks: Iterable[Block]) -> bytes:
    """Blocks in few bytes, the fewer the better zlib works on them (`unpack` reads it).

    A value that all things of a block share is there once.  Of the rest all first bytes come
    before all second ones, where they are alike.
    """
    parts = []
    for block in blocks:
        parts.append(_BLOCK.pack(block.kind, len(block.leaves), len(block)))
        for path, size in block.leaves:
            parts.append(bytes((len(path), *path)) + _LEAF.pack(size))
        varies = (block.rows != block.rows[:1]).any(axis=0)
        parts.append(np.packbits(varies).tobytes())
        parts.append(block.rows[0][~varies].tobytes())
        parts.append(np.ascontiguousarray(block.rows[:, varies].T).tobytes())
    return b"".join(parts)


def unpack(data: bytes) -> Iterator[Block]:
    """Blocks from what `pack` gave; `ValueError` or `struct.error` if it is anything else."""
    at = 0
    while at < len(data):
        kind, count, things = _BLOCK.unpack_from(data, at)
        at += _BLOCK.size
        leaves = []
        for _leaf in range(count):
            depth = int(_bytes(data, at, 1)[0])
            path = tuple(_bytes(data, at + 1, depth).tolist())
            leaves.append((path, _LEAF.unpack_from(data, at + 1 + depth)[0]))
            at += 1 + depth + _LEAF.size
        width = sum(size for _path, size in leaves)
        varies = np.unpackbits(_bytes(data, at, (width + 7) // 8), count=width).astype(bool)
        at += (width + 7) // 8
        varying = int(varies.sum())
        rows = np.empty((things, width), dtype=np.uint8)
        rows[:, ~varies] = _bytes(data, at, width - varying)
        at += width - varying
        rows[:, varies] = _bytes(data, at, things * varying).reshape(varying, things).T
        at += things * varying
        yield Block(kind, tuple(leaves), rows)


def _bytes(data: bytes, at: int, size: int) -> Bytes:
    return np.frombuffer(data, dtype=np.uint8, count=size, offset=at)
