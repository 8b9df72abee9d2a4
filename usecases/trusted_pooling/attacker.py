"""The attacker on the open WiFi: it knows nothing but what it captured.

It groups the subflows it saw into connections (by the tokens of the handshakes, RFC 8684 3.2),
puts their bytes into the order of the data sequence, and reads what is in the clear: requests,
session cookies and login forms, as Firesheep did.  What it could not capture leaves holes; it
reads around them.  What was truly sensitive it cannot know: that is `leaks`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qs

from testbed.mptcp.keys import token
from testbed.mptcp.options import KIND, MpCapable, MpJoinSyn, OptionError, find
from usecases.trusted_pooling.capture import SYN, Flow, Segment
from usecases.trusted_pooling.streams import Piece, place

_HTTPS_PORT = 443
_TLS_HANDSHAKE = b"\x16\x03"
_REQUEST = re.compile(rb"(GET|POST) (\S+) HTTP/1\.[01]\r\n")
_HOST = re.compile(rb"^Host: *(\S+)\r\n", re.MULTILINE | re.I)
_COOKIE = re.compile(rb"^(?:Set-)?Cookie: *([^=\s]+)=([^;\r\n]+)[;\r]", re.MULTILINE | re.I)
_FORM = re.compile(rb"Content-Length: *(\d+)\r\n(?:[^\r\n]+\r\n)*\r\n(?=user=)", re.I)


class Loot(NamedTuple):
    """Something worth stealing: a "cookie" (name, value) or a "login" (user, password)."""

    kind: str
    site: str
    name: str
    secret: str


@dataclass(kw_only=True)
class Connection:
    """One connection as the attacker sees it, both directions together.

    `span` is how far the data sequence reaches from the first byte it saw to the last, `held`
    how many bytes of that it captured, `readable` how many of these are not encrypted.
    """

    client: str
    server: str
    span: int = 0
    held: int = 0
    readable: int = 0
    requests: int = 0

    @property
    def share(self) -> float:
        """The part of the connection it can read, as far as it can tell (0 to 1)."""
        return self.readable / self.span if self.span else 0.0


@dataclass(kw_only=True)
class Haul:
    """All that the attacker got."""

    connections: list[Connection] = field(default_factory=list)
    loot: set[Loot] = field(default_factory=set)

    def count(self, kind: str) -> int:
        """How many different "cookie"s or "login"s it holds."""
        return sum(each.kind == kind for each in self.loot)

    @property
    def sites(self) -> dict[str, list[Loot]]:
        """Loot by site."""
        found: defaultdict[str, list[Loot]] = defaultdict(list)
        for each in sorted(self.loot):
            found[each.site].append(each)
        return dict(found)


def attack(segments: Iterable[Segment]) -> Haul:
    """Do with a capture what somebody in a café would."""
    captured = list(segments)
    owners = Grouping(captured)
    streams: defaultdict[int, defaultdict[bool, list[Piece]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for piece in place(captured):
        from_client = piece.flow in owners.clients
        flow = piece.flow if from_client else piece.flow.reverse
        streams[owners.number(flow)][from_client].append(piece)
    haul = Haul()
    for _number, directions in sorted(streams.items()):
        _read_connection(directions[True], directions[False], haul)
    return haul


class Grouping:
    """Which subflow belongs to which connection, as far as the handshakes tell.

    Flows are named by their client's direction; `clients` holds those.
    """

    def __init__(self, segments: Iterable[Segment]) -> None:
        self.clients: set[Flow] = set()
        self._by_flow: dict[Flow, int] = {}
        self._by_token: dict[int, int] = {}
        for segment in segments:
            if segment.flags & SYN and not segment.flags & 0x10:
                self.clients.add(segment.flow)
            if KIND in segment.options:
                self._learn(segment)

    def number(self, flow: Flow) -> int:
        """The connection of a subflow; one nobody introduced is a connection of its own."""
        return self._by_flow.setdefault(flow, len(self._by_flow) + len(self._by_token))

    def _learn(self, segment: Segment) -> None:
        try:
            options = find(segment.options)
        except OptionError:
            return
        for option in options:
            if isinstance(option, MpCapable) and option.receiver_key is not None:
                # the third ACK and the first data carry both keys: its sender is the client
                number = self.number(segment.flow)
                self._by_token[token(option.receiver_key)] = number
            elif isinstance(option, MpJoinSyn):
                known = self._by_token.setdefault(option.token, self.number(segment.flow))
                self._by_flow[segment.flow] = known


def _read_connection(up: list[Piece], down: list[Piece], haul: Haul) -> None:
    flow = up[0].flow if up else down[0].flow.reverse
    seen = Connection(client=str(flow.source), server=str(flow.destination))
    requests, answers = list(chunks(up)), list(chunks(down))
    for stretch in (requests, answers):
        if stretch:
            seen.span += stretch[-1][0] + len(stretch[-1][1]) - stretch[0][0]
            seen.held += sum(len(data) for _dsn, data in stretch)
    opening = requests[0][1][:2] if requests else b""
    if flow.destination.port != _HTTPS_PORT and opening != _TLS_HANDSHAKE:
        seen.readable = seen.held
        seen.requests = sum(len(_REQUEST.findall(data)) for _dsn, data in requests)
        site = next((_host(data) for _dsn, data in requests if _host(data)), str(flow.destination))
        for _dsn, data in (*requests, *answers):
            haul.loot.update(read_secrets(data, site))
    haul.connections.append(seen)


def chunks(pieces: Iterable[Piece]) -> Iterator[tuple[int, bytes]]:
    """Contiguous stretches (data sequence number, bytes) of one direction, in order.

    What was captured more than once is taken once; pieces without a place are left out.
    """
    placed = sorted((p.dsn, p.payload) for p in pieces if p.dsn is not None)
    start, parts, end = 0, list[bytes](), -1
    for dsn, payload in placed:
        if parts and dsn > end:
            yield start, b"".join(parts)
            parts = []
        if not parts:
            start = end = dsn
        fresh = payload[end - dsn :]
        if fresh:
            parts.append(fresh)
            end += len(fresh)
    if parts:
        yield start, b"".join(parts)


def read_secrets(data: bytes, site: str) -> Iterator[Loot]:
    """Cookies and logins in a stretch of clear text; `site` is used where no Host: is near."""
    for match in _COOKIE.finditer(data):
        near = _host(data[: match.start()], last=True) or site
        yield Loot("cookie", near, _text(match[1]), _text(match[2]))
    for match in _FORM.finditer(data):
        near = _host(data[: match.end()], last=True) or site
        form = parse_qs(_text(data[match.end() : match.end() + int(match[1])]))
        if "password" in form:
            yield Loot("login", near, form["user"][0], form["password"][0])


def _host(data: bytes, *, last: bool = False) -> str:
    found = _HOST.findall(data)
    return _text(found[-1 if last else 0]) if found else ""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
