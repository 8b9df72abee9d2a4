"""Syntax tree to flat graph: names resolved, compounds put in place, variables given values.

An element inside compound `c` is called `c/name`.  A compound's `input` and `output` are ports
only while the graph is made; `_joined` takes them out again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from testbed.vnf.click import configuration
from testbed.vnf.click.errors import ClickError, Place, nearest
from testbed.vnf.click.graph import Argument, Connection, Graph, GraphElement, Port
from testbed.vnf.click.syntax import (
    Body,
    Config,
    Declaration,
    Define,
    ElementClass,
    Row,
    Statement,
    Use,
)

_MOST_ELEMENTS = 10_000  # a configuration that goes beyond has a compound that multiplies itself


def elaborate(
    statements: tuple[Statement, ...],
    known: Collection[str],
    values: Mapping[str, str] | None = None,
    file: str = "config",
) -> Graph:
    """The flat graph of a configuration.

    `known` are the names of element classes, `values` those of variables ("PUBLIC" or "$PUBLIC")
    from outside, which win over `define`.  Raises `ClickError`.
    """
    given = {f"${name.lstrip('$')}": value for name, value in (values or {}).items()}
    whole = _Whole(frozenset(known))
    _Scope(whole, values=dict(given), fixed=frozenset(given)).add(statements)
    connections = _joined(whole)
    used = {port.element for each in connections for port in (each.source, each.target)}
    assert used <= set(whole.elements)
    return Graph(whole.elements, tuple(connections), file)


@dataclass
class _Compound:
    """A class made by the configuration, and the scope it was written in."""

    body: Body
    scope: _Scope


@dataclass
class _Whole:
    """What all scopes add to."""

    known: frozenset[str]
    elements: dict[str, GraphElement] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    pseudo: dict[str, str] = field(default_factory=dict)  # "c/input": "c has no input"
    anonymous: int = 0


@dataclass
class _Scope:
    """The inside of one compound, or the configuration itself."""

    whole: _Whole
    parent: _Scope | None = None
    prefix: str = ""
    values: dict[str, str] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    classes: dict[str, _Compound | str] = field(default_factory=dict)
    names: dict[str, tuple[str, str, Place]] = field(default_factory=dict)  # ends, declared at
    depth: int = 0

    def add(self, statements: tuple[Statement, ...]) -> None:
        """Declarations first, so that connections may come before them, as in Click."""
        for each in statements:
            if isinstance(each, Define):
                self._define(each)
        for each in statements:
            if isinstance(each, ElementClass):
                self._add_class(each)
            elif isinstance(each, Declaration):
                self._declare_all(each)
            elif isinstance(each, Row):
                for hop in each.hops:
                    if hop.use.name and hop.use.kind:
                        self._declare(hop.use.name, hop.use.kind, hop.use.config, hop.use.place)
        for each in statements:
            if isinstance(each, Row):
                self._connect(each)

    # -- names ------------------------------------------------------------------------------

    def _define(self, define: Define) -> None:
        for name, value in configuration.definitions(define.config, self.values):
            if name not in self.fixed:
                self.values[name] = value

    def _add_class(self, each: ElementClass) -> None:
        if each.name in self.classes:
            raise ClickError(
                each.place, f"class {each.name} is there already", remedy="give it another name"
            )
        kind = each.kind
        self.classes[each.name] = (
            _Compound(kind, self) if isinstance(kind, Body) else self._class(kind, each.place)
        )

    def _class(self, name: str, place: Place) -> _Compound | str:
        scope: _Scope | None = self
        classes: set[str] = set()
        while scope is not None:
            if name in scope.classes:
                return scope.classes[name]
            classes |= set(scope.classes)
            scope = scope.parent
        if name in self.whole.known:
            return name
        raise ClickError(
            place,
            f"unknown element class {name}",
            remedy=nearest(name, classes | self.whole.known),
        )

    def _is_class(self, name: str) -> bool:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.classes:
                return True
            scope = scope.parent
        return name in self.whole.known

    # -- elements ---------------------------------------------------------------------------

    def _declare_all(self, each: Declaration) -> None:
        for name in each.names:
            self._declare(name, each.kind, each.config, each.place)

    def _declare(self, name: str, kind: str | Body, config: Config | None, place: Place) -> None:
        if name in self.names:
            raise ClickError(
                place,
                f"{name} is declared already, at {self.names[name][2]}",
                remedy="give one of them another name",
            )
        if name in ("input", "output") or self._is_class(name):
            raise ClickError(
                place, f"an element cannot be called {name}", remedy="choose another name"
            )
        self.names[name] = (*self._make(name, kind, config, place), place)

    def _make(
        self, name: str, kind: str | Body, config: Config | None, place: Place
    ) -> tuple[str, str]:
        """Make an element: the names of what its inputs and its outputs belong to."""
        found = _Compound(kind, self) if isinstance(kind, Body) else self._class(kind, place)
        arguments = configuration.arguments(config, self.values)
        full = self.prefix + name
        if len(self.whole.elements) + len(self.whole.pseudo) >= _MOST_ELEMENTS or self.depth > 50:
            raise ClickError(place, "too many elements", remedy="no compound may contain itself")
        if isinstance(found, str):
            self.whole.elements[full] = GraphElement(full, found, arguments, place)
            return full, full
        self._inside(full, found, arguments, place)
        return f"{full}/input", f"{full}/output"

    def _inside(
        self, full: str, compound: _Compound, arguments: tuple[Argument, ...], place: Place
    ) -> None:
        formals = compound.body.formals
        if len(formals) != len(arguments):
            raise ClickError(
                place,
                f"{full} is given {len(arguments)} arguments for {len(formals)} parameters",
                remedy=f"give {', '.join(formals) or 'none'}",
            )
        for end in ("input", "output"):
            self.whole.pseudo[f"{full}/{end}"] = f"compound {full} has no {end}"
        outer = compound.scope
        own = dict(zip(formals, (argument.text for argument in arguments), strict=True))
        inside = _Scope(
            self.whole,
            parent=outer,
            prefix=f"{full}/",
            values={**outer.values, **own},
            fixed=outer.fixed - set(own),
            depth=self.depth + 1,
        )
        for end in ("input", "output"):
            inside.names[end] = (f"{full}/{end}", f"{full}/{end}", place)
        inside.add(compound.body.statements)

    # -- connections ------------------------------------------------------------------------

    def _connect(self, row: Row) -> None:
        ends = [self._resolve(hop.use) for hop in row.hops]
        first, last = row.hops[0], row.hops[-1]
        for port, use in ((first.into, first.use), (last.out, last.use)):
            if port is not None:
                raise ClickError(
                    use.place, f"port [{port}] leads nowhere", remedy="connect it with '->'"
                )
        for number, (before, after) in enumerate(zip(row.hops, row.hops[1:], strict=False)):
            source = Port(ends[number][1], before.out or 0)
            target = Port(ends[number + 1][0], after.into or 0)
            self.whole.connections.append(Connection(source, target, before.use.place))

    def _resolve(self, use: Use) -> tuple[str, str]:
        if use.name in self.names and (use.kind or use.config is None):
            inputs, outputs, _place = self.names[use.name]
            return inputs, outputs
        if not use.kind and not self._is_class(use.name):
            if use.name in ("input", "output"):
                raise ClickError(
                    use.place, f"{use.name} outside of a compound", remedy="name an element"
                )
            known = {*self.names, *self.whole.known}
            raise ClickError(
                use.place, f"no element or class {use.name}", remedy=nearest(use.name, known)
            )
        self.whole.anonymous += 1
        kind = use.kind or use.name
        name = f"{kind if isinstance(kind, str) else 'compound'}@{self.whole.anonymous}"
        return self._make(name, kind, use.config, use.place)


def _joined(whole: _Whole) -> list[Connection]:
    """Connections between elements only, those through `input` and `output` made one."""
    inside: dict[Port, list[Connection]] = {}
    for each in whole.connections:
        if each.source.element in whole.pseudo:
            inside.setdefault(each.source, []).append(each)
    reached: set[Port] = set()
    found = []
    for each in whole.connections:
        if each.source.element not in whole.pseudo:
            found += _followed(each, inside, whole.pseudo, reached.add)
    for port, (through, *_rest) in inside.items():
        if port not in reached:
            raise ClickError(
                through.place,
                f"nothing comes to {port.element} [{port.number}]",
                remedy="connect that port of the compound, or take it out",
            )
    return found


def _followed(
    first: Connection,
    inside: Mapping[Port, list[Connection]],
    pseudo: Mapping[str, str],
    reach: Callable[[Port], None],
) -> list[Connection]:
    """The connections to elements that `first` stands for."""
    found, seen, waiting = [], set(), [first.target]
    while waiting:
        target = waiting.pop()
        if target.element not in pseudo:
            found.append(Connection(first.source, target, first.place))
            continue
        reach(target)
        if target not in inside:
            raise ClickError(
                first.place,
                f"{pseudo[target.element]} [{target.number}]",
                remedy=f"connect {target.element.rpartition('/')[2]} [{target.number}] inside it",
            )
        if target not in seen:
            seen.add(target)
            waiting += [each.target for each in inside[target]]
    return found
