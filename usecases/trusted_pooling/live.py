"""The live connection: one stream in which sensitive and other bytes alternate, both ways.

Frames have a head of eight characters (a letter and seven digits) and a body:

    o, s    other bytes, sensitive bytes
    t       phone to server: the phone's trusted addresses (JSON), before anything sensitive
    d       phone to server: send me these segments (JSON)
    q       phone to server: what have you got?      a    the answer (JSON), ends a server's turn
    r       server to phone: my gate is open, make the subflows again that it closed

In the bodies of s frames every byte has bit 7 set (`traffic.pattern.HIGH`), elsewhere no byte
has: a capture can be checked by that against the ground truth of `leaks`, independently.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import IO, Any, NamedTuple

from testbed.errors import ExperimentError
from traffic.pattern import HIGH, LOW, block
from usecases.trusted_pooling.channel import Channel

CHUNK = 16_384
QUEUE = 131_072  # SO_SNDBUF; the kernel doubles it
_HEAD = 8


def shorten_queue(sock: socket.socket) -> None:
    """Bound what the kernel holds of the connection: it is in the way at every switch.

    A sensitive period ends when everything written before its end has been delivered over
    trusted paths, so what is queued costs time.  TCP_NOTSENT_LOWAT does not do it: MPTCP hands
    bytes to a subflow's queue, and regards them as sent, far beyond its congestion window.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE)


class Segment(NamedTuple):
    """A run of bytes of one kind; `pace_bps` 0 writes as fast as the connection takes them."""

    sensitive: bool
    length: int
    pace_bps: float = 0.0


def alternating(periods: int, *, other: int, sensitive: int) -> list[Segment]:
    """`periods` times sensitive then other bytes, after half as many other bytes."""
    pair = [Segment(True, sensitive), Segment(False, other)]
    return [Segment(False, other // 2), *(pair * periods)]


def head(kind: str, length: int) -> bytes:
    """The head of a frame."""
    return f"{kind}{length:07d}".encode()


def read_frame(reader: IO[bytes]) -> tuple[str, bytes] | None:
    """The next frame; None at the end of the stream."""
    start = reader.read(_HEAD)
    if len(start) < _HEAD:
        return None
    kind, length = chr(start[0]), int(start[1:])
    body = reader.read(length)
    if len(body) < length:
        raise ExperimentError(f"the live connection ended within a frame {start!r}")
    return kind, body


def send_json(channel: Channel, kind: str, content: Any) -> None:
    """Send a frame with JSON in it."""
    body = json.dumps(content).encode()
    channel.send(head(kind, len(body)) + body)


class Content:
    """Bytes to send: random, the sensitive ones marked; seeded."""

    def __init__(self, seed: int) -> None:
        self._other = block(seed, CHUNK, LOW)
        self._sensitive = block(seed, CHUNK, HIGH)

    def frames(self, segment: Segment) -> Iterator[tuple[bytes, bytes]]:
        """A segment as (head, body) of frames."""
        kind, block = ("s", self._sensitive) if segment.sensitive else ("o", self._other)
        for start in range(0, segment.length, CHUNK):
            body = block[: min(CHUNK, segment.length - start)]
            yield head(kind, len(body)), body


class Sender:
    """Sends segments on a channel, each sensitive one within what `confine()` returns.

    `before_frame` is called before every frame (the server lets its requests out there).
    """

    def __init__(
        self,
        channel: Channel,
        confine: Callable[[], AbstractContextManager[Any]],
        *,
        seed: int,
        before_frame: Callable[[], None] = lambda: None,
        on_period: Callable[[bool, str], None] = lambda _begins, _phase: None,
    ) -> None:
        self._channel, self._confine = channel, confine
        self._content = Content(seed)
        self._before_frame, self._on_period = before_frame, on_period

    def send(self, segments: Iterable[Segment], phase: str) -> str:
        """Send them all; the hash of their bodies (hexadecimal SHA-256)."""
        digest = hashlib.sha256()
        for segment in segments:
            if not segment.sensitive:
                self._send(segment, "", digest)
                continue
            with self._confine():
                self._on_period(True, phase)
                self._send(segment, phase, digest)
            self._on_period(False, phase)
        return digest.hexdigest()

    def _send(self, segment: Segment, phase: str, digest: Any) -> None:
        started, sent = time.monotonic(), 0
        for start, body in self._content.frames(segment):
            self._before_frame()
            self._channel.send(start)
            self._channel.send(body, sensitive=phase)
            digest.update(body)
            sent += len(body)
            if segment.pace_bps:
                due = started + sent * 8 / segment.pace_bps
                time.sleep(max(0.0, due - time.monotonic()))


class Receiver:
    """Takes o and s frames: counts, hashes, and watches for stalls."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._received = 0
        self._started = self._last = 0.0
        self._longest_gap_s = 0.0

    def take(self, body: bytes) -> None:
        """A frame's body has arrived."""
        now = time.monotonic()
        if self._received:
            self._longest_gap_s = max(self._longest_gap_s, now - self._last)
        else:
            self._started = now
        self._last = now
        self._received += len(body)
        self._digest.update(body)

    def report(self) -> dict[str, Any]:
        """What arrived: bytes, hash, seconds from first to last, the longest gap in them."""
        return {
            "received": self._received,
            "digest": self._digest.hexdigest(),
            "elapsed_s": self._last - self._started,
            "longest_gap_s": self._longest_gap_s,
        }
