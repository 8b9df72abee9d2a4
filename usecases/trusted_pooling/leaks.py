"""Which sensitive bytes an attacker's capture holds: the ground truth, counted in bytes.

Senders note, per connection, the data sequence number of their first byte and which bytes of
their stream were sensitive (`Note`).  Captured bytes are placed in the data sequence by
`streams`; here the two are intersected.  Whether the attacker can make sense of what it holds is
`attacker`'s question: a byte that crossed the open air counts, understood or not.

In doubt a byte counts as leaked: where only 32 bits of a data sequence number were sent, every
connection it may belong to is considered; and bytes that no mapping places are counted apart
(`unplaced`), so that "nothing leaked" can be said only when there are none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from usecases.trusted_pooling.ranges import RangeSet
from usecases.trusted_pooling.streams import Piece

_2_32, _2_64 = 1 << 32, 1 << 64


@dataclass(frozen=True, kw_only=True)
class Note:
    """What one side sent on one connection: `length` bytes from data sequence number `first`.

    `sensitive` lists (start, end, phase): offsets in the stream, half open, and the phase of
    the workload they belong to.
    """

    connection: str
    sender: str
    first: int
    length: int
    sensitive: tuple[tuple[int, int, str], ...] = ()

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Note:
        """The note a program wrote as an event (see `ledger`)."""
        sensitive = tuple((int(start), int(end), str(p)) for start, end, p in event["sensitive"])
        return cls(
            connection=str(event["connection"]),
            sender=str(event["sender"]),
            first=int(event["first"]),
            length=int(event["length"]),
            sensitive=sensitive,
        )


@dataclass(kw_only=True)
class PhaseLeak:
    """Sensitive bytes of one phase: sent, captured (each once), captured with repetitions."""

    sent: int = 0
    leaked: int = 0
    crossings: int = 0


@dataclass(kw_only=True)
class Leaks:
    """What a capture holds; `phases` by name, `held` the bytes captured by (connection, sender)."""

    phases: dict[str, PhaseLeak] = field(default_factory=dict)
    held: dict[tuple[str, str], int] = field(default_factory=dict)
    unplaced: int = 0
    foreign: int = 0

    @property
    def leaked(self) -> int:
        """Sensitive bytes captured, each counted once, in all phases."""
        return sum(each.leaked for each in self.phases.values())

    @property
    def sent(self) -> int:
        """Sensitive bytes sent, in all phases."""
        return sum(each.sent for each in self.phases.values())


class _Stream:
    """One note with what was seen of it."""

    def __init__(self, note: Note) -> None:
        self.note = note
        self.sensitive: defaultdict[str, RangeSet] = defaultdict(RangeSet)
        for start, end, phase in note.sensitive:
            self.sensitive[phase].add(start, end)
        self.leaked = {phase: RangeSet() for phase in self.sensitive}
        self.crossings = dict.fromkeys(self.sensitive, 0)
        self.held = RangeSet()

    def capture(self, start: int, end: int) -> None:
        self.held.add(start, end)
        for phase, ranges in self.sensitive.items():
            for low, high in ranges.overlap(start, end):
                self.leaked[phase].add(low, high)
                self.crossings[phase] += high - low


def judge(pieces: Iterable[Piece], notes: Iterable[Note]) -> Leaks:
    """Intersect captured bytes with what the senders noted."""
    streams = sorted((_Stream(note) for note in notes), key=lambda each: each.note.first)
    firsts = [each.note.first for each in streams]
    result = Leaks()
    for piece in pieces:
        if piece.dsn is None:
            result.unplaced += len(piece.payload)
            continue
        found = list(_owners(piece.dsn, piece.wide, streams, firsts))
        for stream, offset in found:
            stream.capture(offset, min(offset + len(piece.payload), stream.note.length))
        if not found:
            result.foreign += len(piece.payload)
    for stream in streams:
        _add(result, stream)
    return result


def _owners(
    dsn: int, wide: bool, streams: list[_Stream], firsts: list[int]
) -> Iterator[tuple[_Stream, int]]:
    """Streams `dsn` may lie in, with the offset there: one at most when it has all 64 bits."""
    if wide and streams:
        near = streams[bisect_right(firsts, dsn) - 1]  # below all of them: the last may wrap round
        candidates, modulus = [near], _2_64
    else:
        candidates, modulus = streams, _2_32
    for stream in candidates:
        offset = (dsn - stream.note.first) % modulus
        if offset < stream.note.length:
            yield stream, offset


def _add(result: Leaks, stream: _Stream) -> None:
    note = stream.note
    key = (note.connection, note.sender)
    result.held[key] = result.held.get(key, 0) + len(stream.held)
    for phase, ranges in stream.sensitive.items():
        total = result.phases.setdefault(phase, PhaseLeak())
        total.sent += len(ranges)
        total.leaked += len(stream.leaked[phase])
        total.crossings += stream.crossings[phase]
