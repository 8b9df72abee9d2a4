"""Connection tracking entries, thousands at once: taken from messages, compared, packed.

`Entries` is a few blocks of records (see `records`) with the questions that moving state asks:
what is new here, what has gone, how many bytes.  What the attributes mean is in
`conntrack_messages`, what one entry says in words in `conntrack_entry`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from testbed.errors import TestbedError
from testbed.kernel.records import Block, Form, pack, unpack

TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO, HELP = 1, 2, 3, 4, 5
TIMEOUT, MARK, COUNTERS_ORIG, COUNTERS_REPLY = 7, 8, 9, 10
TUPLE_MASTER, SEQ_ADJ_ORIG, SEQ_ADJ_REPLY, ZONE, LABELS, SYNPROXY = 14, 15, 16, 18, 22, 24
_NESTED = {TUPLE_ORIG, TUPLE_REPLY, PROTOINFO, HELP, COUNTERS_ORIG, COUNTERS_REPLY}
_NESTED |= {TUPLE_MASTER, SEQ_ADJ_ORIG, SEQ_ADJ_REPLY, SYNPROXY}
_NESTED_PATHS = {(TUPLE_ORIG, 1), (TUPLE_ORIG, 2), (TUPLE_REPLY, 1), (TUPLE_REPLY, 2)}
_NESTED_PATHS |= {(TUPLE_MASTER, 1), (TUPLE_MASTER, 2), (PROTOINFO, 1)}
MOVED = {TUPLE_ORIG, TUPLE_REPLY, STATUS, PROTOINFO, HELP, TIMEOUT, MARK, TUPLE_MASTER}
MOVED |= {SEQ_ADJ_ORIG, SEQ_ADJ_REPLY, ZONE, LABELS, SYNPROXY}

_FORM = Form(  # nlmsghdr and nfgenmsg, which begins with the address family
    head=20,
    kind_place=16,
    nested=lambda path: path in _NESTED_PATHS or (len(path) == 1 and path[0] in _NESTED),
)


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
        return cls(_FORM.blocks(data, places))

    # -- comparing --------------------------------------------------------------------------

    def since(self, earlier: Entries, *, passed_s: float = 0.0) -> Difference:
        """What has changed since `earlier`, which was `passed_s` ago.

        Timeouts and counters run on by themselves, and packets renew timeouts: that is a change
        only when what is left of the earlier timeout is less than half of what there is now.
        """
        known = {
            key: left
            for block in earlier.blocks
            for key, left in zip(_contents(block), _timeouts(block), strict=True)
        }
        changed = []
        for block in self.blocks:
            pairs = zip(_contents(block), _timeouts(block), strict=True)
            keep = [_outdated(known.get(key), left, passed_s) for key, left in pairs]
            changed.append(block.take(np.array(keep, dtype=bool)))
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
        """What can be put back of the entries, in few bytes (`decode` reads it)."""
        return zlib.compress(pack(self.movable()), 6)

    def movable(self) -> list[Block]:
        """Blocks of what can be put back."""
        return [block.only(MOVED) for block in self.blocks]

    def named(self) -> list[Block]:
        """Blocks of what it takes to remove the entries."""
        return [block.only({TUPLE_ORIG, ZONE}) for block in self.blocks]

    @classmethod
    def decode(cls, data: bytes) -> Entries:
        """Entries from what `encode` gave; `TestbedError` if it is anything else."""
        try:
            return cls(unpack(zlib.decompress(data)))
        except (zlib.error, struct.error, ValueError) as error:
            raise TestbedError(f"these are not encoded connections: {error}") from error


@dataclass(frozen=True)
class Difference:
    """What changed between two takes: entries new or changed, and entries that have gone."""

    changed: Entries
    gone: Entries

    def __len__(self) -> int:
        return len(self.changed) + len(self.gone)


def _contents(block: Block) -> list[bytes]:
    return block.keys(MOVED, without={TIMEOUT})


def _timeouts(block: Block) -> list[int]:
    """Seconds that entries have left (0 where that is not told)."""
    value = block.value((TIMEOUT,))
    if value is None:
        return [0] * len(block)
    return [int(left) for left in np.ascontiguousarray(value).view(">u4")[:, 0]]


def _outdated(known: int | None, left: int, passed_s: float) -> bool:
    return known is None or left > 2 * max(known - passed_s, 0)
