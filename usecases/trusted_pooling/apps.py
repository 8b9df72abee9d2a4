"""The phone's applications: a surfer, a video player, a chat that asks for news.

Each asks the connection manager for connections and says what for; which paths these use is not
its concern.  What shows who the user is (logins, cookies, and the answers to them) is sensitive
unless TLS protects it.  The web itself is `traffic.web`'s.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable

from traffic.program import Life, PeerVanished
from traffic.sockets import no_delay
from traffic.web.browser import Browser, Exchange, Need, PageLoad
from traffic.web.http import Parser, request
from traffic.web.site import Site
from usecases.trusted_pooling.manager import Connection, Manager
from usecases.trusted_pooling.plan import BROWSING, HTTP_PORT, HTTPS_PORT, VIDEO
from usecases.trusted_pooling.policy import Purpose

_READ = 65_536
_SEGMENT = 131_072  # bytes of a video segment
_AHEAD = 8  # segments asked for ahead: more than the paths and their queues hold

Tell = Callable[[str, float], None]


class Session:
    """A browser whose connections come from the manager; closing it closes them all.

    `tell(phase, seconds)` hears of every sensitive exchange when it is over.
    """

    def __init__(
        self, life: Life, manager: Manager, server: str, tls: ssl.SSLContext, *, phase: str,
        tell: Tell,
    ) -> None:  # fmt: skip
        self._manager, self._server, self._phase, self._tell = manager, server, phase, tell
        self._opened: list[Connection] = []
        self.browser = Browser(life, self._connect, tls=tls, on_exchange=self._exchanged)

    def _connect(self, need: Need) -> socket.socket:
        sensitive = need.sensitive and not need.https
        connection = self._manager.open(
            (self._server, HTTPS_PORT if need.https else HTTP_PORT),
            Purpose.SENSITIVE if sensitive else Purpose.OTHER,
            f"{self._phase} {need.host}",
            phase=self._phase if sensitive else "",
        )
        self._opened.append(connection)
        return connection.channel.sock

    def _exchanged(self, exchange: Exchange) -> None:
        if exchange.need.sensitive and not exchange.need.https:
            self._tell(self._phase, exchange.end_s - exchange.start_s)

    def close(self) -> None:
        """Close the browser and its connections."""
        self.browser.close()
        for connection in self._opened:
            connection.close()


class Surfer:
    """Visits sites, each in a session of its own."""

    def __init__(
        self, life: Life, manager: Manager, server: str, tls: ssl.SSLContext, tell: Tell
    ) -> None:
        self._parts = (life, manager, server, tls)
        self._tell = tell

    def visit(self, site: Site) -> PageLoad:
        """Log in, then open a page; how that page loaded."""
        session = Session(*self._parts, phase=BROWSING, tell=self._tell)
        try:
            session.browser.login(site)
            return session.browser.load(site, 0)
        finally:
            session.close()


class Video:
    """A download in segments that is watched for a while; `received` counts its bytes."""

    def __init__(self, manager: Manager, server: str) -> None:
        self._manager, self._server = manager, server
        self.received = 0

    def watch(self, seconds: float) -> None:
        """Download for `seconds`; ask for segments ahead, so that the paths are never idle."""
        remote = (self._server, HTTP_PORT)
        connection = self._manager.open(remote, Purpose.OTHER, "video", phase="")
        channel, parser = connection.channel, Parser()
        no_delay(channel.sock)
        until, asked, taken = time.monotonic() + seconds, 0, 0
        while taken < asked or time.monotonic() < until:
            while asked - taken < _AHEAD and time.monotonic() < until:
                path = f"/blob/{_SEGMENT}?segment={asked}"
                channel.send(request("GET", path, "video.example").build())
                asked += 1
            data = channel.sock.recv(_READ)
            if not data:
                raise PeerVanished("the server closed the video's connection")
            self.received += len(data)
            parser.feed(data)
            taken += len(parser.messages)
            parser.messages.clear()
        connection.close()


class Chat(threading.Thread):
    """Asks a site for news at regular times, with its cookie, until it is told to finish."""

    def __init__(self, session: Session, site: Site, beat_s: float) -> None:
        super().__init__(name="chat", daemon=True)
        self._session, self._site, self._beat_s = session, site, beat_s
        self._stop_asked = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        """Log in, ask, wait for the next beat, ask."""
        try:
            self._session.browser.login(self._site)
            while not self._stop_asked.wait(self._beat_s):
                self._session.browser.get(self._site.host, "/p0/", https=self._site.https)
        except Exception as error:  # raised again by `finish`, in the thread that can tell
            self._error = error
        finally:
            self._session.close()

    def finish(self) -> None:
        """Stop asking; raises what went wrong."""
        self._stop_asked.set()
        self.join()
        if self._error is not None:
            raise self._error


def chat_session(
    life: Life, manager: Manager, server: str, tls: ssl.SSLContext, tell: Tell
) -> Session:
    """The session of a chat: its exchanges belong to the video's phase."""
    return Session(life, manager, server, tls, phase=VIDEO, tell=tell)
