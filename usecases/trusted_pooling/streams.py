"""Where captured bytes belong in their MPTCP connection: subflow sequence to data sequence.

A subflow's bytes are placed in the connection's stream by mappings (subflow sequence number,
data sequence number, length) that its segments carry (RFC 8684 3.3).  A mapping may cover
several segments, of which not all need carry it, and segments may be captured out of order or
more than once; so all mappings of a subflow are collected before any byte is placed.  The first
data of a connection is mapped by its MP_CAPABLE (RFC 8684 3.1), from the sender's key.

Nothing here knows what the bytes mean, or whose they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from testbed.mptcp.keys import idsn
from testbed.mptcp.options import KIND, Dss, MpCapable, OptionError, find
from usecases.trusted_pooling.capture import SYN, Flow, Segment

_2_32, _2_64 = 1 << 32, 1 << 64


class Mapping(NamedTuple):
    """`length` bytes of a subflow from its sequence number `ssn` on are `dsn`... of the data.

    `ssn` counts from the subflow's SYN (its first byte has 1); `dsn` has 64 bits if `wide`,
    else only the lower 32 were sent.
    """

    ssn: int
    dsn: int
    length: int
    wide: bool = True


class Piece(NamedTuple):
    """Captured bytes of one segment with the data sequence number of the first of them.

    `dsn` is None where no mapping says what they are.
    """

    time_s: float
    flow: Flow
    dsn: int | None
    wide: bool
    payload: bytes


class Mappings:
    """The mappings of one direction of one subflow, in any order, repeated or not."""

    def __init__(self) -> None:
        self._found: set[Mapping] = set()
        self._sorted: list[Mapping] = []

    def add(self, mapping: Mapping) -> None:
        """Note one more mapping."""
        if mapping not in self._found:
            self._found.add(mapping)
            self._sorted.clear()

    def place(self, ssn: int, length: int) -> Iterator[tuple[int, int, Mapping | None]]:
        """Split subflow bytes [ssn, ssn + length) into runs (start, end, mapping of the run)."""
        self._sorted = self._sorted or _joined(self._found)
        end = ssn + length
        while ssn < end:
            following = bisect_right(self._sorted, ssn, key=lambda each: each.ssn)
            mapping = self._sorted[following - 1] if following else None
            limit = self._sorted[following].ssn if following < len(self._sorted) else end
            if mapping and ssn < mapping.ssn + mapping.length:
                stop = min(end, mapping.ssn + mapping.length)
            else:
                mapping, stop = None, min(end, limit)
            yield ssn, stop, mapping
            ssn = stop


def _joined(mappings: Iterable[Mapping]) -> list[Mapping]:
    """Mappings in order, those that continue or repeat each other made one."""
    result: list[Mapping] = []
    for mapping in sorted(mappings):
        last = result[-1] if result else None
        if last and _continues(last, mapping):
            length = max(last.length, mapping.ssn + mapping.length - last.ssn)
            result[-1] = last._replace(length=length)
        else:
            result.append(mapping)
    return result


def _continues(last: Mapping, following: Mapping) -> bool:
    modulus = _2_64 if last.wide else _2_32
    return (
        last.wide == following.wide
        and following.ssn <= last.ssn + last.length
        and (following.dsn - last.dsn - (following.ssn - last.ssn)) % modulus == 0
    )


def mappings_of(segment: Segment) -> Iterator[Mapping]:
    """Mappings a segment carries; none where its options are damaged."""
    if KIND not in segment.options:
        return
    try:
        options = find(segment.options)
    except OptionError:
        return  # the receiver cannot use them either; the bytes count as unmapped
    for option in options:
        if isinstance(option, MpCapable) and option.sender_key is not None and option.data_length:
            yield Mapping(1, (idsn(option.sender_key) + 1) % _2_64, option.data_length)
        elif isinstance(option, Dss) and option.dsn is not None and option.length and option.ssn:
            # a DATA_FIN takes one number of the data sequence and no byte of the subflow
            yield Mapping(option.ssn, option.dsn, option.length - option.data_fin, option.wide_dsn)


def place(segments: Iterable[Segment]) -> list[Piece]:
    """Every payload byte of a capture, placed; subflows whose SYN is missing stay unplaced."""
    initial: dict[Flow, int] = {}
    mappings: defaultdict[Flow, Mappings] = defaultdict(Mappings)
    loaded: list[Segment] = []
    for segment in segments:
        if segment.flags & SYN:
            initial[segment.flow] = segment.sequence
        if segment.payload:
            loaded.append(segment)
            for mapping in mappings_of(segment):
                mappings[segment.flow].add(mapping)
    pieces: list[Piece] = []
    for segment in loaded:
        pieces.extend(_pieces(segment, initial.get(segment.flow), mappings[segment.flow]))
    return pieces


def _pieces(segment: Segment, initial: int | None, mappings: Mappings) -> Iterator[Piece]:
    time_s, flow, payload = segment.time_s, segment.flow, segment.payload
    if initial is None:
        yield Piece(time_s, flow, None, True, payload)
        return
    first = (segment.sequence - initial) % _2_32
    for start, end, mapping in mappings.place(first, len(payload)):
        part = payload[start - first : end - first]
        if mapping is None:
            yield Piece(time_s, flow, None, True, part)
        else:
            modulus = _2_64 if mapping.wide else _2_32
            dsn = (mapping.dsn + start - mapping.ssn) % modulus
            yield Piece(time_s, flow, dsn, mapping.wide, part)
