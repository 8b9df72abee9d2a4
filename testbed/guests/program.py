"""Programs in a guest, used from here as if they were processes of ours (`subprocess.Popen`).

What a program says comes over the guest's port for reports, each line marked with the program's
number and the stream; so do its process number and its exit status.  It is text: a last line ends
with a newline in any case.  A program has no input.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from testbed.errors import ParameterError
from testbed.guests.background import BACKGROUND

if TYPE_CHECKING:
    from testbed.guests.qemu.vm import QemuVm

_numbers = itertools.count(1)
_GONE = -signal.SIGKILL
_BY_SIGNAL = 128  # a shell's status of a program that signal N ended is this and N


class GuestProgram:
    """A program in the guest of `vm`.

    `args` are words, one list of them, or a string (which with `shell=True` is the shell's).
    `stdout` and `stderr` may be PIPE, DEVNULL, and the latter STDOUT; `text` (or
    `universal_newlines`) makes the pipes text; `cwd` and `env` are for the program.

    `pid` is its process number in the guest; signals reach the processes it started too.  When
    the machine is gone, the program has ended by SIGKILL.
    """

    stdin = None

    def __init__(
        self,
        vm: QemuVm,
        args: Sequence[Any],
        *,
        shell: bool = False,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        text: bool = False,
        universal_newlines: bool = False,
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        **_of_this_machine: Any,
    ) -> None:
        self.args = args[0] if len(args) == 1 else list(args)
        self.returncode: int | None = None
        self.pid = 0
        self._vm, self._number = vm, next(_numbers)
        self._started, self._ended = threading.Event(), threading.Event()
        self._pipes: dict[str, asyncio.WriteTransport] = {}
        targets = {"out": stdout, "err": stderr}
        self._streams = [name for name, target in targets.items() if target == subprocess.PIPE]
        script = _script(
            self._number, _command(self.args, shell, cwd, env), **_redirections(stdout, stderr)
        )
        mode = "r" if text or universal_newlines else "rb"
        readers = BACKGROUND.call(self._start(script))
        opened: dict[str, IO[Any]] = {name: os.fdopen(fd, mode) for name, fd in readers.items()}
        self.stdout, self.stderr = opened.get("out"), opened.get("err")
        self._started.wait()

    # -- as in subprocess.Popen ---------------------------------------------------------------

    def poll(self) -> int | None:
        """Its exit status (-N: ended by signal N), None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit status; `subprocess.TimeoutExpired` after `timeout` seconds."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(str(self.args), timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """All that it says, when it has ended."""
        if input:
            raise ParameterError("a program in a guest has no input", remedy="put a file there")
        self.wait(timeout)
        said = tuple(each.read() if each else None for each in (self.stdout, self.stderr))
        self._close()
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """Send a signal to it and to what it started."""
        if self.returncode is None:
            BACKGROUND.call(self._vm.run(f"kill -{int(number)} -{self.pid} || true"))

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> GuestProgram:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()
        self.wait()

    def _close(self) -> None:
        for each in (self.stdout, self.stderr):
            if each is not None:
                each.close()

    # -- in the machines' loop ----------------------------------------------------------------

    async def _start(self, script: str) -> dict[str, int]:
        """Start it; descriptors to read its streams from."""
        loop, readers = asyncio.get_running_loop(), {}
        for name in self._streams:
            readers[name], end = os.pipe()
            self._pipes[name], _protocol = await loop.connect_write_pipe(
                asyncio.Protocol, os.fdopen(end, "wb", buffering=0)
            )
        self._vm.lines.hear(str(self._number), self._heard)
        try:
            await self._vm.run(script)
        except BaseException:
            self._heard("status", str(_BY_SIGNAL + signal.SIGKILL))
            self._heard("end", "")
            for reader in readers.values():
                os.close(reader)
            raise
        return readers

    def _heard(self, what: str, text: str) -> None:
        """Something that the port said of this program; "end" is the last."""
        if what == "pid":
            self.pid = int(text)
            self._started.set()
        elif what == "status":
            self._finish(int(text))
        elif what == "end":
            self._finish(_BY_SIGNAL + signal.SIGKILL)
            for pipe in self._pipes.values():
                pipe.close()
            self._vm.lines.unhear(str(self._number))
        elif what in self._pipes:
            self._pipes[what].write(f"{text}\n".encode())

    def _finish(self, status: int) -> None:
        if self.returncode is None:
            self.returncode = _BY_SIGNAL - status if status > _BY_SIGNAL else status
        self._started.set()
        self._ended.set()


# -- the guest's side ----------------------------------------------------------------------------


def _command(args: Any, shell: bool, cwd: str, env: Mapping[str, str] | None) -> str:
    words = args if isinstance(args, str) else shlex.join(map(str, args))
    if isinstance(args, str) and not shell:
        words = shlex.join(args.split())  # as Mininet does
    before = f"cd {shlex.quote(str(cwd))} && " if cwd else ""
    settings = "".join(
        f"export {name}={shlex.quote(value)}; " for name, value in (env or {}).items()
    )
    return settings + before + (words if shell else f"exec {words}")


def _redirections(stdout: Any, stderr: Any) -> dict[str, str]:
    """Where the two streams go: "pipe", "null", or for the latter "out"."""
    named = {subprocess.PIPE: "pipe", subprocess.DEVNULL: "null"}
    try:
        out = named[stdout]
        err = "out" if stderr == subprocess.STDOUT else named[stderr]
    except (KeyError, TypeError):
        raise ParameterError(
            "a program in a guest writes into no file here", remedy="use PIPE or DEVNULL"
        ) from None
    return {"out": out, "err": err}


def _script(number: int, command: str, *, out: str, err: str) -> str:
    """Shell that starts a program in the background and reports what becomes of it."""
    return "\n".join(["(", *_started(number, command, out, err), ") </dev/null >/dev/null 2>&1 &"])


def _started(number: int, command: str, out: str, err: str) -> Iterator[str]:
    pipes = [name for name, where in (("out", out), ("err", err)) if where == "pipe"]
    files = {name: f"/run/program{number}.{name}" for name in pipes}
    for name, file in files.items():
        yield f"mkfifo {file}"
        yield 'while IFS= read -r line || [ -n "$line" ]; do'
        yield f"    printf '\\001{number} {name} %s\\n' \"$line\""
        yield f"done <{file} >/dev/reports &"
        yield f"{name}=$!"
    other = {"null": "/dev/null", "out": "&1", "pipe": ""}
    streams = f">{files.get('out', other[out])} 2>{files.get('err', other[err])}"
    # it tells its number when it leads a group of processes, which signals are sent to
    command = f"printf '\\001{number} pid %s\\n' $$ >/dev/reports; {command}"
    yield f"setsid sh -c {shlex.quote(command)} {streams} &"
    yield "program=$!"
    yield "wait $program"
    yield f"printf '\\001{number} status %s\\n' $? >/dev/reports"
    if pipes:
        yield "wait " + " ".join(f"${name}" for name in pipes)
        yield "rm " + " ".join(files.values())
    yield f"printf '\\001{number} end \\n' >/dev/reports"
