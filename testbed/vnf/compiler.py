"""A graph to one program for the kernel: nftables rules, routing by mark, traffic control.

    prerouting -150   the graph: one chain for each input of an element, from `FromDevice` on
    prerouting -100   translation of destinations (IPRewriter, LoadBalancer, HTTPCache)
    prerouting  -90   the rest of the graph, where it looks at translated destinations
    routing           the device and next hop that the mark names
    postrouting 100   translation of sources
    postrouting 200   the class of traffic control that the mark names

A packet that reaches no `ToDevice` or `ToHost` is dropped.  What cannot be compiled is a
`ClickError` that names the element and its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testbed.errors import UserError
from testbed.vnf import marks, pulling, wiring
from testbed.vnf.click import Graph, GraphElement, elaborate, parse
from testbed.vnf.elements import REGISTRY, Element, Flow, Parts
from testbed.vnf.elements.balancing import Mapper
from testbed.vnf.elements.classification import Classifier
from testbed.vnf.elements.counting import Counter, Tee
from testbed.vnf.elements.devices import Discard, FromDevice, ToDevice
from testbed.vnf.elements.passing import Strip
from testbed.vnf.elements.queueing import Queue, Unqueue
from testbed.vnf.elements.rewriting import Choice, Rewriter
from testbed.vnf.program import ENTRANCE, Exit, Program

__all__ = ["Program", "compile_file", "compile_graph", "compile_text"]


def compile_text(
    text: str, *, file: str = "config", values: Mapping[str, str] | None = None
) -> Program:
    """Compile a configuration; `values` are those of its variables.  Raises `ClickError`."""
    graph = elaborate(parse(text, file), frozenset(REGISTRY), values, file)
    return compile_graph(graph)


def compile_file(path: Path, *, values: Mapping[str, str] | None = None) -> Program:
    """Compile a file; raises `UserError` where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path}: {reason}", remedy="name a Click configuration") from None
    return compile_text(text, file=str(path), values=values)


def compile_graph(graph: Graph) -> Program:
    """Compile a graph; raises `ClickError`."""
    elements = {each.name: REGISTRY[each.kind](each) for each in graph.elements.values()}
    for element in elements.values():
        if isinstance(element, Rewriter):
            element.find_mappers(_mappers(elements, element))
    flows = wiring.check(graph, elements)
    return _Compiler(graph, elements, flows).program()


def _mappers(elements: dict[str, Element], rewriter: Rewriter) -> Callable[[str], Choice]:
    """Finds the mapper elements that a rewriter names."""
    prefix = rewriter.name.rpartition("/")[0]

    def find(name: str) -> Choice:
        found = elements.get(f"{prefix}/{name}" if prefix else name)
        if not isinstance(found, Mapper):
            raise rewriter.wrong(
                f"{name[:40]!r} is no input specification and no mapper",
                "write drop, pass, keep, pattern, or a mapper element's name",
            )
        return found.choice

    return find


@dataclass
class _Compiler:
    """One compilation; is what elements see as their `Context`."""

    graph: Graph
    elements: dict[str, Element]
    flows: dict[str, Flow]
    parts: Parts = field(default_factory=Parts)
    _devices: dict[str, int] = field(default_factory=dict)
    _gateways: dict[str, int] = field(default_factory=dict)
    _hops: set[tuple[str, str]] = field(default_factory=set)
    _resumes: dict[str, int] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)

    def program(self) -> Program:
        self._number_classes()
        self._mark_stripped()
        chains: dict[str, list[str]] = {}
        for element in self.elements.values():
            for port in self._pushed_inputs(element):
                chain = element.input_chain(port)
                if chain not in chains:
                    chains[chain] = self._rules(element, port)
        base, first = self._base_chains()
        chains = {**first, **chains, **self.parts.chains}
        devices = dict.fromkeys(
            e.device for e in self.elements.values() if isinstance(e, FromDevice)
        )
        devices.update(dict.fromkeys(self._devices))
        return Program(
            graph=self.graph,
            elements=self.elements,
            family=self._family,
            objects=self.parts.objects,
            chains=chains,
            base_chains=base,
            strings=tuple(self.parts.strings),
            devices=tuple(devices),
            exits=tuple(self._exits()),
            queues=tuple(self._queues.values()),
            local=self.parts.local,
        )

    @property
    def _family(self) -> str:
        """Copies to a device exist for one family only; all else serves both."""
        return "ip" if any(isinstance(each, Tee) for each in self.elements.values()) else "inet"

    # -- the pushing side -------------------------------------------------------------------

    def _pushed_inputs(self, element: Element) -> list[int]:
        """Inputs that become chains: those that packets are pushed to."""
        if element.transparent or isinstance(element, Discard):
            return []
        ports = {each.target.number for each in self.graph.inputs(element.name)}
        flow = self.flows.get(element.name, element.flow[0])
        if isinstance(element, ToDevice):  # also what was queued goes through its rules
            return [0]
        return [] if flow is Flow.PULL else sorted(ports)

    def _rules(self, element: Element, port: int) -> list[str]:
        if isinstance(element, Queue):
            return self._queue_rules(element)
        return element.rules(self, port)

    def _queue_rules(self, queue: Queue) -> list[str]:
        puller = pulling.root(self.graph, self.elements, queue.name)
        lead = self._verdict(puller, 0) if not isinstance(puller, Unqueue) else ""
        if isinstance(puller, Unqueue):
            return [self.lead(puller.name, 0)]
        number = self._class_numbers.get(queue.name)
        return [*([marks.set_packet(number, marks.CLASS)] if number else []), lead]

    def _verdict(self, element: Element, port: int) -> str:
        return "drop" if isinstance(element, Discard) else f"goto {element.input_chain(port)}"

    def lead(self, element: str, output: int) -> str:
        """The verdict that passes a packet on by an output; "drop" where it is not connected."""
        for connection in self.graph.outputs(element):
            if connection.source.number == output:
                target = self.elements[connection.target.element]
                if target.transparent:
                    return self.lead(target.name, 0)
                return self._verdict(target, connection.target.number)
        return "drop"

    def lead_translated(self, element: str, output: int, *, source: bool, destination: bool) -> str:
        """The verdict for what follows a translation of the source or the destination."""
        lead = self.lead(element, output)
        following = [self.elements[name] for name in self._behind(element, output)]
        for each in following:
            if each.translates:
                raise each.wrong(
                    f"connections come to it that {element} has translated",
                    "the kernel translates a connection once: use one of them",
                )
            if source and "source" in each.looks_at:
                raise each.wrong(
                    f"it looks at sources that {element} has translated",
                    "put it before, or test the destination: the kernel changes sources last",
                )
        if not destination or not any("destination" in each.looks_at for each in following):
            return lead
        return self._resume(lead, self.elements[element])

    def _resume(self, lead: str, element: Element) -> str:
        """Go on with `lead` when destinations have been translated."""
        if lead not in self._resumes:
            number = len(self._resumes) + 1
            self._check_number(number, marks.RESUME, element.element, "ways on from rewriters")
            self._resumes[lead] = number
            self.parts.chains[f"resume_{number}"] = [
                marks.set_packet(number, marks.RESUME),
                "accept",
            ]
        return f"goto resume_{self._resumes[lead]}"

    def _behind(self, element: str, output: int) -> list[str]:
        """Names of all elements that packets may come to by an output."""
        found: dict[str, None] = {}
        waiting = [
            each.target.element
            for each in self.graph.outputs(element)
            if each.source.number == output
        ]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = None
                waiting += [each.target.element for each in self.graph.outputs(name)]
        return list(found)

    def mirror(self, element: str, output: int) -> list[str]:
        """Statements that copy a packet to the device that an output leads to."""
        statements: list[str] = []
        while True:
            found = [c for c in self.graph.outputs(element) if c.source.number == output]
            if not found:
                return []
            target = self.elements[found[0].target.element]
            if isinstance(target, Discard):
                return statements
            if isinstance(target, ToDevice):
                return [*statements, f'dup to ip daddr device "{target.device}"']
            if isinstance(target, Counter):
                statements.append(target.rules(self, 0)[0])
            elif not target.transparent and not isinstance(target, Queue):
                raise target.wrong(
                    "it cannot take a Tee's copies",
                    "lead outputs of a Tee other than 0 to ToDevice, over Counter at most",
                )
            element, output = target.name, 0

    # -- numbers ----------------------------------------------------------------------------

    def exit(self, device: str, element: GraphElement) -> str:
        """The statement that sends a packet out of a device."""
        number = self._devices.setdefault(device, len(self._devices) + 1)
        self._check_number(number, marks.DEVICE, element, "devices")
        return f"{marks.set_packet(number, marks.DEVICE)} accept"

    def gateway(self, address: str, element: str, output: int) -> str:
        """The statement that says which next hop packets that leave by `output` go to."""
        number = self._gateways.setdefault(address, len(self._gateways) + 1)
        self._check_number(number, marks.GATEWAY, self.graph.elements[element], "next hops")
        for name in self._behind(element, output):
            target = self.elements[name]
            if isinstance(target, ToDevice):
                self._hops.add((target.device, address))
        return marks.replace_packet(number, marks.GATEWAY)

    def mapping(self, element: GraphElement) -> int:
        """A number for connections that are translated alike."""
        return self._number(marks.MAPPING, element, "mappings")

    def label(self, element: GraphElement) -> int:
        """A number for connections in which something was found."""
        return self._number(marks.LABEL, element, "texts")

    def _number(self, mask: int, element: GraphElement, what: str) -> int:
        number = self._counts[mask] = self._counts.get(mask, 0) + 1
        self._check_number(number, mask, element, what)
        return number

    def _check_number(self, number: int, mask: int, element: GraphElement, what: str) -> None:
        if number > marks.most(mask):
            raise self.elements[element.name].wrong(
                f"more than {marks.most(mask)} {what}", "make two functions of it"
            )

    def _exits(self) -> list[Exit]:
        """Each device, and each device with each next hop that packets may come to it with."""
        found = [
            Exit(marks.shifted(number, marks.DEVICE), device)
            for device, number in self._devices.items()
        ]
        for device, gateway in sorted(self._hops):
            mark = marks.shifted(self._devices[device], marks.DEVICE)
            mark |= marks.shifted(self._gateways[gateway], marks.GATEWAY)
            found.append(Exit(mark, device, gateway))
        return found

    # -- the pulling side -------------------------------------------------------------------

    def _number_classes(self) -> None:
        numbers = itertools.count(1)
        self._queues: dict[str, pulling.DeviceQueues] = {}
        self._class_numbers: dict[str, int] = {}
        for element in self.elements.values():
            if isinstance(element, ToDevice):
                found = pulling.device_queues(self.graph, self.elements, element, numbers)
                if found.classes:
                    self._queues[element.device] = found
        for queues in self._queues.values():
            for each in queues.classes:
                if each.queue:
                    self._check_number(each.minor, marks.CLASS, each.queue.element, "queues")
                    self._class_numbers[each.queue.name] = each.minor

    def _mark_stripped(self) -> None:
        """Tell classifiers behind a Strip(14) that there is no Ethernet header any more."""
        for element in self.elements.values():
            if isinstance(element, Strip):
                for name in self._behind(element.name, 0):
                    classifier = self.elements[name]
                    if isinstance(classifier, Classifier) and not classifier.stripped:
                        classifier.strip()

    # -- base chains ------------------------------------------------------------------------

    def _base_chains(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Hooks, and the rules they begin with."""
        hooks = {ENTRANCE: "type filter hook prerouting priority -150;"}
        rules = {ENTRANCE: self._entrance()}
        if self.parts.local:
            hooks["own"] = "type filter hook output priority -150;"
            rules["own"] = [f"ct state new {marks.set_connection(1, marks.OWN)}"]
        for name, found, hook in (
            ("translate_destination", self.parts.dnat, "prerouting priority -100"),
            ("translate_source", self.parts.snat, "postrouting priority 100"),
        ):
            if found:
                hooks[name] = f"type nat hook {hook};"
                verdicts = {number: f"goto {name}_{number}" for number in found}
                rules[name] = marks.by_connection(marks.MAPPING, verdicts)
                rules |= {f"{name}_{number}": each for number, each in found.items()}
        if self._resumes:
            hooks["translated"] = "type filter hook prerouting priority -90;"
            leads = {number: lead for lead, number in self._resumes.items()}
            rules["translated"] = marks.by_packet(marks.RESUME, leads)
        if self._class_numbers:
            hooks["traffic_class"] = "type filter hook postrouting priority 200;"
            classes = ", ".join(
                f"{marks.shifted(number, marks.CLASS):#x} : 1:{number:x}"
                for number in self._class_numbers.values()
            )
            rules["traffic_class"] = [
                f"meta priority set meta mark and {marks.CLASS:#x} map {{ {classes} }}"
            ]
        return hooks, rules

    def _entrance(self) -> list[str]:
        leads = {
            element.device: self.lead(element.name, 0)
            for element in self.elements.values()
            if isinstance(element, FromDevice)
        }
        found = []
        if self.parts.local:
            found.append(f"{marks.connection_is(1, marks.OWN)} accept")
        if len(leads) > marks.FEW:
            cases = ", ".join(f'"{device}" : {lead}' for device, lead in leads.items())
            found.append(f"iifname vmap {{ {cases} }}")
        else:
            found += [f'iifname "{device}" {lead}' for device, lead in leads.items()]
        return [*found, "fib daddr type local accept", "drop"]
