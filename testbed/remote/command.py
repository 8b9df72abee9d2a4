"""A command on the other machine: its output as it comes, Ctrl-C, a terminal, its exit status."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.errors import MachineError, TestbedError
from testbed.remote.connection import Connection
from testbed.remote.far.wire import (
    ANSWER,
    CHUNK,
    ERRORS,
    INPUT,
    INPUT_END,
    OUTPUT,
    SIGNAL,
    SIZE,
)
from testbed.remote.session import PATIENCE_S, Session

_PASSED_ON = ("TERM", "LANG", "COLORTERM", "NO_COLOR", "SOURCE_DATE_EPOCH")


class Streams:
    """Where a command's output goes, and where its input comes from: this process's own streams.

    `terminal` are those of "input", "output" and "errors" that are to be a terminal there.
    """

    def __init__(self, *, reads: bool = False) -> None:
        names = {"output": sys.stdout, "errors": sys.stderr}
        self.reads = reads
        self.terminal = [name for name, stream in names.items() if stream.isatty()]
        if reads and os.isatty(0) and len(self.terminal) == 2:
            self.terminal.append("input")

    def write(self, kind: bytes, data: bytes) -> None:
        """Called with each piece of OUTPUT or ERRORS."""
        stream = sys.stdout if kind == OUTPUT else sys.stderr
        stream.buffer.write(data)
        stream.buffer.flush()


class Captured(Streams):
    """Output that is kept; errors too, apart from it.  No input, no terminal."""

    def __init__(self) -> None:
        self.reads = False
        self.terminal = []
        self._data = {OUTPUT: bytearray(), ERRORS: bytearray()}

    def write(self, kind: bytes, data: bytes) -> None:
        """Keep it."""
        self._data[kind] += data

    @property
    def output(self) -> str:
        """All of it so far."""
        return self._data[OUTPUT].decode(errors="replace")

    @property
    def last_words(self) -> str:
        """The last line that was said, rather in errors than in output."""
        both = bytes(self._data[OUTPUT] + b"\n" + self._data[ERRORS])
        lines = both.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "nothing said"


def run(
    connection: Connection,
    argv: Sequence[str],
    *,
    folder: str = "~",
    environment: Mapping[str, str] | None = None,
    streams: Streams | None = None,
    limit_s: float = math.inf,
    patience_s: float = PATIENCE_S,
) -> int:
    """Run a command there and return its exit status (128 + n for signal n).

    Without `argv` it is the user's login shell.  Ctrl-C goes to the command; a second one ends it
    with all it started.  Raises `MachineError` where it cannot be started or is not done within
    `limit_s`, and `LinkLost`.
    """
    streams = streams or Streams()
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    order = {
        "do": "run",
        "argv": list(argv),
        "folder": folder,
        "environment": {**passed, **(environment or {})},
        "input": streams.reads,
        "terminal": streams.terminal,
        "size": _size(),
    }
    with Session(connection, order, patience_s=patience_s) as session, _attached(session, streams):
        return _follow(session, streams, limit_s)


def _follow(session: Session, streams: Streams, limit_s: float) -> int:
    interrupted, deadline = False, time.monotonic() + limit_s
    while True:
        try:
            kind, payload = session.receive(deadline)
            if kind == ANSWER:
                status: int = json.loads(payload)["status"]
                return status if status >= 0 else 128 - status
            streams.write(kind, payload)
        except TimeoutError:
            raise MachineError(
                f"{session.name}: not done after {limit_s:.0f} s, and ended"
            ) from None
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            session.send(SIGNAL, bytes([signal.SIGINT]))


# -- this side's terminal ------------------------------------------------------------------------


@contextlib.contextmanager
def _attached(session: Session, streams: Streams) -> Iterator[None]:
    """Input, and the size of the window, go to the command meanwhile."""
    with contextlib.ExitStack() as stack:
        if streams.reads:
            threading.Thread(target=_send_input, args=(session,), daemon=True).start()
        if "input" in streams.terminal:
            stack.enter_context(_raw())
        if streams.terminal and threading.current_thread() is threading.main_thread():
            stack.enter_context(_following_size(session))
        yield


def _send_input(session: Session) -> None:
    with contextlib.suppress(TestbedError):  # `_follow` raises it
        while piece := os.read(0, CHUNK):
            session.send(INPUT, piece)
        session.send(INPUT_END)


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Every key goes there, Ctrl-C too."""
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed already counts
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _following_size(session: Session) -> Iterator[None]:
    def changed(_number: int, _frame: Any) -> None:
        # not from here: the interrupted main thread may be sending
        words = (SIZE, struct.pack(">HH", *_size()))
        threading.Thread(target=session.send, args=words, daemon=True).start()

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _size() -> tuple[int, int]:
    """Rows and columns of the terminal here."""
    size = shutil.get_terminal_size()
    return size.lines, size.columns
