"""Payload: deterministic from a seed, made fast, and, where asked, recognisable on the wire.

A *mark* sets the top bit of every payload byte: always (`HIGH`, what must not be seen), never
(`LOW`, what may), or as it comes (`NONE`).  Whoever captures packets can then count the marked
bytes of a segment without knowing where in a stream it belongs.
"""

from __future__ import annotations

import hashlib

NONE, LOW, HIGH = "none", "low", "high"
MARKS = (NONE, LOW, HIGH)

FRAME = 1 << 16
_STAMP = 8
_TABLES = {LOW: bytes(i & 0x7F for i in range(256)), HIGH: bytes(i | 0x80 for i in range(256))}


def block(seed: int | str, size: int, mark: str = NONE) -> bytes:
    """`size` pseudo-random bytes of `seed` (SHAKE-128)."""
    data = hashlib.shake_128(str(seed).encode()).digest(size)
    return data if mark == NONE else data.translate(_TABLES[mark])


def marked_bytes(data: bytes | memoryview) -> int:
    """How many of these bytes carry the `HIGH` mark."""
    return len(bytes(data).translate(None, _UNMARKED))


_UNMARKED = bytes(range(128))


class Frames:
    """An endless sequence of payload frames, no two alike: a block, stamped with its number.

    `head` bytes are left free before each frame for the header of whoever sends it.
    """

    def __init__(self, seed: int | str, mark: str = NONE, head: int = 0) -> None:
        self._buffer = bytearray(head) + block(seed, FRAME, mark)
        self._head = head
        self._mark = mark
        self._number = 0

    def next(self, size: int, header: bytes = b"") -> memoryview:
        """The next frame: `header`, then `size` bytes (at most `FRAME`); valid until the next."""
        self._number += 1
        self._buffer[: self._head] = header
        if size >= _STAMP:
            self._buffer[self._head : self._head + _STAMP] = self._stamp()
        return memoryview(self._buffer)[: self._head + size]

    def _stamp(self) -> bytes:
        digits = bytes(self._number >> shift & 0x7F for shift in range(0, 7 * _STAMP, 7))
        return digits.translate(_TABLES[HIGH]) if self._mark == HIGH else digits


def sizes(total: int) -> list[int]:
    """`total` bytes as frame sizes."""
    whole, rest = divmod(total, FRAME)
    return [FRAME] * whole + [rest] * (rest > 0)
