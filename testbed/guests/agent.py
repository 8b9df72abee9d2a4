"""Commands for the shell in a guest, over its virtio serial port (the guest's side: files/init).

    host to guest   ID SIZE\\n  and SIZE bytes of shell
    guest to host   ID STATUS SIZE\\n  and SIZE bytes of what it said

The guest does one after the other.  Its answer with ID 0 says that it is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket

from testbed.errors import ExperimentError

READY = 0


class Agent:
    """The host's end of the port of the guest called `name`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str
    ) -> None:
        self.name = name
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(READY + 1)
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, end: socket.socket, name: str, first: int = READY + 1) -> Agent:
        """Take the port's end; `first` is the number of the first command."""
        agent = cls(*await asyncio.open_connection(sock=end), name)
        agent._numbers = itertools.count(first)
        return agent

    async def run(self, script: str, *, limit_s: float = 30.0) -> str:
        """What `script` said; `ExperimentError` when it failed or is not done by `limit_s`."""
        async with self._turn:
            number = next(self._numbers)
            data = script.encode()
            self._writer.write(f"{number} {len(data)}\n".encode() + data)
            status, said = await self._answer(number, limit_s, script)
        if status != 0:
            first = (said.strip().splitlines() or ["nothing said"])[0]
            raise ExperimentError(f"guest {self.name}: status {status}: {first}")
        return said

    async def ready(self, limit_s: float) -> str:
        """What the guest says of itself when it is up."""
        return (await self._answer(READY, limit_s, "booting"))[1]

    async def successor(self, end: socket.socket) -> Agent:
        """The same guest's agent behind another end, where it has been migrated to."""
        return await Agent.open(end, self.name, next(self._numbers))

    async def close(self) -> None:
        """Close this end."""
        self._writer.close()
        with contextlib.suppress(OSError):  # QEMU closed it first
            await self._writer.wait_closed()

    async def _answer(self, number: int, limit_s: float, what: str) -> tuple[int, str]:
        """The answer `number`; earlier ones, whose askers gave up, are passed by."""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    head = await self._reader.readuntil(b"\n")
                    found, status, size = map(int, head.split())
                    said = await self._reader.readexactly(size)
                    if found == number:
                        return status, said.decode(errors="replace")
        except TimeoutError as error:
            line = what.strip().partition("\n")[0]
            raise ExperimentError(
                f"guest {self.name} is not done after {limit_s:.0f} s ({line})"
            ) from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ExperimentError(f"guest {self.name} is gone") from error
