"""An HTTP server, and what the sites of a `Web` answer, by their Host header.

Who logs in (POST /login with the right credentials) gets the session cookie; what is asked for
with that cookie is personal and is filled with marked bytes (`traffic.pattern.HIGH`), everything
else with unmarked ones.  Any other path of the form /blob/BYTES is a file of that size.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache

from testbed.errors import TestbedError
from traffic.program import Life, Stopped, Tasks
from traffic.sockets import no_delay
from traffic.web.http import HttpError, Message, Parser, response
from traffic.web.site import Site, Web, WebObject

_BUFFER = 1 << 16
_LARGEST_BLOB = 1 << 30
_LOGIN_FORM = (
    b'<!doctype html><title>login</title><form action="/login" method="post">'
    b'<input name="user"><input name="password" type="password"></form>'
)


class Answers:
    """What the sites of a web answer; no I/O."""

    def __init__(self, web: Web) -> None:
        self._hosts: Mapping[str, Site] = {
            host: site for site in web.all_sites for host in (site.host, site.static_host)
        }
        self._objects = lru_cache(maxsize=64)(_objects)

    def answer(self, asked: Message) -> Message:
        """The response to one request."""
        if asked.path.startswith("/blob/"):
            return _blob(asked.path)
        site = self._hosts.get(asked.header("Host"))
        if site is None:
            return response(404, b"no such site\n", "text/plain")
        if asked.path == "/login":
            return self._login(site, asked)
        known = site.session in asked.cookie.split("; ")
        return self._page(site, asked, known)

    @staticmethod
    def _login(site: Site, asked: Message) -> Message:
        if asked.method != "POST":
            return response(200, _LOGIN_FORM)
        if asked.body != site.credentials:
            return response(403, b"wrong user or password\n", "text/plain")
        cookie = ("Set-Cookie", f"{site.session}; Path=/; HttpOnly")
        return response(303, b"", "text/html", ("Location", "/p0/"), cookie)

    def _page(self, site: Site, asked: Message, known: bool) -> Message:
        number = _page_number(asked.path)
        if number is None or number >= site.pages:
            return response(404, b"no such page\n", "text/plain")
        if asked.path == f"/p{number}/":
            return response(200, site.page(number).html(sensitive=known))
        item = self._objects(site, number).get((asked.header("Host"), asked.path))
        if item is None:
            return response(404, b"no such object\n", "text/plain")
        personal = known and item.host == site.host
        return response(200, item.content(sensitive=personal), item.mime)


def _objects(site: Site, number: int) -> dict[tuple[str, str], WebObject]:
    return {(item.host, item.path): item for item in site.page(number).objects}


def _page_number(path: str) -> int | None:
    first = path.split("/")[1] if path.startswith("/") else ""
    return int(first[1:]) if first[:1] == "p" and first[1:].isdecimal() else None


def _blob(path: str) -> Message:
    text = path.split("/")[2].partition("?")[0]
    if not text.isdecimal() or int(text) > _LARGEST_BLOB:
        return response(404, b"no such blob\n", "text/plain")
    item = WebObject(host="", path=path, mime="application/octet-stream", size=int(text))
    return response(200, item.content(), item.mime)


class Server:
    """Answers on listening sockets, a thread for each connection, until told to stop."""

    def __init__(
        self,
        life: Life,
        answer: Callable[[Message], Message],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._life, self._answer, self._context = life, answer, context
        self.requests = self.bytes_sent = self.bytes_received = self.failed = 0

    def serve(self, clear: socket.socket, tls: socket.socket | None = None) -> None:
        """Accept and answer; returns when the program is told to stop."""
        tasks = Tasks()
        listeners = [clear, *([tls] if tls is not None else [])]
        try:
            while True:
                connection, listener = self._life.accept(*listeners)
                tasks.start(self._connection, connection, listener is tls)
        except Stopped:
            tasks.join()

    def _connection(self, connection: socket.socket, over_tls: bool) -> None:
        try:
            no_delay(connection)
            if over_tls and self._context is not None:
                connection = self._wrap(connection, self._context)
            self._converse(connection)
        except (OSError, TestbedError) as error:
            if not self._life.stopping:
                self.failed += 1
                self._life.emit.event("failed", error=str(error))
        finally:
            self._life.drop(connection)

    def _wrap(self, connection: socket.socket, context: ssl.SSLContext) -> socket.socket:
        wrapped = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._life.drop(connection)  # an empty shell: the descriptor went over
        self._life.track(wrapped)
        wrapped.do_handshake()
        return wrapped

    def _converse(self, connection: socket.socket) -> None:
        parser = Parser()
        while data := connection.recv(_BUFFER):
            self.bytes_received += len(data)
            parser.feed(data)
            while parser.messages:
                answer = self._answer(parser.messages.popleft()).build()
                self.requests += 1
                self.bytes_sent += len(answer)
                connection.sendall(answer)
        if parser.pending:
            raise HttpError("a client vanished in the middle of a request")
