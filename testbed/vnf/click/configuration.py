"""What stands between an element's parentheses: comments out, commas split, variables put in.

Places are kept: an error about an argument can point at it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from testbed.vnf.click.errors import ClickError, Place
from testbed.vnf.click.graph import Argument
from testbed.vnf.click.syntax import Config

_PIECE = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<text>"(?:\\.|[^"\\])*"|'[^']*'|.)""", re.DOTALL
)
_VARIABLE = re.compile(r"""'[^']*'|\$(?:\{(?P<braced>\w+)\}|(?P<plain>\w+))""", re.ASCII)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


def arguments(config: Config | None, values: Mapping[str, str]) -> tuple[Argument, ...]:
    """The arguments of `config`, `$NAME` replaced by its value.

    A value with commas in it makes several arguments, as in Click.  Raises `ClickError` for a
    variable without a value.
    """
    if config is None:
        return ()
    found: list[Argument] = []
    for part in split(config.text, config.place):
        text = _substituted(part, values)
        found += [Argument(each.text, part.place) for each in split(text, part.place)]
    return _trimmed(found)


def _trimmed(found: list[Argument]) -> tuple[Argument, ...]:
    """No arguments for an empty configuration; one empty part at the end does not count."""
    if found and not found[-1].text:
        found = found[:-1]
    return tuple(found)


def split(text: str, place: Place) -> list[Argument]:
    """Parts between commas that are in no parentheses or string; where each begins."""
    parts, depth = [_Part()], 0
    for piece, where in _pieces(text, place):
        if piece == "," and depth <= 0:
            parts.append(_Part())
            continue
        depth += (piece in _OPENING) - (piece in _CLOSING)
        parts[-1].add(piece, where)
    return [Argument(part.text.strip(), part.place or place) for part in parts]


class _Part:
    def __init__(self) -> None:
        self.text = ""
        self.place: Place | None = None

    def add(self, piece: str, place: Place) -> None:
        if self.place is None and not piece.isspace():
            self.place = place
        self.text += piece


def _pieces(text: str, place: Place) -> Iterator[tuple[str, Place]]:
    """Characters and strings, comments as a space, and the place of each."""
    file, line, column = place
    for match in _PIECE.finditer(text):
        piece = match.group()
        yield (" " if match["comment"] else piece), Place(file, line, column)
        if "\n" in piece:
            line, column = line + piece.count("\n"), len(piece) - piece.rfind("\n")
        else:
            column += len(piece)


def _substituted(part: Argument, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        if name is None:  # a string in single quotes
            return match.group()
        if f"${name}" not in values:
            raise ClickError(
                part.place,
                f"${name} has no value",
                remedy=f"write define(${name} VALUE) or give it where the program is started",
            )
        return values[f"${name}"]

    return _VARIABLE.sub(value, part.text)


def definitions(config: Config, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and value of each part of `define($NAME value, ...)`."""
    for part in _trimmed(split(config.text, config.place)):
        name, _, value = part.text.partition(" ")
        if not re.fullmatch(r"\$\w+", name, re.ASCII):
            raise ClickError(
                part.place, f"{name[:30]!r} is no variable", remedy="write define($NAME value)"
            )
        yield name, _substituted(Argument(value.strip(), part.place), values)
