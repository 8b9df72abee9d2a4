"""Elements that choose an output by what a packet is."""

from __future__ import annotations

import re

from testbed.vnf import marks
from testbed.vnf.click.graph import Argument
from testbed.vnf.elements.arguments import Arguments
from testbed.vnf.elements.base import UNLIMITED, Context, Element, Flow, Handlers, Ports, element
from testbed.vnf.elements.filters import BadPattern, condition
from testbed.vnf.elements.predicates import (
    ALWAYS,
    All,
    Condition,
    Match,
    TooManyRules,
    lefts,
    negation,
    rules,
)

_CLAUSE = re.compile(r"(!?)(\d+)/([0-9A-Fa-f?]+)(?:%([0-9A-Fa-f]+))?")
_WIDEST = 16  # bytes that one match of nftables can look at


class Choosing(Element):
    """Base: conditions tried in order, each with the output of packets that it holds for."""

    flow = (Flow.PUSH, Flow.PUSH)
    outputs = Ports(1, UNLIMITED)
    cases: list[tuple[Condition, int | None, Argument]]  # None drops

    @property
    def looks_at(self) -> frozenset[str]:
        seen = set().union(*(lefts(case[0]) for case in self.cases))
        found = {"source" for left in seen if "saddr" in left or "sport" in left}
        found |= {"destination" for left in seen if "daddr" in left or "dport" in left}
        if any(left.startswith("@") for left in seen):
            found |= {"source", "destination"}
        return frozenset(found)

    def rules(self, context: Context, port: int) -> list[str]:
        found = []
        for what, output, argument in self.cases:
            verdict = "drop" if output is None else context.lead(self.name, output)
            try:
                found += [f"{match} {verdict}".strip() for match in rules(what)]
            except TooManyRules:
                raise self.wrong(
                    "this condition becomes too many rules", "write several", argument
                ) from None
            if what == ALWAYS:
                return found
        return [*found, "drop"]

    def condition(self, argument: Argument, text: str) -> Condition:
        """What an expression of IPFilter's says."""
        try:
            return condition(text)
        except BadPattern as error:
            raise self.wrong(error.what, error.remedy, argument) from None


@element("IPClassifier")
class IPClassifier(Choosing):
    """PATTERN, ...: the first that holds is the output; `-` is the rest; none drops."""

    def read(self, arguments: Arguments) -> None:
        patterns = arguments.rest()
        if not patterns:
            arguments.next("PATTERN, ...")
        self.cases = [
            (self.condition(pattern, pattern.text), output, pattern)
            for output, pattern in enumerate(patterns)
        ]

    def exact_outputs(self) -> int | None:
        return len(self.cases)


@element("IPFilter")
class IPFilter(Choosing):
    """ACTION PATTERN, ...: `allow` is output 0, `deny` drops, a number is an output."""

    def read(self, arguments: Arguments) -> None:
        rows = arguments.rest()
        if not rows:
            arguments.next("ACTION PATTERN, ...")
        self.cases = []
        for row in rows:
            action, _, pattern = row.text.partition(" ")
            self.cases.append((self.condition(row, pattern), self._output(action, row), row))

    def _output(self, action: str, row: Argument) -> int | None:
        if action in ("allow", "accept", "pass"):
            return 0
        if action in ("deny", "drop"):
            return None
        if action.isdigit() and int(action) < UNLIMITED:
            return int(action)
        raise self.wrong(
            f"{action[:30]!r} is no action", "begin with allow, deny or an output's number", row
        )

    def exact_outputs(self) -> int | None:
        return max((case[1] for case in self.cases if case[1] is not None), default=0) + 1


@element("Classifier")
class Classifier(Choosing):
    """PATTERN, ...: clauses `OFFSET/HEX[%MASK]`, `?` for any digit, `!` for not; `-` is the rest.

    Offsets count from the Ethernet header, behind a Strip(14) from the IP header.
    """

    stripped = False  # the compiler knows

    def read(self, arguments: Arguments) -> None:
        self.patterns = arguments.rest()
        if not self.patterns:
            arguments.next("PATTERN, ...")
        self.cases = [
            (self._pattern(pattern), output, pattern)
            for output, pattern in enumerate(self.patterns)
        ]

    def exact_outputs(self) -> int | None:
        return len(self.patterns)

    def strip(self) -> None:
        """Count offsets from the IP header."""
        self.stripped = True
        self.cases = [(self._pattern(case[2]), *case[1:]) for case in self.cases]

    def _pattern(self, pattern: Argument) -> Condition:
        if pattern.text == "-":
            return ALWAYS
        clauses = tuple(self._clause(word, pattern) for word in pattern.text.split())
        if not clauses:
            raise self.wrong("an empty pattern", "write OFFSET/HEX, or - for the rest", pattern)
        return All(clauses)

    def _clause(self, word: str, pattern: Argument) -> Condition:
        match = _CLAUSE.fullmatch(word)
        if match is None or len(match[3]) % 2 or (match[4] and len(match[4]) != len(match[3])):
            raise self.wrong(
                f"{word[:30]!r} is no pattern", "write OFFSET/HEX, such as 12/0800", pattern
            )
        value = bytes.fromhex(match[3].replace("?", "0"))
        mask = bytes.fromhex(re.sub("[0-9A-Fa-f]", "f", match[3]).replace("?", "0"))
        if match[4]:
            given = bytes.fromhex(match[4])
            mask = bytes(a & b for a, b in zip(mask, given, strict=True))
        if int(match[2]) > 1500:
            raise self.wrong("the offset is beyond a packet", "give one up to 1500", pattern)
        found = All(tuple(_payload(self._base(int(match[2])), value, mask)))
        return negation(found) if match[1] else found

    def _base(self, offset: int) -> tuple[str, int]:
        if self.stripped:
            return "nh", offset
        return ("ll", offset) if offset < 14 else ("nh", offset - 14)


def _payload(base: tuple[str, int], value: bytes, mask: bytes) -> list[Match]:
    header, offset = base
    found = []
    for start in range(0, len(value), _WIDEST):
        part, bits = value[start : start + _WIDEST], mask[start : start + _WIDEST]
        if not any(bits):
            continue
        wanted = bytes(a & b for a, b in zip(part, bits, strict=True))
        left = f"@{header},{(offset + start) * 8},{len(part) * 8}"
        if bits != b"\xff" * len(bits):
            left += f" & 0x{bits.hex()}"
        found.append(Match(left, (f"0x{wanted.hex()}",)))
    return found


# -- paint ---------------------------------------------------------------------------------------


def _color(arguments: Arguments) -> int:
    return arguments.integer(arguments.next("COLOR"), "COLOR", 0, marks.most(marks.PAINT))


@element()
class Paint(Element):
    """COLOR, 0 to 255."""

    handlers = Handlers(("color",))

    def read(self, arguments: Arguments) -> None:
        self.color = _color(arguments)

    def rules(self, context: Context, port: int) -> list[str]:
        return [marks.replace_packet(self.color, marks.PAINT), context.lead(self.name, 0)]


@element()
class CheckPaint(Element):
    """COLOR: packets of that color go to output 0, others to 1, or are dropped."""

    outputs = Ports(1, 2)
    flow = (Flow.PUSH, Flow.PUSH)
    handlers = Handlers(("color",))

    def read(self, arguments: Arguments) -> None:
        self.color = _color(arguments)

    def rules(self, context: Context, port: int) -> list[str]:
        match = marks.packet_is(self.color, marks.PAINT)
        return [f"{match} {context.lead(self.name, 0)}", context.lead(self.name, 1)]


@element()
class PaintSwitch(Element):
    """No arguments: a packet's color is its output; those without one are dropped."""

    outputs = Ports(1, UNLIMITED)
    flow = (Flow.PUSH, Flow.PUSH)

    def rules(self, context: Context, port: int) -> list[str]:
        leads = {
            color: lead
            for color in range(UNLIMITED)
            if (lead := context.lead(self.name, color)) != "drop"
        }
        return [*marks.by_packet(marks.PAINT, leads), "drop"]


@element()
class SetIPDSCP(Element):
    """DSCP, 0 to 63."""

    def read(self, arguments: Arguments) -> None:
        self.dscp = arguments.integer(arguments.next("DSCP"), "DSCP", 0, 63)

    def rules(self, context: Context, port: int) -> list[str]:
        return [f"ip dscp set {self.dscp}", context.lead(self.name, 0)]
