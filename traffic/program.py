"""The life of a traffic program: arguments, stopping, threads, exit status.

A program ends early, and cleanly, on SIGTERM, on SIGINT, when its standard input is a pipe that
closes (its parent died), and on the line {"command": "stop"} there.  `Life.stop` then shuts the
tracked sockets down, so that whatever blocks on them returns; the program's own code reports
what it had.  Other lines there go to `Life.on_command`.  What a program sends and measures is in
its own module.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

from testbed.errors import ExperimentError, TestbedError
from traffic.emit import Emitter

_T = TypeVar("_T")
Results = dict[str, Any]
_STDIN = 0
_GRACE_S = 2.0


class PeerVanished(ExperimentError):
    """The other end closed or reset the connection, or went silent, before the work was done."""


class Stopped(Exception):
    """The program was told to stop while it waited."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """End the program over a bad argument."""
        self.exit(2, f"{self.prog}: error: {message} (--help shows what is allowed)\n")


class Task(Generic[_T]):
    """A thread whose result, or exception, is taken by `join`."""

    def __init__(self, function: Callable[..., _T], *arguments: Any) -> None:
        self._outcome: list[_T] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., _T], arguments: tuple[Any, ...]) -> None:
        try:
            self._outcome.append(function(*arguments))
        except BaseException as error:
            self._failure = error

    @property
    def alive(self) -> bool:
        """Does it still run?"""
        return self._thread.is_alive()

    def join(self) -> _T:
        """Wait for the end; return the function's result or raise its exception."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._outcome[0]


class Tasks:
    """The threads of a server; an exception in one of them is raised, not lost."""

    def __init__(self) -> None:
        self._tasks: list[Task[Any]] = []

    def start(self, function: Callable[..., _T], *arguments: Any) -> Task[_T]:
        """Start one more; raises what one that has ended meanwhile ended with."""
        for task in self._tasks:
            if not task.alive:
                task.join()
        self._tasks = [task for task in self._tasks if task.alive]
        started = Task(function, *arguments)
        self._tasks.append(started)
        return started

    def join(self) -> None:
        """Wait for all of them."""
        for task in self._tasks:
            task.join()


class Life:
    """One run of a program: its emitter, and whether it has been told to stop."""

    def __init__(self, emit: Emitter | None = None) -> None:
        self.emit = emit or Emitter()
        self.on_command: Callable[[dict[str, Any]], None] | None = None
        """Called, in a thread of its own, with each other object read on standard input."""
        self._stop = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        self._sockets: set[socket.socket] = set()
        self._finishing: set[socket.socket] = set()

    @property
    def stopping(self) -> bool:
        """Has the program been told to stop?"""
        return self._stop.is_set()

    def stop(self) -> None:
        """Tell the program to stop: sleepers wake, tracked sockets are shut down."""
        if not self._stop.is_set():
            self._stop.set()
            os.write(self._wake_write, b".")
        for item in list(self._sockets):
            _shut(item)
        grace = threading.Timer(_GRACE_S, self._end_grace)
        grace.daemon = True
        grace.start()

    def _end_grace(self) -> None:
        for item in list(self._finishing):
            _shut(item)

    def finishing(self, item: socket.socket) -> None:
        """Leave a tracked socket 2 s more when the program is told to stop.

        For an exchange whose peer may already know that it succeeded: it must count here too.
        """
        self._finishing.add(item)
        self._sockets.discard(item)

    def close(self) -> None:
        """Give back the descriptors (for tests; a program just ends)."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    def track(self, item: socket.socket) -> socket.socket:
        """Have `item` shut down when the program is told to stop; returns it."""
        self._sockets.add(item)
        if self.stopping:
            _shut(item)
        return item

    def drop(self, item: socket.socket) -> None:
        """Close a tracked socket."""
        self._sockets.discard(item)
        self._finishing.discard(item)
        item.close()

    def sleep(self, seconds: float) -> None:
        """Sleep; raises `Stopped` at once when the program is told to stop."""
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped

    def accept(self, *listeners: socket.socket) -> tuple[socket.socket, socket.socket]:
        """The next connection and the listener it came to; raises `Stopped`.

        The listeners stay open for the program's life: MPTCP needs them for further subflows.
        """
        poller = select.poll()
        by_fd = {item.fileno(): item for item in listeners}
        for fd in (*by_fd, self._wake_read):
            poller.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll()]
            if self._wake_read in ready:
                raise Stopped
            try:
                connection = by_fd[ready[0]].accept()[0]
            except (BlockingIOError, ConnectionAbortedError):
                continue  # the client was gone before we came
            connection.setblocking(True)
            return self.track(connection), by_fd[ready[0]]

    def watch(self) -> None:
        """Begin to listen for signals and for the end of standard input."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(read,), daemon=True).start()

    def _watch(self, signals: int) -> None:
        poller = select.poll()
        poller.register(signals, select.POLLIN)
        if _is_pipe(_STDIN):
            poller.register(_STDIN, select.POLLIN)
        line = b""
        while not self.stopping:
            ready = [fd for fd, _ in poller.poll()]
            if signals in ready:
                self.stop()
            elif data := os.read(_STDIN, 4096):
                *lines, line = (line + data).split(b"\n")
                for each in lines:
                    self._told(each)
            else:
                self.stop()

    def _told(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        if message.get("command") == "stop":
            self.stop()
        elif self.on_command is not None:
            self.on_command(message)


def _shut(item: socket.socket) -> None:
    with contextlib.suppress(OSError):  # not connected any more: nobody waits on it
        item.shutdown(socket.SHUT_RDWR)


def _is_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def run(
    parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace, Life], Results]
) -> NoReturn:
    """Run a program to its end: `main` returns the results, which are written as `done`."""
    options = parser.parse_args()
    life = Life()
    life.watch()
    try:
        life.emit.done(**main(options, life), stopped=life.stopping)
        status = 0
    except BrokenPipeError as error:
        status = _complain(parser.prog, f"nobody reads the results any more ({error})", 1)
    except TestbedError as error:
        status = _complain(parser.prog, str(error), error.exit_status)
    except OSError as error:
        status = _complain(parser.prog, f"{error.strerror or error}", 1)
    _leave(status)


def _complain(prog: str, message: str, status: int) -> int:
    sys.stderr.write(f"{prog}: error: {message}\n")
    return status


def _leave(status: int) -> NoReturn:
    # Threads may still block on sockets of peers that do not matter any more; nothing that the
    # interpreter's own finalisation would do is worth waiting for them.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            status = status or 1
    os._exit(status)


# -- argument types ------------------------------------------------------------------------------

_PREFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}


def amount(text: str) -> float:
    """A positive number with an optional k, M or G (powers of ten): "64k", "2.5M"."""
    factor = _PREFIXES.get(text[-1:], 1.0)
    try:
        value = float(text[:-1] if factor != 1.0 else text) * factor
    except ValueError:
        value = 0.0
    if not 0 < value < 1e18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number like 500, 64k or 2.5M")
    return value


def whole(text: str) -> int:
    """Like `amount`, for what is counted (bytes, packets): at least 1."""
    value = amount(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(value)


def port(text: str) -> int:
    """A port number (0: any free one)."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)
