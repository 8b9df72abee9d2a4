"""The stream protocol of bulk transfers and bursts, as a machine that does no I/O.

Each direction of a connection carries, one after the other:

    request   a JSON line; from the client only: what the server shall send, and how
    frames    length as eight hexadecimal digits, then that many payload bytes; any number
    trailer   "00000000", then a JSON line: bytes and SHA-256 of the payload that was sent
    report    a JSON line: bytes and SHA-256 of the payload that was received

A direction without payload has no frames.  All but payload is ASCII, so that marked payload
(`traffic.pattern`) is the only thing on the wire with top bits set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from testbed.errors import ExperimentError

HEADER = 8
_LONGEST_LINE = 4096


class ProtocolError(ExperimentError):
    """The peer does not speak the stream protocol."""


class Count(NamedTuple):
    """How much payload (bytes), its SHA-256, and in how many seconds it came (0: not known)."""

    total: int
    sha256: str
    seconds: float = 0.0

    def line(self) -> bytes:
        """As trailer and report carry it."""
        return line({"bytes": self.total, "sha256": self.sha256, "seconds": self.seconds})

    @property
    def rate(self) -> float:
        """Goodput in bit/s (0 where it is not known)."""
        return self.total * 8 / self.seconds if self.seconds > 0 else 0.0

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Count:
        """Read what `line` wrote."""
        try:
            return cls(int(fields["bytes"]), str(fields["sha256"]), float(fields["seconds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"the peer sent {fields!r} where a count belongs") from error


def line(fields: dict[str, Any]) -> bytes:
    """One JSON line."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def header(size: int) -> bytes:
    """What precedes a frame of `size` bytes (0: what precedes the trailer)."""
    return b"%08x" % size


class State(Enum):
    """What the machine waits for."""

    REQUEST = "request"
    FRAME = "frame"
    PAYLOAD = "payload"
    TRAILER = "trailer"
    REPORT = "report"
    END = "end"


class Deframer:
    """One received direction: feed it bytes, in whatever pieces they come.

    `on_payload` is told the size of each piece of payload.  `request`, `trailer` and `report`
    are None until they have come; `count` is the payload received so far.
    """

    def __init__(
        self, *, expect_request: bool = False, on_payload: Callable[[int], None] | None = None
    ) -> None:
        self.state = State.REQUEST if expect_request else State.FRAME
        self.request: dict[str, Any] | None = None
        self.trailer: Count | None = None
        self.report: Count | None = None
        self._on_payload = on_payload or (lambda _count: None)
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._left = 0  # of the payload of the current frame
        self._text = bytearray()  # of the header or line that is incomplete

    @property
    def count(self) -> Count:
        """Payload received so far."""
        return Count(self._bytes, self._hash.hexdigest())

    def feed(self, data: memoryview) -> None:
        """Take the next bytes of the stream; raises `ProtocolError`."""
        while data:
            if self.state is State.PAYLOAD:
                data = self._payload(data)
            elif self.state is State.FRAME:
                data = self._header(data)
            elif self.state is State.END:
                raise ProtocolError("the peer sent more than it announced")
            else:
                data = self._line(data)

    def _payload(self, data: memoryview) -> memoryview:
        piece, rest = data[: self._left], data[self._left :]
        self._hash.update(piece)
        self._bytes += len(piece)
        self._left -= len(piece)
        self._on_payload(len(piece))
        if not self._left:
            self.state = State.FRAME
        return rest

    def _header(self, data: memoryview) -> memoryview:
        missing = HEADER - len(self._text)
        self._text += data[:missing]
        if len(self._text) == HEADER:
            text, self._text = bytes(self._text), bytearray()
            try:
                self._left = int(text, 16)
            except ValueError as error:
                raise ProtocolError(f"the peer sent {text!r} where a frame begins") from error
            self.state = State.PAYLOAD if self._left else State.TRAILER
        return data[missing:]

    def _line(self, data: memoryview) -> memoryview:
        end = bytes(data[:_LONGEST_LINE]).find(b"\n")
        self._text += data if end < 0 else data[:end]
        if len(self._text) > _LONGEST_LINE:
            raise ProtocolError(f"the peer sent {bytes(self._text[:20])!r}... where a line belongs")
        if end < 0:
            return data[:0]
        text, self._text = bytes(self._text), bytearray()
        self._took(_parse(text))
        return data[end + 1 :]

    def _took(self, fields: dict[str, Any]) -> None:
        if self.state is State.REQUEST:
            self.request, self.state = fields, State.FRAME
        elif self.state is State.TRAILER:
            self.trailer, self.state = Count.parse(fields), State.REPORT
        else:
            self.report, self.state = Count.parse(fields), State.END


def _parse(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ProtocolError(f"the peer sent {text[:40]!r} where a JSON line belongs") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"the peer sent {text[:40]!r} where a JSON object belongs")
    return fields
