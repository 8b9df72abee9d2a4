"""Is a graph wired as its elements need?  Ports, pushing and pulling, cycles.

Every problem is a `ClickError` at the connection or element that has it.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from testbed.vnf.click.errors import ClickError
from testbed.vnf.click.graph import Connection, Graph
from testbed.vnf.elements import Element, Flow

_UNSHARED_INPUT = "a pulling input takes one connection; put a scheduler such as PrioSched there"


def check(graph: Graph, elements: dict[str, Element]) -> dict[str, Flow]:
    """Whether each element that would do either pushes or pulls; raises `ClickError`."""
    for element in elements.values():
        _check_ports(graph, element)
    flows = _flows(graph, elements)
    for connection in graph.connections:
        _check_flow(connection, elements, flows)
    _check_sharing(graph, elements, flows)
    _check_cycles(graph, elements)
    return flows


def _check_ports(graph: Graph, element: Element) -> None:
    sides = (
        ("input", {c.target.number for c in graph.inputs(element.name)}, element.inputs,
         element.exact_inputs()),
        ("output", {c.source.number for c in graph.outputs(element.name)}, element.outputs,
         element.exact_outputs()),
    )  # fmt: skip
    for side, used, ports, exact in sides:
        least, most = (ports.least, ports.most) if exact is None else (exact, exact)
        highest = max(used, default=-1)
        if highest >= most:
            raise element.wrong(
                f"{side} [{highest}] is connected, and it has {most or 'none'}",
                f"take the connection out, or see the {side}s of {element.element.kind}",
            )
        missing = [port for port in range(max(least, highest + 1)) if port not in used]
        if missing:
            raise element.wrong(
                f"{side} [{missing[0]}] is not connected",
                "connect it" + (" to Discard" if side == "output" else ", or take it out"),
            )


def _flows(graph: Graph, elements: dict[str, Element]) -> dict[str, Flow]:
    """The flow of elements that would do either, as their neighbours have it."""
    flows: dict[str, Flow] = {}
    changed = True
    while changed:
        changed = False
        for each in graph.connections:
            source, target = elements[each.source.element], elements[each.target.element]
            out, into = _output(source, flows), _input(target, flows)
            if out is Flow.EITHER and into is not Flow.EITHER:
                flows[source.name], changed = into, True
            elif into is Flow.EITHER and out is not Flow.EITHER and target.outputs.most:
                flows[target.name], changed = out, True
    return flows


def _output(element: Element, flows: dict[str, Flow]) -> Flow:
    return flows.get(element.name, element.flow[1])


def _input(element: Element, flows: dict[str, Flow]) -> Flow:
    return flows.get(element.name, element.flow[0])


def _check_flow(
    connection: Connection, elements: dict[str, Element], flows: dict[str, Flow]
) -> None:
    source, target = elements[connection.source.element], elements[connection.target.element]
    out, into = _output(source, flows), _input(target, flows)
    if Flow.EITHER in (out, into) or out is into:
        return
    between = "a Queue" if out is Flow.PUSH else "an Unqueue"
    raise ClickError(
        connection.place,
        f"{source.name} pushes and {target.name} pulls"
        if out is Flow.PUSH
        else f"{source.name} waits to be pulled and {target.name} to be pushed to",
        remedy=f"put {between} between them",
    )


def _check_sharing(graph: Graph, elements: dict[str, Element], flows: dict[str, Flow]) -> None:
    """A pushing output and a pulling input have one connection."""
    outputs: dict[object, Connection] = {}
    inputs: dict[object, Connection] = {}
    for each in graph.connections:
        if each.source in outputs:
            raise ClickError(
                each.place,
                f"output [{each.source.number}] of {each.source.element} is connected twice",
                remedy="put a Tee or a classifier there",
            )
        outputs[each.source] = each
        pulls = _output(elements[each.source.element], flows) is Flow.PULL
        if pulls and each.target in inputs:
            raise ClickError(
                each.place,
                f"input [{each.target.number}] of {each.target.element} is connected twice",
                remedy=_UNSHARED_INPUT,
            )
        inputs[each.target] = each


def _check_cycles(graph: Graph, elements: dict[str, Element]) -> None:
    """Packets that come by again would go round in the kernel's chains, which have no loops."""
    follows: dict[str, set[str]] = {name: set() for name in elements}
    for each in graph.connections:
        follows[each.source.element].add(each.target.element)
    try:
        tuple(TopologicalSorter(follows).static_order())
    except CycleError as error:
        around = list(reversed(error.args[1]))
        raise elements[around[0]].wrong(
            f"packets would go round: {' -> '.join(around)}",
            "break the cycle, which the kernel's rules cannot have",
        ) from None
