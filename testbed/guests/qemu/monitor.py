"""QEMU's monitor (QMP): commands with a time limit, and every event with QEMU's own time.

The protocol is qemu.qmp's.  Ours is that errors name the machine and what was asked, that no
event is missed, and that who waits for one is told when the machine is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from testbed.errors import ExperimentError

_LIMIT_S = 30.0
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what it logs, we raise


@dataclass(frozen=True)
class Event:
    """What QEMU said; `time_s` is seconds since the epoch, by QEMU's clock reading."""

    name: str
    time_s: float
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Event:
        """From a QMP event message."""
        stamp = message["timestamp"]
        time_s = stamp["seconds"] + stamp["microseconds"] / 1e6
        return cls(str(message["event"]), time_s, message.get("data", {}))


class Monitor:
    """A session with the QEMU called `name`, at the other end of a socket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Event] = []
        self._client = QMPClient(name)
        self._news = asyncio.Condition()
        self._gone = False
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, end: socket.socket, name: str) -> Monitor:
        """Greet the QEMU at the other end; `ExperimentError` when it does not answer."""
        monitor = cls(name)
        listener = EventListener()
        monitor._client.register_listener(listener)
        try:
            async with asyncio.timeout(_LIMIT_S):
                await monitor._client.connect(end)
        except (QMPError, EOFError, OSError, TimeoutError) as error:
            raise ExperimentError(f"QEMU of {name} does not answer: {error}") from error
        monitor._tasks = [
            asyncio.create_task(monitor._collect(listener)),
            asyncio.create_task(monitor._watch()),
        ]
        return monitor

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """What QEMU returns; `ExperimentError` when it refuses, is gone, or takes too long."""
        try:
            async with asyncio.timeout(_LIMIT_S):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise ExperimentError(f"QEMU of {self.name}: {command}: {error}") from error
        except (QMPError, TimeoutError) as error:
            what = "does not answer" if isinstance(error, TimeoutError) else "is gone"
            raise ExperimentError(f"QEMU of {self.name} {what} ({command})") from error

    async def hand_over(self, end: socket.socket | IO[bytes], name: str) -> None:
        """Give QEMU a duplicate of a socket or file, as the descriptor called `name`."""
        self._client.send_fd_scm(end.fileno())
        await self.execute("getfd", {"fdname": name})

    async def event(self, wanted: Callable[[Event], bool], *, since: int = 0) -> Event:
        """The first event that is `wanted`, from number `since` of `events` on.

        Raises `ExperimentError` when the machine is gone before it comes.  Waits for ever
        otherwise: give it `asyncio.timeout`.
        """
        async with self._news:
            while True:
                for event in self.events[since:]:
                    if wanted(event):
                        return event
                if self._gone:
                    raise ExperimentError(f"QEMU of {self.name} is gone")
                await self._news.wait()

    @property
    def alive(self) -> bool:
        """Is the session open?"""
        return not self._gone

    async def gone(self) -> None:
        """Wait until the machine is gone."""
        async with self._news:
            await self._news.wait_for(lambda: self._gone)

    async def close(self) -> None:
        """End the session, whatever state it is in."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(QMPError, EOFError, OSError):  # QEMU closed it first
            await self._client.disconnect()

    async def _collect(self, listener: EventListener) -> None:
        async for message in listener:
            async with self._news:
                self.events.append(Event.of(message))
                self._news.notify_all()

    async def _watch(self) -> None:
        while self._client.runstate == Runstate.RUNNING:
            await self._client.runstate_changed()
        async with self._news:
            self._gone = True
            self._news.notify_all()
