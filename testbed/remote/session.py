"""An order to the far side: the program that does it is sent along, nothing is installed there.

What is sent is an archive of the folder `far`, which python3 there imports from memory.  Then
frames go both ways (`far.wire`) until the order is done, fails, or the link is lost.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import queue
import shlex
import threading
import time
import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from testbed.closing import Closing
from testbed.errors import ExperimentError, FeatureError, MachineError, TestbedError
from testbed.remote.connection import Connection
from testbed.remote.far.wire import (
    ACK,
    ANSWER,
    BEAT,
    CHUNK,
    DATA,
    FAILURE,
    INPUT,
    ORDER,
    WINDOW,
    Decoder,
    Frame,
    frame,
    packed,
)

PATIENCE_S = 30.0
PYTHON = (3, 11)
_PACKAGE = "testbed.remote.far"
_BOOT = f"""
import os, sys
if sys.version_info < {PYTHON}:
    sys.exit("python3 is %d.%d; LiquidNet needs {PYTHON[0]}.{PYTHON[1]}" % sys.version_info[:2])
def get(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit(1)
        data += piece
    return data
archive = os.memfd_create("far")
os.write(archive, get(int(get(8))))
sys.path.insert(0, "/proc/self/fd/%d" % archive)
from {_PACKAGE}.main import main
main()
"""


class LinkLost(ExperimentError):
    """The machine is not heard any more; what ran there ends by itself."""


class Session(Closing):
    """One order on its way, with everything that is said about it."""

    def __init__(
        self, connection: Connection, order: Mapping[str, Any], *, patience_s: float = PATIENCE_S
    ) -> None:
        self.name = connection.name
        self._patience_s = patience_s
        self._frames: queue.Queue[Frame | None] = queue.Queue(2 * WINDOW)  # None: see _error
        self._error: TestbedError | None = None
        self._credit = threading.Semaphore(WINDOW)
        self._writing = threading.Lock()
        self._over = threading.Event()
        sudo = "sudo -n -H " if connection.address.root else ""
        self._channel = connection.channel(f"exec {sudo}python3 -I -c {shlex.quote(_BOOT)}")
        self._channel.settimeout(patience_s)
        program = _program()
        self._write(b"%8d" % len(program) + program)
        self.send(ORDER, packed({**order, "patience_s": patience_s}))
        for work in (self._read, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame; data waits until the other end has taken what was sent before.

        Raises what ended the order, once that is known.
        """
        while kind in (DATA, INPUT) and not self._credit.acquire(timeout=0.1):
            if self._over.is_set():
                break
        if self._error:
            raise self._error
        self._write(frame(kind, payload))

    def receive(self, deadline: float = math.inf) -> Frame:
        """The next frame; raises what ended the order otherwise than by its answer.

        `TimeoutError` when none has come by `deadline`, of the monotonic clock.
        """
        found = self._next(deadline)
        if found is None:
            assert self._error is not None
            raise self._error
        return found

    def _next(self, deadline: float) -> Frame | None:
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                return self._frames.get(timeout=min(left, 3600))
        raise TimeoutError

    def answer(self) -> dict[str, Any]:
        """The next frame, which is an answer."""
        kind, payload = self.receive()
        assert kind == ANSWER
        found: dict[str, Any] = json.loads(payload)
        return found

    def close(self) -> None:
        """Hang up: what was started there ends."""
        self._over.set()
        self._channel.close()

    # -- the channel ----------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        with self._writing:
            try:
                self._channel.sendall(data)
            except OSError:  # `receive` says why
                self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(self._patience_s / 4):
            self._write(frame(BEAT))

    def _read(self) -> None:
        decoder = Decoder()
        try:
            while piece := self._channel.recv(2 * CHUNK):
                for kind, payload in decoder.feed(piece):
                    self._take(kind, payload)
            error = self._why_ended()
        except TimeoutError:
            error = LinkLost(f"{self.name} has not been heard for {self._patience_s:.0f} s")
        except (EOFError, OSError) as reason:
            error = LinkLost(f"the link to {self.name} is lost: {reason}")
        self._end(error)

    def _end(self, error: TestbedError) -> None:
        if self._error is None:
            self._error = error
            self._over.set()
            self._frames.put(None)

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind == ACK:
            self._credit.release()
        elif kind == FAILURE:
            self._end(_failure(self.name, json.loads(payload)))
        elif kind != BEAT:
            self._frames.put((kind, payload))

    def _why_ended(self) -> TestbedError:
        """The stream ended: without python3, or without a link."""
        if not self._channel.exit_status_ready() and not self._channel.status_event.wait(1.0):
            return LinkLost(f"the link to {self.name} is lost")
        status, said = self._channel.recv_exit_status(), self._said()
        if status == 127:
            return FeatureError(f"{self.name} has no python3", remedy="apt-get install python3")
        if status == -1:
            return LinkLost(f"the link to {self.name} is lost")
        return MachineError(f"{self.name}: {said or f'ended with status {status}'}")

    def _said(self) -> str:
        """The last line of the standard errors there."""
        try:
            lines = self._channel.recv_stderr(CHUNK).decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""


def _failure(name: str, said: dict[str, Any]) -> TestbedError:
    if said["kind"] == "full":
        return MachineError(
            f"{name}: disk full ({said['message']})", remedy="make space there, or a larger disk"
        )
    return MachineError(f"{name}: {said['message']}")


@functools.cache
def _program() -> bytes:
    """The archive of the far side's modules, with empty packages above them."""
    out = io.BytesIO()
    above = [str(path) for path in PurePosixPath(_PACKAGE.replace(".", "/")).parents][:-1]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in above:
            archive.writestr(f"{folder}/__init__.py", "")
        for source in resources.files(_PACKAGE).iterdir():
            if source.name.endswith(".py"):
                archive.writestr(f"{_PACKAGE.replace('.', '/')}/{source.name}", source.read_bytes())
    return out.getvalue()
