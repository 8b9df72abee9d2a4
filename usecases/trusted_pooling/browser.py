"""The phone's applications: a browser, a video player, a chat that asks for news.

Each asks the connection manager for connections and says what for; which paths these use is not
its concern.  An exchange is sensitive when it shows who the user is and no TLS protects it.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from testbed.errors import ExperimentError
from usecases.trusted_pooling import web
from usecases.trusted_pooling.channel import Channel
from usecases.trusted_pooling.manager import Connection, Manager
from usecases.trusted_pooling.plan import BROWSING, VIDEO
from usecases.trusted_pooling.policy import Purpose

_PARALLEL = 3  # connections for a page's objects
_READ = 65_536
_SEGMENT = 131_072  # bytes of a video segment
_AHEAD = 8  # segments asked for ahead: more than the paths hold


Tell = Callable[[str, float], None]


def _exchange(channel: Channel, request: bytes, phase: str, tell: Tell) -> web.Message:
    """Ask and wait for the answer; what names a `phase` is sensitive, unless TLS protects it."""
    started = time.monotonic()
    channel.send(request, sensitive=phase)
    answer = web.read_message(channel.reader)
    if answer is None:
        raise ExperimentError(f"{channel.name}: the server closed the connection")
    if phase and not channel.secure:
        tell(phase, time.monotonic() - started)
    return answer


class Visit(NamedTuple):
    """How long a login and the page after it took (s), and the page's size (bytes)."""

    login_s: float
    page_s: float
    size: int


class Browser:
    """Visits sites of one server; `tell(phase, seconds)` hears of sensitive exchanges."""

    def __init__(self, manager: Manager, server: str, authority: str, tell: Tell) -> None:
        self._manager, self._server, self._tell = manager, server, tell
        self._tls = ssl.create_default_context(cafile=authority)

    def visit(self, site: web.Site) -> Visit:
        """Log in, then open the page; connections are the page's own."""
        started = time.monotonic()
        personal = self._connect(site, Purpose.OTHER if site.tls else Purpose.SENSITIVE, "personal")
        form = f"user={site.user}&password={site.password}"
        login = self._exchange(personal, web.request("/login", site.name, form=form), BROWSING)
        cookie = login.headers["set-cookie"].split(";")[0]
        logged_in = time.monotonic()
        page = web.request(f"/?bytes={site.html}", site.name, cookie=cookie)
        size = len(self._exchange(personal, page, BROWSING).body)
        size += self._objects(site)
        done = time.monotonic()
        personal.close()
        return Visit(logged_in - started, done - logged_in, size)

    def _connect(self, site: web.Site, purpose: Purpose, what: str) -> Connection:
        port = web.HTTPS_PORT if site.tls else web.HTTP_PORT
        connection = self._manager.open((self._server, port), purpose, f"{site.name}-{what}")
        if site.tls:
            connection.channel.start_tls(self._tls, site=site.name)
        return connection

    def _exchange(self, connection: Connection, request: bytes, phase: str) -> web.Message:
        return _exchange(connection.channel, request, phase, self._tell)

    def _objects(self, site: web.Site) -> int:
        shares = [list(enumerate(site.objects))[n::_PARALLEL] for n in range(_PARALLEL)]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return sum(pool.map(lambda share: self._fetch(site, share), filter(None, shares)))

    def _fetch(self, site: web.Site, objects: list[tuple[int, int]]) -> int:
        connection = self._connect(site, Purpose.OTHER, f"objects-{objects[0][0]}")
        size = 0
        for number, length in objects:
            request = web.request(f"/object{number}?bytes={length}", f"static.{site.name}")
            size += len(self._exchange(connection, request, "").body)
        connection.close()
        return size


class Video:
    """A download in segments that is watched for a while; `received` counts its bytes."""

    def __init__(self, manager: Manager, server: str) -> None:
        self._manager, self._server = manager, server
        self.received = 0

    def watch(self, seconds: float) -> None:
        """Download for `seconds`; ask for segments ahead, so that the paths are never idle."""
        connection = self._manager.open((self._server, web.HTTP_PORT), Purpose.OTHER, "video")
        channel = connection.channel
        until, asked, taken = time.monotonic() + seconds, 0, 0
        while taken < asked or time.monotonic() < until:
            while asked - taken < _AHEAD and time.monotonic() < until:
                path = f"/video{asked}?bytes={_SEGMENT}"
                channel.send(web.request(path, f"video.{web.DOMAIN}"))
                asked += 1
            self._take_segment(channel)
            taken += 1
        connection.close()

    def _take_segment(self, channel: Channel) -> None:
        head = web.read_head(channel.reader)
        left = int(head.headers["content-length"]) if head else 0
        while left:
            data = channel.reader.read1(min(left, _READ))
            if not data:
                raise ExperimentError("the server closed the video's connection")
            left -= len(data)
            self.received += len(data)


class Chat(threading.Thread):
    """Asks for news at regular times with its cookie, in the clear, until it is stopped."""

    def __init__(self, manager: Manager, server: str, beat_s: float, tell: Tell) -> None:
        super().__init__(name="chat", daemon=True)
        self._manager, self._server, self._beat_s, self._tell = manager, server, beat_s, tell
        self._stop_asked = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Ask, wait for the next beat, ask."""
        try:
            connection = self._manager.open(
                (self._server, web.HTTP_PORT), Purpose.SENSITIVE, "chat"
            )
            request = web.request(
                "/inbox?bytes=1500", f"chat.{web.DOMAIN}", cookie="session=chat-42"
            )
            while not self._stop_asked.wait(self._beat_s):
                _exchange(connection.channel, request, VIDEO, self._tell)
            connection.close()
        except Exception as error:  # raised again by `finish`, in the thread that can tell
            self.error = error

    def finish(self) -> None:
        """Stop asking; raises what went wrong."""
        self._stop_asked.set()
        self.join()
        if self.error is not None:
            raise self.error
