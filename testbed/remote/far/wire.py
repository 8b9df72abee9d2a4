"""Frames between the two machines: one byte of kind, four of length, the payload.

Both ends send a beat whenever they have nothing else to say.  An end that hears nothing for
`patience_s`, or the end of the stream, takes the link for lost: a link that was cut says nothing,
and how soon an SSH server notices is that server's own setting.

Data frames are acknowledged, so that a sender never has more than `WINDOW` of them on the way and
a reader can always be reading: beats and signals are never stuck behind data.
"""

from __future__ import annotations

import io
import json
import os
import queue
import select
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

BEAT, ACK = b"B", b"A"
ORDER = b"{"  # to the far side: what is to be done (JSON)
INPUT, INPUT_END, SIGNAL, SIZE, DATA, DATA_END = b"I", b"E", b"S", b"W", b"D", b"Z"
OUTPUT, ERRORS = b"O", b"R"
ANSWER, FAILURE = b"J", b"F"  # from the far side, JSON: the end of an order, or of a part of it

WINDOW = 16
CHUNK = 32 * 1024
_HEAD = struct.Struct(">cI")
_ACKNOWLEDGED = (INPUT, DATA)

Frame = tuple[bytes, bytes]


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """A frame's bytes."""
    return _HEAD.pack(kind, len(payload)) + payload


def packed(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(value).encode()


class Decoder:
    """Frames out of pieces of a stream."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that `piece` completes."""
        self._data += piece
        while len(self._data) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._data)
            end = _HEAD.size + length
            if len(self._data) < end:
                return
            payload = bytes(self._data[_HEAD.size : end])
            del self._data[:end]
            yield kind, payload


class Line(Protocol):
    """An end of the channel, either one."""

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame."""

    def receive(self) -> Frame:
        """The next frame."""


class Incoming(io.RawIOBase):
    """Data frames as a file to read."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._piece = b""
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, at least one until the end."""
        while not self._piece and not self._ended:
            kind, payload = self._line.receive()
            self._ended = kind == DATA_END
            self._piece = payload if kind == DATA else b""
        size = len(self._piece) if size < 0 else size
        taken, self._piece = self._piece[:size], self._piece[size:]
        return taken

    def finish(self) -> None:
        """Take what is left, an archive's padding for one."""
        while self.read():
            pass


class Outgoing(io.RawIOBase):
    """A file to write, as data frames."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def write(self, data: Any) -> int:
        """Send all of `data`."""
        view = bytes(data)
        for start in range(0, len(view), CHUNK):
            self._line.send(DATA, view[start : start + CHUNK])
        return len(view)


class Wire:
    """The far end: standard input and output, as the SSH server made them.

    `lost` is called, in a thread, when the link is lost; it does not return.  `signalled` is
    called for frames that must not wait for what is done meanwhile.
    """

    def __init__(self, lost: Callable[[], None], patience_s: float) -> None:
        self.lost = lost
        self.patience_s = patience_s
        self.signalled: Callable[[Frame], None] = lambda _frame: None
        self._frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._writing = threading.Lock()

    def start(self, decoder: Decoder, early: list[Frame]) -> None:
        """Read in a thread from now on, and beat in another; `early` frames came before."""
        for each in early:
            self._take(each)
        for work in (lambda: self._read(decoder), self._beat):
            threading.Thread(target=work, daemon=True).start()

    def receive(self) -> Frame:
        """The next frame; an acknowledgement of the one before is on its way."""
        kind, payload = self._frames.get()
        if kind in _ACKNOWLEDGED:
            self.send(ACK)
        return kind, payload

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame, however long that takes."""
        data = frame(kind, payload)
        with self._writing:
            while data:
                data = data[os.write(1, data) :]

    def _read(self, decoder: Decoder) -> None:
        while select.select([0], [], [], self.patience_s)[0]:
            piece = os.read(0, 2 * CHUNK)
            if not piece:
                break
            for each in decoder.feed(piece):
                self._take(each)
        self.lost()

    def _take(self, each: Frame) -> None:
        if each[0] in (SIGNAL, SIZE):
            self.signalled(each)
        elif each[0] != BEAT:
            self._frames.put(each)

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(self.patience_s / 4):
            try:
                self.send(BEAT)
            except OSError:  # nobody reads any more
                self.lost()
