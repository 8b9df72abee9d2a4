"""What an element is: its ports, its arguments, and what it becomes in the kernel.

An element on the pushing side of a queue becomes one chain of nftables rules for each of its
inputs; `Element.rules` writes them.  Outputs are statements that lead on (`goto`, `accept`,
`drop`), which the compiler hands in.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from testbed.vnf.click.errors import ClickError
from testbed.vnf.click.graph import Argument, GraphElement
from testbed.vnf.elements.arguments import Arguments

UNLIMITED = 64  # outputs of an element that has as many as are connected


class Flow(enum.Enum):
    """Who moves packets through a port: the one before it, or the one behind it."""

    PUSH = "push"
    PULL = "pull"
    EITHER = "either"


@dataclass(frozen=True)
class Ports:
    """How many inputs or outputs an element has, from `least` to `most`."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


ONE, NONE = Ports(1, 1), Ports(0, 0)


@dataclass(frozen=True)
class StringRule:
    """A rule that searches a packet for a text, which nft has no syntax for."""

    chain: str
    pattern: bytes
    goto: str
    ignore_case: bool = False


@dataclass(frozen=True)
class Stateful:
    """An object of nftables that a rule names: a counter, a limit, and what it is told."""

    kind: str
    specification: str = ""


@dataclass
class Parts:
    """What elements add to a program beside their chains: nft's objects, and rules elsewhere."""

    objects: dict[str, Stateful] = field(default_factory=dict)  # by name
    chains: dict[str, list[str]] = field(default_factory=dict)
    dnat: dict[int, list[str]] = field(default_factory=dict)  # by mapping, see `marks`
    snat: dict[int, list[str]] = field(default_factory=dict)
    strings: list[StringRule] = field(default_factory=list)
    local: bool = False  # some packets end in the function itself


class Context(Protocol):
    """What the compiler lets elements ask for while they write their rules."""

    parts: Parts

    def lead(self, element: str, output: int) -> str:
        """The statement that passes a packet on by an output."""

    def lead_translated(self, element: str, output: int, *, source: bool, destination: bool) -> str:
        """The same, where from there on the source or the destination is a translated one."""

    def exit(self, device: str, element: GraphElement) -> str:
        """The statement that sends a packet out of a device."""

    def gateway(self, address: str, element: str, output: int) -> str:
        """The statement that says which next hop packets that leave by `output` go to."""

    def mapping(self, element: GraphElement) -> int:
        """A number for connections that are translated alike."""

    def label(self, element: GraphElement) -> int:
        """A number for connections in which something was found."""

    def mirror(self, element: str, output: int) -> list[str]:
        """Statements that copy a packet to the device that an output leads to."""


@dataclass(frozen=True)
class Handlers:
    """Names of what can be read and written of an element while it runs."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class Element:
    """Base of all elements.  A class's docstring begins with its arguments, as in Click."""

    inputs: ClassVar[Ports] = ONE
    outputs: ClassVar[Ports] = ONE
    flow: ClassVar[tuple[Flow, Flow]] = (Flow.EITHER, Flow.EITHER)  # of inputs, of outputs
    transparent: bool = False  # passes packets on as they are; becomes no rule
    translates: ClassVar[bool] = False  # gives connections other addresses
    handlers: ClassVar[Handlers] = Handlers()

    def __init__(self, element: GraphElement) -> None:
        self.element = element
        self.name = element.name
        arguments = Arguments(element)
        self.read(arguments)
        arguments.finish()

    def read(self, arguments: Arguments) -> None:
        """Take what the configuration says; raises `ClickError` at the argument that is wrong."""

    @property
    def chain(self) -> str:
        """The name of this element's chain and objects in nftables."""
        return "el_" + "".join(c if c.isalnum() or c in "_/" else "." for c in self.name)

    def input_chain(self, port: int) -> str:
        """The chain for an input; elements whose inputs do the same have one."""
        return self.chain

    def rules(self, context: Context, port: int) -> list[str]:
        """The rules of an input's chain."""
        return [context.lead(self.name, 0)]

    @property
    def looks_at(self) -> frozenset[str]:
        """Which of "source" and "destination" decide what happens here."""
        return frozenset()

    def exact_outputs(self) -> int | None:
        """How many outputs must be connected, where the arguments say."""
        return None

    def exact_inputs(self) -> int | None:
        """How many inputs must be connected, where the arguments say."""
        return None

    def wrong(self, what: str, remedy: str, argument: Argument | None = None) -> ClickError:
        """An error about this element, at `argument` where one is given."""
        place = argument.place if argument else self.element.place
        return ClickError(place, f"{self.element.kind} {self.name}: {what}", remedy=remedy)


ElementType = type[Element]
REGISTRY: dict[str, ElementType] = {}


def element(*names: str) -> Callable[[ElementType], ElementType]:
    """Register a class under its own name, or under those given."""

    def register(cls: ElementType) -> ElementType:
        for name in names or (cls.__name__,):
            REGISTRY[name] = cls
        return cls

    return register
