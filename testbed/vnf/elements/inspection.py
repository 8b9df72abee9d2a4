"""StringMatcher: connections told apart by what is in their packets.

The search is the kernel's (xt_string).  A connection in which something was found carries a label
in its mark from then on, so that all later packets, in both directions, take the same output
without being searched.
"""

from __future__ import annotations

from testbed.vnf import marks
from testbed.vnf.click.graph import Argument
from testbed.vnf.elements.arguments import Arguments, unquoted
from testbed.vnf.elements.base import (
    UNLIMITED,
    Context,
    Element,
    Flow,
    Handlers,
    Ports,
    Stateful,
    StringRule,
    element,
)

_LONGEST = 128


@element("StringMatcher", "StringClassifier")
class StringMatcher(Element):
    """TEXT, ... [, IGNORE_CASE true]: output i for connections with TEXT i, the last for others.

    TEXT is "..." with \\n, \\x41 or \\<00 ff> in it, of up to 128 bytes.  A text that is spread
    over two packets is not found.
    """

    outputs = Ports(2, UNLIMITED)
    flow = (Flow.PUSH, Flow.PUSH)
    handlers = Handlers(("matches", "labels"), ("reset",))

    def read(self, arguments: Arguments) -> None:
        case = arguments.keyword("IGNORE_CASE")
        self.ignore_case = False
        if case:
            word = arguments.choice(case, "IGNORE_CASE", ("true", "false"))
            self.ignore_case = word == "true"
        texts = arguments.rest()
        if not texts:
            arguments.next("TEXT, ...")
        self.texts = [self._text(text) for text in texts]

    def _text(self, argument: Argument) -> bytes:
        try:
            text = unquoted(argument.text)
        except ValueError:
            text = b""
        if not 1 <= len(text) <= _LONGEST:
            raise self.wrong(
                f"{argument.text[:30]!r} cannot be searched for",
                f'write "TEXT" of up to {_LONGEST} bytes, others than letters as \\<0d 0a>',
                argument,
            )
        return text

    def exact_outputs(self) -> int | None:
        return len(self.texts) + 1

    def counter(self, number: int) -> str:
        """The counter of connections in which text `number` was found."""
        return f"{self.chain}_found{number}"

    def rules(self, context: Context, port: int) -> list[str]:
        self.labels = [context.label(self.element) for _text in self.texts]
        known = {}
        for number, (text, label) in enumerate(zip(self.texts, self.labels, strict=True)):
            lead, hit = context.lead(self.name, number), self.counter(number)
            known[label] = lead
            context.parts.objects[hit] = Stateful("counter")
            keep, value = 0xFFFFFFFF & ~marks.LABEL, marks.shifted(label, marks.LABEL)
            context.parts.chains[hit] = [
                f'counter name "{hit}"',
                f"ct mark set ct mark and {keep:#x} or {value:#x}",
                lead,
            ]
            context.parts.strings.append(
                StringRule(f"{self.chain}_search", text, hit, self.ignore_case)
            )
        rest = context.lead(self.name, len(self.texts))
        context.parts.chains[f"{self.chain}_search"] = [rest]
        return [*marks.by_connection(marks.LABEL, known), f"goto {self.chain}_search"]
