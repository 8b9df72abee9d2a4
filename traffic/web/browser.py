"""A browser: loads pages over parallel persistent connections, keeps cookies, logs in.

Connections come from the caller: `connect(need)` is asked for a socket whenever a pool has not
as many as it may, and told what it will carry, so that a use case decides which bytes go over
which interfaces.  Requests that carry a cookie or credentials are *sensitive*, and so are their
responses.  `pool_of` says which requests may share connections (default: those of one host and
one sensitivity, six at a time as in today's browsers); `guard` is entered around each exchange
on a connection that carries both.

What is left out: HTML is not rendered and scripts do not run, so a page's objects are all known
as soon as its document is there.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

from testbed.errors import ExperimentError
from traffic.emit import clock
from traffic.meter import Meter
from traffic.program import Life, PeerVanished, Stopped, Task
from traffic.sockets import no_delay
from traffic.web.http import Message, Parser, request
from traffic.web.site import Site

PER_HOST = 6  # Chrome, Firefox and Safari alike
_BUFFER = 1 << 18
_REFERENCE = re.compile(rb'<link href="//([^"/]+)(/[^"]*)">')


class Need(NamedTuple):
    """What a connection is wanted for."""

    host: str
    https: bool = False
    sensitive: bool = False


Connect = Callable[[Need], socket.socket]
Guard = Callable[[socket.socket, Need], AbstractContextManager[object]]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request and its response, as the browser saw them.

    Times are CLOCK_MONOTONIC (s).  `offset` and `response_offset` are how many bytes of HTTP the
    connection had carried before, in each direction: with the sizes they say where in the
    connection's byte streams the exchange is (in the clear; TLS adds to that).
    """

    need: Need
    path: str
    status: int
    start_s: float
    end_s: float
    connection: int
    offset: int
    request_bytes: int
    response_offset: int
    response_bytes: int


@dataclass(frozen=True, kw_only=True)
class PageLoad:
    """A loaded page: when its first request was due, how long until all was there (s)."""

    site: Site
    path: str
    start_s: float
    seconds: float
    exchanges: tuple[Exchange, ...]

    @property
    def bytes(self) -> int:
        """Bytes received."""
        return sum(each.response_bytes for each in self.exchanges)

    @property
    def sensitive_bytes(self) -> int:
        """Bytes of sensitive requests and responses."""
        return sum(
            each.request_bytes + each.response_bytes
            for each in self.exchanges
            if each.need.sensitive
        )


def by_host_and_sensitivity(need: Need) -> Hashable:
    """The default pools."""
    return need


def all_together(need: Need) -> Hashable:
    """Sensitive and other requests to all hosts of the server over the same connections."""
    return need.https


class Connection:
    """A persistent connection and what it has carried."""

    def __init__(self, sock: socket.socket, number: int, buffer: memoryview) -> None:
        self.socket, self.number = sock, number
        self.sent = self.received = 0
        self._buffer = buffer
        self._parser = Parser()

    def exchange(self, message: Message, took: Callable[[int], None]) -> Message:
        """Send a request, wait for its response; raises `PeerVanished`."""
        data = message.build()
        try:
            self.socket.sendall(data)
            self.sent += len(data)
            while not self._parser.messages:
                self._receive(took)
        except OSError as error:
            raise PeerVanished(f"the server vanished: {error.strerror or error}") from error
        return self._parser.messages.popleft()

    def _receive(self, took: Callable[[int], None]) -> None:
        count = self.socket.recv_into(self._buffer)
        if count == 0:
            raise PeerVanished("the server closed a connection before it had answered")
        self.received += count
        took(count)
        self._parser.feed(self._buffer[:count])


class Browser:
    """One user's browser.  Not for use by several threads, though it uses several itself."""

    def __init__(
        self,
        life: Life,
        connect: Connect,
        *,
        per_pool: int = PER_HOST,
        pool_of: Callable[[Need], Hashable] = by_host_and_sensitivity,
        guard: Guard | None = None,
        tls: ssl.SSLContext | None = None,
        on_exchange: Callable[[Exchange], None] | None = None,
        silence_s: float = 120.0,
    ) -> None:
        self._life, self._connect, self._tls = life, connect, tls
        self._per_pool, self._pool_of = per_pool, pool_of
        self._guard: Guard = guard or (lambda _sock, _need: nullcontext())
        self._on_exchange = on_exchange or (lambda _exchange: None)
        self._silence_s = silence_s
        self._idle: dict[Hashable, list[Connection]] = {}
        self._opened = 0
        self._lock = threading.Lock()
        self.cookies: dict[str, str] = {}
        self.meter = Meter(life.emit)

    # -- what a user does -----------------------------------------------------------------------

    def login(self, site: Site) -> tuple[Exchange, ...]:
        """Fetch the login form and send it filled in; keeps the cookie."""
        with self.meter.active():
            form, _ = self._fetch(self._need(site.host, site.https), "/login")
            need = Need(site.host, site.https, sensitive=True)
            sent, answer = self._fetch(need, "/login", body=site.credentials)
        if answer.status != 303:
            raise ExperimentError(f"{site.host} refused the login (status {answer.status})")
        return form, sent

    def load(self, site: Site, number: int) -> PageLoad:
        """Load page `number` of a site with all its objects, and wait for them."""
        path, start = f"/p{number}/", clock()
        with self.meter.active():
            first, document = self._fetch(self._need(site.host, site.https), path)
            rest = self._fetch_all(references(document.body), site.https)
        return PageLoad(
            site=site,
            path=path,
            start_s=start,
            seconds=clock() - start,
            exchanges=(first, *rest),
        )

    def get(self, host: str, path: str, *, https: bool = False) -> tuple[Exchange, Message]:
        """Fetch one object."""
        with self.meter.active():
            return self._fetch(self._need(host, https), path)

    def close(self) -> None:
        """Close all connections."""
        for pool in self._idle.values():
            while pool:
                self._life.drop(pool.pop().socket)

    # -- how ------------------------------------------------------------------------------------

    def _need(self, host: str, https: bool) -> Need:
        return Need(host, https, host in self.cookies)

    def _fetch_all(self, wanted: Iterable[tuple[str, str]], https: bool) -> list[Exchange]:
        queues: dict[Hashable, deque[tuple[Need, str]]] = {}
        for host, path in wanted:
            need = self._need(host, https)
            queues.setdefault(self._pool_of(need), deque()).append((need, path))
        tasks = [
            Task(self._work, queue)
            for queue in queues.values()
            for _ in range(min(self._per_pool, len(queue)))
        ]
        return [exchange for task in tasks for exchange in task.join()]

    def _work(self, queue: deque[tuple[Need, str]]) -> list[Exchange]:
        done: list[Exchange] = []
        while True:
            try:
                need, path = queue.popleft()
            except IndexError:
                return done
            done.append(self._fetch(need, path)[0])

    def _fetch(self, need: Need, path: str, body: bytes = b"") -> tuple[Exchange, Message]:
        start = clock()
        connection = self._take(need)
        cookie = self.cookies.get(need.host, "") if need.sensitive else ""
        asked = request("POST" if body else "GET", path, need.host, cookie=cookie, body=body)
        before = connection.sent, connection.received
        try:
            with self._guard(connection.socket, need):
                answer = connection.exchange(asked, self.meter.add)
        except PeerVanished as error:
            raise (Stopped() if self._life.stopping else error) from error
        _check(asked, answer)
        self._keep_cookie(need, answer)
        exchange = Exchange(
            need=need,
            path=path,
            status=answer.status,
            start_s=start,
            end_s=clock(),
            connection=connection.number,
            offset=before[0],
            request_bytes=connection.sent - before[0],
            response_offset=before[1],
            response_bytes=connection.received - before[1],
        )
        with self._lock:
            self._idle.setdefault(self._pool_of(need), []).append(connection)
        self._on_exchange(exchange)
        return exchange, answer

    def _keep_cookie(self, need: Need, answer: Message) -> None:
        cookie = answer.header("Set-Cookie").partition(";")[0]
        if cookie:
            self.cookies[need.host] = cookie  # host-only: RFC 6265 5.3, step 6

    def _take(self, need: Need) -> Connection:
        with self._lock:
            pool = self._idle.setdefault(self._pool_of(need), [])
            if pool:
                return pool.pop()
            self._opened += 1
            number = self._opened
        sock = self._life.track(self._connect(need))
        sock.settimeout(self._silence_s)
        no_delay(sock)
        if need.https:
            sock = self._wrap(sock, need.host)
        return Connection(sock, number, memoryview(bytearray(_BUFFER)))

    def _wrap(self, sock: socket.socket, host: str) -> socket.socket:
        if self._tls is None:
            raise ExperimentError(f"{host} wants TLS", remedy="give the browser a TLS context")
        try:
            wrapped = self._tls.wrap_socket(sock, server_hostname=host)
        except OSError as error:
            raise PeerVanished(f"TLS with {host} failed: {error.strerror or error}") from error
        self._life.drop(sock)  # an empty shell: the descriptor went over
        return self._life.track(wrapped)


def references(document: bytes) -> list[tuple[str, str]]:
    """Hosts and paths of the objects that a page's document refers to."""
    return [(host.decode(), path.decode()) for host, path in _REFERENCE.findall(document)]


def _check(asked: Message, answer: Message) -> None:
    what = f"{asked.header('Host')}{asked.path}"
    if answer.status >= 400:
        raise ExperimentError(f"{what}: status {answer.status}")
    if not answer.intact:
        raise ExperimentError(f"{what}: the body was corrupted on the way (its digest differs)")
