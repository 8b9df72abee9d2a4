"""Runs traffic programs in nodes for the live tests, and reads what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any

Line = dict[str, Any]


class Program:
    """A traffic program in a node (anything with Mininet's `popen`); ends with the block."""

    def __init__(self, node: Any, module: str, *arguments: str, package: str = "traffic") -> None:
        pipe = subprocess.PIPE
        argv = [sys.executable, "-m", f"{package}.{module}", *arguments]
        self.process = node.popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.lines: list[Line] = []

    def until(self, kind: str) -> Line:
        """Read up to a line of that kind."""
        for text in self.process.stdout:
            self.lines.append(json.loads(text))
            if self.lines[-1]["kind"] == kind:
                return self.lines[-1]
        raise AssertionError(f"no {kind!r} line; standard error: {self.process.stderr.read()}")

    def ready(self) -> Line:
        return self.until("ready")

    def done(self) -> Line:
        """The results of a program that ends by itself, with status 0."""
        results = self.until("done")
        assert self.process.wait(timeout=60) == 0, self.process.stderr.read()
        return results

    def stop(self) -> Line:
        """End it by closing its standard input, as NodeProcess does; its results."""
        self.process.stdin.close()
        return self.done()

    def error(self) -> tuple[int, str]:
        """Exit status and standard error of a program that fails."""
        self.process.stdout.read()
        return self.process.wait(timeout=60), self.process.stderr.read()

    def samples(self, metric: str) -> list[Line]:
        return [line for line in self.lines if line.get("metric") == metric]

    def events(self, name: str) -> list[Line]:
        return [line for line in self.lines if line.get("name") == name]

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(BrokenPipeError):
                stream.close()


def serving(node: Any, module: str, *arguments: str) -> Program:
    """A server that is ready."""
    program = Program(node, module, *arguments)
    program.ready()
    return program
