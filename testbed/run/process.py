"""A program inside a node that talks to the experiment in lines of JSON.

The child writes one object a line on standard output: `ready`, `sample`, `event`, `done` (its
"kind"), with times of CLOCK_MONOTONIC, which all nodes share; it may read objects from standard
input.  Samples and events go to the recorder as they come.  Standard error goes to logs/.

A child that dies before it said `done` ends the trial (`Recorder.fail`), whatever the
experiment waits for at that moment.  What the programs do is `traffic`'s business.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any, Self

from testbed.errors import NodeProcessError, TestbedError
from testbed.run.recorder import Recorder

_STOP_S = 2.0  # between SIGTERM and SIGKILL
_DRAIN_S = 1.0  # for the last lines in the pipe
_LINE_BYTES = 1 << 20


class NodeProcess:
    """A running program in a node; make it with `await NodeProcess.start(...)`.

    It is stopped when the trial ends, or when an `async with` block over it does.
    """

    def __init__(
        self, node: Any, argv: Sequence[str], record: Recorder, *, name: str, check: bool
    ) -> None:
        self.node_name = str(node.name)
        self.name = name
        self.argv = list(argv)
        self.results: dict[str, Any] | None = None
        self._record = record
        self._check = check
        self._log = record.log_path(name)
        self._stopping = False
        self._ready: dict[str, Any] | None = None
        self._events: list[dict[str, Any]] = []
        self._error: NodeProcessError | None = None
        self._changed = asyncio.Event()
        self._popen = self._spawn(node)
        self._life = asyncio.ensure_future(self._live())

    @classmethod
    async def start(
        cls,
        node: Any,
        argv: Sequence[str],
        record: Recorder,
        *,
        name: str = "",
        check: bool = True,
    ) -> Self:
        """Start `argv` in `node`; `name` is the source of its samples and names its log.

        With `check=False` its death is not the trial's: the caller asks for `status`.  Raises
        `NodeProcessError` when the program cannot be started.
        """
        process = cls(node, argv, record, name=name or str(node.name), check=check)
        record.defer(process.stop)
        return process

    def _spawn(self, node: Any) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        with open(self._log, "ab") as log:
            try:
                child: subprocess.Popen[bytes] = node.popen(
                    self.argv, stdin=pipe, stdout=pipe, stderr=log
                )
            except OSError as error:
                raise NodeProcessError(
                    f"{self._who}: cannot start: {error.strerror}", remedy="is it installed?"
                ) from error
        return child

    @property
    def pid(self) -> int:
        """The program's process id (inside the sandbox)."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Its exit status (-n for signal n), or None while it runs."""
        return self._popen.returncode

    @property
    def _who(self) -> str:
        program = os.path.basename(self.argv[0])
        if len(self.argv) > 2 and self.argv[1] == "-m":
            program = self.argv[2]
        return f"{self.name} ({program}) in node {self.node_name}"

    # -- what the experiment asks ----------------------------------------------------------------

    async def send(self, message: dict[str, Any]) -> None:
        """Write one object to the program's standard input."""
        stdin = self._popen.stdin
        assert stdin is not None
        data = json.dumps(message).encode() + b"\n"
        try:
            # a program that does not read must not stop the experiment's event loop
            await asyncio.get_running_loop().run_in_executor(None, _write_all, stdin.fileno(), data)
        except OSError as error:
            await self._life
            raise self._error or self._death("it no longer reads its input") from error

    async def ready(self, timeout: float = 10.0) -> dict[str, Any]:
        """Wait until the program has said that it is ready; what it said with it."""
        await self._until(lambda: self._ready is not None, timeout, "be ready")
        assert self._ready is not None
        return self._ready

    async def event(self, name: str, timeout: float) -> dict[str, Any]:
        """Wait for the program's first event called `name` (past ones count)."""

        def found() -> dict[str, Any] | None:
            return next((each for each in self._events if each.get("name") == name), None)

        await self._until(lambda: found() is not None, timeout, f"report {name!r}")
        event = found()
        assert event is not None
        return event

    async def done(self, timeout: float) -> dict[str, Any]:
        """Wait until the program is done and has ended; its results."""
        await self._until(
            lambda: self.results is not None and self.status is not None, timeout, "be done"
        )
        assert self.results is not None
        return self.results

    async def stop(self) -> None:
        """End the program (SIGTERM, then SIGKILL) if it runs still."""
        self._stopping = True
        if not self._life.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait({self._life}, timeout=_STOP_S)
        if not self._life.done():
            self._signal(signal.SIGKILL)
        await asyncio.wait({self._life})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def _until(self, condition: Any, timeout: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self._error is None and not condition():
                    if self.status is not None:
                        raise self._death(f"it ended before it could {what}")
                    self._changed.clear()
                    await self._changed.wait()
            if self._error is not None:
                raise self._error
        except TimeoutError:
            raise NodeProcessError(
                f"{self._who}: did not {what} within {timeout:g} s{self._last_words()}",
                remedy=f"see {self._log.name} in the bundle's logs",
            ) from None

    def _signal(self, number: int) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(number)

    # -- what the program says -------------------------------------------------------------------

    async def _live(self) -> None:
        """Take the program's lines until it ends, then judge how it did."""
        lines = asyncio.ensure_future(self._read())
        await wait_for_exit(self._popen)
        # a grandchild may hold the pipe open: what the program itself wrote is there already
        await asyncio.wait({lines}, timeout=_DRAIN_S)
        lines.cancel()
        await asyncio.gather(lines, return_exceptions=True)
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        if not self._stopping and self._error is None and (self.results is None or self.status):
            self._fail(_how_it_ended(self.status or 0))
        self._changed.set()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._popen.stdout is not None
        reader = asyncio.StreamReader(limit=_LINE_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, self._popen.stdout)
        line = b""
        try:
            while line := await reader.readline():
                self._take(line)
                self._changed.set()
        except (ValueError, KeyError, TypeError, AttributeError):
            self._fail(f"wrote {line[:60]!r}, which is not a line of the protocol")
            self._signal(signal.SIGKILL)
        except TestbedError as error:  # a full disk: the trial's failure, not the program's
            self._record.fail(error)
        finally:
            transport.close()

    def _take(self, line: bytes) -> None:
        message = json.loads(line)
        kind = message.pop("kind")
        if kind == "sample":
            self._record.sample(
                message.get("source", self.name), message["metric"], message["value"],
                message["unit"], message["time"] - self._record.epoch,
            )  # fmt: skip
        elif kind == "event":
            self._events.append(dict(message))
            when = message.pop("time") - self._record.epoch
            self._record.event(message.pop("name"), time_s=when, source=self.name, **message)
        elif kind == "ready":
            self._ready = message
        elif kind == "done":
            self.results = message
        else:
            raise ValueError(f"kind {kind!r}")

    def _fail(self, how: str) -> None:
        self._error = self._death(how)
        if self._check:
            self._record.fail(self._error)

    def _death(self, how: str) -> NodeProcessError:
        return NodeProcessError(
            f"{self._who} {how}{self._last_words()}",
            remedy=f"see {self._log.name} in the bundle's logs",
        )

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()[:200]}" if lines else ""


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"died with exit status {status}" if status else "ended without saying that it is done"


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


async def wait_for_exit(popen: subprocess.Popen[bytes]) -> None:
    """Reap `popen` without polling (pidfd_open(2))."""
    if popen.poll() is not None:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(popen.pid)
    try:
        loop.add_reader(descriptor, _settle, ended)
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    popen.wait()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
