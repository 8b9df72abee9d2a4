"""The outside of a sandbox: start one around a function, a command or the present script."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from testbed.closing import Closing
from testbed.errors import ExperimentError, TestbedError
from testbed.sandbox._child import contain, inside

_P = ParamSpec("_P")
_T = TypeVar("_T")

_held: set[int] = set()  # write ends of the lifelines of this process's sandboxes


class RemoteTraceback(Exception):
    """The traceback of an error raised inside a sandbox, as its cause."""

    def __init__(self, text: str) -> None:
        super().__init__(f"\n{text}")


def call(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `function` in a forked process inside a new sandbox and return what it returns.

    An exception raised inside is raised here, its traceback attached as the cause.  Result and
    exception cross by pickle.  Raises `ExperimentError` when the process ends without an answer
    (killed, out of memory) and `PrivilegeError` where sandboxes are not allowed.
    """
    life_read, life_write = _lifeline()
    answer_read, answer_write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    outer = os.fork()
    if outer == 0:
        os.close(answer_read)
        _drop_held()
        _outer(lambda: _answer(answer_write, function, args, kwargs), life_read, answer_write)
    os.close(life_read)
    os.close(answer_write)
    try:
        with os.fdopen(answer_read, "rb") as pipe:
            data = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(outer, 0)[1])
    finally:
        _release(life_write)
    if not data:
        raise ExperimentError(f"the sandboxed process ended without an answer (status {status})")
    value, error, trace = pickle.loads(data)
    if error is not None:
        raise error from (RemoteTraceback(trace) if trace else None)
    return value  # type: ignore[no-any-return]


def _outer(payload: Callable[[], int], lifeline: int, answer: int) -> None:
    status = 1
    try:
        status = contain(payload, [lifeline])
    except TestbedError as error:
        _send(answer, (None, error, ""))
    finally:
        os._exit(status)


def _answer(pipe: int, function: Callable[..., Any], args: Any, kwargs: Any) -> int:
    outcome: tuple[Any, BaseException | None, str]
    try:
        outcome = (function(*args, **kwargs), None, "")
    except BaseException as error:
        outcome = (None, _portable(error), traceback.format_exc())
    sys.stdout.flush()
    sys.stderr.flush()
    _send(pipe, outcome)
    return 0


def _send(pipe: int, outcome: tuple[Any, BaseException | None, str]) -> None:
    with os.fdopen(pipe, "wb") as file:
        file.write(pickle.dumps(outcome))


def _portable(error: BaseException) -> BaseException:
    """`error` itself if it survives pickling, else an `ExperimentError` that quotes it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ExperimentError(f"{type(error).__name__}: {error}")
    return error


def _lifeline() -> tuple[int, int]:
    read, write = os.pipe()
    _held.add(write)
    return read, write


def _drop_held() -> None:
    for fd in _held:
        os.close(fd)
    _held.clear()


def _release(write: int) -> None:
    _held.discard(write)
    os.close(write)


class Sandbox(Closing):
    """One command in one new sandbox; leaving the `with` block ends it and all it started.

    With `uplink` it reaches the machine's network (see `testbed.sandbox.uplink`).
    """

    def __init__(self, *, uplink: bool = False) -> None:
        self._options = ["--uplink"] if uplink else []
        self._write = -1
        self.process: subprocess.Popen[Any] | None = None

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start `argv` inside; `options` are those of `subprocess.Popen`."""
        if self.process is not None:
            raise TestbedError("this sandbox has its command already", remedy="make another one")
        read, self._write = _lifeline()
        words = [*self._options, "--lifeline", str(read)]
        command = [sys.executable, "-m", "testbed.sandbox", *words, "--", *argv]
        pass_fds = (*options.pop("pass_fds", ()), read)
        try:
            self.process = subprocess.Popen(command, pass_fds=pass_fds, **options)
        finally:
            os.close(read)
        return self.process

    def close(self) -> None:
        """End the sandbox; everything in it is gone when this returns."""
        if self._write >= 0:
            _release(self._write)
            self._write = -1
        if self.process is not None:
            self.process.wait()


def ensure(*, uplink: bool = False) -> None:
    """Return at once inside a sandbox; otherwise start this program again in a new one.

    Put it before a script's first use of `Network`.  The process keeps its pid and its exit
    status; killing it ends everything that it made.  With `uplink` a new sandbox reaches the
    machine's network.
    """
    if not inside():
        sys.stdout.flush()
        sys.stderr.flush()
        options = ["--uplink"] if uplink else []
        command = [sys.executable, "-m", "testbed.sandbox", *options, "--", *sys.orig_argv]
        os.execv(sys.executable, command)
