"""Elements that become no rule: the kernel does their work on every packet anyway."""

from __future__ import annotations

from testbed.vnf.elements.arguments import Arguments
from testbed.vnf.elements.base import Context, Element, Ports, element


@element("Null", "CheckLength", "SetIPChecksum", "CheckTCPHeader", "CheckUDPHeader",
         "CheckICMPHeader", "SetTCPChecksum", "SetUDPChecksum", "GetIPAddress", "EtherEncap",
         "Unstrip", "MarkIPHeader", "FixIPSrc", "DropBroadcasts")  # fmt: skip
class Passing(Element):
    """Any arguments.  The kernel checks, computes or builds this by itself."""

    outputs = Ports(1, 2)
    transparent = True

    def read(self, arguments: Arguments) -> None:
        arguments.rest()


@element()
class Strip(Element):
    """LENGTH, 14: from here on a Classifier counts from the IP header."""

    transparent = True

    def read(self, arguments: Arguments) -> None:
        length = arguments.next("LENGTH")
        if arguments.integer(length, "LENGTH", 0, 65535) != 14:
            raise self.wrong("only an Ethernet header can be stripped", "write Strip(14)", length)


@element()
class DecIPTTL(Passing):
    """Any arguments.  The kernel does this, and answers by ICMP where a packet has expired."""


@element()
class ARPQuerier(Passing):
    """Any arguments.  The kernel resolves addresses; input 1 takes answers, which it keeps."""

    inputs = Ports(1, 2)


@element()
class ARPResponder(Element):
    """Any arguments.  The kernel answers for the function's own addresses."""

    outputs = Ports(0, 1)

    def read(self, arguments: Arguments) -> None:
        arguments.rest()

    def rules(self, context: Context, port: int) -> list[str]:
        return ["drop"]  # IP packets have no business here, and others never get to it


@element("CheckIPHeader", "CheckIPHeader2")
class CheckIPHeader(Element):
    """[BADSRC ADDRESS...].  The kernel checks headers; bad sources go to output 1, or away."""

    outputs = Ports(1, 2)

    def read(self, arguments: Arguments) -> None:
        arguments.ignore("OFFSET", "VERBOSE", "DETAILS", "CHECKSUM")
        self.bad: list[str] = []
        listed = [*arguments.keywords("BADSRC"), *arguments.rest()]
        for argument in listed:
            if argument.text.isdigit():
                continue  # the offset, as CheckIPHeader(14) has it
            for word in argument.text.split():
                self.bad.append(str(arguments.address(argument._replace(text=word))))
        self.transparent = not self.bad

    @property
    def looks_at(self) -> frozenset[str]:
        return frozenset({"source"} if self.bad else ())

    def rules(self, context: Context, port: int) -> list[str]:
        found = []
        for family in ("ip", "ip6"):
            bad = [address for address in self.bad if (":" in address) == (family == "ip6")]
            if bad:
                match = f"{family} saddr {{ {', '.join(bad)} }}"
                found.append(f"{match} {context.lead(self.name, 1)}")
        return [*found, context.lead(self.name, 0)]
