"""A Xen host: a machine whose dom0 takes our commands.  Here the interface, and this machine.

Four things are asked of a host, so that a domain is made the same way in this machine's own dom0
and in one that is a guest of ours (`xen.dom0`).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from testbed.errors import ExperimentError, FeatureError

_CAPABILITIES = Path("/proc/xen/capabilities")


class Stream(abc.ABC):
    """A program of a Xen host, its input and output at our end of a socket.

    What can be read from `end`, which does not block, ends when the program has.
    """

    end: socket.socket

    @abc.abstractmethod
    async def close(self) -> None:
        """Close our end, and end the program."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


class XenHost(abc.ABC):
    """Where domains are made; `name` is for messages."""

    name: str
    vif_script: str
    """What joins a domain's interface to a bridge, for xl."""
    logs = "/var/log/xen"
    """Where an xl that watches a domain keeps its log."""

    @property
    def alive(self) -> bool:
        """Does it still run?"""
        return True

    @abc.abstractmethod
    async def run(self, script: str, *, limit_s: float = 30.0) -> str:
        """Run shell commands in dom0; what they said.

        Raises `ExperimentError`, with the first line they said, when they fail or take longer
        than `limit_s`.
        """

    @abc.abstractmethod
    async def put(self, path: str, data: bytes) -> None:
        """Write a file of the host's, with the folders that lead to it."""

    @abc.abstractmethod
    async def provide(self, file: Path) -> str:
        """The path at which the host has what is in a file of this machine."""

    @abc.abstractmethod
    async def stream(self, script: str, *arguments: str) -> Stream:
        """Start shell commands with `arguments` in dom0, at one end of a stream."""


class LocalHost(XenHost):
    """This machine, when it runs as a dom0.  `FeatureError` where it does not."""

    vif_script = "vif-bridge"  # Debian's

    def __init__(self) -> None:
        if lacks := missing():
            what, _semicolon, remedy = lacks.partition("; ")
            raise FeatureError(f"no Xen here: {what}", remedy=remedy)
        self.name = "this machine"

    async def run(self, script: str, *, limit_s: float = 30.0) -> str:
        """Run shell commands; what they said."""
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _none = await asyncio.wait_for(process.communicate(), limit_s)
        except BaseException as error:
            _kill(process.pid)
            await process.wait()
            if isinstance(error, TimeoutError):
                line = script.strip().partition("\n")[0]
                raise ExperimentError(
                    f"{self.name} is not done after {limit_s:.0f} s ({line})"
                ) from error
            raise
        said = output.decode(errors="replace")
        if process.returncode:
            first = (said.strip().splitlines() or ["nothing said"])[0]
            raise ExperimentError(f"{self.name}: status {process.returncode}: {first}")
        return said

    async def put(self, path: str, data: bytes) -> None:
        """Write a file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)

    async def provide(self, file: Path) -> str:
        """The file itself."""
        return str(file)

    async def stream(self, script: str, *arguments: str) -> Stream:
        """Start shell commands."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = subprocess.Popen(
                ["sh", "-c", script, "sh", *arguments],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return _Process(ours, process)


@dataclass
class _Process(Stream):
    end: socket.socket
    process: subprocess.Popen[bytes]

    async def close(self) -> None:
        self.end.close()
        _kill(self.process.pid)
        await asyncio.to_thread(self.process.wait)


def missing() -> str:
    """Why this machine is no Xen host ("" if it is), with the remedy."""
    try:
        is_dom0 = "control_d" in _CAPABILITIES.read_text()
    except OSError:
        is_dom0 = False
    remedy = "apt-get install xen-system-amd64 and reboot, or use one that is a guest"
    return "" if is_dom0 else f"this machine is no dom0; {remedy}"


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
