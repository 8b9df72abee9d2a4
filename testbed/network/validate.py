"""Is this a topology that can be built and meant?  Checked whole, before anything exists.

`problems` looks at a sketch (`testbed.network.sketch`) and finds what is wrong with names, ports,
links, switches; what is wrong with addresses and routes is `validate_addresses`' to find.
`refuse_bad` raises one `TopologyError` with all that was found, a line each, and logs as warnings
what is odd but can be meant.

Where switches may be programmed (OpenFlow, classes of the user's), what a program could make
right is not refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mininet.topo import Topo

from testbed.errors import TestbedError, UserError
from testbed.links import LinkSpec
from testbed.network import rules
from testbed.network.expectation import stated
from testbed.network.findings import Problem, found_by, in_order, refusal
from testbed.network.link import take_specs
from testbed.network.node import Node as OurNode
from testbed.network.sets import Sets
from testbed.network.sketch import Drawn, End, Node, Settings, Sketch, of_topo
from testbed.network.validate_addresses import address_problems
from testbed.network.where import Place, unknown_node

_LOG = logging.getLogger(__name__)

Specs = tuple[LinkSpec, LinkSpec]
Choose = Callable[[Specs], Any]


def refuse_bad(
    topo: Topo, settings: Settings | None = None, *, choose: Choose | None = None
) -> None:
    """Raise `TopologyError` unless `topo` can be built; `choose` names a link's engine, or raises.

    Raises `FeatureError` where nothing but this machine is in the way.
    """
    sketch = of_topo(topo, settings or Settings())
    _report([*problems(sketch, choose), *expectation_problems(topo, sketch)])


def refuse_bad_sketch(sketch: Sketch) -> None:
    """The same for a network made call by call; each call was checked by itself already."""
    _report([*loops(sketch), *address_problems(sketch), *lonely(sketch)])


def _report(found: Iterable[Problem]) -> None:
    problems = list(found)
    for problem in in_order(p for p in problems if p.warning):
        _LOG.warning("%s", problem)
    refused = in_order(p for p in problems if not p.warning)
    if refused:
        raise refusal(refused)


def problems(sketch: Sketch, choose: Choose | None = None) -> Iterator[Problem]:
    """Everything that is wrong with a topology, in no particular order."""
    yield from _written_twice(sketch)
    yield from _names(sketch)
    yield from _interfaces(sketch)
    yield from _links(sketch, choose)
    yield from _ports(sketch)
    yield from loops(sketch)
    yield from lonely(sketch)
    yield from address_problems(sketch)


def expectation_problems(topo: Topo, sketch: Sketch) -> Iterator[Problem]:
    """What is wrong with what the topology states of itself."""
    for each in stated(topo):
        for mistake in each.mistakes(sketch):
            yield Problem(f"expectation ({each}): {mistake}", "name what is there", each.place)


# -- nodes and names -----------------------------------------------------------------------------


def _written_twice(sketch: Sketch) -> Iterator[Problem]:
    for name, first, second in sketch.written.twice if sketch.written else ():
        where = f" (the first: {first})" if first else ""
        yield Problem(f"there are two nodes named {name!r}{where}", "rename one of them", second)


def _names(sketch: Sketch) -> Iterator[Problem]:
    known = sketch.written.nodes if sketch.written else sketch.nodes
    for node in sketch.nodes.values():
        if node.name not in known:
            error = unknown_node(node.name, known)
            yield Problem(error.message, error.remedy, node.ends[0].place if node.ends else None)
            continue
        with found_by(node.place) as found:
            rules.node_name(node.name)
            if node.cls is not None and issubclass(node.cls, OurNode):
                node.cls.check(node.name, node.params)
            if node.is_interface:
                rules.interface_name(node.name, node=node.name)
        yield from found
        for carrier in node.carriers:
            if carrier not in known:
                error = unknown_node(carrier, known, what=f"{node.name} is to run on")
                yield Problem(error.message, error.remedy, node.place)


def _interfaces(sketch: Sketch) -> Iterator[Problem]:
    """Names of interfaces: each one good, and no two the same in one namespace."""
    taken: dict[tuple[str, Any], End | Node] = {
        ("", node.name): node for node in sketch.nodes.values() if node.is_interface
    }
    for end in _ends(sketch):
        with found_by(end.place) as found:
            rules.interface_name(end.name)
        yield from found
        key = ("" if end.node.shares_namespace else end.node.name, end.name)
        other = taken.setdefault(key, end)
        if other is not end:
            yield Problem(
                f"two interfaces named {end.name!r}: of {_described(end)}, and {_described(other)}",
                _rename_remedy(end), end.place,
            )  # fmt: skip


def _described(end: End | Node) -> str:
    if isinstance(end, Node):
        return f"the switch {end.name} itself"
    one, two = (each.node.name for each in end.link.ends)
    number = end.link.ends.index(end)
    line = f" ({end.place})" if end.place else ""
    return f"{end.node.name}'s end {number + 1} of the link {one} - {two}{line}"


def _rename_remedy(end: End) -> str:
    generated = end.name == f"{end.node.name}-eth{end.port!r}"
    return "give port1= / port2= once each, or intfName1=" if generated else "rename one of them"


def _ends(sketch: Sketch) -> Iterator[End]:
    return (end for link in sketch.links for end in link.ends)


# -- links ---------------------------------------------------------------------------------------


def _links(sketch: Sketch, choose: Choose | None) -> Iterator[Problem]:
    judged: dict[Specs, TestbedError | None] = {}
    for link in sketch.links:
        if link.params is None:
            continue
        try:
            specs, _rest = take_specs(link.params)
        except UserError as error:
            yield Problem.of(error, link.place, f"link {_named(link)}: ")
            continue
        if specs is not None and choose is not None:
            if specs not in judged:
                judged[specs] = _chosen(choose, specs)
            if (refused := judged[specs]) is not None:
                yield Problem.of(refused, link.place, f"link {_named(link)}: ")


def _chosen(choose: Choose, specs: Specs) -> TestbedError | None:
    try:
        choose(specs)
    except TestbedError as error:
        return error
    return None


def _named(link: Drawn) -> str:
    return " - ".join(end.node.name for end in link.ends)


def _ports(sketch: Sketch) -> Iterator[Problem]:
    for node in sketch.nodes.values():
        if node.bridge and len(node.ends) > rules.BRIDGE_PORTS:
            yield too_many_ports(node.name, len(node.ends), node.place)
        seen: dict[Any, End] = {}
        for end in node.ends:
            other = seen.setdefault(end.port, end)
            if other is not end and other.name != end.name:
                yield Problem(
                    f"port {end.port} of {node.name} is given to {other} and {end}",
                    "give each link a port of its own, or leave ports out", end.place,
                )  # fmt: skip


def too_many_ports(name: str, count: int, place: Place | None) -> Problem:
    """A bridge with more ports than Linux gives one."""
    return Problem(
        f"bridge {name} has {count} ports, and a Linux bridge takes {rules.BRIDGE_PORTS}",
        "spread them over several bridges, or use cls=OVSSwitch", place,
    )  # fmt: skip


# -- who is joined to whom -----------------------------------------------------------------------


def loops(sketch: Sketch) -> Iterator[Problem]:
    """Links that close a loop of bridges none of which runs spanning tree."""
    bridged: Sets[Node] = Sets()
    switched: Sets[Node] = Sets()
    closing, doubtful = [], []
    for link in sketch.links:
        one, two = (end.node for end in link.ends)
        if not (one.learns and two.learns):
            continue
        apart = switched.join(one, two)
        if one.floods and two.floods and not bridged.join(one, two):
            closing.append(link)
        elif not apart:
            doubtful.append(link)
    if closing:
        yield loop(_named(closing[0]), closing[0].place, len(closing) - 1)
    elif doubtful:
        yield loop(_named(doubtful[0]), doubtful[0].place, len(doubtful) - 1)._replace(warning=True)


def loop(link: str, place: Place | None, others: int = 0) -> Problem:
    """A loop of bridges: the first broadcast would go round for ever, at the machine's expense."""
    more = f" (and {others} more)" if others else ""
    return Problem(
        f"link {link}{more} closes a loop of bridges without spanning tree, "
        "in which every broadcast goes round for ever",
        "give one of them addSwitch(..., stp=True), use routers, or leave the link out", place,
    )  # fmt: skip


def lonely(sketch: Sketch) -> Iterator[Problem]:
    """Hosts that reach nobody: odd, but they can be meant."""
    joined = {
        end.node.name
        for part in sketch.segments
        if len({end.node.name for end in part}) > 1
        for end in part
    }
    joined |= {n.name for n in sketch.nodes.values() if n.carriers}
    alone = [n for n in sketch.nodes.values() if not n.switch and n.name not in joined]
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        yield Problem(f"{alone[0].name}{more} reaches no other node", "", alone[0].place, True)
