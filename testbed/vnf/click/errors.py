"""Mistakes in a Click configuration, each with its place: `FILE:LINE:COLUMN: what; remedy`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from testbed.errors import UserError

_MANY = 12


class Place(NamedTuple):
    """A position in a configuration; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class ClickError(UserError):
    """A configuration that cannot be meant, or cannot be compiled."""

    def __init__(self, place: Place, what: str, *, remedy: str) -> None:
        self.place = place
        super().__init__(f"{place}: {what}", remedy=remedy)


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy that names what is spelled most like `word`, or all there is."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not close:  # a difference of case only is farther than it looks
        close = [name for name in names if name.lower() == word.lower()]
    if close:
        return f"did you mean {close[0]}?"
    if len(names) > _MANY:
        return "`testbed vnf elements` lists the classes there are"
    return f"there are {', '.join(names)}" if names else "there are none"
