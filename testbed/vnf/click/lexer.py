"""Tokens of the Click language.

A configuration in parentheses is one token: its text is split and read by those who know the
element (`arguments`).  Comments and strings inside it are passed over as wholes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from testbed.vnf.click.errors import ClickError, Place

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|//[^\n]*|\#[^\n]*|/\*.*?\*/)
      | (?P<name>[A-Za-z_@][A-Za-z0-9_@]*(?:/[A-Za-z0-9_@]+)*)
      | (?P<variable>\$[A-Za-z0-9_]+)
      | (?P<number>[0-9]+)
      | (?P<mark>::|->|\|\||\.\.\.|[\[\]{},;|])
      | (?P<open>\()""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
# what a configuration consists of besides parentheses
_PIECE = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|'[^']*'|.""", re.DOTALL)


class Token(NamedTuple):
    """`kind` is name, variable, number, config, end, or the mark itself ("->", "::", ...)."""

    kind: str
    text: str
    place: Place


class Source:
    """A text and the places in it."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file

    def place(self, offset: int) -> Place:
        """Line and column of a character."""
        line = self.text.count("\n", 0, offset) + 1
        column = offset - (self.text.rfind("\n", 0, offset) + 1) + 1
        return Place(self.file, line, column)


def tokens(source: Source) -> Iterator[Token]:
    """All tokens, with one of kind "end" last; raises `ClickError`."""
    offset, text = 0, source.text
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None:
            raise _stray(source, offset)
        kind, start = str(match.lastgroup), offset
        offset = match.end()
        if kind == "open":
            offset = _closing(source, start)
            yield Token("config", text[start + 1 : offset - 1], source.place(start + 1))
        elif kind != "space":
            word = match.group()
            yield Token(word if kind == "mark" else kind, word, source.place(start))
    yield Token("end", "", source.place(len(text)))


def _stray(source: Source, offset: int) -> ClickError:
    text, place = source.text, source.place(offset)
    if text.startswith("/*", offset):
        return ClickError(place, "this comment does not end", remedy="close it with */")
    if text[offset] == ")":
        return ClickError(place, "')' without '('", remedy="remove it or open a configuration")
    return ClickError(place, f"unexpected {text[offset]!r}", remedy="write elements, '::' and '->'")


def _closing(source: Source, start: int) -> int:
    """The offset behind the parenthesis that closes the one at `start`."""
    depth, offset = 0, start
    while offset < len(source.text):
        match = _PIECE.match(source.text, offset)
        assert match is not None  # it takes any character
        piece, offset = match.group(), match.end()
        depth += (piece == "(") - (piece == ")")
        if depth == 0:
            return offset
    raise ClickError(source.place(start), "'(' is not closed", remedy="close it with ')'")
