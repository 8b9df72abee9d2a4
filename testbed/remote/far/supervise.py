"""Runs a command and sends what it says as it says it; ends all that it started.

The command and everything it starts are descendants of this process, also what tries to get away
(it is their subreaper, see prctl(2)): when the command ends or the link is lost they are killed
until none is left.  On a lost link the command is asked to end first, as when a terminal goes, so
that a run can still say that it is incomplete.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import pwd
import signal
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path
from typing import Any

from testbed.remote.far.wire import (
    ANSWER,
    CHUNK,
    ERRORS,
    INPUT,
    INPUT_END,
    OUTPUT,
    SIGNAL,
    Frame,
    Wire,
    packed,
)

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_S = 5.0  # for a command to end by itself once the link is lost


class Supervisor:
    """One command; `terminal` among its streams ("input", "output", "errors") makes it a pty."""

    def __init__(self, wire: Wire, order: dict[str, Any]) -> None:
        self._wire = wire
        self._terminal = set(order["terminal"])
        self._gone = threading.Event()  # no descendant is left
        self._status = 1
        self._master = -1
        self._input = -1
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        wire.lost = self._hang_up
        wire.signalled = self._signalled
        self._outputs = self._start(order)

    def run(self) -> None:
        """Until the command and all its descendants have ended and their output is sent."""
        threads = [threading.Thread(target=self._forward, args=each) for each in self._outputs]
        threads += [threading.Thread(target=self._reap)]
        threading.Thread(target=self._feed, daemon=True).start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._wire.send(ANSWER, packed({"status": self._status}))

    # -- the command ----------------------------------------------------------------------------

    def _start(self, order: dict[str, Any]) -> list[tuple[int, bytes]]:
        """Start it; the descriptors of its output, each with the kind of its frames."""
        slave = self._open_terminal(order["size"]) if self._terminal else -1
        ends: dict[str, Any] = {}
        for name in ("input", "output", "errors"):
            ends[name] = slave if name in self._terminal else subprocess.PIPE
        if not order["input"] and "input" not in self._terminal:
            ends["input"] = subprocess.DEVNULL
        child = subprocess.Popen(
            order["argv"] or [pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh", "-l"],
            stdin=ends["input"],
            stdout=ends["output"],
            stderr=ends["errors"],
            cwd=os.path.expanduser(order["folder"]),
            env={**os.environ, **order["environment"]},
            start_new_session=True,
            preexec_fn=(lambda: _control(slave)) if self._terminal else None,
        )
        child.returncode = 0  # it is reaped here, with all the others
        self._child = child.pid
        if slave >= 0:
            os.close(slave)
        return self._take_ends(child)

    def _open_terminal(self, size: tuple[int, int]) -> int:
        self._master, slave = pty.openpty()
        self._resize(size)
        return slave

    def _take_ends(self, child: subprocess.Popen[bytes]) -> list[tuple[int, bytes]]:
        outputs = [(self._master, OUTPUT)] if {"output", "errors"} & self._terminal else []
        for pipe, kind in ((child.stdout, OUTPUT), (child.stderr, ERRORS)):
            if pipe:
                outputs.append((os.dup(pipe.fileno()), kind))
                pipe.close()
        if child.stdin:
            self._input = os.dup(child.stdin.fileno())
            child.stdin.close()
        elif "input" in self._terminal:
            self._input = self._master
        return outputs

    def _forward(self, source: int, kind: bytes) -> None:
        while True:
            try:
                piece = os.read(source, CHUNK)
            except OSError:  # a terminal that nobody has open any more
                return
            if not piece:
                return
            self._wire.send(kind, piece)

    def _feed(self) -> None:
        while True:
            kind, payload = self._wire.receive()
            try:
                while kind == INPUT and payload and self._input >= 0:
                    payload = payload[os.write(self._input, payload) :]
            except OSError:  # the command does not read any more
                kind = INPUT_END
            if kind == INPUT_END and self._input not in (-1, self._master):
                os.close(self._input)
                self._input = -1

    # -- signals and ends -----------------------------------------------------------------------

    def _signalled(self, each: Frame) -> None:
        kind, payload = each
        if kind == SIGNAL:
            self._kill_group(payload[0])
        elif self._master >= 0:
            self._resize(struct.unpack(">HH", payload))

    def _resize(self, size: tuple[int, ...]) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def _kill_group(self, number: int) -> None:
        try:
            os.killpg(self._child, number)
        except OSError:  # it has ended
            return

    def _hang_up(self) -> None:
        """The link is lost: end everything, and this process."""
        try:
            self._kill_group(signal.SIGTERM)
            self._gone.wait(_GRACE_S)
            while not self._gone.wait(0.02):
                _kill(_descendants())
        finally:
            os._exit(1)

    def _reap(self) -> None:
        """Wait for the command, then for all that it left, which is killed."""
        ended = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG if ended else 0)
            except ChildProcessError:
                self._gone.set()
                return
            if pid == self._child:
                self._status, ended = os.waitstatus_to_exitcode(status), True
            if ended and pid in (0, self._child):
                _kill(_descendants())
                time.sleep(0.01)


def _control(slave: int) -> None:
    """In the child: make the terminal its own."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:  # it has just ended, or is another user's
            continue


def _descendants() -> list[int]:
    """All processes below this one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found: list[int] = []
    level = [os.getpid()]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        found += level
    return found
