"""Commands for the shell in a guest, over its virtio serial port (the guest's side: files/init).

    host to guest   run ID SIZE GIVEN\\n  and SIZE bytes of shell, GIVEN bytes for its input
                    do ID LINES\\n       and these lines of shell: for short ones, sooner done
    guest to host   ID STATUS SIZE\\n  and SIZE bytes of what it said

The guest does one after the other.  Its answer with ID 0 says that it is up.

A guest that has been migrated answers at another end than the one at which it was asked: the
agents at both ends share what they wait for (`successor`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shlex
import socket
from dataclasses import dataclass, field

from testbed.errors import ExperimentError

READY = 0
_SHORT = 1000  # bytes: the guest's shell reads a line byte by byte

Answer = tuple[int, str]
"""Status, and what the command said."""


@dataclass
class _Conversation:
    """What has been asked of one guest, whichever end its answers come from."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(READY + 1))
    awaited: dict[int, asyncio.Future[Answer]] = field(default_factory=dict)
    ends: int = 0


class Agent:
    """The host's end of the port of the guest called `name`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        name: str,
        asked: _Conversation,
    ) -> None:
        self.name = name
        self._reader, self._writer, self._asked = reader, writer, asked
        self._asked.ends += 1
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, end: socket.socket, name: str, *, booted: bool = False) -> Agent:
        """Take the port's end; a guest that has `booted` before does not say so again."""
        asked = _Conversation()
        if not booted:
            asked.awaited[READY] = asyncio.get_running_loop().create_future()
        return cls(*await asyncio.open_connection(sock=end), name, asked)

    async def successor(self, end: socket.socket) -> Agent:
        """The same guest's agent behind another end, where it has been migrated to."""
        return Agent(*await asyncio.open_connection(sock=end), self.name, self._asked)

    async def run(self, script: str, *, given: bytes = b"", limit_s: float = 30.0) -> str:
        """What `script` said; `given` is its standard input.

        Raises `ExperimentError` when it failed or is not done by `limit_s`.
        """
        status, said = await self.ask(script, given=given, limit_s=limit_s)
        if status != 0:
            first = (said.strip().splitlines() or ["nothing said"])[0]
            raise ExperimentError(f"guest {self.name}: status {status}: {first}")
        return said

    async def ask(self, script: str, *, given: bytes = b"", limit_s: float = 30.0) -> Answer:
        """Status of `script`, and what it said; `ExperimentError` if not done by `limit_s`."""
        async with self._asked.turn:
            number = next(self._asked.numbers)
            self._asked.awaited[number] = asyncio.get_running_loop().create_future()
            self._writer.write(_request(number, script.encode(), given))
            return await self._answer(number, limit_s, script)

    async def put(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Write a file in the guest, with the folders that lead to it."""
        name = shlex.quote(path)
        mode = "755" if executable else "644"
        script = f'set -e; mkdir -p "$(dirname {name})"; cat >{name}; chmod {mode} {name}'
        await self.run(script, given=data)

    async def ready(self, limit_s: float) -> str:
        """What the guest says of itself when it is up; "" from one that was up before."""
        if READY not in self._asked.awaited:
            return await self.run(":", limit_s=limit_s)
        return (await self._answer(READY, limit_s, "booting"))[1]

    async def close(self) -> None:
        """Close this end."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):  # QEMU closed it first
            await self._writer.wait_closed()

    async def _answer(self, number: int, limit_s: float, what: str) -> Answer:
        """The answer `number`, whose asker gives up after `limit_s`."""
        awaited = self._asked.awaited
        if not self._asked.ends:
            self._fail()
        try:
            return await asyncio.wait_for(asyncio.shield(awaited[number]), limit_s)
        except TimeoutError as error:
            line = what.strip().partition("\n")[0]
            raise ExperimentError(
                f"guest {self.name} is not done after {limit_s:.0f} s ({line})"
            ) from error
        finally:
            if number != READY:
                del awaited[number]

    async def _listen(self) -> None:
        """Take answers until the other end is gone; those that nobody waits for are passed by."""
        try:
            while True:
                head = await self._reader.readuntil(b"\n")
                number, status, size = map(int, head.split())
                said = (await self._reader.readexactly(size)).decode(errors="replace")
                future = self._asked.awaited.get(number)
                if future is not None and not future.done():
                    future.set_result((status, said))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._asked.ends -= 1
            if not self._asked.ends:
                self._fail()

    def _fail(self) -> None:
        for future in self._asked.awaited.values():
            if not future.done():
                future.set_exception(ExperimentError(f"guest {self.name} is gone"))
                future.exception()  # whoever has given up need not be told


def _request(number: int, script: bytes, given: bytes) -> bytes:
    if given or len(script) > _SHORT:
        return b"run %d %d %d\n" % (number, len(script), len(given)) + script + given
    return b"do %d %d\n%s\n" % (number, script.count(b"\n") + 1, script)
