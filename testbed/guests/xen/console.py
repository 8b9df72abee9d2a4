"""A Xen guest's only line to the outside is its console: what is on it is told apart here.

    ID STATUS SIZE\n  and SIZE bytes     an answer of the guest's agent (see `guests.agent`)
    report TEXT\n                        a line that a program in the guest reports
    anything else                        what the kernel and programs say on a console

No I/O: bytes in, events out.  (In the guest: files/init.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ANSWER = re.compile(rb"\d+ \d+ (\d+)")
_REPORT = b"report "


@dataclass(frozen=True)
class Text:
    """Said on the console."""

    data: bytes


@dataclass(frozen=True)
class Answer:
    """Bytes of the agent's, a whole answer or a part of one."""

    data: bytes


@dataclass(frozen=True)
class Report:
    """One reported line, with its end."""

    data: bytes


Said = Text | Answer | Report


class Splitter:
    """Takes a console's bytes as they come."""

    def __init__(self) -> None:
        self._begun = b""  # of a line
        self._left = 0  # bytes of an answer that are still to come

    def feed(self, data: bytes) -> Iterator[Said]:
        """What `data` completes."""
        self._begun += data
        while self._begun:
            if self._left:
                part, self._begun = self._begun[: self._left], self._begun[self._left :]
                self._left -= len(part)
                yield Answer(part)
                continue
            line, end, rest = self._begun.partition(b"\n")
            if not end:
                return
            self._begun = rest
            yield self._line(line + end)

    def end(self) -> Iterator[Said]:
        """What was begun when the console ended."""
        if self._begun:
            yield Text(self._begun)
        self._begun, self._left = b"", 0

    def _line(self, line: bytes) -> Said:
        # the terminal ends lines with \r\n until the guest's agent has set it otherwise
        if answer := _ANSWER.fullmatch(line[:-1]):
            self._left = int(answer[1])
            return Answer(line)
        if line.startswith(_REPORT):
            return Report(line.removeprefix(_REPORT))
        return Text(line)
