"""IPRewriter: connections get other addresses and ports, and their answers the first ones back.

Which connection is translated how is the business of the kernel's connection tracking; a
connection's mark keeps the number of its mapping, so that answers and later packets find their
outputs.  The kernel changes destinations before it routes and sources when it has routed.

Source: the Click manual, IPRewriter(n).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from testbed.vnf import marks
from testbed.vnf.click.graph import Argument
from testbed.vnf.elements.arguments import Arguments
from testbed.vnf.elements.base import UNLIMITED, Context, Element, Flow, Handlers, Ports, element

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?[#?]?")
_PATTERN = "SADDR SPORT DADDR DPORT FOUTPUT ROUTPUT"


@dataclass(frozen=True)
class Pattern:
    """What becomes of a connection: "" keeps what it has.  Outputs of it and of its answers."""

    source: str = ""
    source_port: str = ""
    destination: str = ""
    destination_port: str = ""
    forward: int = 0
    reply: int = 0

    def dnat(self) -> list[str]:
        """Rules of the kernel's translation of destinations."""
        return _translation("dnat", self.destination, self.destination_port)

    def snat(self) -> list[str]:
        """Rules of the kernel's translation of sources."""
        return _translation("snat", self.source, self.source_port)


def _translation(verb: str, address: str, port: str) -> list[str]:
    if not address:
        return []
    family = "ip6" if ":" in address else "ip"
    plain = f"{verb} {family} to {address}"
    if not port:
        return [plain]
    shown = f"[{address}]" if family == "ip6" else address
    return [f"meta l4proto {{ tcp, udp }} {verb} {family} to {shown}:{port}", plain]


@dataclass(frozen=True)
class Choice:
    """One of several patterns for each new connection: nft's expression, and each one's share."""

    selector: str  # "numgen inc", "jhash ip saddr"
    patterns: tuple[Pattern, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True)
class Spec:
    """What an input does with packets of connections that have no mapping yet."""

    kind: str  # "drop", "pass", "choice", or "mapper" with the element's name
    output: int = 0
    choice: Choice | None = None
    mapper: str = ""


def single(pattern: Pattern) -> Spec:
    """The input's new connections all get `pattern`."""
    return Spec("choice", choice=Choice("", (pattern,), (1,)))


class Rewriter(Element):
    """Base of elements that give connections mappings."""

    inputs = Ports(1, UNLIMITED)
    outputs = Ports(1, UNLIMITED)
    flow = (Flow.PUSH, Flow.PUSH)
    translates = True
    handlers = Handlers(("mappings", "nmappings"))
    specs: tuple[Spec, ...]

    def exact_inputs(self) -> int | None:
        return len(self.specs)

    def input_chain(self, port: int) -> str:
        return f"{self.chain}_{port}"

    def find_mappers(self, mappers: Callable[[str], Choice]) -> None:
        """Put in what mapper elements say; raises `ClickError` for one that is not there."""
        self.specs = tuple(
            Spec("choice", choice=mappers(spec.mapper)) if spec.kind == "mapper" else spec
            for spec in self.specs
        )

    @property
    def patterns(self) -> list[Pattern]:
        """All patterns, by input."""
        return [p for spec in self.specs if spec.choice for p in spec.choice.patterns]

    @property
    def mapping_numbers(self) -> tuple[int, ...]:
        """The numbers of this element's mappings in connection marks."""
        return tuple(self._numbers.values())

    def exact_outputs(self) -> int | None:
        passed = [spec.output for spec in self.specs if spec.kind == "pass"]
        return (
            max([*passed, *(o for p in self.patterns for o in (p.forward, p.reply))], default=0) + 1
        )

    def rules(self, context: Context, port: int) -> list[str]:
        if not hasattr(self, "_numbers"):
            self._numbers = {
                pattern: context.mapping(self.element) for pattern in dict.fromkeys(self.patterns)
            }
            for pattern, number in self._numbers.items():
                self._add_mapping(context, pattern, number)
        known = {number: f"goto {self.chain}_known{number}" for number in self._numbers.values()}
        known_first = marks.by_connection(marks.MAPPING, known) if known else []
        return known_first + self._new(context, self.specs[port])

    def _new(self, context: Context, spec: Spec) -> list[str]:
        if spec.kind == "pass":
            return [context.lead(self.name, spec.output)]
        if spec.choice is None:
            return ["drop"]
        chains = [f"goto {self.chain}_new{self._numbers[p]}" for p in spec.choice.patterns]
        if not spec.choice.selector:
            return [f"ct state new {chains[0]}", "drop"]
        cases, start = [], 0
        for weight, chain in zip(spec.choice.weights, chains, strict=True):
            end = start + weight - 1
            cases.append(f"{start}-{end} : {chain}" if end > start else f"{start} : {chain}")
            start = end + 1
        selector = f"{spec.choice.selector} mod {start}"
        return [f"ct state new {selector} vmap {{ {', '.join(cases)} }}", "drop"]

    def _add_mapping(self, context: Context, pattern: Pattern, number: int) -> None:
        source, destination = bool(pattern.source), bool(pattern.destination)
        forward = context.lead_translated(
            self.name, pattern.forward, source=source, destination=destination
        )
        reply = context.lead_translated(
            self.name, pattern.reply, source=destination, destination=source
        )
        chains = context.parts.chains
        chains[f"{self.chain}_known{number}"] = [f"ct direction original {forward}", reply]
        mapped = marks.set_connection(number, marks.MAPPING)
        chains[f"{self.chain}_new{number}"] = [mapped, forward]
        if source:
            context.parts.snat[number] = pattern.snat()
        if destination:
            context.parts.dnat[number] = pattern.dnat()


@element("IPRewriter", "TCPRewriter", "UDPRewriter")
class IPRewriter(Rewriter):
    """INPUTSPEC, ...: for each input, what happens to packets of connections not seen before:
    `drop`, `pass OUTPUT`, `keep FOUTPUT ROUTPUT`,
    `pattern SADDR SPORT DADDR DPORT FOUTPUT ROUTPUT`, or the name of a mapper element.
    """

    def read(self, arguments: Arguments) -> None:
        arguments.ignore("TCP_TIMEOUT", "UDP_TIMEOUT", "TCP_DONE_TIMEOUT", "TCP_GUARANTEE",
                         "UDP_GUARANTEE", "REAP_INTERVAL", "REAP_TIME", "MAPPING_CAPACITY",
                         "DST_ANNO", "REPLY_ANNO", "UDP_STREAMING_TIMEOUT", "TCP_NODATA_TIMEOUT",
                         "GUARANTEE")  # fmt: skip
        specs = arguments.rest()
        if not specs:
            arguments.next("INPUTSPEC, ...")
        self.specs = tuple(self._spec(spec) for spec in specs)

    def _spec(self, spec: Argument) -> Spec:
        word, *rest = spec.text.split() or [""]
        if word in ("drop", "discard") and not rest:
            return Spec("drop")
        if word in ("pass", "passthrough", "nochange"):
            return Spec("pass", output=self._output(rest[0] if rest else "0", spec))
        if word == "keep":
            outputs = [self._output(each, spec) for each in rest]
            if len(outputs) != 2:
                raise self.wrong(f"{spec.text[:40]!r}", "write keep FOUTPUT ROUTPUT", spec)
            return single(Pattern(forward=outputs[0], reply=outputs[1]))
        if word == "pattern":
            return single(self.pattern(rest, spec))
        if not rest:
            return Spec("mapper", mapper=word)
        raise self.wrong(
            f"{spec.text[:40]!r} is no input specification",
            f"write drop, pass OUTPUT, keep FOUTPUT ROUTPUT or pattern {_PATTERN}",
            spec,
        )

    def _output(self, word: str, spec: Argument) -> int:
        if not word.isdigit() or int(word) >= UNLIMITED:
            raise self.wrong(f"{word[:20]!r} is no output", "give its number", spec)
        return int(word)

    def pattern(self, words: list[str], spec: Argument) -> Pattern:
        """A pattern of four fields and two outputs."""
        return read_pattern(self, words, spec)


def read_pattern(owner: Element, words: list[str], spec: Argument) -> Pattern:
    """`SADDR SPORT DADDR DPORT FOUTPUT ROUTPUT`; raises `ClickError` at `spec`."""
    if len(words) != 6 or not all(w.isdigit() and int(w) < UNLIMITED for w in words[4:]):
        raise owner.wrong(f"{spec.text[:60]!r} is no pattern", f"write pattern {_PATTERN}", spec)
    source, destination = _address(owner, words[0], spec), _address(owner, words[2], spec)
    source_port, destination_port = _port(owner, words[1], spec), _port(owner, words[3], spec)
    if (source_port and not source) or (destination_port and not destination):
        raise owner.wrong("a port is changed, and its address is not", "give both", spec)
    forward, reply = int(words[4]), int(words[5])
    return Pattern(source, source_port, destination, destination_port, forward, reply)


def _address(owner: Element, word: str, spec: Argument) -> str:
    if word == "-":
        return ""
    try:
        ends = [ipaddress.ip_address(end) for end in word.split("-")]
        if len(ends) <= 2 and len({end.version for end in ends}) == 1 and ends == sorted(ends):
            return "-".join(map(str, ends))
    except (ValueError, TypeError):
        pass
    raise owner.wrong(f"{word[:40]!r} is no address", "write one such as 10.0.0.1, or -", spec)


def _port(owner: Element, word: str, spec: Argument) -> str:
    if word == "-":
        return ""
    match = _PORTS.fullmatch(word)
    ends = [int(end) for end in match.groups() if end] if match else []
    if not ends or max(ends) > 65535 or min(ends) < 1 or ends != sorted(ends):
        raise owner.wrong(
            f"{word[:40]!r} is no port", "write one such as 80, a range 1024-65535, or -", spec
        )
    return "-".join(map(str, ends))


@element("HTTPCache")
class HTTPCache(Element):
    """[PORT 3128] [, DPORT 80]: TCP to DPORT is given to a proxy that listens in the function.

    The proxy learns the first destination by SO_ORIGINAL_DST; what it sends itself does not pass
    the graph.
    """

    translates = True
    flow = (Flow.PUSH, Flow.PUSH)

    def read(self, arguments: Arguments) -> None:
        port = arguments.keyword("PORT") or arguments.optional()
        target = arguments.keyword("DPORT") or arguments.optional()
        self.port = arguments.integer(port, "PORT", 1, 65535) if port else 3128
        self.target = arguments.integer(target, "DPORT", 1, 65535) if target else 80

    def rules(self, context: Context, port: int) -> list[str]:
        number = context.mapping(self.element)
        context.parts.local = True
        context.parts.dnat[number] = [f"meta l4proto tcp redirect to :{self.port}"]
        mapped = marks.set_connection(number, marks.MAPPING)
        return [
            f"{marks.connection_is(number, marks.MAPPING)} accept",
            f"meta l4proto tcp th dport {self.target} ct state new {mapped} accept",
            context.lead(self.name, 0),
        ]
