"""Bytes of the player's connections by the path they took, from the server's kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from testbed.observe.changes import Row
from testbed.observe.connections import Connections, Event
from testbed.observe.place import Place
from testbed.run import Recorder

_EVERY_S = 0.02  # how long nothing came is read from it
_ACKED = "tcp.bytes_acked"
_HANDSHAKE = 2  # bytes that are acknowledged of a connection without data


class Subflows:
    """What each path has carried of the video, while its `with` block runs.

    `paths` maps the machine's addresses to names of paths.  Counted is what a TCP connection, or
    a subflow of Multipath TCP, from the server to that address has had acknowledged; each change
    is a sample `subflow` of the path.  A failure is the trial's.
    """

    def __init__(self, record: Recorder, server: Any, paths: Mapping[str, str]) -> None:
        self._record, self._paths = record, paths
        self._rows: list[Row] = []
        self._events: list[Event] = []
        with server.netns:
            self._connections = Connections(
                Place(fd=server.netns.fd, name=str(server.name)), self._rows, self._events
            )
        self._acked: dict[str, tuple[str, float]] = {}
        self._history: dict[str, list[tuple[float, float]]] = {name: [] for name in paths.values()}
        self._task: asyncio.Task[None] | None = None

    def carried(self, path: str) -> float:
        """Bytes that a path has carried so far."""
        return sum(count for name, count in self._acked.values() if name == path)

    def gap_s(self, path: str, since: float, until: float) -> float:
        """How long (s) from `since` on nothing came over a path; times are the trial's."""
        history = self._history[path]
        before = max((count for time_s, count in history if time_s <= since), default=0.0)
        came = (t for t, count in history if since < t <= until and count > before + _HANDSHAKE)
        return next(came, until) - since

    def __enter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        self._task.add_done_callback(self._ended)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._record.fail(error)

    async def _watch(self) -> None:
        while True:
            self._connections.sample()
            self._take()
            await asyncio.sleep(_EVERY_S)

    def _take(self) -> None:
        grown = set()
        for _time, source, metric, value, _unit in self._rows:
            path = self._paths.get(_remote(source))
            if metric == _ACKED and path:
                self._acked[source] = path, value
                grown.add(path)
        self._rows.clear()
        self._events.clear()
        now = self._record.now()
        for path in grown:
            self._history[path].append((now, self.carried(path)))
            self._record.sample(path, "subflow", self.carried(path), "B", now)


def _remote(source: str) -> str:
    """The other end's address in "server 10.0.1.1:80 > 10.0.2.2:40000"."""
    return source.rpartition(" > ")[2].rpartition(":")[0]
