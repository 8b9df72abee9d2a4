"""Small exchanges on a live connection, each verified end to end; no I/O.

A client's message carries the number of its connection, its own number, noise, and a digest over
all that and the digest of the message before.  The server checks the digest, so that nothing can
be missing, doubled, changed or of another connection, and echoes the message whole; the client
compares.  Wire format, big-endian: magic (4), size (2), connection (4), number (4), noise,
digest (8, BLAKE2b).  Noise is random bytes, or, where compression matters, words.
"""

from __future__ import annotations

import functools
import hashlib
import random
import struct
from collections import deque

from testbed.errors import ExperimentError

_HEAD = struct.Struct("!4sHII")
_MAGIC = b"LNm1"
_DIGEST = 8
LEAST, MOST = 64, 16_384
"""Sizes a message may have, bytes."""
_NOISE = random.Random("exchange").randbytes(1 << 16)


@functools.cache
def _text() -> bytes:
    """Words by Zipf's law, as in the texts of a language."""
    numbers, letters = random.Random("words"), "etaoinshrdlucmfwygpbvk"
    words = ["".join(numbers.choices(letters, k=numbers.randint(2, 9))) for _ in range(3000)]
    weights = [1 / place for place in range(1, len(words) + 1)]
    return " ".join(numbers.choices(words, weights, k=len(_NOISE) // 3)).encode()[: len(_NOISE)]


class Corrupt(ExperimentError):
    """What arrived is not what was sent."""


def _digest(before: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(before + body, digest_size=_DIGEST).digest()


class Asker:
    """The client's end of one connection: makes messages, compares their echoes.

    `greeting` begins the first message's noise: something that middleboxes may look for.  With
    `text` the noise is words, which compress about as texts do.
    """

    __slots__ = ("_buffer", "_connection", "_greeting", "_last", "_noise", "_number", "waiting")

    def __init__(self, connection: int, greeting: bytes = b"", *, text: bool = False) -> None:
        self._noise = _text() if text else _NOISE
        self._connection = connection
        self._greeting = greeting
        self._number = 0
        self._last = b""
        self._buffer = b""
        self.waiting: deque[tuple[float, bytes]] = deque()
        """Messages without an echo yet, and when each was given to the kernel."""

    def ask(self, now: float, size: int) -> bytes:
        """The next message, `size` bytes long (`LEAST` to `MOST`)."""
        room = size - _HEAD.size - _DIGEST
        start = (self._connection * 8191 + self._number * 127) % (len(self._noise) - room)
        noise = self._noise[start : start + room]
        if self._number == 0 and self._greeting:
            noise = (self._greeting + noise)[:room]
        body = _HEAD.pack(_MAGIC, size, self._connection, self._number) + noise
        self._last = _digest(self._last, body)
        self._number += 1
        self.waiting.append((now, body + self._last))
        return body + self._last

    def heard(self, data: bytes) -> list[tuple[float, int]]:
        """What came back: of each echo now whole, when it was sent and its size.

        Raises `Corrupt` when it is not what was sent.
        """
        self._buffer += data
        whole = []
        while self.waiting and len(self._buffer) >= len(self.waiting[0][1]):
            sent, message = self.waiting.popleft()
            if not self._buffer.startswith(message):
                raise Corrupt(f"connection {self._connection}: an echo differs from its message")
            self._buffer = self._buffer[len(message) :]
            whole.append((sent, len(message)))
        if self._buffer and not self.waiting:
            raise Corrupt(f"connection {self._connection}: an echo of nothing that was sent")
        return whole


class Checker:
    """The server's end of one connection: checks messages before they are echoed."""

    __slots__ = ("_buffer", "_connection", "_last", "_number")

    def __init__(self) -> None:
        self._connection: int | None = None
        self._number = 0
        self._last = b""
        self._buffer = b""

    def heard(self, data: bytes) -> list[bytes]:
        """The messages now whole, in order; raises `Corrupt` for anything else."""
        self._buffer += data
        whole = []
        while len(self._buffer) >= _HEAD.size:
            size = self._size()
            if len(self._buffer) < size:
                break
            message, self._buffer = self._buffer[:size], self._buffer[size:]
            self._check(message)
            whole.append(message)
        return whole

    def _size(self) -> int:
        magic, size, _, _ = _HEAD.unpack_from(self._buffer)
        if magic != _MAGIC or not LEAST <= size <= MOST:
            raise Corrupt("a client does not send messages of this protocol")
        return int(size)

    def _check(self, message: bytes) -> None:
        _, _, connection, number = _HEAD.unpack_from(message)
        body, digest = message[:-_DIGEST], message[-_DIGEST:]
        self._last = _digest(self._last, body)
        if self._connection is None:
            self._connection = connection
        if (connection, number) != (self._connection, self._number) or digest != self._last:
            raise Corrupt(
                f"message {number} of connection {connection} is not message {self._number} of "
                f"connection {self._connection} as it was sent"
            )
        self._number += 1
