"""Commands in nodes: what a user wrote, programs and servers that run, and when a server is ready.

A command's first word is its node; of the others those that are a node's name are replaced by
its address, as Mininet's command line does.  A server is ready when a socket that was not there
before it waits for peers in its node: TCP's listening, or UDP's bound.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from testbed.errors import KernelError, NodeProcessError, UserError
from testbed.kernel import NetworkNamespace
from testbed.observe import sockets
from testbed.observe.netlink import NETLINK_SOCK_DIAG, Question
from testbed.run.parameters import nearest
from testbed.run.process import wait_for_exit
from testbed.run.recorder import Recorder

SEPARATOR = ",,"
_READY_S, _STOP_S = 30.0, 2.0
_POLL_S = 0.005


@dataclass(frozen=True)
class Command:
    """A program to be run in a node."""

    node: str
    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.node} {shlex.join(self.argv)}"

    @classmethod
    def parse(cls, words: str | Sequence[str], nodes: Sequence[str]) -> Self:
        """A command out of its words (or a line of them, quoted as in a shell).

        Raises `UserError` where the first word is not one of `nodes`, or nothing follows it.
        """
        found = _words(words) if isinstance(words, str) else list(words)
        if not found:
            raise UserError("a command is missing", remedy="write NODE PROGRAM ARGUMENTS...")
        if found[0] not in nodes:
            raise UserError(
                f"{shlex.join(found)}: there is no node {found[0]!r}",
                remedy=nearest(found[0], nodes),
            )
        if len(found) == 1:
            raise UserError(
                f"{found[0]}: the command is missing", remedy="write NODE PROGRAM ARGUMENTS..."
            )
        return cls(found[0], tuple(found[1:]))

    def resolved(self, net: Any) -> list[str]:
        """Its words, names of nodes replaced by their addresses."""
        return [(net[word].IP() or word) if word in net else word for word in self.argv]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UserError(f"{line}: {error}", remedy="close the quotation") from error


def split(words: Iterable[str]) -> list[list[str]]:
    """The commands in `words`, parted by `SEPARATOR`; an empty one stays, to be refused."""
    found: list[list[str]] = [[]]
    for word in words:
        if word == SEPARATOR:
            found.append([])
        else:
            found[-1].append(word)
    return found


class Program:
    """A running command, its output in the bundle's logs; it is ended with the trial."""

    def __init__(self, command: Command, net: Any, record: Recorder, name: str) -> None:
        self.command = command
        self.log = record.log_path(name)
        argv, node = command.resolved(net), net[command.node]
        with open(self.log, "wb") as log:
            try:
                self._popen: subprocess.Popen[bytes] = node.popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            except OSError as error:
                raise NodeProcessError(
                    f"{command}: cannot start {argv[0]}: {error.strerror}",
                    remedy="is it installed?",
                ) from error
        record.defer(self.stop)

    @property
    def status(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Wait until it ends; its exit status (-n for signal n)."""
        await wait_for_exit(self._popen)
        return self._popen.returncode

    async def stop(self) -> None:
        """End it as Ctrl-C does, then by force, with all that it started."""
        for number in (signal.SIGINT, signal.SIGKILL):
            if self.status is not None:
                return
            os.killpg(self._popen.pid, number)
            ending = asyncio.ensure_future(self.wait())
            await asyncio.wait({ending}, timeout=_STOP_S)
            if not ending.done():
                ending.cancel()

    def failure(self, how: str) -> NodeProcessError:
        """What to raise when it went wrong, with the last thing it said."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()[:200]}" if lines else ""
        return NodeProcessError(
            f"{self.command} {how}{last}", remedy=f"see {self.log.name} in the bundle's logs"
        )


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


class Listeners:
    """The sockets of a namespace that wait for peers."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._found: set[bytes] = set()
        with namespace:
            self._questions = [
                Question(NETLINK_SOCK_DIAG, sockets.SOCK_DIAG_BY_FAMILY,
                         sockets.listening_request(family, protocol))
                for family in (socket.AF_INET, socket.AF_INET6)
                for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
            ]  # fmt: skip

    def now(self) -> set[bytes]:
        """Cookies of those that are there."""
        self._found = set()
        for question in self._questions:
            try:
                question.ask(self._take)
            except KernelError as error:
                if error.errno != errno.ENOENT:  # a kernel that cannot tell of UDP (udp_diag)
                    raise
        return self._found

    def _take(self, buffer: bytearray, start: int, _end: int) -> None:
        self._found.add(sockets.cookie(buffer, start))

    def close(self) -> None:
        """Close the netlink sockets."""
        for question in self._questions:
            question.close()


async def serve(command: Command, net: Any, record: Recorder, name: str) -> Program:
    """Start a server and wait until it is ready; should it die later, the trial fails.

    Raises `NodeProcessError` with its last words when it ends first, or takes too long.
    """
    listeners = Listeners(net[command.node].netns)
    before = listeners.now()
    program = Program(command, net, record, name)
    try:
        async with asyncio.timeout(_READY_S):
            while not listeners.now() - before:
                # what turns itself into a daemon ends with 0, and may listen a little later
                if program.status:
                    raise program.failure(how_it_ended(program.status))
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        error = program.failure(f"does not listen after {_READY_S:g} s")
        error.remedy = f"only servers go with --with; run it beside others with {SEPARATOR}"
        raise NodeProcessError(error.message, remedy=error.remedy) from None
    finally:
        listeners.close()
    watch = asyncio.ensure_future(_watch(program, record))
    record.defer(lambda: _cancel(watch))
    return program


async def _watch(program: Program, record: Recorder) -> None:
    status = await program.wait()
    if status:
        record.fail(program.failure(how_it_ended(status)))


async def _cancel(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
