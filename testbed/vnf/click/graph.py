"""A flat graph: elements, their arguments, and connections between ports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.vnf.click.errors import Place


class Argument(NamedTuple):
    """One comma-separated part of a configuration, without comments, and where it begins."""

    text: str
    place: Place


class Port(NamedTuple):
    """A port of an element; whether input or output is known from where it stands."""

    element: str
    number: int


@dataclass(frozen=True)
class Connection:
    """From an output to an input."""

    source: Port
    target: Port
    place: Place = field(compare=False)


@dataclass(frozen=True)
class GraphElement:
    """An element of a flat graph; one inside a compound is called `COMPOUND/NAME`."""

    name: str
    kind: str
    arguments: tuple[Argument, ...]
    place: Place = field(compare=False)


@dataclass(frozen=True)
class Graph:
    """Elements in the order of their declaration, and connections."""

    elements: dict[str, GraphElement]
    connections: tuple[Connection, ...]
    file: str = "config"

    def outputs(self, element: str) -> list[Connection]:
        """Connections that leave an element, by port."""
        found = [each for each in self.connections if each.source.element == element]
        return sorted(found, key=lambda each: each.source.number)

    def inputs(self, element: str) -> list[Connection]:
        """Connections that enter an element, by port."""
        found = [each for each in self.connections if each.target.element == element]
        return sorted(found, key=lambda each: each.target.number)

    def text(self) -> str:
        """A configuration that says the same, without compounds and variables."""
        lines = [
            f"{each.name} :: {each.kind}({', '.join(a.text for a in each.arguments)});"
            for each in self.elements.values()
        ]
        lines += [
            f"{each.source.element} [{each.source.number}] -> "
            f"[{each.target.number}] {each.target.element};"
            for each in self.connections
        ]
        return "\n".join(lines)
