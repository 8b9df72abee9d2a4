"""Click's ControlSocket: handlers of a running function over a socket, one line a command.

    READ counter.count        200 Read handler 'counter.count' OK
                              DATA 2
                              42
    WRITE shaper.rate 10Mbps  200 Write handler 'shaper.rate' OK

Source: the Click manual, ControlSocket(n), protocol 1.3.  `LIST` is short for `READ list`.
"""

from __future__ import annotations

import contextlib
import os
import socketserver
import threading
from pathlib import Path
from typing import Protocol

from testbed.closing import Closing
from testbed.errors import KernelError, TestbedError
from testbed.vnf.handlers import HandlerError, NoElement, NoHandler

_BANNER = "Click::ControlSocket/1.3"
_LONGEST = 1 << 16
_HELP = (
    "Commands supported:",
    "READ handler            call a read handler, return its result",
    "WRITE handler text      call a write handler with the text",
    "WRITEDATA handler len   the same, with len bytes that follow the line",
    "CHECKREAD handler       is there such a read handler?",
    "CHECKWRITE handler      is there such a write handler?",
    "LIST                    call the read handler `list`",
    "QUIT                    close the connection",
)


class Handled(Protocol):
    """What is controlled: a `Function`."""

    def read(self, handler: str) -> str:
        """What a read handler says."""

    def write(self, handler: str, value: str = "") -> None:
        """Write a handler."""

    def has(self, handler: str, *, write: bool) -> None:
        """Raise `HandlerError` unless there is such a handler."""


class ControlSocket(Closing):
    """Serves a function's handlers on a Unix socket, in threads, until it is closed.

    Raises `KernelError` where the socket cannot be made.
    """

    def __init__(self, function: Handled, path: Path) -> None:
        self.path = path
        try:
            self._server = _Server(function, path)
        except OSError as error:
            raise KernelError(
                error.errno or 0, f"control socket {path}: {error.strerror or error}"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and remove the socket.  May be called again."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, function: Handled, path: Path) -> None:
        self.function = function
        super().__init__(str(path), _Connection)


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self._say(_BANNER)
        with contextlib.suppress(ConnectionError):
            while line := self.rfile.readline(_LONGEST):
                if not self._command(line.decode("utf-8", "replace").strip()):
                    return

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def _command(self, line: str) -> bool:
        """Carry out one line; False to end."""
        word, _, rest = line.partition(" ")
        word, rest = word.upper(), rest.strip()
        if word in ("QUIT", "BYE"):
            self._say("200 Goodbye!")
            return False
        try:
            self._dispatch(word, rest)
        except NoElement as error:
            self._say(f"510 {error}")
        except NoHandler as error:
            self._say(f"511 {error}")
        except HandlerError as error:
            self._say(f"520 {error}")
        except TestbedError as error:
            self._say(f"590 {error}")
        return True

    def _dispatch(self, word: str, rest: str) -> None:
        handler, _, value = rest.partition(" ")
        match word, bool(handler):
            case ("LIST", False):
                self._read("list")
            case ("READ", True):
                self._read(handler)
            case ("WRITE", True):
                self._write(handler, value)
            case ("WRITEDATA", True) if value.isdigit() and int(value) <= _LONGEST:
                self._write(handler, self.rfile.read(int(value)).decode("utf-8", "replace"))
            case ("CHECKREAD" | "CHECKWRITE", True):
                self.server.function.has(handler, write=word == "CHECKWRITE")
                self._say(f"200 {word[5:].capitalize()} handler '{handler}' OK")
            case ("HELP", _):
                self._say(*(f"200-{each}" for each in _HELP[:-1]), f"200 {_HELP[-1]}")
            case ("READ" | "WRITE" | "WRITEDATA" | "CHECKREAD" | "CHECKWRITE" | "LIST", _):
                self._say("501 Wrong number of arguments; HELP tells them")
            case ("", _):
                pass
            case _:
                self._say(f"500 Unimplemented command '{word[:30]}'; HELP lists those there are")

    def _read(self, handler: str) -> None:
        data = self.server.function.read(handler).encode()
        self._say(f"200 Read handler '{handler}' OK", f"DATA {len(data)}")
        self.wfile.write(data)

    def _write(self, handler: str, value: str) -> None:
        self.server.function.write(handler, value)
        self._say(f"200 Write handler '{handler}' OK")
