"""Lines that programs in a guest report, over a virtio serial port of their own.

In the guest it is /dev/reports, which any number of programs may write lines to (of up to 4096
bytes, so that they do not mix).  Nothing is lost when nobody reads here for a while: QEMU holds
the guest back then.  A guest that is migrated goes on at the target's end of the port: what the
source has passed on is read first, so a line may begin at one end and end at the other.

Lines that begin with the byte 1 are not reports but what programs say that were started from here
(`program`): a number, what it is, and the text.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

_AT_ONCE = 1 << 16
_MARK = "\1"


@dataclass(frozen=True)
class Line:
    """One line; `time_s` is when it arrived here, by CLOCK_MONOTONIC."""

    time_s: float
    text: str

    def json(self) -> Any:
        """What the line says, if it is JSON; raises `ValueError` if it is not."""
        return json.loads(self.text)


class Reports:
    """What has been reported by one guest, wherever it runs.

    `received` holds all lines so far.  Iterating (`async for`) yields them from the first on,
    and then each as it comes, until the machine is gone.
    """

    def __init__(self) -> None:
        self.received: list[Line] = []
        self._ends: list[socket.socket] = []  # the last one is where the guest is, or goes to
        self._begun = b""
        self._news = asyncio.Event()
        self._hearing: dict[str, Callable[[str, str], None]] = {}

    def hear(self, number: str, heard: Callable[[str, str], None]) -> None:
        """Call `heard` with each thing that a program says, and its text.

        When the machine is gone it is called with "end".
        """
        self._hearing[number] = heard

    def unhear(self, number: str) -> None:
        """The program has said all."""
        self._hearing.pop(number, None)

    def attach(self, end: socket.socket) -> None:
        """Listen at one more end of the port: the guest's, or that of where it may go to."""
        end.setblocking(False)
        self._ends.append(end)
        asyncio.get_running_loop().add_reader(end, self._read, end)

    def detach(self, end: socket.socket) -> None:
        """Take what is left at an end, and close it."""
        if end in self._ends:
            self._read(end)
        self._let_go(end)

    @property
    def ended(self) -> bool:
        """Is there no machine any more that could report?"""
        return not self._ends

    async def line(self, number: int) -> Line | None:
        """Line `number`, counted from 0, when it is there; None when the machine is gone."""
        while len(self.received) <= number:
            if self.ended:
                return None
            await self._news.wait()
        return self.received[number]

    async def __aiter__(self) -> AsyncIterator[Line]:
        number = 0
        while (line := await self.line(number)) is not None:
            yield line
            number += 1

    def _read(self, end: socket.socket) -> None:
        """Take what an end has, after what those before it have: there the guest was earlier."""
        for each in self._ends[: self._ends.index(end) + 1]:
            while data := self._received(each):
                self._take(data)

    def _received(self, end: socket.socket) -> bytes:
        try:
            data = end.recv(_AT_ONCE)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._let_go(end)
        return data

    def _take(self, data: bytes) -> None:
        now = time.monotonic()
        *whole, self._begun = (self._begun + data).split(b"\n")
        for line in whole:
            text = line.decode(errors="replace")
            if text.startswith(_MARK):
                self._pass_on(text)
            else:
                self.received.append(Line(now, text))
        self._tell()

    def _pass_on(self, marked: str) -> None:
        number, what, text = marked[len(_MARK) :].split(" ", 2)
        if number in self._hearing:
            self._hearing[number](what, text)

    def _let_go(self, end: socket.socket) -> None:
        if end in self._ends:
            self._ends.remove(end)
            asyncio.get_running_loop().remove_reader(end)
            end.close()
            if self.ended:
                for heard in list(self._hearing.values()):
                    heard("end", "")
            self._tell()

    def _tell(self) -> None:
        """Wake whoever waits."""
        self._news.set()
        self._news = asyncio.Event()
