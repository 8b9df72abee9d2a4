"""Carries a domain's console: to its log, its agent and its reports, and from the agent back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

from testbed.guests.xen.console import Answer, Report, Said, Splitter

_AT_ONCE = 1 << 16
_UP = b"up "


class Line:
    """The console at `end`, until it ends.

    `agent` and `reports` are the ends that agent and reports are read from; what the console
    says besides is in `text`, and is added to the file `log` if there is one.
    """

    def __init__(self, end: socket.socket, log: Path | None) -> None:
        self.text = bytearray()
        self._end, self._log = end, log
        self.agent, self._agent = socket.socketpair()
        self.reports, self._reports = socket.socketpair()
        for each in (self._agent, self._reports):
            each.setblocking(False)
        self._splitter = Splitter()

    async def up(self) -> str | None:
        """Wait for the line with which the domain begins; its number, None if it does not come."""
        said = b""
        while not said.endswith(b"\n"):
            data = await self._heard(1)  # what follows is the domain's
            if not data:
                return None
            said += data
        return said.removeprefix(_UP).decode().strip()

    async def carry(self) -> None:
        """Carry all that is said until the console ends."""
        back = asyncio.create_task(self._back())
        try:
            while data := await self._heard(_AT_ONCE):
                for said in self._splitter.feed(data):
                    await self._deliver(said)
            for said in self._splitter.end():
                await self._deliver(said)
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            self._agent.close()
            self._reports.close()

    def hang_up(self) -> None:
        """Let nothing more be heard: `carry` ends."""
        with contextlib.suppress(OSError):  # the other end has
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the ends that nobody has taken."""
        for each in (self.agent, self._agent, self.reports, self._reports):
            each.close()

    async def _heard(self, most: int) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._end, most)
        except ConnectionError:  # QEMU ended with words of ours unread
            return b""

    async def _back(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):  # the console has ended
            while data := await loop.sock_recv(self._agent, _AT_ONCE):
                await loop.sock_sendall(self._end, data)

    async def _deliver(self, said: Said) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(said, Answer):
            await loop.sock_sendall(self._agent, said.data)
        elif isinstance(said, Report):
            await loop.sock_sendall(self._reports, said.data)
        else:
            self._note(said.data)

    def _note(self, text: bytes) -> None:
        self.text += text
        if self._log is not None:
            with self._log.open("ab") as file:
                file.write(text)
