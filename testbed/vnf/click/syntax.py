"""The syntax tree of a Click configuration, and its text again.

Places do not take part in comparisons: two trees are equal when they say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.vnf.click.errors import Place

NOWHERE = Place("", 0, 0)


@dataclass(frozen=True)
class Config:
    """The text between an element's parentheses."""

    text: str
    place: Place = field(default=NOWHERE, compare=False, kw_only=True)


@dataclass(frozen=True)
class Body:
    """What a compound element consists of: its formal parameters and statements."""

    formals: tuple[str, ...]
    statements: tuple[Statement, ...]
    place: Place = field(default=NOWHERE, compare=False, kw_only=True)


@dataclass(frozen=True)
class Use:
    """An element where it stands: `name`, `Class(config)`, `name :: Class(config)`, `{ ... }`.

    `kind` is the class (a name or a compound's body) where the text gives one; a bare name may
    turn out to be either.
    """

    name: str = ""
    kind: str | Body = ""
    config: Config | None = None
    place: Place = field(default=NOWHERE, compare=False, kw_only=True)


@dataclass(frozen=True)
class Hop:
    """An element in a row of connections, with the ports in brackets before and after it."""

    use: Use
    into: int | None = None
    out: int | None = None


@dataclass(frozen=True)
class Row:
    """`a [1] -> [0] b -> c`, or a single element."""

    hops: tuple[Hop, ...]
    place: Place = field(default=NOWHERE, compare=False, kw_only=True)


@dataclass(frozen=True)
class Declaration:
    """`a, b :: Class(config)`."""

    names: tuple[str, ...]
    kind: str | Body
    config: Config | None = None
    place: Place = field(default=NOWHERE, compare=False, kw_only=True)


@dataclass(frozen=True)
class ElementClass:
    """`elementclass NAME { ... }` or `elementclass NAME OTHER`."""

    name: str
    kind: str | Body
    place: Place = field(default=NOWHERE, compare=False, kw_only=True)


@dataclass(frozen=True)
class Define:
    """`define($NAME value, ...)`."""

    config: Config
    place: Place = field(default=NOWHERE, compare=False, kw_only=True)


@dataclass(frozen=True)
class Require:
    """`require(...)`: what the configuration needs of Click's packages."""

    config: Config
    place: Place = field(default=NOWHERE, compare=False, kw_only=True)


Statement = Row | Declaration | ElementClass | Define | Require


def text(statements: tuple[Statement, ...]) -> str:
    """A configuration that parses to these statements."""
    return "".join(f"{_statement(each)};\n" for each in statements)


def _statement(each: Statement) -> str:
    match each:
        case Row():
            return " -> ".join(map(_hop, each.hops))
        case Declaration():
            return f"{', '.join(each.names)} :: {_kind(each.kind)}{_config(each.config)}"
        case ElementClass():
            return f"elementclass {each.name} {_kind(each.kind)}"
        case Define():
            return f"define{_config(each.config)}"
    return f"require{_config(each.config)}"


def _hop(hop: Hop) -> str:
    into = "" if hop.into is None else f"[{hop.into}] "
    out = "" if hop.out is None else f" [{hop.out}]"
    return f"{into}{_use(hop.use)}{out}"


def _use(use: Use) -> str:
    named = f"{use.name} :: " if use.name and use.kind else use.name
    return f"{named}{_kind(use.kind)}{_config(use.config)}"


def _kind(kind: str | Body) -> str:
    if isinstance(kind, str):
        return kind
    formals = f"{', '.join(kind.formals)} |\n" if kind.formals else "\n"
    return f"{{ {formals}{text(kind.statements)}}}"


def _config(config: Config | None) -> str:
    return "" if config is None else f"({config.text})"
