"""What can be read and written of a running function, as Click's handlers.

Every element has `name`, `class`, `config` and `handlers`; the function itself has `list`,
`config`, `handlers` and `version`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from testbed import __version__
from testbed.errors import UserError
from testbed.vnf import marks, qdiscs
from testbed.vnf.click.errors import nearest
from testbed.vnf.elements import Element
from testbed.vnf.elements.arguments import BANDWIDTH_REMEDY
from testbed.vnf.elements.classification import CheckPaint, Paint
from testbed.vnf.elements.counting import Counter, Limited
from testbed.vnf.elements.inspection import StringMatcher
from testbed.vnf.elements.queueing import Queue, Shaper
from testbed.vnf.elements.rewriting import Rewriter

if TYPE_CHECKING:
    from testbed.vnf.function import Function

_COMMON = ("class", "config", "handlers", "name")


class HandlerError(UserError):
    """A handler that is not there, or does not take what was written to it."""


class NoElement(HandlerError):
    """There is no element of that name."""


class NoHandler(HandlerError):
    """The element has no such handler."""


def find(function: Function, handler: str, *, write: bool = False) -> tuple[Element | None, str]:
    """Element (None: the function itself) and name; `HandlerError` where there is none."""
    element, name = _split(function, handler)
    if element is None:
        known: tuple[str, ...] = () if write else _GLOBAL
    else:
        known = element.handlers.write if write else (*_COMMON, *element.handlers.read)
    if name not in known:
        raise _unknown(element, name, known, "write" if write else "read")
    return element, name


def read(function: Function, handler: str) -> str:
    """What a read handler says."""
    element, name = find(function, handler)
    if element is None:
        return _global(function, name)
    if name in _COMMON:
        return _common(element, name)
    return next(
        reader(function, element, name)
        for kind, reader in _READERS.items()
        if isinstance(element, kind)
    )


def write(function: Function, handler: str, value: str) -> None:
    """Write to a handler."""
    element, _name = find(function, handler, write=True)
    for kind, writer in _WRITERS.items():
        if isinstance(element, kind):
            writer(function, element, value.strip())


def names(element: Element) -> list[str]:
    """Handlers of an element with `r`, `w` or `rw`, one a line, as Click lists them."""
    reading = {*_COMMON, *element.handlers.read}
    writing = set(element.handlers.write)
    return [
        f"{name}\t{'r' * (name in reading)}{'w' * (name in writing)}"
        for name in sorted(reading | writing)
    ]


def _split(function: Function, handler: str) -> tuple[Element | None, str]:
    path, _, name = handler.strip().rpartition(".")
    if not path:
        return None, name
    elements = function.program.elements
    if path not in elements:
        raise NoElement(f"no element named {path!r}", remedy=nearest(path, elements))
    return elements[path], name


def _unknown(element: Element | None, name: str, known: tuple[str, ...], how: str) -> NoHandler:
    owner = element.name if element else "the function"
    return NoHandler(
        f"{owner} has no {how} handler {name!r}",
        remedy=nearest(name, known) if known else f"it has no {how} handlers",
    )


def _global(function: Function, name: str) -> str:
    program = function.program
    match name:
        case "list":
            return "\n".join([str(len(program.elements)), *program.elements])
        case "config":
            return program.graph.text()
        case "handlers":
            return "\n".join(f"{each}\tr" for each in _GLOBAL)
        case "version":
            return __version__
    return function.nftables.run(f"list table {program.table}")


_GLOBAL = ("config", "handlers", "list", "ruleset", "version")


def _common(element: Element, name: str) -> str:
    match name:
        case "name":
            return element.name
        case "class":
            return element.element.kind
        case "handlers":
            return "\n".join(names(element))
    return ", ".join(argument.text for argument in element.element.arguments)


# -- reading -------------------------------------------------------------------------------------


def _counter(function: Function, name: str) -> Mapping[str, int]:
    found = function.nftables.ask(f"list counter {function.program.table} {name}")
    return next(each["counter"] for each in found if "counter" in each)


def _read_counter(function: Function, element: Counter, name: str) -> str:
    counted = _counter(function, element.chain)
    return str(counted["packets" if name == "count" else "bytes"])


def _read_rate(_function: Function, element: Limited | Shaper, _name: str) -> str:
    return element.rate_text


def _read_color(_function: Function, element: Paint | CheckPaint, _name: str) -> str:
    return str(element.color)


def _read_queue(function: Function, element: Queue, name: str) -> str:
    if name == "capacity":
        return str(element.capacity)
    for queues in function.program.queues:
        leaf = queues.leaf(element.name)
        if leaf is not None:
            index = function.indexes[queues.device]
            found = qdiscs.statistics(function.namespace, index, leaf)
            return str(found.waiting_packets if name == "length" else found.drops)
    return "0"  # nothing shapes the device behind it


def _read_rewriter(function: Function, element: Rewriter, name: str) -> str:
    if name == "servers":
        return "\n".join(
            f"{pattern.destination}:{pattern.destination_port}".rstrip(":")
            for pattern in element.patterns
        )
    found = [line for line in _connections(function) if _mapping(line) in element.mapping_numbers]
    return str(len(found)) if name == "nmappings" else "\n".join(found)


def _connections(function: Function) -> list[str]:
    """Connections of the function, as the kernel writes them."""
    with function.namespace, open("/proc/thread-self/net/nf_conntrack", encoding="ascii") as file:
        return file.read().splitlines()


def _mapping(line: str) -> int:
    mark = next((word[5:] for word in line.split() if word.startswith("mark=")), "0")
    return (int(mark) & marks.MAPPING) // marks.shifted(1, marks.MAPPING)


def _read_matcher(function: Function, element: StringMatcher, name: str) -> str:
    if name == "labels":
        return "\n".join(map(str, element.labels))
    return "\n".join(
        str(_counter(function, element.counter(number))["packets"])
        for number in range(len(element.texts))
    )


# -- writing -------------------------------------------------------------------------------------


def _reset_counter(function: Function, element: Counter, _value: str) -> None:
    function.nftables.run(f"reset counter {function.program.table} {element.chain}")


def _reset_matcher(function: Function, element: StringMatcher, _value: str) -> None:
    table = function.program.table
    for number in range(len(element.texts)):
        function.nftables.run(f"reset counter {table} {element.counter(number)}")


def _changed(element: Limited | Shaper, value: str) -> None:
    try:
        element.change(value)
    except ValueError as error:
        raise HandlerError(f"{element.name}.rate: {error}", remedy=BANDWIDTH_REMEDY) from None


def _write_limit(function: Function, element: Limited, value: str) -> None:
    """A limit cannot be changed, so the rules that name it are made anew with another one."""
    _changed(element, value)
    table, chain = function.program.table, element.chain
    commands = [f"flush chain {table} {chain}", f"delete limit {table} {chain}",
                f"add limit {table} {chain} {{ {element.limit()} ; }}"]  # fmt: skip
    commands += [f"add rule {table} {chain} {rule}" for rule in function.program.chains[chain]]
    function.nftables.run("\n".join(commands))


def _write_shaper(function: Function, element: Shaper, value: str) -> None:
    _changed(element, value)
    for queues in function.program.queues:
        index = function.indexes[queues.device]
        function.netlink.batch(list(qdiscs.change(index, queues, element.name, element.bits)))


_READERS: dict[type[Element], Callable[..., str]] = {
    Counter: _read_counter,
    Limited: _read_rate,
    Shaper: _read_rate,
    Paint: _read_color,
    CheckPaint: _read_color,
    Queue: _read_queue,
    Rewriter: _read_rewriter,
    StringMatcher: _read_matcher,
}
_WRITERS: dict[type[Element], Callable[..., None]] = {
    Counter: _reset_counter,
    Limited: _write_limit,
    Shaper: _write_shaper,
    StringMatcher: _reset_matcher,
}
