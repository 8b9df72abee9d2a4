"""The web of the experiment: sites, their pages, and the HTTP messages that carry them.

A site is in the clear or behind TLS; either way the user logs in, gets a session cookie, and
opens a page: HTML that is hers alone (asked for with the cookie), then objects that are
anybody's, from a host that sets no cookies, as sites do it.  Who connects how is the browser's
business, not this module's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from testbed.errors import ExperimentError

HTTP_PORT, HTTPS_PORT, LIVE_PORT = 80, 443, 7000
DOMAIN = "example.net"
_LARGEST_OBJECT = 12  # times the median: one object must not be the whole page
_SPREAD = 0.8  # sigma of the lognormal sizes


@dataclass(frozen=True, kw_only=True)
class Site:
    """A site and one page of it; sizes in bytes."""

    name: str
    tls: bool
    user: str
    password: str
    html: int
    objects: tuple[int, ...]


def sites(
    count: int, *, https_share: float, objects: int, object_size: int, seed: int
) -> tuple[Site, ...]:
    """`count` sites, the share `https_share` of them (rounded) behind TLS; same seed, same sites.

    A page has `objects` objects, lognormal around the median `object_size` bytes, and HTML of
    about as much.
    """
    choice = random.Random(seed)
    secure = set(choice.sample(range(count), round(count * https_share)))

    def size() -> int:
        factor = min(choice.lognormvariate(0.0, _SPREAD), _LARGEST_OBJECT)
        return max(200, int(object_size * factor))

    return tuple(
        Site(
            name=f"site{number}.{DOMAIN}",
            tls=number in secure,
            user=f"user{number}",
            password=f"pw-{choice.getrandbits(48):012x}",
            html=size(),
            objects=tuple(size() for _ in range(objects)),
        )
        for number in range(count)
    )


# -- messages ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Message:
    """The head of a request or an answer, and its body; header names are lower case."""

    start: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """A request's path."""
        return self.start.split(" ")[1]

    @property
    def personal(self) -> bool:
        """A request that shows who the user is, so that its answer is hers too."""
        return "cookie" in self.headers or self.start.startswith("POST ")


def request(path: str, host: str, *, cookie: str = "", form: str = "") -> bytes:
    """A GET, or a POST of `form`."""
    lines = [f"{'POST' if form else 'GET'} {path} HTTP/1.1", f"Host: {host}"]
    lines += ["User-Agent: LiquidNet/1.0 (phone)", "Accept: */*"]
    if cookie:
        lines.append(f"Cookie: {cookie}")
    if form:
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(form)}"]
    return ("\r\n".join(lines) + "\r\n\r\n" + form).encode()


def answer_head(length: int, *, cookie: str = "") -> bytes:
    """The head of an answer with a body of `length` bytes, setting `cookie` if given."""
    lines = ["HTTP/1.1 200 OK", "Server: LiquidNet", f"Content-Length: {length}"]
    if cookie:
        lines.append(f"Set-Cookie: {cookie}; Path=/")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_head(reader: IO[bytes]) -> Message | None:
    """The next message's head, its body still unread; None at the end of the stream."""
    start = reader.readline()
    if not start:
        return None
    headers: dict[str, str] = {}
    while line := reader.readline().strip():
        name, _colon, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return Message(start=start.decode("latin-1").strip(), headers=headers, body=b"")


def read_message(reader: IO[bytes]) -> Message | None:
    """The next message whole; `ExperimentError` when the stream ends within it."""
    head = read_head(reader)
    if head is None:
        return None
    length = int(head.headers.get("content-length", "0"))
    body = reader.read(length)
    if len(body) < length:
        raise ExperimentError(f"connection ended {length - len(body)} bytes early: {head.start}")
    return Message(start=head.start, headers=head.headers, body=body)
