"""Sharing connections between servers: mappers for IPRewriter, and LoadBalancer.

Source: the Click manual, RoundRobinIPMapper(n), SourceIPHashMapper(n).
"""

from __future__ import annotations

from testbed.vnf.click.graph import Argument
from testbed.vnf.elements.arguments import Arguments
from testbed.vnf.elements.base import NONE, Element, Handlers, Ports, element
from testbed.vnf.elements.rewriting import Choice, Pattern, Rewriter, Spec, read_pattern

_SELECTORS = {"rr": "numgen inc", "random": "numgen random", "hash": "jhash ip saddr . th sport",
              "source": "jhash ip saddr"}  # fmt: skip
_HEAVIEST = 100


class Mapper(Element):
    """Base: PATTERN, ...; named as an input of an IPRewriter, and not connected."""

    inputs = NONE
    outputs = NONE
    selector = ""

    def read(self, arguments: Arguments) -> None:
        patterns = arguments.rest()
        if not patterns:
            arguments.next("SADDR SPORT DADDR DPORT FOUTPUT ROUTPUT, ...")
        self.choice = Choice(
            self.selector,
            tuple(read_pattern(self, self._words(each), each) for each in patterns),
            (1,) * len(patterns),
        )

    def _words(self, pattern: Argument) -> list[str]:
        words = pattern.text.strip("\"'").split()
        return words[1:] if words[:1] == ["pattern"] else words


@element()
class RoundRobinIPMapper(Mapper):
    """PATTERN, ...: new connections get them in turn."""

    selector = _SELECTORS["rr"]


@element()
class SourceIPHashMapper(Mapper):
    """PATTERN, ...: a client's connections all get the same one."""

    selector = _SELECTORS["source"]


@element()
class LoadBalancer(Rewriter):
    """ADDRESS[:PORT] [WEIGHT], ... [, MODE rr|hash|source|random].

    New connections on input 0 are given to the servers and leave by output 0; answers come by
    input 1 and leave by output 1.
    """

    inputs = Ports(2, 2)
    outputs = Ports(2, 2)
    handlers = Handlers((*Rewriter.handlers.read, "servers"))

    def read(self, arguments: Arguments) -> None:
        mode = arguments.keyword("MODE")
        word = arguments.choice(mode, "MODE", tuple(_SELECTORS)) if mode else "rr"
        servers = arguments.rest()
        if not servers:
            arguments.next("ADDRESS[:PORT] [WEIGHT], ...")
        read = [self._server(each) for each in servers]
        patterns = tuple(pattern for pattern, _weight in read)
        if len(set(patterns)) < len(patterns):
            raise self.wrong("a server is named twice", "give it a WEIGHT instead", servers[-1])
        choice = Choice(_SELECTORS[word], patterns, tuple(weight for _pattern, weight in read))
        self.specs = (Spec("choice", choice=choice), Spec("drop"))

    def exact_outputs(self) -> int | None:
        return 2

    def _server(self, argument: Argument) -> tuple[Pattern, int]:
        words = argument.text.split()
        address, _, port = words[0].partition(":") if words else ("", "", "")
        weight = words[1] if len(words) == 2 else "1"
        if len(words) not in (1, 2) or not weight.isdigit() or not 1 <= int(weight) <= _HEAVIEST:
            raise self.wrong(
                f"{argument.text[:40]!r} is no server",
                f"write ADDRESS[:PORT] [WEIGHT up to {_HEAVIEST}]",
                argument,
            )
        words = ["-", "-", address, port or "-", "0", "1"]
        return read_pattern(self, words, argument), int(weight)
