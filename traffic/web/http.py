"""HTTP/1.1 messages (RFC 9112): bytes to messages and back, whatever the pieces; no I/O.

What sites and browsers of this package say to each other, and no more: bodies are delimited by
Content-Length, so there are no transfer codings.  Whoever reassembles captured bytes reads them
with the same `Parser`.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from dataclasses import dataclass, field

from testbed.errors import ExperimentError

_LONGEST_HEAD = 1 << 16
_REASONS = {200: "OK", 303: "See Other", 403: "Forbidden", 404: "Not Found"}
Headers = tuple[tuple[str, str], ...]


class HttpError(ExperimentError):
    """Bytes that are no HTTP/1.1 message, or one that this package does not speak."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A request or a response: its start line in three words, headers, body."""

    start: tuple[str, str, str]
    headers: Headers = ()
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str:
        """Value of the first header of that name, "" where there is none."""
        return next((v for k, v in self.headers if k.lower() == name.lower()), "")

    def build(self) -> bytes:
        """The message as bytes, with its Content-Length."""
        lines = [" ".join(self.start), *(f"{name}: {value}" for name, value in self.headers)]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    # -- as a request ---------------------------------------------------------------------------

    @property
    def method(self) -> str:
        """Of a request: GET, POST."""
        return self.start[0]

    @property
    def path(self) -> str:
        """Of a request: its target."""
        return self.start[1]

    @property
    def cookie(self) -> str:
        """Of a request: what it carries as Cookie."""
        return self.header("Cookie")

    # -- as a response --------------------------------------------------------------------------

    @property
    def status(self) -> int:
        """Of a response: its status code; raises `HttpError` for a request."""
        if not self.start[1].isdecimal():
            raise HttpError(f"{' '.join(self.start)[:60]!r} is no response")
        return int(self.start[1])

    @property
    def intact(self) -> bool:
        """Of a response: does the body have the digest that its server computed?"""
        return self.header("Content-Digest") == digest(self.body)


def request(method: str, path: str, host: str, *, cookie: str = "", body: bytes = b"") -> Message:
    """A request as a browser makes it (RFC 9110 10.1.5 and RFC 6265 5.4 for the headers)."""
    headers: Headers = (
        ("Host", host),
        ("User-Agent", "LiquidNet"),
        ("Accept", "*/*"),
        ("Accept-Language", "en"),
    )
    if cookie:
        headers += (("Cookie", cookie),)
    return Message(start=(method, path, "HTTP/1.1"), headers=headers, body=body)


def response(status: int, body: bytes, kind: str = "text/html", *more: tuple[str, str]) -> Message:
    """A response with the digest of its body (Content-Digest, RFC 9530)."""
    headers = (("Content-Type", kind), ("Content-Digest", digest(body)), *more)
    return Message(
        start=("HTTP/1.1", str(status), _REASONS.get(status, "")), headers=headers, body=body
    )


def digest(body: bytes) -> str:
    """The value of Content-Digest for `body`."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


class Parser:
    """One direction of a connection: feed it bytes, take complete `messages`.

    `pending` is how many bytes of an incomplete message it holds.
    """

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self._buffer = bytearray()
        self._head: tuple[tuple[str, str, str], Headers] | None = None
        self._missing = 0  # of the body

    @property
    def pending(self) -> int:
        """Bytes of a message that has begun and is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes; raises `HttpError`."""
        self._buffer += data
        while self._head is not None or self._take_head():
            if len(self._buffer) < self._missing:
                return
            self._take_body()

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
        if end < 0:
            if len(self._buffer) >= _LONGEST_HEAD:
                raise HttpError(f"no end of an HTTP head in {_LONGEST_HEAD} bytes")
            return False
        self._head = _parse_head(self._buffer[:end].decode("latin-1"))
        self._missing = _body_length(self._head[1])
        del self._buffer[: end + 4]
        return True

    def _take_body(self) -> None:
        assert self._head
        start, headers = self._head
        body = bytes(self._buffer[: self._missing])
        del self._buffer[: self._missing]
        self._head = None
        rest = tuple(item for item in headers if item[0].lower() != "content-length")
        self.messages.append(Message(start=start, headers=rest, body=body))


def _parse_head(text: str) -> tuple[tuple[str, str, str], Headers]:
    first, *lines = text.split("\r\n")
    words = first.split(" ", 2)
    if len(words) != 3 or "HTTP/1.1" not in (words[0], words[2]):
        raise HttpError(f"{first[:60]!r} is no HTTP/1.1 start line")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HttpError(f"{line[:60]!r} is no HTTP header")
        headers.append((name, value.strip(" \t")))
    return (words[0], words[1], words[2]), tuple(headers)


def _body_length(headers: Headers) -> int:
    fields = {name.lower(): value for name, value in headers}
    if "transfer-encoding" in fields:
        raise HttpError("transfer codings are not spoken here")
    text = fields.get("content-length", "0")
    if not (text.isascii() and text.isdecimal()):
        raise HttpError(f"Content-Length {text[:20]!r} is no number")
    return int(text)
